"""Figures show the numbers they are given: what is drawn is read back from the axes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from small import clouds, train

from clbook import Result, methods, metrics, plots, split
from clbook.lab.entries import ENTRIES, MAIN, SPLIT
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


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2, from the linear parts of red, green and blue."""
    return float(linear(color) @ (0.2126, 0.7152, 0.0722))


def linear(color: str) -> np.ndarray:
    c = np.array(to_rgb(color))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


# what is seen without the pigment for green, and without that for red: Machado, Oliveira & Fernandes 2009, severity 1
BLIND = {
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
}
XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b* of linear red, green and blue, white D65."""
    t = np.clip(np.array(XYZ) @ rgb, 0, None) / (0.95047, 1, 1.08883)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_the_measures_of_colour_know_black_white_and_grey() -> None:
    assert (luminance("#ffffff"), luminance("#000000")) == (pytest.approx(1), 0)
    assert 1.05 / (luminance("#767676") + 0.05) == pytest.approx(4.54, abs=0.01)  # the grey known from WCAG's handbooks
    assert lab(linear("#ffffff")) == pytest.approx([100, 0, 0], abs=0.02)
    assert lab(linear("#ff0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    for matrix in BLIND.values():  # nobody sees a colour in grey
        np.testing.assert_allclose(np.array(matrix).sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("name", [*plots.COLOURS, *plots.PALETTE])
def test_every_colour_has_a_contrast_of_3_to_1_on_white(name: str) -> None:
    assert 1.05 / (luminance(plots.COLOURS.get(name, name)) + 0.05) >= 3


def test_the_colour_blind_tell_the_main_methods_apart() -> None:
    """Lab colours at least 15 apart, for every kind of eye; 2.3 is the least difference that one sees side by side."""
    for a, b in combinations((linear(plots.colour(name)) for name in MAIN), 2):
        for matrix in (np.eye(3), *map(np.array, BLIND.values())):
            assert np.linalg.norm(lab(np.clip(matrix @ a, 0, 1)) - lab(np.clip(matrix @ b, 0, 1))) > 15
    assert len({plots.look(name)["marker"] for name in MAIN}) == len(MAIN)  # and by their markers without any colour


def test_every_method_of_the_package_has_a_colour_of_its_own() -> None:
    assert all(plots.known(name) for name in methods.__all__)
    assert len({plots.colour(name) for name in methods.__all__}) == len(methods.__all__)
    for entries in ENTRIES.values():
        assert all(plots.known(label) for label in entries)
    assert len({plots.colour(label) for label in SPLIT}) == len(SPLIT)
    for label, entry in SPLIT.items():  # in a table's words, or as the method calls itself: a variant only by its class
        assert plots.colour(entry.method.label) == plots.colour(label) or label in ("online EWC", "IMM, mode")


def test_a_method_has_one_colour_everywhere() -> None:
    assert plots.colour("EWC") == plots.colour("EWC, lam = 3") == plots.colour("ewc") != plots.colour("L2")
    assert plots.colour("online EWC") != plots.colour("EWC") and plots.colour("SGD") == plots.colour("Finetune")
    assert plots.colour("MAS (loss)") == plots.colour("MAS") and plots.colour("A-GEM") != plots.colour("GEM")
    assert plots.known("DERailed") is plots.known("Else") is plots.known("") is None  # whole words only
    assert plots.colour("something new") == plots.colour("something new") in plots.PALETTE
    assert to_hex(plots.colour("fine-tuning")) == "#707070" and plots.colour("joint training") == "#000000"
    others = ("SGD", "finetune", "IMM")
    assert len({c for name, c in plots.COLOURS.items() if name not in others}) == len(plots.COLOURS) - len(others)


def test_the_benchmark_is_drawn_in_the_colours_of_its_methods() -> None:
    from clbook.lab.benchmark import draw
    from clbook.lab.experiments import stored

    figure = draw(stored("benchmark"))
    assert figure.get_figwidth() <= 7
    names = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    for bar in (c for ax in figure.axes for c in ax.containers):
        x, y = (float(v[0]) for v in bar.lines[0].get_data())
        assert bar.lines[0].get_color() == plots.colour(names[int(y)]) and 0 <= x <= 100


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
