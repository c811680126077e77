"""Predictions of memory against engines that run here: what is compared, what stands of it, and what it changes."""

import asyncio
import datetime
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import T4, a_body, a_book, a_declaration, a_node, a_pod, a_vllm_deployment, standing
from command_line import run
from shardgate.adapters.accuracy import accuracies_in, entries
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.engine_measurements import CacheSeries, UnreadableAnswer, compared, series_in
from shardgate.adapters.frozen_values import packed, unpacked
from shardgate.adapters.gpus import gpu_of
from shardgate.adapters.manifests import CLUSTER_RULES
from shardgate.adapters.pods import pod_from, read_pod
from shardgate.adapters.rollouts import is_rolling_out
from shardgate.domain.calibration import Accuracy, Comparison, accuracies, distrusted, engine_version_of
from shardgate.domain.declaration import Declaration
from shardgate.domain.enforce import enforce
from shardgate.domain.inventory import Inventory
from shardgate.domain.policy import FOREIGN_KIND, OWN_KIND
from shardgate.domain.used_facts import used_facts
from shardgate.domain.verdict import FindingClass, Outcome, Verdict
from shardgate.domain.verify import verify
from shardgate.shells import calibration as module
from shardgate.shells.calibration import Calibration
from shardgate.shells.config import ConfigError, OperatorConfig, read_config
from shardgate.shells.judge import Judge
from shardgate.shells.ledger import Ledger
from shardgate.shells.metrics import Metrics
from shardgate.shells.writer import Writer

Json = dict[str, Any]
H100 = "H100-80GB-HBM3"


def found(error: float, version: str = "vllm 0.19", product: str = H100) -> Comparison:
    return Comparison(engine_version=version, product=product, predicted=round(100_000 * (1 + error)), measured=100_000)


# ---- the rule


@pytest.mark.parametrize(
    ("errors", "p90", "may_refuse"),
    [
        ([0.15], 0.15, True),
        ([0.151], 0.151, False),
        ([-0.2], 0.2, False),
        ([0.01] * 9 + [0.9], 0.01, True),
        ([0.01] * 8 + [0.9] * 2, 0.9, False),
        ([0.02 * n for n in range(10)], 0.16, False),
    ],
)
def test_the_right_to_refuse_rests_on_the_90th_percentile(errors: list[float], p90: float, may_refuse: bool) -> None:
    (accuracy,) = accuracies(found(each) for each in errors)
    assert (accuracy.p90_error, accuracy.may_refuse, accuracy.engines) == (pytest.approx(p90), may_refuse, len(errors))
    assert abs(accuracy.predicted - accuracy.measured) / accuracy.measured == pytest.approx(p90)
    assert bool(distrusted([accuracy])) is not may_refuse


def test_versions_and_products_are_apart() -> None:
    several = accuracies([found(0.5), found(0.01, product="L4"), found(0.01, "vllm 0.18"), found(0.5)])
    assert [(*each.key, each.engines) for each in several] == [
        ("vllm 0.18", H100.lower(), 1), ("vllm 0.19", H100.lower(), 2), ("vllm 0.19", "l4", 1),
    ]  # fmt: skip
    assert [each.key for each in distrusted(several)] == [("vllm 0.19", H100.lower())]


@pytest.mark.parametrize(
    ("version", "named"),
    [
        ("0.19.0", "vllm 0.19"), ("v0.8.5.post1", "vllm 0.8"), ("0.7.x", "vllm 0.7"), ("0.11.1rc2", "vllm 0.11"),
        (None, "vllm of unknown version"), ("20260801.1", "vllm of unknown version"), ("latest", "vllm of unknown version"),
    ],
)  # fmt: skip
def test_patch_releases_are_one_version(version: str | None, named: str) -> None:
    assert engine_version_of(a_declaration(engine={"version": version}).engine) == named


# ---- what it changes


def too_large(**engine: Any) -> Declaration:
    """70B in 16 bits on one GPU."""
    return a_declaration(strategy={"tensor": 1, "pipeline": 1}, gpus={"perPod": 1}, engine=engine)


def lost(version: str = "vllm 0.19", product: str = H100) -> tuple[Accuracy, ...]:
    return accuracies([found(0.23, version, product)])


def with_accuracy(accuracy: tuple[Accuracy, ...]) -> Inventory:
    book = a_book(a_node())
    book.put_accuracy(accuracy)
    frozen = book.inventory(0.0)
    assert frozen.distrusted == distrusted(accuracy)
    return frozen


def judged(declaration: Declaration, accuracy: tuple[Accuracy, ...], policy: Any = OWN_KIND) -> Verdict:
    return verify(declaration, with_accuracy(accuracy), policy)


