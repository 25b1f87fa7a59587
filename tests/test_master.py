"""A master notebook gives a student's version that holds nothing of the solution, or it is refused with the line."""

from __future__ import annotations

import ast
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from small import refused

from clbook.checks import InputError
from clbook.course import cells, judging, master
from clbook.course.cells import Cell
from clbook.lab.cli import main

SOLVED = """def double(x):
    \"\"\"Twice x.\"\"\"
    # BEGIN SOLUTION
    secret = 2
    return secret * x
    # END SOLUTION"""
STUBBED = """def half(x):
    # BEGIN SOLUTION
    return x / 2
    # END SOLUTION
    # BEGIN STUB
    # y = x
    #
    # return y  # change this
    # END STUB


print(half(2))"""
HIDDEN = """# HIDDEN double: 3 points
expected = 14


def ask(student, seed):
    return {"seven": student.double(7)}


def judge(answers, seed):
    return [("twice", answers["seven"] == expected, "it is not twice")]"""
CELLS = [
    ("markdown", "# Twice\n\nAn exercise."),
    ("code", "import torch"),
    ("code", SOLVED),
    ("code", "# CHECK double\nassert double(2) == 4, 'twice 2 is 4'"),
    ("code", HIDDEN),
    ("code", STUBBED),
    ("markdown", "Why?\n<!-- BEGIN SOLUTION -->\nBecause.\n<!-- END SOLUTION -->"),
]
SAID = {"assignment": "twice", "seconds": 5, "memory_mb": 512}


def notebook(parts: list[tuple[str, str]], said: Any = SAID) -> dict[str, Any]:
    made = []
    for i, (kind, source) in enumerate(parts):
        more: dict[str, Any] = {}
        if kind == "code":
            more = {"outputs": [{"output_type": "stream", "name": "stdout", "text": "14"}], "execution_count": 3}
        made.append({"cell_type": kind, "id": f"c{i}", "metadata": {"tags": ["x"]}, "source": source} | more)
    return {"cells": made, "metadata": {"clbook": said}, "nbformat": 4, "nbformat_minor": 5}


def written(folder: Path, parts: list[tuple[str, str]], said: Any = SAID) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "master.ipynb").write_text(json.dumps(notebook(parts, said)))
    return folder


def changed(old: str, new: str) -> list[tuple[str, str]]:
    """The cells with one text changed wherever it stands."""
    assert any(old in source for _, source in CELLS)
    return [(kind, source.replace(old, new)) for kind, source in CELLS]


def sources(stored: dict[str, Any]) -> list[str]:
    return [cells.source_of(c) for c in stored["cells"]]


def test_the_students_version_is_what_was_to_be_left(tmp_path: Path) -> None:
    found = master.read(written(tmp_path / "m", CELLS))
    assert sources(master.version(found, solution=False)) == [
        CELLS[0][1],
        "import torch",
        'def double(x):\n    """Twice x."""\n    ...  # your code',
        CELLS[3][1],
        "def half(x):\n    y = x\n\n    return y  # change this\n\n\nprint(half(2))",
        "Why?\n*Your answer:*",
    ]
    assert (found.points, found.checks, [h.asks_for for h in found.hidden]) == (3, ("double",), [("double",)])


def test_the_solution_holds_the_solution_and_no_marker(tmp_path: Path) -> None:
    made = sources(master.version(master.read(written(tmp_path / "m", CELLS)), solution=True))
    assert made[2] == 'def double(x):\n    """Twice x."""\n    secret = 2\n    return secret * x'
    assert made[4] == "def half(x):\n    return x / 2\n\n\nprint(half(2))" and made[5] == "Why?\nBecause."
    assert not re.search("BEGIN|END|STUB|HIDDEN|expected", "\n".join(made))


def test_no_output_and_no_telling_metadata_is_handed_out(tmp_path: Path) -> None:
    for path in master.handout(master.read(written(tmp_path / "m", CELLS)), tmp_path / "out", solution=True):
        stored = json.loads(path.read_text())
        assert all(not c["metadata"] for c in stored["cells"]) and stored["metadata"] == {"clbook": {"assignment": "twice"}}
        assert all(c["outputs"] == [] and c["execution_count"] is None for c in stored["cells"] if c["cell_type"] == "code")


