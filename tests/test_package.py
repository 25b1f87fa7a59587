"""What is installed is all of the package: where it is not installed from a checkout, nothing else is there."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_every_folder_with_code_is_installed() -> None:
    folders = {p.parent.relative_to(ROOT) for p in (ROOT / "clbook").rglob("*.py")}
    assert {".".join(folder.parts) for folder in folders} | {"clbook.results"} == set(SETUP["packages"])


def test_every_file_that_the_code_may_read_is_installed() -> None:
    files = [p for p in (ROOT / "clbook").rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc") and p.name[0] != "."]
    files += [p for p in (ROOT / "results").iterdir() if p.suffix in (".json", ".npz")]
    for file in files:
        package = ".".join(file.parent.relative_to(ROOT).parts).replace("results", "clbook.results")
        assert any(fnmatch(file.name, pattern) for pattern in SETUP["package-data"].get(package, [])), file
