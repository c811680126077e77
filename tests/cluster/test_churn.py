"""A cluster full of Deployments, most without GPUs: those never reach us, however they are churned."""

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import aiohttp
from foreign import requests
from live import create_node, until

from builders import a_node, a_vllm_deployment
from controlplane.installation import Installation
from controlplane.plane import ControlPlane

Start = Callable[..., Installation]
Json = dict[str, Any]

DEPLOYMENTS, WITH_GPUS, AT_ONCE = 2000, 50, 16
ROOT = "/apis/apps/v1/namespaces/serving/deployments"


def plain(name: str) -> Json:
    body = a_vllm_deployment(name)
    body["spec"]["replicas"] = 0
    body["spec"]["template"]["spec"]["containers"] = [{"name": "web", "image": "nginx"}]
    return body


def serving(name: str) -> Json:
    body = a_vllm_deployment(name, tensor=4, gpus=4)
    body["spec"]["replicas"] = 0
    return body


async def send(plane: ControlPlane, calls: Iterable[tuple[str, str, Json]]) -> None:
    """Each call (verb, path, body) once, several at a time."""
    context = ssl.create_default_context(cafile=str(plane.authority.path))
    context.load_cert_chain(*plane.admin)
    waiting = iter(calls)
    async with aiohttp.ClientSession(plane.url, connector=aiohttp.TCPConnector(ssl=context)) as session:

        async def work() -> None:
            for verb, path, body in waiting:
                kind = "application/merge-patch+json" if verb == "PATCH" else "application/json"
                async with session.request(verb, path, json=body, headers={"Content-Type": kind}) as response:
                    assert response.status < 300, await response.text()

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def test_two_thousand_deployments_of_which_fifty_ask_for_gpus(clean: ControlPlane, start: Start) -> None:
    plane = clean
    create_node(plane, a_node().body)
    installation = start()
    before = requests(installation)
    bodies = [
        serving(f"llm-{number}") if number % (DEPLOYMENTS // WITH_GPUS) == 0 else plain(f"web-{number}")
        for number in range(DEPLOYMENTS)
    ]
    asyncio.run(send(plane, [("POST", ROOT, body) for body in bodies]))
    assert requests(installation) - before == WITH_GPUS
    grace = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 20}}}}
    label = {"metadata": {"labels": {"a": "b"}}}
    names = [body["metadata"]["name"] for body in bodies]
    for each in (grace, label):  # one after the other: the API server asks again where two writes meet
        asyncio.run(send(plane, [("PATCH", f"{ROOT}/{name}", each) for name in names]))
    assert requests(installation) - before == 2 * WITH_GPUS
    until(
        "those alone are followed",
        lambda: installation.metric('shardgate_declarations{kind="Deployment",outcome="Sound"}') == WITH_GPUS,
    )
    asyncio.run(send(plane, [("DELETE", f"{ROOT}/{name}", {}) for name in names]))
    assert requests(installation) - before == 2 * WITH_GPUS
