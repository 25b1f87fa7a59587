"""The command line: what it prints is what it writes, its options are the fields, and bad input is one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

import clbook
from clbook import Training, data, loop, methods, metrics
from clbook.lab import commands
from clbook.lab.cli import main
from clbook.lab.experiments import EXPERIMENTS
from clbook.lab.options import METHODS, method_class, method_of, option_name, parse, training_of
from clbook.lab.tables import plus_minus
from clbook.method import Method
from clbook.result import Result
from clbook.runs import Runs

SMALL = ["--dataset", "digits", "--hidden", "16", "--steps", "12", "--batch-size", "16", "--quiet"]


# a run ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What the command of the book's first page leaves, on the small digits: the path of its files, and what it printed."""
    out = tmp_path_factory.mktemp("results") / "x"
    line = f"run --scenario permuted --tasks 3 --method ewc --lam 100 --seeds 5 --dataset digits --out {out}"
    small = "--hidden 24 --steps 40 --batch-size 32 --lr 0.01 --eval-every 20 --device cpu"
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setenv("CLBOOK_PROGRESS", "0")
        patch.setattr("builtins.print", lambda *words, **_: said.append(" ".join(map(str, words))))
        assert main([*line.split(), *small.split()]) == 0
    return out, "\n".join(said)


def test_the_files_hold_what_run_gives(written: tuple[Path, str]) -> None:
    loaded = Result.load(written[0])
    scenario = clbook.permuted(clbook.load("digits"), 3)
    direct = clbook.run(
        scenario, methods.EWC(lam=100), 5, net=clbook.mlp(64, 10, (24,)), steps=40, batch_size=32, lr=0.01, eval_every=20,
        device="cpu", progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(loaded.R, direct.R)
    np.testing.assert_array_equal(loaded.curve, direct.curve)
    assert loaded.runs == direct.runs and loaded.info["scenario"] == direct.info["scenario"]


def test_the_table_is_the_saved_summary_and_that_is_the_metrics_of_R(written: tuple[Path, str]) -> None:
    out, said = written
    row = json.loads(Path(f"{out}.json").read_text())["info"]["summary"][0]
    R = 100 * Result.load(out).R
    wanted = {"accuracy": metrics.average_accuracy, "forgetting": metrics.forgetting, "bwt": metrics.backward_transfer}
    for name, f in wanted.items():
        mean, half = metrics.interval(f(R))
        assert row[name] == pytest.approx(float(mean)) and row[f"{name} ±"] == pytest.approx(float(half))
    heads, cells = (line.split() for line in said.splitlines()[2:4])
    assert heads == ["method", "accuracy", "forgetting", "backward", "transfer"]
    assert cells == ["EWC(lam=100)", *" ".join(plus_minus(row[name], row[f"{name} ±"]) for name in wanted).split()]
    assert "95 % interval over seeds" in said and "permuted digits, 3 tasks, domain-incremental; seeds: 5" in said


def test_the_figure_is_a_picture(written: tuple[Path, str]) -> None:
    image = matplotlib.image.imread(f"{written[0]}.png")
    assert image.shape[0] > 300 and image.shape[1] > 2 * 300 and image[..., :3].std() > 0.05
    assert f"{written[0]}.png" in written[1]


def test_quiet_prints_nothing_and_one_seed_writes_valid_json(tmp_path: Path, capsys) -> None:
    assert main(["run", "--tasks", "2", "--method", "finetune", "--out", str(tmp_path / "a" / "lam-0.5"), *SMALL]) == 0
    said = capsys.readouterr()
    assert said.out == said.err == ""
    text = (tmp_path / "a" / "lam-0.5.json").read_text()
    row = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))["info"]["summary"][0]
    assert row["accuracy ±"] is None and 0 <= row["accuracy"] <= 100


