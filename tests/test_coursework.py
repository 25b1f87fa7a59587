"""The three assignments: a student's version gives nothing away, the solution is worth everything, and mistakes are named."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

import clbook
from clbook import metrics
from clbook.course import cells, master
from clbook.course.cells import Cell, source_of
from clbook.course.grade.grader import Checked, Grader
from clbook.course.grade.submission import Submission

ROOT = Path(__file__).resolve().parent.parent / "coursework"
NAMES = ("springs", "own_method", "study")
forks = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the grader's walls are Linux's")


@pytest.fixture(scope="module", params=NAMES)
def any_master(request: pytest.FixtureRequest) -> master.Master:
    return master.read(ROOT / request.param)


class Marker:
    """One assignment and the grader that marks it."""

    def __init__(self, name: str) -> None:
        self.master = master.read(ROOT / name)
        self.grader = Grader(self.master, seed=7)
        self.solution = self.master.solution_cells()

    def marked(self, check: str, changed: str = "") -> Checked:
        """What one hidden check says of the solution with some definitions replaced by others."""
        own = [c for c in self.solution if "class Mine(" not in c.source or "method = " not in changed]
        handed_in = [*own, *([Cell(1000, changed)] if changed else [])]
        work = Submission.from_cells("somebody", "somebody.ipynb", "", handed_in)
        hidden = next(h for h in self.master.hidden if h.name == check.removeprefix("brief "))
        if check != hidden.name:  # a contest in which nothing is learned: what is kept and counted is the same
            hidden = replace(hidden, name=check, source=hidden.source.replace("steps=100", "steps=5"))
        return self.grader.check(hidden, work)[0]

    def said(self, check: str, changed: str) -> tuple[float, str]:
        """The score, and everything that was said."""
        checked = self.marked(check, changed)
        told = [c["message"] for c in checked.criteria if c["share"] < 1]
        return checked.score, " ".join([checked.reason, *told])


@pytest.fixture(scope="module")
def markers() -> Iterator[dict[str, Marker]]:
    found = {name: Marker(name) for name in NAMES}
    yield found
    for marker in found.values():
        marker.grader.stop()


# the two versions -------------------------------------------------------------------------------------------------------------


def code_of(made: dict[str, Any]) -> list[str]:
    return [source_of(c) for c in made["cells"] if c["cell_type"] == "code"]


def between(source: str) -> list[str]:
    """The lines of the solution in a cell of the master, as they stand there."""
    parts = re.findall(r"(?s)# BEGIN SOLUTION\n(.*?)# END SOLUTION", source)
    return [line.strip() for part in parts for line in part.splitlines() if line.strip()]


def test_the_students_version_is_python_and_holds_no_line_of_the_solution(any_master: master.Master) -> None:
    student = code_of(master.version(any_master, solution=False))
    for source in student:
        ast.parse(cells.plain(source)[0])
    lines = {line.strip() for source in student for line in source.splitlines()}
    secret = {line for c in any_master.stored["cells"] if c["cell_type"] == "code" for line in between(source_of(c))}
    shared = {"}", ")", "plan = {", "results = {", "@dataclass(frozen=True)"}  # what a stub has, too
    assert len(secret) > 10
    assert secret & lines <= shared | {line for line in secret if line.startswith(("def importance", '"question"'))}
    text = "\n".join(student).lower()
    assert "solution" not in text and "hidden" not in text and "def judge" not in text


def test_both_versions_are_the_same_but_for_what_the_student_writes(any_master: master.Master) -> None:
    student, solution = (master.version(any_master, which)["cells"] for which in (False, True))
    assert [c["id"] for c in student] == [c["id"] for c in solution]
    of_master = {c["id"]: source_of(c) for c in any_master.stored["cells"]}
    different = [a["id"] for a, b in zip(student, solution, strict=True) if a["source"] != b["source"]]
    assert different and all("BEGIN SOLUTION" in of_master[i] for i in different)
    assert all(a["source"] != b["source"] for a, b in zip(student, solution, strict=True) if "BEGIN SOL" in of_master[a["id"]])


def run(body: list[ast.stmt], given: dict[str, Any]) -> dict[str, Any]:
    """The names after these statements."""
    names = {"__name__": "__main__", **given}
    exec(compile(ast.Module(body, []), "a notebook", "exec", dont_inherit=True), names)
    return names


def visible(found: list[str], check: str, given: dict[str, Any]) -> None:
    """Run one visible check and what it needs, no experiment around it."""
    body, _ = cells.statements(Cell(n, s) for n, s in enumerate(found) if not master.is_check(s))
    tree = ast.parse(next(s for s in found if s.startswith(f"# CHECK {check}\n")))
    own = {name for node in tree.body for name in cells.bound(node)}
    names = {name for node in tree.body for name in cells.globals_of(node)} - own
    run([s.node for s in cells.needed(body, names)] + tree.body, given)


def test_the_solution_passes_every_visible_check(any_master: master.Master) -> None:
    found = code_of(master.version(any_master, solution=True))
    # one stream, and as many steps as it takes to keep something
    found = [source.replace("steps=100", "steps=5").replace("(1, 2, 3, 4, 5)", "(1,)") for source in found]
    assert any_master.checks
    for check in any_master.checks:
        visible(found, check, {"In": found})


@pytest.mark.parametrize("name", ["springs", "study"])
def test_an_empty_students_version_fails_every_visible_check_in_words(name: str) -> None:
    found = code_of(master.version(master.read(ROOT / name), solution=False))
    for check in master.read(ROOT / name).checks:
        with pytest.raises((AssertionError, KeyError)) as caught:
            visible(found, check, {"In": found})
        assert len(str(caught.value)) > 10 or check == "report"


@forks
@pytest.mark.parametrize("name", NAMES)
def test_the_solution_gets_all_points(markers: dict[str, Marker], name: str) -> None:
    marker = markers[name]
    marked = [marker.marked(h.name) for h in marker.master.hidden]
    assert [(c.name, c.score, c.reason) for c in marked] == [(h.name, h.points, "") for h in marker.master.hidden]
    assert sum(c.seconds for c in marked) < marker.master.seconds


# springs by hand --------------------------------------------------------------------------------------------------------------

FISHER = """
def fisher(net, theta, x, y):
    theta = theta.detach().clone().requires_grad_()
    total = torch.zeros_like(theta)
    {}
    return total.detach()
