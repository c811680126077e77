"""How fast it would be: figures, findings, score and risks; the model itself is held against measurements elsewhere."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import T4, a_body, a_declaration, a_node, an_inventory
from shardgate.adapters.gpus import gpu_of, known_gpus
from shardgate.adapters.report import report
from shardgate.adapters.status import SCORE, annotations, settled
from shardgate.adapters.tables import table
from shardgate.domain.fitting import Weighed, fit_of
from shardgate.domain.performance.communication import Link
from shardgate.domain.performance.estimate import limits_of, replica_of
from shardgate.domain.performance.figures import Bound, Performance
from shardgate.domain.performance.serving import Lengths, Replica, bubble_of
from shardgate.domain.policy import OWN_KIND
from shardgate.domain.risks import Likelihood, risks_of
from shardgate.domain.verdict import Outcome, Verdict
from shardgate.domain.verify import verify

TRAFFIC = {"promptTokens": 1024, "outputTokens": 512, "concurrency": 256, "microBatches": 57}
OBJECTIVES = {
    "requestsPerSecond": 8, "timeToFirstTokenMilliseconds": 1500, "timePerOutputTokenMilliseconds": 80, "gpuUtilizationPercent": 70,
}  # fmt: skip
REFERENCE = {"engine": {"maxModelLen": 8192}, "traffic": TRAFFIC, "objectives": OBJECTIVES}
L40S = {"nvidia.com/gpu.product": "NVIDIA-L40S", "nvidia.com/gpu.memory": "46068"}


def judged(*nodes: Any, **changes: Any) -> Verdict:
    return verify(a_declaration(**changes), an_inventory(*(nodes or (a_node(),))), OWN_KIND)


def performed(*nodes: Any, **changes: Any) -> Performance:
    found = judged(*nodes, **changes).performance
    assert found is not None
    return found


def a_replica(product: str = "H100-80GB-HBM3", micro_batches: int | None = None, **changes: Any) -> Replica:
    declaration, gpu = a_declaration(**{"engine": {"maxModelLen": 8192}, **changes}), gpu_of(product, None)
    weighed = Weighed.of(declaration)
    assert weighed is not None
    estimate = fit_of(gpu, declaration, weighed).estimate
    assert estimate is not None
    found = replica_of(weighed, gpu, Lengths(prompt=1024, output=512), limits_of(estimate, declaration), micro_batches)
    assert found is not None
    return found


def test_the_second_reference_passes_by_its_own_terms() -> None:
    verdict = judged(**REFERENCE)
    assert (verdict.outcome, verdict.findings) == (Outcome.SOUND, ())
    assert verdict.score is not None
    assert 95 <= verdict.score <= 100
    assert [each.of for each in verdict.score_terms] == [30, 30, 15, 10, 10, 5]
    assert all(each.why for each in verdict.score_terms)


def test_the_second_reference_serves_what_it_aims_at_only_with_its_own_micro_batches() -> None:
    found = performed(**REFERENCE)
    assert 8.0 <= found.capacity.value <= 9.2
    assert 6.5 <= found.capacity_measured.value <= 7.5
    assert (found.balance.bubble, found.balance.bubble_measured) == (pytest.approx(0.05), pytest.approx(0.2))
    assert found.concurrency == 256
    (risk,) = [each for each in risks_of(a_declaration(**REFERENCE), judged(**REFERENCE)) if each.name == "PipelineLoss"]
    assert "lose 20 %, not the 5 % of 57 micro-batches" in risk.effect


def test_what_ranks_send_for_a_token() -> None:
    """Two sums a layer, 20 layers a stage, 8,192 numbers of 2 bytes; half of each is sent to the neighbour, twice."""
    talk = performed(**REFERENCE).communication
    assert talk.bytes_per_token == (655_360, 16_384, 0)
    assert (talk.link, talk.link_bytes_per_second) == (Link.SCALE_UP, 450e9)
    assert talk.link_utilization == pytest.approx(0.019, abs=0.002)
    wide = performed(strategy={"tensor": 8, "pipeline": 1}, **REFERENCE).communication
    assert wide.bytes_per_token == (4_587_520, 0, 0)


def test_the_graph_of_the_reference() -> None:
    declaration, inventory = a_declaration(**REFERENCE), an_inventory(a_node())
    graph = report(declaration, verify(declaration, inventory, OWN_KIND), reference="0000")["graph"]
    edges = graph["edges"]
    assert (len(graph["nodes"]), len(edges["tensor"]), len(edges["pipeline"]), len(edges["expert"])) == (8, 8, 6, 0)
    assert {(each["from"], each["to"]) for each in edges["pipeline"]} == {(0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7)}
    assert {"from": 0, "to": 1, "bytesPerToken": 655_360} in edges["tensor"]
    assert {"from": 1, "to": 0, "bytesPerToken": 655_360} in edges["tensor"]


def test_experts_that_are_dealt_out_are_joined_all_to_all() -> None:
    declaration = a_declaration(
        model={"name": "deepseek-ai/DeepSeek-R1", "weights": "fp8-block"},
        engine={"name": "sglang", "version": "0.5.3", "maxModelLen": 8192},
        strategy={"tensor": 8, "pipeline": 1, "data": 8, "attentionData": True, "expert": 8},
    )
    node = a_node(labels={"nvidia.com/gpu.product": "NVIDIA-H200", "nvidia.com/gpu.memory": "143771"})
    shown = report(declaration, verify(declaration, an_inventory(node), OWN_KIND), reference="0000")
    edges = shown["graph"]["edges"]
    assert (len(edges["expert"]), len(edges["tensor"])) == (56, 8)
    assert shown["communication"]["expertBytesPerToken"] == pytest.approx(58 * 8 * 7168 * 3 * 7 / 8, rel=0.01)


@pytest.mark.parametrize(("stages", "micro_batches", "bubble"), [(4, 57, 0.05), (1, 1, 0.0), (4, 12, 0.2), (2, 1, 0.5)])
def test_bubbles(stages: int, micro_batches: int, bubble: float) -> None:
    assert bubble_of(stages, micro_batches) == pytest.approx(bubble)


def test_a_lone_sequence_waits_for_nobody_in_a_pipeline() -> None:
    """It meets every stage in turn: slower than with tensor ranks, and no bubble on top."""
    staged = a_replica().at_concurrency(1)
    wide = a_replica(strategy={"tensor": 8, "pipeline": 1}).at_concurrency(1)
    assert staged.time_per_output_token == pytest.approx(staged.step_seconds, rel=0.02)
    assert 2 < staged.time_per_output_token / wide.time_per_output_token < 4
    assert staged.bubble == pytest.approx(0.75)


def test_tensor_ranks_beat_stages_on_one_node() -> None:
    staged = performed(**REFERENCE).requests_per_second.value
    pairs = performed(strategy={"tensor": 4, "pipeline": 1}, gpus={"perPod": 4}, replicas=2, **REFERENCE)
    assert 1.2 < pairs.requests_per_second.value / staged < 1.5


@settings(max_examples=30, deadline=None)
@given(concurrency=st.integers(1, 400), more=st.integers(1, 200), pipeline=st.sampled_from([1, 2, 4]))
def test_more_clients_wait_longer_and_are_served_no_slower_in_all(concurrency: int, more: int, pipeline: int) -> None:
    replica = a_replica(strategy={"tensor": 8 // pipeline, "pipeline": pipeline}, micro_batches=57)
    fewer, many = replica.at_concurrency(concurrency), replica.at_concurrency(concurrency + more)
    assert many.time_per_output_token >= fewer.time_per_output_token * 0.999
    assert many.requests_per_second >= fewer.requests_per_second * 0.97


@settings(max_examples=30, deadline=None)
@given(rate=st.floats(0.1, 30), prompt=st.integers(1, 100_000), output=st.integers(1, 4000))
def test_an_open_loop_never_serves_more_than_comes_or_can_be_served(rate: float, prompt: int, output: int) -> None:
    one = a_replica()
    replica = Replica(one.work, one.hardware, Lengths(prompt=prompt, output=output), one.limits)
    service = replica.at_rate(rate)
    assert service.requests_per_second <= min(rate, replica.at_most().requests_per_second) * 1.0001
    assert service.time_to_first_token > 0
    assert service.is_at_capacity == (service.load >= 0.85)


def test_latency_is_not_told_at_capacity() -> None:
    traffic = {"promptTokens": 1024, "outputTokens": 512}
    changes = {"engine": {"maxModelLen": 8192}, "traffic": traffic, "objectives": {"requestsPerSecond": 11}}
    verdict = judged(**changes)
    found = verdict.performance
    assert found is not None
    assert (found.is_at_capacity, found.time_per_output_token, found.bound) == (True, None, Bound.CAPACITY)
    assert verdict.outcome is Outcome.SOUND
    assert "AtCapacity" in [each.name for each in risks_of(a_declaration(**changes), verdict)]


def test_an_objective_beyond_the_range_is_a_finding_and_inside_it_a_risk() -> None:
    high = judged(engine={"maxModelLen": 8192}, traffic=TRAFFIC, objectives={"requestsPerSecond": 30})
    assert high.codes == ("ThroughputTooLow",)
    assert high.outcome is Outcome.WASTEFUL
    assert "30 requests/s are aimed at, H100-80GB-HBM3 serves 6 to 11.4" in high.findings[0].message
    inside = {"engine": {"maxModelLen": 8192}, "traffic": TRAFFIC, "objectives": {"requestsPerSecond": 10}}
    assert judged(**inside).codes == ()
    risks = {each.name: each.likelihood for each in risks_of(a_declaration(**inside), judged(**inside))}
    assert risks["ThroughputUncertain"] is Likelihood.LIKELY


def test_a_latency_that_cannot_be_met_says_how_much_can() -> None:
    verdict = judged(engine={"maxModelLen": 8192}, traffic=TRAFFIC, objectives={"timePerOutputTokenMilliseconds": 40})
    assert verdict.codes == ("LatencyTooHigh",)
    assert verdict.findings[0].where == "spec.objectives.timePerOutputTokenMilliseconds"
    assert "requests in flight" in verdict.findings[0].remedy
    hopeless = judged(engine={"maxModelLen": 8192}, traffic=TRAFFIC, objectives={"timePerOutputTokenMilliseconds": 1})
    assert hopeless.findings[0].remedy.startswith("no rate meets the objectives")


def test_no_finding_rests_on_lengths_that_nobody_declared() -> None:
    verdict = judged(objectives={"requestsPerSecond": 1000})
    assert verdict.codes == ()
    assert "spec.traffic" in [each.field for each in verdict.assumptions]


def test_a_bubble_of_the_declared_micro_batches() -> None:
    verdict = judged(engine={"maxModelLen": 8192}, traffic={**TRAFFIC, "microBatches": 4})
    assert verdict.codes == ("PipelineBubble",)
    assert "4 micro-batches in 4 stages leave each idle 43 % of the time" in verdict.findings[0].message


def test_uneven_stages() -> None:
    verdict = judged(strategy={"layersPerStage": [35, 15, 15, 15]})
    assert "StagesUneven" in verdict.codes
    assert "StagesUneven" not in judged().codes


@settings(max_examples=20, deadline=None)
@given(moved=st.integers(0, 15), more=st.integers(0, 4), concurrency=st.sampled_from([4, 64, 256]))
def test_a_more_uneven_split_is_never_faster(moved: int, more: int, concurrency: int) -> None:
    def rate(shift: int) -> float:
        layers = [20 + shift, 20, 20, 20 - shift]
        found = performed(
            strategy={"layersPerStage": layers}, engine={"maxModelLen": 8192}, traffic={**TRAFFIC, "concurrency": concurrency}
        )
        return found.requests_per_second.value

    assert rate(moved + more) <= rate(moved) * 1.001


def test_no_more_is_in_flight_than_is_declared() -> None:
    small = {
        "model": {"name": "meta-llama/Meta-Llama-3-8B-Instruct"},
        "strategy": {"tensor": 1, "pipeline": 1},
        "gpus": {"perPod": 1},
    }
    two = {**TRAFFIC, "concurrency": 2}
    rates = [performed(replicas=each, traffic=two, **small) for each in (1, 2, 8)]
    assert [each.concurrency for each in rates] == [2, 2, 2]
    assert rates[1].requests_per_second == rates[2].requests_per_second


def test_requests_that_are_longer_than_the_context_are_told_and_have_no_figures() -> None:
    verdict = judged(engine={"maxModelLen": 4096}, traffic={**TRAFFIC, "promptTokens": 30_000})
    assert verdict.codes == ("DeclarationContradicts",)
    assert verdict.outcome is Outcome.RISKY
    assert verdict.performance is None
    assert verdict.score is None


def test_the_rate_of_an_open_loop_is_at_most_what_comes() -> None:
    found = performed(traffic={"promptTokens": 1024, "outputTokens": 512}, objectives={"requestsPerSecond": 1})
    assert (found.requests_per_second.value, found.requests_per_second.high) == (1, 1)


def test_figures_are_those_of_the_slowest_product_that_pods_are_placed_on() -> None:
    h200 = {"nvidia.com/gpu.product": "NVIDIA-H200", "nvidia.com/gpu.memory": "143771"}
    two = {"strategy": {"tensor": 8, "pipeline": 2}, "engine": {"maxModelLen": 8192}, "traffic": TRAFFIC}
    alike = performed(a_node("a"), a_node("b"), **two)
    mixed = performed(a_node("a"), a_node("b", labels=h200), **two)
    assert (alike.product, mixed.product) == ("H100-80GB-HBM3", "H100-80GB-HBM3")
    assert mixed.requests_per_second == alike.requests_per_second


def test_what_its_engine_refuses_has_no_figures() -> None:
    verdict = judged(strategy={"tensor": 6, "pipeline": 1}, gpus={"perPod": 6}, traffic=TRAFFIC)
    assert "HeadsUneven" in verdict.codes
    assert (verdict.performance, verdict.score) == (None, 0)


def test_memory_that_nobody_fills() -> None:
    small = {**TRAFFIC, "concurrency": 2}
    verdict = judged(strategy={"tensor": 8, "pipeline": 1}, traffic=small)
    assert verdict.codes == ("MemoryMostlyUnused",)
    least = judged(strategy={"tensor": 4, "pipeline": 1}, gpus={"perPod": 4}, traffic=small)
    assert "MemoryMostlyUnused" not in least.codes, "half the GPUs would not hold the weights"
    alone = judged(
        model={"name": "meta-llama/Meta-Llama-3-8B-Instruct"}, strategy={"tensor": 1, "pipeline": 1}, gpus={"perPod": 1},
        traffic=small,
    )  # fmt: skip
    assert alone.codes == (), "one GPU of the only product is the least there is"


def test_tensor_ranks_over_pcie_are_told_where_joined_gpus_are_accepted() -> None:
    fp8 = {"model": {"weights": "fp8"}, "strategy": {"tensor": 4, "pipeline": 1}, "gpus": {"perPod": 4}}
    here = a_node("pcie", gpus=8, labels=L40S)
    assert "TensorOverPcie" not in judged(here, **fp8).codes
    beside = judged(here, a_node("joined", gpus=4).tainted(), **fp8)
    assert "TensorOverPcie" in beside.codes


def test_tensor_ranks_on_several_nodes() -> None:
    verdict = judged(a_node("a"), a_node("b"), strategy={"tensor": 8, "pipeline": 1}, gpus={"perPod": 4})
    assert verdict.codes == ("TensorAcrossNodes",)
    assert verdict.outcome is Outcome.RISKY
    small = judged(a_node("a", gpus=4), a_node("b", gpus=4), strategy={"tensor": 8, "pipeline": 1}, gpus={"perPod": 4})
    assert "TensorAcrossNodes" not in small.codes, "no node could hold them"


def test_what_does_not_fit_or_is_not_known_has_no_figures() -> None:
    assert judged(a_node(gpus=1, labels=T4)).performance is None
    assert judged(model={"name": "acme/unknown"}).performance is None
    assert judged(engine={"name": "other", "version": None}).performance is None
    assert judged(a_node().without_gpu_labels()).performance is None
    assert judged(replicas=0).performance is None


def test_scores_leave_out_what_is_not_aimed_at() -> None:
    terms = {each.name: each.points for each in judged().score_terms}
    assert (terms["throughput"], terms["latency"], terms["utilisation"]) == (None, None, None)
    assert judged(a_node(gpus=1, labels=T4)).score == 0
    assert judged(model={"name": "acme/unknown"}).score is None


def test_a_missed_objective_costs_points_step_by_step() -> None:
    scores = [
        judged(engine={"maxModelLen": 8192}, traffic=TRAFFIC, objectives={"requestsPerSecond": aim}).score
        for aim in (5, 8, 9, 12, 40)
    ]
    assert None not in scores
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == 100
    assert scores[-1] == 54


def test_a_score_that_moved_little_is_not_written_again() -> None:
    fresh = annotations(judged())
    near, far = {**fresh, SCORE: "93"}, {**fresh, SCORE: "70"}
    assert settled(fresh, near, None) == near
    assert settled(fresh, near, near) == near
    assert settled(fresh, far, far) == fresh
    assert settled(fresh, near, {**fresh, SCORE: "95"}) == fresh, "it is not what we wrote: somebody else's"
    assert settled(fresh, {**near, SCORE: "x"}, None) == fresh


def test_every_rate_belongs_to_a_product_and_none_is_zero() -> None:
    products = {row["id"] for row in table("gpus")["gpus"]}
    for row in table("gpu_rates")["gpus"]:
        assert row["id"] in products
        assert row["bandwidthGbS"] > 0
        assert set(row["sources"].values()) <= {*table("gpu_rates")["sources"], "recalled"}
    assert sum(gpu.rates is not None for gpu in known_gpus()) > 50


def test_reports_print_shares_as_parts_of_one_and_unknown_as_null() -> None:
    declaration, inventory = a_declaration(**REFERENCE), an_inventory(a_node())
    shown = report(declaration, verify(declaration, inventory, OWN_KIND), reference="0000")
    figures = shown["performance"]
    assert figures["requestsPerSecond"]["low"] < figures["requestsPerSecond"]["value"] < figures["requestsPerSecond"]["high"]
    assert 0 < figures["gpuUtilization"]["value"] < 1
    assert 0 < shown["communication"]["timeShare"] < 1
    assert len(shown["balance"]["stageSeconds"]) == 4
    nothing = report(declaration, judged(a_node(gpus=1, labels=T4)), reference="0000")
    assert set(nothing["performance"]) == set(figures)
    assert set(nothing["performance"].values()) == {None}


def test_what_follows_from_model_and_strategy_needs_no_gpu() -> None:
    """Bytes of a token and the declared bubble are the same on GPUs that they do not fit."""
    declaration, inventory = a_declaration(**REFERENCE), an_inventory(a_node())
    fits = report(declaration, verify(declaration, inventory, OWN_KIND), reference="0000")
    small = an_inventory(a_node(gpus=1, labels=T4))
    fails = report(declaration, verify(declaration, small, OWN_KIND), reference="0000")
    for part, keys in (
        ("communication", ("tensorBytesPerToken", "pipelineBytesPerToken", "expertBytesPerToken")),
        ("balance", ("bubble", "microBatches")),
    ):
        assert set(fits[part]) == set(fails[part])
        assert {key: value for key, value in fails[part].items() if value is not None} == {key: fits[part][key] for key in keys}


def test_traffic_changes_what_is_judged() -> None:
    body = a_body(**REFERENCE)
    assert body["spec"]["traffic"]["concurrency"] == 256
    assert performed(engine={"maxModelLen": 8192}, traffic={**TRAFFIC, "concurrency": 8}).concurrency == 8
