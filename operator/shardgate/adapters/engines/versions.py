"""Engine versions as people write them: ``0.19.0``, ``v0.8.5.post1``, ``0.7.x``, or nothing at all."""

import re
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

Release = tuple[int, ...]

OPEN_END: Release = (10**6,)
_DATES: Release = (1000,)
"""Numbers from here on are dates or builds of somebody's own (``20260801.1``)."""
_WILDCARD = re.compile(r"^v?(?P<known>\d+(\.\d+)*)\.[x*]$")


def release(text: str) -> Release:
    """``0.20`` -> (0, 20), for comparisons; without pre- and post-release parts."""
    return _trimmed(Version(text).release)


def _trimmed(parts: Release) -> Release:
    end = len(parts)
    while end > 1 and parts[end - 1] == 0:
        end -= 1
    return parts[:end]


@dataclass(frozen=True, slots=True)
class Span:
    """Versions that a declared one could be: from ``low`` up to, but not including, ``high`` (the same for exactly one)."""

    low: Release
    high: Release

    @property
    def is_one(self) -> bool:
        """Whether it is exactly one version."""
        return self.low == self.high

    def within(self, since: Release, until: Release) -> bool:
        """Whether all of it lies from ``since`` on and before ``until``."""
        return since <= self.low and (self.high < until if self.is_one else self.high <= until)

    def meets(self, since: Release, until: Release) -> bool:
        """Whether any of it lies there."""
        return self.low < until and (since <= self.high if self.is_one else since < self.high)


def span_of(version: str | None, newest_known: str) -> tuple[Span, bool]:
    """(what it could be, whether it was understood). Unset, or in no known form: any known version."""
    newest = release(newest_known)
    anything = Span((0,), (*newest[:-1], newest[-1] + 1))
    if version is None:
        return anything, True
    wildcard = _WILDCARD.match(version.strip())
    if wildcard:
        known = tuple(int(part) for part in wildcard["known"].split("."))
        return Span(_trimmed(known), (*known[:-1], known[-1] + 1)), True
    try:
        exact = release(version)
    except InvalidVersion:
        return anything, False
    if exact >= _DATES:
        return anything, False
    return Span(exact, exact), True
