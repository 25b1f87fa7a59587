"""What happens between two tasks, and where nobody says that one ends.

`stability-gap`: accuracy on all tasks seen, measured after every step. `streams`: one pass in batches of ten over tasks that
fade into each other, with methods that are told of the middle of each transition, that look for it, and that do not care.
Book: notebooks/12_streams.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from clbook import methods as m
from clbook import metrics, plots
from clbook.checks import Count, Share
from clbook.lab.provenance import concat
from clbook.lab.report import Arrays, Computed, Experiment, Reference, Report, Seeds, Setting, Values, arguments, with_values
from clbook.lab.search import Tuned
from clbook.loop import Training, run
from clbook.method import Method, Rng, State
from clbook.methods import online
from clbook.methods.detector import changes
from clbook.net import Net, mlp
from clbook.result import Result
from clbook.scenarios import Batch, Scenario, blurred, permuted, split

STREAMS = ("permuted", "split")  # domain-incremental, and class-incremental
OF_STREAM = 100  # a run of seed s gets the stream of seed 100 + s; the detector was set on that of seed 0
HELD_OUT = 0.02  # the share of the training data on which values are chosen


class Entry(NamedTuple):
    """A method and what is searched: a field of its own, or lr."""

    method: Method
    tuned: tuple[Tuned, ...] = ()


def _lam(*start: float, factor: float = 10.0) -> Tuned:
    return Tuned("lam", start, factor)


EWC, MAS, SI = _lam(1.0, 10.0, 100.0), _lam(0.01, 0.1, 1.0), _lam(1.0, 10.0, 100.0)
LWF, REPLAY, DARK = _lam(0.3, 1.0, 3.0, factor=3.0), _lam(0.3, 1.0, 3.0, factor=3.0), Tuned("alpha", (0.1, 0.3, 1.0), 3.0)
RATE = Tuned("lr", (0.01, 0.03, 0.1), 3.0)

TOLD = {
    "fine-tuning": Entry(m.Finetune()),
    "EWC": Entry(m.EWC(lam=1.0, n_samples=200), (EWC,)),
    "MAS": Entry(m.MAS(lam=1.0, n_samples=200), (MAS,)),
    "SI": Entry(m.SI(lam=1.0), (SI,)),
    "LwF": Entry(m.LwF(lam=1.0), (LWF,)),
    "ER": Entry(m.ER(size=200, buffer="reservoir"), (REPLAY,)),
    "DER++": Entry(m.DERpp(size=200), (DARK,)),
    "A-GEM": Entry(m.AGEM(size=200, buffer="reservoir")),
    "all tasks so far": Entry(m.Cumulative()),
}
ONLINE = {
    "fine-tuning": Entry(m.Finetune()),
    "fine-tuning, own rate": Entry(m.Finetune(), (RATE,)),
    "EWC, told": Entry(m.EWC(lam=1.0, n_samples=200), (EWC,)),
    "EWC, detector": Entry(online.StreamEWC(lam=1.0), (EWC,)),
    "EWC, clock": Entry(online.StreamEWC(lam=1.0, every=50), (EWC,)),
    "MAS, told": Entry(m.MAS(lam=1.0, n_samples=200), (MAS,)),
    "MAS, detector": Entry(online.StreamMAS(lam=1.0), (MAS,)),
    "SI, told": Entry(m.SI(lam=1.0), (SI,)),
    "SI, detector": Entry(online.StreamSI(lam=1.0), (SI,)),
    "LwF, told": Entry(m.LwF(lam=1.0), (LWF,)),
    "LwF, detector": Entry(online.ChangeLwF(lam=1.0), (LWF,)),
    "LwF, slow teacher": Entry(online.StreamLwF(lam=1.0), (LWF,)),
    "ER": Entry(online.StreamER(), (REPLAY,)),
    "DER++": Entry(online.StreamDERpp(), (DARK,)),
    "A-GEM": Entry(online.StreamAGEM()),
    "shuffled": Entry(m.Joint()),
}
CLASSES = (  # those that are tried where new classes come: springs are known not to work there, told or not
    "fine-tuning", "EWC, told", "EWC, detector", "SI, detector", "LwF, told", "LwF, detector", "LwF, slow teacher",
    "ER", "DER++", "A-GEM", "shuffled",
)  # fmt: skip
WIDE = ("fine-tuning", "EWC, told", "EWC, detector", "EWC, clock")  # those that are tried at every width, on permuted images


def labels_of(stream: str, first: bool) -> tuple[str, ...]:
    """What is run on a stream, at the first width or at another."""
    if stream == "split":
        return CLASSES if first else ()
    return tuple(ONLINE) if first else WIDE


@dataclass(frozen=True, kw_only=True)
class Sizes(Training):
    """The tasks and the network; `n` samples of each task make a stream, `widths` its transitions, searched at the first."""

    seeds: Count
    tasks: Count
    n: Count
    n_test: Count
    hidden: tuple[Count, ...]
    widths: tuple[Share, ...] = (0.5,)
    searched: bool = True
    data: str = "mnist"


def tasks_of(stream: str, s: Setting) -> Scenario:
    """The tasks with their boundaries, on at most n_test test samples each."""
    data, sizes = s.data, s.sizes
    if stream == "permuted":
        return permuted(data.subset(None, sizes.n_test), sizes.tasks)
    return split(data.subset(None, sizes.tasks * sizes.n_test), sizes.tasks, kind="class")


def net_of(s: Setting, scenario: Scenario) -> Net:
    return mlp(s.data.x.shape[1], scenario.n_outputs, s.sizes.hidden)


def part_of(stream: str, label: str) -> str:
    return re.sub("[ :]+", "-", f"{stream}-{label}").replace(",", "").replace("+", "p")


def _chosen(
    s: Setting, stream: str, tasks: Scenario, entries: dict[str, Entry], trial: Callable[..., Result]
) -> dict[str, tuple[Method, dict[str, Any], Arrays]]:
    """Each method with what was searched of it, what goes to its training, and what was tried."""
    found = {}
    for label, entry in entries.items():

        def train(part: str, held: Scenario, values: Values, seeds: Seeds, entry: Entry = entry) -> Result:
            method, how = with_values(entry.method, values)
            (seed,) = seeds or ()
            return trial(s, part_of("search", part), held, method, seed, how)

        values, tried = s.search(f"{stream}: {label}", tasks, entry.tuned, train, share=HELD_OUT)
        found[label] = (*with_values(entry.method, values), tried)
    return found


def anytime(result: Result) -> dict[str, np.ndarray]:
    """The metrics of a curve in percent, by name [runs]: the end, the mean over time, and the worst."""
    curve, trained = result.curve, result.curve_steps[:, 0]
    found = {
        "final": metrics.average_accuracy(result.R),
        "anytime": metrics.average_anytime_accuracy(curve),
        "min": metrics.min_accuracy(curve, trained),
        "worst case": metrics.worst_case_accuracy(curve, trained),
    }
    return {name: 100 * np.nan_to_num(np.asarray(values)) for name, values in found.items()}


# the stability gap -----------------------------------------------------------------------------------------------------


def compute_gap(s: Setting) -> Computed:
    """Choose each strength by the average at the end, then measure every seed after every step."""
    arrays: dict[str, np.ndarray] = {}
    runs: list[Result] = []
    ours: dict[str, np.ndarray] = {}
    for stream in STREAMS:
        tasks = tasks_of(stream, s)
        for label, (chosen, how, tried) in _chosen(s, stream, tasks, TOLD, _gap_trial).items():
            result = s.train(part_of(stream, label), tasks, chosen, net_of(s, tasks), **how)
            runs.append(result)
            arrays |= tried | {f"curve/{stream}: {label}": result.curve.astype(np.float32)}
            arrays[f"steps/{stream}"] = result.curve_steps
            ours |= {f"{stream}: {label}: {name}": values for name, values in anytime(result).items()}
    return Computed({}, arrays, ours, tuple(runs))


def _gap_trial(s: Setting, part: str, held: Scenario, method: Method, seed: int, how: dict[str, Any]) -> Result:
    how = how | {"eval_every": None, "on_divergence": "nan"}
    return s.train(part, held, method, net_of(s, held), [seed], **how)


def draw_gap(report: Report, figure: Figure | None = None) -> Figure:
    """Accuracy on the first task over all steps, for every method: one panel a stream."""
    figure = Figure(figsize=(7, 7), layout="constrained") if figure is None else figure
    axes = figure.subplots(2, 1, sharex=True)
    for ax, stream in zip(axes, STREAMS, strict=True):
        steps = report.arrays[f"steps/{stream}"][:, 1]
        for i, label in enumerate(TOLD):
            mean, half = metrics.interval(100 * report.arrays[f"curve/{stream}: {label}"][:, :, 0])
            colour = plots.colour(label)
            ax.plot(steps, mean, ("-", "--", ":")[i % 3], color=colour, label=label, linewidth=1.2)
            ax.fill_between(steps, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
        ax.set(ylabel="accuracy on task 1 (%)", title=stream, ylim=(0, 100))
    axes[-1].set_xlabel("training steps")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


# streams ---------------------------------------------------------------------------------------------------------------


class Listening(online.StreamEWC):
    """StreamEWC that writes down the loss of every batch that comes in; `heard` is emptied before a run."""

    stacks = False
    heard: list[float]

    def observe(self, net: Net, theta: Tensor, state: State, scenario: Scenario, batch: Batch, rng: Rng) -> State:
        with torch.no_grad():
            self.heard.append(float(net.loss(theta, batch)))
        return super().observe(net, theta, state, scenario, batch, rng)


def listen(s: Setting, method: online.StreamEWC, stream: Scenario, seed: int) -> np.ndarray:
    """The losses of all batches of a run with EWC and its detector [N]."""
    listening = Listening(**vars(method))
    vars(listening)["heard"] = heard = list[float]()
    place: dict[str, Any] = {"device": s.device, "progress": s.progress, "net": net_of(s, stream)}
    run(stream, listening, [seed], **arguments(s.sizes) | {"eval_every": None}, **place)
    return np.array(heard)


def judged(marks: Sequence[int], middles: Sequence[float], half: float, window: int) -> tuple[int, int, list[float]]:
    """How many transitions were found, how many alarms were false, and the delay of each one found, in batches.

    A transition counts as found by the first mark from its beginning, middle - half, to a window past its end; each
    further mark in it, and each mark elsewhere, is false. The delay counts from the middle, so it may be negative.
    """
    left, delays = list(marks), []
    for middle in middles:
        inside = [i for i in left if middle - half <= i <= middle + half + window]
        if inside:
            delays.append(inside[0] - middle)
            left.remove(inside[0])
    return len(delays), len(left), delays


def compute_streams(s: Setting) -> Computed:
    """Choose each strength at the first width on a stream of its own, then run every seed on its own stream."""
    arrays: dict[str, np.ndarray] = {}
    runs: list[Result] = []
    ours: dict[str, np.ndarray] = {}
    for name in STREAMS:
        tasks = tasks_of(name, s)
        entries = {label: ONLINE[label] for label in labels_of(name, first=True)}
        chosen = _chosen(s, name, tasks, entries, partial(one, width=s.sizes.widths[0]))
        for _, _, tried in chosen.values():
            arrays |= tried
        for width in s.sizes.widths:
            for label in labels_of(name, first=width == s.sizes.widths[0]):
                method, how, _ = chosen[label]
                part = part_of(name, label)
                result = concat([one(s, part, tasks, method, seed, how, width) for seed in range(s.sizes.seeds)])
                runs.append(result)
                arrays[f"curve/{name}: {width:g}: {label}"] = result.curve.astype(np.float32)
                arrays[f"steps/{name}"] = result.curve_steps
                ours |= {f"{name}: {width:g}: {label}: {k}": v for k, v in anytime(result).items()}
            method = chosen["EWC, detector"][0]
            assert isinstance(method, online.StreamEWC)
            arrays[f"losses/{name}: {width:g}"] = np.stack(
                [listen(s, method, stream_of(s, tasks, seed, width), seed) for seed in range(s.sizes.seeds)]
            )
    return Computed({}, arrays, ours, tuple(runs))


def stream_of(s: Setting, tasks: Scenario, seed: int, width: float) -> Scenario:
    return blurred(tasks, width, n=s.sizes.n, seed=OF_STREAM + seed)


def one(s: Setting, part: str, tasks: Scenario, method: Method, seed: int, how: dict[str, Any], width: float) -> Result:
    """One run on its own stream."""
    stream = stream_of(s, tasks, seed, width)
    return s.train(f"{part}-{width:g}-{seed}", stream, method, net_of(s, stream), [seed], **how, on_divergence="nan")


def marks_of(report: Report, stream: str, width: float) -> list[list[int]]:
    """The batches at which the detector saw a change, for each seed."""
    method = ONLINE["EWC, detector"].method
    assert isinstance(method, online.StreamEWC)
    losses = torch.from_numpy(report.arrays[f"losses/{stream}: {width:g}"])
    return [changes(series, method.window, method.k) for series in losses]


def draw_streams(report: Report, figure: Figure | None = None) -> Figure:
    """The loss of the incoming batches of one run for every width, the transitions shaded, what the detector saw as lines."""
    figure = Figure(figsize=(7, 6), layout="constrained") if figure is None else figure
    sizes = report.settings
    widths, each = sorted(sizes["widths"]), sizes["n"] / sizes["batch_size"]
    axes = np.atleast_1d(figure.subplots(len(widths), 1, sharex=True, sharey=True))
    for ax, width in zip(axes, widths, strict=True):
        losses = report.arrays[f"losses/permuted: {width:g}"][0]
        ax.plot(losses, color="#888888", linewidth=0.5)
        for k in range(1, sizes["tasks"]):
            half = max(width * each / 2, 1)
            ax.axvspan(k * each - half, k * each + half, color=plots.colour("EWC"), alpha=0.2, linewidth=0)
        for mark in marks_of(report, "permuted", width)[0]:
            ax.axvline(mark, color=plots.colour("ER"), linewidth=1.5)
        ax.set(ylabel="loss", title=f"width {width:g}")
    axes[-1].set_xlabel("batches of ten")
    return figure


SGD: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1}
SMALL: dict[str, Any] = {"seeds": 2, "tasks": 2, "n": 200, "n_test": 40, "hidden": (20,)}
BOOK: dict[str, Any] = {"seeds": 5, "tasks": 5, "n_test": 200, "hidden": (100, 100)}
PAPER: dict[str, Any] = {"seeds": 10, "tasks": 5, "n": 5000, "n_test": 1000, "hidden": (400, 400)}
GAP = Experiment(
    name="stability-gap",
    title="The stability gap: accuracy on old tasks, measured after every step",
    source="after De Lange et al. 2023 (arXiv:2205.13452), whose networks, data and steps are larger",
    reference={
        "split: ER: min": Reference("<=", 50.0, "shape: replay, too, loses much for a moment"),
    },
    sizes={
        "quick": Sizes(**SGD, **SMALL, steps=20, batch_size=16, eval_every=1),
        "book": Sizes(**SGD, **BOOK, n=2000, steps=150, batch_size=64, eval_every=1),
        "paper": Sizes(**SGD, **PAPER, steps=500, batch_size=128, eval_every=1),
    },
    compute=compute_gap,
    draw=draw_gap,
    notes="curve/...: accuracy on each task after every step [seeds, steps, tasks]; steps/...: task in training, steps done; "
    "search/...: value, average accuracy at the end on held-out images, number of seeds.",
)
BLURRED = Experiment(
    name="streams",
    title="One pass, batches of ten, no boundaries",
    source="after Aljundi et al. 2019 (arXiv:1812.03596) for the detector; nothing published to compare with",
    reference={},
    sizes={
        "quick": Sizes(**SGD, **SMALL, epochs=1, batch_size=10, eval_every=10),
        "book": Sizes(
            **SGD | {"lr": 0.05},
            **BOOK | {"n_test": 500},
            n=1500,
            epochs=1,
            batch_size=10,
            eval_every=25,
            widths=(0.5, 0.0, 1.0),
        ),
        "paper": Sizes(**SGD | {"lr": 0.05}, **PAPER, epochs=1, batch_size=10, eval_every=25, widths=(0.5, 0.0, 0.25, 1.0)),
    },
    compute=compute_streams,
    draw=draw_streams,
    notes="curve/...: accuracy on each task [seeds, points, tasks] at steps/... (segment of the stream, batches); losses/...: "
    "of each batch as it comes in, with EWC and its detector [seeds, batches]; search/... as in the other experiments.",
)
