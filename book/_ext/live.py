"""The directive `live`: a figure that moves under the reader's hand, and its still picture where scripts are off.

    ```{live} springs
    :name: fig-live-springs
    :alt: what the still picture shows
    The caption.
    ```

It is an ordinary figure with a number and a caption, so `numref` works. Beside the pages lie the still picture and the scripts,
which are loaded on pages that hold such a figure and nowhere else.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.directives.patches import Figure

FOLDER = "live"  # in _static
SHARED = ["numerics.js", "controls.js"]
FIGURES = {
    "springs": ["weights.js", "springs.js"],
    "forget": ["digits.js", "learning.js", "forget.js"],
    "importance": ["digits.js", "learning.js", "importance.js"],
}


class Live(Figure):
    """```{live} NAME with the options, the caption and the legend of `figure`."""

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in FIGURES:
            raise self.error(f"there is no live figure {name!r}: choose one of {', '.join(FIGURES)}")
        if not self.options.get("alt"):
            raise self.error(f"the live figure {name!r} needs :alt:, the words for its still picture")
        self.arguments[0] = f"/book/_static/{FOLDER}/{name}.png"
        self.options.setdefault("figclass", []).extend(["live", f"live-{name}"])
        return list(super().run())


def add_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """The scripts of the live figures on this page, each once, in the order in which they build on each other."""
    if doctree is None:
        return
    classes = {c for figure in doctree.findall(nodes.figure) for c in figure["classes"]}
    own = [script for name, scripts in FIGURES.items() if f"live-{name}" in classes for script in scripts]
    if own:
        app.add_css_file(f"{FOLDER}/live.css")
    for script in dict.fromkeys(SHARED + own if own else []):
        app.add_js_file(f"{FOLDER}/{script}", loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("live", Live)
    app.connect("html-page-context", add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
