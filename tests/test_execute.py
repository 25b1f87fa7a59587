"""`make figures` stores what a reader should see, and leaves a notebook that fails as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from pages import ROOT

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


def written(path: Path, *sources: str) -> str:
    """A notebook of these cells, none of them run, as text."""
    notebook = new_notebook(cells=[new_code_cell(s, metadata={"tags": ["kept"]}) for s in sources])
    nbformat.write(notebook, path)
    return path.read_text(encoding="utf-8")


def execute(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "notebooks" / "execute.py"), str(path)]
    return subprocess.run(command, capture_output=True, text=True)


def test_outputs_are_stored_and_nothing_about_the_run(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    (tmp_path / "beside").touch()
    written(path, "import os\nprint(os.path.exists('beside'), os.environ['CLBOOK_PROGRESS'])", "1 + 1")
    assert execute(path).returncode == 0
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    first, second = notebook.cells
    assert (first.execution_count, second.execution_count) == (1, 2)
    assert first.outputs[0].text == "True 0\n" and second.outputs[0].data["text/plain"] == "2"
    assert dict(first.metadata) == {"tags": ["kept"]}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert dict(notebook.metadata.language_info) == {"name": "python"}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import sys\nprint('beware', file=sys.stderr)", "beware"),
        ("1 / 0", "ZeroDivisionError"),
        ("import warnings\nwarnings.warn('old')", "old"),
    ],
    ids=["stderr", "error", "warning"],
)
def test_a_notebook_that_complains_is_left_as_it_was(tmp_path: Path, source: str, said: str) -> None:
    path = tmp_path / "a.ipynb"
    before = written(path, "print('fine')", source)
    done = execute(path)
    assert done.returncode == 1 and said in done.stderr
    assert path.read_text(encoding="utf-8") == before
