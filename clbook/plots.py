"""One function per kind of figure: data first, then keywords, `ax=None`; each returns the Axes.

Figures are drawn on white with dark text, so that they read the same on a light and on a dark page, and with letters large
enough for a phone. A method, a task or a scenario has one colour everywhere, dark enough for white paper; the methods that are
compared most often can be told apart by the colour-blind.
Book: every notebook.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from clbook import metrics
from clbook.result import Result

# for what is no method, no task and no scenario: eight that keep apart for the colour-blind, each at least 3 to 1 on white
PALETTE = ["#1c69e3", "#cb8315", "#219b5c", "#c4371d", "#5a3473", "#139cb6", "#f443a9", "#707070"]
# A family is a hue, a member a shade of it; the methods compared most often keep apart without the family.
COLOURS = {
    # bounds: grey is the thing to beat (SGD and fine-tuning are one thing under two names), black what is possible
    "fine-tuning": "#707070", "finetune": "#707070", "SGD": "#707070", "joint": "#000000", "cumulative": "#3d4a52",
    "EWC": "#1c69e3", "online EWC": "#548fe6", "SI": "#219b5c", "RWalk": "#0d5c38", "MAS": "#5a3473", "L2": "#cb8315",
    "LwF": "#831826",
    # rehearsal: stored samples, their gradients, their outputs, samples made up
    "ER": "#5f6703", "A-GEM": "#f443a9", "GEM": "#a3176d", "DER++": "#139cb6", "DGR": "#8a5f2a", "DGR, distilled": "#b98747",
    # new models and averages of models: reds and browns
    "separate": "#c2410c", "duplicate and fine-tune": "#0f766e", "feature extraction": "#e8590c", "progressive": "#9a4a2f",
    "fine-tuning of the top": "#4f7a94", "IMM": "#d0605e", "IMM, mean": "#d0605e", "IMM, mode": "#a83a45", "average": "#b9837a",
    # a classifier on features that never change: limes
    "class means": "#5f9a0c", "LDA": "#4a780f", "ridge": "#3b5c14",
    # two memories: sea greens
    "CLS-ER": "#0b5a6b", "fast and slow weights": "#4b8f93",
    # fine-tuning, and what keeps a network able to learn
    "LoRA": "#7a5c00", "pseudo-rehearsal": "#2d1160", "recorded replay": "#0f88a8", "own answers": "#b5452a",
    "policy gradient": "#33658a", "Adam": "#222b33",
    "weight decay": "#a07000", "shrink and perturb": "#3f7d20", "continual backprop": "#9b2d6f", "layer norm": "#2b7a78",
    # few neurons a task: violets
    "XdG": "#7c4dd8", "PackNet": "#a06fe0", "HAT": "#8b3fb0", "k winners take all": "#b668c4",
    # the first tasks of a notebook by their names, and the three scenarios: used by no method
    "task A": "#332288", "task B": "#cc6677", "task C": "#2e8b7d",
    "task-incremental": "#117733", "domain-incremental": "#8a8a22", "class-incremental": "#882255",
}  # fmt: skip
# the classes of the package that are called otherwise in a figure
ALIASES = {
    "AGEM": "A-GEM", "DERpp": "DER++", "CLSER": "CLS-ER", "FastWeights": "fast and slow weights", "KWTA": "k winners take all",
    "FeatureExtraction": "feature extraction", "DGR+distill": "DGR, distilled",
    "fast weights": "fast and slow weights", "k-WTA": "k winners take all",
    "ClassMeans": "class means", "PseudoRehearsal": "pseudo-rehearsal", "RecordedReplay": "recorded replay",
    "OwnAnswers": "own answers",
    "PolicyGradient": "policy gradient", "WeightDecay": "weight decay", "ShrinkPerturb": "shrink and perturb",
    "ContinualBackprop": "continual backprop",
    "all weights": "fine-tuning", "top layers alone": "feature extraction", "averaged with the base": "average",
    "replay": "ER", "both texts": "joint", "own right answers": "own answers", "all tasks so far": "cumulative",
}  # fmt: skip
# a second sign beside the colour: dashes where two shades of one hue meet, and a marker for every method of the main table
DASHED = {"online EWC", "RWalk", "GEM", "DGR, distilled", "IMM, mode", "fast and slow weights", "cumulative"}
MARKERS = {
    "fine-tuning": "v", "finetune": "v", "SGD": "v", "joint": "P", "EWC": "o", "SI": "s", "MAS": "D", "L2": "^", "LwF": "*",
    "ER": "X", "A-GEM": "p", "DER++": "h",
}  # fmt: skip


def use_style() -> None:
    """The look of every figure in the book: call it once in the first cell of a notebook.

    Letters of 12 points and more are still 8 pixels high where a figure of 7 inches, the widest of the book, is shown on a
    phone. Pictures have two pixels for each of the page's, also in Jupyter, where they are shown at their size.
    """
    sns.set_theme(
        context="notebook",
        style="whitegrid",
        palette=PALETTE,
        font_scale=1.15,
        rc={
            "figure.figsize": (6, 4), "figure.dpi": 100, "savefig.dpi": 200, "figure.facecolor": "white",
            "savefig.facecolor": "white", "figure.constrained_layout.use": True, "axes.spines.top": False,
            "axes.spines.right": False, "lines.linewidth": 2, "image.cmap": "viridis", "legend.fontsize": 12,
        },
    )  # fmt: skip
    if "inline" in plt.get_backend():  # in a notebook
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")


def colour(label: str) -> str:
    """The colour of a method, task or scenario: that of the longest known name with which the label starts.

    Capitals and signs do not count, so "EWC", "ewc" and "EWC, λ = 3" are one. Any other label has one of PALETTE, always the
    same.
    """
    name = known(label)
    return PALETTE[sum(map(ord, label)) % len(PALETTE)] if name is None else COLOURS[name]


def look(label: str) -> dict[str, Any]:
    """Colour, line and marker of a method, for Axes.plot and Axes.errorbar."""
    name = known(label) or ""
    return {"color": colour(label), "linestyle": "--" if name in DASHED else "-", "marker": MARKERS.get(name, "o")}


def known(label: str) -> str | None:
    """The longest name of COLOURS with which a label starts, word by word, or None."""
    words = _words(label)
    names = {**{name: name for name in COLOURS}, **ALIASES}
    fitting = [name for name in names if words[: len(_words(name))] == _words(name)]
    return names[max(fitting, key=lambda name: len(_words(name)))] if fitting else None


def _words(label: str) -> list[str]:
    return re.findall(r"[a-z0-9]+\+*", label.lower())


def accuracy_matrix(R: np.ndarray, *, names: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """R [T, T] as a table of percent: rows, the task just trained; columns, the task tested."""
    ax = _axes(ax)
    names = list(names) if names is not None else [str(k + 1) for k in range(len(R))]
    sns.heatmap(
        100 * R, annot=len(R) <= 10, fmt=".0f", vmin=0, vmax=100, mask=np.isnan(R), cmap="viridis", square=True, ax=ax,
        xticklabels=names, yticklabels=names, cbar_kws={"label": "accuracy (%)"},
    )  # fmt: skip
    ax.set(xlabel="tested on task", ylabel="after training on task")
    ax.tick_params(axis="y", rotation=0)
    return ax


def training_curves(
    results: Mapping[str, Result], task: int, *, ax: Axes | None = None, legend: bool = True, level: float = 0.95
) -> Axes:
    """Accuracy on one task while all tasks are trained: a line per method, mean over runs, its interval shaded.

    Dashed vertical lines mark the start of each task. Steps are optimiser steps, counted over all tasks.
    """
    ax = _axes(ax)
    for label, result in results.items():
        steps, values = result.curve_steps[:, 1], 100 * result.curve[:, :, task]
        seen = ~np.isnan(values).all(0)
        _band(ax, steps[seen], values[:, seen], label, level)
    _task_starts(ax, next(iter(results.values())))
    ax.set(xlabel="training steps", ylabel=f"accuracy on task {task + 1} (%)")
    if legend:
        ax.legend()
    return ax


def average_so_far(results: Mapping[str, Result], *, ax: Axes | None = None, level: float = 0.95) -> Axes:
    """Average accuracy over the tasks seen so far, against their number: mean over runs and its interval."""
    ax = _axes(ax)
    for label, result in results.items():
        values = 100 * metrics.average_so_far(result.R)  # [runs, T]
        _band(ax, np.arange(1, values.shape[1] + 1), values, label, level, marker="o")
    ax.set(xlabel="number of tasks seen", ylabel="average accuracy (%)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    return ax


def lines(
    x: Sequence[float],
    values: Mapping[str, np.ndarray],
    *,
    ax: Axes | None = None,
    xlabel: str,
    ylabel: str,
    level: float = 0.95,
    **style: Any,
) -> Axes:
    """A line per label: the mean of its values [runs, X] against x [X], its interval shaded where there are several runs.

    `style` goes to Axes.plot for every line.
    """
    ax = _axes(ax)
    for label, v in values.items():
        _band(ax, np.asarray(x), np.atleast_2d(v), label, level, **style)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if len(values) > 1:
        ax.legend()
    return ax


def bars(values: Mapping[str, Sequence[float]], *, ax: Axes | None = None, unit: str = "accuracy (%)") -> Axes:
    """One bar per label with the mean of its values and their 95 % interval."""
    ax = _axes(ax)
    for i, (label, v) in enumerate(values.items()):
        mean, half = (float(part) for part in metrics.interval(np.asarray(v)))
        ax.bar(i, mean, yerr=None if np.isnan(half) else half, color=colour(label), capsize=4, error_kw={"ecolor": "#222222"})
        ax.text(i, mean, f" {mean:.1f}", ha="center", va="bottom")
    ax.set_xticks(range(len(values)), list(values))
    ax.set_ylabel(unit)
    return ax


def images(
    x: np.ndarray,
    shape: tuple[int, ...],
    *,
    titles: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    columns: int = 8,
) -> Figure:
    """Flat grey images x [N, D] side by side, a title over each and a word before each row if given; returns the Figure."""
    n_rows, width = -(-len(x) // columns), 6.0
    side = (width - (1.4 if rows else 0)) / min(columns, len(x))
    figure, axes = plt.subplots(
        n_rows, min(columns, len(x)), figsize=(width, side * n_rows * (1.25 if titles else 1)), squeeze=False
    )  # fmt: skip
    for i, ax in enumerate(axes.flat):
        ax.set(xticks=[], yticks=[], frame_on=False)
        if i < len(x):
            ax.imshow(np.asarray(x[i]).reshape(shape[-2:]), cmap="gray_r", vmin=0, vmax=1)
        if i < len(x) and titles:
            ax.set_title(titles[i], fontsize=14)
    for word, ax in zip(rows or [], axes[:, 0], strict=False):
        ax.set_ylabel(word, rotation=0, ha="right", va="center", fontsize=14)
    return figure


def regions(
    log_p: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    *,
    mass: Sequence[float] = (0.5, 0.95),
    ax: Axes | None = None,
    color: str = "#444444",
    label: str | None = None,
    filled: bool = False,
    **style: Any,
) -> Axes:
    """The smallest regions that hold `mass` of a density, given by its logarithm log_p [Y, X] on a grid x [X], y [Y].

    The logarithm may miss a constant. Filled regions are light outside and dark inside. `style` goes to Axes.contour for
    outlines.
    """
    ax, log_p = _axes(ax), np.asarray(log_p)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    falling = np.sort(p, axis=None)[::-1]
    inside = np.searchsorted(falling.cumsum(), sorted(mass, reverse=True))
    levels = [float(falling[min(i, falling.size - 1)]) for i in inside]  # rising: the largest region has the lowest edge
    if filled:
        shades = [(color, 0.25 + 0.35 * i / max(1, len(levels) - 1)) for i in range(len(levels))]
        ax.contourf(x, y, p, levels=[*levels, 1.0], colors=shades)
    else:
        ax.contour(x, y, p, levels=levels, colors=[color], **style)
    if label and filled:
        ax.fill_between([], [], [], color=color, alpha=0.5, linewidth=0, label=label)
    elif label:
        ax.plot([], [], color=color, label=label, linestyle=style.get("linestyles", "-"))
    return ax


def agreement(
    first: np.ndarray, second: np.ndarray, *, ax: Axes | None = None, decades: tuple[float, float] = (-10, -2)
) -> Axes:
    """Two estimates [P] of the same importances against each other, both axes logarithmic: darker where more parameters lie.

    The line is where they agree. Parameters that are zero or outside the decades are left out.
    """
    ax = _axes(ax)
    low, high = decades
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    positive = (first > 0) & (second > 0)
    a, b = np.log10(first[positive]), np.log10(second[positive])
    ax.hexbin(a, b, gridsize=45, extent=(low, high, low, high), bins="log", mincnt=1, cmap="viridis_r", linewidths=0)
    ax.plot([low, high], [low, high], color="#222222", linewidth=1)
    step = 4 if high - low >= 8 else 2
    ticks = np.arange(np.ceil(low / step) * step, high + 1, step)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(ticks, [f"$10^{{{t:.0f}}}$" for t in ticks])
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    return ax


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots()[1] if ax is None else ax


def _band(ax: Axes, x: np.ndarray, values: np.ndarray, label: str, level: float, **style: Any) -> None:
    """Mean of values [runs, E] against x [E], with the interval shaded where there are several runs."""
    mean, half = metrics.interval(values, level)
    look_of = {"color": colour(label), "linestyle": look(label)["linestyle"], **style}
    ax.plot(x, mean, label=label, **look_of)
    if len(values) > 1:
        ax.fill_between(x, mean - half, mean + half, color=colour(label), alpha=0.2, linewidth=0)


def _task_starts(ax: Axes, result: Result) -> None:
    tasks, steps = result.curve_steps.T
    for k in range(1, int(tasks.max()) + 1):
        before, after = steps[tasks == k - 1], steps[tasks == k]
        if len(before) and len(after):
            ax.axvline(before.max(), color="#888888", linestyle="--", linewidth=1)
