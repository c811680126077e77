"""What a node's driver says: believed over labels while its agent is heard, and what is out of use is not free."""

import datetime
from typing import Any

import pytest

from builders import GPU, H100, T4, a_book, a_declaration, a_node, a_pod, a_report, a_reported_gpu, an_inventory
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.node_report import node_report
from shardgate.adapters.nodes import heartbeat_from, node_from, report_from
from shardgate.domain.inventory import Inventory, Node, NodeState
from shardgate.domain.policy import OWN_KIND
from shardgate.domain.units import GIBI
from shardgate.domain.verdict import Outcome, Verdict
from shardgate.domain.verify import verify

Json = dict[str, Any]
NOON = 1_800_000_000.0


def the_node(inventory: Inventory) -> Node:
    (node,) = inventory.nodes
    return node


def read(node: Json, report: Json | None, problem: str = "") -> Json:
    return node_report(node_from(node), (), None if report is None else report_from(report).read(), problem)


def kinds(node: Node) -> set[str]:
    return {kind for kind, _ in node.shape.gpu.contradictions}


def a_lease(name: str, at: float) -> Json:
    renewed = datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="microseconds")
    return {"kind": "Lease", "metadata": {"name": name, "namespace": "shardgate-system"}, "spec": {"renewTime": renewed}}


def judged(inventory: Inventory, **changes: Any) -> Verdict:
    return verify(a_declaration(**changes), inventory, OWN_KIND)


def in_fabric(state: str = "Completed", **fabric: Any) -> Json:
    return a_report("node-a", *(a_reported_gpu(index, fabric={"state": state, **fabric}) for index in range(8)))


# ---- facts


def test_a_report_alone_tells_product_memory_capability_and_links() -> None:
    found = read(a_node().without_gpu_labels().body, a_report())
    assert (found["product"], found["memoryMib"], found["gpusPhysical"]) == ("NVIDIA-H100-80GB-HBM3", 81559, 8)
    assert found["computeCapability"] == {"major": 9, "minor": 0}
    assert found["sharing"] == "none"
    assert found["nvlink"] == {"value": "yes", "reason": "GpuNodeReport: NVLink between all 8 healthy GPUs"}
    assert {found["sources"][field] for field in ("product", "memoryMib", "computeCapability", "gpusPhysical")} == {"GpuNodeReport"}
    assert found["findings"] == []


def test_what_the_driver_keeps_is_not_there_for_an_engine() -> None:
    gpu = the_node(an_inventory(a_report(), a_node())).shape.gpu
    assert gpu.visible is not None
    assert gpu.visible.low == gpu.visible.high
    assert gpu.visible.high / GIBI == pytest.approx(79.18, abs=0.01)


def test_labels_that_agree_are_no_contradiction() -> None:
    node = the_node(an_inventory(a_report(), a_node().label("nvidia.com/gpu.count", "8")))
    assert node.shape.gpu.contradictions == ()


