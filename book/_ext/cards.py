"""The directive `part-cards`: one card for each part of the table of contents, made from the table itself and from its pages.

    ```{part-cards}
    forgetting.svg: What the picture shows, for those who cannot see it.
    springs.svg: ...
    ```

One line for each part, in the order of _toc.yml: its picture in book/_static/parts and the words for it. Parts without a line
become a list without a picture. Titles, kinds and times are read from the pages and cannot disagree with them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

WORDS_A_MINUTE = 200
RUNNING_TIME = re.compile(r"\*\*Running time:\*\* [^.;]*?\b(half a|\d+) minutes?\b")


def files(node: Any) -> Iterator[str]:
    """The pages below a node of _toc.yml, in reading order."""
    for child in node.get("chapters", []) + node.get("sections", []):
        yield child["file"]
        yield from files(child)


def text(source: Path) -> str:
    if source.suffix == ".md":
        return source.read_text(encoding="utf-8")
    cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def line(root: Path, page: str, timed: bool) -> str:
    """A page as an item of its card: its title, whether it is text or a notebook, and, where `timed`, how long it takes."""
    notebook = not (root / f"{page}.md").exists()
    source = root / (page + (".ipynb" if notebook else ".md"))
    words = text(source)
    minutes = max(1, round(len(words.split()) / WORDS_A_MINUTE))
    times = f"{minutes} min to read"
    if notebook and (found := RUNNING_TIME.search(words)):
        times += f", {found[1]} min to run"
    mark = "{bdg-primary-line}`notebook`" if notebook else "{bdg-dark-line}`text`"
    return f"* {{doc}}`/{page}` {mark}" + f"\\\n  {times}" * timed


class PartCards(SphinxDirective):
    has_content = True

    def run(self) -> list[nodes.Node]:
        root = Path(self.env.srcdir)
        parts = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))["parts"]
        self.env.note_dependency(str(root / "_toc.yml"))
        pictures = [row.split(":", 1) for row in self.content if row.strip()]
        if len(pictures) > len(parts) or any(len(picture) != 2 for picture in pictures):
            raise self.error(f"part-cards wants at most {len(parts)} lines `picture: words`, one for each part of _toc.yml.")
        rows = ["::::{grid} 1 1 2 3", ":gutter: 3", ""]
        for i, part in enumerate(parts):
            rows += [f":::{{grid-item-card}} {part['caption']}"]
            if i < len(pictures):
                picture, words = pictures[i]
                rows += [f":img-top: /book/_static/parts/{picture.strip()}", f":img-alt: {words.strip()}"]
            rows += ["", *"\n".join(line(root, page, i < len(pictures)) for page in files(part)).split("\n"), ":::", ""]
        body = nodes.Element()
        self.state.nested_parse(StringList([*rows, "::::"], source="part-cards"), self.content_offset, body)
        return body.children


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("part-cards", PartCards)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
