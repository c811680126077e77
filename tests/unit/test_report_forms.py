"""Markdown, DOT and HTML of report documents of every kind, read back by parsers that are not ours."""

import copy
import json
import re
import warnings
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from report_samples import HOSTILE, MAKERS, figure, sample
from shardgate.adapters.forms.behaviour_sections import MEASURES, result
from shardgate.adapters.forms.content import Facts, Section, Table, Tone
from shardgate.adapters.forms.dot import dot, quoted
from shardgate.adapters.forms.drawing import FORMS, drawn
from shardgate.adapters.forms.figures import amount, measured, share, span, widths
from shardgate.adapters.forms.html import html
from shardgate.adapters.forms.markdown import escaped, inside, markdown
from shardgate.adapters.forms.parts import parts_of
from shardgate.adapters.forms.placement_map import MOST_GPUS, NARROW, WIDE, NodeBox, placement_map
from shardgate.adapters.forms.sections import content
from shardgate.adapters.report import strategy_json
from shardgate.domain.strategy import ParallelStrategy
from shardgate.domain.units import number

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # generated bindings of an older SWIG
    from pygraphviz import AGraph

Json = dict[str, Any]
READER = MarkdownIt("commonmark").enable("table").enable("strikethrough")

KEYS = (
    "summary", "hardware", "findings", "memory", "strategy", "performance", "modules", "communication", "graph", "balance", "risks",
    "recommendations", "alternatives", "score", "assumptions",
)  # fmt: skip


@pytest.fixture(scope="module", params=MAKERS)
def document(request: pytest.FixtureRequest) -> Json:
    return sample(request.param)


@pytest.fixture
def whole() -> Json:
    return sample("reference")


def sections(document: Json) -> dict[str, Section]:
    return {each.key: each for section in content(document).sections for each in section.walk()}


def said(section: Section) -> str:
    """All of its text."""
    return json.dumps([repr(block) for block in section.blocks], ensure_ascii=False)


def tokens(text: str) -> list[Token]:
    return [each for token in READER.parse(text) for each in (token, *(token.children or ()))]


def test_every_section_is_always_there(whole: Json) -> None:
    assert tuple(sections(whole)) == KEYS
    assert tuple(sections(sample("incompatible"))) == KEYS
    assert tuple(sections(sample("unknowns"))) == KEYS


def test_each_group_has_its_sections() -> None:
    found = sections(sample("groups"))
    assert [found[key].title for key in ("group-0", "group-1")] == ["Group prefill", "Group decode"]
    for at in (0, 1):
        assert {
            f"{key}-{at}" for key in ("memory", "strategy", "performance", "modules", "communication", "graph", "balance")
        } <= set(found)
    assert "TP4 x PP1 x DP1" in said(found["strategy-0"])
    assert "TP2 x PP1 x DP1" in said(found["strategy-1"])
    assert "65.7 GiB" in said(found["memory-1"])


def test_what_could_not_be_read_at_all_reads_well() -> None:
    text = markdown([sample("nothing-read")])
    assert "The declaration could not be judged, so these are unknown: hardware, memory" in text
    assert "DeclarationOpaque" in text
    assert "None" not in text


def test_the_reference_says_what_the_reference_report_says(whole: Json) -> None:
    text = markdown([whole])
    for line in (
        "TP group 0: GPUs [0,1] - stage 0 (layers 0-19)", "TP group 3: GPUs [6,7] - stage 3 (layers 60-79)",
        "8 nodes (ranks) and 14 edges: 8 tensor + 6 pipeline", "- **GPUs of one replica**: 2 x 4 x 1 = 8", "PROCEED_WITH_CONFIDENCE",
        "5 % at 57 micro-batches", "141.1 GB (131.4 GiB), as fp16",
    ):  # fmt: skip
        assert line in text


def test_the_incompatible_one_shows_both_numbers_and_no_clamped_deficit() -> None:
    document = sample("incompatible")
    found = sections(document)
    assert found["findings"].title == "Incompatibilities"
    assert "short by 7, 87.5 % of what is needed" in said(found["hardware"])
    assert re.search(r"8\.[89] times what is here \(7[79]\d % over\)", said(found["hardware"]))
    deficit = next(cell for label, cell in facts_of(found["memory"]) if label.startswith("Deficit"))
    assert (deficit.text.endswith("GiB"), deficit.tone) == (True, Tone.BAD)
    assert "there is no throughput and no latency to expect" in said(found["performance"])
    text = markdown([document])
    assert "1. **Do not deploy it as declared: it would not start here.**" in text
    for each in document["findings"]:
        assert each["code"] in text