"""
EACH = "for n in range(len(x)):\n        log_p = net(theta, x[n : n + 1])[0].log_softmax(-1)\n        "
OF = "torch.autograd.grad({}, theta, retain_graph=True)[0]"
LABELS = f"g = {OF.format('log_p[y[n]]')}\n        total += g.square() / len(x)"
ALL = "for l in log_p:\n            "
MIXED = "log_p = net(theta, x).log_softmax(-1)[torch.arange(len(x)), y].mean()\n    "
FISHERS = {
    "batched": (FISHER.format(f"{MIXED}total += {OF.format('log_p')}.square()"), 0.0),
    "labels": (FISHER.format(EACH + LABELS), 3.0),
    "sum": (FISHER.format(EACH + ALL + f"total += l.exp().detach() * {OF.format('l')}.square()"), 3.0),
    "uniform": (FISHER.format(EACH + ALL + f"total += {OF.format('l')}.square() / len(x)"), 0.0),
    "unsquared": (FISHER.format(EACH + f"total -= {OF.format('log_p[y[n]]')} / len(x)"), 0.0),
    "argmax": (FISHER.format(EACH + f"total += {OF.format('log_p.max()')}.square() / len(x)"), 0.0),
    "not written yet": ("def fisher(net, theta, x, y):\n    ...", 0.0),
    "write the sums yourself": ("def fisher(net, theta, x, y):\n    return clbook.fisher(net, theta, x)", 0.0),
}
ENERGY = "def penalty(theta, theta_star, omega, lam):\n    return {}"
D = "(theta - theta_star)"
PENALTIES = {
    "half": (f"lam * (omega * {D}.square()).sum()", 1.5),
    "importance-squared": (f"lam / 2 * (omega * {D}).square().sum()", 0.0),
    "importance-ignored": (f"lam / 2 * {D}.square().sum()", 0.0),
    "detached": (f"lam / 2 * (omega * {D}.detach().square()).sum()", 0.0),
    "to-zero": ("lam / 2 * (omega * theta.square()).sum()", 0.0),
    "no-lam": (f"(omega * {D}.square()).sum() / 2", 0.0),
}
STEP = "def step(theta, g, theta_star, omega, eta, lam):\n    s, there = eta * lam * omega, theta - eta * g\n    return {}"
STEPS = {
    "explicit": "there - s * (theta - theta_star)",
    "no-eta": "(there + lam * omega * theta_star) / (1 + lam * omega)",
    "half": "(there + s / 2 * theta_star) / (1 + s / 2)",
    "spring-first": "(theta + s * theta_star) / (1 + s) - eta * g",
    "swapped": "(theta_star + s * there) / (1 + s)",
    "no-springs": "there",
    "none of": "there * 0",
}
INTERVAL = """
def interval(values):
    v, n = np.array(values), len(values)
    t = stats.t.ppf(0.975, n - 1)
    return v.mean(), {}
