"""The webhook server around a handler that fails, dawdles, or is being told to stop."""

import asyncio
import datetime
import gc
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import pytest

from controlplane.plane import Authority
from controlplane.processes import free_ports
from shardgate.shells import connections
from shardgate.shells import webhook_server as module
from shardgate.shells.time_limit import answer_due, within_time
from shardgate.shells.webhook_server import WebhookServer

Answer = Callable[..., Awaitable[Any]]

REVIEW = {
    "apiVersion": "admission.k8s.io/v1",
    "kind": "AdmissionReview",
    "request": {
        "uid": "u", "operation": "CREATE", "userInfo": {}, "object": {"metadata": {}},
        "resource": {"group": "shardgate.io", "version": "v1alpha1", "resource": "inferencedeployments"},
    },
}  # fmt: skip
ALLOWED = {"allowed": True}


async def allow(*_: Any) -> Any:
    return ALLOWED


@asynccontextmanager
async def serving(
    folder: Path, answer: Answer, drain: float = 0, **settings: Any
) -> AsyncIterator[tuple[WebhookServer, str, Authority, asyncio.Task[None]]]:
    authority = Authority(folder)
    certificate, key = authority.issue("webhook")
    (port,) = free_ports(1)
    server = WebhookServer(
        answer=answer,
        ids=frozenset({"validate"}), address="127.0.0.1", port=port, certificate=certificate, key=key, drain_seconds=drain,
        **settings,
    )  # fmt: skip

    async def run() -> None:
        async for _ in server(None):  # type: ignore[arg-type]  # kopf's own way of answering
            pass

    task = asyncio.create_task(run())
    try:
        while not server.is_serving:
            await asyncio.sleep(0.01)
        yield server, f"https://127.0.0.1:{port}", authority, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def post(base: str, authority: Authority, path: str = "/validate?timeout=1s") -> tuple[int, str, dict[str, str]]:
    context = ssl.create_default_context(cafile=str(authority.path))
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
        session.post(base + path, json=REVIEW) as response,
    ):
        return response.status, await response.text(), dict(response.headers)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 20))  # type: ignore[arg-type]


def test_an_exception_is_http_500_and_says_nothing_of_it(tmp_path: Path) -> None:
    async def fails(*_: Any) -> Any:
        raise KeyError("secret")

    async def test() -> None:
        failures = []
        async with serving(tmp_path, fails, on_internal_error=lambda: failures.append(1)) as (_, base, authority, _):
            code, text, _ = await post(base, authority)
            assert code == 500
            assert "secret" not in text
            assert len(failures) == 1

    run(test)


def test_an_answer_is_a_review_of_the_same_uid(tmp_path: Path) -> None:
    async def denies(request: Any, webhook: str) -> Any:
        return {"allowed": False, "status": {"code": 422, "message": f"no, {webhook} {request['operation']}"}}

    async def test() -> None:
        async with serving(tmp_path, denies) as (_, base, authority, _):
            code, text, headers = await post(base, authority)
            assert (code, headers["Content-Type"]) == (200, "application/json")
            refused = {"uid": "u", "allowed": False, "status": {"code": 422, "message": "no, validate CREATE"}}
            assert json.loads(text) == {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": refused}

    run(test)


def test_an_answer_that_takes_too_long_is_cut_before_the_api_server_gives_up(tmp_path: Path) -> None:
    async def dawdles(*_: Any, **__: Any) -> Any:
        await asyncio.sleep(10)

    async def test() -> None:
        async with serving(tmp_path, dawdles) as (_, base, authority, _):
            started = asyncio.get_running_loop().time()
            assert (await post(base, authority))[0] == 504
            assert asyncio.get_running_loop().time() - started < 1

    run(test)


def test_who_answers_knows_until_when(tmp_path: Path) -> None:
    left = []

    async def notes(*_: Any) -> Any:
        left.append(answer_due() - time.monotonic())
        return ALLOWED

    async def test() -> None:
        async with serving(tmp_path, notes) as (_, base, authority, _):
            await post(base, authority)
        assert 0.3 < left[0] <= 0.8

    run(test)


def test_a_new_certificate_is_served_on_the_open_socket_and_a_broken_one_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CERTIFICATE_POLL_SECONDS", 0.05)

    async def serial(base: str, authority: Authority) -> str:
        context = ssl.create_default_context(cafile=str(authority.path))
        reader, writer = await asyncio.open_connection("127.0.0.1", int(base.rsplit(":", 1)[1]), ssl=context)
        found = str(writer.get_extra_info("peercert")["serialNumber"])
        writer.close()
        await writer.wait_closed()
        del reader
        return found

    async def test() -> None:
        async with serving(tmp_path, allow) as (_, base, authority, _):
            first = await serial(base, authority)
            (tmp_path / "webhook.crt").write_text("half a certif")
            await asyncio.sleep(0.3)
            assert await serial(base, authority) == first
            authority.issue("webhook")
            while await serial(base, authority) == first:
                await asyncio.sleep(0.05)
            assert (await post(base, authority))[0] == 200

    run(test)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"days": (-9, -1)}, "it is valid from"),
        ({"days": (1, 9)}, "it is valid from"),
        ({"hosts": ("elsewhere.example",)}, "it is for elsewhere.example, not for 127.0.0.1"),
    ],
    ids=["expired", "not yet valid", "for another name"],
)
def test_a_pair_that_no_api_server_would_take_is_refused_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(module, "CERTIFICATE_POLL_SECONDS", 0.05)

    async def test() -> None:
        async with serving(tmp_path, allow) as (server, base, authority, _):
            authority.issue("webhook", **changes)
            while not server.refused_pair:
                await asyncio.sleep(0.05)
            assert said in server.refused_pair
            assert (await post(base, authority))[0] == 200, "the pair before is served"
            authority.issue("webhook")
            while server.refused_pair:
                await asyncio.sleep(0.05)
            assert (await post(base, authority))[0] == 200

    run(test)


