"""Run notebooks and store their outputs: `python notebooks/execute.py [notebook ...]`, by default all of them.

What is stored is what a reader sees and nothing else: no times, no kernel's details. A notebook that raises, or that
writes to stderr, is left as it was, and the command fails.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path) -> None:
    """Run one notebook in its own folder and write it back with its outputs. Raises RuntimeError where it fails."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = nbformat.from_dict(METADATA)
    here = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, timeout=None, resources=here, store_widget_state=False)
    try:
        client.execute()
    except CellExecutionError as error:
        raise RuntimeError(str(error)) from None
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    complaints = [text for cell in notebook.cells for text in stderr(cell)]
    if complaints:
        raise RuntimeError("it wrote to stderr:\n" + "\n".join(complaints))
    nbformat.write(notebook, path)


def stderr(cell: nbformat.NotebookNode) -> list[str]:
    """What a cell wrote to stderr."""
    return [out["text"] for out in cell.get("outputs", []) if out["output_type"] == "stream" and out["name"] == "stderr"]


def main(names: list[str]) -> int:
    """Run the named notebooks, or all; the number of those that failed."""
    os.environ.setdefault("CLBOOK_PROGRESS", "0")  # bars would be stored
    failed = 0
    for path in [Path(n) for n in names] or sorted(Path(__file__).parent.glob("*.ipynb")):
        started = time.perf_counter()
        try:
            execute(path.resolve())
            print(f"{path}: {time.perf_counter() - started:.0f} s", flush=True)
        except RuntimeError as error:
            failed += 1
            print(f"{path} failed and is left as it was: {error}", file=sys.stderr, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
