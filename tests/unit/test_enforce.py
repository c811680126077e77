"""The law of refusals: time must not heal what we refuse, and an update is refused only for what it brings."""

from dataclasses import replace
from typing import Any

import pytest

from builders import T4, NodeBuilder, a_declaration, a_node, a_pod, an_inventory
from shardgate.domain.enforce import Answer, Override, Stored, enforce
from shardgate.domain.inventory import Inventory, Owner
from shardgate.domain.policy import FOREIGN_KIND, OWN_KIND, CodeAnswer, Mode, Policy
from shardgate.domain.verify import verify

Objects = tuple[NodeBuilder | dict[str, Any], ...]


def answer(
    *objects: NodeBuilder | dict[str, Any],
    policy: Policy = OWN_KIND,
    stored: dict[str, Any] | None = None,
    overrides: tuple[Override, ...] = (),
    **changes: Any,
) -> Answer:
    inventory: Inventory = an_inventory(*objects)
    declaration = a_declaration(**changes)
    before = None
    if stored is not None:
        standing = a_declaration(**stored)
        before = Stored(declaration=standing, verdict=verify(standing, inventory, policy))
    own = inventory.held_by([Owner("serving", "InferenceDeployment", "llama")])
    return enforce(declaration, verify(declaration, inventory, policy), policy, before, own, overrides)


SMALL = (a_node(gpus=1, labels=T4),)


def test_unsound_is_refused_with_every_finding_at_once() -> None:
    refused = answer(*SMALL)
    assert [each.code for each in refused.refusing] == ["GpuCountTooLow", "WeightsDoNotFit", "ModelExceedsCluster"]


def test_waiting_is_admitted_with_a_warning_unless_a_policy_refuses_it() -> None:
    busy = (a_node(), a_pod("p", node="node-a", gpus=1, namespace="other"))
    admitted = answer(*busy)
    assert admitted.allowed
    assert [each.code for each in admitted.warned] == ["GpusBusy"]
    assert not answer(*busy, policy=replace(OWN_KIND, refuse_waiting=True)).allowed


def test_undecided_is_admitted_unless_a_policy_refuses_it() -> None:
    unknown = {"model": {"name": "acme/x"}}
    assert answer(a_node(), **unknown).allowed
    assert not answer(a_node(), policy=replace(OWN_KIND, refuse_undecided=True), **unknown).allowed


@pytest.mark.parametrize("mode", [Mode.WARN, Mode.AUDIT])
def test_only_enforce_refuses(mode: Mode) -> None:
    admitted = answer(*SMALL, policy=replace(OWN_KIND, mode=mode))
    assert admitted.allowed
    assert bool(admitted.warned) is (mode is Mode.WARN)


def test_foreign_kinds_are_warned_by_default() -> None:
    assert answer(*SMALL, policy=FOREIGN_KIND).allowed


def test_codes_change_the_answer() -> None:
    forgiving = replace(
        OWN_KIND,
        codes={
            "GpuCountTooLow": CodeAnswer.WARN,
            "WeightsDoNotFit": CodeAnswer.IGNORE,
            "ModelExceedsCluster": CodeAnswer.IGNORE,
        },
    )
    admitted = answer(*SMALL, policy=forgiving)
    assert admitted.allowed
    assert [each.code for each in admitted.warned] == ["GpuCountTooLow"]
    strict = replace(OWN_KIND, codes={"GpusLeftOver": CodeAnswer.REFUSE})
    assert not answer(a_node(), policy=strict, strategy={"tensor": 4, "pipeline": 1}).allowed


def test_an_unchanged_declaration_always_passes_in_silence() -> None:
    assert answer(*SMALL, stored={}) == Answer(refusing=(), warned=())


def test_an_update_is_not_refused_for_what_stands_already() -> None:
    assert answer(*SMALL, stored={}, engine={"maxModelLen": 4096}).allowed


def test_an_update_is_refused_for_what_it_brings() -> None:
    refused = answer(a_node(), stored={}, strategy={"tensor": 16})
    assert [each.code for each in refused.refusing] == ["GpuCountTooLow"]


