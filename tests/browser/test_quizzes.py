"""The quizzes of the pages answer to mouse and keyboard, say what they found to screen readers, and stand without scripts."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from pages import Built
from playwright.sync_api import Browser, Locator, Page
from pypdf import PdfReader

from clbook.course.quiz import quizzes

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome installed, e.g. by apt install chromium")
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
FINDINGS = """options => axe.run({include: [['.quiz']], exclude: [['mjx-container']]}, options).then(r => r.violations
  .flatMap(v => v.nodes.map(n => [v.id, n.html.slice(0, 120), n.failureSummary.slice(0, 200)])))"""


@pytest.fixture
def opened(book: Built, browser: Browser) -> Iterator[Callable[..., Page]]:
    """opened(width, **context): the page on EWC, and no complaint of its scripts at the end."""
    contexts, trouble = [], []

    def open_page(width: int = 1280, **more: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda e: trouble.append(str(e)))
        page.goto((book.html / "book" / "ewc.html").as_uri())
        if more.get("java_script_enabled", True):
            page.wait_for_function("window.MathJax?.startup?.promise")
            page.evaluate("MathJax.startup.promise.then(() => null)")
        return page

    yield open_page
    assert not trouble
    for context in contexts:
        context.close()


def question(page: Page, number: int) -> Locator:
    return page.locator(".quiz-question").nth(number - 1)


def told(question: Locator) -> str:
    """What a screen reader is given to read, in one line."""
    return " ".join(question.get_by_role("status").inner_text().split())


def focus(page: Page) -> str:
    return page.evaluate("[document.activeElement.type, document.activeElement.value].join(' ').trim()")


def test_every_chapter_with_a_quiz_asks_it_at_its_end(book: Built) -> None:
    pages = [p.read_text(encoding="utf-8") for d in ("book", "notebooks") for p in (book.html / d).rglob("*.html")]
    for name, quiz in quizzes().items():
        (page,) = [p for p in pages if f'name="quiz-{name}-1"' in p]
        exercises = max(page.find('class="exercise'), page.find('id="exercises"'))  # of a text, of a notebook
        assert page.count("<fieldset") == len(quiz.questions) and page.index('class="quiz"') > exercises > 0


def test_a_question_is_answered_with_the_keys_alone(opened: Callable[..., Page]) -> None:
    page = opened()
    first = question(page, 1)
    assert told(first) == ""
    first.locator("legend a").first.focus()
    page.keyboard.press("Tab")
    assert focus(page) == "radio a"
    page.keyboard.press("ArrowDown")
    assert focus(page) == "radio b" and first.locator("input:checked").count() == 1
    assert told(first) == "", "going through the answers gives nothing away"
    page.keyboard.press("Tab")
    assert focus(page) == "button"
    page.keyboard.press("Enter")
    assert told(first).startswith("Right. b) Right. It is the only place")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowDown")
    assert told(first) == "", "what is said belongs to the answer that is chosen"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert told(first).startswith("No. c) Wrong.")


def test_several_answers_and_none(opened: Callable[..., Page]) -> None:
    page = opened()
    second = question(page, 2)
    check = second.get_by_role("button", name="Check")
    check.click()
    assert told(second) == "Choose an answer first."
    second.get_by_label("exact").check()
    check.click()
    assert told(second).startswith("Not quite. One right answer is still missing. a) Right.")
    second.get_by_label("sampled").check()
    check.click()
    assert told(second).startswith("Right. a) Right.") and "b) Right." in told(second)
    second.get_by_label("batched").check()
    check.click()
    assert told(second).startswith("Not quite. a) Right.") and "missing" not in told(second)
    assert "d) Wrong." in told(second)


def test_explanations_keep_their_formulas_and_no_id_is_there_twice(opened: Callable[..., Page]) -> None:
    page = opened()
    third = question(page, 3)
    third.get_by_label("Never").check()
    third.get_by_role("button", name="Check").click()
    assert third.locator(".quiz-said mjx-container").count() == 2 and third.locator(".quiz-said a").count() == 1
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id).filter((id) => !/^MJX/.test(id))")
    assert len(ids) == len(set(ids))


def test_a_click_on_a_formula_chooses_its_answer(opened: Callable[..., Page]) -> None:
    page = opened()
    formula = question(page, 5).locator("label mjx-container").nth(1)
    formula.click()
    assert question(page, 5).locator("input:checked").get_attribute("value") == "b"
    assert not page.locator(".quiz mjx-container[tabindex]").count()
    page.set_viewport_size({"width": 700, "height": 900})  # formulas break anew
    page.wait_for_timeout(600)
    assert not page.locator(".quiz mjx-container[tabindex]").count()


def test_without_scripts_the_answers_can_be_unfolded(opened: Callable[..., Page]) -> None:
    page = opened(java_script_enabled=False)
    first = question(page, 1)
    assert not page.locator(".quiz button").count(), "no button that does nothing"
    assert not first.locator(".quiz-answers li").first.is_visible()
    first.get_by_label("posterior").check()
    first.locator("summary").click()
    assert first.locator(".quiz-answers li").all_inner_texts()[1].startswith("b) Right.")


def test_on_paper_stand_the_questions_and_all_answers(opened: Callable[..., Page]) -> None:
    page = opened()
    question(page, 1).locator("input").first.check()
    question(page, 1).get_by_role("button", name="Check").click()
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert (
        not question(page, 1).locator(".quiz-check").is_visible() and not question(page, 1).locator(".quiz-said").is_visible()
    )
    words = " ".join("".join(p.extract_text() for p in PdfReader(io.BytesIO(page.pdf())).pages).split())
    for letter, verdict in zip("abcd", ("Wrong", "Right", "Wrong", "Wrong"), strict=True):
        assert f"{letter}) {verdict}." in words


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_answered_questions_fit_a_phone_and_are_accessible(opened: Callable[..., Page], scheme: str) -> None:
    page = opened(width=390, color_scheme=scheme)
    page.add_style_tag(content="* { transition: none !important }")  # else colours are measured on their way
    for number, letter in ((1, 1), (2, 0), (3, 0)):
        question(page, number).locator("input").nth(letter).check()
        question(page, number).get_by_role("button", name="Check").click()
        question(page, number).locator("summary").click()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
    boxes = page.evaluate("[...document.querySelectorAll('.quiz *')].map((e) => e.getBoundingClientRect().right)")
    assert max(boxes) <= 391
    page.evaluate(AXE)
    found = page.evaluate(FINDINGS, {})
    assert not found, json.dumps(found, indent=1)
