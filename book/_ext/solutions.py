"""The book without the solutions of its exercises: `make book SOLUTIONS=0`, for those who teach with it.

What vanishes are the folded `solution`s of the chapters, and in the notebooks, below the heading "Exercises", the folded
solutions and the cells that compute them. Exercises keep their numbers and labels, and nothing links to a solution, so that
all links hold. The downloads below the pages are cut in the same way. The repository has the solutions all the same: this
takes them out of sight and locks nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ConfigError

IN_TEXT = re.compile(r"^(`{3,}|:{3,})\{solution\}.*?^\1[ \t]*\n?\n?", flags=re.S | re.M)
IN_NOTEBOOK = re.compile(r"<details>\s*<summary>Solution.*?</details>\n*", flags=re.S)
HEADING = re.compile(r"^## (.*)$", flags=re.M)


def wanted(value: str | None) -> bool:
    """Whether the environment variable SOLUTIONS asks for them; without a value it does."""
    if value not in (None, "", "0", "1"):
        raise ConfigError(f"SOLUTIONS={value!r} is neither 1, with solutions, nor 0, without: make book SOLUTIONS=0")
    return value != "0"


def without(text: str, notebook: bool) -> str:
    """The source of a page, as it is stored, without its solutions."""
    if not notebook:
        return IN_TEXT.sub("", text)
    content = json.loads(text)
    content["cells"] = list(_kept(content["cells"]))
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _kept(cells: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    exercises = False
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            if headings := HEADING.findall(source):
                exercises = headings[-1].strip() == "Exercises"
            yield cell | {"source": IN_NOTEBOOK.sub("", source)}
        elif not exercises:
            yield cell


def choose(app: Sphinx, config: Any) -> None:
    config.solutions = wanted(os.environ.get("SOLUTIONS"))


def cut(app: Sphinx, page: str, source: list[str]) -> None:
    if not app.config.solutions:
        source[0] = without(source[0], app.env.doc2path(page).endswith(".ipynb"))


def cut_downloads(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.config.solutions:
        return
    for page in app.env.found_docs:
        suffix = Path(app.env.doc2path(page)).suffix
        copy = Path(app.outdir, "_sources", page + suffix + app.config.html_sourcelink_suffix)
        if copy.is_file():
            copy.write_text(without(copy.read_text(encoding="utf-8"), suffix == ".ipynb"), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("solutions", True, "env")  # a change of it reads every page anew
    app.connect("config-inited", choose)
    app.connect("source-read", cut)
    app.connect("build-finished", cut_downloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
