"""The named, published experiments of the book: computing one, and reading what was published.

`reproduce("ewc-a")` computes one and writes its numbers, figure and provenance; one that was cut short goes on where it
stopped. `stored("ewc-b")` reads the numbers that are shipped with the package.
Book: notebooks/03_ewc, of the paper the figures 3A to 3C; notebooks/08_choosing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib import rc_context

from clbook import plots
from clbook.checks import InputError
from clbook.data import Data
from clbook.lab import benchmark, provenance
from clbook.lab.answers import ANSWERS
from clbook.lab.fixed import FIXED
from clbook.lab.further import FURTHER
from clbook.lab.kirkpatrick import DEPTH, KIRKPATRICK, MANY, THREE, layer_overlaps
from clbook.lab.language import LANGUAGE
from clbook.lab.plasticity import PLASTICITY
from clbook.lab.rates import ENDS, RATES
from clbook.lab.report import Computed, Experiment, Report, Setting, settings_of
from clbook.lab.stiffness import STIFFNESS
from clbook.lab.streams import BLURRED, GAP
from clbook.lab.tables import comparison
from clbook.presets import preset as pick_preset
from clbook.store import StoreError, files

__all__ = ["DEPTH", "EXPERIMENTS", "MANY", "THREE", "find", "layer_overlaps", "published", "reproduce", "stored"]

TODAY = (ANSWERS, *LANGUAGE, FURTHER, RATES, ENDS, PLASTICITY, STIFFNESS, GAP, BLURRED)
EXPERIMENTS = {e.name: e for e in (*KIRKPATRICK, *benchmark.BENCHMARKS, FIXED, *TODAY)}


def reproduce(
    name: str,
    preset: str | None = None,
    out: str | os.PathLike[str] = "results",
    *,
    seeds: int | None = None,
    sizes: Any = None,
    device: str = "auto",
    workers: int = 1,
    allow_mixed_code: bool = False,
    progress: bool | None = None,
    quiet: bool = False,
) -> Report:
    """Compute the named experiment, write OUT/NAME.json, .npz and .png, and print the targets beside ours.

    `sizes` replaces those of the preset, `seeds` their number of seeds. `workers` processes of one thread each share the work
    of the benchmarks; the other experiments train one run after the other. Cut short, it goes on from OUT/.work when it is
    called again with the same sizes.

    At the presets book and paper everything must come from one commit with no changes beside it, unless `allow_mixed_code`;
    then the report says so. Raises InputError for this, an unknown name and fewer than one worker or seed.
    """
    experiment, chosen, out = find(name), pick_preset(preset), Path(out)
    one_commit = chosen.name != "quick" and not allow_mixed_code
    if one_commit:
        provenance.refuse_mixed([provenance.commit()])
    sizes = _sized(experiment, chosen.name, sizes, seeds)
    data = chosen.load(sizes.data)
    settings = settings_of(sizes) | {"data": data.name}
    work = out / ".work" / f"{name}-{_key(chosen.name, settings)}"
    setting = Setting(sizes, data, work, device, progress, workers, one_commit)
    info = _info(computed := experiment.compute(setting), data)
    if one_commit:
        provenance.refuse_mixed(info["commits"])
    report = Report(name, chosen.name, settings, *computed[:3], info)
    _write(report, experiment, out)
    shutil.rmtree(setting.work, ignore_errors=True)
    if not quiet:
        print(_said(report, experiment, sizes.seeds))
    return report


def find(name: str) -> Experiment:
    """The experiment of that name. Raises InputError for an unknown one."""
    if name not in EXPERIMENTS:
        raise InputError(f"unknown experiment {name!r}: choose one of {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def stored(name: str) -> Report:
    """The published numbers of the named experiment, with their provenance, as they are shipped with the package.

    Raises InputError for an unknown name, StoreError where its numbers are not there or cannot be used.
    """
    find(name)
    folder = published()
    if not files(folder / name)[1].exists():
        there = ", ".join(sorted(path.stem for path in folder.glob("*.json"))) or "none"
        raise StoreError(f"{folder} has no numbers of {name!r} (there are: {there}); clbook reproduce {name} computes them")
    return Report.load(folder / name)


def published() -> Path:
    """The folder of the published numbers: in the installed package, and in a checkout beside it."""
    package = Path(plots.__file__).resolve().parent  # importlib.resources does not see clbook.results in an editable install
    inside = package / "results"
    return inside if inside.is_dir() else package.parent / "results"


def _write(report: Report, experiment: Experiment, out: Path) -> None:
    """The report's numbers and its figure, OUT/NAME.json, .npz and .png."""
    report.save(out / report.name, experiment)
    with rc_context():
        plots.use_style()
        experiment.draw(report).savefig(out / f"{report.name}.png", dpi=150)


def _said(report: Report, experiment: Experiment, seeds: int) -> str:
    """What is printed of a report: where the experiment is from, how it was computed, and the targets beside ours."""
    size = f"preset {report.preset}, {seeds} seeds, {report.info['seconds']:.0f} s"
    note = f"note: {report.info['mixed_code']}\n" if report.info["mixed_code"] else ""
    table = comparison(report.table(experiment.reference, experiment.unit))
    return f"{experiment.title}\n{experiment.source}; {size}\n{note}\n{table}"


def _sized(experiment: Experiment, preset: str, sizes: Any, seeds: int | None) -> Any:
    """The sizes given, else the preset's, with another number of seeds where that is given."""
    sizes = experiment.sizes[preset] if sizes is None else sizes
    return sizes if seeds is None else replace(sizes, seeds=seeds)


def _key(preset: str, settings: dict[str, Any]) -> str:
    """What half-done work belongs to: with other sizes an experiment starts anew."""
    return hashlib.sha256(json.dumps([preset, settings], sort_keys=True).encode()).hexdigest()[:8]


def _info(computed: Computed, data: Data) -> dict[str, Any]:
    """Where everything came from, the runs of a search included; `mixed_code` says why it is not one commit, if it is not."""
    info = provenance.joined([*computed.results.values(), *computed.searches])
    return {"data": data.name} | info | {"mixed_code": provenance.mixed(info["commits"])}
