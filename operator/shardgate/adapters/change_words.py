"""The words of ``shardgate whatif`` -> changes: a verb, then what it is done to, until the next verb.

    drain NODE.. | cordon NODE.. | uncordon NODE.. | remove NODE..
    add [COUNTx]PRODUCT[:GPUS]..
    label NODE.. KEY=VALUE.. KEY-..
    taint NODE.. KEY[=VALUE]:EFFECT.. KEY[:EFFECT]-..

A NODE may be a shell pattern. The name of a node that is a verb is written as one: ``drai[n]``.
"""

import re
from collections.abc import Iterator, Sequence

from shardgate.adapters.cluster_additions import Addition
from shardgate.adapters.cluster_changes import Change, Labelling, OnNodes, Tainting, Verb

ADD, LABEL, TAINT = "add", "label", "taint"
VERBS = (*(each.value for each in Verb), ADD, LABEL, TAINT)
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
MOST_NODES = 10_000
MOST_GPUS = 1024
_ADDITION = re.compile(r"(?:(?P<nodes>[0-9]{1,9})x)?(?P<product>[^:@,]+?)(?::(?P<gpus>[0-9]{1,9}))?")


class ChangeError(Exception):
    """The words are not written as they should be."""


def changes_in(words: Sequence[str]) -> list[Change]:
    """In their order. Raises ``ChangeError``."""
    if not words or words[0] not in VERBS:
        problem = f"begin with what is done: {', '.join(VERBS)}"
        raise ChangeError(f"{words[0]}: {problem}" if words else problem)
    return [change for verb, objects in _sentences(words) for change in _read(verb, objects)]


def _sentences(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    verb, objects = words[0], list[str]()
    for word in words[1:]:
        if word in VERBS:
            yield verb, objects
            verb, objects = word, []
        else:
            objects.append(word)
    yield verb, objects


def _read(verb: str, objects: list[str]) -> Iterator[Change]:
    if not objects:
        problem = f"{verb} what? {'A product, as 2xH100-80GB-HBM3:8' if verb == ADD else 'Name nodes'}"
        raise ChangeError(problem)
    if verb == ADD:
        yield from (_addition(each) for each in objects)
    elif verb == LABEL:
        yield _labelling(objects)
    elif verb == TAINT:
        yield _tainting(objects)
    else:
        yield OnNodes(verb=Verb(verb), nodes=tuple(objects))


def _addition(word: str) -> Addition:
    found = _ADDITION.fullmatch(word)
    nodes, gpus = (int(found["nodes"] or 1), None if found["gpus"] is None else int(found["gpus"])) if found else (0, None)
    if found is not None and not 1 <= nodes <= MOST_NODES:
        problem = f"add {word}: {nodes} nodes; at least 1 and at most {MOST_NODES} can be added at once"
        raise ChangeError(problem)
    if found is not None and gpus is not None and not 1 <= gpus <= MOST_GPUS:
        problem = f"add {word}: {gpus} GPUs of one node; at least 1 and at most {MOST_GPUS} can be thought of"
        raise ChangeError(problem)
    if found is None:
        problem = f"add {word}: write COUNTxPRODUCT or COUNTxPRODUCT:GPUS, as 2xH100-80GB-HBM3:8 for two nodes of 8 GPUs each"
        raise ChangeError(problem)
    return Addition(nodes=nodes, product=found["product"], gpus=gpus)


def _labelling(words: list[str]) -> Labelling:
    labels: dict[str, str | None] = {}
    nodes: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            labels[key] = value
        elif word.endswith("-"):
            labels[word[:-1]] = None
        else:
            nodes.append(word)
    if not nodes or not labels or "" in labels:
        problem = "label: write nodes, then KEY=VALUE or KEY- for each label, as label gpu-1 pool=b old-"
        raise ChangeError(problem)
    return Labelling(nodes=tuple(nodes), labels=labels)


def _tainting(words: list[str]) -> Tainting:
    taints: list[tuple[str, str, str]] = []
    removed: list[tuple[str, str]] = []
    nodes: list[str] = []
    for word in words:
        told, colon, effect = word.removesuffix("-").partition(":")
        key, _, value = told.partition("=")
        if word.endswith("-") and key and (not colon or effect in EFFECTS):
            removed.append((key, effect))
        elif colon and key and effect in EFFECTS and not word.endswith("-"):
            taints.append((key, value, effect))
        elif colon or "=" in word or word.endswith("-"):
            problem = f"taint {word}: write KEY=VALUE:EFFECT or KEY:EFFECT, of {', '.join(EFFECTS)}, or KEY- to take one away"
            raise ChangeError(problem)
        else:
            nodes.append(word)
    if not nodes or not (taints or removed):
        problem = "taint: write nodes, then KEY=VALUE:EFFECT or KEY- for each taint, as taint gpu-1 team=a:NoSchedule"
        raise ChangeError(problem)
    return Tainting(nodes=tuple(nodes), taints=tuple(taints), removed=tuple(removed))
