"""The HTML report in a real Chromium: widths, light and dark, paper, accessibility. Screenshots stay, to be looked at."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from playwright.sync_api import Browser, Page, sync_playwright

from controlplane.browser import found_browser
from controlplane.go_build import BuildError
from report_samples import MAKERS, sample
from screenshots import SCREENSHOTS
from shardgate.adapters.forms.html import html

Json = dict[str, Any]
WIDTHS = (360, 768, 1400)
# What WCAG 2.2 AA asks, and what axe calls best practice: contrast, names, headings in order, landmarks, tables.
RULES = {
    "resultTypes": ["violations"],
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]},
}
LOOKED_AT = ("reference", "incompatible", "groups", "over-nodes", "large")
PAPER = 718
"""Pixels of a page of A4 between its margins."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        program = found_browser(lambda text: print(text, file=sys.stderr))
    except BuildError as error:
        pytest.skip(f"THE HTML REPORT WAS NOT TESTED IN A BROWSER: {error}")
    if program is None:
        pytest.skip("THE HTML REPORT WAS NOT TESTED IN A BROWSER: none is here that starts; make test fetches one")
    with sync_playwright() as playwright:
        # The pages are our own, and a sandbox needs rights that a container does not give.
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """A sample's page, as an address."""
    folder = tmp_path_factory.mktemp("pages")

    def address(name: str) -> str:
        file = folder / f"{name}.html"
        if not file.exists():
            names = ("not-judged", "nothing-read") if name == "several" else (name,)
            file.write_text(html([sample(each) for each in names]), encoding="utf-8")
        return file.as_uri()

    return address


Opened = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, pages: Callable[[str], str]) -> Iterator[Opened]:
    """A page without JavaScript of its own, at a width, in a colour scheme; nothing may go wrong in it, or be fetched."""
    contexts, troubles, fetched = [], [], []

    def opening(name: str, width: int = 1400, scheme: Any = "light", *, scripts: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(pages(name))
        assert fetched[-1] == pages(name)
        return page

    yield opening
    for each in contexts:
        each.close()
    assert troubles == []
    assert all(url.startswith("file:") for url in fetched)
    assert len(fetched) == len(contexts)


def kept(page: Page, name: str) -> None:
    """A screenshot of the whole page."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def widths(page: Page) -> tuple[int, int]:
    found = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    return found[0], found[1]


OUTSIDE = """() => [...document.querySelectorAll('body *')].filter(each => {
  const box = each.getBoundingClientRect()
  if (!box.width || each.closest('.scroll, .skip, svg defs') || getComputedStyle(each).position === 'absolute') return false
  return box.right > document.documentElement.clientWidth + 1 || box.left < -1
}).map(each => each.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("name", [*MAKERS, "several"])
def test_nothing_is_wider_than_the_page(opened: Opened, name: str) -> None:
    for width in WIDTHS:
        page = opened(name, width)
        scrolled, room = widths(page)
        if name in LOOKED_AT and width != 768:
            kept(page, f"{name}-{width}")
        assert scrolled <= room == width
        assert page.evaluate(OUTSIDE) == []
        assert page.get_by_role("main").is_visible()


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        ("reference", 360, "light"), ("reference", 1400, "dark"), ("incompatible", 1400, "light"),
        ("groups", 1400, "light"), ("several", 1400, "dark"), ("nothing-read", 360, "dark"),
    ],
)  # fmt: skip
def test_it_is_accessible(opened: Opened, name: str, width: int, scheme: str) -> None:
    """By axe: contrast, names of graphics and links, headings in order, captions and scopes of tables."""
    page = opened(name, width, scheme, scripts=True)
    page.evaluate(Path(AXE_FILE_PATH).read_text(encoding="utf-8"))
    found: Json = page.evaluate(f"axe.run(document, {json.dumps(RULES)})")
    assert len(found["passes"]) > 20
    assert [(each["id"], [node["html"][:200] for node in each["nodes"]][:4]) for each in found["violations"]] == []
    kept(page, f"{name}-{width}-{scheme}")


