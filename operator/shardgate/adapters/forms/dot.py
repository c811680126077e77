"""The graph of ranks in Graphviz' DOT: ranks as nodes, in clusters by node, pod and stage; typed edges with bytes per token."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from shardgate.adapters.forms.content import printable
from shardgate.adapters.forms.figures import UNKNOWN, amount, widths
from shardgate.adapters.forms.parts import Part, parts_of
from shardgate.adapters.forms.verdict_sections import outcome_of, subject_of

Json = Mapping[str, Any]

_EDGES = {
    "tensor": 'color="#3b6fb6", constraint=false',
    "pipeline": 'color="#1f2933", penwidth=1.6',
    "expert": 'color="#8a5a00", style=dashed, constraint=false',
}
_FILLS = ("#dbe7f7", "#dcefe2", "#f8e6d3", "#eadff3", "#f7dcdf", "#d8eeef", "#efeacb", "#e4e4e9")


def dot(reports: Sequence[Json]) -> str:
    """One directed multigraph a report and group, each a graph of its own: Graphviz reads several in one file."""
    return "\n".join("\n".join(_graph(report, part, at)) + "\n" for report in reports for at, part in enumerate(parts_of(report)))


def _graph(report: Json, part: Part, at: int) -> Iterator[str]:
    name = subject_of(report) + (f", {part.role}" if part.role else "")
    said = widths(part.strategy) if part.strategy else "strategy unknown"
    nodes, edges = part.graph.get("nodes"), part.graph.get("edges")
    key = "bytes per token on each edge; tensor blue, pipeline black, expert dashed"
    note = key if edges is not None else "edges unknown" if nodes is not None else "graph unknown"
    yield f"digraph {quoted(f'{name} {at}' if part.role else name)} {{"
    label = f"{name}: {said}, {outcome_of(report).text}\n{note}"
    yield f"  label={quoted(label)};"
    yield '  labelloc=t; rankdir=LR; fontname="sans-serif";'
    yield '  node [shape=box, style="rounded,filled", fontname="sans-serif"];'
    yield '  edge [fontname="sans-serif", fontsize=9];'
    yield from _clusters(part, nodes or ())
    for kind, style in _EDGES.items():
        for each in (edges or {}).get(kind) or ():
            size = each["bytesPerToken"]
            text = quoted(UNKNOWN if size is None else amount(size))
            # Two tensor edges run side by side: each label stands at its own tail.
            label = f"taillabel={text}, labeldistance=2.2" if kind == "tensor" else f"label={text}"
            yield f"  r{each['from']} -> r{each['to']} [{label}, {style}];"
    yield "}"


def _clusters(part: Part, nodes: Sequence[Json]) -> Iterator[str]:
    seats, layers = part.seats(), part.layers()
    # What has no place comes last; numbers and names do not compare with nothing.
    placed = sorted(
        nodes, key=lambda node: (node["node"] is None, node["node"] or "", node["pod"] or 0, node["data"], node["stage"])
    )
    for number_of, ((where, pod), members) in enumerate(groupby(placed, key=lambda node: (node["node"], node["pod"]))):
        title = "no place now" if where is None else f"{where or 'a node'}, pod {pod}"
        yield f"  subgraph cluster_{number_of} {{"
        yield f'    label={quoted(title)}; style=rounded; color="#7a828c";'
        for (data, stage), ranks in groupby(members, key=lambda node: (node["data"], node["stage"])):
            held = layers.get(stage)
            text = f"stage {stage}" + (f", layers {held[0]}-{held[1]}" if held else "")
            yield f"    subgraph cluster_{number_of}_{data}_{stage} {{"
            yield f'      label={quoted(text)}; style="rounded,dashed"; color="#9aa1aa";'
            for node in ranks:
                gpu = f"\nGPU {seats[node['rank']][1]}" if node["rank"] in seats else ""
                label = f"rank {node['rank']}\nTP {node['tensor']}" + (f", DP {data}" if data else "") + gpu
                yield f'      r{node["rank"]} [label={quoted(label)}, fillcolor="{_FILLS[stage % len(_FILLS)]}"];'
            yield "    }"
        yield "  }"


def quoted(text: str) -> str:
    """A double-quoted string of DOT; a line break becomes one of the label, other control characters a mark."""
    return '"' + printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
