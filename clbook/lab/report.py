"""What a named experiment is and what it leaves: results, and a table of the published value beside ours.

Book: book/index, "The numbers".
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from clbook.engine import run
from matplotlib.figure import Figure

from clbook import metrics
from clbook.data import Data
from clbook.method import Method
from clbook.methods import EWC
from clbook.net import Net, mlp
from clbook.result import Result
from clbook.scenarios import Scenario

ARRAYS = ("R", "curve", "curve_steps", "memory_bytes", "seconds")


@dataclass(frozen=True)
class Reference:
    """A value to compare with: ours should be at least (">=") or at most ("<=") so large, and where that is said.

    With "in", ours should lie between `value` and `upper`.
    """

    sense: str
    value: float
    source: str
    upper: float | None = None

    def reached(self, ours: float) -> bool:
        if self.sense == "in":
            return self.value <= ours <= (self.upper or self.value)
        return ours >= self.value if self.sense == ">=" else ours <= self.value


@dataclass(frozen=True)
class Budget:
    """How every run of an experiment is trained. `data` is what the book and paper presets load."""

    seeds: int
    epochs: int
    lr: float
    optimizer: str
    batch_size: int
    hidden: tuple[int, ...]
    lam: float  # of EWC
    fisher_samples: int = 1000
    data: str = "mnist"
    decay: bool = False  # of the learning rate, to zero over each task


@dataclass(frozen=True)
class Setting:
    """One experiment being computed: its sizes, its data, and how to train a part of it so that it can be taken up again."""

    sizes: Any
    data: Data
    work: Path
    device: str = "auto"
    progress: bool | None = None
    workers: int = 1  # processes, for experiments whose parts do not wait for each other

    def train(self, part: str, scenario: Scenario, method: Method, net: Net | None = None, **more: Any) -> Result:
        """One part of the experiment: the method with every seed. A part that is finished is not computed again."""
        s = self.sizes
        training = {name: getattr(s, name) for name in ("epochs", "lr", "optimizer", "batch_size", "decay")}
        place = {"device": self.device, "progress": self.progress, "checkpoint": self.work / part}
        return run(scenario, method, s.seeds, net=net or self.net(), **training, **place, **more)

    def net(self, dropout: tuple[float, float] = (0.0, 0.0)) -> Net:
        return mlp(self.data.x.shape[1], self.data.n_classes, self.sizes.hidden, dropout)

    def ewc(self) -> EWC:
        return EWC(lam=self.sizes.lam, n_samples=self.sizes.fisher_samples)


@dataclass(frozen=True)
class Report:
    """The outcome of one experiment.

    results: one Result per curve of the figure, by its label. arrays: whatever else the figure needs. ours: a quantity's
    name and its value for each seed [seeds]. settings and info say what was computed, with which versions, where and how long.
    """

    name: str
    preset: str
    settings: dict[str, Any]
    results: dict[str, Result]
    arrays: dict[str, np.ndarray]
    ours: dict[str, np.ndarray]
    info: dict[str, Any]

    def table(self, references: Mapping[str, Reference], unit: str = "%") -> list[dict[str, Any]]:
        """One row per quantity: ours, mean and 95 % interval over seeds, beside the reference.

        `reached` is None at the quick preset, whose sizes no reference is meant for.
        """
        rows = []
        for quantity, values in self.ours.items():
            mean, half = (float(v) for v in metrics.interval(np.atleast_1d(values)))
            target = references.get(quantity)
            row = {"quantity": quantity, "ours": mean, "interval": None if math.isnan(half) else half, "unit": unit}
            if target is not None:
                row |= {"sense": target.sense, "reference": target.value, "upper": target.upper, "source": target.source}
                row["reached"] = None if self.preset == "quick" else target.reached(mean)
            rows.append(row)
        return rows

    def save(self, path: str | os.PathLike[str], experiment: Experiment) -> None:
        """Write PATH.json (settings, provenance, table) and PATH.npz (numbers)."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = {
            "experiment": self.name,
            **{k: getattr(experiment, k) for k in ("title", "source", "notes")},
            "preset": self.preset,
            "settings": self.settings,
            "table": self.table(experiment.reference, experiment.unit),
            "provenance": self.info,
            "results": {k: {"runs": r.runs, "names": r.names, "info": r.info} for k, r in self.results.items()},
        }
        arrays = {f"result/{k}/{n}": getattr(r, n) for k, r in self.results.items() for n in ARRAYS}
        arrays |= {f"array/{k}": v for k, v in self.arrays.items()}
        arrays |= {f"ours/{k}": np.atleast_1d(v) for k, v in self.ours.items()}
        np.savez_compressed(path.with_suffix(".npz"), **arrays)
        path.with_suffix(".json").write_text(json.dumps(text, indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Read what `save` wrote."""
        path = Path(path)
        text = json.loads(path.with_suffix(".json").read_text())
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        results = {
            k: Result(**{n: arrays[f"result/{k}/{n}"] for n in ARRAYS}, **_runs(r), theta=[], thetas=[])
            for k, r in text["results"].items()
        }
        of = lambda kind: {k.removeprefix(kind): v for k, v in arrays.items() if k.startswith(kind)}  # noqa: E731
        return cls(text["experiment"], text["preset"], text["settings"], results, of("array/"), of("ours/"), text["provenance"])


@dataclass(frozen=True)
class Experiment:
    """A published experiment: its source, what it should give, its sizes at each preset, and how to compute and draw it.

    compute(setting) returns results, arrays and ours, as in Report; draw(report), the figure. `unit` is that of `reference`.
    """

    name: str
    title: str
    source: str
    reference: dict[str, Reference]
    sizes: dict[str, Any]
    compute: Callable[[Any], tuple[dict[str, Result], dict[str, np.ndarray], dict[str, np.ndarray]]]
    draw: Callable[[Report], Figure]
    notes: str = ""
    unit: str = "%"


def text_table(rows: list[dict[str, Any]], columns: Mapping[str, str]) -> str:
    """Rows as lines of text with aligned columns; `columns` maps keys to headings."""
    cells = [[str(row.get(key, "")) for key in columns] for row in rows]
    numeric = [any(map(_number, column)) for column in zip(*cells, strict=True)]
    lines = [list(columns.values()), *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    pad = lambda c, w, right: c.rjust(w) if right else c.ljust(w)  # noqa: E731
    return "\n".join("  ".join(map(pad, line, widths, numeric)).rstrip() for line in lines)


def plus_minus(mean: float | None, half: float | None, unit: str = "%") -> str:
    """A mean and its interval as text: percent with one decimal, anything else with three; a dash where there is no number."""
    if mean is None or math.isnan(mean):
        return "-"
    digits = 1 if unit == "%" else 3
    interval = "" if half is None or math.isnan(half) else f" ± {half:.{digits}f}"
    return f"{mean:.{digits}f}{interval}"


def comparison(rows: list[dict[str, Any]]) -> str:
    """The table that `reproduce` prints: the reference beside ours."""
    shown = []
    for row in rows:
        suffix = " %" if row["unit"] == "%" else ""
        target = _target(row) + suffix if "reference" in row else ""
        ours = plus_minus(row["ours"], row["interval"], row["unit"]) + suffix
        reached = {True: "yes", False: "NO", None: ""}[row.get("reached")]
        shown.append({"quantity": row["quantity"], "target": target, "ours": ours, "reached": reached})
    columns = ("quantity", "target", "ours", "reached")
    return text_table(shown, dict(zip(columns, ("quantity", "target", "ours (95 % interval)", "reached"), strict=True)))


def _target(row: dict[str, Any]) -> str:
    low, high = (plus_minus(row[name], None, row["unit"]) for name in ("reference", "upper"))
    return f"{low} to {high}" if row["sense"] == "in" else f"{row['sense']} {low}"


def settings_of(sizes: Any) -> dict[str, Any]:
    """A sizes dataclass as plain values."""
    return json.loads(json.dumps(asdict(sizes)))


def _runs(text: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples; the fields of a method do."""
    return text | {"runs": [{k: tuple(v) if isinstance(v, list) else v for k, v in run.items()} for run in text["runs"]]}


def _number(text: str) -> bool:
    return text[:1].isdigit() or (text[:1] in "-+" and text[1:2].isdigit())
