"""Presets: the sizes that belong together, and never a silent fallback."""

from __future__ import annotations

from pathlib import Path

import pytest
import torchvision

import clbook
from clbook import DataError, preset


@pytest.mark.parametrize(("name", "size"), [("quick", 1), ("book", 2), ("paper", 3)])
def test_pick(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert preset(name).pick(quick=1, book=2, paper=3) == size
    monkeypatch.setenv("CLBOOK_PRESET", name)
    assert preset() == preset(name) and preset().name == name
    assert preset("quick").name == "quick"  # an argument comes before the environment


def test_book_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv("CLBOOK_PRESET", raising=False)
        else:
            monkeypatch.setenv("CLBOOK_PRESET", value)
        assert preset().name == "book"


def test_unknown_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"unknown preset 'tiny' \(CLBOOK_PRESET\): choose one of quick, book, paper"):
        preset("tiny")
    monkeypatch.setenv("CLBOOK_PRESET", "Quick")
    with pytest.raises(ValueError, match="'Quick'"):
        preset()


def test_quick_takes_the_digits_whatever_is_asked_for() -> None:
    assert {preset("quick").load(name).name for name in ("mnist", "fashion", "digits")} == {"digits"}


@pytest.mark.parametrize("name", ["book", "paper"])
def test_the_others_never_fall_back(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **more: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("CLBOOK_DATA", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets, "MNIST", no_network)
    with pytest.raises(DataError, match="CLBOOK_PRESET=quick"):
        preset(name).load("mnist")
    assert clbook.preset(name).load("digits").name == "digits"
