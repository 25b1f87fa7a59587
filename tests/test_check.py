"""`clbook check` names every known mistake by its numbers, leaves right code alone, and answers whatever it is given."""

from __future__ import annotations

import copy
import itertools
import json
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import catalogue
import numpy as np
import pytest
import torch
from pages import ROOT
from scipy.optimize import minimize
from small import refused, users_meet_it
from torch import Tensor

import clbook
from clbook import methods
from clbook.course import Report, check, check_file, template
from clbook.course.calling import Subject, theta_of
from clbook.course.kinds import KINDS, agem, distillation, fisher, mas, penalty, replay, si
from clbook.course.properties import CLOSE, Finding, Property, fit, scaled
from clbook.lab.cli import main
from clbook.scenarios import Batch

sys.path.insert(0, str(Path(__file__).parent / "course"))
import carriers
import distillations
import fishers
import importances
import paths
import penalties
import projections
import replays
import wrong_methods

WRITTEN: list[ModuleType] = [fishers, penalties, importances, distillations, paths, projections, replays, carriers]
Code = Callable[..., Any]


def cases(name: str) -> list[Any]:
    """Every function of the modules that is listed under this name, with its kind and what is said of it."""
    found = []
    for module in WRITTEN:
        listed = getattr(module, name)
        for function in listed:
            said = listed[function] if isinstance(listed, dict) else None
            found.append(pytest.param(function, module.KIND, said, id=f"{module.__name__}-{function.__name__}"))
    return found


def looked(function: Code, kind: str) -> list[Finding]:
    report = check(function, kind)
    assert not [f.this_is for f in report.findings if f.verdict == "error"]
    return report.findings


@pytest.mark.parametrize(("function", "kind", "said"), cases("RIGHT"))
def test_right_code_is_left_alone_in_any_style(function: Code, kind: str, said: None) -> None:
    assert [f.verdict for f in looked(function, kind)] == ["right"] * len(looked(function, kind))
    assert check(function, kind).status == 0


@pytest.mark.parametrize(("function", "kind", "said"), cases("NOTED"))
def test_a_convention_is_named_and_is_no_fault(function: Code, kind: str, said: str) -> None:
    report = check(function, kind)
    notes = [note for f in report.findings for note in f.notes]
    assert report.status == 0 and report.findings[0].verdict == "convention"
    assert any(said in note for note in notes), notes


@pytest.mark.parametrize(("function", "kind", "said"), cases("WRONG"))
def test_a_known_mistake_is_named(function: Code, kind: str, said: str) -> None:
    report = check(function, kind)
    assert (report.faults, report.status) == ([said], 1), str(report)


@pytest.mark.parametrize(("function", "kind", "said"), cases("UNKNOWN"))
def test_a_mistake_that_nobody_knows_is_called_that(function: Code, kind: str, said: None) -> None:
    report = check(function, kind)
    assert (report.faults, report.status) == (["unknown"], 1), str(report)
    assert "no mistake that is known here" in str(report) and report.findings[0].expected != report.findings[0].got


def test_there_are_enough_of_them_in_the_tests() -> None:
    """At least twelve mistakes and twelve right ways to write, and none of the known mistakes is never made."""
    right, wrong = cases("RIGHT"), cases("WRONG")
    assert len(right) >= 30 and len({case.values[2] for case in wrong}) >= 50
    made = {(case.values[1], case.values[2]) for case in wrong}
    known = {(kind, f.id) for kind in {c.values[1] for c in right} for p in KINDS[kind].properties for f in p.faults}
    other = [("mas", i) for i in ("steps", "batchnorm", "zero", "accumulated", "last")]
    reused = {("ewc", f.id) for f in (*fisher.FAULTS, *penalty.FAULTS)} | {("ewc", "steps"), *other}
    assert known - made <= reused


# the answers themselves -------------------------------------------------------------------------------------------------------


def masked(subject: str = "fisher") -> Subject:
    return Subject(subject, "f", lambda model, x, y, mask: None)


