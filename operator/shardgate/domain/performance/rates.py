"""How fast a GPU and an engine are: what the tables say, as values."""

from dataclasses import dataclass
from enum import StrEnum


class Arithmetic(StrEnum):
    """What a matrix is multiplied in."""

    HALF = "16-bit"
    FP8 = "fp8"
    INT8 = "int8"
    FP4 = "fp4"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRates:
    """Peak rates of a GPU product (``data/gpu_rates.json``, with sources)."""

    bytes_per_second: float
    """Of its memory."""
    half: float
    """Operations per second in 16-bit floats: dense, no structured sparsity."""
    fp8: float | None
    int8: float | None
    fp4: float | None
    link_bytes_per_second: float
    """In one direction, of the link that joins GPUs of a node (NVLink or its like); 0: none."""
    host_link_bytes_per_second: float
    """In one direction, over PCIe."""
    is_made_joined: bool = False
    """Whether the product is made to be joined by such a link: so it is taken for where nothing tells."""
    compute_share: float = 1.0
    """What kernels of this vendor reach, compared with those that the constants were fitted on."""
    memory_share: float = 1.0

    def operations_per_second(self, arithmetic: Arithmetic) -> tuple[float, Arithmetic]:
        """(peak rate, what it is really multiplied in): 16 bits where the GPU has no units for it."""
        for each, rate in ((Arithmetic.FP4, self.fp4), (Arithmetic.FP8, self.fp8), (Arithmetic.INT8, self.int8)):
            if arithmetic is each and rate is not None:
                return rate, each
        return self.half, Arithmetic.HALF


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """By which factor measured values differ from estimates, up and down, in 8 of 10 cases."""

    rate: float
    """Of throughput."""
    token: float
    """Of the time per output token."""
    first_token_low: float
    first_token_high: float
    """Of the time to the first token: value x low to value x high."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Constants of the model for one engine (``data/performance.json``, with sources). Shares are of a peak, 0..1."""

    gemm_share: tuple[float, float, float, float]
    """Of dense peak in matrix products: 16-bit, fp8, int8, fp4."""
    weight_read_share: float
    cache_read_share: float
    prefill_attention_share: float
    """Of the 16-bit peak."""
    layer_seconds: float
    """Norms, rotary embedding and other small kernels of a layer."""
    mixture_seconds: float
    """Routing and permutation of a mixture's layer."""
    mixture_share: float
    """What products with experts reach of what dense ones do."""
    expert_imbalance: float
    """Tokens of the busiest rank over the mean, where experts are dealt out to ranks."""
    all_reduce_seconds: float
    """Latency of an all-reduce between two ranks over NVLink or its like."""
    all_reduce_seconds_unlinked: float
    """The same over PCIe."""
    all_reduce_growth: float
    """By which share each further rank adds to it."""
    link_share: float
    host_link_share: float
    send_seconds: float
    """Latency of a send to the next pipeline stage."""
    step_seconds: float
    """Of the host, per step of a stage."""
    sequence_seconds: float
    """Of the host, per step and sequence."""
    first_token_factor: float
    first_token_seconds: float
    """Time to the first token: factor x (prefill + half a decode step) + seconds."""
    prefill_mix: float
    """Share of others' prefills that a sequence waits for while it decodes."""
    micro_batches: int
    """In flight in a pipeline, by what was measured of its losses."""
    rate_share: float = 1.0
    """What old versions reach."""
    fabric_bytes_per_second: float
    """In one direction between nodes, where nothing tells better."""
    dense: Spread
    mixture: Spread
    dealt_out: Spread
    """Of mixtures whose experts are dealt out to ranks: routing decides."""
    unusual: Spread
    """Of products and engines with few public results."""
    source: str
