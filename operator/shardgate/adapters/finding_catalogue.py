"""What each finding means, for the documentation: one source beside the codes, rendered by ``make generate``."""

from shardgate.domain.codes import CLASS_OF_CODE, WORST_OF_CODE
from shardgate.domain.verdict import FindingClass

MEANINGS: dict[str, str] = {
    "WorldSizeMismatch": "The ranks of a replica cannot be shared evenly by its pods. SGLang and TensorRT-LLM refuse to start; "
    "vLLM refuses with its own launcher and leaves GPUs over with Ray.",
    "HeadsUneven": "The attention heads do not divide by the tensor width, and the engine demands it.",
    "KvHeadsUneven": "The KV heads neither divide by the tensor width nor divide it, and the engine demands one of the two.",
    "VocabularyUneven": "The vocabulary, padded to a multiple of 64, does not divide by the tensor width. Powers of two up to 64 "
    "always do.",
    "WidthUnsupported": "The engine does not have this width, or this combination of widths: powers of two only, decode context "
    "against KV heads, prefill context with data ranks, external load balancing of a dense model.",
    "ExpertsUneven": "The experts cannot be dealt out evenly to their ranks, and the engine demands it. vLLM tolerates a remainder "
    "unless it balances experts (EPLB).",
    "QuantizationBlockUneven": "The split over ranks cuts a block or group of quantised weights that share a scale.",
    "PipelineUnsupported": "The engine's version cannot cut this class of model into pipeline stages.",
    "ContextTooLong": "More tokens are declared than the model has positions for.",
    "LayersTooFew": "The pipeline has more stages than the model has layers.",
    "DeclarationContradicts": "Two parts of the declaration cannot both hold.",
    "WeightsDoNotFit": "The weights of the fullest rank are larger than what the engine may use on any GPU that the pods may land "
    "on. Risky when some of those GPUs would do and others not: name the ones that do.",
    "NoRoomForKvCache": "Weights, activations and the engine's own overheads leave no block for the KV cache: the engine would "
    "download and load everything, and then refuse.",
    "ContextDoesNotFit": "The KV cache has room for some tokens, and not for one sequence of the declared (or the model's full) "
    "length. The remedy says how many tokens fit.",
    "UtilizationTooHigh": "The memory fraction asks for more than is free once CUDA and communicators have started, or leaves too "
    "little for CUDA graphs outside of it.",
    "PrecisionUnsupported": "The GPUs' generation lacks an element type or a quantisation method's kernels: bf16 needs compute "
    "capability 8.0.",
    "MemoryTight": "The need lies inside the estimate's uncertainty; both sides are shown.",
    "GpuMemoryHeld": "Processes that no pod owns hold so much of a GPU, as its node's agent reports, that the rank may not fit "
    "beside them; without them it would.",
    "MemoryNotModelled": "What the engine needs besides weights is not modelled; the weights alone would fit.",
    "GpuCountTooLow": "The accepted GPUs, unavailable ones included, are fewer than all replicas need.",
    "NodesDoNotFit": "There are GPUs enough, and no way to place the pods on the nodes: selector, taints, pod size "
    "or other resources.",
    "GpuProductNotAccepted": "The cluster has GPUs, none of them of an accepted product.",
    "ModelExceedsCluster": "The whole model is larger than all accepted GPUs together; stands beside a finding that says why that "
    "matters.",
    "GpusBusy": "The pods would fit if other pods did not hold the GPUs, or did not wait for them with equal or higher priority.",
    "GroupsMayDeadlock": "Not all of several replicas of several pods fit now, and nothing schedules them as gangs: half-placed "
    "replicas can hold each other's places for ever.",
    "WouldPreempt": "The pods fit only by preempting pods of lower priority: kube-scheduler would do that, and "
    "somebody would notice.",
    "NodesUnavailable": "The pods would fit if unhealthy GPUs, or cordoned, not ready, changing or just deleted nodes, came back.",
    "NodesToProvision": "The pods would fit once pools have grown: those of Karpenter's NodePools and NodeClaims, and what "
    "a policy names as provisionable; where capacity is Open also once nodes come again that were here in the last 30 days.",
    "QuotaTooSmall": "A ResourceQuota or LimitRange of the namespace allows less than the pods would request: they would not be "
    "created until it is raised, or others release what they hold.",
    "SurgeDoesNotFit": "A Deployment's roll-out starts a new pod before it stops an old one (`maxUnavailable` rounds down to "
    "0), and there is no room for both: it would hang. `maxSurge: 0` with `maxUnavailable: 1` stops one first.",
    "AutoscaleMaximumDoesNotFit": "An autoscaler's maximum is more replicas than all that is here or may come has room for.",
    "TensorAcrossNodes": "Tensor ranks are spread over several pods, although one node could hold them: every layer then waits for "
    "the network.",
    "GpusLeftOver": "Pods ask for more GPUs than they have ranks.",
    "MemoryMostlyUnused": "The KV caches hold more than 20 times what the declared concurrency can fill, and fewer or smaller GPUs "
    "could be had.",
    "StagesUneven": "The slowest pipeline stage takes over 25 % longer than the mean of a decode step: the others wait for it.",
    "TensorOverPcie": "Tensor ranks spend more than 25 % of a decode step talking over PCIe, while GPUs joined by NVLink are "
    "accepted as well.",
    "PipelineBubble": "The declared micro-batches leave the pipeline's stages idle for more than 25 % of the time.",
    "ThroughputTooLow": "The rate that is aimed at is beyond the range of what could be served at the declared lengths, within the "
    "latencies aimed at. Raised only where the high end of the range misses it too.",
    "LatencyTooHigh": "A latency at the declared traffic is beyond what is aimed at, even at the low end of its range.",
    "ModelUnknown": "The model's architecture is neither in the catalogue nor given in `spec.model.config`, or not modelled.",
    "EngineUnknown": "No engine is declared, or one whose rules are not known.",
    "DeclarationOpaque": "A part of the declaration that bears on the verdict could not be read.",
    "GpuFactsMissing": "Nothing tells the memory of GPUs that the pods would need.",
    "GpuFactsContradict": "What a node says of its GPUs cannot all be right (a product and its memory, say), and the outcome "
    "depends on which holds. `shardgate nodes` shows where each fact comes from.",
    "GpuShared": "The GPUs that the pods would need are shared (MIG, time-slicing, MPS, vGPU): "
    "what one unit may use is not certain. Unsound where a pod's ranks would have to share a card that is shared in time.",
    "ConstraintNotModelled": "The pods would fit, were it not for a constraint that is not modelled.",
    "SearchBudgetSpent": "The pods' rules (affinity, anti-affinity, spread) overlap so that no bound and no placement found "
    "within the search's steps says whether all fit.",
    "InventoryStale": "The API server was not heard from for too long; nothing is judged by GPUs and nodes.",
    "InventoryEmpty": "No node, or no GPU node, was seen, and no pool is known that could bring one.",
    "InternalError": "An error of Shardgate's own.",
}


INTRODUCTION = (
    "Codes are stable: the same in messages, events, conditions, metric labels and the headings below. What a finding may do "
    "at worst is bounded by its class; what is done about it is the policy's (`VerificationPolicy`)."
)


def catalogue() -> str:
    """The page, in Markdown: one heading a code, so that anchors are stable."""
    lines = [
        "# Findings",
        "",
        INTRODUCTION,
    ]
    for each in FindingClass:
        codes = [code for code, its in CLASS_OF_CODE.items() if its is each]
        if not codes:
            continue
        lines += ["", f"## Class {each.value}"]
        for code in codes:
            lines += ["", f"### {code}", "", f"At worst {WORST_OF_CODE[code].label}. {MEANINGS[code]}"]
    return "\n".join(lines) + "\n"
