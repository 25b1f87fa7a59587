"""The page on a method of one's own: its code runs as it stands, prints what the page prints and makes the page's figure."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from pages import ROOT
from PIL import Image

import clbook
from clbook import metrics

spec = importlib.util.spec_from_file_location("own_method", ROOT / "book" / "own_method.py")
assert spec and spec.loader
spec.loader.exec_module(own_method := importlib.util.module_from_spec(spec))
PAGE = own_method.PAGE.read_text(encoding="utf-8")
SOLUTION = re.compile(r"^````\{solution\} (\S+)\n.*?^```python\n(.*?)^```\n(.*?)^````$", flags=re.S | re.M)
NUMBER = re.compile(r"[-−]?\d+(?:\.\d+)?")
CLOSE = 1.5  # points: other processors round otherwise, and a network that trains amplifies it
# In a process of its own, without the checks of every shape, which would take as long again.
RUN = """
import pickle, re, sys
import matplotlib
matplotlib.use("agg")
import own_method
names, printed = own_method.run_page()
wanted = {n: names[n] for n in ("ends", "chosen")} | {"printed": printed, "curves": own_method.curves(names)}
wanted["table"] = names["results"]["Magnitude"].summary()[["accuracy", "forgetting"]].to_numpy()
wanted["lines"] = {line.get_label(): list(line.get_ydata()) for line in names["ax"].get_lines()}
wanted["theta"] = names["first"].thetas[0][0].numpy()
for label, code, lam in pickle.load(sys.stdin.buffer):
    exec(code, names)
    kind = names[re.findall(r"class (\\w+)", code)[0]]
    result = names["clbook"].run(names["scenario"], kind(lam=lam), seeds=5, **names["setting"])
    wanted[label] = names["accuracy"](result)
pickle.dump(wanted, open(sys.argv[1], "wb"))
"""


def numbers(text: str) -> list[float]:
    return [float(n.replace("−", "-")) for n in NUMBER.findall(text)]


def solutions() -> list[tuple[str, str, float]]:
    """The label of each exercise with code, the code and the strength that its solution names."""
    return [(label, code, float(re.findall(r"\\lambda=([\d.]+)", text)[0])) for label, code, text in SOLUTION.findall(PAGE)]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the blocks of the page printed, and some of the names that they define."""
    file = tmp_path_factory.mktemp("own_method") / "ran.pkl"
    asked = pickle.dumps(solutions())
    subprocess.run([sys.executable, "-W", "error", "-c", RUN, file], input=asked, cwd=ROOT / "book", check=True)
    return pickle.loads(file.read_bytes())


def test_the_blocks_are_all_of_the_page_and_short() -> None:
    blocks = own_method.blocks()
    assert len(blocks) == PAGE.split("## Exercises")[0].count("```python\n") == 7
    assert len(blocks[0][0].strip().splitlines()) <= 20
    assert max(len(line) for code, _ in blocks for line in code.splitlines()) <= 84


def test_each_block_prints_what_the_page_says(ran: dict[str, Any]) -> None:
    for (_, said), printed in zip(own_method.blocks(), ran["printed"], strict=True):
        assert bool(said) == bool(printed), said or printed
        assert NUMBER.sub("#", "".join(said.split())) == NUMBER.sub("#", "".join(printed.split()))
        close = 0.03 if "rank" in said else CLOSE
        assert numbers(printed) == pytest.approx(numbers(said), abs=close)


def test_the_text_says_what_came_out(ran: dict[str, Any]) -> None:
    ends, chosen = ran["ends"], ran["chosen"]
    assert chosen["L2"] == 0.1 and chosen["EWC"] >= 10
    for other, worse in (("fine-tuning", False), ("L2", True), ("EWC", True)):
        mean, half = metrics.interval(ends["Magnitude"] - ends[other])
        assert mean + half < 0 if worse else abs(mean) < half, other
    assert 12 < (ends["EWC"] - ends["Magnitude"]).mean() < 15, "nearly fourteen points"
    bounds = re.findall(r"fine-tuning ends at ([\d.]+) %, joint training at ([\d.]+) %", PAGE)[0]
    assert [ends[n].mean() for n in ("fine-tuning", "joint training")] == pytest.approx([float(b) for b in bounds], abs=CLOSE)
    accuracy, forgetting = ran["table"].T
    assert all(forgetting[i] > forgetting[i + 1] for i in range(3)) and accuracy[1] > accuracy[2] > accuracy[3] + 5


def test_dark_pixels_have_weights_of_no_importance_that_are_not_small(ran: dict[str, Any]) -> None:
    net, task = clbook.mlp(64, 10, (64,)), clbook.permuted(clbook.load("digits"), tasks=3)[0]
    theta = torch.as_tensor(ran["theta"])
    weights, importance = (v[: 64 * 64].view(64, 64) for v in (theta, clbook.fisher(net, theta, task.x)))
    dark = task.x.abs().sum(0) == 0  # pixels are the columns of the first layer's weights
    assert dark.any() and importance[:, dark].abs().max() == 0 < importance[:, ~dark].mean()
    assert weights[:, dark].square().mean() > 0.1 * weights.square().mean()


@pytest.mark.parametrize("exercise", ["own-ex-moved", "own-ex-control"])
def test_the_solutions_state_what_their_code_gives(ran: dict[str, Any], exercise: str) -> None:
    (text,) = [text for label, _, text in SOLUTION.findall(PAGE) if label == exercise]
    values = ran[exercise]
    found = [*metrics.interval(values), *metrics.interval(values - ran["ends"]["Magnitude"])]
    said = [float(n.replace("−", "-")) for pair in re.findall(r"([−\d.]+) ± ([\d.]+)", text) for n in pair]
    assert found == pytest.approx(said, abs=CLOSE)
    assert abs(found[2]) < found[3], "no difference that these runs could show"


def test_the_stored_figure_is_that_of_the_code(ran: dict[str, Any]) -> None:
    stored = json.loads(Image.open(own_method.FIGURE).text["Description"])
    assert set(stored) == set(ran["curves"]), "run python book/own_method.py"
    for name, values in ran["curves"].items():
        assert stored[name] == pytest.approx(values, abs=CLOSE), f"{name}: run python book/own_method.py"
    for name in ("Magnitude", "L2", "EWC"):
        assert ran["lines"][name] == pytest.approx(ran["curves"][name], abs=0.06)
