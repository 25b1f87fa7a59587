"""The whole book as one PDF: every page on one HTML page, printed by a Chromium that is installed, links and outline included.

    make pdf
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader

sys.path.append(str(Path(__file__).with_name("_ext")))
from chromium import CHROMIUM, MISSING

ROOT = Path(__file__).parents[1]
# On paper each chapter begins a sheet, and there are no menus. Beside what book.css says of paper.
STYLE = """
:is(.bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, footer, dialog) { display: none !important }
#jb-print-docs-body { display: none !important }
.bd-main :is(.bd-content, .bd-article-container, .bd-article) { margin: 0 !important; padding: 0 !important }
.bd-main :is(.bd-content, .bd-article-container, .bd-article) { max-width: none !important }
.bd-main .bd-content .bd-article h1:first-of-type { display: block !important; font-size: 26pt; margin-top: 0 }
span[id^="document-"] + section { break-before: page }
span[id^="document-"] + section > h2 { font-size: 24pt }
.bd-article h3 { font-size: 15pt; font-weight: 500 }
.bd-article h4 { font-size: 12pt }
.bd-article section:has(> .cheatsheet) > p { font-size: 8pt; line-height: 1.25; margin-bottom: 1mm }
.bd-article .cheatsheet :is(td, th) { font-size: 6.6pt; padding: 0.15mm 1mm }
html .bd-article { font-size: 10pt; line-height: 1.45 }
.bd-article :is(.hero-words p, figcaption p, figcaption) { font-size: 10pt !important }
.bd-article figure img { max-height: 95mm !important; object-fit: contain }
.bd-main .bd-content table { break-inside: auto !important }
.bd-article .hero { display: block }
"""


def build(folder: Path) -> Path:
    """One HTML page of everything, and beside it what it shows."""
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ROOT, "--path-output", folder]
    command += ["--builder", "custom", "--custom-builder", "singlehtml"]
    built = subprocess.run(command, capture_output=True, text=True)
    html = folder / "_build" / "singlehtml"
    if built.returncode:
        sys.exit(f"the book was not built:\n{built.stdout[-3000:]}{built.stderr[-3000:]}")
    text = (html / "book" / "index.html").read_text(encoding="utf-8")  # whose addresses are those of the root
    whole = html / "whole.html"
    whole.write_text(text.replace('href="book/index.html#', 'href="#'), encoding="utf-8")
    return whole


def ready(page: Page) -> None:
    """Wait for formulas and pictures, and open what is folded."""
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    page.wait_for_function("window.MathJax?.startup?.promise")
    page.evaluate("MathJax.startup.promise.then(() => document.fonts.ready).then(() => null)")
    page.wait_for_function("[...document.images].every(i => i.complete)")


def print_page(html: Path, pdf: Path) -> int:
    """Write the PDF and return the number of its pages."""
    if CHROMIUM is None:
        sys.exit(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--allow-file-access-from-files"])
        page = browser.new_page(viewport={"width": 700, "height": 1000}, color_scheme="light")  # the width of the text on A4
        page.set_default_timeout(300_000)
        page.goto(html.as_uri())
        page.add_style_tag(content=STYLE)
        page.evaluate("document.body.classList.add('whole')")
        ready(page)
        page.emulate_media(media="print")
        page.evaluate("() => { MathJax.startup.document.rerender?.(20); }")  # lines break for the paper
        page.pdf(path=pdf, prefer_css_page_size=True, print_background=True, outline=True, tagged=True)
        browser.close()
    return len(PdfReader(pdf).pages)


if __name__ == "__main__":
    folder = ROOT / "_build" / "pdf"
    pdf = ROOT / "_build" / "clbook.pdf"
    pages = print_page(build(folder), pdf)
    print(f"The book: {pdf}, {pages} pages")
