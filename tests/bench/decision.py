"""What one decision takes, without a cluster: memory and rules, and reading a large or a wrong config."""

import contextlib
from typing import Any

from timing import milliseconds

from builders import a_body, a_declaration, a_node, an_inventory
from shardgate.adapters.referred_workloads import read_declaration
from shardgate.domain.declaration import Declaration
from shardgate.domain.fitting import Weighed, fit_of
from shardgate.domain.inventory import Gpu
from shardgate.domain.policy import OWN_KIND
from shardgate.domain.verify import verify

RUNS = 2000
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
}  # fmt: skip


def decision_rows() -> list[tuple[str, str]]:
    """Rows of the table. One node stands for the cluster, so that placing takes next to nothing."""
    inventory = an_inventory(a_node())
    gpu = inventory.groups[0].shape.gpu
    rows = []
    for name, changes in (
        ("Llama 3 70B, TP2 x PP4", {}),
        ("DeepSeek-V3, TP8", {"model": {"name": "deepseek-ai/DeepSeek-V3", "weights": None}, "strategy": {"tensor": 8, "pipeline": 1}}),
    ):  # fmt: skip
        declaration = a_declaration(**changes)
        rows.append((f"memory and rules, {name}: p50 / p99", milliseconds(lambda asked=declaration: _memory(asked, gpu), RUNS)))
        rows.append(
            (f"verify(), {name}: p50 / p99", milliseconds(lambda asked=declaration: verify(asked, inventory, OWN_KIND), RUNS))
        )
    for name, config in (
        ("a config of 1 MB", {**CONFIG, **{f"field_{number}": "x" * 100 for number in range(10_000)}}),
        ("negative heads", {**CONFIG, "num_attention_heads": -1}),
        ("10^18 layers", {**CONFIG, "num_hidden_layers": 10**18}),
        ("NaN", {**CONFIG, "hidden_size": float("nan")}),
    ):
        body = a_body(model={"name": "acme/x", "config": config})
        rows.append((f"reading {name}: p50 / p99", milliseconds(lambda asked=body: _read(asked), 200)))
    return rows


def _memory(declaration: Declaration, gpu: Gpu) -> None:
    """What every rank holds, and whether one kind of GPU will do: the part of ``verify`` that no node bears on."""
    weighed = Weighed.of(declaration)
    assert weighed is not None
    fit_of(gpu, declaration, weighed)


def _read(body: dict[str, Any]) -> None:
    with contextlib.suppress(ExceptionGroup):
        read_declaration(body)


if __name__ == "__main__":
    for name, value in decision_rows():
        print(f"{name:<40} {value}")
