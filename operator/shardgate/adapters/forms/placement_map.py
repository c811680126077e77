"""Where the ranks sit, as a drawing: nodes, their GPUs, ranks, stages, links. Geometry only; a template makes the SVG of it.

Units are those of the SVG's viewBox, close to pixels at full width.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

from rich.cells import cell_len

from shardgate.adapters.forms.figures import span
from shardgate.adapters.forms.parts import Part
from shardgate.domain.units import count, gib

Json = Mapping[str, Any]

WIDE, NARROW = 960.0, 420.0
"""The two widths that a map is laid out for: a desk or a sheet of paper, and a telephone."""
MOST_GPUS, MOST_NODES = 64, 16
"""That are drawn; what is beyond is counted in words."""
STAGE_HUES = 8
_MOST_FOUND = 16

_TILE_WIDTH, _TILE_HEIGHT, _TILE_GAP = 64.0, 50.0, 14.0
_GROUP_PAD, _GROUP_GAP, _LINE = 10.0, 34.0, 15.0
_ROW_GAP = 30.0
_NODE_PAD, _NODE_HEAD, _NODE_GAP = 24.0, 38.0, 26.0
_LETTER = 7.8
"""Width of a letter of the labels, by the widest of common fonts."""


@dataclass(slots=True)
class Box:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.height


@dataclass(slots=True)
class Tile(Box):
    """A GPU, or a rank that has none."""

    title: str = ""
    text: str = ""


@dataclass(slots=True)
class Group(Box):
    """The ranks of a stage that sit together on a node. ``hue``: of its stage, ``None`` for what has no stage."""

    labels: tuple[str, ...] = ()
    tiles: list[Tile] = field(default_factory=list)
    ties: list[tuple[float, float, float, float]] = field(default_factory=list)
    hue: int | None = None
    key: tuple[int, int, int] = (0, 0, 0)
    """Replica, data replica, stage."""


@dataclass(slots=True)
class NodeBox(Box):
    """A node with the groups on it; not ``is_real`` where it stands for what has no place."""

    name: str = ""
    label: str = ""
    groups: list[Group] = field(default_factory=list)
    is_real: bool = True


@dataclass(frozen=True, slots=True)
class Link:
    """Between two groups: ``pipeline``, or ``tensor`` where one stage's ranks are on several nodes."""

    kind: str
    path: str


@dataclass(slots=True)
class PlacementMap:
    """A drawing, with the words that say the same."""

    width: float
    height: float
    nodes: list[NodeBox]
    links: list[Link]
    title: str
    description: str
    remark: str
    """What is not drawn; empty where all is."""


@dataclass(frozen=True, slots=True)
class _Seated:
    """The ranks of a group that are on one node, before they are laid out."""

    node: str | None
    key: tuple[int, int, int]
    ranks: tuple[int, ...]
    gpus: tuple[int, ...] | None


def placement_map(report: Json, part: Part, width: float) -> PlacementMap | None:
    """The map of one group; ``None`` where neither its ranks nor a place are known."""
    groups = part.tensor_groups()
    if not groups:
        return None
    seated = list(_seated(part))
    drawn, nodes_left, gpus_left = _bounded(seated)
    boxes = _boxes(part, drawn, width)
    total = part.declared.get("gpusTotal") or sum(len(group.ranks) for group in groups)
    if seated:
        placed = sum(len(each.ranks) for each in seated)
        nodes = len({each.node for each in seated})
        title = f"{placed:,} of {count(total, 'GPU')} placed on {count(nodes, 'node')}"
        if total == placed:
            title = f"{count(placed, 'rank')} on the GPUs of {count(nodes, 'node')}"
    else:
        title = f"{count(total, 'rank')} without a place"
        boxes += _found_boxes(report, width)
    height = _flow(boxes, width)
    used = max(box.right for box in boxes)
    remark = ""
    if nodes_left or gpus_left:
        remark = (
            f"Not drawn: {count(gpus_left, 'more GPU')}" + (f" on {count(nodes_left, 'more node')}" if nodes_left else "") + "."
        )
    return PlacementMap(
        width=round(used, 1), height=round(height, 1), nodes=boxes, links=list(_links(boxes)), title=title,
        description=_description(boxes, remark), remark=remark,
    )  # fmt: skip


