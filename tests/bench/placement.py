"""What the inventory and placement take at 5,000 nodes and 150,000 pods, without an API server."""

import gc
import json
import os
import random
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from timing import milliseconds

from builders import GPU, a_declaration, a_node, a_pod
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.decisions import Facts, KeptDecision
from shardgate.adapters.frozen_values import packed
from shardgate.adapters.nodes import NodeObject
from shardgate.adapters.pod_templates import read_pod_template
from shardgate.adapters.pods import PodObject, read_pod
from shardgate.domain.declaration import LeaderWish
from shardgate.domain.placement import place
from shardgate.domain.policy import OWN_KIND
from shardgate.domain.situation import look_at
from shardgate.domain.used_facts import used_facts
from shardgate.domain.verify import verify
from shardgate.shells.decisions import Decisions

NODES, PODS, RUNS, EVENTS = 5_000, 150_000, 400, 20_000


def placement_rows() -> list[tuple[str, str]]:
    """Rows of the table."""
    before = _resident_mib()
    book = ClusterBook()
    nodes, pods = msgspec.json.Decoder(NodeObject, strict=False), msgspec.json.Decoder(PodObject, strict=False)
    for index in range(NODES):
        book.put_node(nodes.decode(_node(index)), 0.0)
    for index in range(PODS):
        record = read_pod(pods.decode(_pod(index, index % NODES)))
        assert record is not None
        book.put_pod(record)
    book.inventory(0.0)
    gc.collect()
    rows = [(f"memory held for {NODES} nodes and {PODS} pods", f"{_resident_mib() - before:.0f} MiB")]
    rows.append(("one pod event, decoded and applied: mean", _microseconds(_pod_events(book, pods))))
    rows.append(("one pod event, applied", _microseconds(_pod_events(book, None))))
    rows.append(("one node event, decoded and applied: mean", _microseconds(_node_events(book, nodes, changed=True))))
    rows.append(("one node event, applied", _microseconds(_node_events(book, nodes, changed=True, decoded=True))))
    rows.append(("one node heartbeat, decoded and applied: mean", _microseconds(_node_events(book, nodes, changed=False))))
    rows += [(f"verify() of {replicas} pods of 8 GPUs: p50 / p99", _verify(book, replicas)) for replicas in (1, 4, 16)]
    rows.append(("placing alone, 16 pods of 8 GPUs: p50 / p99", _place(book)))
    rows.append(("after each of 100 pod events, inventory and verify() of 16 pods: p50 / p99", _verify_under_change(book)))
    rows += _kept_decisions(book)
    mixed = _adversarial()
    rows.append(("the same where every node differs in labels, amounts and use: p50 / p99", _verify(mixed, 16)))
    rows.append(("there, 16 replicas of a leader and 7 workers that differ: p50 / p99", _verify_leaders(mixed)))
    rows.append(("there, 140 pods spread over zones and over hosts: p50 / p99", _verify_spread(mixed)))
    return rows


def _node(index: int) -> bytes:
    body = a_node(f"node-{index:05}").label("zone", f"z{index % 3}").body
    body["status"]["images"] = [{"names": [f"registry.example/{n}/image@sha256:{'0' * 64}"], "sizeBytes": 10**9} for n in range(50)]
    return json.dumps(body).encode()


