"""Stands for a Service: a process that passes connections to those replicas that are ready, one after the other.

``python balancer.py PORT WEBHOOK_PORT/METRICS_PORT...``
"""

import asyncio
import contextlib
import itertools
import sys
import urllib.request

PROBE_SECONDS = 0.5


def is_ready(metrics_port: str) -> bool:
    """Whether ``/readyz`` says so."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/readyz", timeout=2) as answer:
        return bool(answer.status == 200)
    return False


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until either side ends."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def serve(port: int, replicas: list[list[str]]) -> None:
    """Until killed."""
    ready: list[str] = []
    turn = itertools.count()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ZeroDivisionError):
            towards = await asyncio.open_connection("127.0.0.1", int(ready[next(turn) % len(ready)]))
            await asyncio.gather(copy(reader, towards[1]), copy(towards[0], writer))
        writer.close()

    await asyncio.start_server(take, "127.0.0.1", port)
    while True:
        answers = await asyncio.gather(*(asyncio.to_thread(is_ready, metrics) for _, metrics in replicas))
        ready[:] = [webhook for (webhook, _), each in zip(replicas, answers, strict=True) if each]
        await asyncio.sleep(PROBE_SECONDS)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), [each.split("/") for each in sys.argv[2:]]))
