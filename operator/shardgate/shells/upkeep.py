"""What the leader keeps in order besides verdicts, part by part: what one does wrong keeps the others from nothing."""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from shardgate.shells.cluster import ApiError, ClusterUnreachable
from shardgate.shells.lease import Lease
from shardgate.shells.metrics import Metrics

log = logging.getLogger(__name__)


class Upkeep:
    """Of one replica."""

    def __init__(self, lease: Lease, metrics: Metrics) -> None:
        self._lease, self._metrics = lease, metrics
        self._after = 0.0
        """Until then, by the monotonic clock, the API server asked to be left alone."""

    async def once(self, parts: Iterable[Callable[[], Awaitable[None]]]) -> None:
        """Each part, for as long as this replica leads."""
        for part in parts:
            if time.monotonic() < self._after or not self._lease.is_held():
                return
            try:
                await part()
            except (ApiError, ClusterUnreachable, TimeoutError) as error:
                log.warning("upkeep: %s", str(error) or type(error).__name__)
                self._after = time.monotonic() + (error.retry_after_seconds if isinstance(error, ApiError) else 0.0)
            except Exception:
                self._metrics.internal_errors.inc()
                log.exception("a part of the upkeep failed")
