"""What reading a workload of another kind takes, the hostile ones too."""

import time
from collections.abc import Callable
from typing import Any

from timing import milliseconds

from shardgate.adapters.workload_declarations import declare
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.registry import read_workload

RUNS = 300
SCRIPT = """
set -e
START_RANK=$(( ${LWS_WORKER_INDEX:-0} * DP_SIZE_LOCAL ))
if [ "$LWS_WORKER_INDEX" = "0" ]; then FLAG=""; else FLAG="--headless"; fi
exec vllm serve deepseek-ai/DeepSeek-R1 --port 8200 --tensor-parallel-size $TP_SIZE \\
  --data-parallel-size $((LWS_GROUP_SIZE * DP_SIZE_LOCAL)) --data-parallel-size-local $DP_SIZE_LOCAL \\
  --enable-expert-parallel --data-parallel-hybrid-lb --max-num-seqs ${MAX_TOKENS} $FLAG \\
  --kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_consumer"}'
"""
HOSTILE = {"nested expansions": "${a:-" * 200_000, "open quotes": "'" * 999_999, "words": "a " * 500_000, "commands": "a;" * 16_000}


def extraction_rows() -> list[tuple[str, str]]:
    """Rows of the table."""
    usual = _lws(SCRIPT)
    rows = [
        ("extract of a LeaderWorkerSet with a start-up script: p50 / p99", _cpu(lambda: read_workload(usual, Library()))),
        ("the same, and its declaration: p50 / p99", _cpu(lambda: _declared(usual))),
    ]
    for name, script in HOSTILE.items():
        body = _lws(script)
        size = f"{len(script) / 1000:.0f} kB"
        rows.append(
            (
                f"extract of a script of {size}, {name}: p50 / p99",
                _cpu(lambda body=body: read_workload(body, Library()), 40),
            )
        )
    return rows


def _declared(body: dict[str, Any]) -> object:
    workload = read_workload(body, Library())
    assert workload is not None
    return declare(workload)


def _lws(script: str) -> dict[str, Any]:
    environment = [
        {"name": name, "value": value} for name, value in (("TP_SIZE", "1"), ("DP_SIZE_LOCAL", "8"), ("MAX_TOKENS", "512"))
    ]
    container = {
        "name": "vllm", "image": "vllm/vllm-openai:v0.11.0", "command": ["/bin/bash", "-c"], "args": [script], "env": environment,
        "resources": {"limits": {"nvidia.com/gpu": "8"}},
    }  # fmt: skip
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "metadata": {"name": "x", "namespace": "serving"},
        "spec": {"replicas": 1, "leaderWorkerTemplate": {"size": 2, "workerTemplate": template}},
    }  # fmt: skip


def _cpu(work: Callable[[], object], runs: int = RUNS) -> str:
    return f"{milliseconds(work, runs, time.process_time)} CPU"