def test_the_exact_fisher_of_softmax_regression_is_its_closed_form() -> None:
    q = fisher.problems(Subject("fisher", "f", lambda model, x, y: None))[0]
    W, b = (p.detach().double() for p in q.model.parameters())
    p = (q.x.double() @ W.T + b).softmax(1)
    spread = p * (1 - p)
    expected = torch.cat([(spread.T @ q.x.double().square()).flatten(), spread.sum(0)]) / len(q.x)
    torch.testing.assert_close(fisher.right(q), expected)


def test_the_importance_of_a_linear_network_is_its_closed_form() -> None:
    q = mas.problems(Subject("mas", "f", lambda model, x: None))[0]
    W, b = (p.detach().double() for p in q.model.parameters())
    x, f = q.x.double(), q.x.double() @ W.T + b
    torch.testing.assert_close(mas.right(q), torch.cat([2 * (f.abs().T @ x.abs()).flatten(), 2 * f.abs().sum(0)]) / len(x))
    length = torch.cat([x.abs().mean(0).expand_as(W).flatten(), torch.ones(len(b)).double()])
    torch.testing.assert_close(mas.right(q, "outputs"), length)


def test_the_force_of_distillation_is_the_slope_of_the_divergence() -> None:
    """By finite differences of sum q log (q / p) / N."""
    for problem in distillation.problems(masked()):
        q = problem.q(problem.T)

        def loss(z: Tensor, T: float = problem.T, q: Tensor = q) -> Tensor:
            return (q * (q.log() - (z / T).log_softmax(-1))).sum() / len(z)

        z, eps, slope = problem.z.double(), 1e-5, []
        for step in torch.eye(z.numel()).double().view(-1, *z.shape) * eps:
            slope.append((loss(z + step) - loss(z - step)) / (2 * eps))
        torch.testing.assert_close(distillation.right(problem), torch.stack(slope), rtol=1e-6, atol=1e-9)


def test_the_projection_is_the_closest_allowed_direction() -> None:
    for q in agem.problems(masked()):
        g, ref, _ = (v.numpy() for v in q.d)
        allowed = {"type": "ineq", "fun": lambda z, ref=ref: z @ ref}
        found = minimize(lambda z, g=g: ((z - g) ** 2).sum() / 2, np.zeros(len(g)), constraints=allowed, tol=1e-12)
        np.testing.assert_allclose(agem.right(q).numpy(), found.x, atol=1e-5)


def test_the_share_in_the_fall_of_the_loss_by_hand() -> None:
    """Two steps of one parameter: -(2 (-1) + 1 (-0.5)) = 2.5, over 1.5^2 + 0.25; and one with a negative share."""
    thetas = torch.tensor([[3.0, 0.0], [2.0, 1.0], [1.5, 0.5]])
    gradients = torch.tensor([[2.0, 1.0], [1.0, 0.5]])
    q = si.Problem(thetas, gradients, gradients, 0.1, 0.25)
    assert si.right(q).tolist() == [2.5 / 2.5, 0.0] and si.right(q, "keep").tolist() == [1.0, (-1 + 0.25) / 0.5]
    assert all((problem.path(problem.gradients) < 0).any() for problem in si.problems(masked()))


def test_the_loss_of_replay_is_that_of_the_package() -> None:
    """The gradient of ER's loss with lam = 1."""
    for q in replay.problems(masked()):
        net, theta = clbook.Net(lambda q=q: copy.deepcopy(q.model)), theta_of(q.model)
        task, row = torch.full((len(q.x),), q.k), torch.zeros(len(q.x)).long()
        old = Batch(q.x_old, q.y_old, q.mask_old, task, row)
        batch = Batch(q.x, q.y, q.mask, task, row, old=old)
        slope = torch.func.grad(lambda t, net=net, batch=batch: methods.ER().loss(net, t, {}, batch))(theta)
        torch.testing.assert_close(replay.right(q).float(), slope, rtol=1e-4, atol=1e-5)


MULTIPLES = {"mean-over-classes", "times-T", "over-T-squared", "no-lam"}  # of the right answer, and mistakes all the same
PROPERTIES = [(p, kind) for kind, k in KINDS.items() if kind != "method" for p in k.properties]


