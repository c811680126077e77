"""Many requests to the API server at once, without a kubectl for each."""

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from typing import Any

import aiohttp

from controlplane.plane import ControlPlane

Json = dict[str, Any]
Call = tuple[str, str, Json]
"""Verb, path, body."""


def send(plane: ControlPlane, calls: Iterable[Call], at_once: int = 16) -> list[tuple[int, Json]]:
    """Each call once, so many at a time: (status, answer), in their order."""
    return asyncio.run(_send(plane, list(calls), at_once))


async def _send(plane: ControlPlane, calls: Sequence[Call], at_once: int) -> list[tuple[int, Json]]:
    context = ssl.create_default_context(cafile=str(plane.authority.path))
    context.load_cert_chain(*plane.admin)
    answers: list[tuple[int, Json]] = [(0, {})] * len(calls)
    waiting = iter(enumerate(calls))
    async with aiohttp.ClientSession(plane.url, connector=aiohttp.TCPConnector(ssl=context, limit=at_once)) as session:

        async def work() -> None:
            for number, (verb, path, body) in waiting:
                kind = "application/merge-patch+json" if verb == "PATCH" else "application/json"
                async with session.request(verb, path, json=body, headers={"Content-Type": kind}) as response:
                    answers[number] = (response.status, await response.json())

        await asyncio.gather(*(work() for _ in range(at_once)))
    return answers
