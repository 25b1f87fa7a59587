"""Two directives: `drawing`, a figure drawn by code, and `output`, a figure that a notebook has stored.

Both make ordinary figures, with a caption and a number, that `numref` finds by their `name`.

    ```{drawing} springs
    :name: fig-springs
    :alt: What is seen, for those who cannot see it.
    The caption.
    ```

    ```{output} notebooks/01_forgetting.ipynb#fig-forgetting-curves
    :name: fig-forgetting-curves-here
    ```

`output` takes the picture from the stored output of the cell with this id, or with this name in its `mystnb` metadata. The
alternative text and the caption are the notebook's own, unless the option `alt` or a body replaces them; a link to the
notebook follows. (MyST-NB's own way, a glued output of another page, comes without caption, number and alternative text.)
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from base64 import b64decode
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.directives.patches import Figure
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parents[1]))  # the folder of the package `drawings`
import drawings

SUFFIX = {"image/png": ".png", "image/svg+xml": ".svg", "image/jpeg": ".jpg"}


class Drawing(SphinxDirective):
    """A numbered figure whose SVG is drawn by book/drawings when the book is built."""

    required_arguments = 1
    has_content = True
    option_spec = {"name": directives.unchanged_required, "alt": directives.unchanged_required}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        (name,) = self.arguments
        if missing := [f":{option}:" for option in ("name", "alt") if option not in self.options]:
            raise self.error(f"the drawing {name!r} needs {' and '.join(missing)}.")
        if not self.content:
            raise self.error(f"the drawing {name!r} needs a caption, in the body of the directive.")
        try:
            panels = "".join(drawings.draw(name))
        except KeyError as error:
            raise self.error(error.args[0]) from None
        for source in Path(drawings.__file__).parent.glob("*.py"):
            self.env.note_dependency(str(source))
        alt = escape(" ".join(self.options["alt"].split()))
        html = f'<div class="drawing" role="img" aria-label="{alt}">{panels}</div>'
        figure = nodes.figure("", nodes.raw("", html, format="html"))
        self.set_source_info(figure)
        body = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, body)
        caption, *legend = body.children
        figure += nodes.caption(caption.rawsource, "", *caption.children)
        if legend:
            figure += nodes.legend("", *legend)
        self.add_name(figure)
        return [figure]


class Output(Figure):
    """A numbered figure that shows the picture which a cell of a notebook has stored as its output."""

    option_spec = Figure.option_spec.copy()

    def run(self) -> list[nodes.Node]:
        env = self.state.document.settings.env
        page, _, wanted = self.arguments[0].partition("#")
        notebook = Path(env.srcdir) / page
        if not wanted or notebook.suffix != ".ipynb" or not notebook.is_file():
            raise self.error(
                f"{self.arguments[0]!r} names no output. Write notebooks/NAME.ipynb#CELL, of a notebook that exists."
            )
        env.note_dependency(str(notebook))
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        cell = self.cell(cells, page, wanted)
        shown = cell["metadata"].get("mystnb", {})
        self.options.setdefault("alt", shown.get("image", {}).get("alt", ""))
        caption = list(self.content) or shown.get("figure", {}).get("caption", "").split("\n")
        if not self.options["alt"].strip() or not "".join(caption).strip():
            raise self.error(f"{self.arguments[0]!r} has no caption or no alternative text, in the notebook or here.")
        if width := shown.get("image", {}).get("width"):
            self.options.setdefault("width", directives.length_or_percentage_or_unitless(str(width)))
        self.options.setdefault("figclass", []).append("from-notebook")
        self.content = StringList(with_link(caption, link(cells, page, shown)), source=page)
        self.arguments = [picture(env.app, cell)]
        return list(super().run())

    def cell(self, cells: list[dict[str, Any]], page: str, wanted: str) -> dict[str, Any]:
        named = {c["metadata"].get("mystnb", {}).get("figure", {}).get("name"): c for c in cells}
        cell = {**{c.get("id"): c for c in cells}, **named}.get(wanted)
        if cell is None:
            figures = ", ".join(sorted(filter(None, named)))
            raise self.error(f"{page} has no cell and no figure {wanted!r}. Its figures are {figures}.")
        if len(pictures(cell)) != 1:
            raise self.error(f"the cell {wanted!r} of {page} has stored {len(pictures(cell))} pictures, not one.")
        return cell


def pictures(cell: dict[str, Any]) -> list[tuple[str, Any]]:
    """The kind and the content of each picture among a cell's stored outputs."""
    stored = (output.get("data", {}) for output in cell.get("outputs", []))
    return [(kind, data[kind]) for data in stored for kind in SUFFIX if kind in data]


def picture(app: Sphinx, cell: dict[str, Any]) -> str:
    """Write a cell's picture under the name and in the folder that MyST-NB gives it, and return its address."""
    ((kind, content),) = pictures(cell)
    content = "".join(content)
    data = content.encode() if kind == "image/svg+xml" else b64decode(content)
    file = Path(app.outdir).parent / "jupyter_execute" / (hashlib.sha256(data).hexdigest() + SUFFIX[kind])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return "/" + Path(os.path.relpath(file.resolve(), app.srcdir)).as_posix()


def link(cells: list[dict[str, Any]], page: str, shown: dict[str, Any]) -> str:
    """A link with the notebook's title, to the figure itself where it has a name."""
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    title = next((line[2:].strip() for line in text.splitlines() if line.startswith("# ")), Path(page).stem)
    name = shown.get("figure", {}).get("name")
    return f"{{ref}}`{title} <{name}>`" if name else f"{{doc}}`{title} </{Path(page).with_suffix('').as_posix()}>`"


def with_link(caption: list[str], link: str) -> list[str]:
    """The caption, with the link at the end of its first paragraph."""
    end = next((i for i, line in enumerate(caption) if not line.strip()), len(caption))
    return [*caption[:end], f"(From the notebook {link}.)", *caption[end:]]


def write_style_sheet(app: Sphinx) -> None:
    folder = Path(app.doctreedir).parent / "drawings"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "drawings.css").write_text(drawings.style_sheet(), encoding="utf-8")
    app.config.html_static_path.append(str(folder))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("drawing", Drawing)
    app.add_directive("output", Output)
    app.connect("builder-inited", write_style_sheet)
    app.add_css_file("drawings.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
