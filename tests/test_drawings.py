"""The drawings can be read on every page, show what they say, and a figure that is not there stops the build."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from base64 import b64decode, b64encode
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from pages import ROOT

sys.path.insert(0, str(ROOT / "book"))
import drawings
from drawings import gem, sketch
from drawings.springs import NEW, OLD, STIFFNESS
from drawings.valleys import descent

SVG = "{http://www.w3.org/2000/svg}"
PANELS = [(name, i) for name in drawings.DRAWINGS for i in range(len(drawings.DRAWINGS[name]()))]
ids = [f"{name}-{i + 1}" for name, i in PANELS]
each_panel = pytest.mark.parametrize(("name", "i"), PANELS, ids=ids)


@cache
def panel(name: str, i: int) -> ET.Element:
    return ET.fromstring(drawings.draw(name)[i])


def size(svg: ET.Element) -> tuple[float, float]:
    left, top, width, height = (float(number) for number in svg.get("viewBox", "").split())
    assert (left, top) == (0, 0)
    return width, height


def extent(text: ET.Element) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a line of words, in a font wider than most: DejaVu Sans, or its serif for symbols."""
    x, y, letters = float(text.get("x", "")), float(text.get("y", "")), float(text.get("font-size", ""))
    width, top, bottom, raised = 0.0, 0.0, 0.0, 0.0
    weight = "bold" if "font-weight" in text.get("style", "") else "normal"
    for span in text:
        span_size, raised = float(span.get("font-size", letters)), raised + float(span.get("dy", 0))
        family = "DejaVu Serif" if "serif" in span.get("style", "") else "DejaVu Sans"
        font = FontProperties(family=family, weight=weight)
        words = (span.text or "").replace(" ", "n")  # a path has no extent where there are only blanks
        box = TextPath((0, 0), words, size=span_size, prop=font).get_extents()
        width, top, bottom = width + box.x1, min(top, raised - box.y1), max(bottom, raised - box.y0)
    left = x - {"start": 0, "middle": width / 2, "end": width}[text.get("text-anchor", "")]
    return left, y + top, left + width, y + bottom


# What is drawn -----------------------------------------------------------------------------------------------------------


@each_panel
def test_a_panel_has_a_title_and_a_description_and_fits_a_phone(name: str, i: int) -> None:
    svg = panel(name, i)
    assert svg.tag == f"{SVG}svg"
    title, desc = svg[0], svg[1]
    assert (title.tag, desc.tag) == (f"{SVG}title", f"{SVG}desc")
    assert title.text and desc.text and desc.text.strip().endswith(".") and len(desc.text) > 30
    assert size(svg)[0] <= sketch.PHONE == 350


@each_panel
def test_no_letter_is_too_small_or_outside_the_drawing(name: str, i: int) -> None:
    svg = panel(name, i)
    width, height = size(svg)
    texts = list(svg.iter(f"{SVG}text"))
    assert texts, "a drawing without a word"
    for text in texts:
        words = "".join(text.itertext())
        assert float(text.get("font-size", "")) >= sketch.SMALLEST == 12, words
        left, top, right, bottom = extent(text)
        assert left >= 0 and right <= width and top >= 0 and bottom <= height, f"{words!r} leaves the drawing"


@each_panel
def test_no_words_lie_on_others(name: str, i: int) -> None:
    places = [("".join(text.itertext()), extent(text)) for text in panel(name, i).iter(f"{SVG}text")]
    for k, (words, a) in enumerate(places):
        for others, b in places[:k]:
            apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert apart, f"{words!r} lies on {others!r}"


@each_panel
def test_every_colour_follows_the_page(name: str, i: int) -> None:
    """No colour is fixed: each is that of the page's text or ground, or a variable with a value for either kind of page."""
    declared = re.findall(r"(--drawn-[\w-]+):", drawings.style_sheet())
    for element in panel(name, i).iter():
        assert not element.get("fill") and not element.get("stroke")
        for kind, value in re.findall(r"(fill|stroke):([^;]+)", element.get("style", "")):
            known = re.fullmatch(r"none|currentColor|var\((--[\w-]+), #[0-9a-f]{6}\)", value)
            assert known, f"{kind}: {value}"
            if (known[1] or "").startswith("--drawn-"):
                assert declared.count(known[1]) == 3, f"{known[1]} needs a value on light pages, on dark ones and on paper"


def test_colours_can_be_read_on_both_kinds_of_page() -> None:
    light, dark, paper = re.split(r"html\[data-theme=dark\]|@media print", drawings.style_sheet())
    for part, background in ((light, "#ffffff"), (dark, "#121212"), (paper, "#ffffff")):
        colours = re.findall(r"--drawn-[\w-]+: (#[0-9a-f]{6})", part)
        assert len(colours) > 20
        assert all(sketch.contrast(colour, background) >= 4.5 for colour in colours)