"""
INTERVALS = {
    "normal": ("1.96 * v.std(ddof=1) / n**0.5", 1.5),
    "n-below": ("t * v.std() / n**0.5", 1.5),
    "normal, n-below": ("1.96 * v.std() / n**0.5", 0.75),
    "one-sided": ("stats.t.ppf(0.95, n - 1) * v.std(ddof=1) / n**0.5", 0.75),
    "no-root": ("t * v.std(ddof=1)", 0.75),
}
SWEEP = """
def sweep(experiment, lams, choosing_seeds, test_seeds):
    held_out = [[experiment(m, s, "held-out") for s in choosing_seeds] for m in lams]
    {}
    test = [experiment(chosen, s, "test") for s in test_seeds]
    mean, half = interval(test)
    return dict(held_out=held_out, chosen=chosen, test=test, mean=mean, half=half)
"""
ON_TEST = "chosen = max(lams, key=lambda m: np.mean([experiment(m, s, 'test') for s in test_seeds]))"
SWEEPS = {
    "on-test": (ON_TEST, 2.0),
    "test-set": (ON_TEST, 2.0),
    "one-seed": ("chosen = lams[int(np.argmax([row[0] for row in held_out]))]", 3.0),
    "best-run": ("chosen = lams[int(np.argmax(np.max(held_out, axis=1)))]", 3.0),
}


@forks
@pytest.mark.parametrize("name", FISHERS)
def test_a_wrong_fisher_loses_points_under_its_own_name(markers: dict[str, Marker], name: str) -> None:
    code, score = FISHERS[name]
    got, said = markers["springs"].said("fisher", code)
    assert (got, name in said) == (score, True), said


@forks
@pytest.mark.parametrize("name", PENALTIES)
def test_a_wrong_penalty_loses_points_under_its_own_name(markers: dict[str, Marker], name: str) -> None:
    code, score = PENALTIES[name]
    got, said = markers["springs"].said("penalty", ENERGY.format(code))
    assert (got, said.strip().startswith(name)) == (score, True), said


@forks
@pytest.mark.parametrize("name", STEPS)
def test_a_wrong_step_loses_points_under_its_own_name(markers: dict[str, Marker], name: str) -> None:
    got, said = markers["springs"].said("step", STEP.format(STEPS[name]))
    word = name if name != "none of" else "The derivative of what is to be minimised"
    assert (got, said.strip().startswith(word)) == (0.0, True), said


@forks
def test_a_step_in_place_keeps_half_of_its_points(markers: dict[str, Marker]) -> None:
    code = STEP.replace("s, there = ", "theta -= eta * g\n    s, there = ").replace("theta - eta * g", "theta")
    got, said = markers["springs"].said("step", code.format("(there + s * theta_star) / (1 + s)"))
    assert (got, "in-place" in said) == (2.0, True), said


@forks
@pytest.mark.parametrize("name", INTERVALS)
def test_a_wrong_interval_keeps_what_is_right_of_it(markers: dict[str, Marker], name: str) -> None:
    code, score = INTERVALS[name]
    got, said = markers["springs"].said("interval", INTERVAL.format(code))
    assert (got, said.strip().startswith(name)) == (score, True), said


@forks
@pytest.mark.parametrize("name", SWEEPS)
def test_a_dishonest_sweep_is_told_what_it_did(markers: dict[str, Marker], name: str) -> None:
    code, score = SWEEPS[name]
    got, said = markers["springs"].said("sweep", SWEEP.format(code))
    assert (got, name in said) == (score, True), said


@forks
@pytest.mark.parametrize(("wrong", "words"), [("dict(mean=mean)", "lacks 'held_out', 'chosen', 'test'"), ("None", "got None")])
def test_a_sweep_that_returns_something_else_is_told_what(markers: dict[str, Marker], wrong: str, words: str) -> None:
    code = SWEEP.format("chosen = lams[0]").replace("return dict(", f"return {wrong}\n    dict(")
    got, said = markers["springs"].said("sweep", code)
    assert (got, words in said) == (0.0, True), said


def test_which_strength_is_right_never_lies_beside_the_students_code() -> None:
    hidden = next(h for h in master.read(ROOT / "springs").hidden if h.name == "sweep")
    assert hidden.gives == 1 and "ways" not in hidden.asking and "sweep_problem" not in hidden.asking


def names_of(name: str) -> dict[str, Any]:
    """The definitions of a solution, without the experiments around them."""
    body, _ = cells.statements(master.read(ROOT / name).solution_cells())
    wanted = {s.node.name for s in body if isinstance(s.node, ast.FunctionDef)}
    return run([s.node for s in cells.needed(body, wanted)], {})


def test_the_solution_of_the_springs_is_right_by_definitions_of_its_own() -> None:
    own, g = names_of("springs"), torch.Generator().manual_seed(3)
    net = clbook.mlp(4, 3, (5,))
    x = torch.randn(6, 4, generator=g)
    assert torch.allclose(own["fisher"](net, net.init(0), x, None), clbook.fisher(net, net.init(0), x), rtol=1e-4)
    theta, slope, star = torch.randn(3, 4, generator=g, dtype=torch.float64)
    omega = torch.tensor([0.0, 0.5, 3.0, 80.0], dtype=torch.float64)
    new = own["step"](theta, slope, star, omega, 0.2, 1.5)
    for i in range(4):  # brute force: the lowest point of each parabola
        there = (theta - 0.2 * slope)[i].item()
        low = minimize_scalar(lambda t: (t - there) ** 2 / 0.4 + 0.75 * omega[i].item() * (t - star[i].item()) ** 2)  # noqa: B023
        assert abs(new[i].item() - low.x) < 1e-6
    values = np.array([3.0, 4.5, 9.0])
    assert np.allclose(own["interval"](values), metrics.interval(values))


# a method of one's own --------------------------------------------------------------------------------------------------------

METHOD = """
@dataclass(frozen=True)
class Mine(Method):
    {}


