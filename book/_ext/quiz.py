"""The directive `quiz`: the questions of a chapter, from book/quizzes/NAME.yml, with an explanation for every answer.

    ```{quiz} ewc
    ```

Each question is a group of radio buttons, or of boxes where several answers are right. The script book/_static/quiz.js checks
a choice and shows the explanations of what was chosen; without scripts, and on paper, all of them stand in a folded block.

The same questions for notebooks are made by `python book/_ext/quiz.py`, which writes clbook/course/quizzes.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from clbook.checks import InputError
from clbook.course.quiz import Question, Quiz, checked_quiz, plain_quiz

BOOK = Path(__file__).parents[1]
FOLDER = BOOK / "quizzes"
PACKAGED = BOOK.parent / "clbook" / "course" / "quizzes.json"
CHAPTERS = (
    "forgetting", "ewc", "springs", "lwf", "mas", "regularisation", "models", "replay", "memory", "neurons", "fixed", "summary",
    "finetuning", "plasticity", "streams",
)  # fmt: skip


def load(file: Path) -> Quiz:
    """The quiz in a YAML file. Raises InputError, which names the file, the place in it and what stands there."""
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(f.stem for f in file.parent.glob("*.yml")))
        raise InputError(f"there is no quiz {file.stem!r}: those of book/quizzes are {known}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{file.name} is no YAML: {' '.join(str(error).split())}") from None
    return checked_quiz(data, file.name)


def packaged(folder: Path = FOLDER) -> str:
    """What clbook/course/quizzes.json holds."""
    quizzes = {name: plain_quiz(load(folder / f"{name}.yml")) for name in CHAPTERS}
    return json.dumps(quizzes, indent=1, ensure_ascii=False) + "\n"


# Pages -----------------------------------------------------------------------------------------------------------------


class Block(nodes.Element):
    """An HTML element that docutils has no node for: its name in `tag`, its attributes in `named`."""


class Line(nodes.TextElement):
    """One that holds words and links. Quotation marks are opened and closed within it."""


WITH_WORDS = ("legend", "li", "span", "strong", "summary")


def tag(name: str, /, *children: nodes.Node, **attributes: str) -> Block | Line:
    named = {key.replace("_", "-"): value for key, value in attributes.items() if key != "class_"}
    kept = {"tag": name, "named": named, "classes": attributes.get("class_", "").split()}
    return Line("", "", *children, **kept) if name in WITH_WORDS else Block("", *children, **kept)


def visit(translator: Any, node: Block | Line) -> None:
    write = translator.emptytag if node["tag"] == "input" else translator.starttag
    translator.body.append(write(node, node["tag"], "", **node["named"]))


def depart(translator: Any, node: Block | Line) -> None:
    if node["tag"] != "input":
        translator.body.append(f"</{node['tag']}>")


def no_tag(translator: Any, node: Block | Line) -> None:
    """Where there is no HTML, only what stands within."""


class QuizDirective(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        (name,) = self.arguments
        file = Path(self.env.srcdir) / "book" / "quizzes" / f"{name}.yml"
        self.env.note_dependency(str(file))
        try:
            quiz = load(file)
        except InputError as error:
            raise self.error(str(error)) from None
        questions = [self.question(name, n, question) for n, question in enumerate(quiz.questions, 1)]
        return [tag("div", *questions, class_="quiz")]

    def question(self, name: str, number: int, question: Question) -> Block | Line:
        several = len(question.right) > 1
        where = f"{name}.yml, question {number}"
        hint = [tag("span", nodes.Text(" Several answers are right."), class_="quiz-several")] if several else []
        legend = tag("legend", *self.line(question.ask, where), *hint)
        choices, reasons = [], []
        for letter, answer in question.lettered:
            text = self.line(answer.text, f"{where}, answer {letter}", linked=False)
            box = tag("input", type="checkbox" if several else "radio", name=f"quiz-{name}-{number}", value=letter)
            mark = tag("span", nodes.Text(f"{letter})"), class_="quiz-letter")
            choices.append(tag("label", box, mark, tag("span", *text), class_="quiz-answer"))
            verdict = tag("strong", nodes.Text(f"{letter}) {'Right.' if answer.right else 'Wrong.'}"))
            why = self.line(answer.why, f"{where}, why of answer {letter}")
            verdict_class = "quiz-right" if answer.right else "quiz-wrong"
            reasons.append(tag("li", verdict, nodes.Text(" "), *why, class_=verdict_class, data_answer=letter))
        folded = tag("details", tag("summary", nodes.Text("All answers")), tag("ul", *reasons), class_="quiz-answers")
        said = tag("div", role="status", class_="quiz-said")
        return tag("fieldset", legend, *choices, said, folded, class_="quiz-question")

    def line(self, text: str, where: str, linked: bool = True) -> list[nodes.Node]:
        """The one paragraph that a text of the quiz is. A label holds no links, since it is itself to be clicked."""
        body = nodes.Element()
        self.state.nested_parse(StringList(text.splitlines(), source=where), 0, body)
        if len(body) != 1 or not isinstance(body[0], nodes.paragraph):
            raise self.error(f"{where} must be one paragraph without lists, headings or directives, got {text!r}")
        if not linked and any(body.findall(lambda n: isinstance(n, nodes.reference | pending_xref))):
            raise self.error(f"{where} must hold no link, since it is itself to be clicked, got {text!r}")
        return list(body[0].children)


def add_files(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Script and style, where there is a question."""
    if doctree is not None and any(held(doctree)):
        app.add_css_file("quiz.css")
        app.add_js_file("quiz.js", loading_method="defer")


def held(doctree: nodes.document) -> Iterator[Block]:
    return (node for node in doctree.findall(Block) if "quiz" in node["classes"])


def setup(app: Sphinx) -> dict[str, bool]:
    for node in (Block, Line):
        app.add_node(node, html=(visit, depart), latex=(no_tag, no_tag), text=(no_tag, no_tag), man=(no_tag, no_tag))
    app.add_directive("quiz", QuizDirective)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    PACKAGED.write_text(packaged(), encoding="utf-8")
    print(PACKAGED.relative_to(BOOK.parent))
