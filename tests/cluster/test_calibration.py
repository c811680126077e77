"""Predictions against engines that a real Prometheus scrapes: what the operator finds, writes, and refuses no more."""

import http.server
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live import create_node, until, wait_for_outcome

from builders import a_body, a_node, a_pod
from command_line import run
from conftest import register
from controlplane.installation import Installation
from controlplane.plane import ControlPlane
from controlplane.prometheus import Prometheus
from controlplane.tools import find_tool

Json = dict[str, Any]
L4 = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "23034"}
SMALL: Json = {
    "model": {"name": "meta-llama/Llama-3.1-8B-Instruct", "weights": "bf16"}, "strategy": {"tensor": 1, "pipeline": 1},
    "gpus": {"perPod": 1}, "engine": {"version": "0.19.0", "memoryUtilization": 0.9, "maxModelLen": 8192},
}  # fmt: skip
LARGE: Json = {**SMALL, "model": {"name": "meta-llama/Meta-Llama-3-70B-Instruct", "weights": "fp16"}}


class Engine:
    """Serves what a vLLM engine says of its KV cache, as text: no GPU is here to run one on."""

    def __init__(self) -> None:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = outer.exposition().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None: ...

        self.blocks = 0
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def exposition(self) -> str:
        labels = {
            "block_size": "16", "cache_dtype": "auto", "engine": "0", "gpu_memory_utilization": "0.9", "kv_cache_memory_bytes": "None",
            "num_gpu_blocks": str(self.blocks), "num_gpu_blocks_override": "None", "enable_prefix_caching": "True",
        }  # fmt: skip
        text = ",".join(f'{name}="{value}"' for name, value in labels.items())
        return (
            "# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig\n# TYPE vllm:cache_config_info gauge\n"
            f"vllm:cache_config_info{{{text}}} 1.0\n"
        )

    def job(self, namespace: str, pod: str) -> Json:
        """As Kubernetes service discovery labels a target."""
        target = {"targets": [f"127.0.0.1:{self.server.server_port}"], "labels": {"namespace": namespace, "pod": pod}}
        return {"job_name": "vllm", "static_configs": [target]}


@pytest.fixture
def engine() -> Iterator[Engine]:
    found = Engine()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def prometheus(clean: ControlPlane, engine: Engine) -> Iterator[Prometheus]:
    program = find_tool("prometheus", lambda text: print(text, file=sys.stderr))
    found = Prometheus(program, clean, [], {"groups": []}, more_jobs=[engine.job("serving", "llama-0")])
    found.start()
    yield found
    found.stop()


@pytest.fixture
def operator(clean: ControlPlane, prometheus: Prometheus) -> Iterator[Installation]:
    url = f"http://127.0.0.1:{prometheus.port}"
    installation = Installation(clean, more_environment={"SHARDGATE_PROMETHEUS_URL": url})
    installation.connect()
    yield installation
    installation.stop()


def accuracy(plane: ControlPlane) -> list[Json]:
    ended = run("accuracy", "-o", "json", KUBECONFIG=str(plane.kubeconfig))
    found: list[Json] = json.loads(ended.stdout)["accuracy"] if ended.returncode == 0 else []
    return found


def test_engines_that_hold_other_than_predicted_cost_the_right_to_refuse(
    clean: ControlPlane, engine: Engine, prometheus: Prometheus, operator: Installation, tmp_path: Path
) -> None:
    engine.blocks = 1000
    create_node(clean, a_node("node-l4", labels=L4).body)
    clean.apply(a_body(**SMALL))
    pod = a_pod("llama-0", node="node-l4", declaration="llama", ready=True)
    clean.apply(pod)
    clean.kubectl(
        "patch", "pod", "llama-0", "-n", "serving", "--subresource=status", "--type=merge", "-p", json.dumps({"status": pod["status"]})
    )  # fmt: skip
    until("it is scraped", lambda: prometheus.value("vllm:cache_config_info") == 1, timeout=30)
    operator.start()
    register(operator)
    wait_for_outcome(clean, "llama", "serving", "Sound")
    until("engines are compared", lambda: bool(accuracy(clean)), timeout=60)
    (found,) = accuracy(clean)
    assert (found["engineVersion"], found["product"], found["engines"], found["measuredTokens"]) == ("vllm 0.19", "L4", 1, 16_000)
    assert found["mayRefuse"] is False
    assert found["p90Error"] == pytest.approx(abs(found["predictedTokens"] - 16_000) / 16_000, abs=1e-3)
    series = 'shardgate_prediction_error_ratio{engine_version="vllm 0.19",product="L4"}'
    assert operator.metric(series) == pytest.approx(found["p90Error"], abs=1e-3)
    assert operator.metric('shardgate_accuracy_reads_total{result="failed"}') == 0

    let_in = clean.apply(a_body("large", **LARGE), check=False)
    assert let_in.returncode == 0, let_in.stderr
    status = wait_for_outcome(clean, "large", "serving", "Undecided")
    (finding,) = status["findings"]
    assert finding["code"] == "MemoryNotModelled"
    assert f"{found['predictedTokens']} tokens of KV cache were predicted where 16000 are held" in finding["message"]
    manifest = tmp_path / "large.json"
    manifest.write_text(json.dumps(a_body("another", **LARGE)))
    ended = run("verify", "-f", str(manifest), "-o", "json", KUBECONFIG=str(clean.kubeconfig))
    assert (ended.returncode, [each["code"] for each in json.loads(ended.stdout)["findings"]]) == (2, ["MemoryNotModelled"])
    assert "refuses nothing" in run("accuracy", KUBECONFIG=str(clean.kubeconfig)).stdout


def test_engines_that_hold_what_was_predicted_change_nothing(
    clean: ControlPlane, engine: Engine, prometheus: Prometheus, operator: Installation
) -> None:
    engine.blocks = 2157
    create_node(clean, a_node("node-l4", labels=L4).body)
    clean.apply(a_body(**SMALL))
    pod = a_pod("llama-0", node="node-l4", declaration="llama", ready=True)
    clean.apply(pod)
    clean.kubectl(
        "patch", "pod", "llama-0", "-n", "serving", "--subresource=status", "--type=merge", "-p", json.dumps({"status": pod["status"]})
    )  # fmt: skip
    until("it is scraped", lambda: prometheus.value("vllm:cache_config_info") == 1, timeout=30)
    operator.start()
    register(operator)
    until("engines are compared", lambda: bool(accuracy(clean)), timeout=60)
    (found,) = accuracy(clean)
    assert (found["measuredTokens"], found["mayRefuse"]) == (34_512, True)
    refused = clean.apply(a_body("large", **LARGE), check=False)
    assert "WeightsDoNotFit" in refused.stderr
    until(
        "it has been read again", lambda: (operator.metric('shardgate_accuracy_reads_total{result="read"}') or 0) >= 2, timeout=90
    )
    time.sleep(2)
    assert accuracy(clean) == [found], "at rest nothing is written: it is dated as it was"