def test_without_out_nothing_is_written_and_one_seed_is_said_to_have_no_interval(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLBOOK_PROGRESS", "0")
    assert main(["run", "--tasks", "2", *SMALL[:-1]]) == 0
    said = capsys.readouterr().out
    assert "one seed gives no interval" in said and "±" not in said.splitlines()[-1]
    assert said.splitlines()[-1].split()[0] == "Finetune", "the method where none is named"
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_gone_on_from(tmp_path: Path, monkeypatch) -> None:
    line = ["run", "--tasks", "2", "--checkpoint", str(tmp_path / "c"), *SMALL]
    assert main([*line, "--out", str(tmp_path / "first")]) == 0
    monkeypatch.setattr(Runs, "descend", lambda *_, **__: pytest.fail("a finished task is trained again"))
    assert main([*line, "--out", str(tmp_path / "second")]) == 0
    np.testing.assert_array_equal(Result.load(tmp_path / "first").R, Result.load(tmp_path / "second").R)


KINDS = {
    "split": ("task", 10),
    "split --kind domain": ("domain", 2),
    "split --kind class": ("class", 10),
    "permuted": ("domain", 10),
    "permuted --kind task": ("task", 50),
    "rotated": ("domain", 10),
}


@pytest.mark.parametrize(("words", "wanted"), KINDS.items())
def test_scenarios(words: str, wanted: tuple[str, int]) -> None:
    scenario = commands.scenario_of(parse(["run", "--scenario", *words.split()]), data.load("digits"))
    assert (len(scenario), scenario.kind, scenario.n_outputs) == (5, *wanted)


def test_rotations_go_from_0_to_90_degrees() -> None:
    names = commands.scenario_of(parse(["run", "--scenario", "rotated", "--tasks", "4"]), data.load("digits")).names
    assert [float(name.split()[0]) for name in names] == [0, 30, 60, 90]


def stopped(seen: dict[str, Any]) -> Any:
    """Stands for `run`: keeps what it is given, and says that this is enough."""

    def taken(scenario: clbook.Scenario, method: Method, seeds: int, *, net: clbook.Net, **given: Any) -> None:
        seen.update(given, hidden=net.shapes[0][0], data=scenario.data.name, method=method, seeds=seeds)
        raise clbook.InputError("enough")

    return taken


@pytest.mark.parametrize(
    ("preset", "dataset", "epochs", "batch_size", "hidden"),
    [("quick", "digits", 10, 32, 100), ("book", "mnist", 2, 128, 400), ("paper", "mnist", 20, 128, 400)],
)
def test_a_preset_gives_what_is_not_given(
    preset: str, dataset: str, epochs: int, batch_size: int, hidden: int, monkeypatch, capsys
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(commands, "run", stopped(seen))
    monkeypatch.setattr(data, "load", lambda name: clbook.load("digits") if name in ("digits", dataset) else pytest.fail(name))
    assert complaint(["run", "--preset", preset], capsys)[1] == "clbook: error: enough\n"
    assert (seen["epochs"], seen["steps"], seen["batch_size"], seen["hidden"]) == (epochs, None, batch_size, hidden)
    complaint(["run", "--preset", preset, "--steps", "7", "--batch-size", "9", "--hidden", "11", "12"], capsys)
    assert (seen["epochs"], seen["steps"], seen["batch_size"], seen["hidden"]) == (None, 7, 9, 11)


# options are fields --------------------------------------------------------------------------------------------------------

STRENGTH = {"lam": "100"}  # a value for each field that a method must be told


def required(method: type[Method]) -> list[str]:
    """The words that give a method what it must be told."""
    names = [f.name for f in fields(method) if f.default is MISSING]
    return [word for name in names for word in (option_name(method, name), STRENGTH[name])]


@pytest.mark.parametrize("name", METHODS)
def test_the_options_of_a_method_are_its_fields(name: str) -> None:
    method = METHODS[name]
    words = ["run", "--method", name, *required(method)]
    told = {f.name: float(STRENGTH[f.name]) for f in fields(method) if f.default is MISSING}
    assert method_of(parse(words)) == method(**told)
    for f in fields(method):
        if type(f.default) in (int, float):
            value = f.default / 2 if isinstance(f.default, float) else f.default + 1
            got = method_of(parse([*words, option_name(method, f.name), str(value)]))
            assert got == method(**told, **{f.name: value})


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if required(method)])
def test_a_strength_that_is_not_given_is_asked_for(name: str, capsys) -> None:
    status, said = complaint(["run", "--method", name], capsys)
    assert status == 2 and all(part in said for part in ("--lam", f"{METHODS[name].__name__}.lam", "at least 0", "required"))


