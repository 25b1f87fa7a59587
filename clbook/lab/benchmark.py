"""The benchmark: every method of the book in the three scenarios, its strength chosen on held-out training data.

SPLIT, PERMUTED and DEMO say which methods are compared and which values of their hyper-parameter are tried; the tables of
sizes in `TABLE` say how long everything is trained. The test set is looked at once, with what the search has chosen.
Book: notebooks/08_choosing, "The benchmark".
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clbook.engine import fits, pick_device, run
from clbook.report import Reference, Report, Setting
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from clbook import methods as m
from clbook import metrics, plots
from clbook.data import Data
from clbook.method import Method
from clbook.net import mlp
from clbook.result import Result
from clbook.scenarios import KINDS, Scenario, permuted, split

# what is compared ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A method of the table, its family, where it can be used, and the values of `field` that are tried on held-out data."""

    family: str
    method: Method
    values: tuple[float, ...] = ()
    field: str = "lam"
    kinds: tuple[str, ...] = KINDS
    target: bool = True  # it has a number to reach, and so gets all seeds
    costly: bool = False  # one seed only

    def candidates(self) -> list[Method]:
        return [replace(self.method, **{self.field: v}) for v in self.values] or [self.method]


REGULARISATION, NEW, REHEARSAL = "regularisation", "new models and aggregation", "rehearsal"
DUAL, FEW, BOUND = "long and short-term memory", "few neurons", "bounds"
FAMILIES = (BOUND, REGULARISATION, NEW, REHEARSAL, DUAL, FEW)
TASK, OWN = ("task",), ("task", "class")  # the task is told; every task has outputs of its own

SPLIT = {
    "fine-tuning": Entry(BOUND, m.Finetune()),
    "joint training": Entry(BOUND, m.Joint()),
    "cumulative training": Entry(BOUND, m.Cumulative(), target=False),
    "EWC": Entry(REGULARISATION, m.EWC(), (1e3, 1e4, 1e5, 1e6, 1e7)),
    "SI": Entry(REGULARISATION, m.SI(), (1e1, 1e2, 1e3, 1e4)),
    "MAS": Entry(REGULARISATION, m.MAS(), (1e-1, 1e0, 1e1, 1e2, 1e3, 1e4)),
    "L2": Entry(REGULARISATION, m.L2(), (1e-3, 1e-2, 1e-1, 1e0), target=False),
    "online EWC": Entry(REGULARISATION, m.EWC(consolidation="online", gamma=0.9), (1e2, 1e3, 1e4, 1e5, 1e6), target=False),
    "RWalk": Entry(REGULARISATION, m.RWalk(), (1e0, 1e1, 1e2, 1e3), target=False),
    "LwF": Entry(REGULARISATION, m.LwF(), (0.3, 1.0, 3.0, 10.0)),
    "ER": Entry(REHEARSAL, m.ER(size=100)),
    "A-GEM": Entry(REHEARSAL, m.AGEM(size=100)),
    "DGR": Entry(REHEARSAL, m.DGR()),
    "DGR, distilled": Entry(REHEARSAL, m.DGR(distill=True), target=False, costly=True),
    "GEM": Entry(REHEARSAL, m.GEM(size=100), target=False, costly=True),
    "DER++": Entry(REHEARSAL, m.DERpp(size=1000), target=False),
    "separate networks": Entry(NEW, m.Separate(), kinds=TASK, target=False),
    "feature extraction": Entry(NEW, m.FeatureExtraction(), target=False),
    "progressive networks": Entry(NEW, m.Progressive(), kinds=OWN, target=False, costly=True),
    "IMM, mean": Entry(NEW, m.IMM(how="mean"), (0.0, 1e-2, 1e-1), target=False),
    "IMM, mode": Entry(NEW, m.IMM(how="mode"), (0.0, 1e-2, 1e-1), target=False),
    "average of weights": Entry(NEW, m.Average(), target=False),
    "CLS-ER": Entry(DUAL, m.CLSER(size=100), target=False),
    "fast and slow weights": Entry(DUAL, m.FastWeights(size=100), target=False),
    "XdG": Entry(FEW, m.XdG(), (0.5, 0.8, 0.9, 0.95), "drop", TASK),
    "PackNet": Entry(FEW, m.PackNet(), kinds=TASK, target=False),
    "HAT": Entry(FEW, m.HAT(), kinds=TASK, target=False),
    "k winners take all": Entry(FEW, m.KWTA(), target=False),
}
PERMUTED = {
    "fine-tuning": Entry(BOUND, m.Finetune()),
    "joint training": Entry(BOUND, m.Joint()),
    "EWC": Entry(REGULARISATION, m.EWC(), (30.0, 100.0, 300.0)),
    "SI": Entry(REGULARISATION, m.SI(), (3.0, 10.0, 30.0)),
    "MAS": Entry(REGULARISATION, m.MAS(), (1e-3, 1e-2, 1e-1), target=False),
    "LwF": Entry(REGULARISATION, m.LwF(), (1e-2, 1e-1, 1e0), target=False),
    "ER": Entry(REHEARSAL, m.ER(size=10), target=False),
    "DGR": Entry(REHEARSAL, m.DGR()),
}
DEMO = {"MAS": Entry(REGULARISATION, m.MAS(lam=2.0))}  # the authors' lambda of 1: their penalty has no 1/2


