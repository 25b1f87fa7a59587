"""Every built page in headless Chromium, opened from disk as a reader does after `make book`, with no network."""

from __future__ import annotations

import io
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import axe_playwright_python
import pytest
from chromium import CHROMIUM, MISSING
from pages import EXTRA, PAGES, Built
from playwright.sync_api import Browser, Page, Route
from pypdf import PdfReader

FIRST_NOTEBOOK = next(p for p in PAGES if p.startswith("notebooks/"))
SIZES = {"wide": (1280, 900), "phone": (390, 844)}
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)

# how often MathJax has set each formula, and what it could not set
MATH = """() => ({
  formulas: [...document.querySelectorAll('.math')]
    .map(e => [e.textContent.slice(0, 80), e.querySelectorAll('mjx-container').length]),
  errors: [...document.querySelectorAll('mjx-merror, [data-mjx-error], mjx-container [style*="color: red"]')]
    .map(e => e.textContent),
})"""
# text that a reader sees, without code and without MathJax's own copies
PROSE = """() => {
  const walker = document.createTreeWalker(document.querySelector('article') || document.body, NodeFilter.SHOW_TEXT);
  let text = '';
  while (walker.nextNode())
    if (!walker.currentNode.parentElement.closest('pre, code, script, style, mjx-container')) text += walker.currentNode.data;
  return text;
}"""
# the mark beside the book's name, which says it all, has no words of its own
IMAGES = """() => [...document.images].filter(i => !i.closest('.navbar-brand'))
  .map(i => ({src: i.currentSrc.slice(-80), width: i.naturalWidth, alt: i.alt.trim()}))"""
# what sticks out at the right although nothing around it scrolls
STICKING_OUT = """width => [...document.querySelectorAll('article *')].filter(e => {
  if (e.closest('.headerlink, mjx-assistive-mml') || e.ownerSVGElement) return false;  // a drawing clips what it holds
  const box = e.getBoundingClientRect();
  if (box.width <= 1 || box.right <= width + 1) return false;
  for (let p = e.parentElement; p && p.tagName != 'ARTICLE'; p = p.parentElement)
    if (['auto', 'scroll'].includes(getComputedStyle(p).overflowX)) return false;
  return true;
}).map(e => (e.closest('mjx-container')?.textContent ?? e.outerHTML).slice(0, 120))"""
# luminance of the page and of the ground that each figure stands on
GROUND = """() => {
  const light = e => { const c = getComputedStyle(e).backgroundColor.match(/[\\d.]+/g).map(Number);
                       return c.length > 3 && c[3] == 0 ? null : (0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]) / 255; };
  return {page: light(document.body) ?? light(document.documentElement), theme: document.documentElement.dataset.theme,
          figures: [...document.querySelectorAll('article img')].map(i => [light(i), getComputedStyle(i).filter])};
}"""
# formulas with a glyph beyond the edges of the box they stand in: cut, or behind a scroll
CUT = """() => [...document.querySelectorAll('article .math')].map(e => {
  const box = (e.matches('div.math') ? e : e.closest('td, li, dd, figcaption, p, div')).getBoundingClientRect();
  const glyphs = [...e.querySelectorAll('mjx-c')].map(g => g.getBoundingClientRect());
  const left = Math.min(...glyphs.map(g => g.left)), right = Math.max(...glyphs.map(g => g.right));
  return [left - box.left, box.right - right, e.querySelector('mjx-assistive-mml')?.textContent ?? ''];
}).filter(([left, right]) => left < -2 || right < -2)"""
MATHJAX_4 = Path(sys.prefix, "share", "clbook", "node_modules", "mathjax").exists()
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
# what axe finds outside of formulas; only contrast depends on the scheme
FINDINGS = """options => axe.run({exclude: [['mjx-container']]}, {...options, resultTypes: ['violations']})
  .then(r => r.violations
  .filter(v => ['serious', 'critical'].includes(v.impact) || v.id == 'empty-table-header')
  .flatMap(v => v.nodes.filter(n => v.id != 'empty-table-header' || !document.querySelector(n.target[0]).querySelector('math'))
  .map(n => [v.id, n.target.join(' '), n.html.slice(0, 120), n.failureSummary.slice(0, 200)])))"""