@pytest.mark.parametrize(("prop", "kind"), PROPERTIES, ids=[p.id for p, _ in PROPERTIES])
def test_no_two_mistakes_give_the_same_answer(prop: Property, kind: str) -> None:
    """Neither each other's nor a right one, and where a factor is free, no multiple either."""
    problems = prop.problems(Subject(kind, "f", carriers.Separate if kind == "ewc" else masked().target))
    unmasked = kind == "ewc"
    answers = [("right", [formula(q).double() for q in problems]) for _, formula in prop.answers({})]
    for f in prop.faults:
        if f.formula is not None and not (unmasked and f.id == "all-outputs"):
            answers.append((f.id, [f.formula(q).double() for q in problems]))
    for (one, a), (two, b) in itertools.combinations(answers, 2):
        if one != two:
            assert fit(a, b) > 10 * CLOSE, (one, two)
            if prop.scale and not {one, two} & {"zero", *MULTIPLES}:
                found = scaled(a, b, problems, prop.scales)
                assert found is None or found[0].startswith("-"), (one, two)


# what the book says of them ---------------------------------------------------------------------------------------------------

FAULTS = [(k, f) for k, kind in KINDS.items() for p in kind.properties for f in p.faults]


def headings(page: str) -> list[str]:
    path = ROOT / f"{page}.md"
    if path.exists():
        text = path.read_text(encoding="utf-8")
    else:
        text = "\n".join("".join(c["source"]) for c in json.loads((ROOT / f"{page}.ipynb").read_text())["cells"])
    return re.findall(r"^#+ (.+)$", text, flags=re.M)


def test_every_section_exists() -> None:
    sections = {f.section for _, f in FAULTS} | {p.section for k in KINDS.values() for p in k.properties}
    assert len(sections) > 8
    for section in sections:
        assert section.heading in headings(section.page), str(section)


