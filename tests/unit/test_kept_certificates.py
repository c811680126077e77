"""The leader's upkeep of certificates of our own, by a clock that jumps, and against somebody who wipes what it wrote."""

import asyncio
import base64
import copy
import datetime
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography import x509

from shardgate.adapters.manifests import SECRET
from shardgate.shells import certificates as module
from shardgate.shells import repairs
from shardgate.shells.certificates import Certificates
from shardgate.shells.cluster import ApiError
from shardgate.shells.metrics import Metrics
from shardgate.shells.writer import Writer

Json = dict[str, Any]
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Api:
    """Stands in for the API server: the Secret and both configurations."""

    def __init__(self) -> None:
        self.secret: Json | None = None
        self.bundles = dict.fromkeys(module.KINDS, "")
        self.writes: list[str] = []

    async def request(self, method: str, path: str, *, body: Any = None, **_: Any) -> Json:
        if method != "GET":
            self.writes.append(path.split("/")[-2] if method == "PATCH" else "secrets")
        if "secrets" in path:
            if method == "GET" and self.secret is None:
                raise ApiError(404, "NotFound", path)
            if method != "GET":
                kept = {} if self.secret is None else self.secret["data"]
                data = {name: value for name, value in {**kept, **body["data"]}.items() if value is not None}
                self.secret = {"metadata": {"name": SECRET, "resourceVersion": str(len(self.writes))}, "data": data}
            return copy.deepcopy(self.secret or {})
        kind = path.split("/")[-2]
        if method == "PATCH":
            self.bundles[kind] = body[-1]["value"]
        return {"webhooks": [{"name": "validate", "clientConfig": {"caBundle": self.bundles[kind]}}]}


@asynccontextmanager
async def begun(api: Api, clock: Callable[[], datetime.datetime] = lambda: START) -> AsyncIterator[Certificates]:
    """The leader's, after it has made the first pair."""
    subject = Certificates(Writer(api, Metrics(), "t"), "system", ["127.0.0.1"], clock=clock)  # type: ignore[arg-type]
    try:
        subject.drop()
        await subject.upkeep()
        yield subject
    finally:
        subject.clear()


def ends(subject: Certificates) -> datetime.datetime:
    return x509.load_pem_x509_certificate(subject.certificate.read_bytes()).not_valid_after_utc


def test_a_clock_that_jumps_past_the_renewal_gets_a_pair_at_the_next_look() -> None:
    async def test() -> None:
        now = [START]
        api = Api()
        async with begun(api, lambda: now[0]) as subject:
            assert ends(subject) > START
            writes = len(api.writes)
            await subject.upkeep()
            assert len(api.writes) == writes, "at rest nothing is written"
            for days in (70, 100, 4000):
                now[0] += datetime.timedelta(days=days)
                await subject.upkeep()
                assert ends(subject) > now[0] + datetime.timedelta(days=30)
                bundle = x509.load_pem_x509_certificates(base64.b64decode(api.bundles[module.KINDS[0]]))
                assert all(each.not_valid_after_utc > now[0] for each in bundle)

    asyncio.run(test())


@pytest.mark.parametrize("broken", ["ca.crt", "ca.key", "ca.crt ca.key tls.crt tls.key"])
def test_an_authority_that_is_lost_from_the_secret_is_put_back(broken: str) -> None:
    async def test() -> None:
        api = Api()
        async with begun(api) as subject:
            assert api.secret is not None
            kept, served, trusted = dict(api.secret["data"]), subject.certificate.read_bytes(), dict(api.bundles)
            for content in ("", base64.b64encode(b"damaged").decode()):
                api.secret["data"] |= dict.fromkeys(broken.split(), content)
                del api.writes[:]
                subject.put(copy.deepcopy(api.secret))
                await subject.upkeep()
                assert api.writes == ["secrets"]
                assert (api.secret["data"], subject.certificate.read_bytes(), api.bundles) == (kept, served, trusted)

    asyncio.run(test())


def test_who_wipes_both_bundles_again_and_again_costs_six_writes_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    assert repairs.time is module.time

    async def test() -> None:
        api = Api()
        async with begun(api) as subject:
            trusted = dict(api.bundles)
            for _ in range(3):
                del api.writes[:]
                for _ in range(60):
                    api.bundles = dict.fromkeys(module.KINDS, "")
                    await subject.upkeep()
                    clock[0] += 1
                assert len(api.writes) <= 6
            assert subject.contested() == list(module.KINDS)
            for _ in range(120):
                await subject.upkeep()
                clock[0] += 1
            assert (api.bundles, subject.contested()) == (trusted, [])

    asyncio.run(test())
