"""What is offered instead: that it verifies Sound, that its patch means it, and that checkpoints are those that exist."""

import copy
import json
from typing import Any

import pytest
from click.testing import CliRunner

from builders import T4, a_body, a_declaration, a_node, a_pod, an_inventory
from shardgate.adapters.alternatives import alternative_json, alternatives_of, nearest_line, nearest_of
from shardgate.adapters.models.catalogue import Question, find_model
from shardgate.adapters.plans import PlanQuestion, needs_json, plan_json
from shardgate.adapters.referred_workloads import read_declaration
from shardgate.adapters.report import report
from shardgate.adapters.tables import table
from shardgate.domain.declaration import Declaration
from shardgate.domain.inventory import Inventory
from shardgate.domain.model import ModelArchitecture
from shardgate.domain.policy import OWN_KIND, Disclosure, Policy
from shardgate.domain.search import Nearness, Quota, rooms_of
from shardgate.domain.situation import look_at
from shardgate.domain.verdict import Outcome
from shardgate.domain.verify import verify
from shardgate.shells.cli.entry import cli

Json = dict[str, Any]

TRAFFIC = {"promptTokens": 1024, "outputTokens": 512, "concurrency": 256, "microBatches": 57}
REFERENCE: Json = {"engine": {"maxModelLen": 8192}, "traffic": TRAFFIC, "objectives": {"requestsPerSecond": 8}}
ONE_T4 = an_inventory(a_node("t4", gpus=1, labels=T4))
EIGHT_H100 = an_inventory(a_node())


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396, as the API server merges."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


def offered(inventory: Inventory, **changes: Any) -> tuple[Declaration, list[Json]]:
    declaration = a_declaration(**changes)
    performance = verify(declaration, inventory, OWN_KIND).performance
    return declaration, [
        alternative_json(each, declaration, performance) for each in alternatives_of(declaration, inventory, OWN_KIND)
    ]


def test_two_replicas_of_tp4_and_tp8_beat_stages_on_one_node() -> None:
    _, found = offered(EIGHT_H100, **REFERENCE)
    by_strategy = {(each["replicas"], each["strategy"], each["weights"]): each for each in found}
    pairs, wide = by_strategy[2, "TP4 x PP1 x DP1", "fp16"], by_strategy[1, "TP8 x PP1 x DP1", "fp16"]
    assert pairs["requestsPerSecond"]["value"] == pytest.approx(11, abs=0.5)
    assert wide["requestsPerSecond"]["value"] > 8.5
    assert pairs["change"] == "2 replicas of TP4 x PP1 x DP1: 11 (7.97 to 15.2) requests/s against 8.29"
    assert found.index(pairs) < found.index(wide)
    assert len(found) == 5


def test_one_t4_is_offered_smaller_models_that_really_fit() -> None:
    declaration, found = offered(ONE_T4)
    assert verify(declaration, ONE_T4, OWN_KIND).outcome is Outcome.UNSOUND
    assert found
    assert {each["gpus"] for each in found} == {1}
    assert {"awq-int4", "int8"} <= {each["weights"] for each in found}
    assert not any(each["weights"] in ("fp16", "bf16") and "8B" in each["model"] for each in found), "16 GB do not fit 15"


@pytest.mark.parametrize("inventory", [ONE_T4, EIGHT_H100], ids=["t4", "h100"])
@pytest.mark.parametrize("changes", [{}, REFERENCE], ids=["plain", "aiming"])
def test_what_is_offered_verifies_as_it_was_said_once_its_patch_is_applied(inventory: Inventory, changes: Json) -> None:
    body = a_body(**copy.deepcopy(changes))
    _, found = offered(inventory, **changes)
    assert found
    for each in found:
        patched = merged(body, json.loads(json.dumps(each["patch"])))
        verdict = verify(read_declaration(patched), inventory, OWN_KIND)
        missed = each["meetsObjectives"] is False
        assert verdict.outcome is (Outcome.WASTEFUL if missed else Outcome.SOUND), (each["change"], verdict.codes)
        assert (verdict.score, verdict.required.gpus) == (each["score"], each["gpus"])
        assert verdict.performance is not None
        assert verdict.performance.capacity.value == pytest.approx(each["requestsPerSecond"]["value"], rel=0.01)


