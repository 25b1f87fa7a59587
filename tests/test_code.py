"""The digest of code changes with whatever numbers come from, and with nothing else."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from clbook import Method, Spring, code
from clbook.methods import EWC, L2, Finetune

# A package of the same build as the real one: a loop, a method and its base class, and what each imports.
PACKAGE = {
    "__init__": "from fake.methods.ewc import EWC\n",
    "loop": '"""The loop."""\nfrom fake.runs import Runs\n\n\ndef train(steps):\n    """Train."""\n    return [Runs(s) for s in range(steps)]\n',
    "runs": "class Runs:\n    def __init__(self, n):\n        self.n = n  # so many\n",
    "method": "class Method:\n    lam = 1.0\n\n    def penalty(self, x):\n        return self.lam * x\n",
    "net": "import fake.layers as layers\n\nWIDTH = 3\n",
    "layers": "def relu(x):\n    return max(x, 0)\n",
    "importance": "from fake import net\n\n\ndef fisher(x):\n    return x * net.WIDTH\n",
    "metrics": "def accuracy(R):\n    return R[-1]\n",
    "result": "from fake.metrics import accuracy\n",
    "plots": "def draw(R):\n    return R\n",
    "methods/__init__": "",
    "methods/ewc": (
        '"""Elastic weights."""\nfrom fake.importance import fisher\nfrom fake.method import Method\n'
        "from fake.result import accuracy\n\n\n"
        'class EWC(Method):\n    """Springs."""\n\n    def importance(self, x):\n        """How stiff."""\n        return fisher(x)\n'
    ),
    "methods/l2": "from fake.method import Method\n\n\nclass L2(Method):\n    def importance(self, x):\n        return 1\n",
}


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The digest of the fake package's EWC and loop, after some of its files have been changed."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def compute(changes: dict[str, tuple[str, str]] | None = None, of: str = "methods.ewc:EWC") -> str:
        for name, text in PACKAGE.items():
            old, new = (changes or {}).get(name, ("", ""))
            assert old in text, f"{name} has no {old!r}"
            file = tmp_path / "fake" / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace(old, new) if old else text + new)
        for name in [n for n in sys.modules if n == "fake" or n.startswith("fake.")]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()
        module, _, owner = of.partition(":")
        return code_of("fake").digest(getattr(importlib.import_module(f"fake.{module}"), owner), "fake.loop")

    return compute


def code_of(package: str) -> ModuleType:
    """clbook.code as it would be in another package; nothing that it remembers is shared."""
    spec = importlib.util.spec_from_file_location(f"{package}.code", code.__file__)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


COUNTS = {
    "the method": {"methods/ewc": ("return fisher(x)", "return fisher(x) + 1")},
    "its base class": {"method": ("self.lam * x", "self.lam * x * x")},
    "a default of its base class": {"method": ("lam = 1.0", "lam = 2.0")},
    "what the method imports": {"importance": ("x * net.WIDTH", "x + net.WIDTH")},
    "what that imports": {"net": ("WIDTH = 3", "WIDTH = 4")},
    "what that imports in turn": {"layers": ("max(x, 0)", "max(x, 1)")},
    "the loop": {"loop": ("range(steps)", "range(steps + 1)")},
    "what the loop imports": {"runs": ("self.n = n", "self.n = -n")},
    "a name": {"layers": ("relu", "relu6")},
    "a new import": {"runs": ("", "\nimport fake.plots\n")},
}
COUNTS_NOT = {
    "a comment": {"runs": ("# so many", "# that many")},
    "a new comment": {"method": ("", "\n# the end\n")},
    "blank lines": {"layers": ("\n", "\n\n\n")},
    "a space": {"layers": ("max(x, 0)", "max( x,  0 )")},
    "the docstring of a module": {"loop": ('"""The loop."""', '"""Another word on the loop."""')},
    "the docstring of a class": {"methods/ewc": ('"""Springs."""', '"""Weights on springs."""')},
    "the docstring of a function": {"methods/ewc": ('"""How stiff."""', '"""How very stiff."""')},
    "a docstring where there was none": {"layers": ("def relu(x):\n", 'def relu(x):\n    """Cut."""\n')},
    "another method": {"methods/l2": ("return 1", "return 2")},
    "what nobody imports": {"plots": ("return R", "return -R")},
    "what only reads numbers": {"metrics": ("R[-1]", "R[0]")},
    "what only stores numbers": {"result": ("", "\nx = 3\n")},
    "a package's list of names": {"__init__": ("", "\nfrom fake.methods.l2 import L2\n")},
}


@pytest.mark.parametrize("change", COUNTS)
def test_it_changes_with(change: str, digest: Callable[..., str]) -> None:
    assert digest(COUNTS[change]) != digest()


@pytest.mark.parametrize("change", COUNTS_NOT)
def test_it_does_not_change_with(change: str, digest: Callable[..., str]) -> None:
    assert digest(COUNTS_NOT[change]) == digest()


def test_each_method_has_its_own(digest: Callable[..., str]) -> None:
    assert digest(of="methods.l2:L2") != digest()
    assert digest({"methods/ewc": ("return fisher(x)", "return 7")}, of="methods.l2:L2") == digest(of="methods.l2:L2")
    real = {m: code.digest(m, "clbook.loop") for m in (EWC, L2, Finetune)}
    assert len(set(real.values())) == 3 and all(code.digest(m, "clbook.loop") == d for m, d in real.items())
    assert code.digest(EWC) != code.digest(EWC, "clbook.loop")


# a method of the reader's own ------------------------------------------------------------------------------------------------

MINE = '''class Mine(Spring):
    """What it is for."""

    keeps = ("omega",)
    power: int = 2

    def importance(self, net, theta, state, task, rng, scale=0.5):
        """Stiff."""
        if self.pull in {"implicit", "explicit", "neither"}:
            return scale * theta.abs() ** 2
        return helper(theta, "a word")

    @property
    def label(self):
        return "mine"
'''


def mine(*change: str, base: type[Method] = Spring) -> type[Method]:
    scope: dict[str, Any] = {"Spring": base, "__name__": "notebook"}
    assert not change or change[0] in MINE
    exec(MINE.replace(*change) if change else MINE, scope)
    return scope["Mine"]


@pytest.mark.parametrize(
    "change",
    [
        ("** 2", "** 3"), ("theta.abs()", "theta.exp()"), ("scale=0.5", "scale=0.6"), ('"neither"', '"both"'), ('"a word"', '"no word"'),
        ('("omega",)', '("theta_star",)'), ('return "mine"', 'return "yours"'), ("power: int = 2", "power: int = 3"),
        ("helper(theta", "another(theta"), ("def importance(", "def Importance("),
    ],
)  # fmt: skip
def test_a_readers_own_class_counts_as_it_is_written(change: tuple[str, str]) -> None:
    assert code.digest(mine(*change)) != code.digest(mine())


@pytest.mark.parametrize(
    "change",
    [
        ('"""What it is for."""', '"""Something."""'),
        ('"""Stiff."""', '"""Stiffer."""'),
        ("    keeps", "    # a word\n\n    keeps"),
    ],
)
def test_and_not_as_it_is_described(change: tuple[str, str]) -> None:
    assert code.digest(mine(*change)) == code.digest(mine())


def test_a_base_class_of_the_readers_own_counts_too() -> None:
    class Stiff(Spring):
        def importance(self, *args: Any) -> Any:
            return 1

    class Soft(Spring):
        def importance(self, *args: Any) -> Any:
            return 2

    assert code.digest(mine(base=Stiff)) != code.digest(mine(base=Soft)) != code.digest(mine())


def test_it_is_the_same_in_another_process(tmp_path: Path) -> None:
    """Also with a set in the code, which Python writes in an order of the day; else no checkpoint would outlive its process."""
    (tmp_path / "mine.py").write_text(f"from clbook import Spring\n\n\n{MINE}")
    command = "from clbook import code; from mine import Mine; print(code.digest(Mine, 'clbook.loop'))"
    found = [
        subprocess.run(
            [sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(code.__file__).parents[1]}"},
        ).stdout
        for seed in ("1", "2", "3")
    ]  # fmt: skip
    assert len(set(found)) == 1 and found[0].strip()
