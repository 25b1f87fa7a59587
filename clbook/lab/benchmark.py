"""The benchmark as it is read: what is published, what is to be reached, the rows of the table and its figure.

What is compared stands in `entries`, how it is computed in `compare`. Book: notebooks/08_choosing, "The benchmark".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clbook import metrics, plots
from clbook.lab.compare import compare_all
from clbook.lab.entries import FAMILIES, FASHION_TABLE, PERMUTED_TABLE, SPLIT, TABLE, entry
from clbook.lab.report import Experiment, Reference, Report
from clbook.scenarios import KINDS

VDV = "van de Ven & Tolias 2019, tables 4 and 5, n = 20"
HSU = "Hsu et al. 2018, table 2, n = 10"
MARGIN = 1.0  # percentage points within which two averages count as the same


@dataclass(frozen=True)
class Published:
    """A published average accuracy in percent, its standard error over n runs, and where it stands. NaN: none is given."""

    mean: float
    error: float = math.nan
    n: int = 1
    source: str = ""


def _vdv(mean: float, error: float) -> Published:
    return Published(mean, error, 20, VDV)


def _hsu(mean: float, deviation: float) -> Published:
    return Published(mean, deviation / math.sqrt(10), 10, HSU)


# for task, domain and class
PUBLISHED: dict[str, dict[str, tuple[Published, ...]]] = {
    "split": {
        "fine-tuning": (_hsu(93.46, 2.01), _hsu(55.16, 1.38), _hsu(19.71, 0.08)),
        "joint training": (_hsu(99.52, 0.16), _hsu(98.59, 0.15), _hsu(97.53, 0.30)),
        "EWC": (_vdv(98.64, 0.22), _vdv(63.95, 1.90), _vdv(20.01, 0.06)),
        "online EWC": (_hsu(98.04, 1.10), _hsu(57.33, 1.44), _hsu(19.77, 0.04)),
        "SI": (_hsu(98.56, 0.49), _hsu(64.76, 3.09), _hsu(19.67, 0.09)),
        "MAS": (_hsu(99.22, 0.21), _hsu(68.57, 6.85), _hsu(19.52, 0.29)),
        "L2": (_hsu(98.18, 0.96), _hsu(66.00, 3.73), _hsu(22.52, 1.08)),
        "LwF": (_hsu(99.60, 0.03), _hsu(71.02, 1.26), _hsu(24.17, 0.33)),
        "ER": (_hsu(99.40, 0.08), _hsu(95.16, 0.49), _hsu(90.78, 0.85)),
        "GEM": (_hsu(98.42, 0.10), _hsu(96.16, 0.35), _hsu(92.20, 0.12)),
        "DGR": (_vdv(99.50, 0.03), _vdv(95.72, 0.25), _vdv(90.79, 0.41)),
        "DGR, distilled": (_vdv(99.61, 0.02), _vdv(96.83, 0.20), _vdv(91.79, 0.32)),
    },
    "demo": {"MAS": (Published(98.86, source="Aljundi et al. 2018, the authors' notebook, one run"),)},
}


class Difference(NamedTuple):
    """Ours minus theirs in percentage points, half of its 95 % interval, and what that says."""

    points: float
    half: float
    verdict: Literal["the same", "differs", "cannot tell"]


def difference(ours: np.ndarray, theirs: Published) -> Difference:
    """Whether our runs [n] and published ones have the same average, by Welch's interval for the difference of two means.

    half = t_df sqrt(s^2 / n + e^2), with s the deviation of ours, e their standard error and df as Welch (1947) has it. "the
    same": the interval lies within MARGIN of zero; "differs": it leaves zero out, and is not within MARGIN; else one cannot
    tell, as with a single run on either side.
    """
    from scipy.stats import t

    gap = float(np.mean(ours)) - theirs.mean
    if min(len(ours), theirs.n) < 2 or math.isnan(theirs.error):
        return Difference(gap, math.nan, "cannot tell")
    a, b = float(np.var(ours, ddof=1)) / len(ours), theirs.error**2
    df = (a + b) ** 2 / (a**2 / (len(ours) - 1) + b**2 / (theirs.n - 1))
    half = float(t.ppf(0.975, df)) * math.sqrt(a + b)
    same = abs(gap) + half <= MARGIN
    return Difference(gap, half, "the same" if same else "differs" if abs(gap) > half else "cannot tell")


TARGET = "target of this book"
# what each accuracy should be at least, or between, for task, domain and class
TARGETS: dict[str, tuple[tuple[float, ...], ...]] = {
    "fine-tuning": ((84.0, 94.0), (55.0, 63.0), (19.0, 20.0)),
    "EWC": ((98.6,), (63.0,), (19.0, 21.0)),
    "SI": ((99.0,), (65.0,), (19.0, 21.0)),
    "MAS": ((99.2,), (66.0,), (19.0, 21.0)),
    "LwF": ((99.5,), (71.0,), (22.0, 24.0)),
    "ER": ((98.9,), (93.0,), (88.0,)),
    "A-GEM": ((98.5,), (87.0,), (60.0,)),
    "DGR": ((99.4,), (95.0,), (90.0,)),
    "XdG": ((98.7,),),
    "joint training": ((99.6,), (98.4,), (97.9,)),
}
REFERENCE = {
    f"split {kind}: {label}": Reference("in" if len(bounds) == 2 else ">=", bounds[0], TARGET, *bounds[1:])
    for label, targets in TARGETS.items()
    for kind, bounds in zip(KINDS, targets, strict=False)
} | {
    "demo task: MAS": Reference(">=", 98.8, "the authors' notebook: 98.86"),
    "demo task: MAS, forgetting": Reference("<=", 0.1, "the authors' notebook: 0.07"),
}
PERMUTED_REFERENCE = {
    "permuted domain: EWC": Reference(">=", 94.0, TARGET),
    "permuted domain: SI": Reference(">=", 95.0, TARGET),
    "permuted domain: DGR": Reference(">=", 95.0, TARGET),
    "permuted domain: joint training": Reference(">=", 97.5, TARGET),
}
NOTES = " ".join(
    """Whatever is tuned was chosen on a tenth of the training data that no run was trained on, at full length, with seeds
