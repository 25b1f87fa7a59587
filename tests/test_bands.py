"""Bands around printed numbers hold what they should, and the page says what was found."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pages import ROOT

import clbook

pytest.importorskip("nbclient")
import bands
from bands import Number, Run


def test_numbers_are_read_as_they_are_printed() -> None:
    text = "P = 89,105, R2 at 0.60: 97.6 %  −1.5 ± 0.2, 4.5e-13 [3, 4] and 100-200"
    assert [n.value for n in bands.numbers(text)] == [89105, 0.6, 97.6, -1.5, 4.5e-13, 3, 4, 100, 200]
    assert [n.half for n in bands.numbers(text)][3] == 0.2
    assert Number.read("97.65").unit == pytest.approx(0.01) and Number.read("4.5e-13").unit == pytest.approx(1e-14)
    assert bands.words("loss   [-0.50 ] \\\n----") == bands.words("loss [ 1.25]") != bands.words("gain 1.25")


def test_at_least_nineteen_of_twenty_new_numbers_lie_in_the_band() -> None:
    rng, runs, again = np.random.default_rng(0), len(bands.MEASURED) + 1, 4000
    drawn = rng.normal(50.0, 3.0, (again, runs + 1))
    held = [abs(x[0] - x[-1]) <= bands.band(list(x[:-1]), 0.0) for x in drawn]
    assert 0.95 < np.mean(held) < 0.98
    assert bands.band([2.0, 2.0, 2.0], 1.0) == 0.0 and bands.band([2.0, 2.0, 2.0], 0.1) == 0.1, "no seed moves it"
    assert bands.band([1.0, 3.0], 0.0) == pytest.approx(12.706 * 2**0.5 * 2**0.5, rel=1e-4), "Student's t for one degree"


def test_a_printed_interval_is_a_band_of_its_own() -> None:
    ours = Number.read("90.0 ± 3.0")
    assert bands.inside(ours, Number.read("95.0 ± 4.0"), 0.0) and not bands.inside(ours, Number.read("95.2 ± 4.0"), 9.0)


def test_what_leaves_its_band_is_named() -> None:
    ours = Run({"a": "x 1.0 y 2.0", "b": "same 5", "c": "win 1"}, [], 0.0)
    others = [Run({"a": f"x {1 + d} y 2.0", "b": "same 5", "c": "win 1"}, [], 0.0) for d in (0.1, -0.1, 0.2)]
    half = bands.bands([ours, *others])
    found = bands.compare(ours, Run({"a": "x 9.0 y 2.0", "b": "same 5", "c": "lose 1"}, ["d"], 0.0), half)
    assert (found["compared"], found["inside"]) == (3, 2) and found["other words"] == ["c"] and found["raised"] == ["d"]
    assert found["outside"][0]["cell"] == "a" and found["outside"][0]["ours, theirs, band"][0][:2] == [1.0, 9.0]
    assert bands.compare(ours, Run({**ours.printed, "b": "same 6"}, [], 0.0), half)["inside"] == 3, "no seed moves it"


def test_another_seed_draws_all_anew_but_the_data(tmp_path) -> None:
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    source = """
        import numpy as np, torch, clbook
        from clbook import sampling
        net, data = clbook.mlp(8, 2, (3,)), clbook.load("digits")
        torch.manual_seed(0)
        print("start", net.init(0)[0].item())
        print("plain", torch.rand(()).item())
        print("order", *sampling.order(100, 1, 3, sampling.generator(0, "order")).flatten().tolist())
        print("numpy", np.random.default_rng(0).random())
        print("data", data.x[:50].sum().item())
    """
    lines = "\n".join(line.strip() for line in source.splitlines())
    path = tmp_path / "small.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(lines, id="all")]), path)
    plain, other = (bands.execute(path, "quick", shift=s).printed["all"].splitlines() for s in (0, 77))
    assert [a == b for a, b in zip(plain, other, strict=True)] == [False, False, False, False, True]


def test_the_page_says_what_was_found() -> None:
    found = json.loads(bands.FOUND.read_text(encoding="utf-8"))
    assert bands.table(found) in bands.PAGE.read_text(encoding="utf-8")
    for notebook, one in found.items():
        assert (ROOT / "notebooks" / f"{notebook}.ipynb").exists() and one["preset"] in clbook.presets.PRESETS