def test_every_graphic_and_link_has_a_name(opened: Opened) -> None:
    page = opened("reference")
    graphics = page.get_by_role("img").all()
    names = re.findall(r'\bimg "((?:[^"\\]|\\.)+)"', page.locator("body").aria_snapshot())
    assert len(names) == len(graphics) == 4  # score, memory, ranges, the map of this width
    assert names[0] == f"Score: {sample('reference')['score']}/100"
    assert any(each.startswith("Placement map: 8 ranks on the GPUs of 1 node") for each in names)
    links = page.get_by_role("link").all()
    assert len(links) > 10
    assert all(each.inner_text().strip() for each in links)
    for link in page.get_by_role("navigation").get_by_role("link").all():
        assert page.locator(str(link.get_attribute("href"))).count() == 1


def test_the_map_fits_the_width_of_a_telephone_and_stays_legible(opened: Opened) -> None:
    for width, form in ((360, "narrow"), (1400, "wide")):
        page = opened("reference", width)
        assert page.locator(f".map svg.{form}").is_visible()
        assert not page.locator(f".map svg.{'wide' if form == 'narrow' else 'narrow'}").is_visible()
        heights = page.evaluate(
            f"[...document.querySelectorAll('.map svg.{form} text')].map(each => each.getBoundingClientRect().height)"
        )
        assert min(heights) >= 10


INSIDE = """form => [...document.querySelectorAll(`.map svg.${form} g > rect.tile`)].flatMap(tile => {
  const box = tile.getBoundingClientRect(), texts = []
  for (let each = tile.nextElementSibling; each && each.tagName === 'text'; each = each.nextElementSibling) texts.push(each)
  return texts.filter(each => each.getBoundingClientRect().left < box.left || each.getBoundingClientRect().right > box.right)
}).map(each => each.textContent)"""


@pytest.mark.parametrize("name", ["reference", "large", "over-nodes", "incompatible", "groups", "waiting"])
def test_the_map_s_labels_stay_in_their_tiles_and_nodes(opened: Opened, name: str) -> None:
    page = opened(name)
    assert page.evaluate(INSIDE, "wide") == []
    wide = page.evaluate(
        """[...document.querySelectorAll('.map svg.wide .node')].filter(node => {
             const text = node.nextElementSibling.getBoundingClientRect()
             return text.right > node.getBoundingClientRect().right
           }).length"""
    )
    assert wide == 0


def test_light_and_dark_are_two_pages(opened: Opened) -> None:
    def shades(scheme: str) -> tuple[int, int]:
        page = opened("reference", scheme=scheme)
        paper, ink = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
        first, second = (sum(map(int, re.findall(r"\d+", each)[:3])) for each in (paper, ink))
        return first, second

    for scheme, dim, bright in (("light", 1, 0), ("dark", 0, 1)):
        found = shades(scheme)
        assert found[dim] < 200
        assert found[bright] > 600


@pytest.mark.parametrize("name", ["reference", "incompatible", "large"])
def test_it_prints(opened: Opened, name: str) -> None:
    """On white, without the contents, within the paper, also where the screen is dark."""
    page = opened(name, PAPER, "dark")
    page.emulate_media(media="print")
    scrolled, room = widths(page)
    assert scrolled <= room
    assert page.evaluate(OUTSIDE) == []
    assert not page.get_by_role("navigation").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    kept(page, f"{name}-print")
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    (SCREENSHOTS / f"{name}.pdf").write_bytes(printed)
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 16


def test_a_table_that_is_wide_scrolls_in_its_own_box(opened: Opened) -> None:
    page = opened("hostile", 768)
    boxes = page.evaluate("[...document.querySelectorAll('.scroll')].map(each => [each.scrollWidth, each.clientWidth])")
    assert boxes
    for _, room in boxes:
        assert room <= 768
    assert page.locator(".scroll").first.get_attribute("tabindex") == "0"


@pytest.mark.parametrize("name", ["reference", "incompatible", "groups", "large"])
def test_tables_of_common_reports_need_no_scrolling_on_a_desk(opened: Opened, name: str) -> None:
    page = opened(name)
    cut = """[...document.querySelectorAll('.scroll')].filter(each => each.scrollWidth > each.clientWidth)
               .map(each => [each.querySelector('caption').textContent, each.scrollWidth, each.clientWidth])"""
    assert page.evaluate(cut) == []


def test_a_hostile_name_does_nothing(opened: Opened) -> None:
    page = opened("hostile", scripts=True)
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    assert "<script>alert('x')</script>" in page.get_by_role("heading", level=1).inner_text()
    assert page.locator("script").count() == 0
