"""Figures show the numbers they are given: what is drawn is read back from the axes."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from small import clouds, train

from clbook import Result, metrics, plots, split
from clbook.methods import Finetune


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def result() -> Result:
    return train(split(clouds(n=48, classes=6), 3, kind="class"), Finetune(), 3, steps=6, eval_every=2)


def test_accuracy_matrix() -> None:
    R = np.array([[0.987, np.nan], [0.5, 0.751]])
    ax = plots.accuracy_matrix(R, names=["A", "B"])
    assert [t.get_text() for t in ax.texts] == ["99", "50", "75"]  # percent, and nothing where nothing was measured
    assert ([t.get_text() for t in ax.get_xticklabels()], ax.get_xlabel()) == (["A", "B"], "tested on task")
    assert ([t.get_text() for t in ax.get_yticklabels()], ax.get_ylabel()) == (["A", "B"], "after training on task")
    assert [float(t.get_position()[1]) for t in ax.texts] == [0.5, 1.5, 1.5]  # row 0 on top: the first task trained


def test_training_curves(result: Result) -> None:
    ax = plots.training_curves({"SGD": result}, 1)
    line = ax.lines[0]
    assert line.get_xdata().tolist() == [8, 10, 12, 14, 16, 18]  # task 1 is measured from its own start on
    np.testing.assert_allclose(line.get_ydata(), 100 * result.curve[:, 3:, 1].mean(0))
    assert [x.get_xdata()[0] for x in ax.lines[1:]] == [6, 12]  # where the second and the third task start
    mean, half = metrics.interval(100 * result.curve[:, 3:, 1])
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx((mean + half).max()) and band[:, 1].min() == pytest.approx((mean - half).min())
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("accuracy on task 2 (%)", "training steps")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["SGD"]
    assert plots.training_curves({"SGD": result}, 0, legend=False, ax=plt.subplots()[1]).get_legend() is None


def test_average_so_far(result: Result) -> None:
    ax = plots.average_so_far({"EWC": result, "SGD": result.pick(seed=0)})
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 100 * metrics.average_so_far(result.R).mean(0))
    assert ax.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert len(ax.collections) == 1  # one run alone has no interval


def test_lines() -> None:
    ax = plots.lines([1, 2], {"EWC": np.array([[1.0, 3.0], [3.0, 5.0]])}, xlabel="a", ylabel="b", marker="o")
    assert ax.lines[0].get_ydata().tolist() == [2, 4] and ax.lines[0].get_marker() == "o"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b")


def test_bars() -> None:
    ax = plots.bars({"EWC": [90.0, 94.0, 95.0], "SGD": [50.0]}, unit="ACC (%)")
    assert [p.get_height() for p in ax.patches] == [pytest.approx(93), 50]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["EWC", "SGD"] and ax.get_ylabel() == "ACC (%)"
    _, half = metrics.interval(np.array([90.0, 94.0, 95.0]))
    (ends,) = next(c for c in ax.containers if hasattr(c, "has_yerr")).lines[2][0].get_segments()
    np.testing.assert_allclose(ends[:, 1], [93 - half, 93 + half])


def test_images_are_shown_as_they_are() -> None:
    x = torch.rand(5, 6).numpy()
    figure = plots.images(x, (1, 2, 3), titles=list("abcde"), columns=3)
    shown = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    np.testing.assert_allclose(np.stack(shown).reshape(5, 6), x)
    assert [ax.get_title() for ax in figure.axes if ax.images] == list("abcde") and len(figure.axes) == 6


def test_regions_hold_the_mass_they_name() -> None:
    """Of a round Gaussian, the region that holds m has radius sqrt(-2 log(1 - m)); a constant does not matter."""
    x = np.linspace(-4, 4, 401)
    log_p = -(x[:, None] ** 2 + x[None] ** 2) / 2 + 17.0
    ax = plots.regions(log_p, x, x, mass=(0.5, 0.9))
    radii = sorted(np.hypot(*path.vertices.T).mean() for path in ax.collections[0].get_paths())
    assert radii == pytest.approx([np.sqrt(-2 * np.log(0.5)), np.sqrt(-2 * np.log(0.1))], abs=0.02)
    assert [line.get_label() for line in plots.regions(log_p, x, x, label="A", ax=plt.subplots()[1]).lines] == ["A"]


def test_agreement_leaves_out_what_is_not_positive() -> None:
    first, second = np.array([1e-4, 1e-6, 0.0, 1e-3]), np.array([1e-4, 1e-6, 1e-3, 0.0])
    ax = plots.agreement(first, second)
    counts = ax.collections[0].get_array()
    assert counts.sum() == 2 and ax.get_xlim() == ax.get_ylim() == (-10, -2)


def test_a_method_has_one_colour_everywhere() -> None:
    assert plots.colour("EWC") == plots.colour("EWC, lam = 3") != plots.colour("L2")
    assert plots.colour("online EWC") != plots.colour("EWC") and plots.colour("SGD") == plots.colour("Finetune")
    assert plots.colour("something new") == plots.colour("something new")
    known = {name: to_rgb(c) for name, c in plots.COLOURS.items() if name not in ("SGD", "Fine-tuning")}
    assert len(set(known.values())) == len(known)


def test_style_is_dark_on_white() -> None:
    with plt.rc_context():
        plots.use_style()
        assert to_hex(plt.rcParams["figure.facecolor"]) == to_hex(plt.rcParams["savefig.facecolor"]) == "#ffffff"
        assert sum(to_rgb(plt.rcParams["text.color"])) < 1 and plt.rcParams["font.size"] >= 12


def test_regions_of_a_gaussian_have_the_radii_of_theory() -> None:
    """Half of a round Gaussian lies within sigma sqrt(2 ln 2) of its centre, 95 % within sigma sqrt(2 ln 20)."""
    grid = np.linspace(-4, 4, 401)
    log_p = -0.5 * (grid[None] ** 2 + grid[:, None] ** 2) / 0.8**2 + 7.0  # a constant may be missing
    ax = plots.regions(log_p, grid, grid, mass=(0.5, 0.95))
    radii = sorted(float(np.hypot(*path.vertices.T).mean()) for path in ax.collections[0].get_paths())
    assert radii == pytest.approx([0.8 * np.sqrt(2 * np.log(2)), 0.8 * np.sqrt(2 * np.log(20))], rel=0.01)


def test_agreement_counts_the_positive_pairs_inside_its_decades() -> None:
    first = np.array([1e-5, 1e-5, 1e-3, 0.0, 1e-20, -1e-4])
    second = np.array([1e-5, 1e-4, 1e-3, 1e-3, 1e-3, 1e-3])
    ax = plots.agreement(first, second, decades=(-10, -2))
    hexagons = ax.collections[0]
    assert int(hexagons.get_array().sum()) == 3 and hexagons.get_array().max() == 1
    assert ax.get_xlim() == (-10, -2) and ax.get_ylim() == (-10, -2)