def test_gpus_that_others_hold_are_not_offered() -> None:
    held = an_inventory(a_node(), a_pod("other", node="node-a", gpus=4))
    declaration, found = offered(held, **REFERENCE)
    assert [each.gpus for each in rooms_of(look_at(declaration, held, OWN_KIND))] == [4]
    assert found
    assert max(each["gpus"] for each in found) <= 4


def test_among_several_products_each_is_named_that_it_is_for() -> None:
    both = an_inventory(a_node("fast"), a_node("slow", labels=T4))
    body = a_body(strategy={"tensor": 1, "pipeline": 1}, gpus={"perPod": 1}, **copy.deepcopy(REFERENCE))
    declaration = read_declaration(body)
    found = [alternative_json(each, declaration, None) for each in alternatives_of(declaration, both, OWN_KIND)]
    assert {each["strategy"] for each in found if each["weights"] == "fp16"} >= {"TP4 x PP1 x DP1"}
    for each in found:
        assert each["patch"]["spec"]["gpus"]["products"] in (["H100-80GB-HBM3"], ["Tesla-T4"])
        assert verify(read_declaration(merged(body, each["patch"])), both, OWN_KIND).outcome is Outcome.SOUND


@pytest.mark.parametrize(
    "engine",
    [
        {"args": ["--tensor-parallel-size=2", "--pipeline-parallel-size", "4"]},
        {"environment": {"VLLM_PP_LAYER_PARTITION": "20,20,20,20"}},
    ],
    ids=["flags", "variables"],
)
def test_what_flags_say_again_is_not_patched(engine: Json) -> None:
    _, found = offered(EIGHT_H100, **{**REFERENCE, "engine": {"maxModelLen": 8192, **engine}})
    assert found
    assert {each["patch"] for each in found} == {None}


def test_what_runs_is_offered_only_what_serves_more_per_gpu() -> None:
    declaration, found = offered(EIGHT_H100, **REFERENCE)
    performance = verify(declaration, EIGHT_H100, OWN_KIND).performance
    assert performance is not None
    for each in found:
        assert each["requestsPerSecond"]["value"] / each["gpus"] > performance.capacity.value / 8
    best = {"strategy": {"tensor": 4, "pipeline": 1}, "gpus": {"perPod": 4}, "replicas": 2}
    _, others = offered(EIGHT_H100, **REFERENCE, **best)
    assert not [each for each in others if each["weights"] == "fp16"]


def test_a_base_model_is_no_chat_model() -> None:
    _, found = offered(EIGHT_H100, model={"name": "meta-llama/Meta-Llama-3-70B", "weights": "fp16"})
    assert not [each for each in found if "Instruct" in each["model"]]
    config = {"quantization_config": None}
    _, told = offered(EIGHT_H100, model={"name": "meta-llama/Meta-Llama-3-70B-Instruct", "config": config})
    assert not [each for each in told if each["weights"] not in ("fp16", "bf16")]


def test_smaller_models_stand_only_where_nearer_ones_leave_room() -> None:
    declaration = a_declaration(**REFERENCE)
    found = alternatives_of(declaration, EIGHT_H100, OWN_KIND)
    kinds = [each.candidate.variant.nearness for each in found]
    assert kinds == sorted(kinds)
    assert kinds.count(Nearness.STRATEGY) == kinds.count(Nearness.PRECISION) == 2
    same = alternatives_of(declaration, EIGHT_H100, OWN_KIND, with_smaller=False, quota=Quota(by_nearness=(1, 0, 0), most=1))
    assert [each.declaration.model_name for each in same] == [declaration.model_name]


def test_a_context_that_is_too_long_is_offered_shortened() -> None:
    declaration, found = offered(
        an_inventory(a_node(gpus=1)), model={"name": "Qwen/Qwen2.5-32B-Instruct", "weights": None},
        strategy={"tensor": 1, "pipeline": 1}, gpus={"perPod": 1}, engine={"maxModelLen": 32768},
    )  # fmt: skip
    assert "ContextDoesNotFit" in verify(declaration, an_inventory(a_node(gpus=1)), OWN_KIND).codes or found
    shortened = [each for each in found if "up to" in each["change"]]
    for each in shortened:
        assert each["patch"]["spec"]["engine"]["maxModelLen"] % 1024 == 0


