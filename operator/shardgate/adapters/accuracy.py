"""How well memory was predicted here <-> the status of the ``CapacityLedger``, where replicas and people read it."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shardgate.adapters.workloads.values import dicts, mapping
from shardgate.api.capacity_ledger import MOST_ACCURACIES
from shardgate.domain.calibration import Accuracy

Json = dict[str, Any]
KEPT = datetime.timedelta(days=30)
"""An engine version on a product that runs here no more is remembered for so long, as nodes are."""
REFRESHED = datetime.timedelta(days=1)
"""What did not change is dated anew after so long: at rest little is written."""
WORTH_WRITING = 0.01
"""A smaller change of an error says nothing new."""
_FORM = "%Y-%m-%dT%H:%M:%SZ"


def accuracies_in(status: Any) -> tuple[Accuracy, ...]:
    """As they stand; what cannot be read is left out, and so refuses as ever."""
    return tuple(each for entry in dicts(mapping(status).get("accuracy")) if (each := _accuracy(entry)) is not None)


def _accuracy(entry: Mapping[str, Any]) -> Accuracy | None:
    try:
        return Accuracy(
            engine_version=str(entry["engineVersion"]), product=str(entry["product"]), engines=int(entry["engines"]),
            p90_error=float(entry["p90Error"]), predicted=int(entry["predictedTokens"]), measured=int(entry["measuredTokens"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def entries(found: Iterable[Accuracy], stood: Any, now: datetime.datetime, read_at: datetime.datetime | None = None) -> list[Json]:
    """What should stand: what was found, and what was found before of engines that run here no more.

    ``read_at``: when it was found; unset: now. An entry whose figures hardly changed stands as it did, until it is a day
    older than the reading. One that was measured after the reading, by another replica, stands.
    """
    read_at = read_at or now
    before = {(str(each.get("engineVersion")), str(each.get("product"))): each for each in dicts(mapping(stood).get("accuracy"))}
    wanted: dict[tuple[str, str], Json] = {
        key: each for key, each in before.items() if (at := _time(each)) is not None and now - at < KEPT and _accuracy(each)
    }
    for each in found if now - read_at < KEPT else ():
        key = each.engine_version, each.product
        fresh = {
            "engineVersion": each.engine_version, "product": each.product, "engines": each.engines,
            "p90Error": round(each.p90_error, 4), "predictedTokens": each.predicted, "measuredTokens": each.measured,
            "mayRefuse": each.may_refuse, "measuredAt": read_at.strftime(_FORM),
        }  # fmt: skip
        if key not in wanted or _says_new(wanted[key], fresh, read_at, now):
            wanted[key] = fresh
    latest: Sequence[Json] = sorted(wanted.values(), key=lambda each: str(each["measuredAt"]), reverse=True)[:MOST_ACCURACIES]
    return sorted(latest, key=lambda each: (each["engineVersion"], each["product"]))


def _says_new(stands: Mapping[str, Any], fresh: Mapping[str, Any], read_at: datetime.datetime, now: datetime.datetime) -> bool:
    at = _time(stands)
    if at is not None and read_at.replace(microsecond=0) < at <= now:
        return False
    said = [(each.get("mayRefuse"), each.get("engines")) for each in (stands, fresh)]
    if at is None or read_at - at >= REFRESHED or said[0] != said[1]:
        return True
    return abs(float(stands["p90Error"]) - float(fresh["p90Error"])) >= WORTH_WRITING


def _time(entry: Mapping[str, Any]) -> datetime.datetime | None:
    try:
        return datetime.datetime.strptime(str(entry.get("measuredAt")), _FORM).replace(tzinfo=datetime.UTC)
    except ValueError:
        return None