def test_the_incompatible_one_says_what_hardware_it_needs_and_why_its_score_is_none() -> None:
    found = sections(sample("incompatible"))
    assert re.search(
        r"8 GPUs that each give the engine 1\d\.\d GiB or more, those here give 13\.\d GiB", said(found["recommendations"])
    )
    assert "not even one sequence fits" in said(found["score"])
    assert "A finding that is Unsound makes it 0" in said(found["score"])
    assert "scaled to 100" not in said(found["score"])
    assert "5 % at 57 micro-batches" in said(found["balance"])
    assert "640.0 KiB" in said(found["communication"])


def test_a_stage_and_a_rank_are_told_apart(whole: Json) -> None:
    """The reference report gives a rank what its whole stage holds."""
    found = dict(facts_of(sections(whole)["memory"]))
    assert found["Weights of a stage, over all of its ranks"].text == "35.3 GB in the mean"
    assert found["Weights of a rank, which is one GPU"].text == "17.1 to 18.2 GB (15.9 to 16.9 GiB)"


def test_an_alternative_says_the_same_rate_wherever_it_stands(whole: Json) -> None:
    """Its sentence is made beside the figures, its row from the document."""
    for each in whole["alternatives"]:
        assert f": {measured(each['requestsPerSecond'], number).text} requests/s against" in each["change"]


def test_the_link_is_named(whole: Json) -> None:
    assert "NVLink or its like, 450 GB/s in one direction" in said(sections(whole)["communication"])
    whole["communication"] |= {"link": None, "linkBytesPerSecond": None, "tensorBytesPerToken": 0}
    assert "none: a stage is one rank" in said(sections(whole)["communication"])


def facts_of(section: Section) -> list[tuple[str, Any]]:
    return [item for block in section.blocks if isinstance(block, Facts) for item in block.items]


@pytest.mark.parametrize("part", ["performance", "balance", "communication", "memory"])
def test_a_null_is_said_as_unknown_wherever_it_stands(whole: Json, part: str) -> None:
    """One figure at a time: the section then says unknown once more, and shows no 0 in its place."""
    key = {"memory": "memory", "performance": "performance", "balance": "balance", "communication": "communication"}[part]
    before = said(sections(whole)[key]).count("unknown")
    for name, value in whole[part].items():
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float | dict)
            or name in ("parameters", "concurrencyAtFullLength")
        ):
            continue
        document = copy.deepcopy(whole)
        document[part][name] = None
        assert said(sections(document)[key]).count("unknown") > before, name


@pytest.mark.parametrize(
    "path",
    [
        ("performance", "bound"), ("placement", "replicasThatFit"), ("placement", "feasible"), ("placement", "feasibleWhenIdle"),
        ("declared", "replicas"), ("declared", "gpusTotal"), ("declared", "gpusPerReplica"), ("declared", "podsPerReplica"),
        ("declared", "model"), ("declared", "engineVersion"), ("hardware", "gpusInstalled"), ("hardware", "gpusFree"),
        ("hardware", "memoryInstalledBytes"), ("hardware", "inventoryAgeSeconds"), ("hardware", "products", 0, "memoryBytes"),
        ("memory", "parameters"), ("risks", 0, "likelihood"), ("risks", 0, "mitigation"), ("alternatives", 0, "score"),
        ("alternatives", 0, "requestsPerSecond"), ("alternatives", 0, "gpus"), ("assumptions", 0, "value"),
        ("graph", "edges", "tensor", 0, "bytesPerToken"),
    ],
)  # fmt: skip
def test_a_null_of_any_kind_is_said_as_unknown(whole: Json, path: tuple[Any, ...]) -> None:
    before = markdown([whole]).count("unknown")
    part: Any = whole
    for key in path[:-1]:
        part = part[key]
    assert part[path[-1]] is not None
    part[path[-1]] = None
    assert markdown([whole]).count("unknown") > before
    assert "unknown" in " ".join(Page(html([whole])).text)