def test_without_a_method_nothing_is_protected() -> None:
    assert method_of(parse(["run"])) == methods.Finetune()


def test_every_field_of_training_is_an_option_and_reaches_run(monkeypatch, capsys) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(commands, "run", stopped(seen))
    words = "--epochs 3 --batch-size 5 --optimizer sgd --lr 0.5 --keep-optimizer --lr-decay"
    more = "--eval-every 7 --eval-samples 8 --future --on-divergence nan"
    complaint(["run", "--dataset", "digits", *words.split(), *more.split()], capsys)
    wanted = Training(
        epochs=3, batch_size=5, optimizer="sgd", lr=0.5, keep_optimizer=True, lr_decay=True, eval_every=7, eval_samples=8,
        future=True, on_divergence="nan",
    )  # fmt: skip
    assert all(getattr(wanted, f.name) != f.default for f in fields(Training) if f.name != "steps"), "each is another value"
    assert {f.name: seen[f.name] for f in fields(Training)} == vars(wanted)


def test_what_is_not_given_is_what_training_says() -> None:
    """The defaults of Training stand in Training: the options have them from there, or leave them to it."""
    assert training_of(parse(["run", "--steps", "3"]), {}) == Training(steps=3)
    assert training_of(parse(["run"]), {"epochs": 4, "hidden": (3,)}) == Training(epochs=4)
    assert training_of(parse(["run", "--steps", "3"]), {"epochs": 4}) == Training(steps=3), "instead of the preset's epochs"


