"""The quizzes say what is true, whatever their texts hold comes out as it is written, and a notebook asks what a page asks."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pages import ROOT

import clbook
from clbook.checks import InputError
from clbook.course import quiz as ask
from clbook.course.quiz import Quiz, checked_quiz, plain, quizzes
from clbook.lab import experiments, language
from clbook.method import merge
from clbook.methods.gem import project, project_all

YES, NO = {"text": "yes", "why": "It is.", "right": True}, {"text": "no", "why": "It is not."}
QUESTION = {"ask": "Is it?", "answers": [YES, NO]}
NOWHERE = ("{numref}`fig-x`", "{ref}`ewc-step`", "{cite:t}`kirkpatrick2017overcoming`", "{doc}`/book/ewc`")


def of(*answers: dict[str, Any]) -> dict[str, Any]:
    return {"ask": "Is it?", "answers": list(answers)}


def four(*questions: dict[str, Any]) -> dict[str, Any]:
    return {"title": "On a thing", "questions": [*questions, *[QUESTION] * (4 - len(questions))]}


# What a quiz may be ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "my.yml: must be"),
        ({"questions": [QUESTION] * 4}, "my.yml: title is missing"),
        (four() | {"author": "me"}, "my.yml: author is not known here.*got 'me'"),
        (four() | {"questions": [QUESTION] * 3}, "my.yml: questions .*at least 4 items"),
        (four() | {"questions": [QUESTION] * 7}, "my.yml: questions .*at most 6 items"),
        (four({"ask": "Is it?"}), "question 1, answers is missing"),
        (four(QUESTION, {**QUESTION, "ask": 7}), "question 2, ask must be a valid string, got 7"),
        (four(QUESTION, {**QUESTION, "ask": ""}), "question 2, ask .*at least 1 character, got ''"),
        (four(of(YES, {"text": "no"})), "question 1, answer b, why is missing"),
        (four(of(YES, {**NO, "rigth": False})), "question 1, answer b, rigth is not known here.*got False"),
        (four(of(YES, {**NO, "right": "no"})), "question 1, answer b, right must be.*got 'no'"),
        (four(of(NO, {**NO, "text": "x"})), "question 1 needs a right answer .*0 right of 2"),
        (four(of(YES, {**YES, "text": "x"})), "question 1 needs .* wrong one, has 2 right of 2"),
        (four(of(YES, NO, YES)), "question 1 the answer 'yes' stands there twice"),
    ],
)  # fmt: skip
def test_what_is_no_quiz_is_refused_with_its_place_and_its_value(data: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        checked_quiz(data, "my.yml")


def test_what_is_a_quiz_is_taken() -> None:
    assert checked_quiz(four(), "my.yml").questions[0].right == "a"


# In a notebook -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Where $a<b$ & "c" is `d`, it\'s\n  so.', 'Where $a<b$ & "c" is `d`, it\'s so.'),
        ("by {eq}`eq-ewc-prox` and {term}`replay`", "by (eq-ewc-prox) and replay"),
        ("{term}`EWC <elastic weight consolidation>` in {ref}`a step <ewc-step>`", "EWC in a step"),
        ("see {doc}`the page\n  on it </book/ewc>`", "see the page on it"),
        (r"$\begin{pmatrix}1&1\\1&1\end{pmatrix}$", r"$\begin{pmatrix}1&1\\1&1\end{pmatrix}$"),
        (r"$\mathrm{x}`$", r"$\mathrm{x}`$"),
    ],
)
def test_a_text_of_the_book_becomes_plain_markdown(text: str, expected: str) -> None:
    assert plain(text) == expected


@pytest.mark.parametrize("text", NOWHERE)
def test_what_has_no_words_for_a_notebook_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"{re.escape(text)}.* has no words"):
        plain(f"See {text}.")


def test_the_questions_of_a_plain_install_are_those_of_the_pages() -> None:
    yaml = pytest.importorskip("yaml")  # the book's, and not the package's
    pages = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in (ROOT / "book" / "quizzes").glob("*.yml")}
    assert set(pages) == set(quizzes())
    for name, page in pages.items():
        packaged = quizzes()[name]
        assert packaged.title == page["title"] and len(packaged.questions) == len(page["questions"])
        for here, there in zip(packaged.questions, page["questions"], strict=True):
            assert here.ask == plain(there["ask"]), f"{name}: run python book/_ext/quiz.py"
            assert [a.text for a in here.answers] == [plain(a["text"]) for a in there["answers"]]
            assert [a.why for a in here.answers] == [plain(a["why"]) for a in there["answers"]]
            assert [a.right for a in here.answers] == [a.get("right", False) for a in there["answers"]]


def test_a_quiz_is_asked_and_answered() -> None:
    asked = str(ask("ewc", 2))
    assert asked.startswith("**Question 2 of 6.** The labels of the old data are lost")
    assert "Several answers are right." in asked and '* **a** `"exact"`' in asked
    examples = {re.search(r'answer: `quiz\("\w+", \d, ("\w+")\)`', str(ask(n, 1)))[1] for n in quizzes()}
    assert examples <= {'"b"', '"ac"'}, "the same for all questions, so that it gives nothing away"
    assert "label of the data occurs" not in asked, "no explanation before an answer"
    assert str(ask("ewc")).count("**Question ") == 6

    assert str(ask("ewc", 2, "ab")).startswith("**Right.**")
    some = str(ask("ewc", 2, "b"))
    assert some.startswith("**Not quite.**") and "1 right answer is still missing." in some and "**a**" not in some
    mixed = str(ask("ewc", 2, "B, c"))
    assert mixed.startswith("**Not quite.**") and "**c** is wrong. It squares the gradients" in mixed and "missing" not in mixed
    assert str(ask("ewc", 2, "d")).startswith("**No.**")
    assert ask("ewc", 1)._repr_markdown_() == str(ask("ewc", 1)) == repr(ask("ewc", 1))
    assert all(f'quiz("{name}")' in str(ask()) for name in quizzes())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ecw",), "no quiz 'ecw': choose one of forgetting, ewc"),
        (("ewc", 7), "no question 7: its questions are 1 to 6"),
        (("ewc", 0), "number .*greater than or equal to 1.*got 0"),
        (("ewc", "1"), "number .*got '1'"),
        (("ewc", True), "number .*got True"),
        (("ewc", 1, "e"), "answer 'e' is not there: .*a, b, c, d"),
        (("ewc", 1, ""), "answer '' is not there"),
        (("ewc", 1, 2), "answer .*got 2"),
    ],
)
def test_what_is_not_there_is_named(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ask(*arguments)


# On a page ---------------------------------------------------------------------------------------------------------------

STRANGE = four(
    {
        "ask": '"Quoted" & is "$a<b$" & `x < y && z` the same as <b>this</b>, by {eq}`eq-strange` in {ref}`here <strange>`?',
        "answers": [
            {
                "text": "It's \"so\": `<script>alert('&')</script>` & $\\frac{a}{b} < 1$",
                "why": "See {ref}`here <strange>`.",
                "right": True,
            },
            {"text": "no < yes & *perhaps*", "why": 'Because "no" is `no`.'},
            {"text": r"$\begin{pmatrix}1&2\\3&4\end{pmatrix}$", "why": "Why {eq}`eq-strange` & not?", "right": True},
        ],
    }
)


def built(folder: Path, data: Any, page: str = "```{quiz} strange\n```\n") -> tuple[subprocess.CompletedProcess[str], Path]:
    """A book of two pages, the second without a question, and what the build said."""
    pytest.importorskip("myst_nb")
    (folder / "book" / "quizzes").mkdir(parents=True)
    (folder / "book" / "quizzes" / "strange.yml").write_text(data if isinstance(data, str) else json.dumps(data))
    (folder / "index.md").write_text(
        f"# Text\n\n(strange)=\n## Section\n\n```{{math}}\n:label: eq-strange\nx=1\n```\n\n{page}\n```{{toctree}}\nother\n```\n"
    )
    (folder / "other.md").write_text("# Other\n\nNothing is asked here.\n")
    (folder / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\n"
        "extensions = ['myst_nb', 'quiz']\nmyst_enable_extensions = ['dollarmath']\n"
        f"html_static_path = [{str(ROOT / 'book' / '_static')!r}]\n"
    )
    html = folder / "_build" / "html"
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "--no-color", str(folder), str(html)]
    return subprocess.run(command, capture_output=True, text=True), html


def test_quotes_backticks_formulas_and_marks_come_out_as_they_are(tmp_path: Path) -> None:
    bs4 = pytest.importorskip("bs4")
    done, html = built(tmp_path, STRANGE)
    assert done.returncode == 0, done.stderr
    page, other = (bs4.BeautifulSoup((html / f"{name}.html").read_text(), "html.parser") for name in ("index", "other"))
    questions = page.select(".quiz fieldset")
    assert len(questions) == 4
    first, second = questions[:2]
    legend = first.find("legend")
    assert [c.get_text() for c in legend.find_all("code")] == ["x < y && z"]
    assert legend.select_one(".math").get_text() == r"\(a<b\)" and legend.get_text().startswith("“Quoted” & is “")
    assert [q.legend.get_text() for q in questions[1:]] == ["Is it?"] * 3
    assert [a["href"] for a in legend.find_all("a")] == ["#equation-eq-strange", "#strange"]
    assert "Several answers are right." in legend.get_text() and "Several" not in second.get_text()

    labels = first.find_all("label")
    assert [label.input["type"] for label in labels] == ["checkbox"] * 3 and second.find("input")["type"] == "radio"
    assert len({i["name"] for i in first.find_all("input")}) == 1 != len({i["name"] for i in page.select("input[name^=quiz]")})
    assert labels[0].find("code").get_text() == "<script>alert('&')</script>" and not labels[0].find_all(["script", "a"])
    assert labels[0].select_one(".math").get_text() == r"\(\frac{a}{b} < 1\)"
    assert labels[1].get_text(" ", strip=True) == "b) no < yes & perhaps"
    assert labels[2].select_one(".math").get_text() == r"\(\begin{pmatrix}1&2\\3&4\end{pmatrix}\)"

    folded = first.find("details")
    assert not folded.has_attr("open") and folded.find("summary").get_text() == "All answers"
    reasons = folded.find_all("li")
    assert [(r["data-answer"], "quiz-right" in r["class"]) for r in reasons] == [("a", True), ("b", False), ("c", True)]
    verdicts = [r.get_text(" ", strip=True).split()[1] for r in reasons]
    assert verdicts == ["Right.", "Wrong.", "Right."], "in words, and not by their colour alone"
    assert first.find(role="status").get_text() == ""

    scripts = [s["src"] for s in page.find_all("script", src=True)]
    assert sum("quiz.js" in s for s in scripts) == 1 and any("quiz.css" in link["href"] for link in page.find_all("link"))
    assert not [t for t in other.find_all(["script", "link"]) if "quiz" in (t.get("src") or t.get("href") or "")]


@pytest.mark.parametrize(
    ("data", "page", "said"),
    [
        (four(), "```{quiz} strnage\n```\n", "no quiz 'strnage': those of book/quizzes are strange"),
        (four() | {"titel": "x"}, None, "strange.yml: titel is not known here"),
        (four({**QUESTION, "ask": "One.\n\nTwo."}), None, "question 1 must be one paragraph"),
        (four(of(YES, {**NO, "text": "{ref}`x <strange>`"})), None, "answer b must hold no link"),
    ],
    ids=["unknown", "schema", "two paragraphs", "a link to click"],
)  # fmt: skip
def test_a_quiz_that_cannot_be_stops_the_build(tmp_path: Path, data: Any, page: str | None, said: str) -> None:
    done, _ = built(tmp_path, data, page) if page else built(tmp_path, data)
    assert done.returncode != 0 and said in done.stderr


def test_the_script_runs_from_disk_and_asks_for_nothing() -> None:
    text = (ROOT / "book" / "_static" / "quiz.js").read_text(encoding="utf-8")
    assert not re.search(r"https?:|\bfetch\(|XMLHttpRequest|^import |^export |\beval\(|innerHTML|localStorage", text, re.M)


# What is said ------------------------------------------------------------------------------------------------------------


def chosen(name: str, start: str) -> Any:
    """The question that begins like this."""
    (question,) = [q for q in quizzes()[name].questions if q.ask.startswith(start)]
    return question


def right(name: str, start: str) -> list[str]:
    return [a.text for a in chosen(name, start).answers if a.right]


def test_every_answer_of_every_question_is_explained_in_a_sentence_of_its_own() -> None:
    for name, quiz in quizzes().items():
        assert isinstance(quiz, Quiz) and 4 <= len(quiz.questions) <= 6, name
        whys = [a.why for q in quiz.questions for a in q.answers]
        assert len(set(whys)) == len(whys) and all(len(why.split()) >= 5 and why[-1] in ".)" for why in whys), name


def test_the_right_letters_are_not_always_the_same() -> None:
    letters = [q.right for quiz in quizzes().values() for q in quiz.questions if len(q.right) == 1]
    assert max(letters.count(letter) for letter in "abc") < 0.6 * len(letters)


def test_springs_on_the_toy_of_the_first_chapter() -> None:
    """Which springs lead to a point where both losses are zero: the minima, by solving the normal equations."""
    ones = torch.ones(2, dtype=torch.float64)
    losses = {}
    for name, springs in {"equal": [1.0, 1.0], "first": [1.0, 0.0], "second": [0.0, 1.0]}.items():
        for lam in (0.1, 3.0, 1e6):
            H = torch.outer(ones, ones) + lam * torch.diag(torch.tensor(springs, dtype=torch.float64))
            theta = torch.linalg.solve(H, ones)
            losses[name, lam] = (float(theta[0] ** 2 / 2), float((theta.sum() - 1) ** 2 / 2))
    assert all(losses["first", lam] == pytest.approx((0, 0), abs=1e-9) for lam in (0.1, 3.0, 1e6))
    assert all(losses["second", lam] == pytest.approx((0.5, 0), abs=1e-9) for lam in (0.1, 3.0, 1e6))
    assert losses["equal", 3.0] == pytest.approx(((1 / 5) ** 2 / 2, (3 / 5) ** 2 / 2))
    assert losses["equal", 1e6] == pytest.approx((0, 0.5), abs=1e-5)
    assert right("forgetting", "Take the two losses") == [r"A spring on $\theta_1$ alone, with any $\lambda>0$."]


def test_numbers_of_the_quizzes_that_a_line_computes() -> None:
    assert round((9 * 0.99 + 0.60) / 10, 3) == 0.951
    assert clbook.mlp(784, 10).n_params == 478_409 + 1 and abs(1 - 0.1 * 30) == 2
    assert 2 * 4 * 478_410 == 3_827_280 and 4.5 < 3_827_280 / 784_000 < 5.5
    assert 0.99**2000 == pytest.approx(2e-9, rel=0.1) and round(1 - 0.999**120, 3) == 0.113
    assert 0.1 + 0.9 * 0.99**1000 == pytest.approx(0.1, abs=1e-4) and 0.99**1000 < 1e-4
    sets = lambda T: T * (T - 1) // 2  # noqa: E731
    assert (sets(10), sets(20)) == (45, 190) and round(sets(20) / sets(10)) == 4
    half = math.hypot(5.0, 0.5)
    assert (round(-3 - half), round(-3 + half)) == (-8, 2)
    whole, diagonal = torch.ones(2, 2), torch.eye(2)
    energy = lambda F, *move: float(torch.tensor(move) @ F @ torch.tensor(move)) / 2  # noqa: E731
    assert [energy(F, 1.0, s) for F in (whole, diagonal) for s in (-1.0, 1.0)] == [0, 2, 1, 1]


def test_a_surer_logistic_regression_has_softer_springs() -> None:
    X = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    net = clbook.Net(lambda: torch.nn.Linear(2, 2, bias=False))
    theta = torch.tensor([0.0, 0.0, 1.0, -2.0], dtype=torch.float64)
    soft, softer = (clbook.fisher(net, s * theta, X).sum() for s in (1.0, 2.0))
    assert softer < soft


def test_what_temperature_and_shift_do() -> None:
    v, z = torch.tensor([1.0, 0.0, -2.0]), torch.tensor([0.5, 0.2, 0.1])
    loss = lambda z, T, factor: -factor * ((v / T).softmax(0) * (z / T).log_softmax(0)).sum()  # noqa: E731
    assert float(loss(z, 2.0, 1.0)) == pytest.approx(float(loss(z, 2.0, 4.0) / 4))
    assert float(loss(z + 3.0, 2.0, 1.0)) == pytest.approx(float(loss(z, 2.0, 1.0)))
    for T in (0.5, 1.0, 4.0):
        start = v.clone().requires_grad_()
        assert torch.autograd.grad(loss(start, T, 1000 * T**2), start)[0].abs().max() < 1e-3, "no pull where p = q"
    assert (0.81 / 0.01) ** 0.5 == pytest.approx(9)


def test_a_gem_may_harm_one_old_task() -> None:
    g, g1, g2 = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 3.0]), torch.tensor([-1.0, -1.0])
    assert project(g, (g1 + g2) / 2) @ g2 < 0 <= float(project_all(g, torch.stack([g1, g2])) @ g2) + 1e-5


def test_merged_springs_differ_by_a_constant() -> None:
    a, b, alpha, beta = (torch.tensor([v]) for v in (1.0, 3.0, -5.0, 50.0))
    one = merge({"omega": a, "theta_star": alpha}, b, beta)
    spring = lambda t, omega, rest: omega / 2 * (t - rest) ** 2  # noqa: E731
    two = [spring(t, a, alpha) + spring(t, b, beta) for t in (-9.0, 0.0, 77.0)]
    gap = [both - spring(t, one["omega"], one["theta_star"]) for both, t in zip(two, (-9.0, 0.0, 77.0), strict=True)]
    torch.testing.assert_close(gap[0], gap[1])
    torch.testing.assert_close(gap[0], gap[2])


def test_noise_hurts_class_means_and_not_lda() -> None:
    """A feature of pure noise with a large variance, and plenty of samples."""
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(4000) % 2
    x = torch.stack([y + 0.2 * torch.randn(4000, generator=draw), 100 * torch.randn(4000, generator=draw)], 1).double()
    fit, test = x[:2000], x[2000:]
    mu = torch.stack([fit[y[:2000] == c].mean(0) for c in (0, 1)])
    centred = fit - mu[y[:2000]]
    accuracy = {}
    for name, metric in {"means": torch.eye(2).double(), "LDA": torch.linalg.inv(centred.T @ centred / 2000)}.items():
        far = torch.stack([((test - m) @ metric * (test - m)).sum(1) for m in mu], 1)
        accuracy[name] = float((far.argmin(1) == y[2000:]).double().mean())
    assert accuracy["LDA"] > 0.95 and accuracy["means"] < 0.8


def test_what_the_quizzes_say_of_the_benchmark() -> None:
    ours = {k: float(clbook.metrics.interval(v)[0]) for k, v in experiments.stored("benchmark").ours.items()}
    fixed = {k: float(clbook.metrics.interval(v)[0]) for k, v in experiments.stored("fixed-features").ours.items()}
    split = {k.removeprefix("split "): v for k, v in ours.items()}
    assert 8 < split["class: LwF"] - split["class: fine-tuning"] < 14 and split["class: LwF"] < split["class: ER"] - 30
    assert split["class: progressive networks"] < split["class: fine-tuning"] + 1
    springs = ("EWC", "online EWC", "SI", "MAS", "RWalk", "L2")
    assert split["domain: average of weights"] > max(split[f"domain: {m}"] for m in springs)
    lda = fixed["mnist class: LDA, 2000 random features"]
    trained = [v for k, v in split.items() if k.startswith("class") and "training" not in k]
    assert lda > max(trained)
    assert max(fixed["mnist class: LDA, 100 random features"], fixed["mnist class: LDA, pixels"]) < lda - 5


def words(name: str) -> str:
    return " ".join(
        text for q in quizzes()[name].questions for text in (q.ask, *(w for a in q.answers for w in (a.text, a.why)))
    )


def test_the_quiz_on_fine_tuning_has_the_numbers_of_the_experiments() -> None:
    said, parity, tuned = words("finetuning"), experiments.stored("parity").arrays, experiments.stored("lm-finetuning")
    at = {way: v[:, 1, -1].mean(0) for way, v in parity.items() if v.ndim == 4}  # clothes, parity and KL at the second rate
    kept = [at[way][0] for way in ("labels 0 and 1", "the digit itself", "own right answers")]
    kept += [parity["start"].mean(), *parity["policy gradient"][:, [0, -1], -1, 0].mean(0)]
    assert all(f"{v:.1f} %" in said or f"{v:.1f} and" in said for v in kept), kept
    assert all(f"{at[way][2]:.2f}" in said for way in ("the digit itself", "own right answers"))
    fronts = language.fronts(tuned)
    rows = (("LoRA, rank 4", 0.003), ("all weights", 1e-3), ("all weights", 1e-4), ("averaged with the base", 0.5))
    for family, strength in rows:
        (row,) = (v.mean(0) for v in fronts[family] if np.isclose(v[0, 0], strength))
        assert all(f"{v:.3f}" in said for v in row[1:]), (family, row)


def test_the_quiz_on_plasticity_has_the_numbers_of_the_experiment() -> None:
    said, report = words("plasticity"), experiments.stored("plasticity")
    shown = lambda key: "{:.1f} ± {:.1f}".format(*clbook.metrics.interval(report.ours[key]))  # noqa: E731
    for label in ("SGD", "SGD, lr 0.1", "SGD, lr 0.3", "Adam", "MAS"):
        assert shown(f"{label}: lost") in said, label
    late = {label: report.ours[f"{label}: late"].mean() for label in ("SGD", "SGD, lr 0.3")}
    assert all(f"{v:.1f} %" in said for v in late.values()) and f"{late['SGD'] - late['SGD, lr 0.3']:.1f} points" in said
    found = {(k, v): acc for k in ("EWC", "online EWC") for v, acc, _ in report.arrays[f"search/{k}: lam"]}
    numbers = (found["EWC", 0.1], found["EWC", 10], found["online EWC", 10], report.arrays["search/SGD: lr"][:, 1].max())
    assert all(f"{v:.1f} %" in said for v in numbers)
    assert all(f"{report.arrays[f'kept/{label}'].mean():.1f} %" in said for label in ("SGD", "EWC"))
    first, last = report.arrays["condition/MAS"][[0, -1], 3]
    assert f"from {first:.0f} to {last:.0f}" in said


def test_the_quiz_on_streams_has_the_numbers_of_the_experiments() -> None:
    said, gap, blur = words("streams"), experiments.stored("stability-gap").ours, experiments.stored("streams").ours
    for what, other in (("final", "final"), ("min", "min-ACC")):
        one, two = (gap[f"split: {k}: {what}"] for k in ("DER++", "GEM"))
        assert "{:.1f} ± {:.1f}".format(*np.abs(clbook.metrics.interval(one - two))) in said, other
        assert f"{one.mean():.1f}" in said and f"{two.mean():.1f}" in said
    moments = [gap[f"split: {k}"].mean() for k in ("DER++: anytime", "GEM: anytime", "DER++, half the rate: min")]
    assert all(f"{v:.1f} %" in said for v in moments)
    plain = blur["permuted: 0.5: fine-tuning: final"]
    for label in ("EWC, detector", "EWC, clock"):
        gain = blur[f"permuted: 0.5: {label}: final"] - plain
        assert "{:.1f} ± {:.1f}".format(*clbook.metrics.interval(gain)) in said, label
    ends = [blur["permuted: 0.5: fine-tuning: final"].mean()]
    ends += [blur[f"split: 0.5: {k}: final"].mean() for k in ("ER", "DER++")]
    assert all(f"{v:.1f} %" in said for v in ends)


def test_momentum_can_make_a_share_of_si_negative_and_the_sum_is_the_fall_all_the_same() -> None:
    """A long valley: momentum overshoots across it. The shares are those of very small steps with the full gradient."""
    curvature, theta = torch.tensor([1.0, 25.0], dtype=torch.float64), torch.tensor([3.0, 0.0], dtype=torch.float64)
    velocity, shares, eta = torch.tensor([0.0, 4.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64), 1e-4
    start = float((curvature * theta**2).sum() / 2)
    for _ in range(2000):  # momentum as a velocity that friction slows down
        g = curvature * theta
        velocity = velocity - eta * (g + 0.5 * velocity)
        shares -= g * eta * velocity
        theta = theta + eta * velocity
    fall = start - float((curvature * theta**2).sum() / 2)
    assert shares[1] < 0 < shares[0] and float(shares.sum()) == pytest.approx(fall, abs=0.01)
