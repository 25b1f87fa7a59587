"""Timing two or more ways of doing the same thing, in turns, so that a busy machine disturbs all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def interleaved(ways: dict[str, Callable[[], object]], repeats: int = 5) -> dict[str, tuple[float, float]]:
    """Median wall time and median CPU time of each way in seconds, over `repeats` rounds in which each runs once."""
    for way in ways.values():
        way()  # the first call pays for what is loaded and cached
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            _wait()
            at, used = time.perf_counter(), time.process_time()
            way()
            _wait()
            wall[name].append(time.perf_counter() - at)
            cpu[name].append(time.process_time() - used)
    return {name: (statistics.median(wall[name]), statistics.median(cpu[name])) for name in ways}


def report(title: str, times: dict[str, tuple[float, float]], per: float = 1.0, unit: str = "s") -> None:
    """Print each way's time (divided by `per`) and how many times that of the first it took, by wall clock and by CPU time."""
    base = next(iter(times.values()))
    print(f"\n{title} ({torch.get_num_threads()} threads)")
    print(f"{'':44} {'wall ' + unit:>10} {'ratio':>7} {'CPU ' + unit:>10} {'ratio':>7}")
    scale = 1000 if unit == "ms" else 1
    for name, (wall, cpu) in times.items():
        cells = (wall * scale / per, wall / base[0], cpu * scale / per, cpu / base[1])
        print(f"{name:44} {cells[0]:10.3f} {cells[1]:7.2f} {cells[2]:10.3f} {cells[3]:7.2f}")


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