# what axe would look at a thousand times over: of the coloured words of code each kind on each ground stays once, and the
# glyphs of formulas go, which it walks through although it is told to leave them out
ONCE = """() => {
  const seen = new Set();
  document.querySelectorAll('div.highlight pre span').forEach(e => {
    const kind = [e.className, getComputedStyle(e.closest('pre')).backgroundColor].join();
    if (seen.has(kind)) e.replaceWith(...e.childNodes); else seen.add(kind);
  });
  document.querySelectorAll('mjx-math').forEach(e => e.replaceChildren());
}"""


def open_page(browser: Browser, address: str, size: str) -> tuple[Page, list[str]]:
    """The page, ready to be looked at, and a list that collects everything that goes wrong on it."""
    trouble: list[str] = []
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="light", has_touch=size == "phone")

    def guard(route: Route) -> None:
        if route.request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            trouble.append(f"asks for {route.request.url}")
            route.abort()

    context.route("**/*", guard)
    page = context.new_page()
    page.on("console", lambda m: trouble.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda e: trouble.append(f"script: {e}"))
    page.on("requestfailed", lambda r: trouble.append(f"failed: {r.url}"))
    page.goto(address, wait_until="load")
    if page.locator(".math").count():
        page.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
        page.evaluate("MathJax.startup.promise.then(() => document.fonts.ready).then(() => null)")
    page.evaluate("document.querySelectorAll('img[loading=lazy]').forEach(i => i.loading = 'eager')")
    page.wait_for_function("[...document.images].every(i => i.complete)")
    return page, trouble


def in_colours(page: Page, scheme: str) -> None:
    """The page in light or dark colours, none of them on their way."""
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function("scheme => document.documentElement.dataset.theme == scheme", arg=scheme)


@pytest.fixture(scope="module")
def opened(request: pytest.FixtureRequest, book: Built, browser: Browser) -> Iterator[tuple[str, str, Page, list[str]]]:
    """A page as it opens at one size, and what goes wrong on it; opened once for all tests that look at it."""
    name, size = request.param
    page, trouble = open_page(browser, (book.html / f"{name}.html").as_uri(), size)
    yield name, size, page, trouble
    page.context.close()


WIDE, PHONE = ([(name, size) for name in PAGES + EXTRA] for size in SIZES)


@pytest.mark.parametrize("opened", WIDE + PHONE, indirect=True, ids="-".join)
def test_page_in_a_browser(opened: tuple[str, str, Page, list[str]]) -> None:
    _, size, page, trouble = opened
    width = SIZES[size][0]
    for scheme in ("light", "dark"):
        in_colours(page, scheme)

        math = page.evaluate(MATH)
        assert all(n == 1 for _, n in math["formulas"]), [f for f in math["formulas"] if f[1] != 1]
        assert not math["errors"]
        assert not page.locator("mjx-container[tabindex]").count(), "a formula is no stop of the tab key"
        prose = page.evaluate(PROSE)
        raw = [mark for mark in ("$", "\\(", "\\[", "\\frac", "\\theta", "\\begin{") if mark in prose]
        assert not raw, f"TeX that nobody has set: {[prose[max(0, prose.index(m) - 40) :][:80] for m in raw]}"

        for image in page.evaluate(IMAGES):
            assert image["width"] > 0 and image["alt"], image

        sticking_out = sorted(set(page.evaluate(STICKING_OUT, width)))
        assert not sticking_out, f"wider than {width} pixels: {sticking_out}"
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width, f"the page is wider than {width} pixels"

        ground = page.evaluate(GROUND)
        assert (ground["page"] < 0.25) == (scheme == "dark"), ground
        assert all(light > 0.99 and f == "none" for light, f in ground["figures"]), "figures are drawn for a white ground"

    cut = page.evaluate(CUT)
    assert not cut or not MATHJAX_4, f"formulas cut at {width} pixels: {cut}"
    assert not trouble