def test_who_predicts_badly_refuses_nothing_for_memory() -> None:
    before = judged(too_large(), ())
    assert before.outcome is Outcome.UNSOUND
    assert before.codes[0] in ("WeightsDoNotFit", "NoRoomForKvCache", "ContextDoesNotFit")
    after = judged(too_large(), lost())
    assert (after.outcome, after.codes) == (Outcome.UNDECIDED, ("MemoryNotModelled",))
    (finding,) = after.findings
    assert finding.finding_class is FindingClass.MEMORY
    for part in (before.findings[0].message, "23.0%", "15%", "vllm 0.19", H100, "123000 tokens", "100000 are held"):
        assert part in finding.message
    assert "shardgate accuracy" in finding.remedy
    assert not enforce(too_large(), before, OWN_KIND, None).allowed
    assert enforce(too_large(), after, OWN_KIND, None).allowed
    assert judged(too_large(), lost(), FOREIGN_KIND).outcome is Outcome.UNDECIDED


@pytest.mark.parametrize(
    "accuracy",
    [lost("vllm 0.18"), lost("vllm of unknown version"), lost("sglang 0.5"), lost(product="L4"), accuracies([found(0.1)])],
    ids=lambda found: f"{found[0].engine_version} {found[0].product} {found[0].p90_error:.2f}",
)  # fmt: skip
def test_others_and_good_predictions_refuse_as_ever(accuracy: tuple[Accuracy, ...]) -> None:
    assert judged(too_large(), accuracy) == judged(too_large(), ())


def test_patch_releases_lose_it_together_and_the_products_case_is_no_matter() -> None:
    assert judged(too_large(version="0.19.4"), lost(product=H100.lower())).codes == ("MemoryNotModelled",)


def test_what_is_no_prediction_of_memory_refuses_still() -> None:
    shape = judged(a_declaration(strategy={"tensor": 3, "pipeline": 1}, gpus={"perPod": 3}), lost())
    assert (shape.outcome, shape.codes[0]) == (Outcome.UNSOUND, "HeadsUneven")
    book = a_book(a_node(gpus=1, labels={**T4, "nvidia.com/gpu.compute.major": "7", "nvidia.com/gpu.compute.minor": "5"}))
    book.put_accuracy(lost(product="Tesla-T4"))
    model = {"name": "meta-llama/Llama-3.2-1B-Instruct", "weights": "bf16", "dtype": "bf16"}
    declaration = a_declaration(model=model, strategy={"tensor": 1, "pipeline": 1}, gpus={"perPod": 1})
    verdict = verify(declaration, book.inventory(0.0), OWN_KIND)
    assert (verdict.outcome, verdict.codes) == (Outcome.UNSOUND, ("PrecisionUnsupported",))


def test_weights_beyond_the_whole_cluster_refuse_no_more_than_the_rank_does() -> None:
    """ModelExceedsCluster says something only beside a refusal for memory: alone it is none."""
    declaration = a_declaration(strategy={"tensor": 1, "pipeline": 1}, gpus={"perPod": 1})
    book = a_book(a_node(gpus=1))
    assert "ModelExceedsCluster" in verify(declaration, book.inventory(0.0), OWN_KIND).codes
    book.put_accuracy(lost())
    assert verify(declaration, book.inventory(0.0), OWN_KIND).codes == ("MemoryNotModelled",)


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]), st.sampled_from(["fp16", "fp8", "awq-int4"]), st.booleans())
def test_a_lost_right_never_makes_a_verdict_worse(tensor: int, gpus: int, weights: str, is_lost: bool) -> None:
    declaration = a_declaration(
        model={"weights": weights}, strategy={"tensor": tensor, "pipeline": 1}, gpus={"perPod": tensor}
    )  # fmt: skip
    book = a_book(a_node(gpus=gpus))
    before = verify(declaration, book.inventory(0.0), OWN_KIND)
    book.put_accuracy(lost() if is_lost else accuracies([found(0.15)]))
    after = verify(declaration, book.inventory(0.0), OWN_KIND)
    assert after.outcome <= before.outcome
    if before.outcome < Outcome.UNSOUND or not is_lost:
        assert after == before


def test_a_decision_is_kept_with_it() -> None:
    """Judged again by the facts that were kept, it comes out the same."""
    inventory = with_accuracy(lost())
    kept = unpacked(json.loads(json.dumps(packed(used_facts(inventory, [too_large()])))))
    assert verify(too_large(), kept, OWN_KIND).findings == verify(too_large(), inventory, OWN_KIND).findings


def test_the_book_is_judged_by_anew_only_where_a_right_changes() -> None:
    book = a_book(a_node())
    at_first = book.version
    book.put_accuracy(accuracies([found(0.1)]))
    assert book.version == at_first
    book.put_accuracy(lost())
    assert book.version == at_first + 1
    book.put_accuracy(accuracies([found(0.3)]))
    assert book.version == at_first + 1
    book.put_accuracy(())
    assert book.version == at_first + 2


# ---- what is compared