def test_every_null_at_once_is_drawn_by_every_form(whole: Json) -> None:
    document = copy.deepcopy(whole)
    for part in ("performance", "balance", "communication", "memory", "placement", "hardware"):
        document[part] = dict.fromkeys(document[part])
    document["graph"] = {"nodes": None, "edges": None}
    for part in ("risks", "alternatives", "scoreTerms"):
        document[part] = None
    for form in FORMS:
        text = drawn([document], form)
        assert "unknown" in text
        assert "None" not in re.sub(r"None in this report", "", text)


def test_what_an_objective_is_held_against(whole: Json) -> None:
    rate = next(each for each in MEASURES if each.key == "capacityRequestsPerSecond")
    first = next(each for each in MEASURES if each.key == "timeToFirstTokenMilliseconds")
    busy = next(each for each in MEASURES if each.key == "gpuUtilization")

    def shown(measure: Any, key: str, objective: float, value: Json | None) -> str:
        document = copy.deepcopy(whole)
        document["declared"]["objectives"][key] = objective
        document["performance"][measure.key] = value
        return result(parts_of(document)[0], measure).text

    assert shown(rate, "requestsPerSecond", 8, figure(9, 8.5, 10)) == "met, by 12.5 %"
    assert shown(rate, "requestsPerSecond", 8, figure(8.5, 7.5, 10)) == "met, by 6.2 %, but not over the whole range"
    assert shown(rate, "requestsPerSecond", 8, figure(6, 5, 7)) == "missed, by 25 %"
    assert shown(rate, "requestsPerSecond", 8, figure(7, 5, 9)) == "missed, by 12.5 %, within the range"
    assert shown(rate, "requestsPerSecond", 8, None) == "unknown"
    assert shown(first, "timeToFirstTokenMilliseconds", 1000, figure(500, 400, 700)) == "met, by 50 %"
    assert shown(first, "timeToFirstTokenMilliseconds", 1000, figure(1500, 900, 2000)) == "missed, by 50 %, within the range"
    assert shown(busy, "gpuUtilizationPercent", 70, figure(0.7, 0.7, 0.8)) == "met"


def test_objectives_that_the_report_does_not_have_are_unknown_not_absent(whole: Json) -> None:
    document = copy.deepcopy(whole)
    del document["declared"]["objectives"]
    rate = next(each for each in MEASURES if each.key == "capacityRequestsPerSecond")
    assert result(parts_of(document)[0], rate).text == "unknown"
    document["declared"]["objectives"] = {"requestsPerSecond": None}
    assert result(parts_of(document)[0], rate).text == ""


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (number(8.73), "8.73"), (number(56.4), "56.4"), (number(1318768), "1,318,768"), (number(0.0021), "0.0021"),
        (number(0), "0"), (share(0.0192), "1.9 %"), (share(0), "0 %"), (amount(16384), "16.0 KiB"), (amount(0), "0 B"),
        (amount(-5 * 2**30), "-5.0 GiB"), (span([0, 1]), "[0,1]"), (span([0, 1, 2, 3]), "[0-3]"), (span([0, 2, 4, 6]), "[0,2,4,6]"),
        (measured(figure(8.3, 7.4, 9.2), number, " req/s").text, "8.3 req/s (7.4 to 9.2 req/s)"),
        (measured(8.3, number).text, "8.3"), (measured(None, number).text, "unknown"), (measured({"value": None}, number).text, "unknown"),
    ],
)  # fmt: skip
def test_how_values_are_shown(shown: str, text: str) -> None:
    assert shown == text


# Markdown


def test_markdown_has_no_html_and_no_link(document: Json) -> None:
    found = tokens(markdown([document]))
    assert not [each for each in found if each.type.startswith(("html", "link", "image")) or each.type == "s_open"]
    assert [each for each in found if each.type == "heading_open"]


def test_tables_of_markdown_have_a_cell_for_each_column(document: Json) -> None:
    """As many cells were read as were written: no text of a cell ends it, and no line is lost from a table."""
    written = [
        block
        for section in content(document).sections
        for each in section.walk()
        for block in each.blocks
        if isinstance(block, Table)
    ]
    found = tokens(markdown([document]))
    cells = [each for each in found if each.type in ("th_open", "td_open")]
    assert len([each for each in found if each.type == "table_open"]) == len(written)
    assert len(cells) == sum(len(of.columns) * (len(of.rows) + 1) for of in written)