@pytest.mark.parametrize(
    ("node", "report", "kind", "said"),
    [
        (a_node(labels=T4), a_report(), "product", "say Tesla-T4, the driver H100-80GB-HBM3"),
        (a_node(labels={**H100, "nvidia.com/gpu.memory": "40960"}), a_report(), "memory", "say 40960 MiB, the driver 81559 MiB"),
        (a_node(gpus=4), a_report(), "count", "the kubelet counts 4 nvidia.com/gpu, the driver 8 GPUs"),
        (a_node().label("nvidia.com/gpu.count", "4"), a_report(), "count", "say 4 GPUs, the driver 8"),
        (a_node(labels={**H100, "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"}), a_report(), "mig", "it is off"),
        (a_node(), a_report(joined=False), "link", "at most 1 of 8 are"),
        (a_node().label("nvidia.com/gpu.clique", "f.1"), in_fabric(state="NotSupported"), "link", "says f.1, the driver no complete partition"),
        (a_node().label("nvidia.com/gpu.clique", "f.1"), in_fabric(cluster="f", clique=2), "link", "says f.1, the driver f.2"),
        (
            a_node().label("nvidia.com/gpu.clique", "f.1"), in_fabric(cluster="f", clique=1, status="NVML_ERROR_UNKNOWN"),
            "link", "says f.1, the driver no complete partition",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)  # fmt: skip
def test_a_difference_is_named_by_its_kind_and_the_driver_is_believed(node: Any, report: Json, kind: str, said: str) -> None:
    found = the_node(an_inventory(report, node))
    assert kind in kinds(found)
    assert any(each == kind and said in message for each, message in found.shape.gpu.contradictions), found.shape.gpu.contradictions
    assert found.shape.gpu.product == "H100-80GB-HBM3"
    assert found.allocatable[GPU] == int(node.body["status"]["allocatable"][GPU]), "the kubelet counts"


@pytest.mark.parametrize("report", [a_report(), in_fabric(cluster="f", clique=1, status="NVML_SUCCESS")], ids=["unknown", "same"])
def test_a_clique_that_nobody_denies_is_no_difference(report: Json) -> None:
    assert kinds(the_node(an_inventory(report, a_node().label("nvidia.com/gpu.clique", "f.1")))) == set()


def test_a_cards_memory_with_and_without_ecc_is_a_difference_and_noise_is_none() -> None:
    def said(mib: int) -> set[str]:
        gpus = [
            a_reported_gpu(0, product="Tesla T4", computeCapability={"major": 7, "minor": 5}, memory={"totalBytes": mib * 2**20})
        ]
        return kinds(the_node(an_inventory(a_report("node-a", *gpus), a_node(gpus=1, labels=T4))))

    assert said(15360) == said(15109) == set()
    assert said(16384) == {"memory"}


def test_a_difference_is_an_assumption_where_the_driver_settles_it() -> None:
    verdict = judged(an_inventory(a_report(), a_node(labels=T4)))
    assert verdict.outcome is Outcome.SOUND
    assert any("the driver H100-80GB-HBM3" in each.why for each in verdict.assumptions)


def test_labels_of_a_greater_gpu_let_nothing_in() -> None:
    gpus = [a_reported_gpu(index, product="Tesla T4", memory={"totalBytes": 15360 * 2**20}) for index in range(8)]
    found = [{**each, "computeCapability": {"major": 7, "minor": 5}} for each in gpus]
    inventory = an_inventory(a_report("node-a", *found, joined=False), a_node())
    assert "WeightsDoNotFit" in judged(inventory).codes


def test_fewer_units_than_gpus_are_a_difference_where_nothing_tells_of_sharing() -> None:
    assert "count" in kinds(the_node(an_inventory(a_report(), a_node(gpus=4, labels={}))))


def test_of_several_products_nobody_tells_which_a_pod_gets() -> None:
    small = {"product": "Tesla T4", "memory": {"totalBytes": 15360 * 2**20}, "computeCapability": {"major": 7, "minor": 5}}
    mixed = a_report("node-a", *(a_reported_gpu(index, **(small if index % 2 else {})) for index in range(8)))
    inventory = an_inventory(mixed, a_node())
    gpu = the_node(inventory).shape.gpu
    assert gpu.product is None
    assert [each.memory for each in (gpu, *gpu.alternatives)] == [15360 * 2**20, 81559 * 2**20]
    verdict = judged(inventory)
    assert (verdict.outcome, verdict.codes) == (Outcome.UNDECIDED, ("GpuFactsContradict",))
    tiny = {"model": {"name": "Qwen/Qwen2.5-0.5B-Instruct"}, "strategy": {"tensor": 1, "pipeline": 1}, "gpus": {"perPod": 1}}
    dtype = {**tiny["model"], "weights": "fp16", "dtype": "fp16"}
    assert judged(inventory, **{**tiny, "model": dtype}, engine={"maxModelLen": 2048}).outcome is not Outcome.UNDECIDED


def test_on_a_node_of_several_products_labels_count_one_and_contradict_nothing() -> None:
    small = {"product": "Tesla T4", "memory": {"totalBytes": 15360 * 2**20}, "computeCapability": {"major": 7, "minor": 5}}
    mixed = a_report("node-a", *(a_reported_gpu(index, **(small if index % 2 else {})) for index in range(8)))
    node = a_node(
        labels={**H100, "nvidia.com/gpu.count": "4", "nvidia.com/gpu.compute.major": "9", "nvidia.com/gpu.compute.minor": "0"}
    )
    gpu = the_node(an_inventory(mixed, node)).shape.gpu
    assert {kind for kind, _ in gpu.contradictions} == {"product"}
    assert (gpu.product, gpu.memory, gpu.compute_capability) == (None, 15360 * 2**20, None)
    assert "count" in kinds(the_node(an_inventory(mixed, a_node(gpus=4)))), "the kubelet counts all"
    assert read(node.body, mixed)["family"] is None


def of_memories(*mib: int) -> Json:
    return a_report("node-a", *(a_reported_gpu(index, memory={"totalBytes": each * 2**20}) for index, each in enumerate(mib)))


def test_gpus_of_one_product_that_differ_a_little_have_the_least() -> None:
    gpu = the_node(an_inventory(of_memories(*[81559] * 7, 81037), a_node())).shape.gpu
    assert (gpu.memory, gpu.alternatives, gpu.contradictions) == (81037 * 2**20, (), ())


def test_gpus_of_one_product_that_differ_much_have_the_least_and_that_is_said() -> None:
    gpu = the_node(an_inventory(of_memories(*[81559] * 7, 40960), a_node())).shape.gpu
    assert (gpu.memory, gpu.alternatives) == (40960 * 2**20, ())
    assert gpu.contradictions == (("memory", "the driver tells of GPUs of 40960 to 81559 MiB"),)


@pytest.mark.parametrize(
    "memory",
    [{"totalBytes": 0}, {"totalBytes": 2**63 - 1}, {"totalBytes": -1}, {"totalBytes": 81559 * 2**20, "reservedBytes": 2**40}],
    ids=["none", "no end", "negative", "more kept than there is"],
)
def test_memory_that_cannot_be_is_unknown(memory: Json) -> None:
    inventory = an_inventory(a_report("node-a", *(a_reported_gpu(index, memory=memory) for index in range(8))), a_node())
    gpu = the_node(inventory).shape.gpu
    assert gpu.memory == 81559 * 2**20, "as the label says"
    assert gpu.visible is not None
    assert 75 * GIBI < gpu.visible.low < 80 * GIBI
    assert judged(inventory).outcome is Outcome.SOUND


def test_memory_of_a_process_that_no_gpu_has_is_none() -> None:
    assert the_node(an_inventory(holding(2**32), a_node())).shape.gpu.held == 0


def test_a_driver_without_gpus_contradicts_the_kubelet_and_nothing_is_free() -> None:
    inventory = an_inventory(a_report(gpus=[], pairs=[]), a_node())
    node = the_node(inventory)
    assert ("count", "the kubelet counts 8 nvidia.com/gpu, the driver 0 GPUs") in node.shape.gpu.contradictions
    assert (node.allocatable[GPU], node.unavailable_gpus) == (0, {GPU: 8})
    verdict = judged(inventory)
    assert (verdict.outcome, verdict.codes) == (Outcome.WAITING, ("NodesUnavailable",))


def test_a_driver_without_gpus_says_nothing_of_another_vendors() -> None:
    node = a_node(gpus=0, labels={"amd.com/gpu.product-name": "AMD_Instinct_MI300X"})
    for amounts in (node.body["status"]["capacity"], node.body["status"]["allocatable"]):
        del amounts[GPU]
        amounts["amd.com/gpu"] = "8"
    found = the_node(an_inventory(a_report(gpus=[], pairs=[]), node))
    assert (found.allocatable["amd.com/gpu"], found.unavailable_gpus) == (8, {})
    assert "count" not in kinds(found)


def test_a_report_without_a_status_is_not_read_and_that_is_said() -> None:
    report = a_report()
    del report["status"]
    inventory = an_inventory(report, a_node())
    assert the_node(inventory).allocatable[GPU] == 8
    assert any("it does not say which GPUs there are" in each.why for each in judged(inventory).assumptions)


@pytest.mark.parametrize(
    ("capacity", "allocatable", "free", "unavailable"),
    [(8, 8, 7, 1), (8, 7, 7, 1), (7, 7, 7, 0)],
    ids=["not noticed yet", "noticed", "registered again"],
)
def test_what_the_kubelet_offers_and_the_driver_has_not_is_not_free(
    capacity: int, allocatable: int, free: int, unavailable: int
) -> None:
    report = a_report("node-a", *(a_reported_gpu(index) for index in range(7)))
    node = the_node(an_inventory(report, a_node(gpus=capacity).allocatable(allocatable)))
    assert (node.allocatable[GPU], node.unavailable_gpus.get(GPU, 0)) == (free, unavailable)
    assert ("count" in kinds(node)) is (capacity > 7)


def test_a_declaration_that_needs_the_gpu_that_is_gone_waits() -> None:
    verdict = judged(an_inventory(a_report("node-a", *(a_reported_gpu(index) for index in range(7))), a_node()))
    assert (verdict.outcome, verdict.codes) == (Outcome.WAITING, ("NodesUnavailable",))


def test_gpus_that_are_all_cut_are_no_whole_ones() -> None:
    empty = [a_cut_gpu(index) for index in range(8)]
    node = the_node(an_inventory(a_report("node-a", *empty), a_node()))
    assert (node.allocatable[GPU], node.unavailable_gpus) == (0, {GPU: 8})
    parts = [a_cut_gpu(index, "3g.40gb", "3g.40gb") for index in range(8)]
    assert judged(an_inventory(a_report("node-a", *parts), a_node())).outcome is not Outcome.SOUND


# ---- what is cut


def a_cut_gpu(index: int, *profiles: str, state: str = "Healthy") -> Json:
    memory = {"1g.10gb": 9856, "3g.40gb": 40192}
    devices = [{"profile": each, "memory": {"totalBytes": memory[each] * 2**20}} for each in profiles]
    return a_reported_gpu(index, state=state, mig={"enabled": True, "enabledAfterReset": True, "devices": devices})


def test_mig_devices_have_the_drivers_memory_and_those_of_a_lost_gpu_are_not_free() -> None:
    node = a_node(gpus=1)
    for amounts in (node.body["status"]["capacity"], node.body["status"]["allocatable"]):
        amounts |= {"nvidia.com/mig-1g.10gb": "4", "nvidia.com/mig-3g.40gb": "2"}
    cut = [a_cut_gpu(index, "1g.10gb", "1g.10gb", "3g.40gb") for index in range(2)]
    whole = a_reported_gpu(2)
    before = the_node(an_inventory(a_report("node-a", *cut, whole), node))
    assert before.shape.units["nvidia.com/mig-3g.40gb"].memory == 40192 * 2**20
    assert before.shape.units["nvidia.com/mig-1g.10gb"].source == "GpuNodeReport"
    assert before.shape.gpu.contradictions == ()
    lost = the_node(an_inventory(a_report("node-a", cut[0], {**cut[1], "health": {"state": "Lost"}}, whole), node))
    amounts = {"nvidia.com/mig-1g.10gb": 2, "nvidia.com/mig-3g.40gb": 1, GPU: 1}
    assert {name: lost.allocatable[name] for name in amounts} == amounts
    assert lost.unavailable_gpus == {"nvidia.com/mig-1g.10gb": 2, "nvidia.com/mig-3g.40gb": 1}


def test_parts_that_the_kubelet_counts_and_the_driver_has_not_are_named() -> None:
    node = a_node(gpus=0)
    for amounts in (node.body["status"]["capacity"], node.body["status"]["allocatable"]):
        amounts |= {"nvidia.com/mig-1g.10gb": "7"}
    found = the_node(an_inventory(a_report("node-a", a_cut_gpu(0, "1g.10gb")), node))
    assert ("mig", "the kubelet counts 7 nvidia.com/mig-1g.10gb, the driver 1") in found.shape.gpu.contradictions


def test_parts_that_are_shared_in_time_go_with_their_gpu() -> None:
    node = a_node(gpus=0)
    for amounts in (node.body["status"]["capacity"], node.body["status"]["allocatable"]):
        amounts |= {"nvidia.com/mig-3g.40gb.shared": "8"}
    report = a_report("node-a", a_cut_gpu(0, "3g.40gb"), a_cut_gpu(1, "3g.40gb", state="Lost"))
    found = the_node(an_inventory(report, node))
    name = "nvidia.com/mig-3g.40gb.shared"
    assert (found.allocatable[name], found.unavailable_gpus[name]) == (4, 4)


# ---- health


def with_lost(number: int = 1, reason: str = "Xid79") -> Json:
    lost = [a_reported_gpu(index, reason, state="Lost") for index in range(8 - number, 8)]
    return a_report("node-a", *(a_reported_gpu(index) for index in range(8 - number)), *lost)


@pytest.mark.parametrize(
    ("capacity", "allocatable", "free", "unavailable"),
    [(8, 8, 7, 1), (8, 7, 7, 1), (7, 7, 7, 1), (8, 6, 6, 2)],
    ids=["not noticed yet", "noticed", "registered again without it", "another one besides"],
)
def test_a_lost_gpu_is_not_free_and_is_taken_away_once(capacity: int, allocatable: int, free: int, unavailable: int) -> None:
    node = the_node(an_inventory(with_lost(), a_node(gpus=capacity).allocatable(allocatable)))
    assert (node.allocatable[GPU], node.unavailable_gpus.get(GPU, 0)) == (free, unavailable)


def test_a_declaration_that_needs_the_lost_gpu_waits_and_is_not_refused() -> None:
    assert judged(an_inventory(a_report(), a_node())).outcome is Outcome.SOUND
    verdict = judged(an_inventory(with_lost(), a_node()))
    assert (verdict.outcome, verdict.codes) == (Outcome.WAITING, ("NodesUnavailable",))


def test_gpus_shared_in_time_go_with_the_card() -> None:
    labels = {**H100, "nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3-SHARED"}
    node = the_node(an_inventory(with_lost(), a_node(gpus=32, labels=labels)))
    assert (node.allocatable[GPU], node.unavailable_gpus[GPU]) == (28, 4)
    assert "count" not in kinds(node)


def test_a_node_that_lost_all_has_none_and_stays() -> None:
    node = the_node(an_inventory(with_lost(8), a_node()))
    assert (node.state, node.allocatable[GPU], node.unavailable_gpus[GPU]) == (NodeState.USABLE, 0, 8)


def test_links_are_those_between_healthy_gpus() -> None:
    links = the_node(an_inventory(with_lost(), a_node())).shape.gpu.links
    assert links is not None
    assert links.islands == ((0, 1, 2, 3, 4, 5, 6),)


def test_the_reason_is_shown() -> None:
    found = read(a_node().body, with_lost())
    assert {"code": None, "message": "GPU 7 Lost (Xid79): it is not free"} in found["findings"]


# ---- memory held beside Kubernetes


def holding(gib: float, ownership: str = "Host") -> Json:
    process = {"pid": 4711, "memoryBytes": int(gib * 2**30), "ownership": ownership, "command": "python3"}
    return a_report("node-a", a_reported_gpu(0, processes=[process]), *(a_reported_gpu(index) for index in range(1, 8)))


@pytest.mark.parametrize(
    ("version", "gib", "outcome"),
    [("0.19.0", 20, Outcome.UNDECIDED), ("0.19.0", 0.2, Outcome.SOUND), ("0.6.6", 20, Outcome.UNDECIDED)],
)
def test_what_a_process_of_no_pod_holds_leaves_open_what_would_do_without_it(version: str, gib: float, outcome: Outcome) -> None:
    engine = {"version": version, "maxModelLen": 8192}
    verdict = judged(an_inventory(holding(gib), a_node()), engine=engine)
    assert verdict.outcome is outcome
    if outcome is Outcome.UNDECIDED:
        (found,) = (each for each in verdict.findings if each.code == "GpuMemoryHeld")
        assert "processes of no pod hold 20.0 GiB of a H100-80GB-HBM3" in found.message
        assert "gpunodereports" in found.remedy


@pytest.mark.parametrize("engine", [{"name": "sglang", "version": "0.5.5"}, {"name": "lmdeploy", "version": "0.7.0"}])
def test_it_lowers_what_other_engines_may_use(engine: Json) -> None:
    changed = {**engine, "memoryUtilization": None} if engine["name"] == "lmdeploy" else engine
    verdict = judged(an_inventory(holding(70), a_node()), engine=changed)
    assert "GpuMemoryHeld" in verdict.codes


def test_what_would_not_fit_anyway_is_refused_by_its_own_name() -> None:
    verdict = judged(an_inventory(holding(20), a_node()), strategy={"tensor": 1, "pipeline": 1}, gpus={"perPod": 1})
    assert "WeightsDoNotFit" in verdict.codes
    assert "GpuMemoryHeld" not in verdict.codes


def test_what_a_pod_holds_is_nobody_elses() -> None:
    gpu = the_node(an_inventory(holding(20, "Pod"), a_node())).shape.gpu
    assert (gpu.held, gpu.doubts) == (0, ())


def test_what_is_held_where_no_pod_has_a_gpu_is_held_beside_kubernetes() -> None:
    inventory = an_inventory(holding(60, "Unknown"), a_node())
    assert the_node(inventory).shape.gpu.held == 60 * GIBI
    assert judged(inventory).codes == ("GpuMemoryHeld",)


def test_what_a_pod_may_hold_is_an_assumption() -> None:
    inventory = an_inventory(holding(60, "Unknown"), a_node(), a_pod("a", node="node-a", gpus=1))
    assert the_node(inventory).shape.gpu.held == 0
    why = {each.why for each in judged(inventory, strategy={"tensor": 4, "pipeline": 1}, gpus={"perPod": 4}).assumptions}
    assert "60.0 GiB of a GPU are held by processes whose owner is not known" in why


def test_what_is_held_on_more_gpus_than_pods_have_is_held_beside_kubernetes() -> None:
    def process(gib: int) -> list[Json]:
        return [{"pid": 1, "memoryBytes": gib * 2**30, "ownership": "Unknown"}]

    gpus = (a_reported_gpu(index, processes=process(70 if index == 0 else 40 if index == 1 else 0)) for index in range(8))
    node = the_node(an_inventory(a_report("node-a", *gpus), a_node(), a_pod("a", node="node-a", gpus=1)))
    assert node.shape.gpu.held == 40 * GIBI


def test_where_pods_have_all_gpus_it_does_not_matter_who_holds_memory() -> None:
    node = the_node(an_inventory(holding(60, "Unknown"), a_node(), a_pod("a", node="node-a", gpus=8)))
    assert (node.shape.gpu.held, node.shape.gpu.doubts) == (0, ())


def test_a_health_that_the_driver_does_not_tell_is_an_assumption() -> None:
    report = a_report("node-a", *(a_reported_gpu(index, state="Unknown" if index == 3 else "Healthy") for index in range(8)))
    inventory = an_inventory(report, a_node())
    assert the_node(inventory).allocatable[GPU] == 8
    why = {each.why for each in judged(inventory).assumptions}
    assert "the driver does not tell whether 1 of 8 GPUs of a node are healthy" in why
    said = {"code": None, "message": "GPU 3: the driver does not tell whether it is healthy"}
    assert said in read(a_node().body, report)["findings"]


@pytest.mark.parametrize(
    ("watts", "share"), [(700, None), (750, None), (0, None), (690, None), (630, 90), (560, 80), (501, 80), (490, 70)]
)
def test_a_power_limit_below_the_default_one_is_an_assumption(watts: int, share: int | None) -> None:
    def gpu(index: int) -> Json:
        limits = {"enforcedMilliwatts": 1000 * (watts if index == 3 else 700), "defaultMilliwatts": 700_000}
        return a_reported_gpu(index, power=limits)

    report = a_report("node-a", *map(gpu, range(8)))
    said = [each.why for each in judged(an_inventory(report, a_node())).assumptions if "default power" in each.why]
    shown = [each["message"] for each in read(a_node().body, report)["findings"] if "default power" in each["message"]]
    if share is None:
        assert said == shown == []
    else:
        assert said == [f"a GPU of a node may draw {share} % of its default power; figures of performance assume all of it"]
        assert shown == [f"a GPU may draw {share} % of its default power"]


def test_a_few_bytes_more_make_no_other_shape() -> None:
    one, other = (an_inventory(holding(gib), a_node()).nodes[0].shape.gpu.held for gib in (19.9, 19.95))
    assert one == other == 20 * GIBI


# ---- links and places


def test_pairs_are_given_to_tensor_groups() -> None:
    gpus = [a_reported_gpu(index, product="NVIDIA L40S", memory={"totalBytes": 46068 * 2**20}) for index in range(4)]
    for each in gpus:
        each["computeCapability"] = {"major": 8, "minor": 9}
    report = a_report("node-a", *gpus, joined=False)
    for pair in report["status"]["pairs"]:
        pair["nvlink"] = (pair["first"], pair["second"]) in ((0, 2), (1, 3))
    inventory = an_inventory(report, a_node(gpus=4, labels={}))
    gpu = the_node(inventory).shape.gpu
    assert gpu.has_nvlink is None
    assert (gpu.are_joined(2), gpu.are_joined(4)) == (True, False)
    small = {"model": {"name": "meta-llama/Meta-Llama-3-8B-Instruct"}, "strategy": {"tensor": 2, "pipeline": 1}, "replicas": 2}
    placement = judged(inventory, gpus={"perPod": 2}, **small).placement
    assert placement is not None
    assert sorted(pod.local_gpus for pod in placement.pods) == [(0, 2), (1, 3)]


def test_gpus_behind_one_switch_go_together_where_nvlink_joins_none() -> None:
    report = a_report("node-a", *(a_reported_gpu(index) for index in range(4)), joined=False)
    for pair in report["status"]["pairs"]:
        pair["path"] = "OneSwitch" if (pair["first"], pair["second"]) in ((0, 3), (1, 2)) else "System"
    small = {"model": {"name": "meta-llama/Meta-Llama-3-8B-Instruct"}, "strategy": {"tensor": 2, "pipeline": 1}, "replicas": 2}
    placement = judged(an_inventory(report, a_node(gpus=4)), gpus={"perPod": 2}, **small).placement
    assert placement is not None
    assert sorted(pod.local_gpus for pod in placement.pods) == [(0, 3), (1, 2)]


def test_a_node_that_nvlink_joins_goes_first() -> None:
    inventory = an_inventory(a_report("a", joined=False), a_report("b"), a_node("a"), a_node("b"))
    placement = judged(inventory).placement
    assert placement is not None
    assert {pod.node for pod in placement.pods} == {"b"}


def test_a_lost_gpu_is_no_ones_place() -> None:
    report = a_report("node-a", *(a_reported_gpu(index, state="Lost" if index == 1 else "Healthy") for index in range(8)))
    small = {"model": {"name": "meta-llama/Meta-Llama-3-8B-Instruct"}, "strategy": {"tensor": 1, "pipeline": 1}, "replicas": 7}
    placement = judged(an_inventory(report, a_node()), gpus={"perPod": 1}, **small).placement
    assert placement is not None
    assert sorted(gpu for pod in placement.pods for gpu in pod.local_gpus) == [0, 2, 3, 4, 5, 6, 7]


# ---- who is heard


def heard(book: ClusterBook, name: str, at: float, *, now: float) -> bool:
    return book.put_heartbeat(heartbeat_from(a_lease(name, at)), now, NOON + now)


def a_heard_book() -> ClusterBook:
    book = a_book(a_node(labels=T4))
    book.put_report(report_from(a_report()), 0.0)
    assert heard(book, "node-a", NOON, now=0.0)
    return book


def product(book: ClusterBook, now: float) -> str | None:
    return the_node(book.inventory(now)).shape.gpu.product


def test_a_report_counts_while_its_agent_is_heard_and_no_longer() -> None:
    book = a_heard_book()
    assert product(book, 29.9) == "H100-80GB-HBM3"
    before = book.version
    assert product(book, 30.0) == "Tesla-T4"
    assert book.version > before, "verdicts are to be found anew"
    verdict = verify(a_declaration(), book.inventory(30.0), OWN_KIND)
    assert any("its agent has not been heard" in each.why for each in verdict.assumptions)
    assert heard(book, "node-a", NOON + 31, now=31.0)
    assert product(book, 31.0) == "H100-80GB-HBM3"


def test_heartbeats_change_nothing_that_verdicts_rest_on() -> None:
    book = a_heard_book()
    book.inventory(0.0)
    before = book.version, book.frozen_anew
    for second in range(10, 300, 10):
        assert not heard(book, "node-a", NOON + second, now=float(second))
        book.inventory(float(second))
    assert (book.version, book.frozen_anew) == before


def test_an_agents_clock_does_not_matter_once_it_was_heard() -> None:
    book = a_heard_book()
    for second in (10, 20, 30, 40):
        heard(book, "node-a", NOON - 86400 + second, now=float(second))
    assert product(book, 45.0) == "H100-80GB-HBM3"


def test_who_fell_silent_before_we_began_is_silent() -> None:
    book = a_book(a_node(labels=T4))
    book.put_report(report_from(a_report()), 0.0)
    heard(book, "node-a", NOON - 3600, now=0.0)
    assert product(book, 0.0) == "Tesla-T4"


def test_a_report_whose_agent_was_never_heard_does_not_count() -> None:
    book = a_book(a_node(labels=T4))
    book.put_report(report_from(a_report()), 0.0)
    assert product(book, 0.0) == "Tesla-T4"
    assert book.reports.counts() == {"fresh": 0, "silent": 1, "unreadable": 0}


def test_while_nobody_can_be_heard_nobody_falls_silent() -> None:
    book, is_followed = a_heard_book(), [True]
    book.reports.are_heartbeats_followed = lambda: is_followed[0]
    is_followed[0] = False
    assert product(book, 40.0) == "H100-80GB-HBM3"
    is_followed[0] = True
    assert product(book, 41.0) == "H100-80GB-HBM3", "agents get the time that they had before"
    assert product(book, 71.0) == "Tesla-T4"


def test_a_report_or_a_lease_that_is_deleted_counts_no_more() -> None:
    book = a_heard_book()
    book.drop_report("node-a", 1.0)
    assert product(book, 1.0) == "Tesla-T4"
    book = a_heard_book()
    book.retain_heartbeats(set(), 1.0)
    assert product(book, 1.0) == "Tesla-T4"
    book = a_heard_book()
    book.retain_reports(set(), 1.0)
    assert product(book, 1.0) == "Tesla-T4"


def unread(name: str) -> Json:
    report = a_report()
    report["status"] = {
        "changedAt": "2026-11-26T18:00:00Z",
        "problem": {"name": name, "message": "", "since": "2026-11-26T18:00:00Z"},
    }
    return report


@pytest.mark.parametrize("name", ["NVML_ERROR_LIBRARY_NOT_FOUND", "BAD_RECORDING", "INTERNAL_ERROR"])
def test_an_agent_that_cannot_read_the_driver_is_said_and_labels_hold(name: str) -> None:
    inventory = an_inventory(unread(name), a_node())
    node = the_node(inventory)
    assert (node.shape.gpu.product, node.allocatable[GPU], node.state) == ("H100-80GB-HBM3", 8, NodeState.USABLE)
    verdict = judged(inventory)
    assert verdict.outcome is Outcome.SOUND
    assert any(name in each.why for each in verdict.assumptions)


@pytest.mark.parametrize("name", ["NVML_ERROR_DRIVER_NOT_LOADED", "CALL_HUNG", "NVML_ERROR_LIB_RM_VERSION_MISMATCH"])
def test_on_a_driver_that_runs_nothing_one_waits(name: str) -> None:
    inventory = an_inventory(unread(name), a_node())
    assert the_node(inventory).state is NodeState.IN_TRANSITION
    verdict = judged(inventory)
    assert (verdict.outcome, verdict.codes) == (Outcome.WAITING, ("NodesUnavailable",))
    assert any(name in each.why for each in verdict.assumptions)


def test_a_driver_that_runs_nothing_counts_while_its_agent_is_heard() -> None:
    book = a_book(a_node())
    book.put_report(report_from(unread("CALL_HUNG")), 0.0)
    heard(book, "node-a", NOON, now=0.0)
    assert the_node(book.inventory(29.0)).state is NodeState.IN_TRANSITION
    assert the_node(book.inventory(31.0)).state is NodeState.USABLE


def test_pods_and_their_node_keep_their_sums_when_a_report_comes() -> None:
    book = a_book(a_node(), a_pod("a", node="node-a", gpus=3))
    book.reports.are_heartbeats_needed = False
    book.put_report(report_from(with_lost()), 0.0)
    node = the_node(book.inventory(0.0))
    assert (node.used[GPU], node.free(GPU)) == (3, 4)


def test_a_node_whose_device_plugin_has_not_come_is_expected_by_its_driver() -> None:
    node = a_node(labels={})
    for amounts in (node.body["status"]["capacity"], node.body["status"]["allocatable"]):
        del amounts[GPU]
    found = the_node(an_inventory(a_report(), node))
    assert (found.state, found.unavailable_gpus) == (NodeState.IN_TRANSITION, {GPU: 8})


def test_what_a_report_names_reaches_no_terminal_as_a_command() -> None:
    escaped = "Xid79\x1b[2J\r\n" + "x" * 100
    gpus = [{"index": 0, "health": {"state": "Lost", "reasons": [escaped]}}]
    (reason,) = report_from({"metadata": {"name": "a"}, "status": {"gpus": gpus}}).read().reasons
    problem = report_from({"metadata": {"name": "a"}, "status": {"problem": {"name": escaped}}}).read().problem
    assert (reason, problem) == (f"GPU 0 Lost ({problem})", f"Xid79[2J{'x' * 56}")
