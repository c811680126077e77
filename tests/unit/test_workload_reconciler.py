"""WorkloadVerdicts come with findings and go with them, whatever happens to their workloads meanwhile."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from builders import a_book, a_node, a_pod, a_vllm_deployment, standing
from shardgate.adapters.nodes import node_from
from shardgate.adapters.pods import pod_from, read_pod
from shardgate.adapters.workload_verdict_objects import is_mismatch
from shardgate.adapters.workloads.kinds import JUDGED_KINDS
from shardgate.adapters.workloads.library import Library
from shardgate.shells import workload_reconciler as module
from shardgate.shells.cluster import ApiError
from shardgate.shells.config import OperatorConfig
from shardgate.shells.config_maps import ConfigMaps
from shardgate.shells.judge import Judge
from shardgate.shells.metrics import Metrics
from shardgate.shells.rejudging import Rejudging
from shardgate.shells.stores import Workloads
from shardgate.shells.work_queue import WorkQueue
from shardgate.shells.workload_reconciler import WorkloadReconciler
from shardgate.shells.writer import Writer

Json = dict[str, Any]
DEPLOYMENT = next(each for each in JUDGED_KINDS if each.kind == "Deployment")


class Api:
    """Stands in for the API server: WorkloadVerdicts and events."""

    def __init__(self) -> None:
        self.verdicts: dict[str, Json] = {}
        self.events: list[tuple[str, str]] = []
        self.writes = self.version = 0
        self.problem: ApiError | None = None

    async def request(self, verb: str, path: str, *, body: Json | None = None, **_: Any) -> Json:
        self.writes += 1
        name = path.rsplit("/", 1)[1]
        assert body is not None
        if name == "events":
            if self.problem is not None:
                raise self.problem
            self.events.append((body["regarding"]["name"], body["reason"]))
            return {}
        if verb == "POST":
            if body["metadata"]["name"] in self.verdicts:
                raise ApiError(409, "AlreadyExists", path)
            return self.keep(body)
        stands = self.verdicts.get(name)
        if stands is None:
            raise ApiError(404, "NotFound", name)
        seen = body["preconditions"] if verb == "DELETE" else body["metadata"]
        if seen["resourceVersion"] != stands["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", name)
        return self.verdicts.pop(name) if verb == "DELETE" else self.keep(merged(stands, body))

    def keep(self, body: Json) -> Json:
        """As it stands from now on."""
        self.version += 1
        name, metadata = body["metadata"]["name"], {"uid": f"uid-{self.version}", **body["metadata"]}
        self.verdicts[name] = {**body, "metadata": {**metadata, "resourceVersion": str(self.version)}}
        return self.verdicts[name]


def merged(before: Any, patch: Any) -> Any:
    """What a merge patch makes of it."""
    if not isinstance(patch, dict):
        return patch
    known = before if isinstance(before, dict) else {}
    made = {**known, **{key: merged(known.get(key), value) for key, value in patch.items()}}
    return {key: value for key, value in made.items() if value is not None}


class Holding:
    def __init__(self) -> None:
        self.gained = asyncio.Event()

    def is_held(self) -> bool:
        return True


class Scene:
    """One replica that leads."""

    def __init__(self, *objects: Any) -> None:
        self.api, self.metrics, wake = Api(), Metrics(), asyncio.Event()
        judge = Judge(a_book(*objects), lambda: (0.0, 0.0))
        self.book = judge.book
        config = OperatorConfig(tls_cert=Path("c"), tls_key=Path("k"))
        self.writer = Writer(self.api, self.metrics, "test")  # type: ignore[arg-type]
        maps = ConfigMaps(self.api, Library())  # type: ignore[arg-type]
        self.subject = WorkloadReconciler(
            self.writer,
            judge,
            Holding(),
            config,
            self.metrics,
            WorkQueue(wake),
            maps,  # type: ignore[arg-type]
        )
        self.passes = Rejudging(judge, Holding(), self.metrics, wake, [self.subject], self.upkeep)  # type: ignore[arg-type]

    async def upkeep(self) -> None:
        await self.subject.take_away_what_is_over()
        await self.writer.send_owed()

    def once(self, *bodies: Json) -> dict[str, list[str]]:
        """A pass after these came: verdict -> its codes."""
        for body in bodies:
            self.subject.put(body)
        asyncio.run(self.passes.once())
        return {name: [each["code"] for each in body["status"]["findings"]] for name, body in self.api.verdicts.items()}

    def at_rest(self) -> None:
        before = self.api.writes
        for _ in range(3):
            asyncio.run(self.passes.once())
        assert self.api.writes == before


def wrong(name: str = "llama", uid: str = "u") -> Json:
    return standing(a_vllm_deployment(name, gpus=4, replicas=0), uid)


def owned(body: Json, kind: str, api_version: str, name: str, uid: str) -> Json:
    reference = {"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": True}
    return {**body, "metadata": {**body["metadata"], "ownerReferences": [reference]}}


def test_one_comes_with_its_finding_and_goes_with_it() -> None:
    scene = Scene(a_node())
    assert scene.once(wrong()) == {"deployment-llama": ["WorldSizeMismatch"]}
    scene.at_rest()
    assert scene.once(standing(a_vllm_deployment(), "u")) == {}
    scene.at_rest()
    assert scene.api.events == [("llama", "WorldSizeMismatch"), ("llama", "Sound")]


def test_one_that_was_made_anew_gets_a_verdict_of_its_own() -> None:
    scene = Scene(a_node())
    scene.once(wrong(uid="old"))
    assert scene.once(wrong(uid="new")) == {"deployment-llama": ["WorldSizeMismatch"]}
    assert scene.api.verdicts["deployment-llama"]["metadata"]["ownerReferences"][0]["uid"] == "new"
    scene.at_rest()


def test_one_that_asks_for_gpus_no_longer_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVER_SECONDS", -1.0)
    scene = Scene(a_node())
    store = Workloads(scene.subject, DEPLOYMENT)
    store.put(wrong())
    assert scene.once() != {}
    without = wrong()
    without["spec"]["template"]["spec"]["containers"][0].pop("resources")
    store.put(without)
    assert scene.once() == {}
    scene.at_rest()
    assert ("llama", "Sound") not in scene.api.events


def test_a_verdict_about_nothing_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVER_SECONDS", -1.0)
    scene = Scene(a_node())
    scene.once(wrong())
    left = {**scene.api.verdicts["deployment-llama"]}
    left["metadata"] = {**left["metadata"], "ownerReferences": []}  # kubectl delete --cascade=orphan
    scene.subject.put_verdict(left)
    scene.subject.drop("u")
    assert scene.once() == {}
    scene.at_rest()


def test_what_was_made_for_another_is_judged_with_it_whichever_comes_first() -> None:
    scene = Scene(a_node())
    made = owned(wrong("made", "made"), "InferenceService", "serving.kserve.io/v1beta1", "isvc", "isvc")
    assert list(scene.once(made)) == ["deployment-made"]
    service = standing(
        {
            "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "isvc", "namespace": "serving"},
            "spec": {"predictor": {"containers": made["spec"]["template"]["spec"]["containers"]}},
        },
        "isvc",
    )  # fmt: skip
    assert list(scene.once(service)) == ["inferenceservice-isvc"]
    assert ("made", "Sound") not in scene.api.events
    scene.subject.drop("isvc")
    assert "deployment-made" in scene.once()


def test_an_event_that_cannot_be_sent_is_sent_later() -> None:
    scene = Scene(a_node())
    scene.api.problem = ApiError(500, "InternalError", "events")
    assert scene.once(wrong()) == {"deployment-llama": ["WorldSizeMismatch"]}
    assert scene.api.events == []
    scene.api.problem = None
    scene.once()
    assert scene.api.events == [("llama", "WorldSizeMismatch")]


def test_a_mismatch_lasts_while_it_is_down() -> None:
    scene = Scene(a_node())
    body = standing(a_vllm_deployment(), "u")
    assert scene.once(body) == {}
    seen = []
    for node in (a_node().allocatable(7), a_node().without_gpu_labels().allocatable(7), a_node().allocatable(7)):
        scene.book.put_node(node_from(node.body), time.monotonic())
        scene.once()
        seen.append(is_mismatch(scene.api.verdicts["deployment-llama"]["status"]))
    assert seen == [True, True, True]


OWN = {
    "Deployment": ({"pod-template-hash": "5d"}, "ReplicaSet", "llama-5d"),
    "Rollout": ({"rollouts-pod-template-hash": "5d"}, "ReplicaSet", "llama-5d"),
    "LeaderWorkerSet": ({"leaderworkerset.sigs.k8s.io/name": "llama"}, "StatefulSet", "llama"),
    "InferenceService": (
        {"serving.kserve.io/inferenceservice": "llama", "pod-template-hash": "5d"},
        "ReplicaSet",
        "llama-predictor-5d",
    ),
}


@pytest.mark.parametrize("kind", OWN)
def test_running_pods_are_its_own(kind: str) -> None:
    labels, owner, name = OWN[kind]
    pod = a_pod("p", node="node-a", gpus=8, ready=True)
    pod["metadata"] |= {"labels": labels, "ownerReferences": [{"kind": owner, "name": name, "controller": True}]}
    record = read_pod(pod_from(pod))
    assert record is not None
    scene = Scene(a_node())
    scene.book.put_pod(record)
    template = a_vllm_deployment()["spec"]["template"]
    spec, api_version = {
        "Deployment": ({"template": template}, "apps/v1"),
        "Rollout": ({"template": template}, "argoproj.io/v1alpha1"),
        "LeaderWorkerSet": ({"leaderWorkerTemplate": {"size": 1, "workerTemplate": template}}, "leaderworkerset.x-k8s.io/v1"),
        "InferenceService": ({"predictor": template["spec"]}, "serving.kserve.io/v1beta1"),
    }[kind]
    body = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "llama", "namespace": "serving"}, "spec": spec}
    assert scene.once(standing(body)) == {}


def test_a_late_write_of_a_former_leader_lands_nowhere() -> None:
    former, leader = Scene(a_node()), Scene(a_node())
    leader.api = leader.writer._cluster = former.api  # type: ignore[assignment]
    assert former.once(wrong()) == {"deployment-llama": ["WorldSizeMismatch"]}
    leader.subject.put_verdict(former.api.verdicts["deployment-llama"])
    narrow = standing(a_vllm_deployment(gpus=4, replicas=1), "u")
    narrow["metadata"]["generation"] = 2
    leader.once(narrow)
    stands = former.api.verdicts["deployment-llama"]
    assert stands["status"]["observedGeneration"] == 2
    late = standing(a_vllm_deployment(tensor=2, gpus=4, replicas=0), "u")
    for body in (late, standing(a_vllm_deployment(), "u")):  # a patch, and a deletion
        former.once(body)
        assert former.api.verdicts["deployment-llama"] == stands
    fresh = Scene(a_node())
    fresh.api = fresh.writer._cluster = former.api  # type: ignore[assignment]
    fresh.once(wrong())  # as it had not seen that one stands
    assert former.api.verdicts["deployment-llama"] == stands
    fresh.subject.put_verdict(stands)
    fresh.once(narrow)
    fresh.at_rest()


def test_what_a_verdict_says_no_longer_is_gone_from_it() -> None:
    scene = Scene(a_node())
    scene.once(wrong())
    stands = scene.api.verdicts["deployment-llama"]
    forged = {**stands, "metadata": {**stands["metadata"], "labels": {"kept": "yes"}}}
    forged["status"] = {**stands["status"], "outcome": "Sound", "lastGoodOutcome": "Sound", "aspects": {"host": "Risky"}}
    scene.api.keep(forged)
    scene.subject.put_verdict(scene.api.verdicts["deployment-llama"])
    scene.once()
    found = scene.api.verdicts["deployment-llama"]
    assert (found["status"]["aspects"], found["metadata"]["labels"]) == (stands["status"]["aspects"], {"kept": "yes"})
    scene.at_rest()


def test_what_was_made_anew_while_nobody_looked_leaves_nothing_behind() -> None:
    async def test() -> None:
        scene = Scene(a_node(gpus=4))
        for uid in ("one", "two"):
            scene.subject.put(standing(a_vllm_deployment(), uid))
            await scene.subject.judge_and_write(uid)
            assert list(scene.subject.judged) == list(scene.subject._said) == [uid]

    asyncio.run(test())