def test_headings_of_markdown_are_in_order(document: Json) -> None:
    levels = [int(each.tag[1]) for each in tokens(markdown([document])) if each.type == "heading_open"]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize(
    "text",
    [
        HOSTILE, "*a* _b_ **c** ~~d~~ `e`", "[a](b) ![c](d) [e]: f [g][h]", "# a", "- a", "+ a", "1. a", "2) a", "> a", "---", "===",
        "a | b", "&amp; &#60;", "<b>x</b>", "\\*", "a\\", "$x$", "[ ] a", "[0,1]", "-4.4 GiB", "16.9 GiB", "PROCEED_WITH_CONFIDENCE",
        "a\n\nb", "```", "    code", "_a_", "snake_case_", "中文 | 名", "a\u202eb\x1b[31m\x00", "a ##", "C#",
    ],
)  # fmt: skip
def test_escaped_text_is_read_as_it_is(text: str) -> None:
    plain = " ".join("".join(each if each.isprintable() or each.isspace() else "\ufffd" for each in text).split())
    table = f"| a | b |\n| - | - |\n| {inside(text)} | x |"
    for line, at in (
        (escaped(text), 0),
        (f"- {escaped(text)}", 0),
        (table, 2),
        (f"## {inside(text)}", 0),
        (f"- **a**: {inside(text)}", 0),
    ):
        found = [each for each in READER.parse(line) if each.type == "inline"][at]
        assert "".join(each.content for each in found.children or ()).removeprefix("a: ") == plain
        assert {each.type for each in found.children or ()} <= {"text", "text_special", "strong_open", "strong_close"}


@pytest.mark.parametrize("text", ["[0,1]", "-4.4 GiB", "16.9 GiB", "PROCEED_WITH_CONFIDENCE", "TP2 x PP4 (2 of 3)", "a: b"])
def test_what_needs_no_escape_gets_none(text: str) -> None:
    assert escaped(text) == text


def test_a_fence_is_longer_than_what_is_in_it(whole: Json) -> None:
    document = copy.deepcopy(whole)
    document["alternatives"][0]["patch"] = {"a": "```\n````\n# no heading"}
    (fence, *_) = [each for each in tokens(markdown([document])) if each.type == "fence"]
    assert "no heading" in fence.content
    assert fence.markup == "`````"


def test_several_reports_follow_each_other(whole: Json) -> None:
    text = markdown([whole, sample("incompatible")])
    assert text.count("\n# ") + text.startswith("# ") == 2
    assert "\n\n---\n\n" in text


# DOT


def graphs(text: str) -> list[AGraph]:
    """Each graph of a file, read by Graphviz."""
    return [AGraph(string=each) for each in re.split(r"(?m)^(?=digraph )", text) if each]


def test_dot_is_the_graph_of_the_report(document: Json) -> None:
    read = graphs(dot([document]))
    parts = parts_of(document)
    assert len(read) == len(parts)
    for of, part in zip(read, parts, strict=True):
        nodes, edges = part.graph.get("nodes") or (), part.graph.get("edges") or {}
        assert of.is_directed()
        assert not of.is_strict()  # several edges between two ranks stay several
        assert {str(node) for node in of.nodes()} == {f"r{node['rank']}" for node in nodes}
        wanted = sorted((f"r{each['from']}", f"r{each['to']}") for kind in edges.values() for each in kind or ())
        assert sorted((str(edge[0]), str(edge[1])) for edge in of.edges()) == wanted


