"""What each finding means and what helps: one source for ``shardgate explain`` and the page that ``make generate`` writes."""

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
    "a policy names as provisionable; where capacity is Open also once nodes come again that were here in the last 30 days. "
    "A NodePool at its limit counts as far as its limits could ever allow: other nodes of it may leave.",
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


REMEDIES: dict[str, str] = {
    "WorldSizeMismatch": "Make pods x GPUs per pod equal to the ranks of a replica, or change the widths.",
    "HeadsUneven": "Choose a tensor width that divides the model's attention heads.",
    "KvHeadsUneven": "Choose a divisor or a multiple of the KV heads as the tensor width.",
    "VocabularyUneven": "Choose a power of two up to 64 as the tensor width.",
    "WidthUnsupported": "Leave the width out, or use an engine and a version that have it.",
    "ExpertsUneven": "Choose an expert width that divides the experts, or do without balancing of experts.",
    "QuantizationBlockUneven": "Choose a narrower tensor width, whole experts (`expertParallel`), or weights in another scheme.",
    "PipelineUnsupported": "Set the pipeline width to 1 and split by tensor width, or use a version that has it.",
    "ContextTooLong": "Declare at most as many tokens as the model has positions for.",
    "LayersTooFew": "Use at most as many stages as the model has layers.",
    "DeclarationContradicts": "Keep one of the two that are named.",
    "WeightsDoNotFit": "Split over more GPUs, choose weights of fewer bits or a smaller model, or name products with more memory.",
    "NoRoomForKvCache": "Split over more GPUs, choose weights of fewer bits, or raise the memory fraction where it is low.",
    "ContextDoesNotFit": "Declare a shorter maximum length, a KV cache of fewer bits (fp8), or split over more GPUs.",
    "UtilizationTooHigh": "Lower the memory fraction.",
    "PrecisionUnsupported": "Use fp16 for bf16, another quantisation, or newer GPUs.",
    "MemoryTight": "Take a little away (length, sequences, memory fraction), or measure: calibration narrows the estimate.",
    "GpuMemoryHeld": "End the processes that `nvidia-smi` shows on the node and no pod owns, or keep the pods off it.",
    "MemoryNotModelled": "Try it: nothing is refused for it. State the flags that bear on memory in fields that are read.",
    "GpuCountTooLow": "Ask for fewer GPUs (narrower widths, fewer replicas), or add nodes.",
    "NodesDoNotFit": "Make pods smaller, tolerate the taint, loosen the selector, or add nodes: the message counts the reasons.",
    "GpuProductNotAccepted": "Name a product that the cluster has in `spec.gpus.products`, or add such nodes.",
    "ModelExceedsCluster": "Choose a smaller model or weights of fewer bits, or add GPUs.",
    "GpusBusy": "Wait until GPUs are released, ask for fewer replicas, or set a higher priority; see `shardgate capacity`.",
    "GroupsMayDeadlock": "Schedule the groups as gangs, or add room for all replicas.",
    "WouldPreempt": "Agree with whoever would be evicted, or wait.",
    "NodesUnavailable": "Repair or uncordon the nodes that are named, or use a strategy that fits what is available.",
    "NodesToProvision": "Wait for the pool to grow; look at what the autoscaler says where it does not.",
    "QuotaTooSmall": "Have the quota raised, or release what others in the namespace hold.",
    "SurgeDoesNotFit": "Set `maxSurge: 0` with `maxUnavailable: 1`.",
    "AutoscaleMaximumDoesNotFit": "Lower the autoscaler's maximum to what fits, or add nodes.",
    "TensorAcrossNodes": "Give pods more GPUs, so that one node holds a tensor group, or narrow the tensor width and add stages.",
    "GpusLeftOver": "Ask for as many GPUs as the pod has ranks, or use the others (wider, more data ranks).",
    "MemoryMostlyUnused": "Use fewer or smaller GPUs, or a narrower strategy with more replicas.",
    "StagesUneven": "Share the layers out by time (`layersPerStage`): the first and the last stage also hold embedding and head.",
    "TensorOverPcie": "Select nodes whose GPUs are joined by NVLink, or narrow the tensor width and add stages.",
    "PipelineBubble": "Declare more micro-batches (more requests at once), or use fewer stages.",
    "ThroughputTooLow": "Add replicas, use faster GPUs, or aim at a lower rate.",
    "LatencyTooHigh": "Use a wider tensor width or faster GPUs, lower the load of a replica, or aim at a higher latency.",
    "ModelUnknown": "Give `spec.model.config`, or a ModelProfile (`shardgate model add DIR`).",
    "EngineUnknown": "Name the engine in `spec.engine.name`.",
    "DeclarationOpaque": "State it in the object, or give what it refers to among the files.",
    "GpuFactsMissing": "Label the nodes (GPU Feature Discovery), or name the product: `shardgate nodes` shows what is read.",
    "GpuFactsContradict": "Correct the label that is wrong: `shardgate nodes` shows where each fact comes from.",
    "GpuShared": "Use whole GPUs: select nodes that do not share theirs.",
    "ConstraintNotModelled": "Look whether the constraint that is named lets the pods on; nothing is refused for it.",
    "SearchBudgetSpent": "Fewer rules between pods (affinity, anti-affinity, spread), or fewer replicas.",
    "InventoryStale": "Look at the operator: `shardgate doctor`.",
    "InventoryEmpty": "Add GPU nodes, or name pools as `provisionable` in a VerificationPolicy.",
    "InternalError": "Report it with the output of `shardgate why --ref REF --facts`.",
}
"""What helps, in general; a finding's own remedy has the figures."""


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
            lines += [
                "",
                f"### {code}",
                "",
                f"At worst {WORST_OF_CODE[code].label}. {MEANINGS[code]}",
                "",
                f"What helps: {REMEDIES[code]}",
            ]
    return "\n".join(lines) + "\n"
