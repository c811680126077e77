"""Reviews sent to a webhook as an API server sends them: HTTP/1.1 over TLS, many connections kept open.

``closed_loop``: each connection asks again as soon as it is answered. ``open_loop``: so many a second whatever comes back;
a time counts from when the review was due, so that a queue shows.
"""

import asyncio
import itertools
import json
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from builders import a_body

SIZE_BYTES = 6900
RESOURCE = {"group": "shardgate.io", "version": "v1alpha1", "resource": "inferencedeployments"}


class UnexpectedAnswer(Exception):
    """Not what a review should be answered with."""


def update_reviews(how_many: int) -> list[bytes]:
    """UPDATEs of as many declarations, each of about 6.9 kB and with another ``maxSequences`` than stood there."""
    made = []
    for index in range(how_many):
        old = a_body(f"llama-{index}", engine={"maxSequences": 128})
        old["metadata"] |= {"uid": f"uid-{index}", "generation": 1, "annotations": {}}
        new = a_body(f"llama-{index}", engine={"maxSequences": 64 + index % 64})
        new["metadata"] |= {"uid": f"uid-{index}", "generation": 2, "annotations": {}}
        request: dict[str, Any] = {
            "uid": f"review-{index}", "kind": {"group": "shardgate.io", "version": "v1alpha1", "kind": "InferenceDeployment"},
            "resource": RESOURCE, "name": f"llama-{index}", "namespace": "serving", "operation": "UPDATE",
            "userInfo": {"username": "system:serviceaccount:argocd:argocd-application-controller", "groups": ["system:authenticated"]},
            "object": new, "oldObject": old, "dryRun": False,
        }  # fmt: skip
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
        short = (SIZE_BYTES - len(json.dumps(review))) // 2
        for each in (old, new):  # what GitOps leaves in an object
            each["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = "x" * max(0, short - 60)
        made.append(json.dumps(review).encode())
    return made


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._got = b""
        self._answered: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of TCP

    async def ask(self, head: bytes, body: bytes) -> bytes:
        """The answer's body."""
        assert self._transport is not None
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.writelines((head, body))
        return await self._answered

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found or self._answered is None:
            return
        length = int(next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))[15:])
        if len(body) < length:
            return
        self._got = b""
        if head.startswith(b"HTTP/1.1 200"):
            self._answered.set_result(body)
        else:
            self._answered.set_exception(UnexpectedAnswer((head + body).decode(errors="replace")))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error or ConnectionError("closed"))


def _head(size: int, path: str) -> bytes:
    return (
        f"POST {path}?timeout=3s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"User-Agent: kube-apiserver\r\nContent-Length: {size}\r\n\r\n"
    ).encode()


async def _connect(port: int, authority: str, how_many: int) -> list[_Connection]:
    context = ssl.create_default_context(cafile=authority)
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(_Connection, "127.0.0.1", port, ssl=context))[1] for _ in range(how_many)]


async def closed_loop(
    port: int, authority: str, reviews: Sequence[bytes], *, connections: int, seconds: float, path: str = "/validate"
) -> tuple[float, list[float]]:
    """(answers a second, milliseconds of each)."""
    taken: list[float] = []
    turn = itertools.cycle(reviews)
    ends = time.perf_counter() + seconds

    async def work(connection: _Connection) -> None:
        while (started := time.perf_counter()) < ends:
            body = next(turn)
            await connection.ask(_head(len(body), path), body)
            taken.append((time.perf_counter() - started) * 1000)

    opened = await _connect(port, authority, connections)
    began = time.perf_counter()
    await asyncio.gather(*(work(each) for each in opened))
    return len(taken) / (time.perf_counter() - began), taken


async def open_loop(
    port: int, authority: str, reviews: Sequence[bytes], *, connections: int, seconds: float, rate: float, path: str = "/validate"
) -> list[float]:
    """Milliseconds of each, from when it was due."""
    taken: list[float] = []
    began = time.perf_counter()
    due: Iterator[int] = iter(range(int(rate * seconds)))
    turn: Callable[[], bytes] = itertools.cycle(reviews).__next__

    async def work(connection: _Connection) -> None:
        for number in due:
            at = began + number / rate
            if (wait := at - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            body = turn()
            await connection.ask(_head(len(body), path), body)
            taken.append((time.perf_counter() - at) * 1000)

    opened = await _connect(port, authority, connections)
    began = time.perf_counter()
    await asyncio.gather(*(work(each) for each in opened))
    return taken