@dataclass(frozen=True)
class Suite:
    """One scenario of the benchmark and how every method is trained on it.

    `search_steps` is the length of a search for a method without a number to reach; the others are searched at full length.
    """

    tasks: int
    kinds: tuple[str, ...]
    hidden: tuple[int, ...]
    steps: int
    search_steps: int
    batch_size: int = 128
    optimizer: str = "adam"
    lr: float = 1e-3
    decay: bool = False


@dataclass(frozen=True)
class Table:
    """The sizes of the whole benchmark. Permuted tasks and methods without a number to reach may get fewer seeds."""

    seeds: int
    other_seeds: int
    permuted_seeds: int
    split: Suite
    permuted: Suite
    demo: Suite
    held_out: float = 0.1  # the share of the training data on which strengths are chosen
    search_seed: int = 1000  # a seed that no other run has
    data: str = "mnist"

    def seeds_of(self, suite: str, entry: Entry) -> int:
        most = self.permuted_seeds if suite == "permuted" else self.seeds
        return 1 if entry.costly else min(most, self.seeds if entry.target else self.other_seeds)


# demo: the authors' learning rate of 0.01 is too small here to finish a task in their 20 epochs (98.0 %), so it is 0.1
TABLE = {
    "quick": Table(
        2, 2, 2,
        Suite(5, KINDS, (50,), 60, 60, batch_size=32, lr=3e-3),
        Suite(3, ("domain",), (50,), 90, 60, batch_size=32, lr=3e-3, decay=True),
        Suite(5, TASK, (50,), 60, 60, 32, "sgd", 0.1),
    ),
    "book": Table(
        5, 3, 4,
        Suite(5, KINDS, (400, 400), 2000, 500),
        Suite(10, ("domain",), (400, 400), 1400, 700, decay=True),
        Suite(5, TASK, (400, 400), 1200, 1200, 200, "sgd", 0.1),
    ),
    "paper": Table(
        20, 20, 20,
        Suite(5, KINDS, (400, 400), 2000, 2000),
        Suite(10, ("domain",), (1000, 1000), 5000, 5000, decay=True),
        Suite(5, TASK, (400, 400), 1200, 1200, 200, "sgd", 0.1),
    ),
}  # fmt: skip
ENTRIES = {"split": SPLIT, "permuted": PERMUTED, "demo": DEMO}


