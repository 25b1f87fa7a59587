"""The notebooks as they are stored: run from top to bottom at book size, silent, and with figures that can be read aloud."""

from __future__ import annotations

import ast
import base64
import re
import struct
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from pages import CONFIG, NOTEBOOKS, PAGES

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# what only makes sense on the machine, or in the process, that wrote it
LOCAL = re.compile(r"/(?:home|root|work|tmp|Users|private|mnt)/\w|[A-Z]:\\Users|site-packages|ipykernel_\d|\bat 0x[0-9a-f]{6,}")
pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture
def notebook(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [c for c in notebook.cells if c.cell_type == "code"]


def texts(cell: nbformat.NotebookNode) -> list[str]:
    """Everything a cell's outputs say in words."""
    said = []
    for out in cell.outputs:
        if out.output_type == "stream":
            said.append(out.text)
        said += [v for mime, v in out.get("data", {}).items() if mime.startswith("text/")]
    return said


def pictures(cell: nbformat.NotebookNode) -> int:
    return sum(any(mime.startswith("image/") for mime in out.get("data", {})) for out in cell.outputs)


def headings(notebook: nbformat.NotebookNode) -> list[tuple[int, str]]:
    """(level, text) of every Markdown heading outside fenced code."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"^(```|~~~).*?^\1", "", cell.source, flags=re.M | re.S)
            found += [(len(h[1]), h[2]) for h in re.finditer(r"^(#{1,6})\s+(.+)$", prose, flags=re.M)]
    return found


def test_opens_with_goals_prerequisites_and_running_time(notebook: nbformat.NotebookNode) -> None:
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert len(re.findall(r"^[*-] ", first.source, flags=re.M)) >= 3, "at least three things that one can do afterwards"
    assert re.search(r"\*\*(Before|You need)", first.source), "what comes before"
    assert re.search(r"\*\*Running time:\*\* [^.]*\b(minutes?|seconds)\b[^.]*`book`", first.source), "how long it takes"


def test_is_a_valid_notebook_with_clean_metadata(notebook: nbformat.NotebookNode) -> None:
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5), "cells need ids"
    assert dict(notebook.metadata) == METADATA, "metadata of another kind: run make figures"
    noisy = [c.id for c in notebook.cells if set(c.metadata) - {"mystnb", "tags"}]
    assert not noisy, f"cells with other metadata than mystnb and tags: {noisy}"


def test_is_in_the_table_of_contents(path: Path) -> None:
    assert f"notebooks/{path.stem}" in PAGES


def test_ran_once_from_top_to_bottom(notebook: nbformat.NotebookNode) -> None:
    cells = code(notebook)
    assert cells and all(c.source.strip() for c in cells), "no code, or an empty cell"
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1)), "not run from top to bottom: make figures"
    assert any(c.outputs for c in cells), "no outputs stored: make figures"


def test_ran_at_book_size(notebook: nbformat.NotebookNode) -> None:
    said = " ".join(texts(code(notebook)[0]))
    assert re.search(r"\bbook\b", said), f"the first cell must say that the preset was book, and says {said!r}: make figures"


def test_ran_without_a_complaint(notebook: nbformat.NotebookNode) -> None:
    for cell in code(notebook):
        for out in cell.outputs:
            assert out.output_type != "error", f"{cell.id} raised {out.get('ename')}"
            assert out.get("name") != "stderr", f"{cell.id} wrote to stderr: {out.text}"
            assert "application/vnd.jupyter.widget-view+json" not in out.get("data", {}), f"{cell.id} stored a widget"
        for text in texts(cell):
            assert not re.search(r"\w+Warning\b|Traceback", text), f"{cell.id} warns: {text}"


def test_names_no_machine(notebook: nbformat.NotebookNode) -> None:
    for cell in notebook.cells:
        for text in [cell.source, *(texts(cell) if cell.cell_type == "code" else [])]:
            assert not (found := LOCAL.search(text)), f"{cell.id} names {found[0]!r}"


def test_every_figure_has_caption_name_and_words_for_those_who_cannot_see_it(notebook: nbformat.NotebookNode) -> None:
    names = []
    for cell in code(notebook):
        if not pictures(cell):
            continue
        assert pictures(cell) == 1, f"{cell.id} makes {pictures(cell)} figures; one caption belongs to one figure"
        about = cell.metadata.get("mystnb", {})
        alt, figure = about.get("image", {}).get("alt", ""), about.get("figure", {})
        assert len(alt.split()) >= 5, f"{cell.id}: the alt text {alt!r} tells a blind reader too little"
        assert len(figure.get("caption", "").split()) >= 5, f"{cell.id}: caption {figure.get('caption')!r}"
        assert alt.strip() != figure["caption"].strip(), f"{cell.id}: the alt text repeats the caption"
        assert re.fullmatch(r"fig-[a-z0-9-]+", figure.get("name", "")), f"{cell.id}: figure name {figure.get('name')!r}"
        names.append(figure["name"])
    assert names, "a chapter without a figure"
    assert len(set(names)) == len(names), f"two figures of one name: {names}"


def test_pictures_in_the_text_have_words(notebook: nbformat.NotebookNode) -> None:
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert not re.findall(r"!\[\s*\]\(", prose), "an image without alt text"
    assert all("alt=" in tag for tag in re.findall(r"<img[^>]*>", prose)), "an <img> without alt text"


def test_first_code_cell_installs_the_package_where_it_is_missing(notebook: nbformat.NotebookNode) -> None:
    first = code(notebook)[0].source
    install = f"%pip install -q git+{CONFIG['repository']['url']}"
    assert re.search(r"try:\n\s+import clbook\b.*\nexcept ModuleNotFoundError:", first), "the install must be guarded"
    assert install in first, f"the first code cell must hold {install!r}"
    assert "clbook.preset()" in first, "the first code cell must name the preset"


def test_begins_with_its_title_and_skips_no_heading(notebook: nbformat.NotebookNode) -> None:
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# "), "the first cell must be the title"
    found = headings(notebook)
    assert [level for level, _ in found].count(1) == 1, f"one title, not {[t for level, t in found if level == 1]}"
    for (above, _), (below, text) in pairwise(found):
        assert below <= above + 1, f"{text!r} is a heading of level {below} below one of level {above}"


def test_says_how_long_it_runs(notebook: nbformat.NotebookNode) -> None:
    assert re.search(r"\d\s*(s|seconds?|minutes?)\b", notebook.cells[0].source), "the first cell must say the running time"


def test_code_fits_the_page(notebook: nbformat.NotebookNode) -> None:
    long = [(c.id, line) for c in code(notebook) for line in c.source.splitlines() if len(line) > 88]
    assert not long, f"wider than 88 columns: {long}"


def test_figures_are_at_most_7_inches_wide_and_twice_as_fine_as_the_page(notebook: nbformat.NotebookNode) -> None:
    for cell in code(notebook):
        for out in cell.outputs:
            if png := out.get("data", {}).get("image/png"):
                width, _ = struct.unpack(">II", base64.b64decode(png)[16:24])  # the header of a PNG; 0.2 inches are margin
                shown = out.metadata["image/png"]["width"]
                assert width <= 1440 and abs(width - 2 * shown) <= 1, f"{cell.id}: {width} pixels, shown on {shown}"


def only_checks(statement: ast.stmt) -> bool:
    """Whether it asserts, or goes through cases and does nothing else in them."""
    if isinstance(statement, ast.If | ast.For | ast.With):
        return all(only_checks(inner) for inner in statement.body)
    return isinstance(statement, ast.Assert)


def test_what_only_checks_is_folded_and_what_is_folded_says_what_it_is(notebook: nbformat.NotebookNode) -> None:
    for cell in code(notebook):
        folded = "hide-input" in cell.metadata.get("tags", [])
        if not cell.source.lstrip().startswith(("try:", "%")):  # the set-up, which is not plain Python
            assert folded or not all(only_checks(s) for s in ast.parse(cell.source).body), f"{cell.id} is to be folded"
        assert folded == ("code_prompt_show" in cell.metadata.get("mystnb", {})), f"{cell.id}: its line when folded"


def test_results_are_tables_and_sentences(notebook: nbformat.NotebookNode) -> None:
    for cell in code(notebook):
        for text in texts(cell):
            assert not re.search(r"-dirty\b|^\{'", text, flags=re.M), f"{cell.id} shows {text!r}"
