"""What the node agent serves, to clients that mean it no good."""

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator

import pytest

from shardgate.shells.agent import web
from shardgate.shells.agent.web import MOST_REQUESTS, Web


@pytest.fixture
def served() -> Iterator[Web]:
    found = Web("127.0.0.1", 0, {"/healthz": lambda: (200, b"ok\n")})
    yield found
    found.close()


def status(served: Web, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status


def test_it_answers_what_it_has(served: Web) -> None:
    assert (status(served, "/healthz"), status(served, "/healthz?a=b"), status(served, "/other")) == (200, 200, 404)


def test_probes_are_answered_while_others_hold_connections(served: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "REQUEST_SECONDS", 3600.0)
    with contextlib.ExitStack() as held:
        for _ in range(3 * MOST_REQUESTS):
            held.enter_context(socket.create_connection(("127.0.0.1", served.port)))
        assert [status(served, "/healthz") for _ in range(5)] == [200] * 5


def test_who_speaks_slowly_is_cut_however_often_he_speaks(served: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "REQUEST_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", served.port)) as slow:
        with pytest.raises(OSError):  # noqa: PT011  # a broken pipe or a reset, as it comes
            speak(slow)


def speak(slowly: socket.socket) -> None:
    pause = threading.Event()
    for _ in range(600):
        slowly.sendall(b"G")
        pause.wait(0.05)