WRONG = {
    ("# BEGIN SOLUTION", "#BEGIN SOLUTION"): "cell 3, '#BEGIN SOLUTION'",
    ("# END SOLUTION", "#  END SOLUTION"): "cell 3, '#  END SOLUTION'",
    ("# BEGIN SOLUTION", "# begin solution"): "cell 3, '# begin solution'",
    ("# BEGIN SOLUTION", "## BEGIN SOLUTION"): "cell 3, '## BEGIN SOLUTION'",
    ("# BEGIN SOLUTION", "# BEGIN SOLUTON"): "cell 3, '# BEGIN SOLUTON'",
    ("# BEGIN SOLUTION", "# BEGIN_SOLUTION"): "cell 3, '# BEGIN_SOLUTION'",
    ("# BEGIN SOLUTION", "# Begin Solution:"): "cell 3, '# Begin Solution:'",
    ("secret = 2", "secret = 2  # END SOLUTION"): "secret = 2  # END SOLUTION",
    ("    # END SOLUTION\n    # BEGIN STUB", "    # BEGIN STUB"): "every BEGIN needs its END",
    ("    # END STUB\n\n\nprint(half(2))", ""): "BEGIN STUB has no END STUB",
    ("    # END STUB", "    # END STUB\n    # BEGIN STUB\n    # END STUB"): "a STUB follows right after a SOLUTION",
    ("    return secret * x\n    # END SOLUTION", "    return secret * x"): "BEGIN SOLUTION has no END SOLUTION",
    ("    # BEGIN SOLUTION\n    secret", "    secret"): "every BEGIN needs its END",
    ("    # y = x", "    y = x"): "each line of a STUB stands behind '# '",
    ("    # y = x", "    # y = = x"): "cell 6 of the student's version is not valid, line 2",
    ("secret = 2", "secret = = 2"): "cell 3 of the solution is not valid, line 3",
    ('"""Twice x."""', '"""Twice x. The solution is 2 x."""'): "the word 'solution' is left",
    ("import torch", "import torch\nmy_solution = 3"): "the word 'solution' is left",
    ("import torch", "import torch  # hidden tests follow"): "the word 'hidden' is left",
    ("# HIDDEN double: 3 points", "#HIDDEN double: 3 points"): "a hidden cell begins with",
    ("# HIDDEN double: 3 points", "# hidden double: 3 points"): "a hidden cell begins with",
    ("# HIDDEN double: 3 points", "# HIDDEN double"): "a hidden cell begins with",
    ("# HIDDEN double: 3 points", "import torch\n# HIDDEN double: 3 points"): "a hidden cell begins with",
    ("# CHECK double", "# CHECK: double"): "a visible check begins with",
    ("# CHECK double", "#CHECK double"): "a visible check begins with",
    ("def judge(answers, seed)", "def judged(answers, seed)"): r"it must define judge\(answers, seed\)",
    ("def ask(student, seed)", "def ask(student)"): r"it must define ask\(student, seed\)",
    ("student.double(7)", "half(7)"): "ask uses half",
    ("student.double(7)", "dict(student)"): "write student.NAME",
    ("student.double(7)", "getattr(student, 'double')(7)"): "write student.NAME",
    ("return [(", "return [=("): "cell 5: line",
    ("# Twice\n", "Twice\n"): "cell 1 must be the title",
    ("<!-- BEGIN SOLUTION -->", "<!--BEGIN SOLUTION-->"): "cell 7, '<!--BEGIN SOLUTION-->'",
    ("<!-- BEGIN SOLUTION -->", "# BEGIN SOLUTION"): "cell 7, '# BEGIN SOLUTION'",
    ("<!-- END SOLUTION -->", ""): "BEGIN SOLUTION has no END SOLUTION",
}


