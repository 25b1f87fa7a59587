"""How the benchmark is computed: every strength chosen on held-out training data, then every method trained with it.

The work is one sweep of `lab.parts`: each part is kept under a key that changes with everything the numbers depend on, the
code included. The test set is looked at once, with what the searches have chosen.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from clbook import metrics
from clbook.lab import entries, provenance, work
from clbook.lab.entries import Entry, Suite, Table
from clbook.lab.parts import Part, parts_of
from clbook.lab.provenance import concat
from clbook.lab.report import Computed, Setting, accuracy, arguments
from clbook.lab.search import Search, told
from clbook.loop import Training
from clbook.method import Method
from clbook.result import Result
from clbook.scenarios import Kind

Results = dict[Part, Result]
USUAL = 6  # runs that the search for one value takes, more or less
UNKNOWN = 45.0  # seconds of a run where nothing published says how long it takes


@dataclass(frozen=True)
class Cell:
    """One number of the benchmark: a method in one scenario of one suite."""

    suite: Suite
    kind: Kind
    label: str
    entry: Entry = field(repr=False, compare=False)

    @property
    def key(self) -> str:
        """Its name, such as "split class: EWC"."""
        return f"{self.suite.name} {self.kind}: {self.label}"

    def parts(self, s: Setting, method: Method, seeds: Iterable[int], held_out: float | None = None) -> list[Part]:
        """Runs of the method with these seeds, judged on held-out training data or on the test set."""
        stream, training = self.suite.stream(self.kind, s.data.name, held_out), Training(**arguments(self.suite))
        return list(parts_of(stream, self.suite.shape, training, [method], list(seeds), s.device))


@dataclass
class Choice:
    """The searches for one cell, one field after the other, and the method with what they have found so far."""

    cell: Cell
    method: Method
    searches: dict[str, Search] = field(default_factory=dict)

    def trials(self) -> Generator[list[tuple[Method, int]], list[float], None]:
        """Ask for runs of a method with one of the search's seeds, and be told their scores, until all is chosen."""
        for tuned in self.cell.entry.tuned:
            search = self.searches[tuned.name] = Search(tuned, self.cell.kind)
            asking = search.trials()
            wanted = told(asking)
            while wanted:
                scores = yield [(replace(self.method, **{tuned.name: value}), seed) for value, seed in wanted]
                wanted = told(asking, scores)
            self.method = replace(self.method, **{tuned.name: search.best})


def compare_all(s: Setting) -> Computed:
    """Search for what is tuned, then train every method with what was chosen; each part is kept as soon as it is there."""
    found: Results = {}
    cells = list(cells_of(s.sizes))
    if s.progress is not False and s.one_commit:
        print(f"about {cost(cells, s.sizes.seeds):.1f} core-hours in all, of which nothing that is kept is computed again")
    chosen = choose(cells, s, found)
    if s.progress is not False:
        print(*_stopped(chosen), sep="\n", end="")
    searched = list(found.values())
    seeds = range(s.sizes.seeds)
    finals = {c: c.parts(s, chosen[c].method, seeds) for c in cells}
    _compute(_in_turn(finals.values()), s, found)
    wide = [c for c in cells if _too_wide([found[p] for p in finals[c]], s.sizes.wide)]
    for c in wide:
        finals[c] += c.parts(s, chosen[c].method, range(len(seeds), 2 * len(seeds)))
    _compute(_in_turn(finals[c] for c in wide), s, found)
    runs = {c.key: [found[p] for p in finals[c]] for c in cells}
    return Computed(results := {k: concat(r) for k, r in runs.items()}, _arrays(chosen, runs), _ours(results), tuple(searched))


def cells_of(sizes: Table) -> Iterator[Cell]:
    """Every cell of the benchmark."""
    for suite in sizes.suites:
        for kind in suite.kinds:
            for label, entry in entries.ENTRIES[suite.name].items():
                if kind in entry.kinds:
                    yield Cell(suite, kind, label, entry)


