"""What engines that run here hold, against what was predicted for them; and what follows where the two differ much."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from shardgate.domain.engine import Engine

MOST_ERROR = 0.15
"""An engine version on a product whose p90 error is larger may no longer refuse for memory. Of vLLM 0.11 and newer on public
launches it is 0.028 (``docs/accuracy.md``)."""
QUANTILE = 0.9
_MINOR = re.compile(r"v?(?P<major>\d{1,3})\.(?P<minor>\d{1,3})(?!\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One engine's KV cache, in tokens."""

    engine_version: str
    """As of ``engine_version_of``."""
    product: str
    predicted: int
    measured: int

    @property
    def error(self) -> float:
        """Absolute, relative to what was measured."""
        return abs(self.predicted - self.measured) / self.measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How well the engines of one version on one product were predicted."""

    engine_version: str
    product: str
    engines: int
    p90_error: float
    predicted: int
    """Tokens, of the engine at the 90th percentile."""
    measured: int

    @property
    def may_refuse(self) -> bool:
        """Whether a prediction for such an engine may still refuse for memory."""
        return self.p90_error <= MOST_ERROR

    @property
    def key(self) -> tuple[str, str]:
        """Engine version and product."""
        return self.engine_version, self.product.lower()

    @property
    def text(self) -> str:
        """Both numbers, as messages name them."""
        engines = "1 engine" if self.engines == 1 else f"{self.engines} engines"
        return (
            f"the p90 error of {engines} of {self.engine_version} on {self.product} here is {self.p90_error:.1%}, more than "
            f"{MOST_ERROR:.0%}: {self.predicted} tokens of KV cache were predicted where {self.measured} are held"
        )


def engine_version_of(engine: Engine) -> str:
    """``vllm 0.19``: patch releases budget memory alike, and a metric has few of these."""
    parts = _MINOR.match(engine.version or "")
    return f"{engine.name} {parts['major']}.{parts['minor']}" if parts else f"{engine.name} of unknown version"


def accuracies(comparisons: Iterable[Comparison]) -> tuple[Accuracy, ...]:
    """One for each engine version and product, in the order of their names. The 90th percentile is that of the nearest rank."""
    by_key: dict[tuple[str, str], list[Comparison]] = {}
    for each in comparisons:
        by_key.setdefault((each.engine_version, each.product), []).append(each)
    found = []
    for (version, product), several in sorted(by_key.items()):
        ranked = sorted(several, key=lambda each: (each.error, each.measured, each.predicted))
        at = ranked[ceil(QUANTILE * len(ranked)) - 1]
        found.append(
            Accuracy(
                engine_version=version, product=product, engines=len(ranked), p90_error=at.error, predicted=at.predicted,
                measured=at.measured,
            )
        )  # fmt: skip
    return tuple(found)


def distrusted(found: Iterable[Accuracy]) -> tuple[Accuracy, ...]:
    """Those that may not refuse for memory."""
    return tuple(each for each in found if not each.may_refuse)


def doubt_of(engine: Engine, product: str | None, found: Iterable[Accuracy]) -> Accuracy | None:
    """What speaks against a refusal of this engine on this product."""
    if product is None:
        return None
    key = engine_version_of(engine), product.lower()
    return next((each for each in found if each.key == key and not each.may_refuse), None)