def test_an_update_that_needs_no_more_is_not_refused_for_memory_or_capacity() -> None:
    gone = (a_node(gpus=2),)
    assert answer(*gone, stored={"replicas": 2}, replicas=1).allowed
    assert not answer(*gone, stored={"strategy": {"tensor": 2, "pipeline": 1}, "gpus": {"perPod": 2}}).allowed


ON_H100: dict[str, Any] = {
    "model": {"name": "meta-llama/Meta-Llama-3-8B-Instruct"},
    "strategy": {"tensor": 1, "pipeline": 1},
    "gpus": {"perPod": 1},
}


@pytest.mark.parametrize(
    ("now", "code"),
    [
        ({"memoryUtilization": 1.0}, "UtilizationTooHigh"),
        ({"maxModelLen": 2_000_000, "environment": {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}}, "ContextDoesNotFit"),
        ({"maxBatchedTokens": 3_000_000}, "NoRoomForKvCache"),
        ({"args": ["--kv-cache-memory-bytes=90G"]}, "NoRoomForKvCache"),
    ],
    ids=["fraction", "length", "batch", "pool"],
)
def test_more_memory_than_weights_alone_is_more(now: dict[str, Any], code: str) -> None:
    before = {"version": "0.19.0", "memoryUtilization": 0.9, "maxModelLen": 8192}
    refused = answer(a_node(), stored={**ON_H100, "engine": before}, **ON_H100, engine={**before, **now})
    assert [each.code for each in refused.refusing] == [code]


def test_a_wider_cache_is_more() -> None:
    engine = {"version": "0.19.0", "maxModelLen": 700_000, "environment": {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}}
    narrow = {**ON_H100, "model": {**ON_H100["model"], "kvCache": "fp8"}, "engine": engine}
    wide = {**ON_H100, "engine": engine}
    assert answer(a_node(), **narrow).allowed
    assert [each.code for each in answer(a_node(), stored=narrow, **wide).refusing] == ["ContextDoesNotFit"]
    assert answer(a_node(), stored=wide, **narrow).allowed


@pytest.mark.parametrize(
    "now",
    [{"maxSequences": 128}, {"memoryUtilization": 0.85}, {"maxModelLen": 4096}, {"enforceEager": True}],
    ids=lambda now: next(iter(now)),
)
def test_less_of_what_does_not_fit_passes(now: dict[str, Any]) -> None:
    """What does not fit as it stands may come down step by step: another code on the way is not its doing."""
    before = {"version": "0.19.0", "memoryUtilization": 0.9, "maxModelLen": 8192, "maxSequences": 256}
    assert answer(*SMALL, stored={"engine": before}, engine={**before, **now}).allowed


SLOW: dict[str, Any] = {
    "engine": {"version": "0.19.0", "maxModelLen": 8192},
    "traffic": {"promptTokens": 1024, "outputTokens": 512, "concurrency": 256},
    "objectives": {"requestsPerSecond": 10},
}
QUICK_ENOUGH = replace(OWN_KIND, codes={"ThroughputTooLow": CodeAnswer.REFUSE})


def test_fewer_replicas_are_never_refused() -> None:
    nodes = (a_node(), a_node("b"))
    assert [each.code for each in answer(*nodes, policy=QUICK_ENOUGH, **SLOW).refusing] == ["ThroughputTooLow"]
    assert answer(*nodes, policy=QUICK_ENOUGH, **SLOW, replicas=2).allowed
    assert answer(*nodes, policy=QUICK_ENOUGH, stored={**SLOW, "replicas": 2}, **SLOW, replicas=1).allowed
    more = {**SLOW, "objectives": {"requestsPerSecond": 11}}
    refused = answer(*nodes, policy=QUICK_ENOUGH, stored={**SLOW, "replicas": 2}, **more, replicas=1)
    assert not refused.allowed, "something else was changed as well"


def test_fewer_replicas_are_not_refused_for_what_is_not_known() -> None:
    undecided = replace(OWN_KIND, refuse_undecided=True)
    term = {"topologyKey": "rack", "labelSelector": {"matchLabels": {"app": "cache"}}}
    affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    unmodelled = {"placement": {"affinity": affinity}}
    full = (a_node(),)
    assert [each.code for each in answer(*full, policy=undecided, **unmodelled).refusing] == ["ConstraintNotModelled"]
    assert answer(*full, policy=undecided, stored={**unmodelled, "replicas": 2}, **unmodelled, replicas=1).allowed