SMALL: Json = {
    "model": {"name": "meta-llama/Llama-3.1-8B-Instruct", "weights": "bf16"}, "strategy": {"tensor": 1, "pipeline": 1},
    "gpus": {"perPod": 1}, "engine": {"version": "0.19.0", "memoryUtilization": 0.9, "maxModelLen": 8192},
}  # fmt: skip


FP8: Json = {"model": {**SMALL["model"], "kvCache": "fp8"}}


def an_engine(pod: str = "llama-0", **labels: str) -> CacheSeries:
    """As vLLM 0.19 exposes it."""
    config = {
        "__name__": "vllm:cache_config_info", "block_size": "16", "cache_dtype": "auto", "gpu_memory_utilization": "0.9",
        "num_gpu_blocks": "2157", "num_gpu_blocks_override": "None", "kv_cache_memory_bytes": "None", "engine": "0",
        "namespace": "serving", "pod": pod,
    }  # fmt: skip
    return CacheSeries(namespace="serving", pod=pod, labels={**config, **labels})


def test_an_engine_that_was_predicted_well() -> None:
    """34,512 tokens were predicted of Llama 3.1 8B on an L4: 2,157 blocks of 16."""
    result = compared(an_engine(), a_declaration(**SMALL), gpu_of("NVIDIA-L4", None))
    assert isinstance(result, Comparison)
    assert (result.engine_version, result.product, result.measured) == ("vllm 0.19", "L4", 34_512)
    assert result.error < 0.03
    twice = compared(an_engine(num_gpu_blocks="4314"), a_declaration(**SMALL), gpu_of("NVIDIA-L4", None))
    assert isinstance(twice, Comparison)
    assert (twice.predicted, twice.measured) == (result.predicted, 69_024)


def test_hybrid_models_are_counted_in_the_same_groups_on_both_sides() -> None:
    """A sequence takes a block of every group: tokens are blocks over groups, whatever the block size."""
    declaration = a_declaration(
        model={"name": "google/gemma-3-27b-it", "weights": "bf16"}, strategy={"tensor": 1, "pipeline": 1}, gpus={"perPod": 1},
        engine={"version": "0.19.0", "memoryUtilization": 0.9, "maxModelLen": 8192},
    )  # fmt: skip
    result = compared(an_engine(num_gpu_blocks="7000"), declaration, gpu_of("NVIDIA-H100-80GB-HBM3", None))
    assert isinstance(result, Comparison)
    assert 0 < result.measured < 7000 * 16
    other = compared(an_engine(num_gpu_blocks="7000", block_size="32"), declaration, gpu_of("NVIDIA-H100-80GB-HBM3", None))
    assert isinstance(other, Comparison)
    assert other.measured == 2 * result.measured


@pytest.mark.parametrize(
    ("labels", "changes", "product", "why"),
    [
        ({"num_gpu_blocks": "None"}, {}, "NVIDIA-L4", "does not tell"),
        ({"num_gpu_blocks": "-1"}, {}, "NVIDIA-L4", "does not tell"),
        ({"num_gpu_blocks": "0"}, {}, "NVIDIA-L4", "does not tell"),
        ({"num_gpu_blocks": "9" * 40}, {}, "NVIDIA-L4", "does not tell"),
        ({"num_gpu_blocks": "0" * 20 + "1" + "9" * 5000}, {}, "NVIDIA-L4", "does not tell"),
        ({"num_gpu_blocks": "0" * 20 + "1" + "9" * 400}, {}, "NVIDIA-L4", "does not tell"),
        ({"num_gpu_blocks": str(2**40)}, {}, "NVIDIA-L4", "does not tell"),
        ({"num_gpu_blocks": str(2**40 - 1), "block_size": str(2**40 - 1)}, {}, "NVIDIA-L4", "no engine holds as many tokens"),
        ({"block_size": ""}, {}, "NVIDIA-L4", "does not tell"),
        ({"num_gpu_blocks_override": "100"}, {}, "NVIDIA-L4", "was given a size"),
        ({"kv_cache_memory_bytes": "1073741824"}, {}, "NVIDIA-L4", "was given a size"),
        ({"gpu_memory_utilization": "0.95"}, {}, "NVIDIA-L4", "runs with gpu_memory_utilization 0.95, 0.9 is declared"),
        ({}, FP8, "NVIDIA-L4", "it runs with cache_dtype auto, fp8 is declared"),
        ({"cache_dtype": "bfloat16"}, FP8, "NVIDIA-L4", "it runs with cache_dtype bfloat16, fp8 is declared"),
        ({"cache_dtype": "fp8_e5m2"}, {}, "NVIDIA-L4", "it runs with cache_dtype fp8, auto is declared"),
        ({"cache_dtype": "nobody\nknows"}, {}, "NVIDIA-L4", "its cache_dtype is none that is known"),
        ({}, {"engine": {"name": "sglang", "version": "0.5.5"}}, "NVIDIA-L4", "its declaration is of sglang"),
        ({}, {"model": {"name": "nobody/knows"}}, "NVIDIA-L4", "not modelled"),
        ({}, {}, "Some-GPU", "not modelled"),
    ],
)
def test_what_cannot_be_compared_is_left_out_with_the_reason(labels: Json, changes: Json, product: str, why: str) -> None:
    result = compared(an_engine(**labels), a_declaration(**{**SMALL, **changes}), gpu_of(product, None))
    assert isinstance(result, str)
    assert why in result