def test_it_answers_while_it_drains_and_asks_clients_to_go(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, allow, drain=1.5) as (server, base, authority, task):
            assert (await post(base, authority))[2].get("Connection") != "close"
            task.cancel()
            while not server.is_draining:
                await asyncio.sleep(0.01)
            code, _, headers = await post(base, authority)
            assert (code, headers.get("Connection")) == (200, "close")

    run(test)


def test_it_knows_when_its_certificate_expires(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, allow) as (server, *_):
            assert server.not_after is not None
            assert server.not_after > datetime.datetime.now(datetime.UTC).timestamp()

    run(test)


async def post_of(base: str, authority: Authority, group: str, resource: str) -> tuple[int, Any]:
    context = ssl.create_default_context(cafile=str(authority.path))
    request = {**REVIEW["request"], "resource": {"group": group, "version": "v1", "resource": resource}}  # type: ignore[dict-item]
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
        session.post(f"{base}/validate", json={**REVIEW, "request": request}) as response,
    ):
        return response.status, await response.text()


def test_a_version_of_ours_that_is_not_known_is_404_and_other_groups_are_asked_about(tmp_path: Path) -> None:
    async def scenario() -> tuple[Any, Any]:
        async with serving(tmp_path, allow) as (_, base, authority, _task):
            return await post_of(base, authority, "apps", "deployments"), await post_of(
                base, authority, "shardgate.io", "inferencedeployments"
            )

    other, own = asyncio.run(scenario())
    assert other == (200, '{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u","allowed":true}}')
    assert own == (404, "shardgate.io/v1 is not known here")