def test_every_fault_says_what_it_is_and_what_it_means() -> None:
    for kind, f in FAULTS:
        if f.tells is None and f.formula is None:
            continue
        assert f.says and f.means[0].isupper() and f.means.endswith((".", ")")), (kind, f.id, f.means)
        assert all(re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+", a) for a in f.seen), f.seen


# methods of the package's own kind --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["DERpp", "EWC", "HAT", "LwF", "PackNet", "RWalk", "SI"])
def test_methods_of_the_package_are_all_right(name: str) -> None:
    assert name in catalogue.NAMES
    report = check(catalogue.example(name))
    assert report.status == 0, str(report)
    assert [f.id for f in report.findings if f.verdict == "convention"] == (["method.memory"] if name == "RWalk" else [])


@pytest.mark.parametrize(("method", "said"), wrong_methods.WRONG.items(), ids=lambda v: getattr(v, "label", v))
def test_a_method_that_breaks_the_rules_is_named(method: Any, said: str) -> None:
    report = check(method)
    assert (report.faults, report.status) == ([said], 1), str(report)


def test_memory_that_is_not_declared_is_noted() -> None:
    (note,) = [note for f in check(wrong_methods.NOTED).findings for note in f.notes]
    assert "training depends on old of the state, and `keeps` does not name it" in note


# files ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(textwrap.dedent(text))
        return path

    return write


RIGHT = "def project(g, g_ref):\n    dot = g @ g_ref\n    return g - dot / (g_ref @ g_ref) * g_ref if dot < 0 else g\n"
TROUBLE = {
    "def project(g, g_ref)\n    return g\n": r"mine\.py, line 1: expected ':': def project\(g, g_ref\)",
    "import torch\n\nx = troch.zeros(3)\n": r"it stopped at mine\.py, line 3: NameError: name 'troch' is not defined",
    "def foo(a):\n    return a\n": r"nothing in it has a name that is known here \(fisher, .*; it has foo\. Say which",
    "": "it has no function of its own",
    "while True:\n    pass\n": "it took longer than 1 seconds while it was being read",
    "def project(g, g_ref):\n    while True:\n        pass\n": "it took longer than 1 seconds while it was being checked",
    "import os\nos._exit(3)\n": r"the file ended the process by itself while it was being read \(exit status 3\)",
    "def project(g, g_ref):\n    import os\n    os._exit(0)\n": "ended the process by itself while it was being checked",
    "import sys\nsys.exit()\n": r"it calls exit at mine\.py, line 2",
    "x = '\0'\n": "it is no Python file|source code",
}


@pytest.mark.parametrize("text", TROUBLE)
def test_a_file_that_cannot_be_run_is_told_in_a_line(text: str, written: Callable[[str], Path]) -> None:
    report = check_file(written(text), limit=1)
    assert re.search(TROUBLE[text], report.trouble), report.trouble
    assert report.status == 2 and str(report).count("\n") == 0 and "Traceback" not in str(report)


CANNOT = {
    "def project(g, memory):\n    return g\n": r"project asks for 'memory', which is not known here; it can ask for g,",
    "def project(g, g_ref):\n    return g @ g_ref[:2]\n": r"project stopped at mine\.py, line 2: RuntimeError",
    "def project(g, g_ref):\n    return None\n": r"project must return a gradient, a vector \[6\]; it returned None",
    "def fisher(model, x, y):\n    return {'weight': x}\n": r"fisher returns a dictionary without 'bias'; it has \['weight'\]",
    "def fisher(model, x, y):\n    return 3.0\n": "fisher must return one number for each parameter",
    "def penalty(model):\n    return model\n": "penalty must return one number, the loss",
    "def fisher(model):\n    pass\nfisher.reduction = 'average'\n": "reduction must be 'mean' or 'sum', got 'average'",
    "class EWC:\n    pass\n": r"EWC must have a method that is told of a finished task, after_task\(model, x, y\)",
    "from clbook import Spring\nclass Mine(Spring):\n    pass\n": "Mine must say how stiff its springs are",
}


@pytest.mark.parametrize("text", CANNOT)
def test_a_function_that_cannot_be_asked_is_told_in_a_line(text: str, written: Callable[[str], Path]) -> None:
    with users_meet_it():
        report = check_file(written(text))
    (finding, *_) = report.findings
    assert finding.verdict == "error" and re.search(CANNOT[text], finding.this_is), finding.this_is
    assert report.status == 2 and "Traceback" not in str(report)


def test_several_things_in_one_file_are_told_apart(written: Callable[[str], Path]) -> None:
    other = "\n\ndef distillation(new_outputs, old_outputs, T):\n    return (new_outputs * 0).sum()\n"
    report = check_file(written(RIGHT + other))
    found = [(name, kind, line) for name, kind, line, _ in report.checked]
    assert found == [("project", "agem", 1), ("distillation", "distillation", 6)]
    assert report.faults == ["self"] and report.status == 1
    assert [f.verdict for f in report.findings] == ["right", "fault"]


def test_a_function_of_another_name_can_be_named(written: Callable[[str], Path]) -> None:
    path = written(RIGHT.replace("project", "bend"))
    assert check_file(path).status == 2
    assert check_file(path, only=("agem:bend",)).status == 0
    assert "there is no 'bent' in it; it has bend" in check_file(path, only=("agem:bent",)).trouble
    assert "--as takes KIND:NAME" in check_file(path, only=("bend",)).trouble


@pytest.mark.parametrize("kind", KINDS)
def test_every_template_is_right(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"my_{kind}.py"
    path.write_text(template(kind))
    report = check_file(path)
    assert report.status == 0 and not any(f.notes for f in report.findings if f.id != "method.importance"), str(report)
    assert path.name in template(kind)


def test_the_command_line(written: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = written(RIGHT.replace("g - dot", "g + dot"))
    assert main(["check", str(path)]) == 1
    said = capsys.readouterr()
    assert "this is   plus: the projection is added" in said.out and said.err == ""
    assert main(["check", str(path), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["status"] == 1 and data["faults"] == ["plus"] and data["checked"][0]["line"] == 1
    assert str(Report.of(data)) == said.out.rstrip("\n") and Report.of(data).data == data
    path.write_text(RIGHT)
    assert main(["check", str(path)]) == 0
    assert main(["check", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n{kind}: " in listed for kind in KINDS)
    assert main(["check", "--template", "mas"]) == 0
    assert capsys.readouterr().out == template("mas")
    wrong = {"nowhere.py": "there is no file 'nowhere.py'", "": "check needs a file", "--template x": "unknown kind 'x'"}
    for words, part in wrong.items():
        assert main(["check", *words.split()]) == 2
        assert part in capsys.readouterr().err


def test_in_a_notebook_a_convention_is_declared_by_keyword() -> None:
    assert check(fishers.undeclared_empirical, kind="fisher", estimator="empirical").findings[0].verdict == "right"
    assert check(fishers.exact_by_backward, kind="fisher", estimator="empirical").faults == ["declared"]
    with refused("fisher has no convention 'half'; it has estimator, reduction, mode"):
        check(fishers.exact_by_backward, kind="fisher", half=True)
    with refused("unknown kind None: give kind="):
        check(fishers.exact_by_backward)
    state = torch.random.get_rng_state()
    check(fishers.sampled_labels, kind="fisher")
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("function", penalties.COPIES)
def test_a_copy_is_a_copy(function: Code) -> None:
    assert check(function, "remember").status == 0


@pytest.mark.parametrize(("function", "said"), penalties.NO_COPIES.items())
def test_what_is_no_copy_is_named(function: Code, said: str) -> None:
    assert check(function, "remember").faults == [said]


def test_how_several_springs_are_carried_on_is_noted() -> None:
    for function, said in carriers.NOTED_LATER.items():
        first, second = check(function, "ewc").findings[:2]
        assert first.verdict == "right" and second.verdict == "convention" and said in second.notes[0]


# the page ---------------------------------------------------------------------------------------------------------------------

PAGE = (ROOT / "book" / "check.md").read_text(encoding="utf-8")


def test_the_session_on_the_page_is_what_the_command_prints(tmp_path: Path) -> None:
    (example,) = re.findall(r"```\{code-block\} python\n:caption: my_ewc.py\n\n(.*?)\n```", PAGE, flags=re.S)
    (shown,) = re.findall(r"```text\n(.*?)\n```", PAGE, flags=re.S)
    path = tmp_path / "my_ewc.py"
    path.write_text(f"{example}\n")
    rounded = lambda text: re.sub(r"fits to [\de-]+", "fits", text)  # noqa: E731
    assert rounded(str(check_file(path))) == rounded(shown)


def test_and_once_mended_it_is_all_right(tmp_path: Path) -> None:
    """As the text says: single samples, a copy, and a declared half."""
    (example,) = re.findall(r"```\{code-block\} python\n:caption: my_ewc.py\n\n(.*?)\n```", PAGE, flags=re.S)
    mended = example.replace("p.data for", "p.detach().clone() for")
    mended = mended.replace("model.eval()", "was = model.training\n    model.eval()")
    mended = mended.replace("for x, y in loader:", "for x, y in [(x[None], y[None]) for a, b in loader for x, y in zip(a, b)]:")
    mended = mended.replace("/ len(loader)", "").replace("return F\n", "model.train(was)\n    return F\n")
    path = tmp_path / "my_ewc.py"
    path.write_text(f'{mended}\n\n\npenalty.half = False\nfisher.estimator, fisher.reduction = "empirical", "sum"\n')
    report = check_file(path)
    assert (report.status, [f.verdict for f in report.findings]) == (0, ["right"] * 4), str(report)


def plain(text: str) -> str:
    """Words without the marks of Markdown."""
    return re.sub(r"\\([*|_$<])", r"\1", text)


def test_the_lists_of_the_page_hold_every_mistake_with_its_own_words_and_sources() -> None:
    rows: dict[tuple[str, str], str] = {}  # two kinds may say the same
    for name, says, more in re.findall(r"^`([\w-]+)`\n: (.+?)\. See (.+)\.$", PAGE, flags=re.M):
        rows[name, plain(says)] = rows.get((name, plain(says)), "") + more
    words = {(f.id, f.says) for _, f in FAULTS}
    assert set(rows) <= words
    assert {f.id for _, f in FAULTS} - {name for name, _ in rows} <= METHOD_ONLY
    for _, f in FAULTS:
        if (f.id, f.says) in rows:
            assert all(f"({address})" in rows[f.id, f.says] for address in f.seen), f.id


METHOD_ONLY = {f.id for kind, f in FAULTS if kind == "method"}


def test_the_page_holds_every_kind_and_every_convention() -> None:
    for kind in KINDS.values():
        assert f"| {kind.says} | `{kind.example}` |" in PAGE
        for prop in kind.properties:
            for convention in prop.conventions:
                for choice in convention.choices[1:]:
                    assert choice.value == "sampled" or f"`{convention.name} = {choice.value!r}`" in PAGE
