"""The agent's own way to the API server: over real sockets, to a server that misbehaves."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardgate.shells.agent.api_server import MOST_BYTES, Access, ApiServer, Refused, Unreachable
from shardgate.shells.agent.publisher import Publisher

Json = dict[str, Any]


class Server:
    """Answers as ``answer`` says: (status, body, headers); keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None, Any]] = []
        self.answer: Callable[[str, str, Any], tuple[int, bytes, dict[str, str]]] = lambda *_: (200, b"{}", {})
        self.connections = 0
        self.closes_after_each = False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                outer.connections += 1

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                read = json.loads(body) if body else None
                outer.asked.append((self.command, self.path, self.headers.get("Authorization"), read))
                status, content, headers = outer.answer(self.command, self.path, read)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
                if outer.closes_after_each:
                    self.close_connection = True

            do_GET = do_POST = do_PATCH = handle_any  # noqa: N815  # the base class calls them so

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


@pytest.fixture
def api(server: Server, tmp_path: Path) -> Iterator[ApiServer]:
    (tmp_path / "token").write_text("first\n")
    found = ApiServer(Access(server=server.url, token_file=tmp_path / "token"))
    yield found
    found.close()


def test_the_token_is_read_anew_and_the_connection_kept(server: Server, api: ApiServer, tmp_path: Path) -> None:
    api.request("GET", "/a")
    (tmp_path / "token").write_text("second")
    api.request("GET", "/b")
    assert [authorization for _, _, authorization, _ in server.asked] == ["Bearer first", "Bearer second"]
    assert server.connections == 1


def test_a_connection_that_was_closed_meanwhile_is_made_anew(server: Server, api: ApiServer) -> None:
    server.closes_after_each = True
    for _ in range(3):
        api.request("GET", "/a")
    assert (server.connections, len(server.asked)) == (3, 3)


def test_a_refusal_says_what_and_for_how_long(server: Server, api: ApiServer) -> None:
    server.answer = lambda *_: (429, json.dumps({"message": "too many requests"}).encode(), {"Retry-After": "7"})
    with pytest.raises(Refused) as raised:
        api.request("GET", "/a")
    assert (raised.value.status, str(raised.value), raised.value.retry_after_seconds) == (429, "429 too many requests", 7.0)
    server.answer = lambda *_: (502, b"<html>bad gateway", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})
    with pytest.raises(Refused, match="502 <html>bad gateway") as raised:
        api.request("GET", "/a")
    assert raised.value.retry_after_seconds == 0


@pytest.mark.parametrize("content", [b"no JSON", b"[]", b"x" * (MOST_BYTES + 1), b""])
def test_an_answer_that_makes_no_sense_is_none(server: Server, api: ApiServer, content: bytes) -> None:
    server.answer = lambda *_: (200, content, {})
    with pytest.raises(Unreachable, match=r"^http://127\.0\.0\.1:\d+: ."):
        api.request("GET", "/a")
    server.answer = lambda *_: (200, b'{"a": 1}', {})
    assert api.request("GET", "/a") == {"a": 1}


def test_nobody_there_and_no_token(server: Server, tmp_path: Path) -> None:
    server.close()
    with pytest.raises(Unreachable, match="Connection refused"):
        ApiServer(Access(server=server.url)).request("GET", "/a")
    with pytest.raises(Unreachable, match="No such file"):
        ApiServer(Access(server=server.url, token_file=tmp_path / "none")).request("GET", "/a")


def test_a_pods_access_is_that_of_its_service_account(tmp_path: Path) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    access = Access.of_pod(environment, tmp_path)
    assert access is not None
    assert (access.server, access.token_file, access.ca_file) == (
        "https://[fd00::1]:6443", tmp_path / "token", tmp_path / "ca.crt",
    )  # fmt: skip
    assert Access.of_pod({}) is None


def test_a_report_is_made_once_and_then_written(server: Server, api: ApiServer) -> None:
    server.answer = lambda *_: (200, json.dumps({"metadata": {"uid": "u-1"}}).encode(), {})
    publisher = Publisher(api, "node-7", namespace="gpu", lease_seconds=40)
    for summary in ("a", "b"):
        publisher.publish({"summary": summary})
        publisher.beat()
    report, lease = "/apis/shardgate.io/v1alpha1/gpunodereports", "/apis/coordination.k8s.io/v1/namespaces/gpu/leases"
    assert [(method, path) for method, path, _, _ in server.asked] == [
        ("GET", "/api/v1/nodes/node-7"), ("POST", report), ("PATCH", f"{report}/node-7/status"), ("POST", lease),
        ("PATCH", f"{report}/node-7/status"), ("PATCH", f"{lease}/node-7"),
    ]  # fmt: skip
    made = server.asked[1][3]["metadata"]
    assert (made["name"], made["ownerReferences"]) == (
        "node-7", [{"apiVersion": "v1", "kind": "Node", "name": "node-7", "uid": "u-1"}],
    )  # fmt: skip
    assert server.asked[3][3]["spec"]["leaseDurationSeconds"] == 40


def test_what_stands_there_already_is_made_ours(server: Server, api: ApiServer) -> None:
    def answer(method: str, _path: str, _body: Any) -> tuple[int, bytes, dict[str, str]]:
        if method == "POST":
            return 409, b'{"message": "already exists"}', {}
        return 200, json.dumps({"metadata": {"uid": "u-2"}}).encode(), {}

    server.answer = answer
    Publisher(api, "node-7", namespace="gpu", lease_seconds=40).publish({})
    method, path, _, body = server.asked[2]
    assert (method, path) == ("PATCH", "/apis/shardgate.io/v1alpha1/gpunodereports/node-7")
    assert body["metadata"]["ownerReferences"][0]["uid"] == "u-2"


def test_after_it_went_the_node_is_looked_up_again(server: Server, api: ApiServer) -> None:
    uid, is_gone = "u-1", [False]

    def answer(method: str, path: str, _body: Any) -> tuple[int, bytes, dict[str, str]]:
        if is_gone[0] and method == "PATCH":
            return 404, b'{"message": "not found"}', {}
        return 200, json.dumps({"metadata": {"uid": uid}}).encode(), {}

    server.answer = answer
    publisher = Publisher(api, "node-7", namespace="gpu", lease_seconds=40)
    publisher.beat()
    is_gone[0], uid = True, "u-2"
    with pytest.raises(Refused, match="404"):
        publisher.beat()
    is_gone[0] = False
    publisher.beat()
    assert [body["metadata"]["ownerReferences"][0]["uid"] for method, _, _, body in server.asked if method == "POST"] == [
        "u-1",
        "u-2",
    ]