def _seated(part: Part) -> Iterator[_Seated]:
    """Each stage's ranks, node by node, in the order of replicas and ranks; without places where there are none."""
    of_rank = {rank: (group.data, group.stage) for group in part.tensor_groups() for rank in group.ranks}
    for pod in sorted(part.pods, key=lambda pod: (pod["replica"], min(pod["ranks"], default=0))):
        pairs = sorted(zip(pod["ranks"], pod["localGpus"], strict=False), key=lambda pair: (of_rank.get(pair[0], (0, 0)), pair[0]))
        for place, members in groupby(pairs, key=lambda pair: of_rank.get(pair[0])):
            ranks, gpus = zip(*members, strict=True)
            yield _Seated(pod["node"], (pod["replica"], *(place or (0, 0))), ranks, gpus)


def _bounded(seated: Sequence[_Seated]) -> tuple[list[_Seated], int, int]:
    """What is drawn; how many nodes and GPUs are not."""
    drawn: list[_Seated] = []
    nodes: set[str | None] = set()
    gpus = 0
    for each in seated:
        if gpus + len(each.ranks) > MOST_GPUS or len(nodes | {each.node}) > MOST_NODES:
            break
        drawn.append(each)
        nodes.add(each.node)
        gpus += len(each.ranks)
    all_nodes = {each.node for each in seated}
    return drawn, len(all_nodes - nodes), sum(len(each.ranks) for each in seated) - gpus


def _boxes(part: Part, drawn: Sequence[_Seated], width: float) -> list[NodeBox]:
    boxes: dict[str | None, NodeBox] = {}
    if not drawn:
        groups = [_Seated(None, (0, group.data, group.stage), group.ranks, None) for group in part.tensor_groups()]
        drawn, _, left = _bounded(groups)
        more = f", {left:,} not drawn" if left else ""
        waiting = sum(len(each.ranks) for each in groups)
        boxes[None] = NodeBox(0, 0, 0, 0, label=f"No place now: {count(waiting, 'rank')} of one replica{more}", is_real=False)
    layers = part.layers()
    many_data = len({group.data for group in part.tensor_groups()}) > 1
    many_replicas = (part.declared.get("replicas") or 1) > 1
    has_stages = bool(part.graph.get("nodes")) or bool(part.strategy)
    for each in drawn:
        box = boxes.setdefault(each.node, NodeBox(0, 0, 0, 0, name=each.node or "", label=each.node or "a node"))
        replica, data, stage = each.key
        held = layers.get(stage)
        names = [f"stage {stage}", "layers unknown" if held is None else f"layers {held[0]}-{held[1]}"]
        if many_replicas or many_data:
            names.append(", ".join(([f"replica {replica}"] if many_replicas else []) + ([f"data {data}"] if many_data else [])))
        box.groups.append(_group(each, tuple(names), width, stage % STAGE_HUES if has_stages else None))
    for box in boxes.values():
        _fill(box, width)
    return list(boxes.values())


