"""The numbers of the benchmark and of the fixed features in the text, taken from the stored results when the pages are built.

A directive gives a table of some methods, a role one number with its interval; so no page holds a copy that could grow old:

    ```{benchmark}                                {benchmark}`domain: IMM, mean`
    IMM, mean                                     {benchmark}`permuted domain: EWC`
    LDA, 2000 random features
    ```

A key without a suite is one of Split MNIST, of the benchmark or else of the fixed features.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective, SphinxRole

from clbook import metrics
from clbook.lab import experiments
from clbook.lab.report import Report
from clbook.scenarios import KINDS

STORED = ("benchmark", "benchmark-permuted", "benchmark-fashion", "fixed-features")
HEAD = ["method", "task told", "not told", "new classes", "kept (MB)"]


@cache
def reports() -> list[Report]:
    return [experiments.stored(name) for name in STORED if (experiments.published() / f"{name}.json").exists()]


def found(key: str) -> tuple[Report, str] | None:
    """The report that has a result such as "domain: EWC", and the result's whole name in it."""
    names = [key, *(f"{suite} {key}" for suite in ("split", "mnist"))]  # the fixed features are named by their data
    return next(((r, name) for r in reports() for name in names if name in r.ours), None)


def accuracy(key: str) -> str:
    """What is printed for a result: the mean, and the half width of its 95 % interval where there are several runs."""
    holds = found(key)
    if holds is None:
        return ""
    report, name = holds
    mean, half = (float(v) for v in metrics.interval(report.ours[name]))
    return f"{mean:.1f}" if math.isnan(half) else f"{mean:.1f}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{half:.1f}"


def kept(label: str) -> str:
    """The most that a method keeps between tasks in any of the three scenarios, in MB."""
    holds = [report.results[name] for report, name in filter(None, (found(f"{kind}: {label}") for kind in KINDS))]
    size = max(result.memory_bytes.max() for result in holds) / 1e6
    return "0" if size == 0 else f"{size:.1f}" if size >= 0.1 else f"{size:.3f}"


def depend(env: BuildEnvironment) -> None:
    """Read the page anew when the numbers change."""
    for name in STORED:
        env.note_dependency(str(experiments.published() / f"{name}.json"))


class Number(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        shown = accuracy(self.text)
        if not shown:
            raise ExtensionError(f"{self.env.docname}: the stored results have no {self.text!r}")
        depend(self.env)
        return [nodes.Text(shown)], []


class Rows(SphinxDirective):
    has_content = True

    def run(self) -> list[nodes.Node]:
        lines = [HEAD, ["---"] * len(HEAD)]
        for label in (line.strip() for line in self.content if line.strip()):
            cells = [accuracy(f"{kind}: {label}") for kind in KINDS]
            if not any(cells):
                raise ExtensionError(f"{self.env.docname}: the stored results have no method {label!r}")
            lines.append([label, *(cell or "–" for cell in cells), kept(label)])
        depend(self.env)
        table = nodes.Element()
        self.state.nested_parse(StringList(["| " + " | ".join(line) + " |" for line in lines]), self.content_offset, table)
        return table.children


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("benchmark", Rows)
    app.add_role("benchmark", Number())
    return {"parallel_read_safe": True}
