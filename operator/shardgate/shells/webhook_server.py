"""The HTTPS server that kopf runs for admission, in the place of its own and without that one's traps.

An unknown path is 404 (kopf: allowed), an internal error HTTP 500 so that failurePolicy decides (kopf: denied), a body
is capped, an answer has a deadline below the API server's, certificates are reloaded on the open socket, and after
SIGTERM requests are answered until endpoints have forgotten us. Reviews do not go through kopf's handlers, which
take longer than all the rest where the judgement is known (docs/adr/0008-reviews-past-kopfs-handlers.md).
"""

import asyncio
import logging
import math
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import aiohttp.web
import kopf
import msgspec
from cryptography import x509

from shardgate.api import GROUP, VERSION
from shardgate.shells import connections
from shardgate.shells.audit_annotations import collect
from shardgate.shells.time_limit import TURN_SECONDS, OutOfTime, answered_by, ends_at

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 8 << 20
DEADLINE_SHARE = 0.8
DEFAULT_TIMEOUT_SECONDS = 3.0
MOST_COMING_BYTES = 64 << 20
MOST_AT_ONCE = 256
"""Reviews that are begun; a review takes milliseconds, so more than this are not answered in time."""
CATCH_UP_LOOKS = 4
"""After a judgement that was cut: time for handshakes that had begun, some 0.2 s."""
READ_SECONDS = 8.0
"""A body that takes longer to come is not worth waiting for: with its answer and what closing takes, within 10 s."""
CERTIFICATE_POLL_SECONDS = 5.0


ELSEWHERE = "closeConnection"
"""Beside an answer: the next question had better come by another connection, which may lead to another replica."""
Json = dict[str, Any]
Answer = Callable[[Mapping[str, Any], str], Awaitable[Json]]
"""A review's request and the webhook's id -> the response. What it raises becomes HTTP 500, so that failurePolicy decides."""


