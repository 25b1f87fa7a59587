"""How the benchmark is computed: every strength chosen on held-out training data, then every method trained with it.

The work is cut into parts, each kept in a file whose name changes with everything the numbers depend on, the code included.
The test set is looked at once, with what the search has chosen.
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
from tqdm.auto import tqdm

from clbook import code, metrics
from clbook.data import Data
from clbook.lab import entries, provenance
from clbook.lab.entries import Entry, Table, scenario_of
from clbook.lab.provenance import concat
from clbook.lab.report import Computed, Setting, arguments
from clbook.loop import fits, pick_device, run
from clbook.method import Method
from clbook.net import mlp
from clbook.result import Result
from clbook.scenarios import Kind
from clbook.store import files


@dataclass(frozen=True)
class Part:
    """Some runs that are computed together and kept in a file, so that a stop costs one part at most."""

    suite: str
    kind: Kind
    label: str
    method: Method
    seeds: tuple[int, ...]
    search: bool

    @property
    def key(self) -> str:
        """The cell of the benchmark that it belongs to."""
        return f"{self.suite} {self.kind}: {self.label}"

    def training(self, sizes: Table) -> dict[str, Any]:
        """How it is trained, as `run` takes it."""
        suite = getattr(sizes, self.suite)
        short = self.search and not entries.entry(self.key).target
        return arguments(suite) | ({"steps": suite.search_steps} if short else {})

    def path(self, folder: Path, sizes: Table, data: str) -> Path:
        """Where it is kept: a name that changes with everything the numbers depend on."""
        suite, held_out = getattr(sizes, self.suite), sizes.held_out if self.search else None
        what = [repr(self), self.training(sizes), suite.tasks, suite.hidden, held_out, data]
        what.append(code.digest(type(self.method), "clbook.loop"))
        return folder / hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]

    def compute(self, sizes: Table, data: Data, device: str) -> Result:
        """Train it. Its info has the seconds that the processor was busy, which other work on the machine changes little."""
        suite, scenario = getattr(sizes, self.suite), scenario_of(self.suite, sizes, data, self.kind)
        scenario = scenario.held_out(sizes.held_out) if self.search else scenario
        net = mlp(data.x.shape[1], scenario.n_outputs, suite.hidden)
        started = time.process_time()
        result = run(scenario, self.method, self.seeds, net=net, device=device, progress=False, **self.training(sizes))
        return replace(result, info=result.info | {"cpu_seconds": round(time.process_time() - started, 2)})


def compare_all(s: Setting) -> Computed:
    """Search for the strengths, then train every method with what was chosen; each part is kept as soon as it is there."""
    net = mlp(s.data.x.shape[1], s.data.n_classes, s.sizes.split.hidden)
    together = fits(net, s.sizes.split.batch_size, pick_device(s.device)) > 1  # then all seeds train in one stack
    tried = _by_cell(_trained(list(search_parts(s.sizes)), s, "search"))
    chosen = {key: max(runs, key=lambda r: _accuracy(r).mean()) for key, runs in tried.items()}
    finals = _by_cell(_trained(final_parts(s.sizes, chosen, together), s, "benchmark"))
    results = {key: concat(runs) for key, runs in finals.items()}
    arrays = {f"cpu/{key}": np.array([r.info["cpu_seconds"] / len(r.R) for r in runs]) for key, runs in finals.items()}
    for key, runs in tried.items():
        arrays[f"search/{key}"] = np.array([[r.runs[0][entries.entry(key).field], _accuracy(r).mean()] for r in runs])
    ours = {key: _accuracy(result) for key, result in results.items()}
    ours |= {
        f"{key}, forgetting": 100 * np.asarray(metrics.forgetting(r.R)) for key, r in results.items() if key.startswith("demo")
    }
    return Computed(results, arrays, ours, tuple(r for runs in tried.values() for r in runs))


def search_parts(sizes: Table) -> Iterator[Part]:
    """One part for every value that is tried, with a seed that no other run has."""
    for suite, kind, label, entry in _cells(sizes):
        for method in entry.candidates() if entry.values else ():
            yield Part(suite, kind, label, method, (sizes.search_seed,), search=True)


def final_parts(sizes: Table, chosen: dict[str, Result], together: bool) -> list[Part]:
    """The parts that are trained on all data, with the best value of the search; one for each seed unless they stack."""
    parts: list[Part] = []
    for suite, kind, label, entry in _cells(sizes):
        part = Part(suite, kind, label, entry.method, tuple(range(sizes.seeds_of(suite, entry))), search=False)
        if part.key in chosen:
            value = chosen[part.key].runs[0][entry.field]
            part = replace(part, method=replace(entry.method, **{entry.field: value}))
        parts += [part] if together else [replace(part, seeds=(seed,)) for seed in part.seeds]
    return sorted(parts, key=lambda p: (not entries.entry(p.key).target, p.seeds[0]))  # a first look at all comes early


def _cells(sizes: Table) -> Iterator[tuple[str, Kind, str, Entry]]:
    """Every cell of the benchmark: suite, kind, label, entry."""
    for suite, table in entries.ENTRIES.items():
        for kind in getattr(sizes, suite).kinds:
            for label, entry in table.items():
                if kind in entry.kinds:
                    yield suite, kind, label, entry


def _trained(parts: list[Part], s: Setting, what: str) -> Iterator[tuple[Part, Result]]:
    """The parts with their results: from their files, or computed now, `s.workers` at a time, and written to them."""
    folder = s.work.parent / "benchmark"
    paths = [part.path(folder, s.sizes, s.data.name) for part in parts]
    results = {path: Result.load(path) for path in paths if files(path)[1].exists()}
    if s.one_commit:  # said before hours are spent on the rest
        provenance.refuse_mixed([provenance.commit(), *(c for r in results.values() for c in provenance.commits_of(r.info))])
    missing = [(part, path) for part, path in zip(parts, paths, strict=True) if path not in results]
    jobs = [(part, s.sizes, s.device) for part, _ in missing]
    bar = tqdm(_mapped(_compute, jobs, s), total=len(missing), desc=what, disable=s.progress is False)
    for (part, path), result in zip(missing, bar, strict=True):
        bar.set_postfix_str(part.key)
        result.save(path)
        results[path] = result
    return ((part, results[path]) for part, path in zip(parts, paths, strict=True))


def _mapped(f: Callable[..., Any], jobs: list[tuple[Any, ...]], s: Setting) -> Iterator[Any]:
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


def _by_cell(parts: Iterable[tuple[Part, Result]]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for part, result in parts:
        found.setdefault(part.key, []).append(result)
    return found


def _accuracy(result: Result) -> np.ndarray:
    """Average accuracy at the end in percent [runs]; a run that diverged counts as 0."""
    return np.nan_to_num(100 * np.asarray(metrics.average_accuracy(result.R)))
