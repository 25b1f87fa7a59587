"""Shapes checked in every call of the package, and one build of the book for all tests that look at it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from jaxtyping import install_import_hook
from pages import ROOT, Built

# Before anything imports clbook: every annotation such as Float[Tensor, "B C"] is then checked at run time.
assert "clbook" not in sys.modules, "clbook was imported too early to be checked"
install_import_hook("clbook", "checked.checked")

matplotlib.use("agg")


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The book, built from the stored outputs as `make book` does it, once for all tests."""
    command = shutil.which("jupyter-book", path=Path(sys.executable).parent)
    assert command, "jupyter-book is not installed beside this Python: make test installs it"
    out = tmp_path_factory.mktemp("book")
    built = subprocess.run(
        [command, "build", str(ROOT), "--path-output", str(out), "-W", "-n", "--keep-going"],
        capture_output=True,
        text=True,
    )
    return Built(out / "_build" / "html", built.stdout + built.stderr, built.returncode)
