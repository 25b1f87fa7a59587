"""How far another run's numbers lie from the printed ones: `make test-bands`, or `python tests/bands.py [notebook ...]`.

Every notebook is run as it stands, then with other seeds, with two threads and with the oldest PyTorch that is allowed. The
numbers in its printed outputs are paired by cell and position. Each has a band:

* "a ± b" is one already: another "c ± d" lies inside if |a - c| <= sqrt(b^2 + d^2);
* any other number has x ± t s sqrt(2), where s is its standard deviation over n runs, as it stands and with the seeds MEASURED,
  and t the 97.5 % quantile of Student's distribution with n - 1 degrees of freedom: so far apart are two runs, in at least 95 %
  of cases.

A last printed digit more or less is inside, but an integer that no seed moves must stay what it is. A seed that was not used to
measure a band, the threads and the PyTorch are then held against it. What was found is written to benchmarks/bands.json, and
into the table of book/about.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbclient import NotebookClient
from scipy.stats import t as student

ROOT = Path(__file__).resolve().parents[1]
FOUND, PAGE = ROOT / "benchmarks" / "bands.json", ROOT / "book" / "about.md"
MEASURED, APART = (1000, 2000, 3000), 4000
OLDEST = ROOT / ".venv-oldest" / "bin" / "python"
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(?:\s*±\s*\d+(?:\.\d+)?)?")

# Runs before the first cell. Every seed that reaches a generator is another one; how the data were split stays as it was.
SHIFT = """
import sys

import numpy as np
import torch


def shifted(seed):
    return seed if sys._getframe(2).f_globals.get("__name__") == "clbook.data" else (int(seed) + {shift}) % 2**63


class Generator(torch.Generator):
    def manual_seed(self, seed):
        return super().manual_seed(shifted(seed))


class Default:
    def __init__(self, real):
        self.real = real

    def __getattr__(self, name):
        return getattr(self.real, name)

    def manual_seed(self, seed):
        return self.real.manual_seed(shifted(seed))


def default_rng(seed=None, real=np.random.default_rng):
    return real(shifted(seed) if isinstance(seed, int) else seed)


torch.Generator, np.random.default_rng = Generator, default_rng
torch.default_generator = torch.random.default_generator = Default(torch.default_generator)
"""


@dataclass(frozen=True)
class Number:
    """A printed number, half the width of the interval printed with it, and what one more in its last digit is worth."""

    value: float
    half: float | None
    unit: float

    @classmethod
    def read(cls, text: str) -> Number:
        mean, _, half = text.replace(",", "").replace("−", "-").partition("±")
        digits, _, exponent = mean.strip().partition("e")
        decimals = len(digits.partition(".")[2])
        return cls(float(mean), float(half) if half else None, 10.0 ** (int(exponent or 0) - decimals))


def numbers(text: str) -> list[Number]:
    """All numbers of a printed text, in order."""
    return [Number.read(found) for found in NUMBER.findall(text)]


def words(text: str) -> str:
    """The text without its numbers and without what only lays it out."""
    return " ".join(re.sub(r"[-\\[\]]+", " ", NUMBER.sub("#", text)).split())


def printed(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """What each cell prints, by the cell's id; figures have no part in it."""
    found = {}
    for cell in notebook.cells:
        outputs = [o for o in cell.get("outputs", []) if "image/png" not in o.get("data", {})]
        text = "".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs if o.output_type != "error")
        if NUMBER.search(text):
            found[cell.id] = text
    return found


def band(values: list[float], unit: float) -> float:
    """How far one more value may lie from any of these in 95 % of cases, and a last digit unless all are the same integer."""
    s = float(np.std(values, ddof=1))
    return float(student.ppf(0.975, len(values) - 1)) * s * math.sqrt(2) + unit if s > 0 or unit < 1 else 0.0


def inside(ours: Number, theirs: Number, half: float) -> bool:
    """Whether their number lies in the band of ours: that of the printed intervals, else `half`."""
    if ours.half is not None and theirs.half is not None:
        half = math.hypot(ours.half, theirs.half) + ours.unit
    return abs(ours.value - theirs.value) <= half * (1 + 1e-9)


@dataclass(frozen=True)
class Run:
    """What a notebook printed in one setting, the ids of the cells that raised, and the seconds it took."""

    printed: dict[str, str]
    raised: list[str]
    seconds: float


