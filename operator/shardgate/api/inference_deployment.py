"""``InferenceDeployment``: one serving group, with the parallel strategy that it declares.

The schema sets no engine defaults: an unset engine field stays unset, and the engine's own default for its version
applies when judging.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from shardgate.api.fields import MAX_RANKS, ApiModel, LabelValue, Name, Quantity, Rule, Width

MAX_LAYERS = 65536
MAX_REPLICAS = 65536


class Weights(StrEnum):
    """A published layout of weights, in short."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    FP8_BLOCK = "fp8-block"
    INT8 = "int8"
    AWQ_INT4 = "awq-int4"
    GPTQ_INT4 = "gptq-int4"
    GPTQ_INT8 = "gptq-int8"
    COMPRESSED_INT4 = "compressed-int4"
    BNB_INT4 = "bnb-int4"
    NVFP4 = "nvfp4"
    MXFP4 = "mxfp4"


class Dtype(StrEnum):
    """What stays unquantised, and activations."""

    AUTO = "auto"
    FP16 = "fp16"
    BF16 = "bf16"
    FP32 = "fp32"


class KvCache(StrEnum):
    """Element type of the KV cache."""

    AUTO = "auto"
    FP16 = "fp16"
    BF16 = "bf16"
    FP8 = "fp8"


class EngineName(StrEnum):
    """Inference engines whose rules are known, and ``other``."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TENSORRT_LLM = "tensorrt-llm"
    LMDEPLOY = "lmdeploy"
    TGI = "tgi"
    NIM = "nim"
    OTHER = "other"


class LoadBalancing(StrEnum):
    """Who spreads requests over data ranks."""

    INTERNAL = "internal"
    HYBRID = "hybrid"
    EXTERNAL = "external"


class Model(ApiModel):
    """The model that is served."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=512,
            description="Catalogue id or alias, or what a ModelProfile matches; any name when config is given.",
        ),
    ]
    config: Annotated[
        dict[str, Any] | None,
        Field(
            description="Fields of the model's Hugging Face config.json, quantization_config included. "
            "They win over the catalogue.",
            json_schema_extra={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        ),
    ] = None
    weights: Annotated[
        Weights | None,
        Field(
            description="Shorthand for a published layout of the weights. A quantization_config in config wins over it. "
            "Unset: that, else the config's dtype."
        ),
    ] = None
    dtype: Annotated[
        Dtype | None, Field(description="Element type of what stays unquantised, and of activations. Unset: auto.")
    ] = None
    kv_cache: Annotated[KvCache | None, Field(description="Element type of the KV cache. Unset: auto.")] = None


class Engine(ApiModel):
    """The inference engine and its own settings; an unset field is the engine's default for its version."""

    rules = (
        Rule(
            cel="!has(self.maxModelLen) || self.maxModelLen == -1 || self.maxModelLen >= 1",
            message="maxModelLen is a number of tokens of at least 1, or -1 for as long as fits",
            field=".maxModelLen",
            holds=lambda engine: engine.max_model_len is None or engine.max_model_len == -1 or engine.max_model_len >= 1,
        ),
    )

    name: Annotated[EngineName, Field(description="The engine; other when its rules are not known here.")]
    environment: Annotated[
        dict[str, Annotated[str, Field(max_length=4096)]] | None,
        Field(
            max_length=256,
            description="Variables that change the engine's behaviour, for example VLLM_PP_LAYER_PARTITION.",
        ),
    ] = None
    version: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=64,
            description="The engine's version. Unset: could be any; figures assume the newest known, "
            "and a rule refuses only if every version has it.",
        ),
    ] = None
    max_model_len: Annotated[
        int | None,
        Field(
            ge=-1,
            le=2**31,
            description="Longest context in tokens. Unset: the model's full length; -1: as long as fits.",
        ),
    ] = None
    max_sequences: Annotated[int | None, Field(ge=1, le=2**20, description="Sequences in one batch at most.")] = None
    max_batched_tokens: Annotated[int | None, Field(ge=1, le=2**31, description="Tokens in one batch at most.")] = None
    memory_utilization: Annotated[
        float | None,
        Field(ge=0.01, le=1.0, description="The engine's own memory fraction, with the engine's own meaning."),
    ] = None
    enforce_eager: Annotated[bool | None, Field(description="No CUDA graphs.")] = None
    args: Annotated[
        list[Annotated[str, Field(max_length=4096)]] | None,
        Field(
            max_length=256,
            description="Engine flags, read as a workload's would be. A contradiction to a field is a finding.",
        ),
    ] = None