def test_dot_of_the_reference(whole: Json) -> None:
    (of,) = graphs(dot([whole]))
    assert (len(of.nodes()), len(of.edges())) == (8, 14)
    (node,) = of.subgraphs()
    assert node.graph_attr["label"] == "h100-node-1, pod 0"
    assert [each.graph_attr["label"] for each in node.subgraphs()] == [
        "stage 0, layers 0-19", "stage 1, layers 20-39", "stage 2, layers 40-59", "stage 3, layers 60-79",
    ]  # fmt: skip
    assert [sorted(map(str, each.nodes())) for each in node.subgraphs()] == [["r0", "r1"], ["r2", "r3"], ["r4", "r5"], ["r6", "r7"]]
    assert of.get_edge("r0", "r2").attr["label"] == "16.0 KiB"
    assert of.get_edge("r0", "r1").attr["taillabel"] == "640.0 KiB"
    assert of.draw(format="svg", prog="dot").startswith(b"<?xml")


@pytest.mark.parametrize("text", [HOSTILE, 'a"b', "a\\", 'a\\"', "a\nb", "", "digraph {", "\\N \\G"])
def test_a_quoted_string_of_dot_is_one_name(text: str) -> None:
    of = AGraph(string=f"digraph {{ a [label={quoted(text)}]; b }}")
    assert sorted(map(str, of.nodes())) == ["a", "b"]


def test_dot_of_unknown_edges_says_so(whole: Json) -> None:
    assert 'label="unknown"' in dot([sample("unknowns")])
    assert "graph unknown" in dot([sample("nothing-read")])
    whole["graph"]["edges"] = None
    assert "edges unknown" in dot([whole])


# HTML


class Page(HTMLParser):
    """What a page is made of."""

    VOID = frozenset(("meta", "br", "hr", "img", "input", "link"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html_is_well_formed_and_fetches_and_runs_nothing(document: Json) -> None:
    page = Page(html([document]))
    assert page.open == []
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "form", "b"}
    for _, attributes in page.tags:
        assert not [key for key in attributes if key.startswith("on") or key in ("src", "srcset")]
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", html([document]))
    assert "@import" not in html([document])


def test_identities_of_html_are_its_own_and_links_lead_somewhere(document: Json) -> None:
    for text in (html([document]), html([document, sample("reference")])):
        page = Page(text)
        identities = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(identities) == len(set(identities))
        wanted = {(attributes.get("href") or "").removeprefix("#") for tag, attributes in page.tags if tag == "a"}
        wanted |= {each for _, attributes in page.tags for each in (attributes.get("aria-labelledby") or "").split()}
        assert wanted - {""} <= set(identities)


def test_headings_of_html_are_in_order(document: Json) -> None:
    for text in (html([document]), html([document, sample("reference")])):
        levels = [int(tag[1]) for tag, _ in Page(text).tags if re.fullmatch(r"h[1-6]", tag)][1:]  # the contents' own comes first
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))


def test_html_says_what_markdown_says(document: Json) -> None:
    """Every value of every section stands in the page."""
    text = " ".join(" ".join(Page(html([document])).text).split())
    for section in content(document).sections:
        for each in section.walk():
            for block in each.blocks:
                cells = [cell for row in block.rows for cell in row] if isinstance(block, Table) else []
                cells += [cell for _, cell in block.items] if isinstance(block, Facts) else []
                for cell in cells:
                    shown = " ".join("".join(one if one.isprintable() or one.isspace() else "\ufffd" for one in cell.text).split())
                    assert shown in text


def test_a_hostile_name_is_text() -> None:
    text = html([sample("hostile")])
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "\x1b" not in text
    assert "{{ 7 * 7 }}" in text  # a template's braces in a name are no template


# The placement map


def boxes_overlap(one: Any, other: Any) -> bool:
    return one.x < other.right and other.x < one.right and one.y < other.bottom and other.y < one.bottom


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_of_a_map_overlaps_or_leaves_its_box(document: Json, width: float) -> None:
    for part in parts_of(document):
        made = placement_map(document, part, width)
        if made is None:
            continue
        assert made.width <= width
        for at, node in enumerate(made.nodes):
            assert node.x >= 0
            assert node.right <= made.width + 0.1
            assert node.bottom <= made.height + 0.1
            assert not [other for other in made.nodes[at + 1 :] if boxes_overlap(node, other)]
            for number_of, group in enumerate(node.groups):
                assert node.x < group.x
                assert group.right < node.right
                assert group.bottom < node.bottom
                assert not [other for other in node.groups[number_of + 1 :] if boxes_overlap(group, other)]
                assert all(group.x < tile.x and tile.right < group.right and tile.bottom < group.bottom for tile in group.tiles)
                assert not [
                    tile
                    for place, tile in enumerate(group.tiles)
                    for other in group.tiles[place + 1 :]
                    if boxes_overlap(tile, other)
                ]


