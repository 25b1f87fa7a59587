"""What a run leaves: the accuracy matrix R of every run, and where it came from."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clbook import metrics, store
from clbook.checks import InputError, short
from clbook.evaluate import Outcome
from clbook.method import Method
from clbook.scenarios import Scenario
from clbook.version import __version__

if TYPE_CHECKING:
    import pandas as pd  # elsewhere where it is needed: it takes longer to import than all of clbook

PER_RUN = ("R", "curve", "memory_bytes", "seconds", "n_params")  # the arrays with a leading axis of runs
ARRAYS = (*PER_RUN, "curve_steps")
SUMMARY = {
    "accuracy": metrics.average_accuracy,
    "forgetting": metrics.forgetting,
    "bwt": metrics.backward_transfer,
}


@dataclass(frozen=True)
class Result:
    """The outcome of `run`.

    R [runs, T, T]: score on task j (last axis) after training on task i, accuracy for classes; NaN above the diagonal unless
    asked for. curve [runs, E, T]: the same during training, at curve_steps [E, 2] = (task being trained, steps done in all).
    runs: one dict per run, with the method's name, its fields and the seed. theta: each run's final parameters [P];
    thetas: those after each task, if kept. memory_bytes, seconds, n_params (of the network trained): per run. info: provenance.
    """

    R: np.ndarray
    curve: np.ndarray
    curve_steps: np.ndarray
    runs: list[dict[str, Any]]
    names: list[str]
    memory_bytes: np.ndarray
    seconds: np.ndarray
    n_params: np.ndarray
    info: dict[str, Any]
    theta: list[Tensor]
    thetas: list[list[Tensor]]

    @classmethod
    def join(
        cls, outcomes: Sequence[Outcome], jobs: Sequence[tuple[Method, int]], scenario: Scenario, info: dict[str, Any]
    ) -> Result:
        """One Result from the outcomes of single runs."""
        return cls(
            **{name: np.stack([getattr(o, name) for o in outcomes]) for name in PER_RUN},
            curve_steps=outcomes[0].curve_steps,
            runs=[{"method": m.label, **{f.name: getattr(m, f.name) for f in fields(m)}, "seed": seed} for m, seed in jobs],
            names=list(scenario.names),
            info=info,
            theta=[o.theta for o in outcomes],
            thetas=[o.thetas for o in outcomes],
        )

    def pick(self, **wanted: Any) -> Result:
        """The runs whose method, fields or seed have these values, e.g. pick(method="EWC", lam=100.0).

        Raises InputError when there is none.
        """
        keep = [i for i, r in enumerate(self.runs) if all(k in r and r[k] == v for k, v in wanted.items())]
        if not keep:
            raise InputError(f"no run has {wanted}; the runs are {short(self.runs, 2000)}")
        picked: dict[str, Any] = {n: getattr(self, n)[keep] for n in PER_RUN}
        lists = {n: getattr(self, n) for n in ("runs", "theta", "thetas")}  # a loaded result holds no theta
        picked |= {n: [v[i] for i in keep] if v else [] for n, v in lists.items()}
        return replace(self, **picked)

    def frame(self) -> pd.DataFrame:
        """A tidy table: one row per run, trained task and tested task, with the accuracy; NaN left out."""
        import pandas as pd

        rows = [
            {**run, "after": i, "task": j, "accuracy": self.R[r, i, j]}
            for r, run in enumerate(self.runs)
            for i in range(self.R.shape[1])
            for j in range(self.R.shape[2])
            if not np.isnan(self.R[r, i, j])
        ]
        return pd.DataFrame(rows)

    def summary(self) -> pd.DataFrame:
        """A table with one row per method and its fields: the mean over seeds and its 95 % interval, accuracies in percent.

        The columns are accuracy (or what the score is instead), forgetting and backward transfer; NaN where a run diverged.
        """
        import pandas as pd

        score = self.info["scenario"].get("score", "accuracy")
        R, rows = (100 if score == "accuracy" else 1) * self.R, []
        keys = [tuple((k, v) for k, v in r.items() if k != "seed") for r in self.runs]
        for key in dict.fromkeys(keys):
            picked = R[[i for i, k in enumerate(keys) if k == key]]
            row: dict[str, Any] = dict(key) | {"runs": len(picked)}
            for quantity, f in SUMMARY.items():
                name = score if quantity == "accuracy" else quantity
                row[name], row[f"{name} ±"] = (float(v) for v in metrics.interval(np.asarray(f(picked))))
            rows.append(row)
        return pd.DataFrame(rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write PATH.npz (numbers) and PATH.json (runs and provenance); theta is not written."""
        store.write(path, self.arrays(), self.words())

    def arrays(self) -> dict[str, np.ndarray]:
        """The numbers that are stored, by name."""
        return {n: getattr(self, n) for n in ARRAYS}

    def words(self) -> dict[str, Any]:
        """What is stored beside the numbers."""
        return {"runs": self.runs, "names": self.names, "info": self.info}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Result:
        """Read what `save` wrote. Raises StoreError for a file that is cut off, altered or something else."""
        try:
            return cls.of(*store.read(path))
        except KeyError as error:
            raise store.StoreError(f"{store.files(path)[1]} is no result of clbook {__version__}: it has no {error}") from error

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray], words: dict[str, Any]) -> Result:
        """A result from its stored arrays and words. Raises KeyError where some are missing."""
        runs = [{k: tuple(v) if isinstance(v, list) else v for k, v in r.items()} for r in words["runs"]]
        return cls(
            **{n: arrays[n] for n in ARRAYS}, runs=runs, names=words["names"], info=words["info"], theta=[], thetas=[]
        )


def provenance(training: Any, scenario: Scenario, dtype: torch.dtype, seconds: float) -> dict[str, Any]:
    """Where numbers came from: settings, versions, device, wall time in seconds, git commit."""
    device = scenario.device
    return {
        "training": asdict(training),
        "scenario": {
            "data": scenario.data.name,
            "kind": scenario.kind,
            "score": scenario.likelihood.measure,
            "tasks": len(scenario),
            "training samples": sum(len(r) for r in scenario.rows),
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})",
        "dtype": str(dtype).removeprefix("torch."),
        "seconds": round(seconds, 1),
        "versions": {"clbook": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "commit": commit(),
    }


@cache
def commit() -> str | None:
    """The commit of the checkout this package lies in, if it lies in one."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        tracked = subprocess.run([*command[:3], "ls-files", "--error-unmatch", "__init__.py"], capture_output=True, check=False)
        if tracked.returncode:
            return None
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
