"""A contest of methods: a stream gives nothing away, every byte that is kept counts, and nobody's word is taken for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from pages import ROOT
from scipy.optimize import linear_sum_assignment

import clbook
from clbook import InputError, methods
from clbook.course import cells, contest, master
from clbook.course.contest import Contest, Contract
from clbook.course.grade import wire
from clbook.course.grade.grader import Grader

SMALL = Contest((3, 4), tasks=3, samples=60, test_samples=50, hidden=(12,), steps=12, batch_size=8)
P = SMALL.net.n_params


def through_messages(game: Any, ask: Any, method: Any, source: str = "method = 1") -> list[dict[str, Any]]:
    """The rounds of a game, through messages as they go to another process and come back."""
    earlier: list[dict[str, Any]] = []
    while (given := game.give(earlier)) is not None:
        _, given = wire.unpack(wire.pack({}, given))
        _, answers = wire.unpack(wire.pack({}, ask(method, given)))
        earlier.append(answers | {"source": source})
    return earlier


def learned(method: Any, game: Contest = SMALL, source: str = "method = 1") -> list[dict[str, Any]]:
    return through_messages(game, contest.learn, method, source)


# the streams ------------------------------------------------------------------------------------------------------------------


def means(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.stack([x[y == c].mean(0) for c in range(10)])  # [10, 64]


def test_no_picture_of_a_task_is_one_of_another_task_rearranged() -> None:
    tasks = list(SMALL.streams[0])
    pictures = [np.sort(np.concatenate([t.x, t.x_test]), axis=1) for t in tasks]
    assert len({row.tobytes() for rows in pictures for row in rows}) == sum(len(rows) for rows in pictures)
    orders = {tuple(t.y.tolist()) for t in tasks} | {tuple(t.y_test.tolist()) for t in tasks}
    assert len(orders) == 2 * len(tasks) and all((t.y.bincount() == 6).all() for t in tasks)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ten_mean_pictures_of_an_old_task_do_not_turn_the_new_task_into_it(seed: int) -> None:
    """Whoever matches the pixels of two tasks by ten mean pictures gets a worse old task than the ten that were kept for it."""
    stream = Contest((seed,), tasks=2).streams[0]
    old, new = stream[0], stream[1]
    kept = means(old.x, old.y)
    _, at = linear_sum_assignment(torch.cdist(kept.T, means(new.x, new.y).T).numpy())
    rebuilt = means(new.x[:, torch.as_tensor(at)], new.y)
    share = lambda m: float((torch.cdist(old.x_test, m).argmin(1) == old.y_test).float().mean())  # noqa: E731
    assert share(rebuilt) < share(kept) - 0.15


def test_all_bits_of_a_seed_count() -> None:
    """PyTorch would take 32 of them, and then somebody could try them all for the one that gives the training samples."""
    a, b, c = (contest.glyphs(seed, 20, 20, task) for seed, task in ((7, 0), (7 + 2**32, 0), (7, 1)))
    assert not torch.equal(a.x, b.x) and not torch.equal(a.x, c.x)
    assert torch.equal(a.x, contest.glyphs(7, 20, 20).x)


def test_no_test_sample_is_given_away() -> None:
    given = SMALL.give([])
    assert given is not None
    tests = [np.asarray(x) for s in SMALL.streams for x in (s.test(0)[0], s.test(1)[0], s.test(2)[0])]
    rows = {row.tobytes() for x in tests for row in x}
    arrays = [np.asarray(v) for v in given.values() if not isinstance(v, int | float)]
    assert not any(row.tobytes() in rows for a in arrays if a.ndim == 2 for row in a)


# task by task -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [methods.Finetune(), methods.EWC(lam=5.0), methods.SI(lam=1.0), methods.L2(lam=0.1)], ids=lambda m: m.label
)
def test_task_by_task_in_other_processes_is_the_same_as_one_run(method: clbook.Method) -> None:
    R = SMALL.R(learned(method))
    for s, stream in enumerate(SMALL.streams):
        result = clbook.run(stream, method, [s], net=SMALL.net, progress=False, **SMALL.how)
        np.testing.assert_allclose(R[s], result.R[0], atol=1.01 / 50)  # one test sample, where rounding differs


class Drops(methods.Finetune):
    """It keeps something for one task alone."""

    def start(self, net: Any, theta: Any) -> Any:
        return {"once": theta.new_ones(3)}

    def after_task(self, net: Any, theta: Any, state: Any, task: Any, rng: Any) -> Any:
        assert ("once" in state) == (task.index == 0)
        return {}


def test_what_a_method_drops_does_not_come_back() -> None:
    assert contest.measured(learned(Drops())) == 0


def test_old_samples_are_not_there_to_be_asked_for() -> None:
    with pytest.raises(InputError, match="samples of task 0 were asked for by number while task 1 was trained"):
        learned(methods.ER(size=10))


def test_accuracy_is_computed_from_theta_whatever_is_said_of_it() -> None:
    answers = learned(methods.Finetune())
    lying = [a | {"accuracy": 1.0, "0/accuracy": 1.0} for a in answers]
    assert SMALL.judge(lying, floor=0, full=1)[0] == SMALL.judge(answers, floor=0, full=1)[0]
    for a in lying:
        a["0/theta"] = np.zeros_like(a["0/theta"])
    firsts = [float((SMALL.streams[0].test(j)[1] == 0).float().mean()) for j in range(3)]
    assert SMALL.R(lying)[0, -1] == pytest.approx(firsts)


ODD = {
    "theta must have": {"0/theta": np.zeros(3, np.float32)},
    "of type float32": {"0/theta": np.zeros(P)},
    "no longer finite": {"0/theta": np.full(P, np.nan, np.float32)},
    "must be tensors": {"0/state/x": "a word"},
    "are not even tried": {"0/state/x": np.zeros(2**22)},
}


@pytest.mark.parametrize("said", ODD)
def test_what_is_no_theta_and_no_state_is_refused_in_words(said: str) -> None:
    first = learned(methods.Finetune(), Contest((3, 4), 1, 60, 50, (12,), 2, 8))[0]
    with pytest.raises(InputError, match=said):
        SMALL.give([first | ODD[said]])


class Predicts(methods.Finetune):
    def predict(self, *args: Any) -> Any:
        return 1


class Sees(methods.Finetune):
    sees = "seen"


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (3, "instance of a subclass"),
        (Predicts(), "Predicts.predict is not used"),
        (Sees(), "only the current task"),
        (methods.EWC, r"EWC\(lam=...\)"),
    ],
)
def test_what_is_no_method_for_a_contest_is_told(method: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        contest.instance(method)


# the bytes --------------------------------------------------------------------------------------------------------------------


class Silent(methods.EWC):
    def memory_bytes(self, state: Any, scenario: Any) -> int:
        return 0


def test_memory_is_what_comes_back_and_not_what_the_method_says() -> None:
    """Two vectors of four bytes a number; their names, omega and theta_star; and for each one dimension and a type."""
    answers, size = learned(Silent(lam=1.0)), 2 * 4 * P + len("omega" + "theta_star") + 2 * (8 + 1)
    assert contest.measured(answers) == size
    assert contest.memory(answers, size).share == 1 and contest.memory(answers, size - 1).share == 0
    assert contest.measured(learned(methods.Finetune())) == 0


class Hoards(methods.Finetune):
    """It says that it keeps nothing, and keeps all."""

    keeps = ()

    def start(self, net: Any, theta: Any) -> Any:
        full, none = theta.new_zeros(120, 64), theta.new_zeros(77)
        return {"hoard": full, "sum": none, "theta": theta, "twice": full}

    def after_task(self, net: Any, theta: Any, state: Any, task: Any, rng: Any) -> Any:
        hoard = state["hoard"].clone()
        hoard[60 * min(task.index, 1) :][:60] = task.x
        return state | {"hoard": hoard, "theta": theta.clone(), "twice": hoard}


def test_all_of_the_state_counts_once_declared_or_not() -> None:
    """120 samples of 64 numbers; 77 zeros are one number, and the numbers of a copy say nothing new. Names and shapes count."""
    names, shapes = len("hoard" + "sum" + "theta" + "twice"), 8 * (2 + 1 + 1 + 2) + 4
    assert contest.measured(learned(Hoards())) == 120 * 64 * 4 + 4 + names + shapes


THETA = np.linspace(-1, 1, P, dtype=np.float32)
FINER = THETA + np.float64(1e-12)
BITS = np.random.default_rng(0).integers(0, 2, 800)
HIDDEN = {  # ways to keep 100 bytes or more, and what they must at least count
    "signs of zero": ({"0/state/a": np.where(BITS == 1, -0.0, 0.0)}, 800 * 8),
    "kinds of NaN": ({"0/state/a": (BITS + 0x7FC00000).astype(np.uint32).view(np.float32)}, 800 * 4),
    "a theta of higher precision": ({"0/theta": FINER, "0/state/a": FINER}, 8 * P),
    "names": ({f"0/state/{'a' * 90}{i:010}": np.zeros(0) for i in range(100)}, 100 * 100),
    "names of other letters": ({f"0/state/{'ж' * 90}{i:010}": np.zeros(0) for i in range(100)}, 100 * 190),
    "shapes": ({f"0/state/{i}": np.zeros((0, *range(i + 1, i + 11))) for i in range(10)}, 10 * 11 * 8),
    "copies under names": ({f"0/state/{'a' * 90}{i:010}": THETA for i in range(100)}, 100 * 100),
}


@pytest.mark.parametrize("way", HIDDEN)
def test_there_is_nothing_to_keep_that_does_not_count(way: str) -> None:
    answer, least = HIDDEN[way]
    assert least <= contest.measured([{"0/theta": THETA, **answer}]) <= least + 2100


def test_the_order_of_entries_says_nothing() -> None:
    one, two = np.ones(1), np.ones(2)
    assert [*contest.kept({"0/state/b": one, "0/state/a": two}, 0)] == [*contest.kept({"0/state/a": two, "0/state/b": one}, 0)]


def test_a_method_over_a_limit_gets_nothing_for_its_accuracy_and_hears_of_that_limit_alone() -> None:
    answers = learned(methods.EWC(lam=1.0), source="\n".join(f"a{i} = {i}" for i in range(21)))
    for limits, broken in (({"budget": 10, "lines": 21}, "memory budget"), ({"budget": 10**6}, "at most 20 lines")):
        accuracy, limit = SMALL.judge(answers, floor=0.0, full=0.1, **limits)
        assert accuracy.share == 0 == limit.share and limit.criterion == broken
        assert broken in accuracy.message and not accuracy.data["counts"]
    (accuracy,) = SMALL.judge(answers, floor=0.0, full=0.1, budget=10**6, lines=21)
    assert accuracy.share == 1 and accuracy.data["counts"]


# the lines --------------------------------------------------------------------------------------------------------------------

DOCUMENTED = '''
class A:
    """Words.

    More."""

    def f(self):
        """One."""
        # why
        return [1,
                2]
'''
LINES = {
    "import torch\nfrom clbook import Spring\nx = 1": 1,
    DOCUMENTED: 3,
    "a = 1; b = 2": 2,
    "if a: b = 1": 2,
    "x = table('" + "y = 1;" * 100 + "')": 6,
    "def f():\n    '''Only words.'''": 2,
}


@pytest.mark.parametrize("source", LINES)
def test_lines_are_counted_as_python_writes_them(source: str) -> None:
    assert contest.count_lines(source) == LINES[source]


LONG = "'''\n" + "x = 1\n" * 100 + "'''"
FROM_TEXT = {
    f"class A:\n    {LONG}\n    def start(self, net, theta):\n        exec(self.__doc__)\n        return {{}}": "exec",
    f"class A:\n    {LONG}\n    text = __doc__": "__doc__",
    "import warnings\nwarnings.__builtins__['exec']('a = 1')": "__builtins__",
    "from builtins import eval as f": "builtins",
    "import importlib.util as u": "importlib",
    "f = getattr(torch, 'compile')": "compile",
    "import inspect\ntext = inspect.getsource(f)": "inspect",
}


@pytest.mark.parametrize("source", FROM_TEXT)
def test_code_that_is_made_of_text_is_refused_by_the_name_that_makes_it(source: str) -> None:
    assert contest.text_to_code(source) == FROM_TEXT[source]
    verdict = contest.length([{"source": source}])
    assert verdict.share == 0 and f"it says {FROM_TEXT[source]}," in verdict.message


def test_a_method_with_words_about_exec_and_a_constructor_of_its_own_is_no_such_code() -> None:
    plain = 'class A(B):\n    "It does not exec anything."\n    def __post_init__(self):\n        super().__post_init__()'
    assert contest.text_to_code(f"from __future__ import annotations\n{plain}") == ""
    assert contest.length([{"source": plain}]).share == 1


# the contract -----------------------------------------------------------------------------------------------------------------


class Impure(methods.L2):
    def after_task(self, net: Any, theta: Any, state: Any, task: Any, rng: Any) -> Any:
        state["omega"] += 1
        return state


class Remembers(methods.Finetune):
    def loss(self, net: Any, theta: Any, state: Any, batch: Any) -> Any:
        Remembers.calls = getattr(Remembers, "calls", 0) + 1
        return (1 + Remembers.calls / 50) * super().loss(net, theta, state, batch)


class Draws(methods.Finetune):
    def before_task(self, net: Any, theta: Any, state: Any, task: Any, rng: Any) -> Any:
        return theta + 0.01 * torch.randn(theta.shape), state


@dataclass(frozen=True)
class Branches(methods.Finetune):
    def loss(self, net: Any, theta: Any, state: Any, batch: Any) -> Any:
        plain = super().loss(net, theta, state, batch)
        return plain if plain.item() > 0 else 2 * plain


class Idle(methods.Finetune):
    def after_step(self, theta: Any, state: Any, update: Any) -> Any:
        return update.before, state


LEARNS, ONCE, STACKED, PURE = [v.criterion for v in Contract(5).judge(contest.play(Contract(5), methods.Finetune()))]
BROKEN = {
    PURE: Impure(lam=1.0),
    ONCE: Remembers(),
    f"{ONCE}, {STACKED}": Draws(),
    LEARNS: Idle(),
}


def examined(method: Any) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    return through_messages(Contract(5), contest.examine, method)


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_contract_is_told(broken: str) -> None:
    verdicts = {v.criterion: v for v in Contract(5).judge(examined(BROKEN[broken]))}
    assert {c for c, v in verdicts.items() if v.share < 1} >= set(broken.split(", "))
    assert all(verdicts[c].message for c in broken.split(", "))


@pytest.mark.parametrize("method", [methods.EWC(lam=1.0), methods.SI(lam=1.0)], ids=lambda m: m.label)
@pytest.mark.parametrize("seed", range(3))
def test_methods_of_the_package_keep_the_contract(method: clbook.Method, seed: int) -> None:
    verdicts = Contract(seed).judge(through_messages(Contract(seed), contest.examine, method))
    assert [(v.share, v.message) for v in verdicts] == [(1.0, "")] * 4


def test_each_check_has_a_seed_of_its_own_and_so_the_small_runs_do_not_tell_that_of_the_streams() -> None:
    found = master.read(ROOT / "coursework" / "own_method")
    seeds = [Grader(found, 7).seed_of(h) for h in found.hidden]
    assert len(set(seeds)) == 2 and 7 not in seeds


def test_what_cannot_be_trained_at_all_is_told_why() -> None:
    with pytest.raises(InputError, match="asks for the value of a tensor"):
        Contract(5).judge(examined(Branches()))


def returning(hook: str, value: Any, base: type = methods.Finetune) -> Any:
    return type("Mine", (base,), {hook: lambda self, *args: value})()


class Stiff(methods.L2):
    def importance(self, net: Any, theta: Any, state: Any, task: Any, rng: Any) -> Any:
        return theta[:-1]


NOTHING = "nothing; is its `return` missing"
RETURNED = {
    "start": (returning("start", {"old": []}), r"a state in which 'old' is \[\]"),
    "before_task": (returning("before_task", torch.zeros(3)), r"a tensor \[3\]"),
    "prepare": (returning("prepare", None), NOTHING),
    "loss": (returning("loss", torch.ones(2)), r"a tensor \[2\]"),
    "direction": (returning("direction", torch.ones(2)), r"a tensor \[2\], where theta is a tensor \[1210\]"),
    "after_step": (returning("after_step", None), NOTHING),
    "after_task": (returning("after_task", None), NOTHING),
    "importance": (Stiff(lam=1.0), r"a tensor \[1209\], where theta is a tensor \[1210\]"),
}


@pytest.mark.parametrize("hook", RETURNED)
def test_a_hook_that_returns_something_else_is_told_what_it_must_return(hook: str) -> None:
    method, said = RETURNED[hook]
    with pytest.raises(InputError, match=rf"^\w+\.{hook} must return .*, and it returned {said}"):
        Contract(5).judge(examined(method))


SAYS = {
    "not finite": np.full((2, 2, Contract(5).game.net.n_params), np.nan, np.float32),
    "must bring parameters": np.zeros((2, 2, 3), np.float32),
    "of type float32": np.zeros((2, 2, Contract(5).game.net.n_params)),
    "got 'all is well'": "all is well",
    "got None": None,
}


@pytest.mark.parametrize("said", SAYS)
def test_a_process_that_says_anything_but_parameters_gets_nothing_for_it(said: str) -> None:
    with pytest.raises(InputError, match=said):
        Contract(5).judge([{"thetas": SAYS[said], "in place": ""}] * 3)


def test_parameters_that_nothing_was_learned_with_are_told_apart_by_the_teachers_own_look() -> None:
    same = {"thetas": np.zeros((2, 2, Contract(5).game.net.n_params), np.float32), "in place": ""}
    verdicts = {v.criterion: v for v in Contract(5).judge([same] * 3)}
    assert verdicts[LEARNS].share == 0 and "10 % of its training samples" in verdicts[LEARNS].message


# practice ---------------------------------------------------------------------------------------------------------------------


def test_what_students_play_is_what_the_grader_asks_for() -> None:
    source = "method = 1"
    played = contest.play(SMALL, methods.EWC(lam=5.0), [source])
    asked = learned(methods.EWC(lam=5.0))
    assert [a["source"] for a in played] == [source] * 3
    assert SMALL.judge(played, floor=0, full=1, budget=10**6) == SMALL.judge(asked, floor=0, full=1, budget=10**6)


def test_the_cells_of_a_session_are_counted_as_those_that_are_handed_in() -> None:
    """A helper elsewhere counts, a version that was overwritten and a check do not."""
    session = ["import torch", "def helper():\n    return 1", "class A:\n    a = 1\n    b = 2\n\nmethod = A()"]
    session += ["# CHECK x\nb = 1", "%matplotlib inline", "class A:\n    a = helper()\n\nmethod = A()", "print(method)"]
    (first, *_) = contest.play(SMALL, methods.Finetune(), session)
    assert contest.count_lines(first["source"]) == 5


def test_page_docstring_and_master_show_the_same_three_functions() -> None:
    hidden = next(h for h in master.read(ROOT / "coursework" / "own_method").hidden if h.name == "contest")
    page = (ROOT / "book" / "grading.md").read_text(encoding="utf-8")
    shown = page.split("# HIDDEN contest: 16 points\n")[1].split("```")[0]
    said = "\n".join(line.strip() for line in (contest.__doc__ or "").splitlines() if line.startswith("    "))

    def lines(text: str) -> set[str]:
        """What the three functions return, but for seeds and numbers."""
        returned = [cells.ast.unparse(n) for n in cells.ast.walk(cells.ast.parse(text)) if isinstance(n, cells.ast.Return)]
        kept = [r for r in returned if "Contest(" not in r]
        return {r.replace("contest.learn", "learn").split("floor=")[0] for r in kept}

    assert len(lines(hidden.source)) == 3 and lines(hidden.source) == lines(shown) == lines(said)