@pytest.mark.parametrize("change", WRONG, ids=lambda c: repr(c)[:60])
def test_a_slip_in_a_master_is_refused_with_its_line(change: tuple[str, str], tmp_path: Path) -> None:
    with refused(WRONG[change]):
        master.read(written(tmp_path / "m", changed(*change)))


@pytest.mark.parametrize("said", [None, {}, SAID | {"seconds": 0}, SAID | {"memory_mb": "512"}, SAID | {"more": 1}])
def test_the_metadata_says_name_and_limits(said: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the notebook's metadata"):
        master.read(written(tmp_path / "m", CELLS, said))


def test_hidden_layers_and_comments_that_begin_with_check_are_no_markers(tmp_path: Path) -> None:
    parts = changed("import torch", "# Check that the hidden layer has hidden_size units\nf = dict(hidden=(3,))")
    assert "hidden layer" in sources(master.version(master.read(written(tmp_path / "m", parts)), False))[1]


def test_a_master_without_a_hidden_check_is_refused(tmp_path: Path) -> None:
    with refused("it has no hidden check"):
        master.read(written(tmp_path / "m", [c for c in CELLS if c[1] != HIDDEN]))


def test_two_hidden_cells_of_one_name_are_refused(tmp_path: Path) -> None:
    with refused("two cells are called '# HIDDEN double'"):
        master.read(written(tmp_path / "m", [*CELLS, CELLS[4]]))


def test_the_process_that_is_asked_gets_no_judge_and_no_expected_value(tmp_path: Path) -> None:
    parts = changed("import torch", "import torch\nimport math").copy()
    parts[4] = ("code", parts[4][1].replace("student.double(7)", "student.double(math.pi)"))
    (hidden,) = master.read(written(tmp_path / "m", parts)).hidden
    names = {n.id for n in ast.walk(ast.parse(hidden.asking)) if isinstance(n, ast.Name)}
    assert hidden.asking.startswith("import math\n") and "torch" not in hidden.asking
    assert not names & {"judge", "expected", "answers"} and "judge" not in hidden.asking


@pytest.mark.parametrize("folder", sorted((Path(__file__).parents[1] / "coursework").glob("*/master.ipynb")), ids=str)
def test_every_assignment_can_be_handed_out(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["handout", str(folder.parent), "--to", str(tmp_path), "--solution"]) == 0
    assert "student.ipynb" in capsys.readouterr().out
    student, solution = ((tmp_path / f"{name}.ipynb").read_text() for name in ("student", "solution"))
    found = master.read(folder)
    for h in found.hidden:
        assert f"HIDDEN {h.name}" not in student + solution
    assert len(solution) > len(student)


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["handout", str(tmp_path)]) == 2
    assert "there is no master notebook" in capsys.readouterr().err
    written(tmp_path, changed("# BEGIN SOLUTION", "#BEGIN SOLUTION"))
    assert main(["handout", str(tmp_path), "--to", str(tmp_path / "out")]) == 2
    assert "'#BEGIN SOLUTION'" in capsys.readouterr().err and not (tmp_path / "out").exists()


# what a name needs ------------------------------------------------------------------------------------------------------------

NOTEBOOK = """
import numpy as np
import torch
torch.manual_seed(0)
x = []
y = np.zeros(3)
def f(a): return a + shift
shift = 1
for k in range(3): x.append(k)
for k in range(3): y[k] = f(k)
result = f(np.ones(10**9))
print(x)
def f(a): return a - shift
def g(a):
    shift = 2
    return a
class A:
    lam = shift
    def h(self): return g(self.lam)
A.more = 3
if shift: z = 1
else: z = 2
show(x)
"""
NEEDS = {
    "f": {"shift = 1", "def f(a):\n    return a - shift"},
    "g": {"def g(a):\n    shift = 2\n    return a"},
    "x": {"x = []", "for k in range(3):\n    x.append(k)", "show(x)"},
    "z": {"shift = 1", "if shift:\n    z = 1\nelse:\n    z = 2"},
    "nothing": set(),
}