@pytest.mark.parametrize(
    ("labels", "changes"),
    [
        ({"cache_dtype": "bfloat16"}, {}),
        ({"cache_dtype": "auto"}, {"model": {**SMALL["model"], "kvCache": "bf16"}}),
        ({"cache_dtype": "fp8_e4m3"}, FP8),
        ({"cache_dtype": "fp8"}, FP8),
        ({"cache_dtype": ""}, FP8),
    ],
)
def test_words_for_the_same_size_of_an_element_are_no_difference(labels: Json, changes: Json) -> None:
    result = compared(an_engine(**labels), a_declaration(**{**SMALL, **changes}), gpu_of("NVIDIA-L4", None))
    assert isinstance(result, Comparison)


def test_an_engine_that_should_not_have_started_was_predicted_badly() -> None:
    result = compared(an_engine(), a_declaration(**{**SMALL, "model": {"weights": "fp16"}}), gpu_of("NVIDIA-L4", None))
    assert isinstance(result, Comparison)
    assert (result.predicted, result.error) == (0, 1.0)


# ---- what stands of it


NOW = datetime.datetime(2026, 12, 1, 12, tzinfo=datetime.UTC)


def test_at_rest_nothing_new_stands() -> None:
    first = entries(accuracies([found(0.100), found(0.2, product="L4")]), {}, NOW)
    stands = {"accuracy": first}
    assert [each.may_refuse for each in accuracies_in(stands)] == [True, False]
    later = NOW + datetime.timedelta(hours=23)
    assert entries(accuracies([found(0.104), found(0.2, product="L4")]), stands, later) == first
    changed = entries(accuracies([found(0.12), found(0.2, product="L4")]), stands, later)
    assert [(each["p90Error"], each["measuredAt"]) for each in changed] == [
        (0.12, "2026-12-02T11:00:00Z"), (0.2, "2026-12-01T12:00:00Z"),
    ]  # fmt: skip
    dated = entries(accuracies([found(0.1), found(0.2, product="L4")]), stands, NOW + datetime.timedelta(hours=24))
    assert {each["measuredAt"] for each in dated} == {"2026-12-02T12:00:00Z"}


def test_a_right_is_lost_and_regained_at_the_boundary_at_once() -> None:
    stands = {"accuracy": entries(accuracies([found(0.149)]), {}, NOW)}
    (after,) = entries(accuracies([found(0.151)]), stands, NOW)
    assert after["mayRefuse"] is False
    (back,) = entries(accuracies([found(0.149)]), {"accuracy": [after]}, NOW)
    assert back["mayRefuse"] is True


def test_engines_that_run_here_no_more_are_remembered_for_30_days() -> None:
    stands = {"accuracy": entries(lost(), {}, NOW)}
    assert entries((), stands, NOW + datetime.timedelta(days=29)) == stands["accuracy"]
    assert entries((), stands, NOW + datetime.timedelta(days=30)) == []


def test_a_status_that_somebody_wrote_refuses_as_ever() -> None:
    assert accuracies_in({"accuracy": [{"engineVersion": "vllm 0.19"}, "x", {"engineVersion": 1, "p90Error": "bad"}]}) == ()
    assert accuracies_in(None) == ()
    (whole,) = entries(lost(), {"accuracy": [{"engineVersion": "x", "product": "y", "measuredAt": "never"}]}, NOW)
    assert whole["engineVersion"] == "vllm 0.19"


def test_an_entry_that_lacks_a_field_is_written_anew() -> None:
    (stands,) = entries(lost(), {}, NOW)
    del stands["mayRefuse"]
    (whole,) = entries(lost(), {"accuracy": [stands]}, NOW)
    assert whole == {**stands, "mayRefuse": False}


def test_what_was_read_is_dated_by_its_reading_however_often_it_is_written() -> None:
    read_at = NOW - datetime.timedelta(hours=2)
    first = entries(lost(), {}, NOW, read_at)
    assert [each["measuredAt"] for each in first] == ["2026-12-01T10:00:00Z"]
    assert entries(lost(), {"accuracy": first}, NOW + datetime.timedelta(days=29), read_at) == first
    assert entries(lost(), {"accuracy": first}, NOW + datetime.timedelta(days=30), read_at) == []


