"""The page on the package describes what the package has, and names in the text lead to it."""

from __future__ import annotations

import importlib
import inspect
import sys

import pytest
from bs4 import BeautifulSoup
from pages import ROOT, Built

pytest.importorskip("sphinx")  # the package is tested without it, too
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import api


@pytest.mark.parametrize("module", api.MODULES)
def test_every_public_name_is_described_where_it_is_defined(module: str) -> None:
    imported = importlib.import_module(module)
    defined = [n for n, value in vars(imported).items() if inspect.getmodule(value) is imported and not n.startswith("_")]
    values = {name: getattr(imported, name) for name in getattr(imported, "__all__", defined)}
    described = {entry.name: entry for entry in api.entries(module)}
    assert {name for name, v in values.items() if inspect.isclass(v) or inspect.isfunction(v)} == set(described)
    for name, entry in described.items():
        value = inspect.unwrap(values[name])
        assert entry.file == ROOT / f"{value.__module__.replace('.', '/')}.py"
        assert inspect.cleandoc(value.__doc__ or "") == api.ast.get_docstring(entry.node)


def test_long_arguments_are_split_at_their_own_commas_only() -> None:
    arguments = api.ast.parse("def f(a: Float[Tensor, 'B C'], b=(1, 2), *, c: dict[str, int] | None = None): ...").body[0].args
    assert api.split_arguments(arguments) == ["a: Float[Tensor, 'B C']", "b=(1, 2)", "*", "c: dict[str, int] | None=None"]


def test_paragraphs_are_unwrapped_and_what_stands_on_a_line_of_its_own_stays_there() -> None:
    said = f"One sentence.\n\n{'a ' * 52}word\nand on.\nSource: B. One\n\nF = 2\ny = F\n- {'point ' * 18}\ngoes on\n- next\n  x"
    one, source, F, y, point, following, indented = (line for line in api.unwrapped(said).splitlines()[1:] if line)
    assert one == f"{'a ' * 52}word and on." and source == "Source: B. One" and (F, y) == ("F = 2", "y = F")
    assert point.endswith("goes on") and following == "- next" and indented == "  x"


def test_names_in_the_text_lead_to_their_description(book: Built) -> None:
    page = BeautifulSoup((book.html / "book" / "api.html").read_text(encoding="utf-8"), "html.parser")
    for module in api.MODULES:
        for entry in api.entries(module):
            assert page.find(id=entry.anchor), entry.anchor
    text = (book.html / "book" / "cheatsheet.html").read_text(encoding="utf-8")
    assert 'href="api.html#clbook.methods.Ridge"' in text
    assert not BeautifulSoup(text, "html.parser").select("a a"), "a link within a link"


def test_the_cheat_sheet_has_every_method_once() -> None:
    sheet = (ROOT / "book" / "cheatsheet.md").read_text(encoding="utf-8")
    first = [line.split("|")[1] for line in sheet.splitlines() if line.startswith("|")]
    named = [name.strip("`") for cell in first for name in api.re.findall(r"`\w+`", cell)]
    assert sorted(named) == sorted(entry.name for entry in api.entries("clbook.methods"))


def test_an_example_is_shown_by_itself_and_as_it_is_written() -> None:
    said = "One sentence.\n\nMore.\n\n>>> f(1)\n2\n>>> f(2)\n3"
    assert api.parts(said) == ("One sentence.\n\nMore.", ">>> f(1)\n2\n>>> f(2)\n3")
    assert api.parts("One sentence.") == ("One sentence.", "")
