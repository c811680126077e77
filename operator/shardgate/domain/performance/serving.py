"""From steps to requests: what a replica serves at a concurrency, at a rate, and at most."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, sqrt

from shardgate.domain.performance.passes import Hardware, PassTime, Step, pass_time
from shardgate.domain.performance.work import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens of a request, on average."""

    prompt: float
    output: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a replica takes at once, all its data ranks together."""

    sequences: float
    """By the engine's own limit."""
    cache_tokens: float
    """That its KV cache holds."""
    step_tokens: float
    """Of a prompt's chunk, on one data rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What requests meet. Seconds, and rates per second of one replica."""

    requests_per_second: float
    time_to_first_token: float
    time_per_output_token: float
    end_to_end: float
    in_flight: float
    """Sequences that decode at once."""
    step: PassTime
    """One decode pass."""
    step_seconds: float
    """With the host's work."""
    bubble: float
    """Share of time that stages wait for each other."""
    load: float = 1.0
    """Share of what is served at most; 1 in a closed loop."""
    is_at_capacity: bool = False
    """Of an open loop so near to what is served at most (``KNEE``), or beyond it, that its latencies tell nothing."""

    @property
    def busy_share(self) -> float:
        """Of its GPUs' time: what neither the host nor other stages are waited for."""
        return (1 - self.bubble) * self.step.seconds / self.step_seconds if self.step_seconds else 0.0


OUTPUT_SHARE_HELD = 0.6
"""Of an answer's tokens that a sequence holds on average while it is admitted (0.55 to 0.6 measured)."""

KNEE = 0.85
"""Load, as a share of capacity, from which latency is not told: a 10 % error of capacity moves it threefold."""


def bubble_of(stages: int, micro_batches: float) -> float:
    """``(p - 1) / (m + p - 1)``: GPipe's and 1F1B's, forward only."""
    return (stages - 1) / (micro_batches + stages - 1) if stages > 1 else 0.0


