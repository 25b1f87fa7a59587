"""Shapes checked in every call of the package, and one build of the book for all tests that look at it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from filelock import FileLock
from jaxtyping import install_import_hook
from pages import ROOT, Built

# Before anything imports clbook: every annotation such as Float[Tensor, "B C"] is then checked at run time.
assert "clbook" not in sys.modules, "clbook was imported too early to be checked"
install_import_hook("clbook", "checked.checked")

matplotlib.use("agg")


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The book, built from the stored outputs as `make book` does it, once for all tests in however many processes."""
    command = shutil.which("jupyter-book", path=Path(sys.executable).parent)
    assert command, "jupyter-book is not installed beside this Python: make test installs it"
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all processes
    out, told = folder / "book", folder / "book.json"
    with FileLock(folder / "book.lock"):
        if not told.exists():
            build = [command, "build", str(ROOT), "--path-output", str(out), "-W", "-n", "--keep-going"]
            built = subprocess.run(build, capture_output=True, text=True)
            told.write_text(json.dumps([built.stdout + built.stderr, built.returncode]), encoding="utf-8")
    return Built(out / "_build" / "html", *json.loads(told.read_text(encoding="utf-8")))
