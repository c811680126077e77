"""The load that a declaration expects, and what it is to reach."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """``None`` where it is not declared."""

    prompt_tokens: int | None = None
    """Of a prompt, on average."""
    output_tokens: int | None = None
    """Of an answer, on average."""
    concurrency: int | None = None
    """Requests in flight, over all replicas."""
    micro_batches: int | None = None
    """In flight in the pipeline, for the textbook bubble."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """``None`` where none is set."""

    requests_per_second: float | None = None
    """Over all replicas."""
    time_to_first_token_seconds: float | None = None
    time_per_output_token_seconds: float | None = None
    gpu_utilization: float | None = None
    """Share of time that GPUs are busy, 0..1."""

    @property
    def any(self) -> bool:
        """Whether anything is to be reached."""
        stated = (
            self.requests_per_second, self.time_to_first_token_seconds, self.time_per_output_token_seconds, self.gpu_utilization,
        )  # fmt: skip
        return any(each is not None for each in stated)