def drawn_ranks(nodes: list[NodeBox]) -> list[str]:
    return [tile.title for node in nodes for group in node.groups for tile in group.tiles]


def test_the_map_of_the_reference(whole: Json) -> None:
    made = placement_map(whole, parts_of(whole)[0], WIDE)
    assert made is not None
    (node,) = made.nodes
    assert node.label == "h100-node-1"
    assert [group.labels for group in node.groups] == [
        (f"stage {stage}", f"layers {20 * stage}-{20 * stage + 19}") for stage in range(4)
    ]
    assert [[tile.text for tile in group.tiles] for group in node.groups][1] == ["GPU 2", "GPU 3"]
    assert [link.kind for link in made.links] == ["pipeline"] * 3
    assert [len(group.ties) for group in node.groups] == [1] * 4
    assert made.title == "8 ranks on the GPUs of 1 node"
    assert "stage 3, layers 60-79: ranks [6,7]" in made.description


def test_the_map_of_what_has_no_place_shows_what_is_here() -> None:
    document = sample("incompatible")
    made = placement_map(document, parts_of(document)[0], WIDE)
    assert made is not None
    absent, found = made.nodes
    assert (absent.is_real, found.is_real) == (False, True)
    assert absent.label == "No place now: 8 ranks of one replica"
    assert found.label.startswith("Found: 1 x Tesla-T4")


def test_a_large_map_is_bounded_and_says_so() -> None:
    document = sample("large")
    made = placement_map(document, parts_of(document)[0], WIDE)
    assert made is not None
    assert len(drawn_ranks(made.nodes)) == MOST_GPUS
    assert made.remark == f"Not drawn: {512 - MOST_GPUS} more GPUs on 56 more nodes."
    assert made.remark in html([document])


def test_a_tensor_group_on_two_nodes_is_tied_between_them(whole: Json) -> None:
    document = copy.deepcopy(whole)
    (pod,) = document["placement"]["pods"]
    document["placement"]["pods"] = [
        {**pod, "node": node, "pod": at, "gpus": 4, "localGpus": [0, 1, 2, 3], "ranks": ranks}
        for at, (node, ranks) in enumerate((("node-a", [0, 2, 4, 6]), ("node-b", [1, 3, 5, 7])))
    ]
    made = placement_map(document, parts_of(document)[0], WIDE)
    assert made is not None
    assert [link.kind for link in made.links].count("tensor") == 4


def test_large_reports_stay_small() -> None:
    document = sample("large")
    assert len(markdown([document])) < 40_000
    assert len(html([document])) < 250_000


def test_a_declared_expert_split_is_shown_as_it_is_elsewhere() -> None:
    for strategy in (
        ParallelStrategy(tensor=4, pipeline=1, data=2, expert_parallel=True),
        ParallelStrategy(tensor=4, pipeline=1, data=1, expert=2, prefill_context=2, decode_context=2),
    ):
        assert widths(strategy_json(strategy)) == strategy.label
    assert widths({"tensor": 4, "pipeline": 1, "data": 2, "expertParallel": True}) == "TP4 x PP1 x DP2 x EP"


def test_a_tensor_group_is_as_wide_as_the_tensor_width() -> None:
    nodes = [{"rank": rank, "data": 0, "stage": rank // 4, "tensor": rank % 4} for rank in range(8)]
    strategy = {"tensor": 2, "pipeline": 2, "data": 1, "prefillContext": 2}
    (part,) = parts_of({"declared": {"strategy": strategy}, "graph": {"nodes": nodes}})
    groups = part.widths_of_tensor()
    assert [(each.stage, each.ranks) for each in groups] == [(0, (0, 1)), (0, (2, 3)), (1, (4, 5)), (1, (6, 7))]


def test_one_stage_has_no_pipeline_and_no_figure_of_its_loss() -> None:
    report = copy.deepcopy(sample("reference"))
    name = "The same with the pipeline loss as measured"
    assert name in markdown([report])
    report["declared"]["strategy"]["pipeline"] = 1
    assert name not in markdown([report])