@pytest.mark.parametrize(
    "changes", [{"model": {"name": "acme/unknown"}}, {"model": {"name": "acme/unknown", "config": {}}}], ids=["unknown", "empty"]
)
def test_nothing_is_offered_for_what_is_not_known(changes: Json) -> None:
    assert offered(EIGHT_H100, **changes)[1] == []
    assert offered(an_inventory(), **REFERENCE)[1] == []
    assert offered(an_inventory(a_node(), age_seconds=1000.0), **REFERENCE)[1] == []


def test_the_nearest_that_fits_keeps_the_model_where_it_can() -> None:
    six = an_inventory(a_node(gpus=6))
    found = nearest_of(a_declaration(**REFERENCE), six, OWN_KIND)
    assert found is not None
    assert nearest_line(found).startswith("Meta-Llama-3-70B-Instruct as fp16, TP4 x PP1 x DP1 on 4 x H100-80GB-HBM3") or (
        found.declaration.model_name == "meta-llama/Meta-Llama-3-70B-Instruct"
    )
    small = nearest_of(a_declaration(), ONE_T4, OWN_KIND)
    assert small is not None
    assert nearest_line(small) == "Meta-Llama-3-8B-Instruct-AWQ as awq-int4, TP1 x PP1 x DP1 on a Tesla-T4"
    assert nearest_of(a_declaration(), an_inventory(a_node(gpus=0)), OWN_KIND) is None


def test_every_checkpoint_of_a_family_is_told_by_the_catalogue() -> None:
    for family in table("model_families")["families"]:
        sizes = []
        for model in family["models"]:
            base = find_model(Question(name=model["id"], config=None, weights=None, dtype=None))
            assert isinstance(base.model, ModelArchitecture), model["id"]
            sizes.append(base.model.parameters)
            for each in model["checkpoints"]:
                found = find_model(Question(name=each["id"], config=None, weights=None, dtype=None))
                assert isinstance(found.model, ModelArchitecture), each["id"]
                assert found.weights_name == each["weights"], each["id"]
                assert found.model.parameters == pytest.approx(base.model.parameters, rel=0.01), each["id"]
        assert sizes == sorted(sizes, reverse=True), family["family"]


def test_reports_have_them_and_other_kinds_have_no_patch() -> None:
    declaration = a_declaration(**REFERENCE)
    found = alternatives_of(declaration, EIGHT_H100, OWN_KIND)
    verdict = verify(declaration, EIGHT_H100, OWN_KIND)
    shown = report(declaration, verdict, reference="0000", alternatives=found)["alternatives"]
    assert set(shown[0]) >= {"change", "patch", "strategy", "weights", "model", "gpus", "nodes", "score", "requestsPerSecond"}
    assert shown[0]["nodes"] == ["node-a"]


def test_a_patch_undoes_what_is_declared_and_names_nothing_else() -> None:
    plain, of_plain = offered(EIGHT_H100, **REFERENCE)
    assert set(of_plain[0]["patch"]["spec"]["strategy"]) == {"tensor", "pipeline", "data"}
    assert plain.strategy.layers_per_stage is None
    strategy = {"tensor": 2, "pipeline": 4, "layersPerStage": [20, 20, 20, 20]}
    _, found = offered(EIGHT_H100, **{**REFERENCE, "strategy": strategy})
    assert {json.dumps(each["patch"]["spec"]["strategy"]["layersPerStage"]) for each in found} == {"null"}


def planned(inventory: Inventory, **asked: Any) -> Json:
    question = PlanQuestion(**{"model": "meta-llama/Meta-Llama-3-70B-Instruct", "weights": "fp16", "max_model_len": 8192, **asked})
    return plan_json(read_declaration(question.body), inventory, OWN_KIND)


def test_a_plan_is_ranked_and_says_what_hardware_would_do() -> None:
    found = planned(EIGHT_H100, traffic={k: TRAFFIC[k] for k in ("promptTokens", "outputTokens", "concurrency")},
                    objectives={"requestsPerSecond": 8})  # fmt: skip
    rates = [each["requestsPerSecondPerGpu"] for each in found["options"] if each["meetsObjectives"]]
    assert rates == sorted(rates, reverse=True)
    assert {(each["replicas"], each["strategy"]) for each in found["options"]} >= {(2, "TP4 x PP1 x DP1"), (1, "TP8 x PP1 x DP1")}
    assert {each["outcome"] for each in found["options"]} == {"Sound"}
    needs = found["needs"]
    by_product = {each["product"]: each for each in needs["byProduct"]}
    assert by_product["H100-80GB-HBM3"]["fits"]["gpus"] == 4
    assert by_product["H100-80GB-HBM3"]["meetsObjectives"]["gpus"] == 8
    assert needs["recommended"]["requestsPerSecond"]["value"] * 0.85 >= 8


