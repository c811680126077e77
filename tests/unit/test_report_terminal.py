"""The report in a terminal: of any width, with colours and without, whatever names are in it."""

import io
import re
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from report_samples import MAKERS, sample
from shardgate.shells.report_terminal import print_report

Json = dict[str, Any]
COLOUR = re.compile(r"\x1b\[[\d;]*m")


def printed(document: Json, width: int, **settings: Any) -> str:
    out = io.StringIO()
    print_report(Console(file=out, width=width, emoji=False, highlight=False, **settings), document)
    return out.getvalue()


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("width", [40, 57, 80, 200])
def test_no_line_is_wider_than_the_terminal(name: str, width: int) -> None:
    assert max(map(cell_len, printed(sample(name), width).splitlines())) <= width


@pytest.mark.parametrize("name", [each for each in MAKERS if each != "large"])
def test_nothing_is_cut_where_it_is_narrow(name: str) -> None:
    """The same letters in the same number, however the lines are broken; lists repeat the names of their columns."""
    wide, narrow = (re.sub(r"\s", "", printed(sample(name), width)) for width in (1000, 40))
    for each in set(wide):
        assert narrow.count(each) >= wide.count(each), each


def test_every_section_is_there_compactly() -> None:
    text = printed(sample("reference"), 200)
    for line in (
        "Sound  PASSED, PROCEED_WITH_CONFIDENCE, score ", "Performance (256 requests in flight", "Largest rate within the objectives",
        "at least 8 req/s", "Balance     stages ", "bubble 5 % at 57 micro-batches, 20 % as measured", "Links       per token 640.0 KiB tensor",
        "Graph       8 ranks, 14 edges: 8 tensor + 6 pipeline", "  Risks\n", "PipelineLoss (likely)", "  Alternatives\n", "  Score\n",
        "memory headroom", "  Assumed:\n",
    ):  # fmt: skip
        assert line in text


def test_unknown_is_said() -> None:
    text = printed(sample("unknowns"), 120)
    for label in ("Performance", "Balance", "Links", "Memory"):
        assert re.search(rf"(?m)^  {label} +unknown$", text)


def test_each_group_has_its_lines() -> None:
    text = printed(sample("groups"), 120)
    prefill, decode = text.index("Group prefill"), text.index("Group decode")
    assert "TP4 x PP1 x DP1" in text[prefill:decode]
    assert "TP2 x PP1 x DP1" in text[decode:]


def test_what_could_not_be_read_shows_its_findings() -> None:
    text = printed(sample("nothing-read"), 100)
    assert text.count("DeclarationOpaque") == 2
    assert "None" not in text


def test_colour_adds_nothing_but_colour() -> None:
    coloured = printed(sample("incompatible"), 100, force_terminal=True, color_system="truecolor")
    plain = printed(sample("incompatible"), 100, color_system=None)
    assert COLOUR.search(coloured)
    assert not COLOUR.search(plain)
    assert COLOUR.sub("", coloured) == plain


def test_a_hostile_name_neither_moves_the_cursor_nor_is_markup() -> None:
    text = printed(sample("hostile"), 80)
    assert "\x1b" not in text
    assert "<script>" in text
    document = sample("reference")
    document["declared"]["model"] = "[red]a[/red] [link=http://x]b"
    assert "[red]a[/red] [link=http://x]b" in printed(document, 200)
