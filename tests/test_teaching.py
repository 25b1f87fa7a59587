"""What a teacher is promised: pages without solutions, a folder of figures, and a guide whose words are those of the book."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pages import NOTEBOOKS, PAGES, ROOT

pytest.importorskip("sphinx")  # the package is tested without it, too
sys.path += [str(ROOT / "book"), str(ROOT / "book" / "_ext")]
import slides
import solutions
from sphinx.errors import ConfigError

TEXTS = sorted((ROOT / "book").rglob("*.md"))
GUIDE = (ROOT / "book" / "teaching.md").read_text(encoding="utf-8")


def markdown(notebook: dict[str, Any]) -> str:
    return "\n\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown")


# Without solutions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", TEXTS, ids=lambda p: p.stem)
def test_a_chapter_loses_its_solutions_and_nothing_else(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    cut = solutions.without(text, notebook=False)
    assert "{solution}" not in cut
    gone = list(re.finditer(r"^````\{solution\}.*\n(?:.*\n)*?````$", text, flags=re.M))
    assert len(gone) == text.count("{solution}"), "a solution that is fenced in another way"
    kept = text
    for found in gone:
        kept = kept.replace(found[0], "")
    assert "".join(cut.split()) == "".join(kept.split())
    assert cut.count("{exercise}") == text.count("{exercise}") and cut.count("{quiz}") == text.count("{quiz}")
    assert cut == text or "{solution}" in text


def lines(cells: list[dict[str, Any]]) -> Iterator[str]:
    for cell in cells:
        if cell["cell_type"] == "markdown":
            yield from "".join(cell["source"]).splitlines()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_loses_its_solutions_and_nothing_else(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    whole, cut = json.loads(text), json.loads(solutions.without(text, notebook=True))
    assert "Solution</summary>" in markdown(whole) and "Solution" not in markdown(cut) and "</details>" not in markdown(cut)
    # line by line: what is inside of a fold goes, everything else stays
    expected, inside = [], False
    for line in lines(whole["cells"]):
        inside = inside or line.startswith("<details>")
        if not inside:
            expected.append(line)
        inside = inside and "</details>" not in line
    assert [x for x in lines(cut["cells"]) if x.strip()] == [x for x in expected if x.strip()]

    kept = [c["id"] for c in cut["cells"]]
    gone = [c for c in whole["cells"] if c["id"] not in kept]
    start = next(i for i, c in enumerate(whole["cells"]) if re.search(r"^## Exercises$", "".join(c["source"]), flags=re.M))
    assert all(c["cell_type"] == "code" and whole["cells"].index(c) > start for c in gone), "cells that compute a solution"
    assert not [c for c in cut["cells"] if "computed solution" in json.dumps(c["metadata"])]
    assert {k: v for k, v in whole.items() if k != "cells"} == {k: v for k, v in cut.items() if k != "cells"}


def test_no_link_leads_into_what_vanishes() -> None:
    """Labels within solutions, and figures of cells that compute one, are named nowhere else."""
    inside, outside = [], []
    for page in TEXTS:
        text = page.read_text(encoding="utf-8")
        cut = solutions.without(text, notebook=False)
        outside.append(cut)
        inside += set(re.findall(r"^:(?:label|name): (\S+)|^\((\S+)\)=", text, flags=re.M)) - set(
            re.findall(r"^:(?:label|name): (\S+)|^\((\S+)\)=", cut, flags=re.M)
        )
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        kept = {c["id"] for c in json.loads(solutions.without(text, notebook=True))["cells"]}
        for cell in json.loads(text)["cells"]:
            name = cell["metadata"].get("mystnb", {}).get("figure", {}).get("name")
            if name and cell["id"] not in kept:
                inside.append((name, ""))
        outside.append(markdown(json.loads(solutions.without(text, notebook=True))))
    named = {label for pair in inside for label in pair if label}
    assert not [label for label in named if any(label in text for text in outside)]


@pytest.mark.parametrize(("value", "expected"), [(None, True), ("", True), ("1", True), ("0", False)])
def test_the_environment_chooses(value: str | None, expected: bool) -> None:
    assert solutions.wanted(value) is expected


def test_another_value_is_quoted() -> None:
    with pytest.raises(ConfigError, match="SOLUTIONS='no' is neither 1"):
        solutions.wanted("no")


BOOK = """# Text

```{exercise} First
:label: ex-first
How many? See {ref}`the second <ex-second>`.
```

````{solution} ex-first
:class: dropdown
Forty-two.

```python
print("forty-two")
```
````

```{exercise} Second
:label: ex-second
Why?
```

:::{solution} ex-second
:class: dropdown
Because of forty-two.
:::

{ref}`ex-second` comes last.

