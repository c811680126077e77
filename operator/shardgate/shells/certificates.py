"""Keeps our own certificates: the leader renews the Secret and the webhooks' ``caBundle``, every replica serves what it holds."""

import asyncio
import base64
import datetime
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shardgate.adapters.certificates import TLS, TLS_KEY, bundle, decoded, has_authority, is_servable, renewed
from shardgate.adapters.manifests import SECRET
from shardgate.shells.cluster import JSON_PATCH, ApiError
from shardgate.shells.repairs import Repairs
from shardgate.shells.writer import Writer

log = logging.getLogger(__name__)

Json = dict[str, Any]
CONFIGURATION = "shardgate"
KINDS = ("validatingwebhookconfigurations", "mutatingwebhookconfigurations")
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1"
CHECK_SECONDS = 10.0
"""Between two looks at the webhook configurations."""
MOST_REPAIRS = 3
"""Of each of them, a minute: whoever wipes both again and again costs six writes."""
HTTP_NOT_FOUND, HTTP_CONFLICT = 404, 409


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Certificates:
    """Of one replica. ``clock`` is the wall clock: certificates end by it."""

    def __init__(self, writer: Writer, namespace: str, hosts: Sequence[str], clock: Callable[[], datetime.datetime] = _now) -> None:
        self._writer, self._namespace, self._hosts, self._clock = writer, namespace, hosts, clock
        self._folder = Path(tempfile.mkdtemp(prefix="shardgate-tls-"))
        self.certificate, self.key = self._folder / "tls.crt", self._folder / "tls.key"
        self.served = asyncio.Event()
        """A pair is there to be served."""
        self._files: dict[str, bytes] | None = None
        self._version = ""
        self._last: dict[str, bytes] | None = None
        """The last that had an authority and could be served: of a Secret that is deleted, or loses them, it is written again."""
        self._published: tuple[bytes, float] = (b"", 0.0)
        """Authorities that the API server was seen to trust, and since when, by the monotonic clock."""
        self._is_known = False
        self._checked = float("-inf")
        self._repairs = Repairs(MOST_REPAIRS)

    @property
    def path(self) -> str:
        """Where the Secret is listed, and watched by name."""
        return f"/api/v1/namespaces/{self._namespace}/secrets"

    # ---- what every replica does

    def put(self, body: Json) -> None:
        """The Secret as it stands: serve its pair."""
        if body["metadata"].get("name") != SECRET:
            return
        self._is_known = True
        self._files, self._version = decoded(body.get("data") or {}), body["metadata"]["resourceVersion"]
        if not is_servable(self._files):
            log.warning("the Secret %s holds no pair that could be served: what was served before stays", SECRET)
            return
        if has_authority(self._files, self._clock()):
            self._last = self._files
        certificate, key = self._files[TLS], self._files[TLS_KEY]
        if not self.certificate.exists() or self.certificate.read_bytes() != certificate:
            _replace(self.key, key)
            _replace(self.certificate, certificate)  # last: the server looks at both, and takes no half pair
        self.served.set()

    def clear(self) -> None:
        """The process ends: the key is left nowhere."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def drop(self) -> None:
        """There is no Secret; what is served stays."""
        self._is_known, self._files, self._version = True, None, ""

    # ---- what the leader does

    async def upkeep(self) -> None:
        """Renew what is due, and see that the API server trusts it. Raises ``ApiError`` and ``ClusterUnreachable``."""
        if not self._is_known:
            return
        await self._renew()
        if self._files is None or time.monotonic() - self._checked < CHECK_SECONDS:
            return
        if not has_authority(self._files, self._clock()):
            return  # what stands in the bundle is what replicas serve by
        self._checked = time.monotonic()
        trusted = bundle(self._files, self._clock())
        wanted = base64.b64encode(trusted).decode()
        for kind in KINDS:
            await self._trust(kind, wanted, is_known=self._published[0] == trusted)
        if self._published[0] != trusted:
            self._published = (trusted, time.monotonic())

    async def begin(self) -> None:
        """Any replica may make the first: who leads may be an older one, that is given its certificates."""
        if self._is_known and self._files is None:
            await self._renew()

    async def _renew(self) -> None:
        now = self._clock()
        authorities, since = self._published
        is_published = self._files is not None and authorities == bundle(self._files, now)
        published = datetime.timedelta(seconds=time.monotonic() - since if is_published else 0)
        stored = self._files
        if self._last is not None and has_authority(self._last, now) and (stored is None or not has_authority(stored, now)):
            # Replicas serve by it still: a new one would be trusted before its leaf is served everywhere, or after.
            stored = self._last
        files = renewed(stored, self._hosts, now, published)
        if files is None and stored is not self._files:
            files = stored
        if files is not None:
            await self._write(files)

    async def _write(self, files: dict[str, bytes]) -> None:
        data = {name: base64.b64encode(value).decode() for name, value in files.items()}
        try:
            if self._files is None:
                body = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": SECRET}, "data": data}
                answer = await self._writer.write("POST", self.path, "secrets", body)
            else:
                gone = {name: None for name in self._files if name not in data}
                patch = {"metadata": {"resourceVersion": self._version}, "data": {**data, **gone}}
                answer = await self._writer.write("PATCH", f"{self.path}/{SECRET}", "secrets", patch)
        except ApiError as error:
            if error.status != HTTP_CONFLICT:
                raise
            return  # another replica was faster: the watch brings what it wrote
        log.warning("the serving certificate was renewed")
        self.put(answer)
        self._checked = float("-inf")

    def contested(self) -> list[str]:
        """The configurations whose ``caBundle`` somebody else changes again and again."""
        return [kind for kind in KINDS if self._repairs.is_contested(kind)]

    async def _trust(self, kind: str, wanted: str, *, is_known: bool) -> None:
        """``is_known``: it was seen to be trusted before, so that somebody else took it away."""
        path = f"{CONFIGURATIONS}/{kind}/{CONFIGURATION}"
        try:
            body = await self._writer.read(path)
        except ApiError as error:
            if error.status == HTTP_NOT_FOUND:
                return  # not installed yet
            raise
        patch: list[Json] = []
        for number, each in enumerate(body.get("webhooks") or ()):
            if each["clientConfig"].get("caBundle") != wanted:
                patch.append({"op": "test", "path": f"/webhooks/{number}/name", "value": each["name"]})
                patch.append({"op": "add", "path": f"/webhooks/{number}/clientConfig/caBundle", "value": wanted})
        if patch and is_known:
            if self._repairs.seconds_to_wait(kind):
                return
            self._repairs.note(kind)
        if patch:
            await self._writer.write("PATCH", path, kind, patch, content_type=JSON_PATCH)  # type: ignore[arg-type]  # a list


def _replace(path: Path, content: bytes) -> None:
    """At once: nobody reads half of it."""
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_bytes(content)
    os.replace(new, path)  # noqa: PTH105  # the same