class Strategy(ApiModel):
    """How one replica is split over GPUs."""

    rules = (
        Rule(
            cel=f"self.tensor * self.pipeline * self.data * self.prefillContext <= {MAX_RANKS}",
            message=f"tensor x pipeline x data x prefillContext is more than {MAX_RANKS} ranks",
            field=".tensor",
            holds=lambda s: s.tensor * s.pipeline * s.data * s.prefill_context <= MAX_RANKS,
        ),
        Rule(
            cel="!has(self.dataLocal) || self.data % self.dataLocal == 0",
            message="dataLocal counts data ranks per pod and must divide data",
            field=".dataLocal",
            holds=lambda s: s.data_local is None or s.data % s.data_local == 0,
        ),
        Rule(
            cel="!has(self.layersPerStage) || size(self.layersPerStage) == self.pipeline",
            message="layersPerStage needs one entry for each of the pipeline's stages",
            field=".layersPerStage",
            holds=lambda s: s.layers_per_stage is None or len(s.layers_per_stage) == s.pipeline,
        ),
        Rule(
            cel="self.tensor % self.decodeContext == 0",
            message="decodeContext re-uses the tensor ranks and must divide tensor",
            field=".decodeContext",
            holds=lambda s: s.tensor % s.decode_context == 0,
        ),
        Rule(
            cel="!has(self.attentionData) || !self.attentionData || self.tensor % self.data == 0",
            message="with attentionData the data ranks split the tensor group, so data must divide tensor",
            field=".data",
            holds=lambda s: not s.attention_data or s.tensor % s.data == 0,
        ),
        Rule(
            cel="!has(self.expertParallel) || !self.expertParallel || !has(self.expert)",
            message="state expertParallel (vLLM) or a width in expert (SGLang, TensorRT-LLM), not both",
            field=".expert",
            holds=lambda s: not s.expert_parallel or s.expert is None,
        ),
    )

    tensor: Annotated[Width, Field(description="Tensor-parallel ranks: each holds a part of every layer of its stage.")] = 1
    pipeline: Annotated[Width, Field(description="Pipeline stages: each holds a run of layers.")] = 1
    data: Annotated[
        Width, Field(description="Data-parallel ranks: each holds attention of its own for its share of the requests.")
    ] = 1
    data_local: Annotated[Width | None, Field(description="Data ranks per pod. Unset: as many as the pod's GPUs hold.")] = None
    expert_parallel: Annotated[
        bool | None,
        Field(description="Experts are spread over tensor x data x prefillContext ranks (vLLM). Unset: no."),
    ] = None
    expert: Annotated[
        Width | None,
        Field(
            description="Width of expert parallelism (SGLang, TensorRT-LLM). Null: the engine's rule.",
            json_schema_extra={"nullable": True},
        ),
    ] = None
    prefill_context: Annotated[Width, Field(description="Context-parallel ranks of prefill; they multiply the tensor ranks.")] = 1
    decode_context: Annotated[Width, Field(description="Context-parallel ranks of decode; they re-use the tensor ranks.")] = 1
    attention_data: Annotated[
        bool | None,
        Field(description="Data ranks split the tensor group instead of multiplying it (SGLang, TensorRT-LLM). Unset: no."),
    ] = None
    load_balancing: Annotated[
        LoadBalancing | None,
        Field(description="Who spreads requests over data ranks; external: this object is one data rank. Unset: internal."),
    ] = None
    layers_per_stage: Annotated[
        list[Annotated[int, Field(ge=1, le=MAX_LAYERS)]] | None,
        Field(min_length=1, max_length=256, description="Layers of each pipeline stage. Unset: as the engine splits them."),
    ] = None