async def raw(base: str, authority: Authority, *, tls: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that says nothing yet."""
    context = ssl.create_default_context(cafile=str(authority.path)) if tls else None
    return await asyncio.open_connection("127.0.0.1", int(base.rsplit(":", 1)[1]), ssl=context)


async def is_ended(reader: asyncio.StreamReader, within: float = 3.0) -> bool:
    try:
        async with asyncio.timeout(within):
            while await reader.read(1000):
                pass
    except TimeoutError:
        return False
    except (OSError, ssl.SSLError):
        pass
    return True


HEADER = b"POST /validate?timeout=1s HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("tls", "said"),
    [(False, b""), (True, b""), (True, HEADER), (True, HEADER + b"Content-Length: 900\r\n\r\n{")],
    ids=["no handshake", "silent", "half a header", "half a body"],
)
def test_a_slow_client_is_cut_off_and_others_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: bool, said: bytes
) -> None:
    for name in ("FIRST_SECONDS", "HEADER_SECONDS", "HANDSHAKE_SECONDS"):
        monkeypatch.setattr(connections, name, 0.3)
    monkeypatch.setattr(module, "READ_SECONDS", 0.3)

    async def test() -> None:
        async with serving(tmp_path, allow) as (_, base, authority, _):
            reader, writer = await raw(base, authority, tls=tls)
            writer.write(said)
            assert (await post(base, authority))[0] == 200
            assert await is_ended(reader)
            writer.close()

    run(test)


def test_a_connection_may_be_kept_between_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "FIRST_SECONDS", 0.2)
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.2)

    async def test() -> None:
        async with serving(tmp_path, allow) as (_, base, authority, _):
            context = ssl.create_default_context(cafile=str(authority.path))
            connector = aiohttp.TCPConnector(ssl=context, limit=1)
            async with aiohttp.ClientSession(connector=connector) as session:
                ports = set()
                for _ in range(3):
                    async with session.post(f"{base}/validate?timeout=1s", json=REVIEW) as response:
                        assert response.status == 200
                        assert response.connection is None or response.connection.transport is not None
                        ports.add(id(next(iter(connector._conns.values()))[0][0]) if connector._conns else 0)
                    await asyncio.sleep(0.5)
                assert len(ports) == 1

    run(test)


def test_more_connections_than_there_may_be_are_closed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shed: list[str] = []

    async def test() -> None:
        async with serving(tmp_path, allow, on_shed=shed.append) as (server, base, authority, _):
            assert server._connections is not None
            monkeypatch.setattr(server._connections, "_most", 5)
            held = [await raw(base, authority) for _ in range(5)]
            while len(server._connections) < 5:
                await asyncio.sleep(0.01)
            reader, writer = await raw(base, authority)
            assert await is_ended(reader)
            assert shed == ["connections"]
            for _, each in held:
                each.close()
            while len(server._connections):
                await asyncio.sleep(0.01)
            assert (await post(base, authority))[0] == 200
            writer.close()

    run(test)


def test_more_reviews_than_can_be_answered_are_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_AT_ONCE", 2)
    shed: list[str] = []

    async def slow(*_: Any, **__: Any) -> Any:
        await asyncio.sleep(0.4)
        return ALLOWED

    async def test() -> None:
        async with serving(tmp_path, slow, on_shed=shed.append) as (server, base, authority, _):
            answers = await asyncio.gather(*(post(base, authority) for _ in range(5)))
            assert sorted(code for code, *_ in answers) == [200, 200, 503, 503, 503]
            assert (shed, server.in_flight) == (["busy"] * 3, 0)

    run(test)


def test_what_came_too_late_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    async def answers(*_: Any, **__: Any) -> Any:
        begun.append("begun")
        return ALLOWED

    async def test() -> None:
        async with serving(tmp_path, answers) as (server, base, authority, _):
            assert server._connections is not None
            monkeypatch.setattr(server._connections, "began", lambda _: time.monotonic() - 5)
            assert ((await post(base, authority))[0], begun) == (504, [])

    run(test)


def test_a_judgement_that_does_not_come_back_is_cut_and_who_came_meanwhile_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TURN_SECONDS", 0.3)
    judged: list[str] = []

    async def judges(request: Any, _: str) -> Any:
        judged.append(request["uid"])
        within_time(time.sleep, 30 if len(judged) == 1 else 0)
        return ALLOWED

    async def test() -> None:
        async with serving(tmp_path, judges) as (_, base, authority, _task):
            codes = [code for code, *_ in await asyncio.gather(*(post(base, authority) for _ in range(8)))]
            assert (codes.count(504), codes[0], judged[1:]) == (8, 504, [])
            await asyncio.sleep((module.CATCH_UP_LOOKS + 2) * connections.LOOK_SECONDS)
            assert (await post(base, authority))[0] == 200

    run(test)


def test_what_comes_beyond_those_that_may_wait_is_turned_away_and_may_ask_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shed: list[str] = []
    content = json.dumps(REVIEW).encode()
    request = HEADER + b"Content-Length: %d\r\n\r\n" % len(content) + content

    async def test() -> None:
        async with serving(tmp_path, allow, on_shed=shed.append) as (server, base, authority, _):
            reader, writer = await raw(base, authority)
            waits = server._connections.waits  # type: ignore[union-attr]
            for room, expected in ((False, b" 503 "), (False, b" 503 "), (True, b" 200 "), (False, b" 503 "), (True, b" 200 ")):
                monkeypatch.setattr(server._connections, "waits", waits if room else lambda: False)
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                assert expected in head.splitlines()[0]
                length = next(line for line in head.lower().splitlines() if line.startswith(b"content-length"))
                await reader.readexactly(int(length.split(b":")[1]))
            writer.close()

    run(test)


def test_only_clients_that_may_ask_are_answered(tmp_path: Path) -> None:
    async def ask(base: str, authority: Authority, name: str | None) -> int:
        context = ssl.create_default_context(cafile=str(authority.path))
        if name is not None:
            context.load_cert_chain(*authority.issue(name))
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
                session.post(f"{base}/validate", json=REVIEW) as response,
            ):
                return response.status
        except (aiohttp.ClientError, OSError):
            return 0

    async def test() -> None:
        ca = tmp_path / "ca.crt"
        async with serving(tmp_path, allow, client_ca=ca, client_names=frozenset({"kube-apiserver"})) as (_, base, authority, _):
            assert await ask(base, authority, "kube-apiserver") == 200
            assert await ask(base, authority, "somebody") == 403
            assert await ask(base, authority, None) == 0

    run(test)


def test_a_refused_review_leaves_nothing_behind(tmp_path: Path) -> None:
    """Not even until the next full collection: its body may be 8 MiB."""

    async def test() -> None:
        async with serving(tmp_path, allow) as (_, base, authority, _):
            gc.collect()
            gc.disable()
            try:
                assert (await post(base, authority, "/typo"))[0] == 404
                left = [each for each in gc.get_objects() if isinstance(each, aiohttp.web.HTTPException)]
            finally:
                gc.enable()
            assert left == []

    run(test)


def test_a_body_that_says_it_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, allow) as (_, base, authority, _):
            reader, writer = await raw(base, authority)
            writer.write(HEADER + b"Content-Length: 9000000\r\n\r\n")
            assert b" 413 " in await reader.readline()
            writer.transport.abort()

    run(test)
