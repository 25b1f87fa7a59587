"""The quizzes of the chapters, in a notebook: `quiz("ewc")` asks, `quiz("ewc", 1, "b")` answers. Book: book/teaching.

The questions are written in book/quizzes, one YAML file a chapter, for the pages of the book. What an installed package needs
of them is quizzes.json beside this file, which `python book/_ext/quiz.py` makes of the YAML by one rule, `plain`. So neither a
notebook nor a plain install needs a library for YAML.
"""

from __future__ import annotations

import json
import re
import string
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clbook.checks import Count, InputError, checked, short

Text = Annotated[str, Field(min_length=1)]
LETTERS = string.ascii_lowercase
STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


class Answer(BaseModel):
    """One answer that can be chosen, whether it is right, and why or why not."""

    model_config = STRICT
    text: Text
    why: Text
    right: bool = False


class Question(BaseModel):
    """A question and its answers, of which at least one is right and one is wrong."""

    model_config = STRICT
    ask: Text
    answers: Annotated[list[Answer], Field(min_length=2, max_length=6)]

    @model_validator(mode="after")
    def _can_be_answered(self) -> Question:
        texts = [answer.text for answer in self.answers]
        if twice := [text for text in texts if texts.count(text) > 1]:
            raise ValueError(f"the answer {short(twice[0])} stands there twice")
        if not self.right or len(self.right) == len(texts):
            raise ValueError(f"needs a right answer (right: true) and a wrong one, has {len(self.right)} right of {len(texts)}")
        return self

    @property
    def right(self) -> str:
        """The letters of the right answers."""
        return "".join(letter for letter, answer in self.lettered if answer.right)

    @property
    def lettered(self) -> list[tuple[str, Answer]]:
        return list(zip(LETTERS, self.answers, strict=False))


class Quiz(BaseModel):
    """Four to six questions on one chapter."""

    model_config = STRICT
    title: Text
    questions: Annotated[list[Question], Field(min_length=4, max_length=6)]


def checked_quiz(data: Any, source: str) -> Quiz:
    """The quiz in plain values such as those of a YAML file.

    Raises:
        InputError: something is missing, unknown or of the wrong kind. The message names the place in `source` and quotes it.
    """
    try:
        return Quiz.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        said = {"extra_forbidden": "is not known here: a quiz has title and questions, a question ask and answers, an answer "
                "text, why and right", "missing": "is missing"}.get(first["type"])  # fmt: skip
        said = said or first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        quoted = "" if first["type"] in ("missing", "value_error") else f", got {short(first['input'])}"
        raise InputError(f"{source}: {_place(first['loc'])}{said}{quoted}") from None


def _place(loc: tuple[int | str, ...]) -> str:
    """("questions", 1, "answers", 2, "why") as a reader counts: question 2, answer c, why."""
    words = []
    for key, at in zip(loc, [*loc[1:], ""], strict=False):
        if isinstance(key, int):
            continue
        if key == "questions" and isinstance(at, int):
            words.append(f"question {at + 1}")
        elif key == "answers" and isinstance(at, int):
            words.append(f"answer {LETTERS[at]}")
        else:
            words.append(key)
    return f"{', '.join(words)} " if words else ""


ROLE = re.compile(r"\{(?P<role>[\w:]+)\}`(?P<content>[^`]*)`")


def plain(text: str) -> str:
    """A text of the book as plain Markdown, for a notebook: links become their words, lines are joined.

    {ref}`some words <label>`, {doc} and {term} are their words, and {eq}`label` is "(label)". Formulas, code and quotes stay.

    Raises:
        InputError: another role, or a link without words, whose words only the book knows.
    """

    def words(match: re.Match[str]) -> str:
        role, content = match["role"], match["content"].strip()
        title = re.fullmatch(r"(.+?)\s*<[^<>]+>", content, flags=re.S)
        if role == "eq":
            return f"({content})"
        if role in ("ref", "doc", "term") and (title or role == "term"):
            return title[1] if title else content
        raise InputError(
            f"{match[0]!r} has no words for a notebook: write {{ref}}, {{doc}} or {{term}} with words, as in "
            "{ref}`the section on steps <ewc-step>`, or {eq}"
        )

    return " ".join(ROLE.sub(words, text).split())


