"""The words of ``shardgate whatif``."""

import pytest

from shardgate.adapters.change_words import ChangeError, changes_in
from shardgate.adapters.cluster_additions import Addition
from shardgate.adapters.cluster_changes import Change, Labelling, OnNodes, Tainting, Verb


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("drain a b", [OnNodes(verb=Verb.DRAIN, nodes=("a", "b"))]),
        ("cordon a remove b-*", [OnNodes(verb=Verb.CORDON, nodes=("a",)), OnNodes(verb=Verb.REMOVE, nodes=("b-*",))]),
        ("uncordon a", [OnNodes(verb=Verb.UNCORDON, nodes=("a",))]),
        ("add 2xH100-80GB-HBM3", [Addition(nodes=2, product="H100-80GB-HBM3", gpus=None)]),
        ("add Tesla-T4:4 2xL4:8", [Addition(nodes=1, product="Tesla-T4", gpus=4), Addition(nodes=2, product="L4", gpus=8)]),
        ("label a b x=1 y= z-", [Labelling(nodes=("a", "b"), labels={"x": "1", "y": "", "z": None})]),
        (
            "taint a team=x:NoSchedule gone- gone2:NoExecute- bare:NoExecute",
            [Tainting(nodes=("a",), taints=(("team", "x", "NoSchedule"), ("bare", "", "NoExecute")), removed=(("gone", ""), ("gone2", "NoExecute")))],
        ),
    ],
)  # fmt: skip
def test_what_they_mean(words: str, changes: list[Change]) -> None:
    assert changes_in(words.split()) == changes


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "begin with what is done"), ("node-a", "node-a: begin with what is done"), ("drain", "drain what?"),
        ("drain a cordon", "cordon what?"), ("add", "add what?"), ("add 0xL4", "add 0xL4: 0 nodes"), ("add 2xL4:0", "0 GPUs"),
        ("add 2xL4:", "write"), ("add x", None), ("add 99999xL4", "99999 nodes"), ("add L4:8@79Gi", "write"), ("label a", "label: write"),
        ("label x=1", "label: write"), ("label a =1", "label: write"), ("taint a", "taint: write"), ("taint a x=1:Sometimes", "EFFECT"),
        ("taint a x=1", "EFFECT"), ("taint x:NoSchedule", "taint: write"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_said(words: str, says: str | None) -> None:
    if says is None:
        assert changes_in(words.split()) == [Addition(nodes=1, product="x", gpus=None)]
        return
    with pytest.raises(ChangeError, match=says.replace("?", r"\?")):
        changes_in(words.split())


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("100000xH100-80GB-HBM3", "100000 nodes; at least 1 and at most 10000"),
        ("2xT4:5000", "5000 GPUs of one node; at least 1 and at most"),
    ],
)
def test_a_number_that_is_too_large_is_named_as_such(word: str, says: str) -> None:
    with pytest.raises(ChangeError, match=says):
        changes_in(["add", word])