def test_what_another_replica_read_later_stands() -> None:
    theirs = entries(accuracies([found(0.01)]), {}, NOW)
    assert entries(lost(), {"accuracy": theirs}, NOW, NOW - datetime.timedelta(minutes=2)) == theirs
    (of_a_fast_clock,) = entries(accuracies([found(0.01)]), {}, NOW + datetime.timedelta(minutes=2))
    (ours,) = entries(lost(), {"accuracy": [of_a_fast_clock]}, NOW, NOW)
    assert ours["mayRefuse"] is False


# ---- the reading


class Held:
    def __init__(self) -> None:
        self.held = True

    def is_held(self) -> bool:
        return self.held


class Api:
    """Stands in for the API server: the ledger's status."""

    def __init__(self) -> None:
        self.writes: list[Json] = []

    async def request(self, verb: str, path: str, *, body: Json | None = None, **_: Any) -> Json:
        assert (verb, path) == ("PATCH", "/apis/shardgate.io/v1alpha1/capacityledgers/shardgate/status")
        assert body is not None
        self.writes.append(body)
        return {
            "metadata": {"name": "shardgate", "resourceVersion": str(len(self.writes) + 1)},
            "spec": {},
            "status": body["status"],
        }


class Clock:
    """``datetime`` with a time of its own."""

    timedelta, UTC = datetime.timedelta, datetime.UTC

    def __init__(self, at: datetime.datetime) -> None:
        self.at, self.datetime = at, self

    def now(self, _: object) -> datetime.datetime:
        return self.at


def put(book: ClusterBook, pod: Json) -> None:
    record = read_pod(pod_from(pod))
    assert record is not None
    book.put_pod(record)