def scenario_of(suite: str, sizes: Table, data: Data, kind: str) -> Scenario:
    """The scenario of one part of the benchmark. The authors of MAS count the digits from 1, and 0 comes last."""
    tasks = getattr(sizes, suite).tasks
    if suite == "permuted":
        return permuted(data, tasks, kind=kind)
    order = [*range(1, data.n_classes), 0] if suite == "demo" else None
    return split(data, tasks, kind=kind, order=order)


# computing it --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """Some runs that are computed together and kept in a file, so that a stop costs one part at most."""

    suite: str
    kind: str
    label: str
    method: Method
    seeds: tuple[int, ...]
    search: bool

    @property
    def key(self) -> str:
        return f"{self.suite} {self.kind}: {self.label}"

    def training(self, sizes: Table) -> dict[str, Any]:
        """The arguments of `run`."""
        suite = getattr(sizes, self.suite)
        short = self.search and not _entry(self.key).target
        found = {name: getattr(suite, name) for name in ("batch_size", "optimizer", "lr", "decay")}
        return found | {"steps": suite.search_steps if short else suite.steps}

    def path(self, folder: Path, sizes: Table, data: str) -> Path:
        """Where it is kept: a name that changes with everything the numbers depend on."""
        suite = getattr(sizes, self.suite)
        what = [repr(self), self.training(sizes), suite.tasks, suite.hidden, sizes.held_out if self.search else None, data]
        return folder / hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]

    def compute(self, sizes: Table, data: Data, device: str) -> Result:
        """Train it. Its info has the seconds that the processor was busy, which other work on the machine changes little."""
        suite, scenario = getattr(sizes, self.suite), scenario_of(self.suite, sizes, data, self.kind)
        scenario = scenario.held_out(sizes.held_out) if self.search else scenario
        net = mlp(data.x.shape[1], scenario.n_outputs, suite.hidden)
        more = {"device": device, "progress": False, "on_divergence": "nan"}
        started = time.process_time()
        result = run(scenario, self.method, self.seeds, net=net, **self.training(sizes), **more)
        return replace(result, info=result.info | {"cpu_seconds": round(time.process_time() - started, 2)})


