"""What a named experiment is and what it leaves: results, and the published value beside ours.

Book: book/about, "The numbers".
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from clbook import metrics, store
from clbook.checks import Count, InputError, Number, Strength, check, check_fields
from clbook.data import Data
from clbook.lab.search import SEEDS, Search, Tuned
from clbook.loop import Training, run
from clbook.method import Method
from clbook.methods import EWC
from clbook.net import Net, mlp
from clbook.result import ARRAYS, Result
from clbook.scenarios import Scenario

Arrays = dict[str, np.ndarray]
Seeds = Sequence[int] | None
Values = dict[str, float]  # of the fields that are searched
Train = Callable[[str, Scenario, Values, Seeds], Result]
Judge = Callable[[Result], np.ndarray]  # how good each run is [runs]

WORDS = ("experiment", "preset", "settings", "provenance", "results")  # what the JSON of a report must have


@dataclass(frozen=True)
class Reference:
    """A value to compare with: ours should be at least (">=") or at most ("<=") so large, and where that is said.

    With "in", ours should lie between `value` and `upper`. Raises InputError for an upper bound anywhere else.
    """

    sense: Literal[">=", "<=", "in"]
    value: Number
    source: str
    upper: Number | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.upper is None) == (self.sense == "in"):
            raise InputError(f'Reference.upper belongs to sense="in", got upper={self.upper} and sense={self.sense!r}')

    def reached(self, ours: float) -> bool:
        """Whether ours is as it should be; NaN never is."""
        low, high = self.sense in (">=", "in"), self.value if self.sense == "<=" else self.upper
        return (not low or ours >= self.value) and (high is None or ours <= high)


@dataclass(frozen=True, kw_only=True)
class Budget(Training):
    """How every run of an experiment is trained, and how many there are. `data` is what the book and paper presets load."""

    seeds: Count
    hidden: tuple[Count, ...]
    lam: Strength  # of EWC
    fisher_samples: Count = 1000
    data: str = "mnist"
    searched: bool = True  # strengths and learning rates are chosen on held-out data, and those here are where that begins


def arguments(training: Training) -> dict[str, Any]:
    """The fields of Training, as `run` takes them, whatever else a subclass holds."""
    return {f.name: getattr(training, f.name) for f in fields(Training)}


def with_values(method: Method, values: Values) -> tuple[Method, dict[str, Any]]:
    """The method with these values of its own fields, and beside it those that belong to its training, such as lr."""
    own = {f.name: values[f.name] for f in fields(method) if f.name in values}
    return replace(method, **own), {name: value for name, value in values.items() if name not in own}


def accuracy(result: Result) -> np.ndarray:
    """Average accuracy at the end in percent [runs]; a run that diverged counts as 0."""
    return np.nan_to_num(100 * np.asarray(metrics.average_accuracy(result.R)))


@dataclass(frozen=True)
class Setting:
    """One experiment being computed: its sizes, its data, and how to train a part of it so that it can be taken up again.

    `workers` is the number of processes, for experiments whose parts do not wait for each other. With `one_commit` parts
    that another commit has left are refused before more are computed. Raises InputError for fewer than one worker.
    """

    sizes: Any
    data: Data
    work: Path
    device: str = "auto"
    progress: bool | None = None
    workers: Count = 1
    one_commit: bool = False

    def __post_init__(self) -> None:
        check(self.workers, Count, "workers")

    def train(
        self, part: str, scenario: Scenario, method: Method, net: Net | None = None, seeds: Seeds = None, **training: Any
    ) -> Result:
        """One part of the experiment: the method with every seed. A part that is finished is not computed again.

        `seeds` and `training` take the place of what the sizes say.
        """
        place: dict[str, Any] = {"device": self.device, "progress": self.progress, "checkpoint": self.work / part}
        how = arguments(self.sizes) | training
        return run(scenario, method, self.sizes.seeds if seeds is None else seeds, net=net or self.net(), **how, **place)

    def search(
        self, name: str, scenario: Scenario, tuned: Iterable[Tuned], train: Train, judge: Judge = accuracy, share: float = 0.1
    ) -> tuple[Values, Arrays]:
        """The best values on a held-out `share` of the training data, one field after the other, each with those before.

        train(part, scenario, values, seeds) trains one run, and judge(result) says how good it is. What was tried comes beside,
        for Report.arrays. Where the sizes are not `searched`, nothing is.
        """
        if not self.sizes.searched:
            return {}, {}
        held, values, arrays = scenario.held_out(share), Values(), Arrays()
        for each in tuned:

            def score(value: float, seed: int, each: Tuned = each) -> float:
                part = f"search-{name}-{each.name}-{value:g}-{seed}"
                result = train(part, held, values | {each.name: value}, [SEEDS[seed]])
                return float(judge(result).mean())

            search = Search(each)
            values[each.name] = search.climb(score)
            arrays[f"search/{name}: {each.name}"] = search.table()
        return values, arrays

    def net(self, dropout: tuple[float, float] = (0.0, 0.0), width: int | None = None) -> Net:
        hidden = self.sizes.hidden if width is None else (width,) * len(self.sizes.hidden)
        return mlp(self.data.x.shape[1], self.data.n_classes, hidden, dropout)

    def ewc(self) -> EWC:
        return EWC(lam=self.sizes.lam, n_samples=self.sizes.fisher_samples)


class Computed(NamedTuple):
    """What computing an experiment gives: results, arrays and ours as in Report.

    `searches` are the runs that the results were chosen by: their numbers are not shown, their provenance is.
    """

    results: dict[str, Result]
    arrays: dict[str, np.ndarray]
    ours: dict[str, np.ndarray]
    searches: tuple[Result, ...] = ()


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
        text = {
            "experiment": self.name,
            **{k: getattr(experiment, k) for k in ("title", "source", "notes")},
            "preset": self.preset,
            "settings": self.settings,
            "table": self.table(experiment.reference, experiment.unit),
            "provenance": self.info,
            "results": {label: r.words() for label, r in self.results.items()},
        }
        arrays = {f"result/{label}/{n}": v for label, r in self.results.items() for n, v in r.arrays().items()}
        arrays |= {f"array/{k}": v for k, v in self.arrays.items()}
        arrays |= {f"ours/{k}": np.atleast_1d(v) for k, v in self.ours.items()}
        store.write(path, arrays, text)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Read what `save` wrote. Raises StoreError for a file that is cut off, altered or something else."""
        arrays, text = store.read(path)
        if missing := [name for name in WORDS if name not in text]:
            raise store.StoreError(f"{store.files(path)[1]} is no report of an experiment: it has no {', '.join(missing)}")
        of = lambda kind: {k.removeprefix(kind): v for k, v in arrays.items() if k.startswith(kind)}  # noqa: E731
        numbers = {label: of(f"result/{label}/") for label in text["results"]}
        results = {
            label: Result.of({n: v for n, v in numbers[label].items() if n in ARRAYS}, words)
            for label, words in text["results"].items()
        }
        return cls(text["experiment"], text["preset"], text["settings"], results, of("array/"), of("ours/"), text["provenance"])


@dataclass(frozen=True)
class Experiment:
    """A published experiment: its source, what it should give, its sizes at each preset, and how to compute and draw it.

    `unit` is that of `reference`.
    """

    name: str
    title: str
    source: str
    reference: dict[str, Reference]
    sizes: dict[str, Any]
    compute: Callable[[Setting], Computed]
    draw: Callable[[Report], Figure]
    notes: str = ""
    unit: str = "%"


def settings_of(sizes: Any) -> dict[str, Any]:
    """A sizes dataclass as plain values, as JSON has them."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(sizes)))
    return found
