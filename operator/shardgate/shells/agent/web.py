"""``/metrics``, ``/healthz`` and ``/readyz`` of the node agent, each request on a thread of its own, few at a time.

Whoever reaches the port may open connections and say nothing, or little and slowly: a connection is cut after
``REQUEST_SECONDS``, whatever it has said, and a new one takes the place of the oldest that waits. So the kubelet's probes
are answered, and nobody can have the agent restarted.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MOST_REQUESTS = 8
REQUEST_SECONDS = 2.0
"""From the first byte of a connection's request to the last of its answer."""

Answer = Callable[[], tuple[int, bytes]]
"""Status and body."""


class Web:
    """Answers from the moment it is made until it is closed."""

    def __init__(self, host: str, port: int, answers: dict[str, Answer]) -> None:
        """Raises ``OSError`` where the port is taken."""
        self._server = _Server((host, port), _handler(answers))
        threading.Thread(target=self._server.serve_forever, args=(5.0,), name="web", daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        self._open: dict[socket.socket, threading.Timer] = {}
        """Connections, the oldest first, and what cuts each at its deadline."""
        self._lock = threading.Lock()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        deadline = threading.Timer(REQUEST_SECONDS, _cut, [request])
        deadline.daemon = True
        with self._lock:
            if len(self._open) >= MOST_REQUESTS:
                oldest = next(iter(self._open))
                self._open.pop(oldest).cancel()
                _cut(oldest)
            self._open[request] = deadline
        deadline.start()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                deadline = self._open.pop(request, None)
            if deadline is not None:
                deadline.cancel()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of ours."""


def _cut(connection: socket.socket) -> None:
    """Whoever reads or writes there ends at once."""
    with contextlib.suppress(OSError):  # it has gone
        connection.shutdown(socket.SHUT_RDWR)


def _handler(answers: dict[str, Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_SECONDS

        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            status, body = answer() if answer is not None else (404, b"not found\n")
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002  # the name is the base class's
            """Probes come every few seconds: they are not worth a line."""

    return Handler