def compare_all(s: Setting) -> tuple[dict[str, Result], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Search for the strengths, then train every method with what was chosen; each part is kept as soon as it is there."""
    net = mlp(s.data.x.shape[1], s.data.n_classes, s.sizes.split.hidden)
    together = fits(net, s.sizes.split.batch_size, pick_device(s.device)) > 1  # then all seeds train in one stack
    tried = _joined(_trained(list(_search_parts(s.sizes)), s, "search"))
    chosen = {key: max(runs, key=lambda r: _accuracy(r).mean()) for key, runs in tried.items()}
    finals = _joined(_trained(_final_parts(s.sizes, chosen, together), s, "benchmark"))
    results = {key: concat(runs) for key, runs in finals.items()}
    arrays = {f"cpu/{key}": np.array([r.info["cpu_seconds"] / len(r.R) for r in runs]) for key, runs in finals.items()}
    for key, runs in tried.items():
        arrays[f"search/{key}"] = np.array([[r.runs[0][_entry(key).field], _accuracy(r).mean()] for r in runs])
    ours = {key: _accuracy(result) for key, result in results.items()}
    ours |= {f"{key}, forgetting": 100 * metrics.forgetting(r.R) for key, r in results.items() if key.startswith("demo")}
    return results, arrays, ours


def _search_parts(sizes: Table) -> Iterator[Part]:
    for suite, kind, label, entry in _table(sizes):
        for method in entry.candidates() if entry.values else ():
            yield Part(suite, kind, label, method, (sizes.search_seed,), search=True)


def _final_parts(sizes: Table, chosen: dict[str, Result], together: bool) -> list[Part]:
    parts: list[Part] = []
    for suite, kind, label, entry in _table(sizes):
        part = Part(suite, kind, label, entry.method, tuple(range(sizes.seeds_of(suite, entry))), search=False)
        if part.key in chosen:
            value = chosen[part.key].runs[0][entry.field]
            part = replace(part, method=replace(entry.method, **{entry.field: value}))
        parts += [part] if together else [replace(part, seeds=(seed,)) for seed in part.seeds]
    return sorted(parts, key=lambda p: (not _entry(p.key).target, p.seeds[0]))  # a first look at every method comes early


def _table(sizes: Table) -> Iterator[tuple[str, str, str, Entry]]:
    """Every cell of the benchmark: suite, kind, label, entry."""
    for suite, entries in ENTRIES.items():
        for kind in getattr(sizes, suite).kinds:
            for label, entry in entries.items():
                if kind in entry.kinds:
                    yield suite, kind, label, entry


def _trained(parts: list[Part], s: Setting, what: str) -> Iterator[tuple[Part, Result]]:
    """The parts with their results: from their files, or computed now, `s.workers` at a time, and written to them."""
    folder = s.work.parent / "benchmark"
    files = [part.path(folder, s.sizes, s.data.name) for part in parts]
    missing = [(p, f) for p, f in zip(parts, files, strict=True) if not f.with_suffix(".json").exists()]
    jobs = [(part, s.sizes, s.device) for part, _ in missing]
    bar = tqdm(_mapped(_compute, jobs, s), total=len(missing), desc=what, disable=s.progress is False)
    for (part, file), result in zip(missing, bar, strict=True):
        bar.set_postfix_str(part.key)
        result.save(file)
    return ((part, Result.load(file)) for part, file in zip(parts, files, strict=True))


def _mapped(f: Callable, jobs: list[tuple], s: Setting) -> Iterator[Any]:
    """f of every job in turn, here or in `s.workers` processes of one thread each."""
    if s.workers == 1 or not jobs:
        yield from (f(*job, s.data) for job in jobs)
        return
    spawn = torch.multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(s.workers, spawn, initializer=_start, initargs=(s.data,)) as pool:
        yield from pool.map(f, *zip(*jobs, strict=True))


_data: list[Data] = []  # what a process of the pool works on


def _start(data: Data) -> None:
    torch.set_num_threads(1)
    _data.append(data)


def _compute(part: Part, sizes: Table, device: str, data: Data | None = None) -> Result:
    return part.compute(sizes, data or _data[0], device)


def _joined(parts: Iterable[tuple[Part, Result]]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for part, result in parts:
        found.setdefault(part.key, []).append(result)
    return found


def concat(results: list[Result]) -> Result:
    """The runs of several results on the same tasks as one."""
    arrays = {name: np.concatenate([getattr(r, name) for r in results]) for name in ("R", "curve", "memory_bytes", "seconds")}
    return replace(results[0], **arrays, runs=[run for r in results for run in r.runs], theta=[], thetas=[])


def _accuracy(result: Result) -> np.ndarray:
    """Average accuracy at the end in percent [runs]; a run that diverged counts as 0."""
    return np.nan_to_num(100 * metrics.average_accuracy(result.R))


def _entry(key: str) -> Entry:
    cell, label = key.split(": ")
    return ENTRIES[cell.split()[0]][label]


# reading it ------------------------------------------------------------------------------------------------------------------

VDV = "van de Ven & Tolias 2019, tables 4 and 5, n = 20"
HSU = "Hsu et al. 2018, table 2, n = 10"
SEEN = "van de Ven et al. 2022, read off a figure"
# accuracy in percent by scenario and method, for task, domain and class; None where the source has none
PUBLISHED: dict[str, dict[str, tuple[tuple[float | None, float | None, float | None], str]]] = {
    "split": {
        "fine-tuning": ((87.2, 59.2, 19.9), VDV),
        "joint training": ((99.7, 98.4, 97.9), VDV),
        "EWC": ((98.6, 63.9, 20.0), VDV),
        "online EWC": ((99.1, 64.3, 20.0), VDV),
        "SI": ((99.1, 65.4, 20.0), VDV),
        "LwF": ((99.6, 71.5, 23.9), VDV),
        "DGR": ((99.5, 95.7, 90.8), VDV),
        "DGR, distilled": ((99.6, 96.8, 91.8), VDV),
        "MAS": ((99.2, 68.6, 19.5), HSU),
        "L2": ((98.2, 66.0, 22.5), HSU),
        "GEM": ((98.4, 96.2, 92.2), HSU),
        "ER": ((None, 94.0, 89.0), SEEN),
    },
    "demo": {"MAS": ((98.86, None, None), "Aljundi et al. 2018, the authors' notebook, one run")},
}


def rows(report: Report, suite: str = "split") -> list[dict[str, Any]]:
    """The benchmark as rows, one a method and scenario: ours with its interval, the published number and what it cost.

    accuracy, interval, forgetting, published in percent; bytes kept between tasks; time as a multiple of fine-tuning's, each
    by the least busy seed.
    """
    found = []
    for key, result in report.results.items():
        cell, label = key.split(": ")
        if cell.split()[0] != suite:
            continue
        kind = cell.split()[1]
        mean, half = metrics.interval(report.ours[key])
        values, source = PUBLISHED.get(suite, {}).get(label, ((None,) * 3, ""))
        base = report.arrays.get(f"cpu/{suite} {kind}: fine-tuning")
        found.append({
            "family": _entry(key).family, "method": label, "kind": kind, "seeds": len(result.R),
            "accuracy": float(mean), "interval": float(half),
            "forgetting": float(100 * metrics.forgetting(result.R).mean()),
            "published": values[KINDS.index(kind)], "source": source,
            "bytes": int(result.memory_bytes.max()),
            "time": float(report.arrays[f"cpu/{key}"].min() / base.min()) if base is not None else None,
            "chosen": result.runs[0][_entry(key).field] if _entry(key).values else None,
        })  # fmt: skip
    return found


def draw(report: Report, figure: Figure | None = None) -> Figure:
    """Average accuracy of every method in each of the three scenarios, with 95 % intervals; a cross is a published number."""
    figure = Figure(figsize=(11, 8.5), layout="constrained") if figure is None else figure
    found = rows(report)
    order = [label for family in FAMILIES for label, entry in SPLIT.items() if entry.family == family]
    axes = figure.subplots(1, 3, sharey=True)
    for ax, kind in zip(axes, KINDS, strict=True):
        for row in (r for r in found if r["kind"] == kind):
            y, c = order.index(row["method"]), plots.PALETTE[FAMILIES.index(row["family"])]
            ax.errorbar(row["accuracy"], y, xerr=np.nan_to_num(row["interval"]), fmt="o", color=c, capsize=3)
            if row["published"] is not None:
                ax.plot(row["published"], y, marker="x", color="#222222", markersize=9)
        ax.set(title=f"{kind}-incremental", xlabel="average accuracy (%)", yticks=range(len(order)), yticklabels=order)
        ax.grid(axis="x", visible=True)
    axes[0].set_ylim(len(order) - 0.5, -0.5)
    return figure


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
    "permuted domain: EWC": Reference(">=", 94.0, TARGET),
    "permuted domain: SI": Reference(">=", 95.0, TARGET),
    "permuted domain: DGR": Reference(">=", 95.0, TARGET),
    "permuted domain: joint training": Reference(">=", 97.5, TARGET),
    "demo task: MAS": Reference(">=", 98.8, "the authors' notebook: 98.86"),
    "demo task: MAS, forgetting": Reference("<=", 0.1, "the authors' notebook: 0.07"),
}
NOTES = """Every method with a strength was trained once for each value on 90 % of the training data, with a seed that no other
run has, and judged on the other 10 %; methods with a number to reach at full length, the others with search_steps steps a
task. The value with the best average accuracy at the end was then used on all training data. The test set was looked at
once. Whoever chooses so looks at held-out data of old tasks, which a strict learner could not. The arrays search/... in the
.npz hold what each value gave, cpu/... the seconds that the processor was busy with one run."""