method = Mine()
"""
START = 'def start(self, net, theta):\n        return {"x": torch.zeros(0, 64)}\n\n    '
KEEP = 'def after_task(self, net, theta, state, task, rng):\n        return {"x": torch.cat([state["x"], task.x])}'
MANY = "\n    ".join(f"unused_{i}: float = {i}.0" for i in range(20))
IN_PLACE = "def after_task(self, net, theta, state, task, rng):\n        theta.mul_(0.5)\n        return state"
DRAWS = "def after_step(self, theta, state, update):\n        return theta + 1e-3 * torch.randn(theta.shape), state"
LOOKS = "def prepare(self, state, scenario, k, batch, rng):\n        return batch._replace(old=scenario.batch(0, batch.row, k))"
LOOKS += "\n\n    def loss(self, net, theta, state, batch):\n        return net.loss(theta, batch) + net.loss(theta, batch.old)"


@forks
def test_a_method_over_the_budget_is_told_by_how_much(markers: dict[str, Marker]) -> None:
    got, said = markers["own_method"].said("brief contest", METHOD.format(START + KEEP))
    # 500 samples of 64 numbers of 4 bytes and 4 tasks; the name x, two dimensions, one type
    assert (got, "it keeps 512,018 bytes" in said and "80,000 are allowed" in said) == (0.0, True), said


@forks
def test_a_method_of_too_many_lines_gets_nothing(markers: dict[str, Marker]) -> None:
    got, said = markers["own_method"].said("brief contest", METHOD.format(MANY))
    assert (got, "it has 23 lines, and 20 are allowed" in said) == (0.0, True), said


@forks
def test_a_version_that_is_overwritten_is_not_counted(markers: dict[str, Marker]) -> None:
    long, short = METHOD.format(MANY), METHOD.format("more: float = 1.0")
    assert "lines" not in markers["own_method"].said("brief contest", f"{long}\n{short}")[1]
    got, said = markers["own_method"].said("brief contest", f"{short}\n{long}")
    assert (got, "it has 23 lines" in said) == (0.0, True), said


@forks
@pytest.mark.parametrize(
    ("code", "words"), [(IN_PLACE, "Mine.after_task changes theta in place"), (DRAWS, "draws random numbers without `rng`")]
)
def test_a_method_that_breaks_the_contract_is_told_how(markers: dict[str, Marker], code: str, words: str) -> None:
    checked = markers["own_method"].marked("contract", METHOD.format(code))
    said = " ".join([checked.reason, *(c["message"] for c in checked.criteria)])
    assert checked.score < 4 and (words in said or "draw in `prepare`" in said), said


@forks
@pytest.mark.parametrize("asks", ["l if l > 1 else 2 * l", "l * l.item()", "l + 0 * torch.randn(())"])
@pytest.mark.parametrize("check", ["contract", "contest"])
def test_a_method_that_cannot_be_stacked_hears_its_own_line_and_what_to_write_and_not_of_vmap(
    markers: dict[str, Marker], check: str, asks: str
) -> None:
    loss = f"def loss(self, net, theta, state, batch):\n        l = net.loss(theta, batch)\n        return {asks}"
    got, said = markers["own_method"].said(check, METHOD.format(loss))
    assert got == 0 and re.match(r"cell 1000, line 6: Mine\.loss cannot be computed for several runs at once, ", said)
    assert "torch.where" in said and "PyTorch" not in said and "vmap" not in said and "InputError" not in said


@forks
def test_a_method_that_looks_for_old_samples_in_the_stream_finds_none(markers: dict[str, Marker]) -> None:
    got, said = markers["own_method"].said("brief contest", METHOD.format(LOOKS))
    assert got == 0 and "Only what lies in the state itself is left of old tasks" in said, said


@forks
def test_plain_training_earns_nothing_and_well_chosen_springs_some_points_but_far_from_all(markers: dict[str, Marker]) -> None:
    plain, words = markers["own_method"].said("contest", "method = Finetune()")
    springs, more = markers["own_method"].said("contest", 'method = EWC(lam=30.0, carry="latest")')
    assert plain < 1 and 4 < springs < 12, (words, more)


# a small study ----------------------------------------------------------------------------------------------------------------


IN_SHARES = """
_percent = run_one


