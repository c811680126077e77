"""The nearest declaration that would pass, for a refusal: told while there is time for it, and never at its expense."""

import logging
import time
from collections.abc import Callable

from shardgate.adapters.alternatives import nearest_line, nearest_of
from shardgate.adapters.decisions import Facts
from shardgate.adapters.disclosure import text_told
from shardgate.shells.time_limit import OutOfTime, ends_at, within_time

log = logging.getLogger(__name__)

MOST_A_SECOND = 5
"""A search costs as much as some fifty reviews: a flood of refusals goes without."""
MOST_SECONDS = 0.15
"""That a search may hold up others' reviews."""


class NearestThatFits:
    """Looks for it, a few times a second at most."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second = 0
        self._searches = 0

    def line(self, facts: Facts | None) -> str:
        """One line; empty where there is none, or no time to look. A refusal stands whatever happens here."""
        if facts is None or len(facts.declarations) != 1 or not self._may_search():
            return ""
        try:
            with ends_at(time.monotonic() + MOST_SECONDS):
                found = within_time(nearest_of, facts.declarations[0], facts.inventory, facts.policy)
        except OutOfTime:
            return ""
        except Exception:
            log.exception("the search for the nearest declaration that fits failed")
            return ""
        return "" if found is None else text_told(nearest_line(found), facts.inventory, facts.policy)

    def _may_search(self) -> bool:
        second = int(self._clock())
        if second != self._second:
            self._second, self._searches = second, 0
        self._searches += 1
        return self._searches <= MOST_A_SECOND