@pytest.mark.parametrize("opened", WIDE, indirect=True, ids="-".join)
def test_page_is_accessible(opened: tuple[str, str, Page, list[str]]) -> None:
    page = opened[2]
    page.add_style_tag(content="* { transition: none !important }")  # else colours are measured on their way
    page.evaluate(AXE)
    page.evaluate(ONCE)
    in_colours(page, "light")
    found = page.evaluate(FINDINGS, {})
    in_colours(page, "dark")
    found += page.evaluate(FINDINGS, {"runOnly": ["color-contrast"]})
    assert not found, json.dumps(found, indent=1)


@pytest.mark.parametrize("size", SIZES)
def test_a_figure_enlarges_by_click_and_by_key(book: Built, browser: Browser, size: str) -> None:
    page, trouble = open_page(browser, (book.html / f"{FIRST_NOTEBOOK}.html").as_uri(), size)
    image = page.locator("article figure img").first
    small, words = image.bounding_box(), image.get_attribute("alt")
    image.click()
    large = page.locator("dialog.enlarged img")
    assert large.bounding_box()["width"] > 1.25 * small["width"] and large.get_attribute("alt") == words
    page.keyboard.press("Escape")
    assert not page.locator("dialog.enlarged").count()
    page.locator("article .enlarge").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog.enlarged[open]").count() == 1
    page.locator("dialog.enlarged button").click()
    assert not page.locator("dialog.enlarged").count() and not trouble
    page.context.close()


PREVIEWS = {
    "glossary.html#term-": "div.preview dd",
    "#equation-": "div.preview mjx-container",
    "#fig-": "div.preview figcaption",
    "references.html#": "div.preview .citation",
}


@pytest.mark.parametrize("target", PREVIEWS)
def test_a_link_shows_what_it_leads_to_by_mouse_and_by_key(book: Built, browser: Browser, target: str) -> None:
    page, trouble = open_page(browser, (book.html / "book" / "ewc.html").as_uri(), "wide")
    link = page.locator(f"article a.internal[href*='{target}'], article .internal a[href*='{target}']").first
    link.hover()
    page.locator(PREVIEWS[target]).first.wait_for()
    assert page.locator("#preview").inner_text().strip()
    assert link.get_attribute("aria-describedby") == "preview"
    page.keyboard.press("Escape")
    assert not page.locator("#preview").count()

    page.mouse.move(0, 0)
    page.keyboard.press("Tab")  # from here on the browser shows the focus
    link.focus()
    page.locator(PREVIEWS[target]).first.wait_for()
    link.evaluate("e => e.blur()")
    assert not page.locator("#preview").count() and not trouble
    page.context.close()


def test_a_table_that_is_too_wide_says_so_and_scrolls_by_key(book: Built, browser: Browser) -> None:
    page, _ = open_page(browser, (book.html / "book" / "cheatsheet.html").as_uri(), "phone")
    table = page.locator(".cheatsheet .pst-scrollable-table-container")
    assert "more-right" in table.get_attribute("class").split() and table.get_attribute("tabindex") == "0"
    table.evaluate("e => e.scrollTo(e.scrollWidth, 0)")
    page.wait_for_selector(".cheatsheet .more-left:not(.more-right)")
    page.context.close()


def test_the_first_column_stays_in_sight_while_a_table_scrolls(book: Built, browser: Browser) -> None:
    page, _ = open_page(browser, (book.html / "book" / "cheatsheet.html").as_uri(), "phone")
    table = page.locator(".cheatsheet .pst-scrollable-table-container")
    first, second = (table.locator(f"tbody tr:nth-child(5) td:nth-child({n})") for n in (1, 2))
    before = first.bounding_box(), second.bounding_box()
    table.evaluate("e => e.scrollTo(120, 0)")
    assert first.bounding_box()["x"] == pytest.approx(before[0]["x"], abs=1)
    assert second.bounding_box()["x"] == pytest.approx(before[1]["x"] - 120, abs=1)
    assert first.evaluate("e => getComputedStyle(e).backgroundColor") != "rgba(0, 0, 0, 0)", "what passes below shows through"
    page.context.close()