@pytest.mark.parametrize("name", NEEDS)
def test_a_name_needs_what_binds_or_changes_it_and_what_that_needs(name: str) -> None:
    body, notes = cells.statements([Cell(1, NOTEBOOK)])
    found = [ast.unparse(s.node) for s in cells.needed(body, [name])]
    assert set(found) == NEEDS[name] | {"import torch", "torch.manual_seed(0)"} and not notes
    assert found == [ast.unparse(s.node) for s in body if ast.unparse(s.node) in found], "their order is the notebook's"
    assert {ast.unparse(s.node) for s in cells.needed(body, [name], setters=False)} == NEEDS[name]


def test_a_loop_that_fills_an_array_is_needed_with_it_and_the_experiment_is_not() -> None:
    found = [ast.unparse(s.node) for s in cells.needed(cells.statements([Cell(1, NOTEBOOK)])[0], ["y", "A"])]
    assert "for k in range(3):\n    y[k] = f(k)" in found and "A.more = 3" in found
    assert not any("10 ** 9" in line or "print" in line for line in found)
    assert "def f(a):\n    return a + shift" in found and "def f(a):\n    return a - shift" not in found


# a notebook, a name, and what of it is run
OVERWRITTEN = {
    "written twice": ("class M: a = 1\nm = M()\nclass M: a = 2\nm = M()", "m", "class M: a = 2\nm = M()"),
    "the instance is older than the class": ("class M: a = 1\nm = M()\nclass M: a = 2", "m", "class M: a = 1\nm = M()"),
    "used by the one that overwrites it": ("def f(): return 1\n@f.other\ndef f(): return 2\nf = slow(f)", "f", ...),
    "a subclass of the old one": ("class M: a = 1\nclass M(M): b = 2", "M", ...),
    "used in between": ("def f(): return 1\nx = f()\ndef f(): return 2\ny = f() + x", "y", ...),
    "used in between by another": ("def g(): return f()\ndef f(): return 1\nx = g()\ndef f(): return x", "f", ...),
    "used in between by a class": ("def f(): return 1\nclass A:\n    a = f()\ndef f(): return A", "f", ...),
    "recursive": ("def f(n): return f(n - 1)\ndef f(n): return n and f(n - 1)", "f", "def f(n): return n and f(n - 1)"),
    "a helper": ("def f(): return 1\ndef g(): return f()\ndef f(): return 2", "g", "def g(): return f()\ndef f(): return 2"),
    "perhaps": ("a = 1\nif True: a = 2", "a", ...),
    "it may raise": ("a = 1\na = 1 / 0", "a", ...),
    "added to": ("a = 1\na += 1", "a", ...),
    "what it is given may change": ("a = [1]\nb = take(a)\ndef take(x): return x.pop()\nb = take(a)", "b", ...),
    "taken again afterwards": (
        "a, b = 1, 2\nr = {'a': a, 'b': b}\nfor k in range(9):\n    a, b = slow(k)\n    print(a, b)",
        "r",
        "a, b = 1, 2\nr = {'a': a, 'b': b}",
    ),
    "taken again, and looked up when it is called": ("a = 1\ndef f(): return a\na, b = slow()", "f", ...),
    "a generator looks up late": ("a = 1\ng = (a for _ in [0, 1])\na, b = slow()", "g", ...),
}


@pytest.mark.parametrize("name", OVERWRITTEN)
def test_what_nothing_looks_up_any_more_is_left_out(name: str) -> None:
    source, asked, wanted = OVERWRITTEN[name]
    body, _ = cells.statements([Cell(1, source)])
    found = [ast.unparse(s.node) for s in cells.needed(body, [asked])]
    assert found == [ast.unparse(node) for node in ast.parse(source if wanted is ... else wanted).body]


