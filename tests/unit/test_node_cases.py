"""Nodes of real clusters: what is told is read, and nothing is claimed that is not so."""

import json
from pathlib import Path
from typing import Any

import pytest

from shardgate.adapters.gpus import find_product
from shardgate.adapters.node_report import node_report
from shardgate.adapters.nodes import devices_of, node_from, slice_from

Json = dict[str, Any]

CASES: list[Json] = json.loads((Path(__file__).parents[1] / "data/node_cases.json").read_text())["cases"]
FIELDS = (
    "vendor", "product", "family", "memoryMib", "unitMemoryMib", "gpusPhysical", "gpusSchedulable", "sharing", "nvlink",
)  # fmt: skip


def read(case: Json) -> Json:
    node = {
        "metadata": {"name": case["id"], **{key: case["node"][key] for key in ("labels", "annotations") if key in case["node"]}},
        "spec": {key: case["node"][key] for key in ("taints", "unschedulable") if key in case["node"]},
        "status": {key: case[key] for key in ("capacity", "allocatable") if key in case},
    }
    slices = [
        slice_from({"metadata": {"name": str(number)}, "spec": {**spec, "nodeName": case["id"]}})
        for number, spec in enumerate(case.get("slices", ()))
    ]
    report = node_report(node_from(node), devices_of(slices))
    product = report["product"] and find_product(report["product"])
    return {**report, "product": product.gpu_id if product else report["product"], "nvlink": report["nvlink"]["value"]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_what_is_read_is_right_or_unknown(case: Json) -> None:
    found, expected = read(case), case["expected"]
    wrong = {
        field: (found[field], expected[field])
        for field in FIELDS
        if found[field] not in (None, "unknown") and expected[field] is not None and found[field] != expected[field]
    }
    assert not wrong, case["why"]


def test_what_is_told_is_read() -> None:
    told = [(case["id"], field, read(case)[field], case["expected"][field]) for case in CASES for field in case["told"]]
    missed = [each for each in told if each[2] != each[3]]
    assert len(told) > 250
    assert len(missed) <= 0.03 * len(told), missed
    assert all(found is None for _, _, found, _ in missed), missed


@pytest.mark.parametrize("case", [case for case in CASES if case["told"]], ids=lambda case: case["id"])
def test_every_fact_says_where_it_comes_from(case: Json) -> None:
    found = read(case)
    facts = [field for field in FIELDS if found[field] not in (None, "unknown")]
    assert set(facts) <= set(found["sources"])