@pytest.mark.parametrize("name", ["book/ewc", "book/families/models", "notebooks/08_choosing"])
def test_the_titles_of_the_neighbours_are_whole_on_a_phone(book: Built, browser: Browser, name: str) -> None:
    page, _ = open_page(browser, (book.html / f"{name}.html").as_uri(), "phone")
    hidden = "es => es.map(e => e.scrollWidth - e.clientWidth)"
    assert page.eval_on_selector_all(".prev-next-area a", hidden) == [0, 0]
    page.context.close()


def test_a_letter_of_a_formula_does_not_push_the_lines_of_a_text_apart(book: Built, browser: Browser) -> None:
    page, _ = open_page(browser, (book.html / "book" / "cheatsheet.html").as_uri(), "phone")
    tops = """p => [...new Set([...p.childNodes].filter(n => n.nodeType == 3).flatMap(n => {
      const range = document.createRange();
      range.selectNode(n);
      return [...range.getClientRects()].map(r => Math.round(r.top)); }))]"""
    rows = page.locator("article h1 + p").evaluate(tops)
    assert len(rows) > 5 and page.locator("article h1 + p mjx-container").count() > 3
    steps = [b - a for a, b in itertools.pairwise(sorted(rows))]
    assert max(steps) - min(steps) <= 1, steps
    page.context.close()


def test_previews_stay_inside_the_window(book: Built, browser: Browser) -> None:
    page, _ = open_page(browser, (book.html / "book" / "ewc.html").as_uri(), "wide")
    for link in page.locator("article p a[href*='#fig-']:not(.headerlink)").all()[:4]:
        page.mouse.move(0, 0)
        link.scroll_into_view_if_needed()
        link.hover()
        page.locator("#preview img").wait_for()
        page.wait_for_function("document.querySelector('#preview img').complete")
        box = page.locator("#preview").bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= SIZES["wide"][1], box
        page.keyboard.press("Escape")
    page.context.close()


def test_the_cheat_sheet_is_one_sheet_of_paper(book: Built, browser: Browser) -> None:
    page, _ = open_page(browser, (book.html / "book" / "cheatsheet.html").as_uri(), "wide")
    sheets = PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True))).pages
    assert len(sheets) == 1
    assert [round(float(side) / 72 * 25.4) for side in sheets[0].mediabox[2:]] == [210, 297], "A4"
    words = sheets[0].extract_text()
    assert "Finetune" in words and "Ridge" in words
    page.context.close()


def test_88_columns_of_code_fit_and_outputs_wrap(book: Built, browser: Browser) -> None:
    page, _ = open_page(browser, (book.html / f"{FIRST_NOTEBOOK}.html").as_uri(), "wide")
    columns = """() => { const pre = document.querySelector('.cell_input pre'), style = getComputedStyle(pre);
      const ruler = pre.appendChild(document.createElement('span')); ruler.textContent = 'x'.repeat(100);
      return 100 * (pre.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)) / ruler.offsetWidth; }"""
    assert page.evaluate(columns) >= 88
    scrolling = "() => [...document.querySelectorAll('.cell_output pre')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert page.evaluate(scrolling) == 0
    page.context.close()


def test_the_first_page_weighs_less_than_a_megabyte(book: Built, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    fetched: set[str] = set()
    page.on("requestfinished", lambda request: fetched.add(request.url.split("?")[0]))
    page.goto((book.html / f"{PAGES[0]}.html").as_uri(), wait_until="networkidle")
    files = [Path(url.removeprefix("file://")) for url in fetched if url.startswith("file://")]
    weight = {f.name: f.stat().st_size for f in files if f.suffix not in (".woff2", ".woff", ".ttf")}
    assert sum(weight.values()) < 1_000_000, sorted(weight.items(), key=lambda item: -item[1])
    context.close()