def test_runs_that_diverged_leave_a_dash(capsys) -> None:
    words = "run --method l2 --pull explicit --lam 1e6 --optimizer sgd --lr 0.1 --tasks 2 --seeds 2 --on-divergence nan"
    assert main([*words.split(), *SMALL[:4], "--steps", "60"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["L2(lam=1e+06,", "pull=explicit)", "-", "-", "-"]


def test_the_option_of_a_method_may_stand_before_its_name() -> None:
    assert method_of(parse("run --gamma 0.5 --lam 3 --method ewc --carry online".split())) == methods.EWC(
        lam=3, carry="online", gamma=0.5
    )


def test_a_field_named_as_an_option_of_run_gets_the_name_of_its_method() -> None:
    given = parse("run --hidden 20 --method dgr --dgr-hidden 30".split())
    assert given.hidden == (20,) and method_of(given) == methods.DGR(hidden=30)


def test_a_method_that_is_added_has_its_options(monkeypatch) -> None:
    @dataclass(frozen=True)
    class New(Method):
        """Something new."""

        strength: float = 1.0
        seeds: int = 4

    monkeypatch.setitem(METHODS, "new", New)
    given = parse("run --method new --strength 0.25 --seeds 2 --new-seeds 9".split())
    assert method_of(given) == New(strength=0.25, seeds=9) and given.seeds == 2


@pytest.mark.parametrize("name", ["ewc", "EWC", "Feature-Extraction", "featureextraction", "fast_weights"])
def test_names_of_methods_forgive_capitals_and_hyphens(name: str) -> None:
    assert method_class(name).__name__.lower() == name.lower().replace("-", "").replace("_", "")


def test_list_names_everything(capsys) -> None:
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    named = {line.strip().split(":")[0] for line in said.splitlines() if ":" in line}
    assert named >= {name.lower() for name in methods.__all__} | set(EXPERIMENTS) | {"permuted", "rotated", "split"}
    assert all(name in said for name in (*data.NAMES, "quick", "book", "paper"))
    assert "--lam (required) --pull implicit --carry separate --gamma None --estimator exact --n-samples 1000" in said


@pytest.mark.parametrize("command", [[], ["run"], ["run", "--method", "dgr"], ["reproduce"], ["list"]])
def test_help(command: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    said = capsys.readouterr()
    assert stop.value.code == 0 and said.err == ""
    wanted = {"run": "--checkpoint", "reproduce": "NAME", "list": "list"}.get(command[0] if command else "", "reproduce")
    assert wanted in said.out and ("--dgr-hidden" in said.out) == ("dgr" in command)


def test_the_help_of_a_method_is_what_its_class_says(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--method", "ewc", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "loss = L_task + (lam / 2) sum_i F_i (theta_i - theta*_i)^2" in said, "the docstring"
    assert "--lam FLOAT EWC.lam, at least 0 (required)" in said
    assert "EWC.gamma, at least 0, at most 1 (default: None)" in said
    assert "--lr FLOAT Training.lr, more than 0 (default: 0.001)" in said
    assert "Without --method it is finetune" in said


def test_reproduce_hands_on_its_options(monkeypatch, tmp_path: Path) -> None:
    seen: list = []
    monkeypatch.setattr("clbook.lab.experiments.reproduce", lambda *args, **more: seen.append((args, more)))
    line = ["reproduce", "ewc-b", "--preset", "quick", "--seeds", "4", "--out", str(tmp_path), "--device", "cpu"]
    line += ["--workers", "3", "--allow-mixed-code", "--quiet"]
    assert main(line) == 0
    more = {"seeds": 4, "device": "cpu", "workers": 3, "allow_mixed_code": True, "progress": False, "quiet": True}
    assert seen == [(("ewc-b", "quick", tmp_path), more)]


# bad input -----------------------------------------------------------------------------------------------------------------

BAD = {
    "run --method ewd": ["'ewd'", "choose one of", "ewc", "l2"],
    "run --lam 3": ["--lam"],
    "run --method ewc --lam -3": ["EWC.lam", "-3", "greater than or equal to 0"],
    "run --method ewc --lam nan": ["EWC.lam", "got nan"],
    "run --method ewc --lam abc": ["--lam", "'abc'", "FLOAT"],
    "run --method ewc --lam 1 --carry online --gamma 1.5": ["EWC.gamma", "1.5", "less than or equal to 1"],
    "run --method ewc --lam 1 --gamma 0.5": ["EWC.gamma", "0.5", 'carry="online"'],
    "run --method ewc --lam 1 --carry last": ["'last'", "'separate', 'latest', 'online', 'newest'"],
    "run --method ewc --lam 1 --estimator true": ["'true'", "'exact', 'sampled', 'empirical', 'batched'"],
    "run --method xdg --gamma 0.5": ["--gamma"],
    "run --foo 1": ["--foo"],
    "run --scenario spilt": ["'spilt'", "permuted", "rotated", "split"],
    "run --dataset digits --kind both": ["'both'", "'task'", "'domain'", "'class'"],
    "run --dataset emnist": ["'emnist'", "digits, mnist, fashion"],
    "run --preset huge": ["'huge'", "quick, book, paper"],
    "run --dataset digits --seeds 0": ["0"],
    "run --dataset digits --tasks 0": ["tasks", "greater than or equal to 1", "got 0"],
    "run --dataset digits --scenario rotated --tasks -1": ["at least one task"],
    "run --dataset digits --scenario split --tasks 3": ["10 classes", "3 tasks"],
    "run --dataset digits --epochs 1 --steps 2": ["epochs=1", "steps=2"],
    "run --dataset digits --epochs 0": ["epochs", "0"],
    "run --dataset digits --batch-size -1": ["batch_size", "-1"],
    "run --dataset digits --batch-size 0": ["batch_size", "0"],
    "run --dataset digits --lr -0.1": ["lr", "-0.1"],
    "run --dataset digits --optimizer adm": ["'adm'", "'sgd', 'adam'"],
    "run --dataset digits --hidden 0": ["hidden", "greater than or equal to 1", "got (0,)"],
    "run --dataset digits --device tpu9": ["tpu9"],
    "reproduce ewc-z": ["'ewc-z'", "ewc-a, ewc-b, ewc-c"],
    "reproduce ewc-a --preset huge": ["'huge'", "quick, book, paper"],
    "reproduce ewc-a --preset quick --seeds 0": ["seeds", "0"],
    "reproduce": ["NAME"],
    "train": ["train", "run, reproduce, sweep, check, handout, grade, leaderboard, list"],
    "": ["run, reproduce, sweep, check, handout, grade, leaderboard, list"],
}


def complaint(args: list[str], capsys) -> tuple[int, str]:
    """Exit status and the one line on stderr, with nothing on stdout."""
    status = main(args)
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("clbook: error: "), said
    assert "Traceback" not in said.err
    return status, said.err


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_that_quotes_it(line: str, capsys) -> None:
    status, said = complaint(line.split(), capsys)
    assert status == 2
    assert all(part in said for part in BAD[line]), said


def test_no_data_is_one_line_that_says_what_to_do(tmp_path: Path, monkeypatch, capsys) -> None:
    def offline(*_, **__):
        raise OSError("no network\nat all")

    monkeypatch.setenv("CLBOOK_DATA", str(tmp_path))
    monkeypatch.setattr("torchvision.datasets.MNIST", offline)
    status, said = complaint(["run", "--dataset", "mnist"], capsys)
    assert status == 2 and all(word in said for word in (str(tmp_path), "CLBOOK_DATA", "CLBOOK_PRESET=quick"))


def test_a_place_that_cannot_be_written_is_noticed_before_training(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(commands, "run", lambda *_, **__: pytest.fail("trained first"))
    status, said = complaint(["run", "--out", str(tmp_path / "file" / "x"), *SMALL], capsys)
    assert status == 2 and str(tmp_path / "file") in said


def test_a_run_that_diverges_is_one_line_and_another_status(capsys) -> None:
    line = "run --method l2 --pull explicit --lam 1e6 --optimizer sgd --lr 0.1 --tasks 2"
    status, said = complaint([*line.split(), *SMALL[:4], "--steps", "60", "--quiet"], capsys)
    assert status == 1 and all(word in said for word in ("diverged", "lr = 0.1", "lambda = 1e+06", "implicit"))


def test_a_stop_is_one_line(monkeypatch, capsys) -> None:
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run", stop)
    assert main(["run", *SMALL]) == 130
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("clbook: stopped")


class Trouble(clbook.InputError):
    """An error that says something about what was given."""


@pytest.mark.parametrize("kind", [ValueError, TypeError, RuntimeError, ZeroDivisionError, KeyError, AssertionError])
def test_an_error_of_the_package_does_not_read_like_one_of_the_user(kind: type[Exception], monkeypatch, capsys) -> None:
    """One line that says what and where it was: the innermost line of the package, here where the loop is called."""

    def wrong(*_: Any) -> None:
        raise kind("no such\nthing")

    monkeypatch.delenv("CLBOOK_DEBUG", raising=False)
    monkeypatch.setattr(loop, "train", wrong)
    assert main(["run", *SMALL]) == 70
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "error:" not in said.err
    assert "bug in clbook" in said.err and "report" in said.err and "CLBOOK_DEBUG=1" in said.err
    found = re.search(rf"\({kind.__name__} at clbook/loop.py:(\d+): '?no such", said.err)
    assert found, said.err
    line = Path(loop.__file__).read_text().splitlines()[int(found[1]) - 1]
    assert line.strip().startswith("train(runs, scenario")


def test_the_same_place_may_refuse_what_was_given(monkeypatch, capsys) -> None:
    def wrong(*_: Any) -> None:
        raise Trouble("not this one")

    monkeypatch.setattr(loop, "train", wrong)
    assert complaint(["run", *SMALL], capsys) == (2, "clbook: error: not this one\n")


def test_a_bug_shows_its_traceback_where_it_is_asked_for(monkeypatch, capsys) -> None:
    def wrong(*_: Any) -> None:
        raise ValueError("inside")

    monkeypatch.setenv("CLBOOK_DEBUG", "1")
    monkeypatch.setattr(loop, "train", wrong)
    assert main(["run", *SMALL]) == 70
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last)") and 'in wrong\n    raise ValueError("inside")' in said
    assert said.splitlines()[-1].startswith("clbook: this is a bug")


def test_python_m_clbook_is_the_command() -> None:
    good = subprocess.run([sys.executable, "-m", "clbook", "list"], capture_output=True, text=True)
    assert good.returncode == 0 and "ewc-a" in good.stdout and good.stderr == ""
    bad = subprocess.run([sys.executable, "-m", "clbook", "run", "--method", "ewd"], capture_output=True, text=True)
    assert bad.returncode == 2 and bad.stdout == "" and bad.stderr.count("\n") == 1 and "'ewd'" in bad.stderr
