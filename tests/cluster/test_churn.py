"""A cluster full of Deployments, most without GPUs: those never reach us, however they are churned."""

from collections.abc import Callable, Iterable
from typing import Any

from calls import Call, send
from foreign import judged, requests
from live import create_node, until

from builders import a_node, a_vllm_deployment
from controlplane.installation import Installation
from controlplane.plane import ControlPlane

Start = Callable[..., Installation]
Json = dict[str, Any]

DEPLOYMENTS, WITH_GPUS = 2000, 50
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


def done(plane: ControlPlane, calls: Iterable[Call]) -> None:
    refused = [answer for status, answer in send(plane, calls) if status >= 300]
    assert refused == []


def test_two_thousand_deployments_of_which_fifty_ask_for_gpus(clean: ControlPlane, start: Start) -> None:
    plane = clean
    create_node(plane, a_node().body)
    installation = start()
    before = requests(installation)
    unjudged = before - judged(installation)
    bodies = [
        serving(f"llm-{number}") if number % (DEPLOYMENTS // WITH_GPUS) == 0 else plain(f"web-{number}")
        for number in range(DEPLOYMENTS)
    ]
    done(plane, [("POST", ROOT, body) for body in bodies])
    assert requests(installation) - before == WITH_GPUS
    grace = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 20}}}}
    label = {"metadata": {"labels": {"a": "b"}}}
    names = [body["metadata"]["name"] for body in bodies]
    for each in (grace, label):
        done(plane, [("PATCH", f"{ROOT}/{name}", each) for name in names])
    # The API server asks again where a patch meets the deployment controller's own write.
    assert 2 * WITH_GPUS <= requests(installation) - before < 3 * WITH_GPUS
    until(
        "those alone are followed",
        lambda: installation.metric('shardgate_declarations{kind="Deployment",outcome="Sound"}') == WITH_GPUS,
    )
    asked = requests(installation)
    done(plane, [("DELETE", f"{ROOT}/{name}", {}) for name in names])
    assert requests(installation) == asked
    assert requests(installation) - judged(installation) == unjudged, "what has no GPUs never came"