class Gpus(ApiModel):
    """GPUs as the pods ask for them."""

    resource: Annotated[
        str,
        Field(
            pattern=r"^[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?/[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?$",
            max_length=317,
            description="The extended resource that pods request.",
        ),
    ] = "nvidia.com/gpu"
    per_pod: Annotated[
        int | None,
        Field(
            ge=1,
            le=1024,
            description="GPUs of one pod. Unset: from workloadRef, else the fewest equal pods of which one fits the "
            "installed GPUs of the largest accepted node; kept until the spec changes.",
        ),
    ] = None
    products: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=128)]] | None,
        Field(
            max_length=64,
            description="Accepted products: shell patterns on the product name without vendor prefix and sharing suffix, "
            "case aside. Empty: any.",
        ),
    ] = None


class TolerationOperator(StrEnum):
    """How a toleration compares."""

    EXISTS = "Exists"
    EQUAL = "Equal"
    LT = "Lt"
    GT = "Gt"


class TaintEffect(StrEnum):
    """What a taint does."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(ApiModel):
    """A toleration, as in a pod."""

    key: Annotated[str | None, Field(max_length=317, description="The taint's key. Unset with Exists: every key.")] = None
    operator: Annotated[TolerationOperator | None, Field(description="How the value is compared. Unset: Equal.")] = None
    value: Annotated[LabelValue | None, Field(description="The value to compare with.")] = None
    effect: Annotated[TaintEffect | None, Field(description="The effect to tolerate. Unset: all.")] = None
    toleration_seconds: Annotated[
        int | None, Field(ge=0, le=2**53, description="How long a NoExecute taint is tolerated, in seconds.")
    ] = None


class PodPlacement(ApiModel):
    """Where the pods may go, and what they ask for besides GPUs."""

    node_selector: Annotated[dict[str, LabelValue] | None, Field(max_length=64, description="Labels that a node must have.")] = None
    affinity: Annotated[
        dict[str, Any] | None,
        Field(
            description="Affinity, as in a pod.",
            json_schema_extra={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        ),
    ] = None
    tolerations: Annotated[list[Toleration] | None, Field(max_length=64, description="Taints that the pods tolerate.")] = None
    scheduler_name: Annotated[Name, Field(description="The scheduler that places the pods.")] = "default-scheduler"
    priority_class_name: Annotated[str | None, Field(max_length=253, description="The pods' PriorityClass.")] = None
    requests: Annotated[
        dict[str, Quantity] | None,
        Field(max_length=32, description="What a pod requests besides GPUs: cpu, memory, ephemeral-storage, other resources."),
    ] = None


class Traffic(ApiModel):
    """The load to expect."""

    prompt_tokens: Annotated[int | None, Field(ge=1, le=2**31, description="Tokens of a prompt, on average.")] = None
    output_tokens: Annotated[int | None, Field(ge=1, le=2**31, description="Tokens of an answer, on average.")] = None
    concurrency: Annotated[int | None, Field(ge=1, le=2**31, description="Requests in flight, over all replicas.")] = None
    micro_batches: Annotated[
        int | None, Field(ge=1, le=2**20, description="Micro-batches in flight in the pipeline, for the textbook bubble.")
    ] = None


class Objectives(ApiModel):
    """What the deployment should reach."""

    requests_per_second: Annotated[float | None, Field(ge=0, le=1e9, description="Requests per second, over all replicas.")] = None
    time_to_first_token_milliseconds: Annotated[
        float | None, Field(ge=0, le=1e9, description="Time to the first token, in milliseconds.")
    ] = None
    time_per_output_token_milliseconds: Annotated[
        float | None, Field(ge=0, le=1e9, description="Time between output tokens, in milliseconds.")
    ] = None
    gpu_utilization_percent: Annotated[
        float | None, Field(ge=0, le=100, description="Share of time that GPUs are busy, in percent.")
    ] = None


class WorkloadRef(ApiModel):
    """A workload to read the declaration from."""

    api_version: Annotated[str, Field(min_length=1, max_length=317, description="Its apiVersion.")]
    kind: Annotated[str, Field(min_length=1, max_length=63, description="Its kind.")]
    name: Annotated[Name, Field(description="Its name, in the same namespace.")]


class InferenceDeploymentSpec(ApiModel):
    """What is declared."""

    rules = (
        Rule(
            cel="has(self.model) || has(self.workloadRef)",
            message="model is required, unless workloadRef names a workload to read it from",
            field=".model",
            holds=lambda spec: spec.model is not None or spec.workload_ref is not None,
        ),
    )

    model: Annotated[Model | None, Field(description="The model. Required unless workloadRef is given.")] = None
    engine: Annotated[Engine | None, Field(description="The inference engine.")] = None
    strategy: Annotated[
        Strategy | None,
        Field(description="The parallel strategy of one replica. Unset: one GPU, or as workloadRef's workload says."),
    ] = None
    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS, description="Full copies of the serving group.")] = 1
    gpus: Annotated[Gpus | None, Field(description="GPUs as the pods ask for them.")] = None
    placement: Annotated[PodPlacement | None, Field(description="Where the pods may go.")] = None
    traffic: Annotated[Traffic | None, Field(description="The load to expect.")] = None
    objectives: Annotated[Objectives | None, Field(description="What the deployment should reach.")] = None
    workload_ref: Annotated[
        WorkloadRef | None,
        Field(
            description="A workload that declares this. Model, engine, strategy, replicas, gpus and placement are then "
            "read from it and need not stand here; both and different is a finding."
        ),
    ] = None


OutcomeName = Literal["Sound", "Wasteful", "Risky", "Waiting", "Undecided", "Unsound"]


class Aspects(ApiModel):
    """The worst finding of each class; unknowns count where they bear."""

    shape: Annotated[OutcomeName | None, Field(description="The declaration against itself and its engine.")] = None
    memory: Annotated[OutcomeName | None, Field(description="The fullest rank against every GPU it could land on.")] = None
    capacity: Annotated[OutcomeName | None, Field(description="The pods against what is here.")] = None
    host: Annotated[OutcomeName | None, Field(description="The pod around the engine.")] = None
    quality: Annotated[OutcomeName | None, Field(description="Waste and objectives.")] = None


class Required(ApiModel):
    """What is needed."""

    gpus: Annotated[int | None, Field(ge=0, description="GPUs over all replicas.")] = None
    gpus_per_replica: Annotated[int | None, Field(ge=0, description="GPUs of one replica.")] = None
    pods: Annotated[int | None, Field(ge=0, description="Pods over all replicas.")] = None


class Available(ApiModel):
    """What is there, on nodes that the declaration accepts."""

    gpus: Annotated[int | None, Field(ge=0, description="GPUs installed: allocatable.")] = None
    free: Annotated[int | None, Field(description="GPUs not requested by pods. Negative where more is requested than is left.")] = (
        None
    )
    replicas_that_fit: Annotated[int | None, Field(ge=0, description="Replicas that fit now.")] = None


class StatusFinding(ApiModel):
    """One thing noticed."""

    code: Annotated[str, Field(max_length=64, description="Stable code, CamelCase.")]
    where: Annotated[str, Field(max_length=256, description="The field that it is about.")]
    outcome: Annotated[OutcomeName, Field(description="How bad it is.")]
    message: Annotated[str, Field(max_length=1024, description="Both sides, with units.")]
    remedy: Annotated[str | None, Field(max_length=1024, description="The way out.")] = None


class StatusPod(ApiModel):
    """One pod of the example placement."""

    replica: Annotated[int, Field(ge=0, description="Replica index.")]
    pod: Annotated[int, Field(ge=0, description="Pod index within the replica.")]
    node: Annotated[
        str | None,
        Field(
            max_length=253, description="Node, or its pool where the policy discloses pools only; empty where it discloses none."
        ),
    ] = None
    local_gpus: Annotated[list[int] | None, Field(max_length=1024, description="Local GPU indices.")] = None
    ranks: Annotated[list[int] | None, Field(max_length=1024, description="Ranks on them.")] = None


class StatusAlternative(ApiModel):
    """A declaration near this one that would pass."""

    change: Annotated[str, Field(max_length=512, description="What to change.")]


class ConditionStatus(StrEnum):
    """Status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """A Kubernetes condition."""

    type: Annotated[str, Field(max_length=316, description="Ready, Feasible or Claimed.")]
    status: Annotated[ConditionStatus, Field(description="True, False or Unknown.")]
    observed_generation: Annotated[int | None, Field(ge=0, description="Generation that it was set for.")] = None
    last_transition_time: Annotated[str, Field(description="When status last changed.", json_schema_extra={"format": "date-time"})]
    reason: Annotated[
        str, Field(min_length=1, max_length=1024, description="CamelCase reason: Feasible's is the worst finding's code.")
    ]
    message: Annotated[str, Field(max_length=32768, description="For people.")]


