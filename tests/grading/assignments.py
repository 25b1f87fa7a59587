"""Two small masters for the tests of the grader, and frauds that a contest must not fall for."""

from __future__ import annotations

SQUARES = [
    ("markdown", "# Squares"),
    ("code", "import numpy as np\nimport torch"),
    ("code", "def square(x):\n    # BEGIN SOLUTION\n    return x * x\n    # END SOLUTION"),
    ("code", "def cube(x):\n    # BEGIN SOLUTION\n    return x * square(x)\n    # END SOLUTION"),
    ("code", "# CHECK square\nassert square(2) == 4"),
    (
        "code",
        """# HIDDEN square: 2 points
from clbook.course.judging import agrees

THE_RIGHT_ANSWER = square(3)


def ask(student, seed):
    return {"x": student.square(3)}


def judge(answers, seed):
    return [agrees("the square of 3", answers, "x", THE_RIGHT_ANSWER, hint="It is wrong")]""",
    ),
    (
        "code",
        """# HIDDEN cube: 3 points
def ask(student, seed):
    return {"y": student.cube(seed % 100 + 1)}


def judge(answers, seed):
    return [("the cube", answers["y"] == cube(seed % 100 + 1), "no"), ("positive", float(answers["y"] > 0), "negative")]""",
    ),
]
CUBE = "\ndef cube(x):\n    return x**3\n"

IMPORTS = "from dataclasses import dataclass\nimport torch\nfrom clbook import Method, Spring, fisher"
MINE = """
@dataclass(frozen=True)
class Mine(Spring):
    def importance(self, net, theta, state, task, rng):
        return fisher(net, theta, task.x, task.y)


method = Mine(lam=3.0)
"""
CONTEST = [
    ("markdown", "# A method of your own"),
    ("code", IMPORTS),
    ("code", f"# BEGIN SOLUTION{MINE}# END SOLUTION"),
    (
        "code",
        """# HIDDEN hidden streams: 10 points
from clbook.course.contest import Contest, learn


def game(seed):
    return Contest((seed, seed + 1, seed + 2), tasks=3, samples=60, test_samples=50, hidden=(12,), steps=12)


def give(seed, earlier):
    return game(seed).give(earlier)


def ask(student, given):
    return learn(student.method, given)


def judge(answers, seed):
    return game(seed).judge(answers, floor=-1, full=0, budget=20_000)""",
    ),
]
NOTHING = """
class Nothing(Method):
    pass
method = Nothing()
"""
# what the entry must say, and the source; nothing is said where the fraud is honest in the end
FRAUDS = {
    "keeps all": (
        "memory budget",
        """
class All(Method):
    def start(self, net, theta):
        return {"x": torch.zeros(0, 64)}
    def after_task(self, net, theta, state, task, rng):
        return {"x": torch.cat([state["x"], task.x])}
    def memory_bytes(self, state, scenario):
        return 0
method = All()
""",
    ),
    "keeps in a global": (
        "",
        """
KEPT = []
class Hides(Method):
    def before_task(self, net, theta, state, task, rng):
        assert len(KEPT) < 3, "found"  # three streams are learned in one process
        return theta, state
    def after_task(self, net, theta, state, task, rng):
        KEPT.append(task.x)
        open("kept", "a").write("x")
        assert open("kept").read() == "x" * len(KEPT)
        return state
method = Hides()
""",
    ),
    "changes what measures": (
        "",
        """
class Lies(Method):
    def start(self, net, theta):
        from clbook.course import contest
        contest.metrics.average_accuracy = lambda R: 1.0
        contest.Contest.R = contest.Contest.judge = lambda *a, **k: 1.0
        return {}
method = Lies()
""",
    ),
    "answers in words": ("a method|theta must|subclass", "method = 'accuracy 1.0'"),
    "is too long": (
        "at most 20 lines",
        NOTHING + "class Long(Nothing):\n" + "".join(f"    a{i} = {i}\n" for i in range(25)) + "method = Long()\n",
    ),
}