def test_shape_is_refused_even_when_less_is_needed() -> None:
    refused = answer(a_node(), stored={}, strategy={"tensor": 3, "pipeline": 1}, gpus={"perPod": 3})
    assert {each.code for each in refused.refusing} == {"HeadsUneven", "KvHeadsUneven"}


def test_ready_pods_outrank_every_estimate() -> None:
    running = (a_node(labels=T4), a_pod("p", node="node-a", gpus=8, declaration="llama", ready=True))
    assert answer(*running).allowed
    starting = (a_node(labels=T4), a_pod("p", node="node-a", gpus=8, declaration="llama", ready=False))
    assert not answer(*starting).allowed


def test_pods_of_the_old_declaration_say_nothing_for_a_new_one() -> None:
    """A small model runs Ready; the update to one that does not fit is refused all the same."""
    small = {"model": {"name": "meta-llama/Llama-3.2-1B-Instruct"}, "strategy": {"tensor": 1, "pipeline": 1}, "gpus": {"perPod": 1}}
    large = {**small, "model": {"name": "meta-llama/Meta-Llama-3-70B-Instruct"}}
    running = (a_node(gpus=1, labels=T4), a_pod("p", node="node-a", gpus=1, declaration="llama", ready=True))
    assert not answer(*running, stored=small, **large).allowed


def test_other_pods_of_the_same_gpus_are_no_more() -> None:
    halves = (a_node(gpus=4), a_node("b", gpus=4))
    assert answer(*halves, stored={"gpus": {"perPod": 4}}, gpus={"perPod": 8}).allowed


def test_a_change_of_flags_is_a_change() -> None:
    changed = answer(a_node(gpus=4), stored={}, engine={"args": ["--x"]}, replicas=2)
    assert "DeclarationOpaque" not in [each.code for each in changed.refusing]
    assert a_declaration(engine={"args": ["--x"]}) != a_declaration()
    assert a_declaration(engine={"maxModelLen": 4096}) != a_declaration()


def test_undecided_is_admitted_in_silence() -> None:
    assert answer(a_node(), model={"name": "acme/x"}) == Answer(refusing=(), warned=())


def test_warnings_are_at_most_five() -> None:
    assert len(answer(a_node(), policy=replace(OWN_KIND, mode=Mode.WARN), engine=None, model={"name": "x"}).warned) <= 5


WORD = Override(
    name="serving/chg", namespace="serving", kind="InferenceDeployment", target="llama", codes=frozenset({"WeightsDoNotFit"}),
    reason="patched engine", expires=100.0, granted_by="olga",
)  # fmt: skip


def test_a_word_lets_in_what_it_names_and_no_more() -> None:
    part = answer(*SMALL, overrides=(WORD,))
    assert [each.code for each in part.refusing] == ["GpuCountTooLow", "ModelExceedsCluster"]
    assert [(found.code, word.granted_by) for found, word in part.overridden] == [("WeightsDoNotFit", "olga")]
    whole = replace(WORD, codes=frozenset({"WeightsDoNotFit", "GpuCountTooLow", "ModelExceedsCluster"}))
    assert answer(*SMALL, overrides=(whole,)).allowed
    assert answer(a_node(), overrides=(whole,)).overridden == (), "what would not refuse is not overridden"


@pytest.mark.parametrize(
    ("word", "holds"),
    [
        (WORD, True),
        (replace(WORD, granted_by=""), False),
        (replace(WORD, expires=50.0), False),
        (replace(WORD, namespace="other"), False),
        (replace(WORD, target="other"), False),
        (replace(WORD, kind="Deployment"), False),
    ],
)
def test_a_word_holds_for_one_object_until_it_ends_if_somebody_gave_it(word: Override, holds: bool) -> None:
    assert word.holds("serving", "InferenceDeployment", "llama", 50.0) is holds