def _pod(index: int, node: int, gpus: int | None = None) -> bytes:
    gpus = (1 if index < NODES * 6 and index // NODES < node % 8 else 0) if gpus is None else gpus
    body = a_pod(f"pod-{index:06}", node=f"node-{node:05}", gpus=gpus)
    body["metadata"]["labels"] = {"app": f"app-{index % 500}", "pod-template-hash": f"{index % 900:x}"}
    body["spec"]["containers"][0]["env"] = [{"name": f"VARIABLE_{n}", "value": "x" * 40} for n in range(38)]
    return json.dumps(body).encode()


def _pod_events(book: ClusterBook, decoder: Any) -> Iterable[Callable[[], object]]:
    plain = msgspec.json.Decoder(PodObject, strict=False)
    for index in range(EVENTS):
        raw = _pod(PODS + index % 100, (index * 7) % NODES, gpus=1)
        if decoder is None:
            record = read_pod(plain.decode(raw))
            assert record is not None
            yield lambda record=record: book.put_pod(record)
        else:
            yield lambda raw=raw: book.put_pod(read_pod(decoder.decode(raw)))


def _node_events(book: ClusterBook, decoder: Any, *, changed: bool, decoded: bool = False) -> Iterable[Callable[[], object]]:
    for index in range(EVENTS // 4):
        body = json.loads(_node((index * 7) % NODES))
        if changed:
            body["status"]["allocatable"][GPU] = str(8 - index % 2)
        raw = json.dumps(body).encode()
        if decoded:
            node = decoder.decode(raw)
            yield lambda node=node: book.put_node(node, 0.0)
        else:
            yield lambda raw=raw: book.put_node(decoder.decode(raw), 0.0)


def _microseconds(work: Iterable[Callable[[], object]]) -> str:
    """CPU time of this process, the mean over all events."""
    events = list(work)
    started = time.process_time()
    for event in events:
        event()
    return f"{(time.process_time() - started) / len(events) * 1e6:.1f} us CPU"


def _verify(book: ClusterBook, replicas: int) -> str:
    declaration = a_declaration(replicas=replicas)
    inventory = book.inventory(0.0)
    return milliseconds(lambda: verify(declaration, inventory, OWN_KIND), RUNS)


def _place(book: ClusterBook) -> str:
    situation = look_at(a_declaration(replicas=16), book.inventory(0.0), OWN_KIND)
    return milliseconds(lambda: place(situation.selected, situation.node_filter, situation.pod, {}, situation.left_out, {}), RUNS)


def _kept_decisions(book: ClusterBook) -> list[tuple[str, str]]:
    """One decision after each of 20 pod changes; what stood before is alive in the facts of those that are kept."""
    kept, declaration = Decisions(lambda: book.frozen_anew), a_declaration()
    plain = msgspec.json.Decoder(PodObject, strict=False)
    verdict = verify(declaration, book.inventory(0.0), OWN_KIND)
    gc.collect()
    before, taken = _resident_mib(), []
    for number in range(600):
        for change in range(20):
            record = read_pod(
                plain.decode(_pod(PODS + 1000 + (number * 20 + change) % 3000, (number * 20 + change) * 7 % NODES, gpus=0))
            )
            assert record is not None
            book.put_pod(record)
        inventory = book.inventory(0.0)
        started = time.perf_counter()
        kept.keep(
            KeptDecision(
                reference="3f9c", at=0.0, subject=declaration.subject, operation="CREATE", is_dry=False, user="", answer="allowed",
                said=(), outcome=verdict.outcome, findings=verdict.findings, disclosure=OWN_KIND.disclosure,
                facts=Facts.of(declaration, OWN_KIND, inventory),
            )
        )  # fmt: skip
        taken.append((time.perf_counter() - started) * 1000)
    gc.collect()
    more, (p50, p99) = _resident_mib() - before, (sorted(taken)[300], sorted(taken)[594])
    facts = Facts.of(declaration, OWN_KIND, book.inventory(0.0))
    started = time.perf_counter()
    document = packed((facts.declared, facts.policy, used_facts(facts.inventory, facts.declarations)))
    text = json.dumps(document, separators=(",", ":")).encode()
    seconds = time.perf_counter() - started
    return [
        (f"{len(kept)} decisions after 20 pod changes each: memory, and how many have their facts", f"{more:.0f} MiB, {kept.with_facts}"),
        ("keeping one: p50 / p99", f"{p50:.2f} / {p99:.2f} ms"),
        ("writing down the facts of one, when somebody asks", f"{seconds:.2f} s, {len(zlib.compress(text)) / 1024:.0f} KiB compressed"),
    ]  # fmt: skip


def _verify_under_change(book: ClusterBook) -> str:
    declaration = a_declaration(replicas=16)
    decoder = msgspec.json.Decoder(PodObject, strict=False)

    def work() -> None:
        record = read_pod(decoder.decode(_pod(PODS + 500, random.randrange(NODES), gpus=1)))  # any node
        assert record is not None
        book.put_pod(record)
        verify(declaration, book.inventory(0.0), OWN_KIND)

    return milliseconds(work, 100)


def _verify_leaders(book: ClusterBook) -> str:
    leader = LeaderWish(gpus=2, requests={"cpu": 30_000})
    declared = a_declaration(
        replicas=16, strategy={"tensor": 1, "pipeline": 30}, gpus={"perPod": 4}, placement={"requests": {"cpu": "12"}}
    )
    declared, inventory = replace(declared, gpus=replace(declared.gpus, leader=leader)), book.inventory(0.0)
    return milliseconds(lambda: verify(declared, inventory, OWN_KIND), runs=60)


def _verify_spread(book: ClusterBook) -> str:
    labels = {"app": "llama"}
    constraints = [
        {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": labels}}
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
    container = {"name": "main", "resources": {"limits": {GPU: "1"}}}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], "topologySpreadConstraints": constraints}}
    declared = a_declaration(
        model={"name": "meta-llama/Llama-3.2-1B-Instruct"}, strategy={"tensor": 1, "pipeline": 1}, gpus={"perPod": 1}, replicas=140
    )
    declared = replace(declared, placement=read_pod_template(template, "serving", "template").wish)
    inventory = book.inventory(0.0)
    return milliseconds(lambda: verify(declared, inventory, OWN_KIND), runs=60)


def _adversarial() -> ClusterBook:
    """No two nodes alike."""
    book, dice = ClusterBook(), random.Random(1)  # reproducible
    for index in range(NODES):
        builder = (
            a_node(f"node-{index:05}").label("example.com/rack", f"r{index}").label("topology.kubernetes.io/zone", f"z{index % 3}")
        )
        builder.body["status"]["allocatable"] |= {"cpu": str(dice.randint(8, 200)), "memory": f"{dice.randint(64, 2000)}Gi"}
        book.put_node(msgspec.convert(builder.body, NodeObject, strict=False), 0.0)
        record = read_pod(
            msgspec.convert(a_pod(f"p{index}", node=f"node-{index:05}", gpus=dice.randint(0, 8)), PodObject, strict=False)
        )
        assert record is not None
        book.put_pod(record)
    return book


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    for name, value in placement_rows():
        print(f"{name:<90} {value}")