that no other run has: a grid that grew while its best value lay at an end, until it lay inside, or the outer three
values were less than 0.3 points apart, or a bound or ten values were reached; and a second seed for the best value
and its neighbours, unless the whole curve was flat. The value with the best average accuracy at the end was then used
on all training data. The test set was looked at once. Whoever chooses so looks at held-out data of old tasks, which a
strict learner could not. Methods whose 95 % interval exceeds 3 points got twice the seeds. The arrays search/... in
the .npz hold value, mean accuracy and number of seeds, cpu/... the seconds that the processor was busy with one run.""".split()
)


def rows(report: Report, suite: str = "split") -> list[dict[str, Any]]:
    """The benchmark as rows, one a method and scenario: ours with its interval, the published number and what it cost.

    accuracy, interval, forgetting, published in percent; bytes kept between tasks; time as a multiple of fine-tuning's, each
    by the least busy seed. `verdict` compares with the published number; it is "no method works" where both are within MARGIN
    of fine-tuning, so that agreeing says nothing.
    """
    found = []
    for key, result in report.results.items():
        cell, label = key.split(": ")
        if cell.split()[0] != suite:
            continue
        kind = cell.split()[1]
        mean, half = metrics.interval(report.ours[key])
        theirs = PUBLISHED.get(suite, {}).get(label, ())
        published = theirs[KINDS.index(kind)] if theirs else None
        base = report.arrays.get(f"cpu/{suite} {kind}: fine-tuning")
        found.append({
            "family": entry(key).family, "method": label, "kind": kind, "seeds": len(result.R),
            "accuracy": float(mean), "interval": float(half),
            "forgetting": float(100 * metrics.forgetting(result.R).mean()),
            "published": published.mean if published else None, "source": published.source if published else "",
            "verdict": _verdict(report, suite, kind, label, published) if published else "",
            "bytes": int(result.memory_bytes.max()),
            "time": float(report.arrays[f"cpu/{key}"].min() / base.min()) if base is not None else None,
            "chosen": {t.name: result.runs[0][t.name] for t in entry(key).tuned},
        })  # fmt: skip
    return found


def _verdict(report: Report, suite: str, kind: str, label: str, published: Published) -> str:
    """What the difference says, and whether it can say anything."""
    base, ours = report.ours.get(f"{suite} {kind}: fine-tuning"), report.ours[f"{suite} {kind}: {label}"]
    if base is not None and label != "fine-tuning":
        theirs = PUBLISHED[suite]["fine-tuning"][KINDS.index(kind)].mean
        if abs(np.mean(ours) - np.mean(base)) < MARGIN and abs(published.mean - theirs) < MARGIN:
            return "no method works"
    return difference(ours, published).verdict


def draw(report: Report, figure: Figure | None = None) -> Figure:
    """Average accuracy of every method in each of the three scenarios, with 95 % intervals; a cross is a published number."""
    figure = Figure(figsize=(7, 9), layout="constrained") if figure is None else figure
    found = rows(report)
    order = [label for family in FAMILIES for label, entry in SPLIT.items() if entry.family == family]
    for ax, kind in zip(figure.subplots(1, 3, sharey=True), KINDS, strict=True):
        for row in (r for r in found if r["kind"] == kind):
            _mark(ax, row["accuracy"], row["interval"], order.index(row["method"]), row["method"])
            if row["published"] is not None:
                ax.plot(row["published"], order.index(row["method"]), marker="x", color="#222222", markersize=9)
        for first in np.flatnonzero([a != b for a, b in pairwise(SPLIT[label].family for label in order)]):
            ax.axhline(first + 0.5, color="#bbbbbb", linewidth=1)  # where one family ends
        ax.set_title(kind)
        ax.locator_params(axis="x", nbins=4)
        _names(ax, order)
    figure.supxlabel("average accuracy (%)")
    return figure


def draw_suites(report: Report) -> Figure:
    """Average accuracy of every method in each scenario of each suite of the report, with 95 % intervals.

    One panel below the other where there are more than three.
    """
    cells = list(dict.fromkeys(key.split(": ")[0] for key in report.results))
    order = list(dict.fromkeys(key.split(": ")[1] for key in report.results))
    across = min(len(cells), 3)
    down = -(-len(cells) // across)
    figure = Figure(figsize=(7, 0.6 + (1 + 0.3 * len(order)) * down), layout="constrained")
    axes = list(figure.subplots(down, across, sharey=True, squeeze=False).flat)
    for ax, cell in zip(axes, cells, strict=False):
        for label in (name for name in order if f"{cell}: {name}" in report.ours):
            mean, half = (float(v) for v in metrics.interval(report.ours[f"{cell}: {label}"]))
            _mark(ax, mean, half, order.index(label), label)
        ax.set(title="\n".join(cell.split()))
        _names(ax, order)
    for ax in axes[len(cells) :]:
        ax.set_visible(False)
    figure.supxlabel("average accuracy (%)")
    return figure


def _mark(ax: Axes, mean: float, half: float, y: int, label: str) -> None:
    """A mean and its interval, in the colour and with the marker of the method."""
    ax.errorbar(mean, y, xerr=np.nan_to_num(half), capsize=3, **{**plots.look(label), "linestyle": "none"})


def _names(ax: Axes, order: list[str]) -> None:
    ax.set(yticks=range(len(order)), yticklabels=order, ylim=(len(order) - 0.5, -0.5))
    ax.grid(axis="x", visible=True)


BENCHMARKS = (
    Experiment(
        name="benchmark",
        title="All methods in three scenarios on Split MNIST",
        source="the scenarios of van de Ven & Tolias 2019 (arXiv:1904.07734); the demonstration of Aljundi et al. 2018",
        reference=REFERENCE | PERMUTED_REFERENCE,  # the numbers that are published now hold permuted MNIST too
        sizes=TABLE,
        compute=compare_all,
        draw=draw,
        notes=NOTES,
    ),
    Experiment(
        name="benchmark-permuted",
        title="Ten tasks of permuted MNIST",
        source="the scenario of van de Ven & Tolias 2019 (arXiv:1904.07734)",
        reference=PERMUTED_REFERENCE,
        sizes=PERMUTED_TABLE,
        compute=compare_all,
        draw=draw_suites,
        notes=NOTES,
    ),
    Experiment(
        name="benchmark-fashion",
        title="The main methods in three scenarios on Split Fashion-MNIST",
        source="a harder stream of the same shape: Xiao et al. 2017 (arXiv:1708.07747); nothing published to compare with",
        reference={},
        sizes=FASHION_TABLE,
        compute=compare_all,
        draw=draw_suites,
        notes=NOTES,
    ),
)