def test_contrast_is_that_of_the_guidelines() -> None:
    """Black on white is 21 to 1; #767676 is the lightest grey that passes 4.5 on white, #777777 the first that does not."""
    assert sketch.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert sketch.contrast("#767676", "#ffffff") > 4.5 > sketch.contrast("#777777", "#ffffff")
    assert sketch.readable("#ffff00", "#ffffff") != "#ffff00" == sketch.readable("#ffff00", "#121212")


def test_words_are_taken_apart_into_symbols_and_indices() -> None:
    assert list(sketch.pieces("its *F*_i, *g*_{ref} and ‖*f*‖^2")) == [
        ("plain", "its "), ("symbol", "F"), ("low", "i"), ("plain", ", "), ("symbol", "g"), ("low", "ref"), ("plain", " and ‖"),
        ("symbol", "f"), ("plain", "‖"), ("high", "2"),
    ]  # fmt: skip


def test_an_unknown_colour_is_refused() -> None:
    with pytest.raises(ValueError, match=r"colour='mauve' is unknown\. Known are ink, muted"):
        sketch.paint("mauve")


def heads(svg: ET.Element) -> list[tuple[float, float]]:
    """Where the arrows of a panel end."""
    paths = (element for element in svg.iter(f"{SVG}path") if "stroke-width:0.5" in element.get("style", ""))
    return [(float(x), float(y)) for path in paths for x, y in re.findall(r"M([\d.-]+) ([\d.-]+)", path.get("d", ""))]


def test_springs_come_to_rest_where_both_tasks_pull_alike() -> None:
    """Every position on the line costs more than the one that is drawn."""
    centres = {float(c.get("cx", "")) for c in panel("springs", 1).iter(f"{SVG}circle")}
    for stiffness in STIFFNESS:
        cost = lambda x: stiffness * (x - OLD) ** 2 + (x - NEW) ** 2  # noqa: B023, E731
        best = min((OLD + (NEW - OLD) * k / 10_000 for k in range(10_001)), key=cost)
        assert any(abs(x - best) < 0.1 for x in centres), f"no weight at {best}"


def test_a_spring_on_the_first_parameter_leads_to_the_common_solution() -> None:
    """Where the exercise of the chapter says: (1/2, 1/2) without a spring, (0, 1) with one, whatever its stiffness."""
    assert descent(0.0)[-1] == pytest.approx((0.5, 0.5))
    for stiffness in (1.0, 4.0, 20.0):
        assert descent(stiffness)[-1] == pytest.approx((0, 1), abs=1e-6)


@pytest.mark.parametrize(("i", "olds", "new"), [(0, [gem.G_REF], gem.NEW_1), (1, [gem.G_1, gem.G_2], gem.NEW_2)])
def test_the_projected_gradient_is_the_nearest_that_is_allowed(i: int, olds: list[gem.Point], new: gem.Point) -> None:
    """Found again by trying every direction: the nearest z with no negative product, where the arrow ends."""
    assert any(g[0] * new[0] + g[1] * new[1] < 0 for g in olds), "nothing to project"
    candidates = []
    for k in range(36_000):
        u = math.cos(2 * math.pi * k / 36_000), math.sin(2 * math.pi * k / 36_000)
        if all(g[0] * u[0] + g[1] * u[1] >= 0 for g in olds):
            length = max(0.0, u[0] * new[0] + u[1] * new[1])
            candidates.append((length * u[0], length * u[1]))
    nearest = gem.at(min(candidates, key=lambda z: math.dist(z, new)))
    assert any(math.dist(head, nearest) < 0.1 for head in heads(panel("gem-cone", i)))


FAMILIES = [f"families/{page}" for page in ("regularisation", "models", "replay", "memory", "neurons", "fixed")]


@pytest.mark.parametrize("page", ["forgetting", "ewc", "lwf", "mas", "families", *FAMILIES])
def test_a_chapter_has_drawings_and_figures_where_the_idea_is(page: str) -> None:
    text = (ROOT / "book" / f"{page}.md").read_text(encoding="utf-8")
    assert text.count("```{drawing} ") >= 1 and text.count("```{output} ") >= 1


# The two directives, in a small book of their own ------------------------------------------------------------------------

PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
DRAWN = "```{drawing} springs\n:name: fig-drawn\n:alt: Springs on wires.\nThe caption of the drawing.\n```"
SHOWN = "```{output} notebooks/one.ipynb#fig-one\n:name: fig-shown\n```"
OTHER = "```{output} notebooks/one.ipynb#cell-one\n:name: fig-other\n:alt: Other words.\nAnother $x^2$.\n\nA legend.\n```"
REFUSED = {
    "```{drawing} sprongs\n:name: a\n:alt: b\nc\n```": "there is no drawing 'sprongs'. Those of book/drawings are ",
    "```{drawing} springs\n:name: a\nc\n```": "the drawing 'springs' needs :alt:",
    "```{drawing} springs\n:name: a\n:alt: b\n```": "the drawing 'springs' needs a caption",
    "```{output} notebooks/none.ipynb#cell\n```": "'notebooks/none.ipynb#cell' names no output",
    "```{output} notebooks/one.ipynb\n```": "'notebooks/one.ipynb' names no output",
    "```{output} notebooks/one.ipynb#cell-zero\n```": "has no cell and no figure 'cell-zero'. Its figures are fig-one.",
    "```{output} notebooks/one.ipynb#cell-words\n```": "cell-words' of notebooks/one.ipynb has stored 0 pictures, not one",
    "```{output} notebooks/one.ipynb#cell-two\n```": "cell-two' of notebooks/one.ipynb has stored 2 pictures, not one",
    "```{output} notebooks/one.ipynb#cell-bare\n```": "has no caption or no alternative text",
}


