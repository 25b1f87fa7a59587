"""The options of the command line, read by tyro: each is a field of Run, of Training or of the method that is named.

So a new method, and a new field of Training, has its option here without a line of code; what a field may be, and what it is
where it is not given, stands in its class and nowhere else. Book: book/about, "How to run it".
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_type_hints

import tyro

from clbook import methods
from clbook.checks import InputError
from clbook.loop import Training
from clbook.method import Method
from clbook.scenarios import Kind

METHODS: dict[str, type[Method]] = {name.lower(): getattr(methods, name) for name in methods.__all__}
# what an option of `run` is at a preset where it is not given
SIZES: dict[str, dict[str, Any]] = {
    "quick": {"dataset": "digits", "hidden": (100, 100), "epochs": 10, "batch_size": 32},
    "book": {"dataset": "mnist", "hidden": (400, 400), "epochs": 2},
    "paper": {"dataset": "mnist", "hidden": (400, 400), "epochs": 20},
}
PRESET_SIZES = {name for sizes in SIZES.values() for name in sizes}


@dataclass(frozen=True, kw_only=True)
class Run:
    """Train one method on a scenario with several seeds; print accuracy, forgetting and backward transfer.

    Without --method it is finetune, which protects nothing and so shows how much is forgotten. A method that has a strength
    must be told it, as in: clbook run --method ewc --lam 100. Its options are shown by: clbook run --method NAME --help
    """

    scenario: Literal["permuted", "rotated", "split"] = "permuted"
    """Where the tasks come from."""
    tasks: int = 5
    """Number of tasks."""
    kind: Kind | None = None
    """What is known and asked at test time (if not given: task for split, domain otherwise)."""
    method: str = "finetune"
    """The method, as `clbook list` names it."""
    dataset: str | None = None
    """digits, mnist or fashion (if not given: the preset's)."""
    seeds: int = 1
    """Number of seeds: 0, 1, ..."""
    preset: str | None = None
    """quick, book or paper: sizes that are not given (if not given itself: CLBOOK_PRESET, else book)."""
    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers (if not given: the preset's)."""
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
    """quick, book or paper (if not given: CLBOOK_PRESET, else book)."""
    out: Path = Path("results")
    """Folder for NAME.json, NAME.npz and NAME.png, and for what it needs to go on after a stop."""
    seeds: int | None = None
    """Number of seeds (if not given: the preset's)."""
    workers: int = 1
    """Processes of one thread each that share the work of a benchmark."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    allow_mixed_code: bool = False
    """At book and paper: write numbers even if they come from several commits, or from changes that no commit holds."""
    quiet: bool = False
    """Print nothing but errors."""


@dataclass(frozen=True)
class Sweep:
    """Compute all combinations of methods, fields, scenarios and seeds that a TOML file lists; what is kept is not repeated."""

    spec: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SPEC.toml")]
    """The file; the book's page "Many runs" says what may stand in it."""
    out: Path | None = None
    """Folder where the parts are kept and SWEEP.csv is written (if not given: results/ and the name of the file)."""
    executor: Literal["local", "dask", "slurm"] = "local"
    """Who does the work: processes of this machine, a Dask cluster, or Slurm through submitit."""
    workers: int = 1
    """Processes of one thread each, for the local executor."""
    scheduler: str = ""
    """Address of the Dask scheduler, such as tcp://HOST:8786."""
    slurm: tuple[str, ...] = ()
    """Settings for submitit, such as timeout_min=60 slurm_partition=cpu."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    status: bool = False
    """Only say how much is done, running, missing and damaged."""
    quiet: bool = False
    """Print nothing but errors."""


@dataclass(frozen=True)
class Check:
    """Run your own code on small problems with known answers, and say which mistake it makes and where the book explains it.

    Status 0: all right. 1: a fault. 2: something could not be checked. The book's page "Which mistake is this?" says more.
    """

    file: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.py")] = None
    """The file; it is run."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(name="as", metavar="KIND:NAME")] = ()
    """Which function is what, where its name does not say so, such as fisher:my_function."""
    limit: float = 20.0
    """Seconds after which the file is stopped."""
    json: bool = False
    """Print what was found as JSON."""
    list: bool = False
    """Name the kinds of functions that are understood, with what they are given."""
    template: Annotated[str | None, tyro.conf.arg(metavar="KIND")] = None
    """Print a file to start from, such as: clbook check --template ewc > my_ewc.py"""


@dataclass(frozen=True)
class Handout:
    """Make the students' notebook of an assignment from its master: no solution, no hidden check, no output.

    What is malformed, or would leave a word of the solution in the student's version, is refused with the line it stands on.
    The book's page "Grading" says how a master is written.
    """

    master: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MASTER")]
    """The master notebook, or the folder that holds master.ipynb."""
    to: Path = Path("handout")
    """Folder where student.ipynb is written."""
    solution: bool = False
    """Write solution.ipynb, too: with the solution and without the hidden checks."""


@dataclass(frozen=True)
class Grade:
    """Grade all that a class handed in: each notebook or .py in FOLDER, or one folder per student.

    Of a notebook only what the hidden checks ask for is run, in processes of its own with limits on time, memory, output and
    the number of processes. On Linux there are namespaces and Landlock around them: they read what Python needs and nothing
    else, write to a folder that is gone afterwards, start no program and have no network. They see no expected value; their
    answers are numbers that are judged in another process. How strong the walls are is tried and stands in every result.

    This does not protect against: errors in the kernel; a submission that computes the right answers in another way than was
    meant; what two students agree upon; and, where no namespaces are allowed, processes that outlive their submission.
    Interrupted, it goes on where it was. The book's page "Grading" says more.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """What was handed in; the name of a file, or of a folder in it, is the student."""
    assignment: Path
    """The master notebook, or the folder that holds master.ipynb."""
    seed: int | None = None
    """Seed of the hidden checks (if not given: one that nobody can guess, kept in the folder of the results)."""
    out: Path | None = None
    """Folder for the results (if not given: FOLDER-grades)."""
    gradescope: bool = False
    """Write a results.json for Gradescope for each student, too."""
    canvas: Path | None = None
    """Your own export of Canvas's gradebook, to be filled in as canvas.csv."""
    trust_submissions: bool = False
    """Grade where this machine offers no sandbox: you have read the submissions and trust them."""
    workers: int = 2
    """Submissions at a time."""
    quiet: bool = False
    """Print nothing but errors."""


@dataclass(frozen=True)
class Leaderboard:
    """The methods of a contest in their order, from the folder that clbook grade wrote: LEADERBOARD.csv and .html, and here.

    Mean over the hidden streams with 95 % intervals, memory, and a rank that is shared where the difference may be chance.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """The folder that clbook grade wrote."""
    check: str | None = None
    """Which hidden check (if not given: the last that measures accuracy on streams)."""


@dataclass(frozen=True)
class List:
    """Name the methods with their options, the scenarios, the data sets and the experiments."""


@dataclass(frozen=True)
class _Chosen:
    method: str = Run.method


def parse(args: list[str]) -> Any:
    """A Run (with the fields of Training and of its method) or another command. Raises InputError for anything else."""
    chosen = _tyro(_Chosen, args, return_unknown_args=True, add_help=False)[0] if "run" in args[:1] else _Chosen()
    commands = {
        "run": run_options(method_class(chosen.method)),
        "reproduce": Reproduce,
        "sweep": Sweep,
        "check": Check,
        "handout": Handout,
        "grade": Grade,
        "leaderboard": Leaderboard,
        "list": List,
    }
    return _tyro(Union[tuple(Annotated[t, tyro.conf.subcommand(name)] for name, t in commands.items())], args)  # noqa: UP007


def method_class(name: str) -> type[Method]:
    """The class of a method by its name, whatever its capitals and hyphens. Raises InputError for an unknown one."""
    found = METHODS.get(re.sub("[-_ ]", "", name).lower())
    if found is None:
        raise InputError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    return found


def run_options(method: type[Method]) -> type[Run]:
    """Run, with one more option per field of Training and of the method; their docstrings are the help."""
    more = [(f.name, *_option(Training, f)) for f in fields(Training)]
    more += [(_field(method, f.name), *_option(method, f)) for f in fields(method)]
    doc = "\n\n".join(inspect.getdoc(owner) or "" for owner in (Run, Training, method))
    return make_dataclass("Run", more, bases=(Run,), frozen=True, kw_only=True, namespace={"__doc__": doc})


def method_of(options: Run) -> Method:
    """The method that the options describe. Raises InputError, as the method does, for values it does not allow."""
    method = method_class(options.method)
    return method(**{f.name: getattr(options, _field(method, f.name)) for f in fields(method)})


def training_of(options: Run, sizes: dict[str, Any]) -> Training:
    """How to train: as the options say, else as the preset's sizes say, else as Training itself does."""
    given = {f.name: value for f in fields(Training) if (value := getattr(options, f.name)) is not None}
    replaced = {"epochs"} if "steps" in given else set()
    preset = {f.name: sizes[f.name] for f in fields(Training) if f.name in sizes and f.name not in replaced}
    return Training(**preset | given)


def option_name(method: type[Method], name: str) -> str:
    """The option for a field of a method, such as --n-samples."""
    return "--" + _field(method, name).replace("_", "-")


def _field(method: type[Method], name: str) -> str:
    """The field of the options for a field of the method: its own name, or with the method's in front where that is taken."""
    taken = {f.name for kind in (Run, Training) for f in fields(kind)}
    return f"{method.__name__.lower()}_{name}" if name in taken else name


def _option(owner: type, f: Field[Any]) -> tuple[Any, Any]:
    """The type and the default of an option; the checks of the type are left to the class, and the help says what they are.

    A size that the presets set may be left out.
    """
    free = owner is Training and f.name in PRESET_SIZES
    plain: Any = get_type_hints(owner)[f.name]
    words = [f"{owner.__name__}.{f.name}", *_bounds(get_type_hints(owner, include_extras=True)[f.name])]
    words += ["if not given: the preset's"] if free else []
    kind: Any = Annotated[plain | None if free else plain, tyro.conf.arg(help=", ".join(words))]
    return kind, field(default=None if free else f.default)


def _bounds(hint: Any) -> Iterator[str]:
    """The bounds that a type declares, as words."""
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    for part in get_args(hint):
        for check in getattr(part, "metadata", ()):
            yield from (f"{word} {getattr(check, name)}" for name, word in words.items() if hasattr(check, name))
        yield from _bounds(part)


def _tyro(kind: Any, args: list[str], **more: Any) -> Any:
    """tyro.cli, with its boxed error turned into one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, prog="clbook", args=args, **more)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(_one_line(said.getvalue())) from None


def _one_line(box: str) -> str:
    """What an error box of tyro says, without its title, rules and advice on help."""
    lines = [line.strip(" │|") for line in box.splitlines()][1:]
    lines = [line for line in lines if line and not re.fullmatch(r"[-─╭╮╰╯├┤]+", line)]
    end = next((i for i, line in enumerate(lines) if line.startswith("For full helptext")), len(lines))
    lines = lines[:end]
    if "Argument helptext:" in lines:
        i = lines.index("Argument helptext:")
        lines = [*lines[:i], f"(expected {' '.join(lines[i + 1 :])})"]
    return f"{' '.join(lines).rstrip('.')}. See clbook --help, or clbook run --method NAME --help"
