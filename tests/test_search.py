"""The search grows its grid until the best value lies inside, and looks twice before it chooses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from small import refused

from clbook.lab.search import FLAT, MOST, Search, Tuned

DECADES = Tuned("lam", (1.0, 10.0, 100.0))


def searched(tuned: Tuned, score: Callable[[float, int], float], kind: str = "") -> Search:
    """The search, told these scores."""
    search = Search(tuned, kind)
    asking = search.trials()
    wanted = next(asking)
    try:
        while True:
            wanted = asking.send([score(value, seed) for value, seed in wanted])
    except StopIteration as stop:
        assert stop.value == search.best
        return search


def peak(at: float) -> Callable[[float, int], float]:
    """Ten points lost for every decade away from the top."""
    from math import log10

    return lambda value, seed: 90 - 10 * abs(log10(value) - log10(at))


@pytest.mark.parametrize("at", [1e-3, 1.0, 10.0, 1e5])
def test_the_grid_grows_until_the_best_value_lies_inside(at: float) -> None:
    search = searched(DECADES, peak(at))
    assert search.best == pytest.approx(at) and not search.edge
    assert min(search.scores) < search.best < max(search.scores)


def test_only_the_best_value_and_its_neighbours_get_a_second_seed() -> None:
    search = searched(DECADES, peak(1e4))
    twice = {value for value, scores in search.scores.items() if len(scores) == 2}
    assert twice == {1e3, 1e4, 1e5} and all(len(scores) <= 2 for scores in search.scores.values())


def test_a_second_seed_can_overturn_the_first() -> None:
    """The first seed flatters the value 10; the mean over both seeds says 100."""
    lucky = {(1.0, 0): 80, (10.0, 0): 95, (100.0, 0): 90, (1.0, 1): 80, (10.0, 1): 70, (100.0, 1): 90}
    search = searched(DECADES, lambda value, seed: lucky.get((value, seed), 60))
    assert search.best == 100 and len(search.scores[1000.0]) == 2, "whose other neighbour is looked at too"


def test_a_flat_curve_is_looked_at_once_more_at_either_end_and_not_climbed() -> None:
    search = searched(DECADES, lambda value, seed: 20 + FLAT * 0.5 * (value > 50))
    assert sorted(search.scores) == [0.1, 1.0, 10.0, 100.0, 1000.0] and not search.edge
    assert all(len(scores) == 1 for scores in search.scores.values())


def test_a_top_beside_a_plateau_is_found() -> None:
    """The first three values are alike, and the top lies three decades below them."""
    search = searched(DECADES, lambda value, seed: max(65.0, peak(1e-3)(value, seed)))
    assert search.best == pytest.approx(1e-3)


def test_a_curve_that_levels_out_is_not_followed_for_ever() -> None:
    """It rises to 90 and stays there."""
    search = searched(DECADES, lambda value, seed: min(90.0, 50 + value / 10))
    assert max(search.scores) == 1e4 and search.mean(1e3) == 90, "one value beyond the first of the top"


def test_a_search_without_a_top_ends_and_says_so() -> None:
    search = searched(DECADES, lambda value, seed: value)
    assert len(search.scores) == MOST and search.edge


def test_values_stay_within_their_bounds() -> None:
    rates = Tuned("slow", (0.9, 0.99, 0.999), most=0.9999, complement=True)
    assert searched(rates, lambda value, seed: 1e5 * value).best == pytest.approx(0.9999)
    gamma = Tuned("gamma", (0.8, 0.9, 1.0), factor=2.0, most=1.0, complement=True)
    assert searched(gamma, lambda value, seed: 100 * value).best == 1.0, "where forgetting the past is no option"
    zero = Tuned("lam", (0.0, 0.1, 1.0))
    assert min(searched(zero, lambda value, seed: -100 * value).scores) == 0, "there is nothing below zero"
    winners = Tuned("k", (20, 40, 80), factor=2.0, most=400, whole=True)
    tried = searched(winners, lambda value, seed: value).scores
    assert set(tried) == {20, 40, 80, 160, 320} and all(isinstance(value, int) for value in tried)


def test_a_kind_of_scenario_may_start_elsewhere() -> None:
    tuned = Tuned("lam", (1.0, 10.0, 100.0), own={"domain": (1e6, 1e7, 1e8)})
    assert tuned.first("task") == (1, 10, 100) and tuned.first("domain") == (1e6, 1e7, 1e8)


@pytest.mark.parametrize("start", [(1.0, 2.0), (2.0, 1.0, 3.0), (1.0, 1.0, 2.0)])
def test_a_search_needs_three_values_in_order(start: tuple[float, ...]) -> None:
    with refused(r"three ascending values or more, got \("):
        Tuned("lam", start)