def _group(each: _Seated, labels: tuple[str, ...], width: float, hue: int | None) -> Group:
    """Its tiles in rows, at the origin."""
    room = width - 2 * _NODE_PAD - 2 * _GROUP_PAD
    across = max(1, min(len(each.ranks), 8, int((room + _TILE_GAP) // (_TILE_WIDTH + _TILE_GAP))))
    head = _LINE * len(labels) + 8
    tiles, ties = [], []
    for at, rank in enumerate(each.ranks):
        x = _GROUP_PAD + at % across * (_TILE_WIDTH + _TILE_GAP)
        y = head + at // across * (_TILE_HEIGHT + _TILE_GAP)
        text = "no GPU" if each.gpus is None else f"GPU {each.gpus[at]}"
        tiles.append(Tile(x, y, _TILE_WIDTH, _TILE_HEIGHT, title=f"rank {rank}", text=text))
        if at % across:
            ties.append((x - _TILE_GAP, y + _TILE_HEIGHT / 2, x, y + _TILE_HEIGHT / 2))
        elif at:
            ties.append((x + _TILE_WIDTH / 2, y - _TILE_GAP, x + _TILE_WIDTH / 2, y))
    rows = -(-len(each.ranks) // across)
    labelled = max(len(label) for label in labels) * _LETTER
    wide = max(across * (_TILE_WIDTH + _TILE_GAP) - _TILE_GAP, labelled) + 2 * _GROUP_PAD
    high = head + rows * (_TILE_HEIGHT + _TILE_GAP) - _TILE_GAP + _GROUP_PAD
    return Group(0, 0, wide, high, labels=labels, tiles=tiles, ties=ties, hue=hue, key=each.key)


def _fill(box: NodeBox, width: float) -> None:
    """Lay a node's groups out in rows, relative to the node, and size it."""
    x, y, high, right = _NODE_PAD, _NODE_HEAD, 0.0, 0.0
    for group in box.groups:
        if x > _NODE_PAD and x + group.width + _NODE_PAD > width:
            x, y, high = _NODE_PAD, y + high + _ROW_GAP, 0.0
        _move(group, x, y)
        x, high, right = x + group.width + _GROUP_GAP, max(high, group.height), max(right, x + group.width)
    named = 2 * _NODE_PAD + cell_len(box.label) * _LETTER
    box.width, box.height = max(right + _NODE_PAD, min(named, width)), y + high + _NODE_PAD
    box.label = _cut(box.label, box.width - 2 * _NODE_PAD + 8)


def _found_boxes(report: Json, width: float) -> list[NodeBox]:
    """The GPUs that are here, where nothing could be placed on them."""
    boxes = []
    for each in (report["hardware"] or {}).get("products") or ():
        size = "memory unknown" if each["memoryBytes"] is None else gib(each["memoryBytes"])
        shown = min(each["gpus"], _MOST_FOUND)
        left = f", {each['gpus'] - shown:,} not drawn" if each["gpus"] > shown else ""
        box = NodeBox(0, 0, 0, 0, name=each["product"], label=f"Found: {each['gpus']:,} x {each['product']}, {size}{left}")
        seat = _Seated(None, (-1, 0, 0), tuple(range(shown)), tuple(range(shown)))
        if shown:
            group = _group(seat, (count(each["gpus"], "GPU") + f" on {count(each['nodes'], 'node')}",), width, None)
            group.ties = []
            for tile in group.tiles:
                tile.title, tile.text = "GPU", size if len(size) < 10 else ""  # noqa: PLR2004  # what fits a tile
            box.groups.append(group)
        _fill(box, width)
        boxes.append(box)
        if len(boxes) == 3:  # noqa: PLR2004  # the table has all of them
            break
    return boxes


def _flow(boxes: Sequence[NodeBox], width: float) -> float:
    """Place the nodes in rows; returns how high it all is."""
    x = y = high = 0.0
    for box in boxes:
        if x and x + box.width > width:
            x, y, high = 0.0, y + high + _NODE_GAP, 0.0
        box.x, box.y = x, y
        for group in box.groups:
            _move(group, group.x + x, group.y + y)
        x, high = x + box.width + _NODE_GAP, max(high, box.height)
    return y + high


def _move(group: Group, x: float, y: float) -> None:
    """To a place, with what is in it."""
    by_x, by_y = x - group.x, y - group.y
    group.x, group.y = x, y
    for tile in group.tiles:
        tile.x, tile.y = tile.x + by_x, tile.y + by_y
    group.ties = [(a + by_x, b + by_y, c + by_x, d + by_y) for a, b, c, d in group.ties]


def _links(boxes: Iterable[NodeBox]) -> Iterator[Link]:
    segments: dict[tuple[int, int, int], list[Group]] = {}
    for box in boxes:
        for group in box.groups:
            if group.key[0] >= 0:
                segments.setdefault(group.key, []).append(group)
    for at, ((replica, data, stage), groups) in enumerate(segments.items()):
        for one, other in pairwise(groups):
            yield Link("tensor", _path(one, other, at))
        following = segments.get((replica, data, stage + 1))
        if following:
            yield Link("pipeline", _path(groups[-1], following[0], at))


def _path(one: Group, other: Group, at: int) -> str:
    """Straight to what is beside it; else out below, along the channel left of the other, and in from the left."""
    middle, entry = one.y + min(one.height, other.height) / 2, other.y + other.height / 2
    if one.y == other.y and one.right < other.x:
        return f"M{one.right + 3:.1f} {middle:.1f}H{other.x - 5:.1f}"
    below, channel = one.bottom + 9 + 5 * (at % 3), other.x - 13
    return f"M{one.x + one.width / 2:.1f} {one.bottom + 2:.1f}V{below:.1f}H{channel:.1f}V{entry:.1f}H{other.x - 5:.1f}"


def _cut(text: str, room: float) -> str:
    """As much of it as there is room for; wide letters count twice."""
    letters = int(room / _LETTER)
    if cell_len(text) <= letters:
        return text
    kept = ""
    for each in text:
        if cell_len(kept + each) > letters - 1:
            break
        kept += each
    return f"{kept}…"


_MOST_WORDS = 16


def _description(boxes: Sequence[NodeBox], remark: str) -> str:
    """The same in words, for who does not see it."""
    said = []
    for box in boxes[:_MOST_WORDS]:
        groups = "; ".join(
            f"{', '.join(group.labels)}: ranks {span([int(tile.title.removeprefix('rank ')) for tile in group.tiles])}"
            for group in box.groups[:_MOST_WORDS]
            if group.key[0] >= 0
        )
        said.append(f"{box.label}: {groups}" if groups else box.label)
    return ". ".join([*said, remark] if remark else said)
