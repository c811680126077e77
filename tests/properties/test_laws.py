"""Laws that hold for any cluster and any declaration."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from builders import GPU, H100, T4, NodeBuilder, a_book, a_declaration, a_node, a_pod, an_inventory
from shardgate.adapters.pods import pod_from, read_pod
from shardgate.domain.declaration import Declaration
from shardgate.domain.enforce import Stored, enforce
from shardgate.domain.inventory import Inventory, grouped
from shardgate.domain.placement import Placement
from shardgate.domain.policy import OWN_KIND, Capacity, Policy
from shardgate.domain.strategy import ParallelStrategy, layers_of_stages
from shardgate.domain.used_facts import used_facts
from shardgate.domain.verdict import Outcome
from shardgate.domain.verify import verify

Objects = list[NodeBuilder | dict[str, Any]]


@st.composite
def clusters(draw: st.DrawFn, *, at_least: int = 0) -> Objects:
    """Nodes of several kinds and states, with pods on some."""
    objects: Objects = []
    for index in range(draw(st.integers(at_least, 5))):
        node = a_node(f"n{index}", gpus=draw(st.integers(1, 8)), labels=draw(st.sampled_from([H100, T4])))
        match draw(st.sampled_from(["plain", "plain", "plain", "tainted", "cordoned", "not ready", "failed gpu", "unlabelled"])):
            case "tainted":
                node.tainted()
            case "cordoned":
                node.cordoned()
            case "not ready":
                node.not_ready()
            case "failed gpu":
                node.allocatable(int(node.body["status"]["capacity"][GPU]) - 1)
            case "unlabelled":
                node.without_gpu_labels()
        objects.append(node)
        if draw(st.booleans()):
            objects.append(a_pod(f"p{index}", node=f"n{index}", gpus=draw(st.integers(1, 8)), namespace="other"))
    return objects


@st.composite
def declarations(draw: st.DrawFn) -> Declaration:
    """Llama-3 8B or 70B in some layout and strategy."""
    return a_declaration(
        model={
            "name": draw(st.sampled_from(["meta-llama/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-70B-Instruct"])),
            "weights": draw(st.sampled_from(["fp16", "fp8", "awq-int4"])),
        },
        strategy={"tensor": draw(st.integers(1, 8)), "pipeline": draw(st.integers(1, 4)), "data": draw(st.integers(1, 2))},
        replicas=draw(st.integers(0, 3)),
        gpus={"perPod": draw(st.integers(1, 8))} if draw(st.booleans()) else None,
    )


def with_one_more_gpu(inventory: Inventory) -> Inventory:
    nodes = list(inventory.nodes)
    nodes[0] = replace(nodes[0], allocatable={**nodes[0].allocatable, GPU: nodes[0].allocatable[GPU] + 1})
    return replace(inventory, groups=grouped(nodes))


@given(clusters(at_least=1), declarations())
def test_one_more_gpu_never_makes_it_worse(objects: Objects, declaration: Declaration) -> None:
    """A GPU more on a node: sound stays sound, and nothing becomes unsound.

    A risk may come: the node may now take pods whose ranks its small GPUs do not hold. What was undecided may wait:
    GPUs that surely do may be enough now, once they are free, so that doubtful ones no longer count.
    """
    inventory = an_inventory(*objects)
    before, after = (verify(declaration, each, OWN_KIND) for each in (inventory, with_one_more_gpu(inventory)))
    assert (after.outcome is Outcome.UNSOUND) <= (before.outcome is Outcome.UNSOUND)
    if before.placement and before.placement.feasible and before.outcome < Outcome.UNDECIDED:
        assert after.placement is not None
        assert after.placement.feasible


@given(clusters(), declarations())
def test_open_capacity_never_refuses_for_what_time_may_heal(objects: Objects, declaration: Declaration) -> None:
    """Under Open no capacity finding is Unsound."""
    verdict = verify(declaration, an_inventory(*objects), replace(OWN_KIND, capacity=Capacity.OPEN))
    assert not [each for each in verdict.findings if each.finding_class.value == "capacity" and each.outcome is Outcome.UNSOUND]


@given(clusters(), declarations())
def test_what_fits_when_everything_is_back_is_at_worst_waiting_for_capacity(objects: Objects, declaration: Declaration) -> None:
    """Cordons, failures and other pods never make a capacity finding Unsound."""
    healthy: Objects = [
        a_node(
            each.body["metadata"]["name"], gpus=int(each.body["status"]["capacity"][GPU]), labels=each.body["metadata"]["labels"]
        )
        for each in objects
        if isinstance(each, NodeBuilder) and not any(taint["key"] == "team" for taint in each.body["spec"].get("taints", ()))
    ]
    if not healthy or not verify(declaration, an_inventory(*healthy), OWN_KIND).outcome <= Outcome.RISKY:
        return
    verdict = verify(declaration, an_inventory(*objects), OWN_KIND)
    assert not [each for each in verdict.findings if each.finding_class.value == "capacity" and each.outcome is Outcome.UNSOUND]


@given(clusters(), declarations())
def test_an_unchanged_declaration_is_never_refused(objects: Objects, declaration: Declaration) -> None:
    """Whatever became of the cluster."""
    verdict = verify(declaration, an_inventory(*objects), OWN_KIND)
    assert enforce(declaration, verdict, OWN_KIND, Stored(declaration=declaration, verdict=verdict)).allowed


@given(clusters(at_least=1), declarations())
def test_a_placement_is_one_that_the_nodes_can_hold(objects: Objects, declaration: Declaration) -> None:
    """No GPU twice, no node beyond what is free, every rank once."""
    inventory = an_inventory(*objects)
    placement = verify(declaration, inventory, OWN_KIND).placement
    assert placement is not None
    free = {node.name: node.free(GPU) for node in inventory.nodes}
    for pod in placement.pods:
        free[pod.node] -= len(pod.local_gpus)
    assert all(free[pod.node] >= 0 for pod in placement.pods)
    assert _no_gpu_twice(placement)
    for replica in range(declaration.replicas if placement.pods else 0):
        ranks = sorted(rank for pod in placement.pods if pod.replica == replica for rank in pod.ranks)
        assert ranks == list(range(declaration.strategy.ranks_per_replica))


@given(clusters(), declarations())
def test_sound_rests_on_gpus_that_surely_do(objects: Objects, declaration: Declaration) -> None:
    """Nothing better than Waiting stands on GPUs whose memory is not known, or too small."""
    inventory = an_inventory(*objects)
    verdict = verify(declaration, inventory, OWN_KIND)
    if verdict.outcome < Outcome.WAITING and declaration.replicas and verdict.weights is not None and verdict.placement:
        memory = {node.name: node.shape.gpu.memory for node in inventory.nodes}
        assert all((memory[pod.node] or 0) > verdict.weights.fullest.per_rank for pod in verdict.placement.pods)


@given(clusters(), declarations())
def test_what_has_no_place_now_is_never_sound(objects: Objects, declaration: Declaration) -> None:
    """A verdict better than Waiting has a placement of every pod."""
    verdict = verify(declaration, an_inventory(*objects), OWN_KIND)
    if verdict.outcome < Outcome.WAITING and declaration.replicas:
        assert verdict.placement is not None
        assert verdict.placement.feasible
        assert (
            len({(pod.replica, pod.pod) for pod in verdict.placement.pods})
            == verdict.required.pods_per_replica * declaration.replicas
        )


def _no_gpu_twice(placement: Placement) -> bool:
    used = [(pod.node, gpu) for pod in placement.pods for gpu in pod.local_gpus]
    return len(used) == len(set(used))


@given(clusters(), declarations())
@settings(max_examples=50)
def test_the_order_of_nodes_does_not_decide(objects: Objects, declaration: Declaration) -> None:
    """The same cluster listed backwards has the same outcome and codes."""
    forward, backward = an_inventory(*objects), an_inventory(*reversed(objects))
    one, two = (verify(declaration, each, OWN_KIND) for each in (forward, backward))
    assert (one.outcome, one.codes) == (two.outcome, two.codes)


@given(st.integers(1, 200), st.integers(1, 64))
def test_every_layer_is_on_one_stage(layers: int, stages: int) -> None:
    """Stages are runs of layers without gap or overlap, as even as can be."""
    if stages > layers:
        return
    split = layers_of_stages(layers, ParallelStrategy(pipeline=stages))
    assert [layer for stage in split for layer in stage] == list(range(layers))
    assert max(map(len, split)) - min(map(len, split)) <= 1


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8), st.integers(1, 60), st.integers(-1, 1), st.booleans()), max_size=12)
)
def test_an_inventory_kept_by_events_equals_one_read_anew(events: list[tuple[int, int, int, int, bool]]) -> None:
    """Pods come, grow, end and go on four nodes: groups, and what is kept of them, are those of a fresh read."""
    nodes = [a_node(f"n{index}") for index in range(4)]
    book = a_book(*nodes)
    pods: dict[str, dict[str, Any]] = {}
    for node, gpus, cpu, priority, ends in events:
        for group in book.inventory(0.0).groups:  # what is asked of a group is kept
            group.least_free("cpu"), group.least_allocatable("cpu"), group.coming_free(GPU), group.has_pods_below(0)
        pod = a_pod(f"p{node}", node=f"n{node}", gpus=gpus)
        pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": str(cpu), GPU: str(gpus)}}
        pod["spec"]["priority"] = priority
        if ends:
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        pods[f"p{node}"] = pod
        record = read_pod(pod_from(pod))
        assert record is not None
        book.put_pod(record)
    fresh = a_book(*nodes, *pods.values()).inventory(0.0)
    kept = book.inventory(0.0)
    assert {frozenset(node.name for node in group.nodes) for group in kept.groups} == {
        frozenset(node.name for node in group.nodes) for group in fresh.groups
    }
    for group in kept.groups:
        assert group.least_free("cpu") == min(node.free("cpu") for node in group.nodes)
        assert group.least_allocatable("cpu") == min(node.idle("cpu") for node in group.nodes)
        assert group.coming_free(GPU) == sum(node.coming_free.get(GPU, 0) for node in group.nodes)
        assert group.has_pods_below(0) == any(-1 in node.used_by_priority for node in group.nodes)


@settings(deadline=None)
@given(clusters(), declarations(), st.sampled_from([OWN_KIND, replace(OWN_KIND, capacity=Capacity.OPEN)]))
def test_a_verdict_rests_on_the_facts_that_are_kept_of_it_and_on_no_other(
    objects: Objects, declaration: Declaration, policy: Policy
) -> None:
    inventory = an_inventory(*objects, a_pod("other", gpus=1, namespace="other"))
    assert verify(declaration, used_facts(inventory, [declaration]), policy) == verify(declaration, inventory, policy)
