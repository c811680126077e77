"""Argo CD's health scripts, run in a real Lua 5.1 (the language of Argo CD's own) on statuses that the product makes."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime, lua_type

from builders import T4, a_body, a_node, a_pod, an_inventory, standing
from shardgate.adapters.referred_workloads import read_declaration
from shardgate.adapters.status import status_of, unjudged
from shardgate.adapters.workload_verdict_objects import workload_verdict
from shardgate.api.crd import crds
from shardgate.domain.codes import finding
from shardgate.domain.inventory import Inventory
from shardgate.domain.policy import OWN_KIND
from shardgate.domain.verdict import Outcome, Verdict
from shardgate.domain.verify import verify

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
DATA = yaml.safe_load((ROOT / "deploy/argocd/argocd-cm.yaml").read_text())["data"]
KEY = "resource.customizations.health.shardgate.io_"
NOW = "2026-12-01T00:00:00Z"


def health(body: Json) -> tuple[str, str]:
    """As Argo CD asks: the object as the global ``obj``; without libraries that reach outside."""
    lua = LuaRuntime(unpack_returned_tuples=True, register_eval=False, register_builtins=False)
    lua.execute("os, io, require, package, dofile, loadfile, python = nil, nil, nil, nil, nil, nil, nil")
    lua.globals().obj = lua.table_from(json.loads(json.dumps(body)), recursive=True)
    answer = lua.execute(DATA[KEY + body["kind"]])
    assert lua_type(answer) == "table"
    assert isinstance(answer["status"], str)
    assert isinstance(answer["message"], str)
    return answer["status"], answer["message"]


def judged(inventory: Inventory, *, is_contested: bool = False, **changes: Any) -> tuple[Json, Verdict]:
    body = standing(a_body(**changes))
    declaration = read_declaration(body)
    verdict = verify(declaration, inventory, OWN_KIND)
    claimed = ("False", "NotNeeded", "nothing is promised")
    return {**body, "status": status_of(body, declaration, verdict, OWN_KIND, claimed, NOW, is_contested=is_contested)}, verdict


SOUND = an_inventory(a_node())
BUSY = an_inventory(a_node(), a_pod("other", node="node-a", gpus=8))
SMALL = an_inventory(a_node(gpus=1, labels=T4))
UNKNOWN_GPU = an_inventory(a_node(labels={}))


@pytest.mark.parametrize(
    ("inventory", "outcome", "status"),
    [
        (SOUND, Outcome.SOUND, "Healthy"), (BUSY, Outcome.WAITING, "Progressing"), (SMALL, Outcome.UNSOUND, "Degraded"),
        (UNKNOWN_GPU, Outcome.UNDECIDED, "Healthy"),
    ],
)  # fmt: skip
def test_health_of_a_declaration(inventory: Inventory, outcome: Outcome, status: str) -> None:
    body, verdict = judged(inventory)
    assert verdict.outcome is outcome
    found, message = health(body)
    assert found == status
    assert message.startswith(f"{outcome.label}: TP2 x PP4 x DP1")


def test_health_where_nothing_was_judged_yet() -> None:
    body, _ = judged(SOUND)
    assert health({**body, "status": {}}) == ("Progressing", "not judged yet at this generation")
    assert health({key: each for key, each in body.items() if key != "status"})[0] == "Progressing"
    newer = {**body, "metadata": {**body["metadata"], "generation": 2}}
    assert health(newer) == ("Progressing", "not judged yet at this generation")
    going = {**body, "metadata": {**body["metadata"], "deletionTimestamp": NOW}}
    assert health(going) == ("Progressing", "it is being deleted")


def test_health_of_what_cannot_be_read_and_of_what_others_undo() -> None:
    body, _ = judged(SOUND, is_contested=True)
    status, message = health(body)
    assert (status, "something else undoes" in message) == ("Healthy", True)
    found = finding("DeclarationOpaque", where="spec", outcome=Outcome.UNDECIDED, message="cannot be read: x")
    status, message = health({**body, "status": unjudged(body, found, NOW)})
    assert (status, "cannot be read: x" in message) == ("Healthy", True)


@pytest.mark.parametrize(("inventory", "status"), [(SOUND, "Healthy"), (BUSY, "Progressing"), (SMALL, "Degraded")])
def test_health_of_a_verdict_beside_a_workload(inventory: Inventory, status: str) -> None:
    body, verdict = judged(inventory)
    before = {"outcome": "Sound", "since": NOW}
    found, message = health(workload_verdict(body, verdict, before, NOW))
    assert found == status
    assert message.startswith(f"{verdict.outcome.label}: ")
    assert message.endswith("(was Sound)") is (verdict.outcome is not Outcome.SOUND)


def test_the_scripts_are_for_kinds_that_exist() -> None:
    kinds = {each["spec"]["names"]["kind"] for each in crds().values()}
    assert {key.removeprefix(KEY) for key in DATA} <= kinds
    assert all(key.startswith(KEY) for key in DATA)