def test_one_stage_loses_nothing_to_a_pipeline() -> None:
    declaration = a_declaration(strategy={"tensor": 8, "pipeline": 1})
    for inventory in (EIGHT_H100, ONE_T4):
        verdict = verify(declaration, inventory, OWN_KIND)
        assert report(declaration, verdict, reference="0000")["balance"]["bubble"] == 0.0


def test_a_plan_for_what_fits_nothing_here_still_says_what_would_do() -> None:
    found = planned(ONE_T4)
    assert found["options"] == []
    assert "WeightsDoNotFit" in [each["code"] for each in found["findings"]]
    assert found["needs"]["minimum"]["gpus"] >= 1
    assert needs_json(a_declaration(model={"name": "acme/unknown"})) == {"minimum": None, "recommended": None, "byProduct": []}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--gpus", "8xH100-80GB-HBM3"], 0),
        (["--gpus", "1xTesla-T4"], 1),
        (["--gpus", "8xH100-80GB-HBM3", "--objective", "speed=1"], None),
        (["--gpus", "8xH100-80GB-HBM3", "--traffic", "promptTokens=many"], None),
        (["--gpus", "8xH100-80GB-HBM3", "--objective", "requestsPerSecond=-1"], None),
    ],
)
def test_the_command(arguments: list[str], code: int | None) -> None:
    model = ["plan", "--model", "meta-llama/Meta-Llama-3-70B-Instruct", "--max-model-len", "8192"]
    result = CliRunner().invoke(cli, [*model, "-o", "json", *arguments])
    if code is None:
        assert result.exit_code == 2, "click's own for usage; the entry point makes 64 of it"
        assert "Error" in result.stderr
        return
    assert result.exit_code == code, result.output
    document = json.loads(result.stdout)
    assert bool(document["options"]) is (code == 0)
    shown = CliRunner().invoke(cli, [*model, *arguments])
    assert shown.exit_code == code
    assert ("nothing fits" in shown.stdout) is (code == 1)
    assert "Recommended: " in shown.stdout


def test_a_policy_that_discloses_nothing_hides_products_of_the_nearest() -> None:
    from shardgate.adapters.decisions import Facts  # beside the shell that it is for
    from shardgate.shells.nearest import MOST_A_SECOND, NearestThatFits

    facts = Facts.of(a_declaration(), Policy(disclosure=Disclosure.NONE), ONE_T4)
    search = NearestThatFits(clock=lambda: 7.0)
    assert search.line(facts) == "Meta-Llama-3-8B-Instruct-AWQ as awq-int4, TP1 x PP1 x DP1 on a GPU"
    assert [bool(search.line(facts)) for _ in range(MOST_A_SECOND)] == [True] * (MOST_A_SECOND - 1) + [False]
    assert NearestThatFits().line(None) == ""


def test_hardware_is_of_accepted_products_and_meets_nothing_where_nothing_is_aimed_at() -> None:
    found = planned(EIGHT_H100, products=("H100*",))["needs"]
    assert {each["product"].split("-")[0] for each in found["byProduct"]} == {"H100"}
    assert {each["meetsObjectives"] for each in found["byProduct"]} == {None}
    plan = ["plan", "--model", "meta-llama/Meta-Llama-3-70B-Instruct", "--max-model-len", "8192", "--gpus", "8xH100-80GB-HBM3"]
    for aim, is_shown in (([], False), (["--objective", "requestsPerSecond=1"], True)):
        shown = CliRunner().invoke(cli, [*plan, "--product", "H100*", *aim]).stdout
        assert ("Meets the" in shown) is is_shown
        assert "The least memory in all: " in shown


def test_a_plan_for_a_model_that_nobody_knows_is_undecided() -> None:
    result = CliRunner().invoke(cli, ["plan", "--model", "acme/unknown", "--gpus", "8xH100-80GB-HBM3", "-o", "json"])
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert document["problem"] == "acme/unknown is not in the catalogue and no config is given"
    assert "ModelProfile" in document["remedy"]
    assert "spec.model.config" not in document["remedy"]