class Replica:
    """One replica of a declaration on given GPUs, under given lengths."""

    def __init__(self, work: Work, hardware: Hardware, lengths: Lengths, limits: Limits, micro_batches: int | None = None) -> None:
        """``micro_batches``: as declared; ``None``: as many as were measured to be in flight."""
        self.work, self.hardware, self.lengths, self.limits = work, hardware, lengths, limits
        self.micro_batches = micro_batches
        self.stages = len(work.stages)
        self._decodes: dict[float, tuple[PassTime, float]] = {}
        self._prefills: dict[float, float] = {}
        self._services: dict[float, Service] = {}

    def by_measured_losses(self) -> Replica:
        """The same whose pipeline loses what was measured; passes are the same, and are not worked out again."""
        other = Replica(self.work, self.hardware, self.lengths, self.limits)
        other._decodes, other._prefills = self._decodes, self._prefills  # of its own kind
        return other

    @property
    def most_in_flight(self) -> float:
        """Sequences that the cache and the engine's own limit allow."""
        held = self.lengths.prompt + OUTPUT_SHARE_HELD * self.lengths.output
        return max(1.0, min(self.limits.sequences, self.limits.cache_tokens / held))

    def textbook_bubble(self) -> float | None:
        """By the declared micro-batches; one stage waits for no other."""
        if self.stages == 1:
            return 0.0
        return None if self.micro_batches is None else bubble_of(self.stages, self.micro_batches)

    def measured_bubble(self, in_flight: float) -> float:
        """By what was measured of pipelines' losses, never with more micro-batches than sequences.

        Long prompts are cut into chunks that fill the pipeline, so that they lose less.
        """
        pace = self.hardware.pace
        chunks = self.lengths.prompt / self.limits.step_tokens * in_flight
        decoding = self.lengths.output / (self.lengths.output + self.lengths.prompt)
        measured = pace.micro_batches if decoding > PREFILL_HEAVY else max(pace.micro_batches, chunks)
        return bubble_of(self.stages, min(in_flight, measured))

    def _loss(self, in_flight: float) -> float:
        """Share of time lost between stages: by the declared micro-batches, else as measured.

        One sequence alone waits for nobody: what is lost grows until there is one for each stage.
        """
        declared = self.textbook_bubble()
        if declared is not None:
            return declared
        full = self.measured_bubble(max(in_flight, self.hardware.pace.micro_batches))
        return full * min(1.0, (in_flight - 1) / (self.stages - 1)) if self.stages > 1 else 0.0

    def _idle(self, in_flight: float) -> float:
        """Share of time that a stage has nothing to do: what is lost, or all beyond one sequence a stage."""
        return max(self._loss(in_flight), 1 - in_flight / self.stages)

    def decode(self, in_flight: float) -> tuple[PassTime, float]:
        """(a pass, seconds between two tokens of a sequence) with so many sequences, no prompts beside them.

        Each stage works on one micro-batch while the others work on theirs: a pass is of ``in_flight`` over stages
        sequences, and the host's work is paid on every stage.
        """
        known = self._decodes.get(in_flight)
        if known is None:
            batch = max(in_flight / self.stages, 1.0 if in_flight >= 1 else in_flight)
            context = self.lengths.prompt + self.lengths.output / 2
            step = pass_time(
                self.work, self.hardware, Step(tokens=batch, sequences=batch, context_tokens=context, is_prefill=False)
            )
            pace = self.hardware.pace
            host = self.stages * (pace.step_seconds + pace.sequence_seconds * batch / self.work.data_ranks)
            full = min(1.0, (in_flight - 1) / (self.stages - 1)) if self.stages > 1 else 0.0
            known = self._decodes[in_flight] = (step, step.seconds * (1 + (self._unevenness - 1) * full) + host)
        return known

    @cached_property
    def _unevenness(self) -> float:
        """By which factor the longest stage has more layers than of an even split: it sets a full pipeline's pace.

        What an even split loses to the head on its last stage is part of the losses that were measured.
        """
        layers = [stage.number for stage in self.work.stages]
        return max(layers) / ceil(sum(layers) / len(layers)) if sum(layers) else 1.0

    def prefill(self, tokens: float) -> float:
        """Seconds of a pass over so many tokens of prompts, through all stages; longer prompts go chunk by chunk."""
        known = self._prefills.get(tokens)
        if known is None:
            chunk = min(tokens, self.limits.step_tokens * self.work.data_ranks)
            step = Step(
                tokens=chunk, sequences=max(1.0, chunk / self.lengths.prompt), context_tokens=self.lengths.prompt / 2,
                is_prefill=True,
            )  # fmt: skip
            host = self.stages * self.hardware.pace.step_seconds
            known = self._prefills[tokens] = (pass_time(self.work, self.hardware, step).seconds + host) * tokens / chunk
        return known

    def own_prefill(self) -> float:
        """Seconds of one prompt's prefill: chunks of one prompt follow each other through the stages."""
        chunks = max(1.0, self.lengths.prompt / self.limits.step_tokens)
        whole = self.prefill(self.lengths.prompt * self.work.data_ranks)  # one data rank works on it; the others have theirs
        return whole / chunks * (1 + (chunks - 1) / self.stages)

    def prefill_share(self) -> float:
        """Seconds that one prompt takes from the replica, where steps are filled with prompts."""
        full = self.limits.step_tokens * self.work.data_ranks
        return self.prefill(full) * self.lengths.prompt / full / self.stages * self._unevenness

    def at_concurrency(self, concurrency: float) -> Service:
        """A closed loop: so many clients, each asking again when it is answered."""
        known = self._services.get(concurrency)
        if known is None:
            known = self._services[concurrency] = self._closed_loop(concurrency)
        return known

    def _closed_loop(self, concurrency: float) -> Service:
        in_flight = min(concurrency, self.most_in_flight)
        pace, lengths = self.hardware.pace, self.lengths
        step, between = self.decode(in_flight)
        alone = self.own_prefill()
        bubble = self._idle(in_flight)
        slowed = 1 / (1 - self._loss(in_flight)) / pace.rate_share
        others = pace.prefill_mix * max(in_flight - 1, 0.0) * self.prefill_of_one() / lengths.output
        per_token = (between + others) * slowed
        first = (pace.first_token_factor * (alone + between / 2)) * slowed + pace.first_token_seconds
        if concurrency > in_flight:
            first += (concurrency - in_flight) / in_flight * lengths.output * per_token
        first += self.burst(in_flight, first + max(lengths.output - 1, 0.0) * per_token) * slowed
        whole = first + max(lengths.output - 1, 0.0) * per_token
        return Service(
            requests_per_second=concurrency / whole, time_to_first_token=first, time_per_output_token=per_token,
            end_to_end=whole, in_flight=in_flight, step=step, step_seconds=between, bubble=bubble,
        )  # fmt: skip

    def burst(self, in_flight: float, whole: float) -> float:
        """Seconds that a prompt waits for others' on average, where clients start together, as load generators do.

        In the first round they come all at once; afterwards within the share of an answer's time by which answers
        differ: as in an M/D/1 queue, though no longer than so few can queue (a Brownian bridge), as who waits asks no more.
        The rounds that are counted are those of the usual ten requests a client.
        """
        if in_flight <= 1:
            return 0.0
        one = self.prefill_of_one()
        at_once = (in_flight - 1) / 2 * one
        load = in_flight * one / (ANSWERS_DIFFER_BY * whole)
        queue = QUEUE_OF_BRIDGE * sqrt(in_flight)
        if load < 1:
            queue = min(queue, load / (2 * (1 - load)))
        return at_once / ROUNDS + queue * one * (1 - 1 / ROUNDS)

    def prefill_of_one(self) -> float:
        """Seconds that another's prompt keeps a decoding sequence waiting: as a pass of its own, not filled up."""
        data = self.work.data_ranks
        return self.prefill(self.lengths.prompt * data) / data / self.stages * self._unevenness

    def at_most(self, requests: float | None = None) -> Service:
        """Saturated: as many in flight as it takes (or as there are ``requests``), prompts filling the steps."""
        in_flight = self.most_in_flight if requests is None else min(requests, self.most_in_flight)
        pace, lengths = self.hardware.pace, self.lengths
        step, between = self.decode(in_flight)
        bubble = self._idle(in_flight)
        slowed = 1 / (1 - self._loss(in_flight)) / pace.rate_share
        own = (self.prefill_share() + lengths.output * between / in_flight) * slowed
        per_token = (between + in_flight * self.prefill_share() / lengths.output) * slowed
        first = pace.first_token_factor * self.own_prefill() * slowed + pace.first_token_seconds
        return Service(
            requests_per_second=1 / own, time_to_first_token=first, time_per_output_token=per_token,
            end_to_end=first + max(lengths.output - 1, 0.0) * per_token, in_flight=in_flight, step=step, step_seconds=between,
            bubble=bubble,
        )  # fmt: skip

    def overloaded(self, requests_per_second: float, requests: float) -> Service:
        """So many requests that come faster than they are served: each waits for those that came before and are not done."""
        most = self.at_most()
        waiting = requests / 2 * max(0.0, 1 / most.requests_per_second - 1 / requests_per_second)
        return replace(
            most, time_to_first_token=most.time_to_first_token + waiting, end_to_end=most.end_to_end + waiting,
            load=requests_per_second / most.requests_per_second,
        )  # fmt: skip

    def at_rate(self, requests_per_second: float) -> Service:
        """An open loop: requests come at this rate, whatever they meet.

        Little's law gives the sequences in flight; prefills wait for each other as in an M/D/1 queue.
        """
        most = self.at_most()
        pace, lengths = self.hardware.pace, self.lengths
        rate = requests_per_second
        load = rate / most.requests_per_second
        if load >= KNEE:
            return replace(most, requests_per_second=min(rate, most.requests_per_second), load=load, is_at_capacity=True)
        in_flight, found = 1.0, most
        for _ in range(FIXED_POINT_STEPS):
            step, between = self.decode(in_flight)
            bubble = self._idle(in_flight)
            slowed = 1 / (1 - self._loss(in_flight)) / pace.rate_share
            prefill = self.own_prefill() * slowed
            busy = min(0.98, rate * self.prefill_share() * slowed)
            wait = busy * prefill / (2 * (1 - busy))
            per_token = between * slowed / (1 - busy)
            first = pace.first_token_factor * (prefill + between * slowed / 2) + pace.first_token_seconds + wait
            whole = first + max(lengths.output - 1, 0.0) * per_token
            found = Service(
                requests_per_second=rate, time_to_first_token=first, time_per_output_token=per_token, end_to_end=whole,
                in_flight=in_flight, step=step, step_seconds=between, bubble=bubble, load=load,
            )  # fmt: skip
            wanted = min(max(1.0, rate * whole), self.most_in_flight)
            if abs(wanted - in_flight) < FIXED_POINT_TOLERANCE * wanted:
                break
            in_flight = (in_flight + wanted) / 2
        return found

    def static_batch(self, sequences: float) -> Service:
        """So many at once, together from the first token to the last."""
        pace, lengths = self.hardware.pace, self.lengths
        step, between = self.decode(sequences)
        bubble = self._idle(sequences)
        slowed = 1 / (1 - self._loss(sequences)) / pace.rate_share
        first = self.prefill(sequences * lengths.prompt) * slowed
        whole = first + max(lengths.output - 1, 0.0) * between * slowed
        return Service(
            requests_per_second=sequences / whole, time_to_first_token=first, time_per_output_token=between * slowed,
            end_to_end=whole, in_flight=sequences, step=step, step_seconds=between, bubble=bubble,
        )  # fmt: skip


PREFILL_HEAVY = 0.2
"""Share of output tokens below which prompts decide how full a pipeline is."""

ROUNDS = 10
"""Requests that each client of a benchmark sends (InferenceX: prompts = 10 x concurrency)."""

ANSWERS_DIFFER_BY = 0.2
"""Of their mean: load generators draw lengths from a fifth (InferenceX: RANDOM_RANGE_RATIO 0.8)."""

QUEUE_OF_BRIDGE = 0.31
"""Mean queue, in square roots of those that come, where as many come in a window as are served in it."""

FIXED_POINT_STEPS = 24
FIXED_POINT_TOLERANCE = 0.01