def choose(cells: list[Cell], s: Setting, found: Results) -> dict[Cell, Choice]:
    """Search in all cells at once: what they want next is one sweep, until none wants anything."""
    choices = {c: Choice(c, c.entry.method) for c in cells}
    asking = {c: choice.trials() for c, choice in choices.items()}
    wanted = {c: trials for c in cells if (trials := told(asking[c]))}
    while wanted:
        parts: dict[Cell, list[Part]] = {c: [] for c in wanted}
        for c, trials in wanted.items():
            for method, seed in trials:
                parts[c] += c.parts(s, method, [s.sizes.search_seeds[seed]], s.sizes.held_out)
        _compute([part for some in parts.values() for part in some], s, found)
        scores = {c: [float(accuracy(found[part]).mean()) for part in some] for c, some in parts.items()}
        wanted = {c: trials for c in wanted if (trials := told(asking[c], scores[c]))}
    return choices


def cost(cells: list[Cell], seeds: int) -> float:
    """Hours of one core that all runs of these cells take, by the published times of their methods where there are some."""
    from clbook.lab.experiments import stored
    from clbook.store import StoreError

    try:
        times = {k.removeprefix("cpu/"): float(v.min()) for k, v in stored("benchmark").arrays.items() if k.startswith("cpu/")}
    except StoreError:
        times = {}
    runs = {c: seeds + USUAL * len(c.entry.tuned) for c in cells}
    return sum(n * times.get(c.key, times.get(f"split {c.kind}: {c.label}", UNKNOWN)) for c, n in runs.items()) / 3600


def _stopped(chosen: dict[Cell, Choice]) -> Iterator[str]:
    """A line for each search that ended at an end of its grid which still rises."""
    for cell, choice in chosen.items():
        for name, search in choice.searches.items():
            if search.edge:
                yield f"{cell.key}: {name} = {search.best:g} lies at the end of what was tried\n"


def _compute(parts: list[Part], s: Setting, found: Results) -> None:
    """Have the parts computed that are not kept yet; all of them are in `found` then."""
    folder = s.work.parent / "benchmark"
    found |= {part: r for part in parts if part not in found and (r := work.kept(part, folder)) is not None}
    if s.one_commit:  # said before hours are spent on the rest
        there = (found[part].info for part in parts if part in found)
        provenance.refuse_mixed([provenance.commit(), *(c for info in there for c in provenance.commits_of(info))])
    if missing := [part for part in parts if part not in found]:
        work.sweep_here(missing, folder, s.workers, device=s.device, progress=s.progress is not False)
        found |= {part: r for part in missing if (r := part.load(folder)) is not None}


def _in_turn(parts: Iterable[list[Part]]) -> list[Part]:
    """The first part of each list, then the second of each: a first look at all comes early."""
    lists = list(parts)
    return [some[i] for i in range(max(map(len, lists), default=0)) for some in lists if i < len(some)]


def _too_wide(results: list[Result], wide: float) -> bool:
    _, half = metrics.interval(accuracy(concat(results)))
    return bool(half > wide)


def _arrays(chosen: dict[Cell, Choice], runs: dict[str, list[Result]]) -> dict[str, np.ndarray]:
    """cpu/cell: seconds of a run [parts]. search/cell: field: value, mean score and number of seeds [values, 3]."""
    arrays = {f"cpu/{k}": np.array([r.info["cpu_seconds"] / len(r.R) for r in results]) for k, results in runs.items()}
    for cell, choice in chosen.items():
        for name, search in choice.searches.items():
            arrays[f"search/{cell.key}: {name}"] = search.table()
    return arrays


def _ours(results: dict[str, Result]) -> dict[str, np.ndarray]:
    ours = {key: accuracy(result) for key, result in results.items()}
    demo = {key: r for key, r in results.items() if key.startswith("demo")}
    return ours | {f"{key}, forgetting": 100 * np.asarray(metrics.forgetting(r.R)) for key, r in demo.items()}