def run_one(arm, seed):
    return 0.5 if seed & 1 else 0.52


results = {arm: [%s for s in plan["seeds"]] for arm in plan["arms"]}
"""
PAIRS = "results = dict(zip(results, ([0.5] * 10, [0.501 + 0.001 * (s % 5) for s in range(10)])))\n"
MEAN, SPREAD = 0.003, (20e-6 / 9) ** 0.5  # by hand: the differences are 1 to 5 thousandths, twice each
SAID = PAIRS + 'report = report | {{"difference": {}, "half": {}}}'
ERROR = SPREAD / 10**0.5


@forks
@pytest.mark.parametrize(
    ("check", "changed", "score", "words"),
    [
        ("runs", IN_SHARES % "0.5 if s & 1 else 0.52", 3.0, ""),
        ("runs", IN_SHARES % "0.6 if s & 1 else 0.62", 2.0, "not repeated:"),
        ("interval", SAID.format(MEAN, 2.262157 * ERROR), 2.0, ""),
        ("interval", SAID.format(MEAN, ERROR), 1.0, "standard-error:"),
        ("interval", SAID.format(MEAN + 0.004, 2.262157 * ERROR), 1.0, "mean:"),
    ],
)
def test_a_study_in_shares_is_judged_as_sharply_as_one_in_percent(
    markers: dict[str, Marker], check: str, changed: str, score: float, words: str
) -> None:
    got, said = markers["study"].said(check, changed)
    assert (got, words in said) == (score, True), (got, said)


def hidden_of(name: str, check: str) -> dict[str, Any]:
    """The names of a hidden cell, as the teacher's process has them."""
    found = Grader(master.read(ROOT / name), seed=7)
    return found._executed(next(h for h in found.master.hidden if h.name == check))


