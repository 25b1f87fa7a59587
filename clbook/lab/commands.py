"""What the commands do: `run` trains, prints and writes; `reproduce` computes an experiment; `check` looks for mistakes.

What one command alone needs is imported in it: tables and figures take longer to load than a small command takes to run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clbook import data, store
from clbook.checks import InputError
from clbook.lab.options import (
    METHODS,
    SIZES,
    Check,
    Grade,
    Handout,
    Leaderboard,
    Reproduce,
    Run,
    Sweep,
    method_of,
    option_name,
    training_of,
)
from clbook.loop import run
from clbook.method import Method
from clbook.net import mlp
from clbook.presets import PRESETS
from clbook.presets import preset as pick_preset
from clbook.result import Result
from clbook.scenarios import Kind, Scenario, permuted, rotated, split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCENARIOS: dict[str, Callable[..., Scenario]] = {"permuted": permuted, "rotated": rotated, "split": split}
SHOWN = {"accuracy": "accuracy", "forgetting": "forgetting", "bwt": "backward transfer"}  # columns of the summary, their names


def run_command(options: Run) -> None:
    """`clbook run`: whatever can be refused is refused before anything is trained."""
    from clbook.lab.report import arguments

    preset = pick_preset(options.preset)
    method, sizes = method_of(options), SIZES[preset.name]
    training = training_of(options, sizes)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    scenario = scenario_of(options, data.load(sizes["dataset"] if options.dataset is None else options.dataset))
    hidden = sizes["hidden"] if options.hidden is None else options.hidden
    net = mlp(scenario.data.x.shape[1], scenario.n_outputs, hidden)
    result = run(
        scenario,
        method,
        options.seeds,
        net=net,
        device=options.device,
        checkpoint=options.checkpoint,
        progress=False if options.quiet else None,
        **arguments(training),
    )
    rows = summary(result)
    if options.out is not None:
        _write(options, replace(result, info=result.info | {"preset": preset.name, "summary": rows}), method)
    if not options.quiet:
        _print_run(options, scenario, result, rows)


def scenario_of(options: Run, base: data.Data) -> Scenario:
    """The scenario that the options describe; rotated tasks are spread evenly from 0 to 90 degrees."""
    kind: Kind = options.kind or ("task" if options.scenario == "split" else "domain")
    if options.scenario == "rotated":
        return rotated(base, np.linspace(0, 90, max(options.tasks, 0)).tolist(), kind=kind)
    return SCENARIOS[options.scenario](base, options.tasks, kind=kind)


def summary(result: Result) -> list[dict[str, Any]]:
    """The rows of the table, in percent; None where one seed gives no interval."""
    plain = lambda v: None if isinstance(v, float) and np.isnan(v) else v  # noqa: E731
    return [{k: plain(v) for k, v in row.items()} for row in result.summary().to_dict("records")]


def draw(result: Result, label: str) -> Figure:
    """The accuracy matrix, mean over seeds; beside it, where it was measured, accuracy during training."""
    from matplotlib.figure import Figure

    from clbook import plots

    curves = result.curve.shape[1] > 0
    figure = Figure(figsize=(12 if curves else 6, 5), layout="constrained")
    axes = figure.subplots(1, 2 if curves else 1, squeeze=False)[0]
    plots.accuracy_matrix(result.R.mean(0), names=result.names, ax=axes[0])
    axes[0].set_title(label)
    if curves:
        for task, name in enumerate(result.names):
            plots.training_curves({name: result}, task, ax=axes[1], legend=False)
        axes[1].set(ylabel="accuracy (%)", ylim=(0, 102))
        axes[1].legend()
    return figure


def reproduce_command(options: Reproduce) -> None:
    """`clbook reproduce`."""
    from clbook.lab.experiments import reproduce

    given = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in ("name", "preset", "out")}
    reproduce(options.name, options.preset, options.out, progress=False if options.quiet else None, **given)


def sweep_command(options: Sweep) -> None:
    """`clbook sweep`."""
    from clbook.lab import spec, work
    from clbook.lab.executors import executor

    parts = spec.read(options.spec, options.device)
    folder = Path("results") / options.spec.stem if options.out is None else options.out
    if options.status:
        print(work.status(parts, folder))
        return
    place: dict[str, Any] = {"device": options.device, "progress": not options.quiet}
    if options.executor == "local":
        work.sweep_here(parts, folder, options.workers, **place)
    else:
        settings = {"scheduler": options.scheduler, "folder": folder, **_settings(options.slurm)}
        with executor(options.executor, **settings) as workers:
            work.sweep(parts, folder, workers, **place)
    found = work.table(parts, folder)
    found.to_csv(folder / "SWEEP.csv", index=False)
    if not options.quiet:
        print("percent, mean ± 95 % interval over seeds", found.round(1).to_string(index=False), sep="\n")
        print(f"written: {folder / 'SWEEP.csv'}")


def check_command(options: Check) -> int:
    """`clbook check`: 0 all right, 1 a fault, 2 something could not be checked."""
    from clbook import course

    if options.list:
        print(course.listed())
    elif options.template is not None:
        print(course.template(options.template), end="")
    elif options.file is None:
        raise InputError("check needs a file: clbook check my_ewc.py; clbook check --list says what may be in it")
    else:
        report = course.check_file(options.file, only=options.only, limit=options.limit)
        print(json.dumps(report.data, indent=2) if options.json else report)
        return report.status
    return 0


def handout_command(options: Handout) -> None:
    """`clbook handout`."""
    from clbook.course import master

    for path in master.handout(master.read(options.master), options.to, options.solution):
        print(f"written: {path}")


def grade_command(options: Grade) -> None:
    """`clbook grade`."""
    from clbook.course import master
    from clbook.course.grade import report
    from clbook.course.grade.grader import grade_folder
    from clbook.course.grade.submission import shown

    folder = options.folder
    out = folder.with_name(f"{folder.resolve().name}-grades") if options.out is None else options.out
    tell = (lambda line: None) if options.quiet else (lambda line: print(shown(line), flush=True))
    given: dict[str, Any] = {"seed": options.seed, "workers": options.workers, "trust": options.trust_submissions}
    grades = grade_folder(folder, master.read(options.assignment), out, tell=tell, **given)
    for line in report.write(grades, out, gradescope=options.gradescope, canvas=options.canvas):
        tell(line)


def leaderboard_command(options: Leaderboard) -> None:
    """`clbook leaderboard`."""
    from clbook.course.grade import report
    from clbook.course.leaderboard import leaderboard

    found = leaderboard(report.read(options.folder), options.check)
    for name, content in {"LEADERBOARD.csv": found.csv, "LEADERBOARD.html": found.html}.items():
        store.replace(options.folder / name, content)
    print(found, f"written: {options.folder}/LEADERBOARD.csv, LEADERBOARD.html", sep="\n")


def _settings(words: tuple[str, ...]) -> dict[str, Any]:
    """name=value pairs as a dictionary; whole numbers become numbers."""
    pairs = [word.partition("=") for word in words]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise InputError(f"--slurm takes name=value pairs, got {', '.join(wrong)}")
    return {name: int(value) if value.isdigit() else value for name, _, value in pairs}


def list_command(_: Any) -> None:
    """`clbook list`."""
    from clbook.lab.experiments import EXPERIMENTS

    print("methods (clbook run --method NAME), with their options and defaults")
    for name, method in METHODS.items():
        print(f"  {name}: {_first_line(method)}")
        if fields(method):
            print("      " + " ".join(f"{option_name(method, f.name)} {_default(f)}" for f in fields(method)))
    print("\nscenarios (clbook run --scenario NAME)")
    for name, scenario in SCENARIOS.items():
        print(f"  {name}: {_first_line(scenario)}")
    print(f"\ndata sets (clbook run --dataset NAME): {', '.join(data.NAMES)}")
    print(f"presets (--preset NAME, or CLBOOK_PRESET): {', '.join(PRESETS)}")
    print("\nexperiments (clbook reproduce NAME)")
    for e in EXPERIMENTS.values():
        print(f"  {e.name}: {e.title}. {e.source}")


def _write(options: Run, result: Result, method: Method) -> None:
    from matplotlib import rc_context

    from clbook import plots

    result.save(str(options.out))
    with rc_context():
        plots.use_style()
        draw(result, method.label).savefig(f"{options.out}.png", dpi=150)


def _print_run(options: Run, scenario: Scenario, result: Result, rows: list[dict[str, Any]]) -> None:
    import pandas as pd

    from clbook.lab.tables import plus_minus

    what = f"{options.scenario} {scenario.data.name}, {len(scenario)} tasks, {scenario.kind}-incremental"
    print(f"{what}; seeds: {options.seeds}; {result.info['device']}, {result.info['seconds']:.0f} s")
    print("percent, mean ± 95 % interval over seeds" if options.seeds > 1 else "percent; one seed gives no interval")
    name = _name(method_of(options))
    shown = [{"method": name} | {title: plus_minus(row[q], row[f"{q} ±"]) for q, title in SHOWN.items()} for row in rows]
    print(pd.DataFrame(shown).to_string(index=False))
    if options.out is not None:
        print(f"written: {options.out}.json, {options.out}.npz, {options.out}.png")


def _name(method: Method) -> str:
    """The method's label with the fields that are not at their defaults, such as EWC(lam=100)."""
    given = {f.name: getattr(method, f.name) for f in fields(method) if getattr(method, f.name) != f.default}
    values = ", ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in given.items())
    return f"{method.label}({values})" if given else method.label


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _default(f: Field[Any]) -> str:
    if f.default is MISSING:
        return "(required)"
    return (" ".join(map(str, f.default)) or "(none)") if isinstance(f.default, tuple) else str(f.default)
