from typing import Any

from builders import GPU, a_pod
from shardgate.adapters.pods import PodRecord, pod_from, read_pod


def read(body: dict[str, Any]) -> PodRecord | None:
    return read_pod(pod_from(body))


def requests(spec: dict[str, Any]) -> dict[str, int]:
    record = read({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})
    assert record is not None
    return dict(record.requests)


def container(**amounts: str) -> dict[str, Any]:
    return {"resources": {"requests": {GPU if key == "gpu" else key: value for key, value in amounts.items()}}}


def test_containers_add_up_and_start_up_takes_the_largest_step() -> None:
    asked = requests(
        {
            "containers": [container(cpu="1", gpu="1"), container(cpu="500m", gpu="1")],
            "initContainers": [container(cpu="4", gpu="1"), container(cpu="1")],
        }
    )
    assert asked == {"cpu": 4000, GPU: 2, "pods": 1}


def test_sidecars_run_beside_the_containers_and_later_start_up_steps() -> None:
    asked = requests(
        {
            "containers": [container(cpu="1")],
            "initContainers": [container(cpu="1") | {"restartPolicy": "Always"}, container(cpu="3")],
        }
    )
    assert asked["cpu"] == 4000


def test_a_limit_without_a_request_is_a_request() -> None:
    assert requests({"containers": [{"resources": {"limits": {GPU: "2"}}}]})[GPU] == 2


def test_overhead_is_added() -> None:
    assert requests({"containers": [container(cpu="1")], "overhead": {"cpu": "250m"}})["cpu"] == 1250


def test_a_pod_that_has_ended_holds_nothing() -> None:
    assert read(a_pod("p") | {"status": {"phase": "Succeeded"}}) is None
    assert read(a_pod("p") | {"status": {"phase": "Failed"}}) is None


def test_a_pod_knows_whose_it_is() -> None:
    record = read(a_pod("p", node="n", gpus=8, declaration="llama", ready=True))
    assert record is not None
    assert (record.owners, record.ready, record.node) == ((("serving", "InferenceDeployment", "llama"),), True, "n")


def test_what_a_container_was_given_counts_while_it_is_resized() -> None:
    spec = {"containers": [{"name": "main", "resources": {"requests": {"cpu": "2", "memory": "4Gi"}}}]}
    given = {"name": "main", "allocatedResources": {"cpu": "4"}, "resources": {"requests": {"cpu": "3", "memory": "6Gi"}}}
    record = read_pod(pod_from({"metadata": {"name": "p"}, "spec": spec, "status": {"containerStatuses": [given]}}))
    assert record is not None
    assert dict(record.requests) == {"cpu": 4000, "memory": 6 * 2**30, "pods": 1}


def test_resources_of_the_pod_as_a_whole_stand_for_its_containers_sums() -> None:
    containers = [{"name": name, "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}} for name in "ab"]
    spec = {"containers": containers, "resources": {"requests": {"cpu": "8"}}, "overhead": {"cpu": "500m"}}
    record = read_pod(pod_from({"metadata": {"name": "p"}, "spec": spec}))
    assert record is not None
    assert dict(record.requests) == {"cpu": 8500, "memory": 2 * 2**30, "pods": 1}


def test_what_a_container_runs_is_read_of_those_with_gpus_alone() -> None:
    body = a_pod("a", node="node-a", gpus=1)
    first = body["spec"]["containers"][0] | {
        "image": "vllm/vllm-openai",
        "args": ["--model", "x"],
        "env": [{"name": "A", "value": "b"}],
    }
    sidecar = {"name": "sidecar", "image": "proxy", "env": [{"name": "C", "value": "d"}]}
    body["spec"]["containers"] = [first, sidecar]
    spec = pod_from(body).spec
    assert spec is not None
    with_gpus, without = spec.containers or ()
    assert (with_gpus.image, with_gpus.env) == ("vllm/vllm-openai", [{"name": "A", "value": "b"}])
    assert (without.name, without.image, without.env) == ("sidecar", None, None)
