"""The command line: `clbook run`, `clbook reproduce`, `clbook list`; also `python -m clbook`.

Every option is a field of a dataclass, read by tyro: of Run, of Training, and with `--method NAME` of that method's own class,
so a new method has its options here without a line of code. Book: book/index, "The command line".
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_type_hints

import numpy as np
import tyro
from clbook.engine import DivergedError, run
from clbook.experiments import EXPERIMENTS, find, reproduce
from clbook.report import plus_minus, text_table
from clbook.training import Training
from matplotlib import rc_context
from matplotlib.figure import Figure

from clbook import data, methods, plots
from clbook.data import DataError
from clbook.method import Method
from clbook.net import mlp
from clbook.presets import PRESETS
from clbook.presets import preset as pick_preset
from clbook.result import Result
from clbook.scenarios import Scenario, permuted, rotated, split

METHODS: dict[str, type[Method]] = {name.lower(): getattr(methods, name) for name in methods.__all__}
SCENARIOS: dict[str, Callable[..., Scenario]] = {"permuted": permuted, "rotated": rotated, "split": split}
# what an option is where it is not given: data set, epochs, batch size, hidden layers
SIZES = {
    "quick": ("digits", 10, 32, (100, 100)),
    "book": ("mnist", 2, 128, (400, 400)),
    "paper": ("mnist", 20, 128, (400, 400)),
}
INPUT, FAILED, STOPPED = 2, 1, 130  # exit status


@dataclass(frozen=True)
class Run:
    """Train one method on a scenario with several seeds; print accuracy, forgetting and backward transfer.

    The options of the method itself are shown by: clbook run --method NAME --help
    """

    scenario: Literal["permuted", "rotated", "split"] = "permuted"
    """Where the tasks come from."""
    tasks: int = 5
    """Number of tasks."""
    kind: str | None = None
    """task, domain or class: what is known and asked at test time (default: task for split, domain otherwise)."""
    method: str = "ewc"
    """The method, as `clbook list` names it."""
    dataset: str | None = None
    """digits, mnist or fashion (default: the preset's)."""
    seeds: int = 1
    """Number of seeds: 0, 1, ..."""
    preset: str | None = None
    """quick, book or paper: data set, epochs, batch size and layers where they are not given (default: CLBOOK_PRESET)."""
    epochs: int | None = None
    """Passes over each task (default: the preset's)."""
    steps: int | None = None
    """Optimiser steps on each task, instead of epochs."""
    lr: float = 1e-3
    """Learning rate."""
    optimizer: str = "adam"
    """adam or sgd."""
    batch_size: int | None = None
    """Samples in a step (default: the preset's)."""
    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers (default: the preset's)."""
    eval_every: int | None = None
    """Measure all tasks seen every so many steps, for curves."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    checkpoint: Path | None = None
    """Folder from which a run that was cut short goes on."""
    out: Path | None = None
    """Write OUT.json, OUT.npz and OUT.png."""
    quiet: bool = False
    """Print nothing but errors."""


@dataclass(frozen=True)
class Reproduce:
    """Compute a published experiment and print what it should give beside what it gave."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """The experiment, as `clbook list` names it."""
    preset: str | None = None
    """quick, book or paper (default: CLBOOK_PRESET, else book)."""
    out: Path = Path("results")
    """Folder for NAME.json, NAME.npz and NAME.png, and for what it needs to go on after a stop."""
    seeds: int | None = None
    """Number of seeds (default: the preset's)."""
    workers: int = 1
    """Processes of one thread each that share the work of the benchmark."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    quiet: bool = False
    """Print nothing but errors."""


@dataclass(frozen=True)
class List:
    """Name the methods with their options, the scenarios, the data sets and the experiments."""


def main(args: Sequence[str] | None = None) -> int:
    """The command `clbook`: 0 when all went well; otherwise one line on stderr and another status."""
    try:
        options = parse(sys.argv[1:] if args is None else list(args))
        {Reproduce: _reproduce, List: _list}.get(type(options), _run)(options)
    except (ValueError, DataError, OSError) as error:
        return _complain(str(error) or repr(error), INPUT)
    except DivergedError as error:
        return _complain(str(error), FAILED)
    except KeyboardInterrupt:
        return _complain("stopped; with the same options, and the same --checkpoint for run, it goes on where it was", STOPPED)
    return 0


# from words to options ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chosen:
    method: str = Run.method


def parse(args: list[str]) -> Any:
    """A Run (with the fields of its method), a Reproduce or a List. Raises ValueError with one line for anything else."""
    chosen = _tyro(_Chosen, args, return_unknown_args=True, add_help=False)[0] if "run" in args[:1] else _Chosen()
    method = method_class(chosen.method)
    commands = {"run": run_options(method), "reproduce": Reproduce, "list": List}
    return _tyro(Union[tuple(Annotated[t, tyro.conf.subcommand(name)] for name, t in commands.items())], args)  # noqa: UP007


def method_class(name: str) -> type[Method]:
    """The class of a method by its name, whatever its capitals and hyphens. Raises ValueError for an unknown one."""
    found = METHODS.get(re.sub("[-_ ]", "", name).lower())
    if found is None:
        raise ValueError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    return found


def run_options(method: type[Method]) -> type[Run]:
    """Run, with one more option per field of Training and of the method; a name that is taken gets the method's in front."""
    own = {f.name for f in fields(Run)}
    extra = [(f.name, *_typed(Training, f)) for f in fields(Training) if f.name not in own]
    extra += [(_field(method, f.name), *_typed(method, f)) for f in fields(method)]
    return make_dataclass("Run", extra, bases=(Run,), frozen=True, namespace={"__doc__": Run.__doc__})


def method_of(options: Run) -> Method:
    """The method that the options describe. Raises ValueError, as the method does, for values it does not allow."""
    method = method_class(options.method)
    return method(**{f.name: getattr(options, _field(method, f.name)) for f in fields(method)})


def _typed(owner: type, f: Field) -> tuple[Any, Any]:
    return Annotated[get_type_hints(owner)[f.name], tyro.conf.arg(help=f"{owner.__name__}.{f.name}")], field(default=f.default)


def _field(method: type[Method], name: str) -> str:
    taken = {f.name for kind in (Run, Training) for f in fields(kind)}
    return f"{method.__name__.lower()}_{name}" if name in taken else name


def _tyro(kind: Any, args: list[str], **more: Any) -> Any:
    """tyro.cli, with its boxed error turned into one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, prog="clbook", args=args, **more)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_one_line(said.getvalue())) from None


def _one_line(box: str) -> str:
    """What an error box of tyro says, without its title, rules and advice on help."""
    lines = [line.strip(" │|") for line in box.splitlines()][1:]
    lines = [line for line in lines if line and not re.fullmatch(r"[-─╭╮╰╯├┤]+", line)]
    end = next((i for i, line in enumerate(lines) if line.startswith("For full helptext")), len(lines))
    lines = lines[:end]
    if "Argument helptext:" in lines:
        i = lines.index("Argument helptext:")
        lines = [*lines[:i], f"(expected {lines[i + 1]})"]
    return f"{' '.join(lines).rstrip('.')}. See clbook --help, or clbook run --method NAME --help"


# the commands --------------------------------------------------------------------------------------------------------------


def _run(options: Run) -> None:
    method, preset = method_of(options), pick_preset(options.preset)
    options = _filled(options, preset.name)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    scenario = scenario_of(options, data.load(options.dataset))
    net = mlp(scenario.data.x.shape[1], scenario.n_outputs, options.hidden)
    training = {f.name: getattr(options, f.name) for f in fields(Training)}
    place = {"device": options.device, "checkpoint": options.checkpoint, "progress": False if options.quiet else None}
    result = run(scenario, method, options.seeds, net=net, **training, **place)
    rows = summary(result)
    if options.out is not None:
        result = replace(result, info=result.info | {"preset": preset.name, "summary": rows})
        result.save(options.out)
        with rc_context():
            plots.use_style()
            draw(result, method.label).savefig(f"{options.out}.png", dpi=150)
    if not options.quiet:
        _print_run(options, scenario, result, rows)


def _filled(options: Run, preset: str) -> Run:
    """The options, with the preset's sizes where none was given."""
    sizes = dict(zip(("dataset", "epochs", "batch_size", "hidden"), SIZES[preset], strict=True))
    if options.steps is not None:
        del sizes["epochs"]
    return replace(options, **{name: size for name, size in sizes.items() if getattr(options, name) is None})


def scenario_of(options: Run, base: data.Data) -> Scenario:
    """The scenario that the options describe; rotated tasks are spread evenly from 0 to 90 degrees."""
    kind = options.kind or ("task" if options.scenario == "split" else "domain")
    if options.scenario == "rotated":
        return rotated(base, np.linspace(0, 90, max(options.tasks, 0)).tolist(), kind=kind)
    return SCENARIOS[options.scenario](base, options.tasks, kind=kind)


def summary(result: Result) -> list[dict[str, Any]]:
    """The rows of the table, in percent; None where one seed gives no interval."""
    plain = lambda v: None if isinstance(v, float) and np.isnan(v) else v  # noqa: E731
    return [{k: plain(v) for k, v in row.items()} for row in result.summary().to_dict("records")]


def draw(result: Result, label: str) -> Figure:
    """The accuracy matrix, mean over seeds; beside it, where it was measured, accuracy during training."""
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


def _print_run(options: Run, scenario: Scenario, result: Result, rows: list[dict[str, Any]]) -> None:
    what = f"{options.scenario} {scenario.data.name}, {len(scenario)} tasks, {scenario.kind}-incremental"
    print(f"{what}; seeds: {options.seeds}; {result.info['device']}, {result.info['seconds']:.0f} s")
    print("percent, mean ± 95 % interval over seeds" if options.seeds > 1 else "percent; one seed gives no interval")
    quantities = {"accuracy": "accuracy", "forgetting": "forgetting", "bwt": "backward transfer"}
    name = _name(method_of(options))
    shown = [{"method": name} | {q: plus_minus(row[q], row[f"{q} ±"]) for q in quantities} for row in rows]
    print(text_table(shown, {"method": "method"} | quantities))
    if options.out is not None:
        print(f"written: {options.out}.json, {options.out}.npz, {options.out}.png")


def _reproduce(options: Reproduce) -> None:
    find(options.name)
    reproduce(
        options.name, options.preset, options.out, seeds=options.seeds, device=options.device, workers=options.workers,
        progress=False if options.quiet else None, quiet=options.quiet,
    )  # fmt: skip


def _list(_: List) -> None:
    print("methods (clbook run --method NAME), with their options and defaults")
    for name, method in METHODS.items():
        print(f"  {name}: {_first_line(method)}")
        if fields(method):
            print("      " + " ".join(f"{option_name(method, f.name)} {_as_typed(f.default)}" for f in fields(method)))
    print("\nscenarios (clbook run --scenario NAME)")
    for name, scenario in SCENARIOS.items():
        print(f"  {name}: {_first_line(scenario)}")
    print(f"\ndata sets (clbook run --dataset NAME): {', '.join(data.NAMES)}")
    print(f"presets (--preset NAME, or CLBOOK_PRESET): {', '.join(PRESETS)}")
    print("\nexperiments (clbook reproduce NAME)")
    for e in EXPERIMENTS.values():
        print(f"  {e.name}: {e.title}. {e.source}")


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0].rstrip(".")


def option_name(method: type[Method], name: str) -> str:
    """The option for a field of a method, such as --n-samples."""
    return "--" + _field(method, name).replace("_", "-")


def _name(method: Method) -> str:
    """The method's label with the fields that are not at their defaults, such as EWC(lam=100)."""
    given = {f.name: getattr(method, f.name) for f in fields(method) if getattr(method, f.name) != f.default}
    values = ", ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in given.items())
    return f"{method.label}({values})" if given else method.label


def _as_typed(value: Any) -> str:
    return (" ".join(map(str, value)) or "(none)") if isinstance(value, tuple) else str(value)


def _complain(text: str, status: int) -> int:
    print(f"clbook: error: {' '.join(text.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