class InferenceDeploymentStatus(ApiModel):
    """What Shardgate found. Written only when outcome, codes, requirement, score or the placement's validity changes."""

    observed_generation: Annotated[int | None, Field(ge=0, description="Generation that was judged.")] = None
    outcome: Annotated[OutcomeName | None, Field(description="The worst finding's outcome.")] = None
    aspects: Annotated[Aspects | None, Field(description="The worst outcome of each class of findings.")] = None
    score: Annotated[int | None, Field(ge=0, le=100, description="0 when Unsound, unset when not scored.")] = None
    strategy: Annotated[str | None, Field(max_length=128, description="The strategy in one string: TP2 x PP4 x DP1.")] = None
    summary: Annotated[str | None, Field(max_length=1024, description="The verdict in one line.")] = None
    required: Annotated[Required | None, Field(description="What is needed.")] = None
    available: Annotated[Available | None, Field(description="What is there.")] = None
    findings: Annotated[list[StatusFinding] | None, Field(max_length=32, description="At most 32, worst first.")] = None
    placement: Annotated[
        list[StatusPod] | None,
        Field(max_length=64, description="An example that holds now; the scheduler decides. At most 64 pods."),
    ] = None
    alternatives: Annotated[list[StatusAlternative] | None, Field(max_length=5, description="At most 5.")] = None
    conditions: Annotated[
        list[Condition] | None,
        Field(
            max_length=16,
            description="Ready, Feasible, Claimed.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = None
    digest: Annotated[str | None, Field(max_length=80, description="Over spec, the inventory's facts used, and policy.")] = None


class InferenceDeployment(ApiModel):
    """Declares how an LLM is served; Shardgate answers whether the cluster's GPUs can run it."""

    spec: Annotated[InferenceDeploymentSpec, Field(description="What is declared.")]
    status: Annotated[InferenceDeploymentStatus | None, Field(description="What Shardgate found.")] = None

    @classmethod
    def read(cls, spec: Any) -> Self:
        """As of every kind; ``model.config``, free-form and up to a megabyte, does not take the way through JSON."""
        model = spec.get("model") if isinstance(spec, Mapping) else None
        config = model.get("config") if isinstance(model, Mapping) else None
        if not isinstance(model, Mapping) or not isinstance(config, Mapping):
            return super().read(spec)
        found = super().read({**spec, "model": {**model, "config": {}}})
        if found.spec.model is not None and found.spec.model.config is not None:
            found.spec.model.config.update(config)
        return found