def notebook() -> nbformat.NotebookNode:
    new = nbformat.v4
    stored = new.new_output("display_data", data={"image/png": b64encode(PNG).decode(), "text/plain": "<Figure>"})
    shown = {"figure": {"name": "fig-one", "caption": "The notebook's caption."}, "image": {"alt": "The notebook's words."}}
    cells = [
        new.new_markdown_cell("# A fine notebook", id="top"),
        new.new_code_cell("1", id="cell-one", outputs=[stored], metadata={"mystnb": shown}, execution_count=1),
        new.new_code_cell("2", id="cell-words", outputs=[new.new_output("stream", text="2")], execution_count=2),
        new.new_code_cell("3", id="cell-two", outputs=[stored, stored], execution_count=3),
        new.new_code_cell("4", id="cell-bare", outputs=[stored], execution_count=4),
    ]
    language = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    return new.new_notebook(cells=cells, metadata=language)


@dataclass(frozen=True)
class Small:
    """A book with figures that are there and, on a page of their own, figures that are not."""

    html: Path
    figures: list[BeautifulSoup]
    page: BeautifulSoup
    printed: list[str]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    pytest.importorskip("myst_nb")  # the package is tested without it, too
    folder = tmp_path_factory.mktemp("small")
    (folder / "notebooks").mkdir()
    nbformat.write(notebook(), folder / "notebooks" / "one.ipynb")
    references = "{numref}`fig-drawn`, {numref}`fig-shown`, {numref}`fig-other`"
    contents = "```{toctree}\nnotebooks/one\nrefused\n```"
    (folder / "index.md").write_text("\n\n".join(["# Text", references, DRAWN, SHOWN, OTHER, contents]))
    (folder / "refused.md").write_text("\n\n".join(["# Refused", *REFUSED]))
    (folder / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\n"
        "extensions = ['myst_nb', 'figures']\nnb_execution_mode = 'off'\nnumfig = True\n"
        "myst_enable_extensions = ['dollarmath']\n"
    )
    html = folder / "_build" / "html"
    command = [sys.executable, "-m", "sphinx", "-n", "-q", "--no-color", str(folder), str(html)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    page = BeautifulSoup((html / "index.html").read_text(), "html.parser")
    return Small(html, page.find_all("figure"), page, built.stderr.splitlines())


def test_a_drawing_is_a_numbered_figure_with_caption_and_words(small: Small) -> None:
    drawn = small.figures[0]
    assert drawn["id"] == "fig-drawn"
    assert drawn.find("figcaption").get_text(" ", strip=True).startswith("Fig. 1 The caption of the drawing.")
    picture = drawn.find("div", class_="drawing")
    assert (picture["role"], picture["aria-label"]) == ("img", "Springs on wires.")
    assert len(picture.find_all("svg", recursive=False)) == len(drawings.draw("springs"))
    references = [a.get_text() for a in small.page.find_all("a", class_="reference") if a["href"].startswith("#fig-")]
    assert references == ["Fig. 1", "Fig. 2", "Fig. 3"]


def test_an_output_is_the_picture_of_the_notebook_with_its_words(small: Small) -> None:
    _, shown, other = small.figures
    expected = (
        (shown, "The notebook's words.", "Fig. 2 The notebook’s caption."),
        (other, "Other words.", "Fig. 3 Another"),
    )
    for figure, alt, caption in expected:
        image = figure.find("img")
        assert (small.html / image["src"]).read_bytes() == PNG
        assert image["alt"] == alt
        assert figure.find("figcaption").get_text(" ", strip=True).startswith(caption)
        link = figure.find("figcaption").find("a", class_="internal")
        assert (link["href"], link.get_text()) == ("notebooks/one.html#fig-one", "A fine notebook")
    assert "A legend." in other.get_text() and other.find(class_="math")


def test_the_style_sheet_lies_beside_the_pages(small: Small) -> None:
    assert (small.html / "_static" / "drawings.css").read_text() == drawings.style_sheet()
    assert any("drawings.css" in link["href"] for link in small.page.find_all("link"))


def test_a_figure_that_is_not_there_is_an_error_of_the_build(small: Small) -> None:
    errors = [line for line in small.printed if "ERROR" in line or "WARNING" in line]
    assert all("refused.md" in line and "ERROR" in line for line in errors), small.printed
    missing = [message for message in REFUSED.values() if not any(message in line for line in errors)]
    assert not missing, small.printed
    assert len(errors) == len(REFUSED), small.printed