def execute(path: Path, preset: str, *, shift: int = 0, threads: int = 1, python: Path = Path(sys.executable)) -> Run:
    """Run a notebook with other seeds, threads, or another Python; a cell that raises does not stop it."""
    notebook, started = nbformat.read(path, as_version=4), time.perf_counter()
    if shift:
        notebook.cells.insert(0, nbformat.v4.new_code_cell(SHIFT.format(shift=shift), id="shift"))
    one = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    variables = one | {"CLBOOK_PRESET": preset, "CLBOOK_PROGRESS": "0", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        kernel = Path(folder, "kernels", "bands", "kernel.json")
        kernel.parent.mkdir(parents=True)
        argv = [str(python), "-m", "ipykernel_launcher", "--log-level=ERROR", "-f", "{connection_file}"]
        kernel.write_text(json.dumps({"argv": argv, "env": variables, "display_name": "bands", "language": "python"}))
        os.environ["JUPYTER_PATH"] = folder
        here = {"metadata": {"path": str(path.parent)}}
        NotebookClient(notebook, timeout=None, kernel_name="bands", allow_errors=True, resources=here).execute()
    raised = [cell.id for cell in notebook.cells if any(o.output_type == "error" for o in cell.get("outputs", []))]
    return Run(printed(notebook), raised, time.perf_counter() - started)


def bands(runs: list[Run]) -> dict[str, list[float]]:
    """Half the width of the band of every number, for cells that print the same words in all runs."""
    found = {}
    for cell, text in runs[0].printed.items():
        if all(words(run.printed.get(cell, "")) == words(text) for run in runs):
            each = [numbers(run.printed[cell]) for run in runs]
            found[cell] = [band([n.value for n in column], column[0].unit) for column in zip(*each, strict=True)]
    return found


def compare(ours: Run, theirs: Run, half: dict[str, list[float]]) -> dict[str, Any]:
    """How many numbers lie inside their bands, which do not, which cells print other words, and which raised."""
    count, outside, other = 0, [], []
    for cell, text in ours.printed.items():
        if cell not in half or words(theirs.printed.get(cell, "")) != words(text):
            other.append(cell)
            continue
        pairs = list(zip(numbers(text), numbers(theirs.printed[cell]), half[cell], strict=True))
        count += len(pairs)
        wrong = [[a.value, b.value, h] for a, b, h in pairs if not inside(a, b, h)]
        if wrong:
            outside.append({"cell": cell, "numbers": len(pairs), "ours, theirs, band": wrong})
    lost = sum(len(one["ours, theirs, band"]) for one in outside)
    return {"compared": count, "inside": count - lost, "outside": outside, "other words": other, "raised": theirs.raised}


def examine(path: Path, preset: str) -> dict[str, Any]:
    """Everything about one notebook."""
    ours = execute(path, preset)
    print(f"{path.name}: {ours.seconds:.0f} s as it stands", flush=True)
    others = [execute(path, preset, shift=shift) for shift in MEASURED]
    half = bands([ours, *others])
    settings: dict[str, dict[str, Any]] = {"another seed": {"shift": APART}, "two threads": {"threads": 2}}
    if OLDEST.exists():
        settings["oldest PyTorch"] = {"python": OLDEST}
    compared = {}
    for name, how in settings.items():
        compared[name] = compare(ours, execute(path, preset, **how), half)
        print(f"  {name}: {compared[name]['inside']} of {compared[name]['compared']} inside", flush=True)
    values = {cell: [number.value for number in numbers(ours.printed[cell])] for cell in half}
    cells = {cell: [list(pair) for pair in zip(values[cell], half[cell], strict=True)] for cell in half}
    raised = {"raised as it stands": ours.raised, "raised while measured": sorted({c for one in others for c in one.raised})}
    return {"preset": preset, **raised, "settings": compared, "value, band": cells}


# the page ---------------------------------------------------------------------------------------------------------------------


def table(found: dict[str, Any]) -> str:
    """A row for each notebook: how many of its numbers lay inside their bands, setting by setting; then what did not."""
    heads = list(dict.fromkeys(name for one in found.values() for name in one["settings"]))
    lines = [f"| notebook | size | {' | '.join(heads)} |", "| --- | --- |" + " --- |" * len(heads)]
    for notebook, one in sorted(found.items()):
        each = [one["settings"].get(head) for head in heads]
        counts = " | ".join(f"{c['inside']} of {c['compared']}" if c else "not run" for c in each)
        lines.append(f"| [{notebook}](../notebooks/{notebook}.ipynb) | `{one['preset']}` | {counts} |")
    return "\n".join([*lines, "", *exceptions(found)])


def exceptions(found: dict[str, Any]) -> list[str]:
    """By notebook, the cells with numbers outside, those that printed other words, and those whose check failed."""
    lines = []
    for notebook, one in sorted(found.items()):
        said = []
        for setting, result in one["settings"].items():
            parts = [f"`{o['cell']}` ({len(o['ours, theirs, band'])} of {o['numbers']})" for o in result["outside"]]
            new = [cell for cell in result["other words"] if cell in one["value, band"]]
            raised = [cell for cell in result["raised"] if cell not in one["raised as it stands"]]
            parts += [f"`{cell}` prints other words" for cell in new] + [f"the check `{cell}` fails" for cell in raised]
            if parts:
                said.append(f"{setting}: {', '.join(parts)}")
        if one["raised while measured"]:
            checks = ", ".join(f"`{cell}`" for cell in one["raised while measured"])
            said.append(f"checks that failed with one of the three seeds by which the bands were measured: {checks}")
        first = next(iter(one["settings"].values()))
        if loose := [cell for cell in first["other words"] if cell not in one["value, band"]]:
            said.append("no band, because other seeds print other words: " + ", ".join(f"`{cell}`" for cell in loose))
        if said:
            lines.append(f"* {notebook}: {'; '.join(said)}.")
    return lines


def publish(found: dict[str, Any]) -> None:
    """Write the file and the table of the page."""
    FOUND.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition("% bands: begin\n")
    after = rest.partition("% bands: end\n")[2]
    PAGE.write_text(f"{before}% bands: begin\n\n{table(found)}\n\n% bands: end\n{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="by default all of them; what is known of others stays")
    parser.add_argument("--preset", default=os.environ.get("CLBOOK_PRESET") or "quick")
    told = parser.parse_args()
    found = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.exists() else {}
    if not OLDEST.exists():
        print("The oldest PyTorch is left out: `make test-oldest` installs it.", flush=True)
    for path in told.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb")):
        found[path.stem] = examine(path.resolve(), told.preset)
        publish(found)


if __name__ == "__main__":
    main()
