"""What one pass through a replica takes: a roofline for each kind of product, and the overheads between them."""

from __future__ import annotations

from dataclasses import dataclass

from shardgate.domain.performance.rates import Arithmetic, GpuRates, Pace
from shardgate.domain.performance.work import Attention, LayerWork, Product, Work

_ORDER = (Arithmetic.HALF, Arithmetic.FP8, Arithmetic.INT8, Arithmetic.FP4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The GPUs that a replica would run on, and what joins them."""

    rates: GpuRates
    pace: Pace
    is_linked: bool
    """Whether tensor ranks are joined by NVLink or its like (else PCIe)."""
    tensor_crosses_nodes: bool = False
    pipeline_crosses_nodes: bool = False

    @property
    def link_bytes_per_second(self) -> float:
        """Peak of one direction between two tensor ranks."""
        if self.tensor_crosses_nodes:
            return self.pace.fabric_bytes_per_second
        return self.rates.link_bytes_per_second if self.is_linked else self.rates.host_link_bytes_per_second

    def all_reduce_seconds(self, message_bytes: float, ranks: int) -> float:
        """A ring's time for a sum over ranks: latency, and 2 (n - 1)/n of the message each way (nccl-tests)."""
        if ranks < 2:  # noqa: PLR2004  # nothing to sum
            return 0.0
        pace = self.pace
        linked = self.is_linked and not self.tensor_crosses_nodes
        start = pace.all_reduce_seconds if linked else pace.all_reduce_seconds_unlinked
        share = pace.link_share if linked else pace.host_link_share
        growth = 1 + pace.all_reduce_growth * (ranks - 2)
        moving = 2 * (ranks - 1) / ranks * message_bytes / (share * self.link_bytes_per_second)
        return start * growth + moving * (1 if linked else growth)  # what is not switched shares roots and sockets

    def send_seconds(self, message_bytes: float) -> float:
        """To the next stage."""
        if self.pipeline_crosses_nodes:
            rate = self.pace.fabric_bytes_per_second * self.pace.host_link_share
        elif self.is_linked:
            rate = self.rates.link_bytes_per_second * self.pace.link_share
        else:
            rate = self.rates.host_link_bytes_per_second * self.pace.host_link_share
        return self.pace.send_seconds + message_bytes / rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a pass is made for. Tokens and sequences are the whole replica's, all data ranks together."""

    tokens: float
    """New ones."""
    sequences: float
    """Whose next token is sampled."""
    context_tokens: float
    """Of each sequence that decodes, before this pass; of a prompt: that each of its tokens looks at, on average."""
    is_prefill: bool


@dataclass(frozen=True, slots=True)
class PassTime:
    """Seconds of a pass on each stage, and what they go to."""

    stages: tuple[float, ...]
    sends: float
    """Between stages, in all."""
    compute: float
    memory: float
    communication: float
    """The sends included."""
    small: float
    """Small kernels."""

    @property
    def seconds(self) -> float:
        """From the first stage to the last."""
        return sum(self.stages) + self.sends


def pass_time(work: Work, hardware: Hardware, step: Step) -> PassTime:
    """Time of one pass, host's work aside."""
    timer = _Timer(work, hardware, step)
    stages = []
    for stage in work.stages:
        seconds = 0.0
        for layer, number in stage.layers:
            seconds += number * timer.layer(layer, number)
        if stage.head is not None:
            seconds += timer.product(stage.head, step.sequences / work.data_ranks, 1)
        stages.append(seconds)
    sends = (len(stages) - 1) * hardware.send_seconds(step.tokens / work.data_ranks * work.hidden_bytes)
    return PassTime(tuple(stages), sends, timer.compute, timer.memory, timer.communication + sends, timer.small)


class _Timer:
    """Adds up where the time goes."""

    def __init__(self, work: Work, hardware: Hardware, step: Step) -> None:
        self.work, self.hardware, self.step = work, hardware, step
        self.compute = self.memory = self.communication = self.small = 0.0
        rates, pace = hardware.rates, hardware.pace
        self.own_tokens = step.tokens / work.data_ranks
        self.reads = pace.weight_read_share * rates.bytes_per_second * rates.memory_share
        self.speed = {}
        for arithmetic in _ORDER:
            peak, real = rates.operations_per_second(arithmetic)
            self.speed[arithmetic] = peak * pace.gemm_share[_ORDER.index(real)] * rates.compute_share

    def product(self, product: Product, tokens: float, number: int) -> float:
        """A smooth maximum of multiplying and reading."""
        share, derate, imbalance = product.routed_share, 1.0, 1.0
        read = product.weight_bytes
        if share < 1:
            read *= 1 - (1 - share) ** max(tokens, 1e-9)
            derate = self.hardware.pace.mixture_share
            imbalance = self.hardware.pace.expert_imbalance if self.work.has_routed_ranks else 1.0
        computing = 2 * product.elements * tokens * imbalance / (derate * self.speed[product.arithmetic])
        reading = read / (derate * self.reads)
        seconds = _smooth_maximum(computing, reading)
        if computing > reading:
            self.compute += number * seconds
        else:
            self.memory += number * seconds
        return seconds

    def layer(self, layer: LayerWork, number: int) -> float:
        """One layer."""
        pace, work = self.hardware.pace, self.work
        seconds = 0.0
        for product in layer.products:
            seconds += self.product(product, self.step.tokens if product.over_replica else self.own_tokens, number)
        for attention in layer.attentions:
            seconds += self.attention(attention, number)
        small = pace.layer_seconds + (pace.mixture_seconds if layer.is_mixture else 0.0)
        self.small += number * small
        talk = 0.0
        message = self.own_tokens * work.hidden_bytes
        if layer.attention_reduces:
            talk += self.hardware.all_reduce_seconds(message, work.attention_ranks)
        if layer.mlp_reduces:
            tokens = self.step.tokens if work.attention_ranks != work.tensor_ranks else self.own_tokens
            talk += self.hardware.all_reduce_seconds(tokens * work.hidden_bytes, work.tensor_ranks)
        if layer.routed_bytes:
            ranks = work.tensor_ranks
            own = self.step.tokens / max(1, ranks if work.attention_ranks != ranks else work.data_ranks)
            rate = pace.link_share * self.hardware.link_bytes_per_second
            talk += 2 * self.hardware.all_reduce_seconds(0.0, ranks) + own * layer.routed_bytes / rate
        self.communication += number * talk
        return seconds + small + talk

    def attention(self, attention: Attention, number: int) -> float:
        """Reads what is cached and works on it."""
        rates, pace, step = self.hardware.rates, self.hardware.pace, self.step
        context = step.context_tokens if attention.window_tokens is None else min(step.context_tokens, attention.window_tokens)
        operations = attention.prefill_operations if step.is_prefill else attention.decode_operations
        computing = self.own_tokens * context * operations / (pace.prefill_attention_share * rates.half * rates.compute_share)
        reading = 0.0
        if not step.is_prefill:
            held = attention.cache_bytes * context + attention.state_bytes
            reading = self.own_tokens * held / (pace.cache_read_share * rates.bytes_per_second * rates.memory_share)
        seconds = _smooth_maximum(computing, reading)
        if computing > reading:
            self.compute += number * seconds
        else:
            self.memory += number * seconds
        return seconds


def _smooth_maximum(first: float, second: float) -> float:
    """Near the larger, and above both where they are near."""
    first, second = first * first, second * second
    return float((first * first + second * second) ** 0.25)