@pytest.mark.parametrize("check", ["interval", "claim"])
def test_arms_of_another_shape_make_no_table_of_all_pairs_in_the_teachers_process(check: str) -> None:
    judge, first = hidden_of("study", check)["judge"], np.array([50.0, 51, 52, 50, 52, 49, 48, 51])
    second = first + np.array([3.0, 4, 5, 3, 4, 5, 4, 4])
    mean, half = metrics.interval(second - first)
    said = {"said": np.array([mean, half]), "claim": "higher", "matters": "yes", "bound": 1.0}
    plain = judge(said | {"first": first, "second": second}, 0)
    assert [share for _, share, _ in plain] == [1, 1]
    assert judge(said | {"first": first[:, None], "second": second}, 0) == plain
    with pytest.raises(clbook.InputError, match="first holds 20,000 numbers, and at most 10,000"):
        judge(said | {"first": np.ones((20_000, 1)), "second": np.ones(20_000)}, 0)
    with pytest.raises(clbook.InputError, match="second holds numbers that are NaN"):
        judge(said | {"first": first, "second": second * np.nan}, 0)


@pytest.mark.parametrize("unit", [1.0, 100.0, 0.001])
def test_three_digits_of_an_interval_are_enough_and_two_are_not(unit: float) -> None:
    """The mean difference is 1.0049, 0.5 % above the 1.00 that is written for it, and the interval is narrow."""
    judge, at = hidden_of("study", "interval")["judge"], np.array([-3.0, 3, -1, 1, -2, 2, -3, 3])
    first = np.full(8, 50.0)
    pairs = unit * (1.0049 + 0.01 * at)
    mean, half = metrics.interval(pairs)
    for digits, share in ((3, 1), (2, 0)):
        said = np.array([float(f"{mean:.3g}"), float(f"{half:.{digits}g}")])
        verdicts = judge({"first": first, "second": first + pairs, "said": said}, 0)
        assert [s for _, s, _ in verdicts] == [1, share], verdicts


def test_a_plan_without_seeds_gets_a_sentence() -> None:
    cell = hidden_of("study", "runs")
    empty = {"seeds": np.zeros(0), "results 0": np.zeros(0), "results 1": np.zeros(0)}
    assert cell["judge"](empty, 3) == [("the runs", 0.0, "the plan has no seeds yet, so no run can be repeated")]


@forks
def test_a_student_without_seeds_hears_of_the_seeds(markers: dict[str, Marker]) -> None:
    got, said = markers["study"].said("runs", 'plan["seeds"] = []')
    assert got == 0 and "the plan has no seeds yet" in said and "ZeroDivisionError" not in said, said


