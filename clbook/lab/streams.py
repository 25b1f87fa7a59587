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
from torch import Tensor, nn

from clbook import methods as m
from clbook import metrics, plots
from clbook.checks import Count, Share
from clbook.lab.provenance import concat
from clbook.lab.report import Arrays, Computed, Experiment, Reference, Report, Seeds, Setting, Values, arguments, with_values
from clbook.lab.search import SEEDS, Tuned
from clbook.loop import Training, run
from clbook.method import Method, Rng, State
from clbook.methods import online
from clbook.methods.detector import changes
from clbook.methods.fixed import features
from clbook.net import Net, mlp
from clbook.result import Result
from clbook.scenarios import Batch, Scenario, Task, blurred, permuted, split

STREAMS = ("permuted", "split")  # domain-incremental, and class-incremental
OF_STREAM = 100  # a run of seed s gets the stream of seed 100 + s; the detector was set on that of seed 0
HELD_OUT = 0.02  # the share of the training data on which values are chosen
FEATURES = (500,)  # one random layer, for sums over features that never change


@dataclass(frozen=True)
class StreamCLSER(m.CLSER, online.StreamER):
    """CLS-ER with a reservoir: its loss is that of StreamER, whatever has gone by, and the pull of the memories."""


@dataclass(frozen=True)
class StreamRidge(m.Ridge):
    """Ridge regression on features that never change, whose sums take in every batch as it comes.

    The classifier is solved for when it is asked, so nothing waits for the end of a task.
    """

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        return state

    def observe(self, net: Net, theta: Tensor, state: State, scenario: Scenario, batch: Batch, rng: Rng) -> State:
        phi, Y = features(net, theta, batch.x).double(), nn.functional.one_hot(batch.y, net.n_outputs)
        return state | {"n": state["n"] + Y.sum(0), "S": state["S"] + phi.T @ Y.to(phi), "G": state["G"] + phi.T @ phi}

    def predict(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        W, b = self.classifier(state)
        return features(net, theta, batch.x) @ W.to(theta) + b.to(theta)


class Entry(NamedTuple):
    """A method, what is searched of it (a field of its own, or lr), and its hidden layers where they are not those of all."""

    method: Method
    tuned: tuple[Tuned, ...] = ()
    hidden: tuple[int, ...] = ()


def _lam(*start: float, factor: float = 10.0) -> Tuned:
    return Tuned("lam", start, factor)


RATE = Tuned("lr", (0.03, 0.1, 0.3), 3.0)  # of every method, before its strength
EWC, MAS, SI = _lam(1.0, 10.0, 100.0), _lam(0.01, 0.1, 1.0), _lam(1.0, 10.0, 100.0)
L2, RWALK, RIDGE = _lam(0.001, 0.01, 0.1), _lam(0.1, 1.0, 10.0), _lam(0.1, 1.0, 10.0)
LWF, REPLAY = _lam(0.3, 1.0, 3.0, factor=3.0), _lam(0.3, 1.0, 3.0, factor=3.0)
ALPHA, BETA = Tuned("alpha", (0.1, 0.3, 1.0), 3.0), Tuned("beta", (0.15, 0.5, 1.5), 3.0)
SLOW = Tuned("slow", (0.9, 0.97, 0.99), 3.0, most=0.9999, complement=True)
MARGIN = Tuned("margin", (0.0, 0.5, 1.0), 2.0)
SAMPLES: dict[str, Any] = {"size": 200, "buffer": "reservoir"}
CLOCK = 50  # batches
WINDOW = 60  # batches from the start of a transition in which an alarm is no false one, however wide the transition is
PER_CLASS = {"permuted": 4, "split": 20}  # GEM's samples of each class and task: 200 in the end

TOLD = {
    "fine-tuning": Entry(m.Finetune(), (RATE,)),
    "EWC": Entry(m.EWC(lam=10.0, n_samples=200), (RATE, EWC)),
    "online EWC": Entry(m.EWC(lam=10.0, n_samples=200, carry="online", gamma=0.9), (RATE, EWC)),
    "MAS": Entry(m.MAS(lam=0.1, n_samples=200), (RATE, MAS)),
    "SI": Entry(m.SI(lam=10.0), (RATE, SI)),
    "L2": Entry(m.L2(lam=0.01), (RATE, L2)),
    "RWalk": Entry(m.RWalk(lam=1.0), (RATE, RWALK)),
    "LwF": Entry(m.LwF(lam=1.0), (RATE, LWF)),
    "ER": Entry(m.ER(**SAMPLES), (RATE, REPLAY)),
    "DER++": Entry(m.DERpp(size=200, alpha=0.3), (RATE, ALPHA, BETA)),
    "CLS-ER": Entry(m.CLSER(**SAMPLES, fast=0.9, slow=0.97), (RATE, SLOW)),
    "A-GEM": Entry(m.AGEM(**SAMPLES), (RATE,)),
    "GEM": Entry(m.GEM(), (RATE, MARGIN)),
    "all tasks so far": Entry(m.Cumulative(), (RATE,)),
}
HALVED = ("ER", "DER++")  # measured once more with half the learning rate
DRAWN = ("fine-tuning", "EWC", "MAS", "LwF", "ER", "DER++", "CLS-ER", "A-GEM", "all tasks so far")
ONLINE = {
    "fine-tuning": Entry(m.Finetune(), (RATE,)),
    "EWC, told": Entry(m.EWC(lam=10.0, n_samples=200), (RATE, EWC)),
    "EWC, detector": Entry(online.StreamEWC(lam=10.0), (RATE, EWC)),
    "EWC, clock": Entry(online.StreamEWC(lam=10.0, every=CLOCK), (RATE, EWC)),
    "MAS, told": Entry(m.MAS(lam=0.1, n_samples=200), (RATE, MAS)),
    "MAS, detector": Entry(online.StreamMAS(lam=0.1), (RATE, MAS)),
    "MAS, clock": Entry(online.StreamMAS(lam=0.1, every=CLOCK), (RATE, MAS)),
    "SI, told": Entry(m.SI(lam=10.0), (RATE, SI)),
    "SI, detector": Entry(online.StreamSI(lam=10.0), (RATE, SI)),
    "SI, clock": Entry(online.StreamSI(lam=10.0, every=CLOCK), (RATE, SI)),
    "LwF, told": Entry(m.LwF(lam=1.0), (RATE, LWF)),
    "LwF, detector": Entry(online.ChangeLwF(lam=1.0), (RATE, LWF)),
    "LwF, clock": Entry(online.ChangeLwF(lam=1.0, every=CLOCK), (RATE, LWF)),
    "LwF, slow teacher": Entry(online.StreamLwF(lam=1.0), (RATE, LWF)),
    "ER": Entry(online.StreamER(), (RATE, REPLAY)),
    "DER++": Entry(online.StreamDERpp(alpha=0.3), (RATE, ALPHA)),
    "CLS-ER": Entry(StreamCLSER(**SAMPLES, fast=0.9, slow=0.97), (RATE, SLOW)),
    "A-GEM": Entry(online.StreamAGEM(), (RATE,)),
    "ridge": Entry(StreamRidge(), (RIDGE,), FEATURES),
    "shuffled": Entry(m.Joint(), (RATE,)),
}
HEARD = "EWC, detector"  # the detector whose alarms are counted at every width
CLASSES = (  # those that are tried where new classes come: springs are known not to work there, told or not
    "fine-tuning", "EWC, told", "EWC, detector", "EWC, clock", "SI, detector", "SI, clock", "LwF, told", "LwF, detector",
    "LwF, clock", "LwF, slow teacher", "ER", "DER++", "CLS-ER", "A-GEM", "ridge", "shuffled",
)  # fmt: skip
WIDE = (  # those that are tried at every width, on permuted images
    "fine-tuning", "EWC, told", "EWC, detector", "EWC, clock", "LwF, detector", "LwF, clock", "DER++",
)  # fmt: skip


def labels_of(stream: str, first: bool) -> tuple[str, ...]:
    """What is run on a stream, at the first width or at another."""
    if stream == "split":
        return CLASSES if first else ()
    return tuple(ONLINE) if first else WIDE


@dataclass(frozen=True, kw_only=True)
class Sizes(Training):
    """The tasks and the network; `n` samples of each task make a stream, `widths` its transitions, searched at the first.

    A trial of the search is the mean of `trials` streams of its own.
    """

    seeds: Count
    tasks: Count
    n: Count
    n_test: Count
    hidden: tuple[Count, ...]
    widths: tuple[Share, ...] = (0.5,)
    trials: Count = 1
    searched: bool = True
    data: str = "mnist"


def tasks_of(stream: str, s: Setting) -> Scenario:
    """The tasks with their boundaries, on at most n_test test samples each."""
    data, sizes = s.data, s.sizes
    if stream == "permuted":
        return permuted(data.subset(None, sizes.n_test), sizes.tasks)
    return split(data.subset(None, sizes.tasks * sizes.n_test), sizes.tasks, kind="class")


def net_of(s: Setting, scenario: Scenario, hidden: tuple[int, ...] = ()) -> Net:
    return mlp(s.data.x.shape[1], scenario.n_outputs, hidden or s.sizes.hidden)


def part_of(stream: str, label: str) -> str:
    return re.sub("[ :]+", "-", f"{stream}-{label}").replace(",", "").replace("+", "p")


class Chosen(NamedTuple):
    """A method with the values that were chosen for it, what goes to its training, and what was tried."""

    method: Method
    how: dict[str, Any]
    net: Net
    tried: Arrays


def _chosen(
    s: Setting, stream: str, tasks: Scenario, entries: dict[str, Entry], trial: Callable[..., Result]
) -> dict[str, Chosen]:
    """Search every method's values on held-out images."""
    found = {}
    for label, entry in entries.items():
        net = net_of(s, tasks, entry.hidden)

        def train(part: str, held: Scenario, values: Values, seeds: Seeds, entry: Entry = entry, net: Net = net) -> Result:
            method, how = with_values(entry.method, values)
            (seed,) = seeds or ()
            return trial(s, part_of("search", part), held, method, net, seed, how | {"eval_every": None})

        values, tried = s.search(f"{stream}: {label}", tasks, entry.tuned, train, share=HELD_OUT)
        method, how = with_values(entry.method, values)
        found[label] = Chosen(method, how | {"on_divergence": "nan"}, net, tried)
    return found


def best(report: Report, name: str, field: str) -> float:
    """The value that a search chose, such as best(report, "split: ER", "lam")."""
    table = report.arrays[f"search/{name}: {field}"]
    return float(table[table[:, 1].argmax(), 0])


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


LOOK = 50  # steps after a switch in which the lowest point is looked for; at most a third of a task


def told(stream: str) -> dict[str, Entry]:
    """The methods at every step, each memory with the same number of samples in the end."""
    gem = {"GEM": TOLD["GEM"]._replace(method=m.GEM(size=PER_CLASS[stream]))} if "GEM" in TOLD else {}
    return TOLD | gem


def compute_gap(s: Setting) -> Computed:
    """Choose rate and strength by the average at the end, then measure every seed after every step."""
    arrays: dict[str, np.ndarray] = {}
    runs: list[Result] = []
    ours: dict[str, np.ndarray] = {}
    for stream in STREAMS:
        tasks = tasks_of(stream, s)
        for label, chosen in _chosen(s, stream, tasks, told(stream), _gap_trial).items():
            arrays |= chosen.tried
            half = {"lr": chosen.how.get("lr", s.sizes.lr) / 2}
            for name, more in {label: {}, f"{label}, half the rate": half}.items():
                if more and label not in HALVED:
                    continue
                result = s.train(part_of(stream, name), tasks, chosen.method, chosen.net, **chosen.how | more)
                runs.append(result)
                arrays[f"curve/{stream}: {name}"] = result.curve.astype(np.float32)
                arrays[f"steps/{stream}"] = result.curve_steps
                net_fall, _ = dip(result.curve, result.curve_steps[:, 0])
                values = anytime(result) | {"fall at a switch, lower end": _lower(net_fall.mean(0))}
                ours |= {f"{stream}: {name}: {key}": value for key, value in values.items()}
    return Computed({}, arrays, ours, tuple(runs))


def _gap_trial(s: Setting, part: str, held: Scenario, method: Method, net: Net, seed: int, how: dict[str, Any]) -> Result:
    return s.train(part, held, method, net, [seed], **how, on_divergence="nan")


def _lower(values: np.ndarray) -> np.ndarray:
    """The lower end of the 95 % interval, as one number [1]."""
    mean, half = metrics.interval(values)
    return np.array([mean - half])


def falls(curve: np.ndarray, trained: np.ndarray, look: int, late: int = 0) -> np.ndarray:
    """How far the old tasks fall and how far they come back in a curve [seeds, E, T], in points [2, T - 1, seeds].

    For each switch: their average before the step, minus its lowest in `look` steps from `late` steps after the switch on;
    and its highest from there to the end of 2 look steps, minus that lowest.
    """
    found = []
    for k in range(1, curve.shape[2]):
        start = int((trained < k).sum()) + late
        old = 100 * curve[:, start - 1 : start + 2 * look, :k].mean(-1)  # [seeds, steps], the first is before the step
        low = old[:, 1 : 1 + look].argmin(1) + 1
        lowest = old[:, 1 : 1 + look].min(1)
        back = np.array([row[i:].max() for row, i in zip(old, low, strict=True)])
        found.append([old[:, 0] - lowest, back - lowest])
    return np.moveaxis(np.array(found), 0, 1)


def dip(curve: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """What of `falls` is due to the switch: minus the same, LOOK steps later, where no task changes [2, T - 1, seeds]."""
    look = min(LOOK, int((trained == 0).sum()) // 3)
    return falls(curve, trained, look) - falls(curve, trained, look, late=look)


def verdict(fallen: np.ndarray, back: np.ndarray) -> str:
    """Whether old tasks fall at a switch, and whether more than half of it comes back, as far as the seeds [seeds] can tell."""
    mean, half = metrics.interval(fallen)
    if not mean > half:
        return "no fall can be told"
    more, half = metrics.interval(back - fallen / 2)
    how_much = "more than half" if more > half else "less than half" if more < -half else "how much cannot be told"
    return f"falls; comes back: {how_much}"


def draw_gap(report: Report, figure: Figure | None = None) -> Figure:
    """Accuracy on the first task over all steps, for the methods of DRAWN: one panel a stream."""
    figure = Figure(figsize=(7, 7), layout="constrained") if figure is None else figure
    axes = figure.subplots(2, 1, sharex=True)
    for ax, stream in zip(axes, STREAMS, strict=True):
        steps = report.arrays[f"steps/{stream}"][:, 1]
        for i, label in enumerate(name for name in DRAWN if name in TOLD):
            mean, half = metrics.interval(100 * report.arrays[f"curve/{stream}: {label}"][:, :, 0])
            colour = plots.colour(label)
            ax.plot(steps, mean, ("-", "--", ":")[i % 3], color=colour, label=label, linewidth=1.2)
            ax.fill_between(steps, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
        ax.set(ylabel="accuracy on task 1 (%)", title=stream, ylim=(0, 100))
    axes[-1].set_xlabel("training steps")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


# streams ---------------------------------------------------------------------------------------------------------------


def listening(method: Method) -> tuple[Method, list[float]]:
    """The same method, and a list to which it adds the loss of every batch that comes in."""
    heard: list[float] = []

    class Listening(type(method)):  # type: ignore[misc]
        stacks = False

        def observe(self, net: Net, theta: Tensor, state: State, scenario: Scenario, batch: Batch, rng: Rng) -> State:
            with torch.no_grad():
                heard.append(float(net.loss(theta, batch)))
            observed: State = super().observe(net, theta, state, scenario, batch, rng)
            return observed

    return Listening(**vars(method)), heard


def listen(s: Setting, chosen: Chosen, tasks: Scenario, seeds: Sequence[int], width: float) -> tuple[Result, np.ndarray]:
    """Runs on their own streams, and the losses of all batches as they come in [runs, N]."""
    place: dict[str, Any] = {"device": s.device, "progress": s.progress, "net": chosen.net}
    results, losses = [], []
    for seed in seeds:
        method, heard = listening(chosen.method)
        stream = stream_of(s, tasks, seed, width)
        results.append(run(stream, method, [seed], **arguments(s.sizes) | chosen.how | place))
        losses.append(np.array(heard))
    return concat(results), np.stack(losses)


def judged(marks: Sequence[int], starts: Sequence[float], window: int) -> tuple[int, int, list[float]]:
    """How many transitions were found, how many alarms were false, and the delay of each one found, in batches.

    A transition counts as found by the first mark in the `window` batches from its start on, however wide it is; every other
    mark is false.
    """
    delays = []
    for start in starts:
        inside = [i for i in marks if start <= i <= start + window]
        delays += [inside[0] - start] if inside else []
    return len(delays), len(marks) - len(delays), delays


def by_clock(every: int, starts: Sequence[float], window: int, batches: int) -> float:
    """How many transitions a blind alarm every so many batches finds, a mean over its phases."""
    return float(np.mean([judged(range(phase, batches, every), starts, window)[0] for phase in range(every)]))


def by_chance(alarms: int, starts: Sequence[float], window: int, batches: int) -> float:
    """How many transitions so many alarms at random moments find, in the mean."""
    inside = [sum(start <= i <= start + window for i in range(batches)) / batches for start in starts]
    return sum(1 - (1 - share) ** alarms for share in inside)


def is_detector(label: str) -> bool:
    return label.endswith(", detector")


def trial_seeds(s: Setting, seed: int) -> list[int]:
    """The runs of one trial of the search, each with its own stream."""
    return [seed + len(SEEDS) * i for i in range(s.sizes.trials)]


def _stream_trial(
    s: Setting, part: str, held: Scenario, method: Method, net: Net, seed: int, how: dict[str, Any], width: float
) -> Result:
    chosen = Chosen(method, how | {"on_divergence": "nan"}, net, {})
    return concat([one(s, part, held, chosen, each, width) for each in trial_seeds(s, seed)])


def compute_streams(s: Setting) -> Computed:
    """Choose rate and strength at the first width on streams of their own, then run every seed on its own stream."""
    arrays: dict[str, np.ndarray] = {}
    runs: list[Result] = []
    ours: dict[str, np.ndarray] = {}
    seeds, first = range(s.sizes.seeds), s.sizes.widths[0]
    for name in STREAMS:
        tasks = tasks_of(name, s)
        entries = {label: ONLINE[label] for label in labels_of(name, first=True)}
        found = _chosen(s, name, tasks, entries, partial(_stream_trial, width=first))
        held = tasks.held_out(HELD_OUT)
        for label, chosen in found.items():
            arrays |= chosen.tried
            if is_detector(label):  # so that one can see whether it fired where its strength was chosen
                own = [each for seed in SEEDS for each in trial_seeds(s, seed)]
                arrays[f"losses/search: {name}: {label}"] = listen(s, chosen, held, own, first)[1]
        for width in s.sizes.widths:
            for label in labels_of(name, first=width == first):
                if is_detector(label):
                    result, arrays[f"losses/{name}: {width:g}: {label}"] = listen(s, found[label], tasks, seeds, width)
                else:
                    result = concat([one(s, part_of(name, label), tasks, found[label], seed, width) for seed in seeds])
                runs.append(result)
                arrays[f"curve/{name}: {width:g}: {label}"] = result.curve.astype(np.float32)
                arrays[f"steps/{name}"] = result.curve_steps
                ours |= {f"{name}: {width:g}: {label}: {k}": v for k, v in anytime(result).items()}
            if f"losses/{name}: {width:g}: {HEARD}" not in arrays and HEARD in found:
                arrays[f"losses/{name}: {width:g}: {HEARD}"] = listen(s, found[HEARD], tasks, seeds, width)[1]
    return Computed({}, arrays, ours, tuple(runs))


def stream_of(s: Setting, tasks: Scenario, seed: int, width: float) -> Scenario:
    return blurred(tasks, width, n=s.sizes.n, seed=OF_STREAM + seed)


def one(s: Setting, part: str, tasks: Scenario, chosen: Chosen, seed: int, width: float) -> Result:
    """One run on its own stream."""
    stream = stream_of(s, tasks, seed, width)
    return s.train(f"{part}-{width:g}-{seed}", stream, chosen.method, chosen.net, [seed], **chosen.how)


def marks_of(report: Report, what: str, label: str = HEARD) -> list[list[int]]:
    """The batches at which a detector saw a change in each run of `what`, such as "permuted: 0.5" or "search: split"."""
    method = ONLINE[label].method
    assert isinstance(method, online.Unannounced)
    return [changes(torch.from_numpy(row), method.window, method.k) for row in report.arrays[f"losses/{what}: {label}"]]


def draw_streams(report: Report, figure: Figure | None = None) -> Figure:
    """The loss of the incoming batches of one run for every width, the transitions shaded, what the detector saw as lines."""
    figure = Figure(figsize=(7, 6), layout="constrained") if figure is None else figure
    sizes = report.settings
    widths, each = sorted(sizes["widths"]), sizes["n"] / sizes["batch_size"]
    axes = np.atleast_1d(figure.subplots(len(widths), 1, sharex=True, sharey=True))
    for ax, width in zip(axes, widths, strict=True):
        losses = report.arrays[f"losses/permuted: {width:g}: {HEARD}"][0]
        ax.plot(losses, color="#888888", linewidth=0.5)
        for k in range(1, sizes["tasks"]):
            half = max(width * each / 2, 1)
            ax.axvspan(k * each - half, k * each + half, color=plots.colour("EWC"), alpha=0.2, linewidth=0)
        for mark in marks_of(report, f"permuted: {width:g}")[0]:
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
        f"{stream}: {label}: fall at a switch, lower end": Reference(">=", 0.0, "shape: replay, too, falls at a switch")
        for stream in STREAMS
        for label in ("ER", "DER++")
    },
    sizes={
        "quick": Sizes(**SGD, **SMALL, steps=20, batch_size=16, eval_every=1),
        "book": Sizes(**SGD, **BOOK, n=2000, steps=150, batch_size=64, eval_every=1),
        "paper": Sizes(**SGD, **PAPER, steps=500, batch_size=128, eval_every=1),
    },
    compute=compute_gap,
    draw=draw_gap,
    notes="curve/...: accuracy on each task after every step [seeds, steps, tasks]; steps/...: task in training, steps done; "
    "search/...: value, average accuracy at the end on held-out images, number of seeds. The reference is about the lower end "
    "of a 95 % interval: of the fall at a switch beyond that LOOK steps later.",
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
            trials=2,
        ),
        "paper": Sizes(
            **SGD | {"lr": 0.05}, **PAPER, epochs=1, batch_size=10, eval_every=25, widths=(0.5, 0.0, 0.25, 1.0), trials=2
        ),
    },
    compute=compute_streams,
    draw=draw_streams,
    notes="curve/...: accuracy on each task [seeds, points, tasks] at steps/... (segment of the stream, batches); losses/...: "
    "of each batch as it comes in, with a detector [seeds, batches], losses/search: ... on the streams where its values were "
    "chosen; search/...: value, average accuracy at the end over held-out streams, number of trials of `trials` streams each.",
)
