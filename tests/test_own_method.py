"""The page on a method of one's own: its code runs as it stands, prints what the page prints and makes the page's figure."""

from __future__ import annotations

import importlib.util
import json
import re
from typing import Any

import matplotlib.pyplot as plt
import pytest
from pages import ROOT
from PIL import Image

from clbook import metrics

spec = importlib.util.spec_from_file_location("own_method", ROOT / "book" / "own_method.py")
assert spec and spec.loader
spec.loader.exec_module(own_method := importlib.util.module_from_spec(spec))
PAGE = own_method.PAGE.read_text(encoding="utf-8")
NUMBER = re.compile(r"[-−]?\d+(?:\.\d+)?")
CLOSE = 1.5  # points: other processors round otherwise, and a network that trains amplifies it


def numbers(text: str) -> list[float]:
    return [float(n.replace("−", "-")) for n in NUMBER.findall(text)]


@pytest.fixture(scope="module")
def ran() -> tuple[dict[str, Any], list[str]]:
    """The names that the page's blocks define, and what each printed."""
    names, printed = own_method.run_page()
    plt.close("all")
    return names, printed


def test_the_blocks_are_those_of_the_page_and_short(ran: tuple[dict[str, Any], list[str]]) -> None:
    blocks = own_method.blocks()
    assert len(blocks) == PAGE.split("## Exercises")[0].count("```python\n") == 7
    assert len(blocks[0][0].strip().splitlines()) <= 20
    assert max(len(line) for code, _ in blocks for line in code.splitlines()) <= 84


def test_each_block_prints_what_the_page_says(ran: tuple[dict[str, Any], list[str]]) -> None:
    for (_, said), printed in zip(own_method.blocks(), ran[1], strict=True):
        assert bool(said) == bool(printed), said or printed
        assert NUMBER.sub("#", "".join(said.split())) == NUMBER.sub("#", "".join(printed.split())).replace("--", "-")
        assert numbers(printed) == pytest.approx(numbers(said), abs=CLOSE)
        if "rank correlation" in said:
            assert numbers(printed) == pytest.approx(numbers(said), abs=0.03)


def test_the_text_says_what_came_out(ran: tuple[dict[str, Any], list[str]]) -> None:
    ends, chosen = ran[0]["ends"], ran[0]["chosen"]
    assert chosen["L2"] == 0.1 and chosen["EWC"] >= 10
    for other, worse in (("fine-tuning", False), ("L2", True), ("EWC", True)):
        mean, half = metrics.interval(ends["Magnitude"] - ends[other])
        assert mean + half < 0 if worse else abs(mean) < half, other
    assert 12 < (ends["EWC"] - ends["Magnitude"]).mean() < 15, "nearly fourteen points"
    bounds = re.findall(r"fine-tuning ends at ([\d.]+) %, joint training at ([\d.]+) %", PAGE)[0]
    assert [ends[n].mean() for n in ("fine-tuning", "joint training")] == pytest.approx([float(b) for b in bounds], abs=CLOSE)
    table = ran[0]["results"]["Magnitude"].summary()
    accuracy, forgetting = table["accuracy"].to_numpy(), table["forgetting"].to_numpy()
    assert all(forgetting[i] > forgetting[i + 1] for i in range(3)) and accuracy[1] > accuracy[2] > accuracy[3] + 5


def test_dark_pixels_have_weights_of_no_importance_that_are_not_small(ran: tuple[dict[str, Any], list[str]]) -> None:
    names = ran[0]
    net, task, theta = names["setting"]["net"], names["scenario"][0], names["first"].thetas[0][0]
    importance = names["clbook"].fisher(net, theta, task.x)
    dark = task.x.abs().sum(0) == 0
    behind = theta[: 64 * 64].view(64, 64)[:, dark]  # the first layer, [hidden, pixels]
    assert dark.any() and importance[: 64 * 64].view(64, 64)[:, dark].abs().max() == 0
    assert behind.square().mean() > 0.1 * theta[: 64 * 64].square().mean()


@pytest.mark.parametrize("exercise", ["own-ex-moved", "own-ex-control"])
def test_the_solutions_state_what_their_code_gives(ran: tuple[dict[str, Any], list[str]], exercise: str) -> None:
    solution = PAGE.split(f"{{solution}} {exercise}\n")[1].split("\n````")[0]
    code, text = re.findall(r"```python\n(.*?)```\n(.*)", solution, flags=re.S)[0]
    names = dict(ran[0])
    exec(code, names)
    kind = names[re.findall(r"class (\w+)", code)[0]]
    run, accuracy, scenario, setting = (names[n] for n in ("clbook", "accuracy", "scenario", "setting"))
    grid = [kind(lam=lam) for lam in names["strengths"]]
    tuning = run.run(scenario.held_out(0.1), grid, seeds=[100, 101, 102], **setting)
    lam = max(names["strengths"], key=lambda lam: accuracy(tuning.pick(lam=lam)).mean())
    values = accuracy(run.run(scenario, kind(lam=lam), seeds=5, **setting))
    found = [lam, *metrics.interval(values), *metrics.interval(values - names["ends"]["Magnitude"])]
    said = [float(re.findall(r"\\lambda=([\d.]+)", text)[0])]
    said += [float(n.replace("−", "-")) for pair in re.findall(r"([−\d.]+) ± ([\d.]+)", text) for n in pair]
    assert found == pytest.approx(said, abs=CLOSE)
    assert abs(found[3]) < found[4], "no difference that these runs could show"


def test_the_stored_figure_is_that_of_the_code(ran: tuple[dict[str, Any], list[str]]) -> None:
    stored = json.loads(Image.open(own_method.FIGURE).text["Description"])
    found = own_method.curves(ran[0])
    assert set(stored) == set(found), "run python book/own_method.py"
    for name, values in found.items():
        assert stored[name] == pytest.approx(values, abs=CLOSE), f"{name}: run python book/own_method.py"
    lines = [line for line in ran[0]["ax"].get_lines() if line.get_label() in found]
    for line in lines:
        assert list(line.get_ydata()) == pytest.approx(found[line.get_label()], abs=0.06)
    assert len(lines) == 3
