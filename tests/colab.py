"""Run the notebooks as Colab does: `make test-colab`, or `python tests/colab.py [--preset quick] [notebook ...]`.

An environment that holds what Colab brings and nothing of this repository; for every notebook an empty folder, and a package
that is not there yet. Its first cell installs it from the address that stands in it, for which git is handed a bare clone of
what is committed here. Then the other cells run, from top to bottom. Everything is made in a folder of its own, by default in
_build/colab, and the environment in it is used again.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
KERNEL = "as-in-colab"
# of the environment of Colab, what has to do with the book
BRINGS = (
    "torch", "torchvision", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "scikit-learn", "tqdm", "pydantic",
    "ipykernel", "ipython", "ipywidgets",
)  # fmt: skip


def environment(folder: Path) -> Path:
    """The Python of an environment with what Colab brings, and a kernel of that name."""
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-c", ROOT / "constraints.txt", *BRINGS], check=True)
        subprocess.run([python, "-m", "ipykernel", "install", "--prefix", folder, "--name", KERNEL], check=True)
        (folder / "brings.txt").write_text(frozen(python), encoding="utf-8")
        (folder / "complete").touch()
    return python


def frozen(python: Path) -> str:
    """What is installed, one package a line."""
    return subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout


def forget(python: Path, brings: str) -> None:
    """Remove what a notebook has installed."""
    more = [re.split("==| @ ", line)[0] for line in frozen(python).splitlines() if line not in brings.splitlines()]
    if more:
        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", *more], check=True)


def as_published(bare: Path) -> dict[str, str]:
    """Variables with which git finds the bare clone where it is asked for the address of the book."""
    url = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    return {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{bare.as_uri()}.insteadOf", "GIT_CONFIG_VALUE_0": url}


def run(notebook: Path, folder: Path) -> None:
    """Run every cell in that folder. Raises CellExecutionError, and RuntimeError where clbook did not come from the clone."""
    cells = nbformat.read(notebook, as_version=4)
    where = "import pathlib, clbook; print(pathlib.Path(clbook.__file__).parents[1])"
    cells.cells.append(nbformat.v4.new_code_cell(where, id="where"))
    NotebookClient(cells, timeout=None, kernel_name=KERNEL, resources={"metadata": {"path": str(folder)}}).execute()
    found = Path(cells.cells[-1].outputs[0]["text"].strip())
    if found == ROOT or found.name != "site-packages":
        raise RuntimeError(f"clbook came from {found}")


def main() -> int:
    """The number of notebooks that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="by default all of them")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--folder", type=Path, default=ROOT / "_build" / "colab")
    told = parser.parse_args()
    folder = told.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    python = environment(folder / "env")
    bare = folder / "clbook.git"
    shutil.rmtree(bare, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", "--bare", ROOT, bare], check=True)
    for name in [n for n in os.environ if n.startswith(("PYTHON", "CLBOOK_")) and n != "CLBOOK_DATA"]:
        del os.environ[name]
    os.environ.update(as_published(bare), CLBOOK_PRESET=told.preset, JUPYTER_PATH=str(folder / "env" / "share" / "jupyter"))
    failed = 0
    for notebook in told.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb")):
        forget(python, (folder / "env" / "brings.txt").read_text(encoding="utf-8"))
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as empty:
            try:
                run(notebook, Path(empty))
                print(f"{notebook.name}: {time.perf_counter() - started:.0f} s", flush=True)
            except (CellExecutionError, RuntimeError) as error:
                failed += 1
                print(f"{notebook.name} failed: {error}", file=sys.stderr, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
