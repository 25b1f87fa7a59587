"""Every built page in headless Chromium, opened from disk as a reader does after `make book`, with no network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from pages import EXTRA, PAGES, Built
from playwright.sync_api import Browser, Page, Route, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
SIZES = {"wide": (1280, 900), "phone": (390, 844)}
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome installed, e.g. by apt install chromium")

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
IMAGES = """() => [...document.images].map(i => ({src: i.currentSrc.slice(-80), width: i.naturalWidth, alt: i.alt.trim()}))"""
# what sticks out at the right although nothing around it scrolls
STICKING_OUT = """width => [...document.querySelectorAll('article *')].filter(e => {
  if (e.closest('.headerlink, mjx-assistive-mml')) return false;
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--allow-file-access-from-files"])
        yield browser
        browser.close()


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


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES + EXTRA)
def test_page_in_a_browser(book: Built, browser: Browser, name: str, size: str) -> None:
    page, trouble = open_page(browser, (book.html / f"{name}.html").as_uri(), size)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function("scheme => document.documentElement.dataset.theme == scheme", arg=scheme)

        math = page.evaluate(MATH)
        assert all(n == 1 for _, n in math["formulas"]), [f for f in math["formulas"] if f[1] != 1]
        assert not math["errors"]
        prose = page.evaluate(PROSE)
        raw = [mark for mark in ("$", "\\(", "\\[", "\\frac", "\\theta", "\\begin{") if mark in prose]
        assert not raw, f"TeX that nobody has set: {[prose[max(0, prose.index(m) - 40) :][:80] for m in raw]}"

        for image in page.evaluate(IMAGES):
            assert image["width"] > 0 and image["alt"], image

        width = SIZES[size][0]
        sticking_out = sorted(set(page.evaluate(STICKING_OUT, width)))
        assert not sticking_out, f"wider than {width} pixels: {sticking_out}"
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width, f"the page is wider than {width} pixels"

        ground = page.evaluate(GROUND)
        assert (ground["page"] < 0.25) == (scheme == "dark"), ground
        assert all(light > 0.99 and f == "none" for light, f in ground["figures"]), "figures are drawn for a white ground"
    assert not trouble
    page.context.close()
