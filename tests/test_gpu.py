"""The script for a GPU machine works where there is none, so that it works the first time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from clbook import methods

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu.py"


def test_the_script_compares_every_method(tmp_path: Path) -> None:
    """On the CPU beside itself every difference is zero."""
    steps = steps_of(tmp_path, "--steps", "same_as_cpu")
    differences = steps["same_as_cpu"]["largest difference"]
    assert set(differences) == set(methods.__all__) and set(differences.values()) == {0.0}


def test_what_no_time_is_left_for_is_named(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, "--minutes", "0")
    assert len(steps) == 5 and all("left out" in step for step in steps.values())


def steps_of(folder: Path, *options: str) -> dict[str, Any]:
    """What the script writes on the CPU."""
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--small", "--out", str(folder / "gpu.json"), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "gpu.json").read_text(encoding="utf-8"))["steps"]


def test_without_a_gpu_it_says_so_in_one_line() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == "" and re.fullmatch(r"PyTorch sees no CUDA device here.*\n", done.stderr)


def test_the_page_says_what_was_measured_on_a_gpu() -> None:
    page = (ROOT / "book" / "cluster.md").read_text(encoding="utf-8")
    measured = (ROOT / "benchmarks" / "gpu.json").exists()
    assert measured != ("On a GPU: not measured" in page), "the page quotes gpu.json, or says that there is none"