def plain_quiz(quiz: Quiz) -> dict[str, Any]:
    """A quiz of the book as quizzes.json has it."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: convert(v) for key, v in value.items()}
        if isinstance(value, list):
            return [convert(v) for v in value]
        return plain(value) if isinstance(value, str) else value

    return convert(quiz.model_dump())


@cache
def quizzes() -> dict[str, Quiz]:
    """Every quiz of the book by its name, in the order of the book."""
    text = files("clbook.course").joinpath("quizzes.json").read_text(encoding="utf-8")
    return {name: checked_quiz(data, f"quizzes.json, {name}") for name, data in json.loads(text).items()}


@dataclass(frozen=True)
class Shown:
    """Markdown, which a notebook shows with its formulas and which prints as it is."""

    markdown: str

    def _repr_markdown_(self) -> str:
        return self.markdown

    def __str__(self) -> str:
        return self.markdown

    __repr__ = __str__


@checked
def quiz(name: str | None = None, number: Count | None = None, answer: str | None = None) -> Shown:
    """The questions of a chapter, or what is right and wrong about an answer.

    `quiz()` lists the quizzes, `quiz("ewc")` asks all questions of one and `quiz("ewc", 2)` its second question;
    `quiz("ewc", 2, "b")` says whether b is right, and why. Where several answers are right give all of them: "ac".

    Raises:
        InputError: there is no such quiz, question or answer.
    Book: book/teaching.
    """
    if name is None:
        rows = [f"* `quiz({n!r})` {q.title}, {len(q.questions)} questions" for n, q in quizzes().items()]
        return Shown("\n".join(rows).replace("'", '"'))
    if name not in quizzes():
        raise InputError(f"there is no quiz {short(name)}: choose one of {', '.join(quizzes())}")
    questions = quizzes()[name].questions
    if number is None:
        return Shown("\n\n".join(_asked(name, n, len(questions), q) for n, q in enumerate(questions, 1)))
    if number > len(questions):
        raise InputError(f"the quiz {name!r} has no question {short(number)}: its questions are 1 to {len(questions)}")
    question = questions[number - 1]
    return Shown(_asked(name, number, len(questions), question) if answer is None else _judged(question, answer))


def _asked(name: str, number: int, of: int, question: Question) -> str:
    several, example = (" Several answers are right.", "ac") if len(question.right) > 1 else ("", "b")
    rows = [f"**Question {number} of {of}.** {question.ask}{several}", ""]
    rows += [f"* **{letter}** {answer.text}" for letter, answer in question.lettered]
    return "\n".join([*rows, "", f'Your answer: `quiz("{name}", {number}, "{example}")`, for example.'])


def _judged(question: Question, given: str) -> str:
    chosen = re.sub(r"[\s,;]+", "", given.lower())
    known = LETTERS[: len(question.answers)]
    if not chosen or set(chosen) - set(known):
        raise InputError(f"the answer {short(given)} is not there: give one or several of the letters {', '.join(known)}")
    verdict = "Right." if set(chosen) == set(question.right) else "Not quite." if set(chosen) & set(question.right) else "No."
    rows = [f"* **{x}** is {'right' if a.right else 'wrong'}. {a.why}" for x, a in question.lettered if x in chosen]
    missing = len(set(question.right) - set(chosen))
    if missing and set(chosen) <= set(question.right):
        rows.append(f"* {missing} right answer{'s are' if missing > 1 else ' is'} still missing.")
    return "\n".join([f"**{verdict}**", "", *rows])