@forks
@pytest.mark.parametrize(
    ("check", "changed", "score", "words"),
    [
        ("plan", 'plan["seeds"] = list(range(10, 22))', 1.0, "registered:"),
        ("plan", 'plan["why"] = "..."', 0.0, "says too little about why"),
        ("runs", "plan['seeds'] = [11]; results = {a: [v - 20 for v in results[a]] for a in results}", 0.0, "not repeated:"),
        ("interval", 'report["half"] = report["half"] * 10**0.5', 1.0, "no-root:"),
        ("interval", 'report["difference"] = -report["difference"]', 1.0, "turned:"),
        ("claim", 'report["claim"] = "lower"', 1.5, "direction:"),
        ("claim", 'report["claim"] = "more"', 1.5, "claim: it is 'higher', 'lower' or 'not decided', and you say 'more'"),
        ("claim", "report = {}", 0.0, "report must have 'claim', 'matters', and it lacks 'claim', 'matters'"),
        ("claim", "results = [1, 2]", 0.0, "results must be a dictionary, got [1, 2]"),
        ("interval", 'report["half"] = "a few"', 0.0, "'half' of the report must be a number, got 'a few'"),
        ("runs", "def run_one(arm, seed):\n    print(1)", 0.0, "what run_one returns must be a number, got None"),
        ("plan", "plan = 'later'", 0.0, "plan must be a dictionary, got 'later'"),
        ("claim", 'report["claim"] = "not decided"', 1.5, "under-claimed:"),
        ("claim", 'results = dict(zip(results, ([50, 40, 60, 50] * 2, [50, 41, 59, 52] * 2)))', 0.0, "over-claimed:"),
    ],
)  # fmt: skip
def test_a_study_that_bends_its_plan_or_its_numbers_is_told_so(
    markers: dict[str, Marker], check: str, changed: str, score: float, words: str
) -> None:
    got, said = markers["study"].said(check, changed)
    assert (got, words in said) == (score, True), (got, said)


@forks
@pytest.mark.parametrize("name", ["careful", "overclaims"])
def test_a_marked_example_gets_from_the_machine_what_its_table_says(markers: dict[str, Marker], name: str) -> None:
    text = (ROOT / "study" / f"example_{name}.ipynb").read_text(encoding="utf-8")
    prose = "".join(source_of(c) for c in cells.notebook(text)["cells"] if c["cell_type"] == "markdown")
    table = re.findall(r"^\| (?:Machine: `(\w+)`|[^|]*) \| \**(\d+) of (\d+)\** \|", prose, re.M)
    study, work = markers["study"], Submission.of(name, f"{name}.ipynb", text.encode())
    given = {h.name: study.grader.check(h, work)[0] for h in study.master.hidden}
    assert {m: (float(p), float(q)) for m, p, q in table if m} == {m: (c.score, c.points) for m, c in given.items()}
    *parts, (_, together, of) = table
    assert (sum(int(p) for _, p, _ in parts), sum(int(q) for *_, q in parts)) == (int(together), int(of))
    machine = sum(int(p) for m, p, _ in parts if m)
    row = rf"\(example_{name}\.ipynb\) \| {machine} of 10 \| {int(together) - machine} of 10 \| {together} of 20 \|"
    assert re.search(row, (ROOT / "study" / "rubric.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["careful", "overclaims"])
def test_a_marked_example_uses_the_cells_that_students_get(name: str) -> None:
    given = code_of(master.version(master.read(ROOT / "study"), solution=False))
    example = code_of(cells.notebook((ROOT / "study" / f"example_{name}.ipynb").read_text(encoding="utf-8")))
    for words in ("def fingerprint(", "def collect(", "fig, ax = plt.subplots()"):
        assert next(c for c in given if words in c) == next(c for c in example if words in c)


@pytest.mark.parametrize("name", ["careful", "overclaims"])
def test_the_results_of_a_marked_example_are_those_that_its_cell_printed(name: str) -> None:
    stored = cells.notebook((ROOT / "study" / f"example_{name}.ipynb").read_text(encoding="utf-8"))
    outputs = next(c["outputs"] for c in stored["cells"] if "def collect(" in source_of(c))
    printed = "".join(source_of({"source": out["text"]}) for out in outputs)
    pasted = next(s for s in code_of(stored) if s.startswith("results = {"))
    assert ast.literal_eval(printed.split("results = ", 1)[1]) == ast.literal_eval(pasted.split("results = ", 1)[1])