class WebhookServer:
    """Serves the webhooks with these ids, and nothing else."""

    def __init__(  # keyword-only: settings
        self, *, ids: frozenset[str], address: str, port: int, certificate: Path, key: Path, drain_seconds: float,
        answer: Answer,
        on_internal_error: Callable[[], None] = lambda: None, on_shed: Callable[[str], None] = lambda _: None,
        client_ca: Path | None = None, client_names: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self._answer = answer
        self._ids, self._address, self._port = ids, address, port
        self._certificate, self._key, self._drain_seconds = certificate, key, drain_seconds
        self._on_internal_error, self._on_shed = on_internal_error, on_shed
        self._client_ca, self._client_names = client_ca, client_names
        self._connections: connections.Connections | None = None
        self._coming = 0
        """Bytes of bodies that are still coming."""
        self._judges_again = 0
        """At which look of the loop."""
        self.in_flight = 0
        """Reviews that are being answered."""
        self.is_serving = False
        self.is_draining = False
        self.not_after: float | None = None
        """Unix time at which the certificate expires."""
        self._names: frozenset[str] = frozenset()
        """That the certificate is for."""
        self.refused_pair = ""
        """Why the files that stand now are not served; empty where they are."""

    async def __call__(self, _through_handlers: kopf.WebhookFn) -> AsyncIterator[kopf.WebhookClientConfig]:
        """What kopf runs as ``settings.admission.server``."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        self._load(context)

        async def handle(request: aiohttp.web.Request) -> aiohttp.web.Response:
            try:
                return await self._bounded(request)
            except aiohttp.web.HTTPException as refused:
                # As a reply of its own: aiohttp would keep the exception and its frames, body and all, in a cycle that the
                # collector comes to late.
                reply = aiohttp.web.Response(status=refused.status, text=refused.text, headers=_kept(refused))
                if self.is_draining:
                    reply.force_close()
                return reply

        app = aiohttp.web.Application(client_max_size=MAX_BODY_BYTES)
        app.add_routes([aiohttp.web.post("/{id:.*}", handle)])
        runner = aiohttp.web.AppRunner(
            app, handle_signals=False, access_log=None, shutdown_timeout=20, keepalive_timeout=connections.IDLE_SECONDS,
            lingering_time=connections.UNREAD_SECONDS,
        )  # fmt: skip
        await runner.setup()
        server = None
        try:
            server = await self._listen(runner, context)
            self.is_serving = True
            yield {"url": f"https://{self._address}:{self._port}"}
            await self._reload_for_ever(context)
        finally:
            self.is_draining = True  # readiness turns first, the socket stays open while endpoints forget us
            try:
                await asyncio.sleep(self._drain_seconds)
            finally:  # told to stop a second time: at once, and still in order
                self.is_serving = False
                if self._connections is not None:
                    self._connections.look_no_more()
                if server is not None:
                    server.close()
                await runner.cleanup()

    async def _listen(self, runner: aiohttp.web.AppRunner, context: ssl.SSLContext) -> asyncio.Server:
        """Aiohttp's own sites set no limit on connections or handshakes."""
        self._connections = connections.Connections(cast(Callable[[], asyncio.BaseProtocol], runner.server), self._on_shed)
        self._connections.look()
        return await asyncio.get_running_loop().create_server(
            self._connections, self._address, self._port, ssl=context, backlog=512,
            ssl_handshake_timeout=connections.HANDSHAKE_SECONDS, ssl_shutdown_timeout=connections.HANDSHAKE_SECONDS,
        )  # fmt: skip

    async def _reload_for_ever(self, context: ssl.SSLContext) -> None:
        stamp, problem = self._stamp(), ""
        while True:
            await asyncio.sleep(CERTIFICATE_POLL_SECONDS)
            if (now := self._stamp()) == stamp:
                problem = self.refused_pair = ""
                continue
            try:
                self._load(context)
            except (OSError, ValueError) as error:  # a half-written pair: the old one stays, and we try again
                log.warning("the new certificate is not usable yet: %s", error)
                self.refused_pair, problem = problem and str(error), str(error)  # told from the second time on
            else:
                stamp, problem, self.refused_pair = now, "", ""
                log.info("certificate reloaded")

    def _stamp(self) -> tuple[tuple[int, int] | None, ...]:
        def of(path: Path) -> tuple[int, int] | None:
            try:
                status = path.stat()
            except OSError:
                return None
            return status.st_mtime_ns, status.st_ino

        return of(self._certificate), of(self._key)

    def _load(self, context: ssl.SSLContext) -> None:
        """Raises ``OSError`` and ``ValueError`` for a pair that is not to be served; the first is served as it is."""
        trial = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trial.load_cert_chain(self._certificate, self._key)  # a bad pair must not touch the live context
        certificate = x509.load_pem_x509_certificate(self._certificate.read_bytes())
        if self.not_after is not None:
            self._check(certificate)
        context.load_cert_chain(self._certificate, self._key)
        self.not_after, self._names = certificate.not_valid_after_utc.timestamp(), names_of(certificate)

    def _check(self, certificate: x509.Certificate) -> None:
        """That it is better than the one before: API servers would take neither of these."""
        if not certificate.not_valid_before_utc.timestamp() <= time.time() < certificate.not_valid_after_utc.timestamp():
            span = f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ} to {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
            problem = f"it is valid from {span}"
            raise ValueError(problem)
        if self._names and self._names.isdisjoint(names_of(certificate)):
            problem = f"it is for {', '.join(sorted(names_of(certificate))) or 'no name'}, not for {', '.join(sorted(self._names))}"
            raise ValueError(problem)

    async def _bounded(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        """No more at once than can be answered in time; what the API server has given up on is not begun."""
        began = self._connections.began(request) if self._connections is not None else time.monotonic()
        try:
            self._know_client(request)
            webhook = request.match_info["id"]
            if webhook not in self._ids:
                raise aiohttp.web.HTTPNotFound(text=f"no webhook {webhook!r} here")
            content = await self._content(request)
            if self._is_behind():
                raise self._too_late()  # and no Retry-After: API servers would wait, and ask again until their own deadline
            if self.in_flight >= MOST_AT_ONCE:
                self._on_shed("busy")
                raise aiohttp.web.HTTPServiceUnavailable(text="too many reviews at once", headers={"Retry-After": "1"})
            self.in_flight += 1
            try:
                return await self._handle(request, webhook, content, began)
            finally:
                self.in_flight -= 1
        finally:
            if self._connections is not None:
                self._connections.ended(request)

    async def _handle(self, request: aiohttp.web.Request, webhook: str, content: bytes, began: float) -> aiohttp.web.Response:
        asked = review_of(content)["request"]
        said = collect()
        ends = began + _deadline(request)
        left = ends - time.monotonic()
        if left <= 0:  # the API server has given up on it
            raise self._too_late()
        try:
            with answered_by(ends), ends_at(min(ends, self._turn_ends())):
                async with asyncio.timeout(left):
                    response = await self._answer(asked, webhook)
        except TimeoutError:
            raise self._too_late() from None
        except OutOfTime:
            self._judges_again = 0 if self._connections is None else self._connections.looks + CATCH_UP_LOOKS
            log.warning("%s of the review of uid %.64s was cut: it is not answered", webhook, asked["uid"])
            raise self._too_late() from None
        except Exception:
            log.exception("%s of the review of uid %.64s failed: it is not answered", webhook, asked["uid"])
            self._on_internal_error()
            raise aiohttp.web.HTTPInternalServerError(text="internal error, see the operator's log") from None
        if said:
            response.setdefault("auditAnnotations", {}).update(said)
        is_elsewhere = response.pop(ELSEWHERE, False)
        whole = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": asked["uid"], **response}}
        reply = aiohttp.web.Response(body=msgspec.json.encode(whole), content_type="application/json")
        if self.is_draining or is_elsewhere:
            reply.force_close()
        return reply

    def _turn_ends(self) -> float:
        """When the loop has to see again what comes."""
        return math.inf if self._connections is None else self._connections.looked + TURN_SECONDS

    def _is_behind(self) -> bool:
        """The loop first has to see what came; after a judgement that was cut, all that came meanwhile is told at once."""
        is_catching_up = self._connections is not None and self._connections.looks < self._judges_again
        return is_catching_up or self._turn_ends() < time.monotonic()

    def _too_late(self) -> aiohttp.web.HTTPGatewayTimeout:
        self._on_shed("deadline")
        return aiohttp.web.HTTPGatewayTimeout(text="no answer within the deadline")

    async def _content(self, request: aiohttp.web.Request) -> bytes:
        """The body; bodies that are still coming may hold so much memory together and no more."""
        if (request.content_length or 0) > MAX_BODY_BYTES:  # told at once: none of it is read
            raise aiohttp.web.HTTPRequestEntityTooLarge(max_size=MAX_BODY_BYTES, actual_size=request.content_length or 0)
        size = min(request.content_length or MAX_BODY_BYTES, MAX_BODY_BYTES)
        if self._coming + size > MOST_COMING_BYTES:
            self._on_shed("bodies")
            raise aiohttp.web.HTTPServiceUnavailable(text="too many reviews are coming at once", headers={"Retry-After": "1"})
        self._coming += size
        try:
            async with asyncio.timeout(READ_SECONDS):
                return await request.read()
        except TimeoutError:
            raise aiohttp.web.HTTPRequestTimeout from None
        except ConnectionError:
            raise aiohttp.web.HTTPBadRequest(text="the review did not come whole") from None
        finally:
            self._coming -= size

    def _know_client(self, request: aiohttp.web.Request) -> None:
        """A client's certificate was checked in the handshake; here that it is one of those who may ask."""
        if not self._client_names:
            return
        transport = request.transport
        certificate = (transport.get_extra_info("peercert") if transport is not None else None) or {}
        names = {value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"}
        if names.isdisjoint(self._client_names):
            raise aiohttp.web.HTTPForbidden(text="no review is answered for this client")


def _kept(refused: aiohttp.web.HTTPException) -> dict[str, str]:
    """Headers that a refusal is to have."""
    return {name: value for name, value in refused.headers.items() if name == "Retry-After"}


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """Hosts and addresses that it is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = names.get_values_for_type(x509.IPAddress)
    return frozenset({*names.get_values_for_type(x509.DNSName), *(str(each) for each in addresses)})


def _deadline(request: aiohttp.web.Request) -> float:
    """Seconds: a share of what the API server waits, as it says in the query."""
    stated = request.query.get("timeout", "").removesuffix("s")
    try:
        timeout = float(stated)
    except ValueError:
        timeout = DEFAULT_TIMEOUT_SECONDS
    return max(0.1, min(timeout, 30.0)) * DEADLINE_SHARE


class _Resource(msgspec.Struct, gc=False):
    """GroupVersionResource."""

    group: str
    version: str
    resource: str


class _Metadata(msgspec.Struct, gc=False):
    """ObjectMeta, as far as it is read: no API server sends it otherwise."""

    name: str | None = None
    generateName: str | None = None  # noqa: N815  # as the API spells it
    namespace: str | None = None
    uid: str | None = None
    generation: int | None = None
    deletionTimestamp: str | None = None  # noqa: N815
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    ownerReferences: list[dict[str, Any]] | None = None  # noqa: N815


class _Body(msgspec.Struct, gc=False):
    """An object, as far as it has to be one."""

    metadata: _Metadata


class _User(msgspec.Struct, gc=False):
    """Who asks."""

    username: str | None = None
    uid: str | None = None
    groups: list[str] | None = None
    extra: dict[str, list[str]] | None = None


class _Request(msgspec.Struct, gc=False):
    """What the handlers rely on."""

    uid: Annotated[str, msgspec.Meta(min_length=1)]
    operation: Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
    resource: _Resource
    userInfo: _User  # noqa: N815  # as the API spells it
    name: str | None = None
    namespace: str | None = None
    subResource: str | None = None  # noqa: N815
    dryRun: bool | None = None  # noqa: N815
    object: _Body | None = None
    oldObject: _Body | None = None  # noqa: N815


class _Review(msgspec.Struct, gc=False):
    """An AdmissionReview with a request."""

    apiVersion: Literal["admission.k8s.io/v1"]  # noqa: N815
    kind: Literal["AdmissionReview"]
    request: _Request


def review_of(content: bytes) -> Any:
    """An AdmissionReview that has what is relied on. Raises HTTP 400 with what is wrong, 404 for an unknown version of ours."""
    try:
        review = msgspec.json.decode(content)
        request = msgspec.convert(review, _Review).request
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise aiohttp.web.HTTPBadRequest(text=f"not a review: {error}") from None
    needed = {"CREATE": ("object",), "UPDATE": ("object", "oldObject")}.get(request.operation, ())
    missing = [name for name in needed if getattr(request, name) is None]
    if missing:
        raise aiohttp.web.HTTPBadRequest(text=f"not a review: request.{missing[0]} is missing")
    if request.resource.group == GROUP and request.resource.version != VERSION:
        raise aiohttp.web.HTTPNotFound(text=f"{GROUP}/{request.resource.version} is not known here")
    return review