@contextmanager
def a_prometheus(status: int, content: bytes, **headers: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Answers every question with this; yields its URL, and what was asked."""
    asked: list[tuple[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization", "")))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def vector(*series: CacheSeries) -> bytes:
    result = [{"metric": dict(each.labels), "value": [1.0, "1"]} for each in series]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


class Reader:
    """Everything but the API server and the lease."""

    def __init__(self, url: str | None, **config: Any) -> None:
        self.api, self.metrics = Api(), Metrics()
        self.book = a_book(
            a_node("node-l4", labels={"nvidia.com/gpu.product": "NVIDIA-L4"}),
            a_pod("llama-0", node="node-l4", declaration="llama", ready=True),
            a_pod("starting", node="node-l4", declaration="llama"),
            a_pod("stray", node="node-l4", ready=True),
        )
        writer = Writer(self.api, self.metrics, "t")  # type: ignore[arg-type]
        self.ledger = Ledger(writer, self.book.claims, self.metrics)
        self.ledger.on_accuracy = self.note
        self.ledger.put({"metadata": {"name": "shardgate", "resourceVersion": "1"}, "spec": {}})
        self.judge = judge = Judge(self.book, lambda: (0.0, 0.0))
        self.lease, self.declared = Held(), [standing(a_body(**SMALL))]
        self.subject = Calibration(
            writer, self.ledger, self.lease, judge, self.metrics,  # type: ignore[arg-type]
            OperatorConfig(prometheus_url=url, **config),
            lambda: [*(judge.declare(each) for each in self.declared), *judge.declarations()],
        )  # fmt: skip

    def note(self, accuracy: tuple[Accuracy, ...]) -> None:
        self.book.put_accuracy(accuracy)
        self.metrics.observe_accuracy(accuracy)

    def go(self) -> None:
        async def once() -> None:
            await self.subject.look()
            await self.subject.upkeep()

        asyncio.run(once())

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"shardgate_{name}", labels)


def test_what_runs_is_read_compared_and_written_once() -> None:
    series = (an_engine(num_gpu_blocks="3000"), an_engine("starting"), an_engine("stray"), an_engine("gone"))
    with a_prometheus(200, vector(*series)) as (url, asked):
        reader = Reader(url + "/")
        reader.go()
        reader.go()
    assert [path for path, _ in asked] == ["/api/v1/query?query=vllm:cache_config_info"] * 2
    (written,) = reader.api.writes
    (entry,) = written["status"]["accuracy"]
    assert (entry["engineVersion"], entry["product"], entry["engines"], entry["measuredTokens"]) == ("vllm 0.19", "L4", 1, 48_000)
    assert (entry["mayRefuse"], written["metadata"]) == (False, {"resourceVersion": "1"})
    assert reader.value("prediction_error_ratio", engine_version="vllm 0.19", product="L4") == entry["p90Error"] > 0.15
    assert reader.value("accuracy_reads_total", result="read") == 2
    assert reader.book.inventory(0.0).distrusted[0].key == ("vllm 0.19", "l4")


def test_why_engines_are_left_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    series = (an_engine(), an_engine("starting"), an_engine("stray"), an_engine("gone"))
    with a_prometheus(200, vector(*series)) as (url, _):
        Reader(url).go()
    (said,) = [each.message for each in caplog.records if "compared" in each.message]
    assert "1 engine compared, 3 not: 2 because no pod of its name is Ready with GPUs; 1 because nothing that is judged" in said


@pytest.mark.parametrize(
    ("status", "content", "why"),
    [
        (500, b"no", "HTTP 500: no"),
        (302, b"", "HTTP 302"),
        (200, b"<html>", "Expecting value"),
        (200, b'{"status": "error", "error": "no such thing"}', "no such thing"),
        (200, b'{"status": "success", "data": {"resultType": "matrix", "result": []}}', "matrix"),
        (200, b"[1]", "no data"),
        (200, b"\xff\xfe\x00", ""),
        (200, b"[" * 200_000, "recursion"),
        (200, b'{"a":' * 200_000, "recursion"),
    ],
)
def test_a_prometheus_that_does_not_answer_changes_nothing(
    status: int, content: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with a_prometheus(200, vector(an_engine(num_gpu_blocks="3000"))) as (url, _):
        reader = Reader(url)
        reader.go()
    headers = {"Location": "http://127.0.0.1:1/"} if status == 302 else {}
    with a_prometheus(status, content, **headers) as (url, _):
        reader.subject._config = OperatorConfig(prometheus_url=url)
        reader.go()
    assert len(reader.api.writes) == 1
    assert reader.value("accuracy_reads_total", result="failed") == 1
    assert len(reader.book.inventory(0.0).distrusted) == 1
    assert any(why in each.message and url in each.message for each in caplog.records)


def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    with a_prometheus(200, b"x" * 100_000) as (url, _):
        reader = Reader(url)
        reader.go()
    assert reader.value("accuracy_reads_total", result="failed") == 1
    assert "longer than" in caplog.text


def test_nobody_listening_and_no_token_file_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Reader("http://127.0.0.1:1").go()
    assert "127.0.0.1:1" in caplog.text
    reader = Reader("http://127.0.0.1:1", prometheus_token_file=tmp_path / "none")
    reader.go()
    assert "none" in caplog.text
    assert reader.value("accuracy_reads_total", result="failed") == 1


def test_the_token_is_sent_as_the_file_has_it_now(tmp_path: Path) -> None:
    token = tmp_path / "token"
    with a_prometheus(200, vector()) as (url, asked):
        reader = Reader(url, prometheus_token_file=token)
        for each in ("first\n", "second\n"):
            token.write_text(each)
            reader.go()
    assert [authorization for _, authorization in asked] == ["Bearer first", "Bearer second"]
    assert reader.api.writes == []


# ---- roll-outs


OLD_ONES = {"num_gpu_blocks": "3000"}
DONE = {"observedGeneration": 3, "replicas": 1, "updatedReplicas": 1}


def a_deployment(status: Json, *, replicas: int = 1, kv_cache: str = "auto") -> Json:
    """It declares what ``SMALL`` does, by flags."""
    flags = ["--gpu-memory-utilization=0.9", f"--kv-cache-dtype={kv_cache}"]
    body = a_vllm_deployment("small", tensor=1, gpus=1, replicas=replicas, model="meta-llama/Llama-3.1-8B-Instruct")
    body["spec"]["template"]["spec"]["containers"][0]["command"] += flags
    return {**body, "metadata": {**body["metadata"], "uid": "d", "resourceVersion": "1", "generation": 3}, "status": status}


def a_pod_of_it(**metadata: Any) -> Json:
    body = a_pod("small-abc-x", node="node-l4", ready=True)
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "small-abc", "uid": "r", "controller": True}
    labels = {"app": "small", "pod-template-hash": "abc"}
    return {**body, "metadata": {**body["metadata"], "labels": labels, "ownerReferences": [owner], **metadata}}


@pytest.mark.parametrize(
    ("status", "replicas", "is_compared"),
    [
        (DONE, 1, True),
        ({}, 1, False),
        ({**DONE, "observedGeneration": 2}, 1, False),
        ({**DONE, "updatedReplicas": 1}, 2, False),
        ({**DONE, "replicas": 2}, 1, False),
        ({"observedGeneration": 3, "replicas": 1}, 1, False),
    ],
)
def test_pods_of_a_deployment_are_compared_once_all_are_of_its_newest_form(status: Json, replicas: int, is_compared: bool) -> None:
    reader = Reader(None)
    put(reader.book, a_pod_of_it())
    reader.judge.workloads.put(a_deployment(status, replicas=replicas))
    found, left_out = reader.subject.compare([an_engine("small-abc-x", **OLD_ONES)])
    assert (len(found), left_out) == ((1, []) if is_compared else (0, ["a roll-out of its Deployment is under way"]))


def test_a_pod_on_its_way_out_is_not_compared() -> None:
    reader = Reader(None)
    put(reader.book, a_pod_of_it(deletionTimestamp="2026-12-01T12:00:00Z"))
    reader.judge.workloads.put(a_deployment(DONE))
    assert reader.subject.compare([an_engine("small-abc-x")])[1] == ["no pod of its name is Ready with GPUs"]


def test_a_roll_out_to_another_cache_costs_no_right() -> None:
    """Old pods run beside the new declaration; they would be 50 % off, and more where the new one does not fit."""
    with a_prometheus(200, vector(an_engine("small-abc-x", num_gpu_blocks="2157"))) as (url, _):
        reader = Reader(url)
        put(reader.book, a_pod_of_it())
        reader.judge.workloads.put(a_deployment({**DONE, "observedGeneration": 2}, kv_cache="fp8"))
        reader.go()
        assert reader.api.writes == []
        reader.judge.workloads.put(a_deployment(DONE, kv_cache="fp8"))  # and where the status says too early that it is done
        reader.go()
        assert reader.api.writes == []
        reader.judge.workloads.put(a_deployment(DONE))
        reader.go()
    assert [each["status"]["accuracy"][0]["mayRefuse"] for each in reader.api.writes] == [True]


def test_a_declaration_is_compared_again_half_an_hour_after_it_was_seen_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    reader = Reader(None)
    assert len(reader.subject.compare([an_engine()])[0]) == 1
    longer = {**SMALL, "engine": {**SMALL["engine"], "maxSequences": 32}}
    reader.declared = [standing(a_body(**longer))]
    (why,) = reader.subject.compare([an_engine()])[1]
    assert why == "what it declares changed less than 30 min ago, and its InferenceDeployment does not count what runs with it"
    clock[0] += 1799
    reader.declared = [standing(a_body(**longer, replicas=5))]  # no pod is replaced for that
    assert reader.subject.compare([an_engine()])[1] == [why]
    clock[0] += 1
    assert len(reader.subject.compare([an_engine()])[0]) == 1


def test_of_a_declaration_about_a_deployment_its_roll_out_counts() -> None:
    reader = Reader(None)
    put(reader.book, a_pod_of_it())
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "small"}
    about = {"apiVersion": "shardgate.io/v1alpha1", "kind": "InferenceDeployment", "spec": {"workloadRef": reference}}
    reader.declared = [standing({**about, "metadata": {"name": "about", "namespace": "serving"}})]
    reader.judge.workloads.put(a_deployment({**DONE, "updatedReplicas": 0}))
    assert reader.subject.compare([an_engine("small-abc-x")])[1] == ["a roll-out of its Deployment is under way"]
    reader.judge.workloads.put(a_deployment(DONE))
    assert len(reader.subject.compare([an_engine("small-abc-x")])[0]) == 1


@pytest.mark.parametrize(
    ("body", "is_rolling"),
    [
        ({"kind": "StatefulSet", "spec": {"replicas": 2}, "status": {"replicas": 2, "updatedReplicas": 2}}, False),
        ({"kind": "LeaderWorkerSet", "spec": {"replicas": 2}, "status": {"replicas": 3, "updatedReplicas": 2}}, True),
        ({"kind": "Rollout", "spec": {}, "status": {"observedGeneration": "3", "updatedReplicas": 1}}, True),
        ({"kind": "Rollout", "spec": {}, "status": {"observedGeneration": "4", "updatedReplicas": 1}}, False),
        ({"kind": "Rollout", "spec": {}, "status": {"observedGeneration": "5f8c", "updatedReplicas": 1}}, False),
        ({"kind": "RayCluster", "spec": {}, "status": {"observedGeneration": 3}}, True),
        ({"kind": "RayCluster", "spec": {}, "status": {"observedGeneration": 4}}, None),
        ({"kind": "Workspace"}, None),
        ({"kind": "Deployment", "spec": {"replicas": 0}, "status": {"observedGeneration": 4}}, False),
        ({"kind": "Deployment", "spec": {"replicas": "x"}, "status": {"updatedReplicas": []}}, False),
    ],
)
def test_who_says_that_pods_are_replaced(body: Json, is_rolling: bool | None) -> None:
    assert is_rolling_out({**body, "metadata": {"generation": 4}}) is is_rolling


# ---- who reads


def test_a_silent_prometheus_dates_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(NOW)
    monkeypatch.setattr(module, "datetime", clock)
    with a_prometheus(200, vector(an_engine(num_gpu_blocks="3000"))) as (url, _):
        reader = Reader(url)
        reader.go()
    clock.at += datetime.timedelta(days=3)
    reader.go()
    ((entry,),) = [each["status"]["accuracy"] for each in reader.api.writes]
    assert entry["measuredAt"] == "2026-12-01T12:00:00Z"


def test_who_leads_no_more_forgets_what_it_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Led again, it writes nothing that it read before another one led."""
    monkeypatch.setattr(module, "FOLLOWING_SECONDS", 0.01)
    with a_prometheus(200, vector(an_engine(num_gpu_blocks="3000"))) as (url, asked):
        reader = Reader(url)

        async def until(is_so: Callable[[], bool]) -> None:
            async with asyncio.timeout(10):
                while not is_so():
                    await asyncio.sleep(0.01)

        async def live() -> None:
            task = asyncio.create_task(reader.subject.run())
            await until(lambda: reader.value("accuracy_reads_total", result="read") == 1)
            await reader.subject.upkeep()
            reader.lease.held = False
            await until(lambda: reader.subject._found is None)
            reader.ledger.put({"metadata": {"name": "shardgate", "resourceVersion": "7"}, "spec": {}})
            await reader.subject.upkeep()
            assert len(reader.api.writes) == 1
            reader.lease.held = True
            await until(lambda: reader.value("accuracy_reads_total", result="read") == 2)
            await reader.subject.upkeep()
            task.cancel()

        asyncio.run(live())
    assert len(asked) == 2, "a new leader reads at once, and then once a minute"
    assert [each["metadata"]["resourceVersion"] for each in reader.api.writes] == ["1", "7"]


def test_who_does_not_lead_sees_declarations_change_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FOLLOWING_SECONDS", 0.01)
    monkeypatch.setattr(module, "READ_SECONDS", 0.01)
    reader = Reader(None)
    reader.lease.held = False

    async def live() -> None:
        task = asyncio.create_task(reader.subject.run())
        await asyncio.sleep(0.1)
        reader.declared = [standing(a_body(**SMALL | FP8))]
        await asyncio.sleep(0.2)
        task.cancel()

    asyncio.run(live())
    assert reader.value("accuracy_reads_total", result="failed") == 0
    assert "less than 30 min ago" in reader.subject.compare([an_engine()])[1][0]


def test_turned_off_what_was_found_goes() -> None:
    with a_prometheus(200, vector(an_engine(num_gpu_blocks="3000"))) as (url, _):
        reader = Reader(url)
        reader.go()
    reader.subject._config = OperatorConfig()
    asyncio.run(reader.subject.upkeep())
    asyncio.run(reader.subject.upkeep())
    assert [each["status"]["accuracy"] is None for each in reader.api.writes] == [False, True]
    assert reader.book.inventory(0.0).distrusted == ()
    assert reader.value("prediction_error_ratio", engine_version="vllm 0.19", product="L4") is None


def test_it_is_off_unless_asked_for_and_needs_no_right_that_the_operator_lacks() -> None:
    assert read_config({}).prometheus_url is None
    assert read_config({"SHARDGATE_PROMETHEUS_URL": "", "SHARDGATE_PROMETHEUS_CA": ""}).prometheus_ca is None
    assert read_config({"SHARDGATE_PROMETHEUS_URL": "https://thanos.monitoring:9091/tenant"}).prometheus_url is not None
    for url in ("prometheus:9090", "file:///etc/passwd", "http://", "http://a?x=1", "http://a b"):
        with pytest.raises(ConfigError, match="SHARDGATE_PROMETHEUS_URL"):
            read_config({"SHARDGATE_PROMETHEUS_URL": url})
    (rule,) = [each for each in CLUSTER_RULES if "capacityledgers/status" in each["resources"]]
    assert "patch" in rule["verbs"]


def test_only_an_instant_vector_is_read() -> None:
    nameless = {"metric": {"namespace": "serving"}, "value": [1, "1"]}
    assert series_in({"status": "success", "data": {"resultType": "vector", "result": [nameless, 7, {}]}}) == []
    with pytest.raises(UnreadableAnswer, match="'error', bad"):
        series_in({"status": "error", "error": "bad"})


# ---- the command line


def test_a_snapshot_with_the_ledger_is_judged_as_admission_would(tmp_path: Path) -> None:
    manifest, cluster = tmp_path / "llama.json", tmp_path / "cluster.json"
    manifest.write_text(json.dumps(a_body(strategy={"tensor": 1, "pipeline": 1}, gpus={"perPod": 1})))
    ledger = {
        "apiVersion": "shardgate.io/v1alpha1", "kind": "CapacityLedger", "metadata": {"name": "shardgate"}, "spec": {},
        "status": {"accuracy": entries(lost(), {}, NOW)},
    }  # fmt: skip
    cluster.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [a_node().body]}))
    refused = run("verify", "-f", str(manifest), "--cluster", str(cluster), "-o", "json")
    assert refused.returncode == 1
    cluster.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [a_node().body, ledger]}))
    undecided = run("verify", "-f", str(manifest), "--cluster", str(cluster), "-o", "json")
    assert undecided.returncode == 2
    assert [each["code"] for each in json.loads(undecided.stdout)["findings"]] == ["MemoryNotModelled"]


def test_without_a_cluster_it_says_so() -> None:
    assert run("accuracy", KUBECONFIG="/nonexistent").returncode == 69