```{toctree}
other
```
"""


def cell(kind: str, source: str, **more: Any) -> dict[str, Any]:
    return {"cell_type": kind, "id": f"c{abs(hash(source))}"[:20], "metadata": {}, "source": source.splitlines(True), **more}


def notebook() -> str:
    code = {"execution_count": 1, "outputs": [{"output_type": "stream", "name": "stdout", "text": ["forty-two\n"]}]}
    fold = "<details><summary>Solution</summary>\n\nIt is forty-two.\n\n</details>\n"
    cells = [
        cell("markdown", "# Other\n"), cell("code", "1 + 1", execution_count=1, outputs=[]),
        cell("markdown", f"## Exercises\n\n**1.** How many?\n\n{fold}"), cell("code", 'print("forty-two")', **code),
        cell("markdown", "## Further reading\n\nA book.\n"), cell("code", "2 + 2", execution_count=3, outputs=[]),
    ]  # fmt: skip
    meta = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"}}  # fmt: skip
    return json.dumps({"cells": cells, "metadata": meta, "nbformat": 4, "nbformat_minor": 5})


@pytest.mark.parametrize("value", ["1", "0"])
def test_pages_and_downloads_without_solutions(tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bs4 = pytest.importorskip("bs4")
    monkeypatch.setenv("SOLUTIONS", value)
    (tmp_path / "index.md").write_text(BOOK)
    (tmp_path / "other.ipynb").write_text(notebook())
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\n"
        "extensions = ['myst_nb', 'sphinx_exercise', 'solutions']\nnb_execution_mode = 'off'\n"
        "myst_enable_extensions = ['colon_fence']\nhtml_sourcelink_suffix = ''\n"
    )
    html = tmp_path / "_build" / "html"
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "--no-color", str(tmp_path), str(html)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = [html / "index.html", html / "other.html", html / "_sources" / "index.md", html / "_sources" / "other.ipynb"]
    for file in files:
        assert ("forty-two" in re.sub(r"<[^>]*>", "", file.read_text(encoding="utf-8"))) == (value == "1"), file
    page = bs4.BeautifulSoup(files[0].read_text(), "html.parser")
    titles = [t.get_text(" ", strip=True) for t in page.select("div.exercise .admonition-title")]
    assert [re.findall(r"Exercise (\d)", t) for t in titles] == [["1"], ["2"]]
    links = len(page.select("a[href='#ex-second']"))  # a solution's title is one as well
    assert links == 2 + (value == "1") and page.find(id="ex-second")
    other = files[1].read_text()
    assert "A book." in other and "How many?" in other


# Slides --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    (folder / "old.png").write_bytes(b"")
    slides.write(folder)
    return folder


def test_every_figure_and_every_drawing_is_a_slide(written: Path) -> None:
    named = []
    for path in NOTEBOOKS:
        for c in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if any("image/png" in o.get("data", {}) for o in c.get("outputs", [])):
                named.append(c["metadata"]["mystnb"]["figure"]["name"])
    shown = {name for page in TEXTS for name in re.findall(r"^```\{drawing\} (\S+)$", page.read_text(), flags=re.M)}
    found = list(slides.slides())
    assert sorted(s.name for s in found if s.suffix == ".png") == sorted(named)
    assert sum(s.suffix == ".svg" for s in found) == len(shown)
    assert len({s.name for s in found}) == len(found)
    order = [PAGES.index(s.page) for s in found]
    assert order == sorted(order), "in the order of the book"
    assert len(list(written.glob("[0-9][0-9]-*"))) == len(found) and not (written / "old.png").exists()


def test_each_slide_has_its_title_its_picture_its_words_and_its_caption(written: Path) -> None:
    parts = (written / "slides.md").read_text(encoding="utf-8").split("\n---\n")
    files = sorted(f.name for f in written.glob("[0-9][0-9]-*"))
    assert len(parts) == len(files)
    for part, file in zip(parts, files, strict=True):
        title, picture, caption, source = part.strip().split("\n\n")
        assert title.startswith("# ") and len(caption.split()) >= 5 and source.startswith("<!-- ")
        found = re.fullmatch(r"!\[(.*)\]\((.*)\)", picture)
        assert found and found[2] == file and len(found[1].split()) >= 5 and found[1] != caption
        head = (written / file).read_bytes()[:8]
        assert head == b"\x89PNG\r\n\x1a\n" if file.endswith(".png") else head.startswith(b"<svg xml")


def test_a_drawing_stands_by_itself(written: Path) -> None:
    """Programs for slides know neither the variables of the page nor the colour of its text."""
    import xml.etree.ElementTree as ET

    for file in written.glob("*.svg"):
        text = file.read_text(encoding="utf-8")
        assert "var(" not in text and "currentColor" not in text
        root = ET.fromstring(text)
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        panels = root.findall(f"{{{slides.SVG}}}svg")
        boxes = [[float(p.attrib[k]) for k in ("x", "y", "width", "height")] for p in panels]
        assert all(x + w <= width and y + h <= height for x, y, w, h in boxes)
        for i, (x, y, w, h) in enumerate(boxes):
            assert all(x + w <= X or X + W <= x or y + h <= Y or Y + H <= y for X, Y, W, H in boxes[:i]), "one beside the other"


# The guide ---------------------------------------------------------------------------------------------------------------


def test_the_commands_of_the_guide_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    assert {"book", "slides", "repository"} <= set(re.findall(r"\bmake ([a-z]+)", GUIDE)) <= targets


def test_the_cells_to_run_live_are_headings_of_their_notebooks() -> None:
    table = GUIDE.split("| cells | let them predict |")[1].split("\n\n")[0]
    links = re.findall(r"\[([^\]]+)\]\(\.\./(notebooks/\w+\.ipynb)\)", table)
    assert len(links) >= 6
    for heading, path in links:
        assert re.search(rf"^#+ {re.escape(heading)}\s*$", markdown(json.loads((ROOT / path).read_text())), flags=re.M), heading


def test_the_minutes_of_a_schedule_follow_one_another() -> None:
    for hours, title in ((2, "### Two hours"), (2, "### Four hours")):
        section = GUIDE.split(title)[1].split("###")[0]
        spans = [(int(a), int(b)) for a, b in re.findall(r"^\| (\d+)–(\d+) \|", section, flags=re.M)]
        assert spans[0][0] == 0 and spans[-1][1] == 60 * hours
        assert all(left[1] == right[0] for left, right in pairwise(spans))
    day = sum(int(m) for m in re.findall(r"^\| \d \((\d+) min\)", GUIDE, flags=re.M))
    assert day == 8 * 60 - 30, "what is left are thirty minutes"
