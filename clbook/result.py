"""What a run leaves: the accuracy matrix R of every run, and where it came from."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from clbook import metrics

SUMMARY = {
    "accuracy": metrics.average_accuracy,
    "forgetting": metrics.forgetting,
    "bwt": metrics.backward_transfer,
}


@dataclass(frozen=True)
class Result:
    """The outcome of `run`.

    R [runs, T, T]: accuracy on task j (last axis) after training on task i; NaN above the diagonal unless asked for.
    curve [runs, E, T]: accuracy during training, measured at curve_steps [E, 2] = (task being trained, steps done in all).
    runs: one dict per run, with the method's name, its fields and the seed. theta: each run's final parameters [P];
    thetas: those after each task, if kept. memory_bytes, seconds: per run. info: provenance.
    """

    R: np.ndarray
    curve: np.ndarray
    curve_steps: np.ndarray
    runs: list[dict[str, Any]]
    names: list[str]
    memory_bytes: np.ndarray
    seconds: np.ndarray
    info: dict[str, Any]
    theta: list[Tensor]
    thetas: list[list[Tensor]]

    @classmethod
    def join(cls, outcomes: Sequence[Any], jobs: Sequence[tuple[Any, int]], scenario: Any, info: dict[str, Any]) -> Result:
        """One Result from the outcomes of single runs."""
        runs = [{"method": m.label, **{f.name: getattr(m, f.name) for f in fields(m)}, "seed": seed} for m, seed in jobs]
        return cls(
            R=np.stack([o.R for o in outcomes]),
            curve=np.stack([o.curve for o in outcomes]),
            curve_steps=outcomes[0].curve_steps,
            runs=runs,
            names=list(scenario.names),
            memory_bytes=np.array([o.memory_bytes for o in outcomes]),
            seconds=np.array([o.seconds for o in outcomes]),
            info=info,
            theta=[o.theta for o in outcomes],
            thetas=[o.thetas for o in outcomes],
        )

    def pick(self, **wanted: Any) -> Result:
        """The runs whose method, fields or seed have these values, e.g. pick(method="EWC", lam=100.0).

        Raises ValueError when there is none.
        """
        keep = [i for i, r in enumerate(self.runs) if all(k in r and r[k] == v for k, v in wanted.items())]
        if not keep:
            raise ValueError(f"no run has {wanted}; the runs are {self.runs}")
        lists = {n: getattr(self, n) for n in ("runs", "theta", "thetas")}  # a loaded result holds no theta
        return replace(
            self,
            **{n: getattr(self, n)[keep] for n in ("R", "curve", "memory_bytes", "seconds")},
            **{n: [v[i] for i in keep] if v else [] for n, v in lists.items()},
        )

    def frame(self) -> pd.DataFrame:
        """A tidy table: one row per run, trained task and tested task, with the accuracy; NaN left out."""
        rows = [
            {**run, "after": i, "task": j, "accuracy": self.R[r, i, j]}
            for r, run in enumerate(self.runs)
            for i in range(self.R.shape[1])
            for j in range(self.R.shape[2])
            if not np.isnan(self.R[r, i, j])
        ]
        return pd.DataFrame(rows)

    def summary(self) -> pd.DataFrame:
        """A table with one row per method and its fields: the mean over seeds and its 95 % interval, in percent.

        The columns are accuracy, forgetting and backward transfer; NaN where a run diverged.
        """
        R, rows = 100 * self.R, []
        keys = [tuple((k, v) for k, v in r.items() if k != "seed") for r in self.runs]
        for key in dict.fromkeys(keys):
            picked = R[[i for i, k in enumerate(keys) if k == key]]
            row: dict[str, Any] = dict(key) | {"runs": len(picked)}
            for name, f in SUMMARY.items():
                row[name], row[f"{name} ±"] = (float(v) for v in metrics.interval(np.asarray(f(picked))))
            rows.append(row)
        return pd.DataFrame(rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write PATH.npz (numbers) and PATH.json (runs and provenance); theta is not written."""
        numbers, words = _files(path)
        numbers.parent.mkdir(parents=True, exist_ok=True)
        names = ("R", "curve", "curve_steps", "memory_bytes", "seconds")
        np.savez_compressed(numbers, **{n: getattr(self, n) for n in names})
        text = {"runs": self.runs, "names": self.names, "info": self.info}
        words.write_text(json.dumps(text, indent=1, default=_plain) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Result:
        """Read what `save` wrote."""
        numbers, words = _files(path)
        text = json.loads(words.read_text(encoding="utf-8"))
        text["runs"] = [{k: tuple(v) if isinstance(v, list) else v for k, v in r.items()} for r in text["runs"]]
        with np.load(numbers, allow_pickle=False) as arrays:
            return cls(**{n: arrays[n] for n in arrays.files}, **text, theta=[], thetas=[])


def _files(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """PATH.npz and PATH.json; a PATH such as "lam-0.5" keeps its dot."""
    stem = str(path).removesuffix(".npz").removesuffix(".json")
    return Path(f"{stem}.npz"), Path(f"{stem}.json")


def _plain(value: Any) -> Any:
    """A NumPy number as Python's own, which JSON knows; anything else as its text."""
    return value.item() if isinstance(value, np.generic) else str(value)


def provenance(
    training: Any, scenario: Any, device: torch.device, dtype: torch.dtype, seconds: float, net: Any
) -> dict[str, Any]:
    """Where numbers came from: settings, versions, device, wall time in seconds, git commit."""
    import clbook

    return {
        "training": asdict(training),
        "scenario": {
            "data": scenario.data.name,
            "kind": scenario.kind,
            "tasks": len(scenario),
            "training samples": sum(len(r) for r in scenario.rows),
        },
        "n_params": net.n_params,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})",
        "dtype": str(dtype).removeprefix("torch."),
        "seconds": round(seconds, 1),
        "versions": {"clbook": clbook.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "commit": _commit(),
    }


@lru_cache
def _commit() -> str | None:
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