@pytest.mark.parametrize("seed", range(60))
def test_what_is_left_out_changes_no_value(seed: int) -> None:
    """Random programs of definitions, calls and loops: each name asked for is after its part what it is after the whole."""
    rng = random.Random(seed)
    lines = [f"{n} = {i}" for i, n in enumerate("abc")] + [f"def {n}(): return a" for n in "fg"]
    for i in range(12):
        v, w, f = rng.choice("abc"), rng.choice("abc"), rng.choice("fg")
        lines.append(
            rng.choice(
                [
                    f"{v} = {i}", f"{v} = {w} + {i}", f"def {f}(): return {v} * 2", f"{v} = {f}()", f"{v} += {w}",
                    f"for {v} in range({i}): {w} = {v} + {f}()", f"if {v} % 2: {w} = {i}", f"def {f}(x={v}): return x + {w}",
                    f"class K:\n    k = {f}()\n    def m(self): return {w}", f"{v} = K().m() + K.k if 'K' in dir() else 0",
                    f"{v}, {w} = {w}, {v}",
                ]
            )
        )  # fmt: skip
    body, _ = cells.statements([Cell(1, "\n".join(lines))])
    for name in "abcfg":
        whole, part = {}, {}
        for names, nodes in ((whole, body), (part, cells.needed(body, [name]))):
            for s in nodes:
                exec(compile(ast.Module([s.node], []), "part", "exec"), names)
        assert (part[name]() == whole[name]()) if name in "fg" else (part[name] == whole[name]), "\n".join(lines)


def test_magics_are_left_out_and_said() -> None:
    source = "%matplotlib inline\nx = 1\n!pip install y\ntry:\n    import z\nexcept ImportError:\n    %pip install z\nx?"
    body, notes = cells.statements(
        [Cell(2, source), Cell(3, "%%bash\nls"), Cell(4, "%time y = 3"), Cell(5, "s = '''\n%d\n'''")]
    )
    assert notes == ["cell 2: left out !pip install y", "cell 2: left out x?", "cell 3: left out %%bash (the whole cell)"]
    assert [ast.unparse(s.node) for s in cells.needed(body, ["x", "y", "s"])] == ["x = 1", "y = 3", "s = '\\n%d\\n'"]


def test_a_cell_that_is_no_python_is_said_and_the_rest_goes_on() -> None:
    body, notes = cells.statements(
        [Cell(1, "def f(:"), Cell(2, "x = 1"), Cell(3, "(" * 5000), Cell(4, "a\0b"), Cell(5, "-" * 99999 + "1")]
    )
    assert [ast.unparse(s.node) for s in body] == ["x = 1"] and [n[:21] for n in notes] == [
        f"cell {n} was left out, "[:21] for n in (1, 3, 4, 5)
    ]


# what is said of an answer ----------------------------------------------------------------------------------------------------

TROUBLE = {
    "is not there": ({}, "there is no answer 'a'"),
    "is a word": ({"a": "1 2"}, "where numbers are expected"),
    "has another shape": ({"a": [[1.0, 2.0]]}, r"the shape \[1, 2\], and \[2\]"),
    "could be stretched": ({"a": 1.0}, r"the shape \[\]"),
    "holds NaN": ({"a": [1.0, float("nan")]}, "1 numbers that are NaN"),
    "is off": ({"a": [1.0, 3.0]}, r"a at \(1,\) is 3, and 2 was expected; 50 % of"),
}


@pytest.mark.parametrize("case", TROUBLE)
def test_an_answer_gets_nothing_when_it(case: str) -> None:
    answers, said = TROUBLE[case]
    found = judging.agrees("a pair", answers, "a", [1.0, 2.0], hint="Look again.")
    assert found.share == 0 and re.search(said, found.message) and found.message.endswith("Look again.")


def test_an_answer_within_the_tolerance_gets_all() -> None:
    assert judging.agrees("a pair", {"a": [1.0, 2.0002]}, "a", [1.0, 2.0], rtol=2e-4) == judging.Verdict("a pair", 1.0)
    assert judging.agrees("a pair", {"a": [1.0, 2.0008]}, "a", [1.0, 2.0], rtol=2e-4).share == 0


@pytest.mark.parametrize(("share", "kept"), [(2, 1), (-1, 0), (float("nan"), 0), (float("inf"), 0), (0.5, 0.5), (True, 1)])
def test_a_share_lies_between_none_and_all(share: float, kept: float) -> None:
    assert judging.verdict(("a", share, "b")).share == kept
