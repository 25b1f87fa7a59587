"""Going on where a run was cut short: arrays in an .npz file, no code in it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clbook.scenarios import Scenario


class Checkpoint:
    """The file of one stack of runs, written whole after each task; without a folder it does nothing."""

    def __init__(self, folder: str | os.PathLike[str] | None, number: int, fingerprint: dict[str, Any]) -> None:
        self.path = None if folder is None else Path(folder) / f"stack-{number}.npz"
        self.fingerprint = json.dumps(fingerprint, sort_keys=True, default=str)

    def save(self, stack: Any) -> None:
        """Write the stack; the old file stays until the new one is complete."""
        if self.path is None:
            return
        arrays = {f"state.{k}": v.cpu().numpy() for k, v in stack.state.items()}
        if stack.training.keep_optimizer:
            kept = next(iter(stack.optimizer.state.values()), {})
            arrays |= {f"optimizer.{k}": v.cpu().numpy() for k, v in kept.items() if isinstance(v, torch.Tensor)}
        arrays |= {f"thetas.{i}": v.numpy() for i, v in enumerate(stack.thetas)}
        arrays |= {
            "theta": stack.theta.cpu().numpy(),
            "R": stack.R,
            "alive": stack.alive.numpy(),
            "curve": np.array(stack.curve),
            "curve_steps": np.array(stack.curve_steps, dtype=int).reshape(-1, 2),
            "data_rng": np.stack([g.get_state().numpy() for g in stack.data_rng]),
            "method_rng": np.stack([g.get_state().numpy() for g in stack.method_rng]),
            "counters": np.array([stack.done_steps, stack.next_task, stack.seconds]),
            "fingerprint": np.array(self.fingerprint),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".part")
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
        temporary.replace(self.path)

    def restore(self, stack: Any) -> None:
        """Put the stack where the file left it. Raises ValueError when the file is of another run."""
        if self.path is None or not self.path.exists():
            return
        with np.load(self.path, allow_pickle=False) as file:
            saved = {name: file[name] for name in file.files}
        self._compare(str(saved["fingerprint"]))
        device = stack.theta.device
        stack.theta = torch.from_numpy(saved["theta"]).to(device)
        stack.state = {k[6:]: torch.from_numpy(v).to(device) for k, v in saved.items() if k.startswith("state.")}
        stack.thetas = [torch.from_numpy(saved[f"thetas.{i}"]) for i in range(sum(k.startswith("thetas.") for k in saved))]
        stack.R, stack.alive = saved["R"], torch.from_numpy(saved["alive"])
        stack.curve, stack.curve_steps = list(saved["curve"]), [tuple(map(int, s)) for s in saved["curve_steps"]]
        for name in ("data_rng", "method_rng"):
            for generator, state in zip(getattr(stack, name), saved[name], strict=True):
                generator.set_state(torch.from_numpy(state))
        done_steps, next_task, seconds = saved["counters"].tolist()
        stack.done_steps, stack.next_task, stack.seconds = int(done_steps), int(next_task), seconds
        kept = {k[10:]: torch.from_numpy(v) for k, v in saved.items() if k.startswith("optimizer.")}
        if kept:
            stack.optimizer = stack.new_optimizer(torch.nn.Parameter(stack.theta))
            stack.optimizer.load_state_dict(stack.optimizer.state_dict() | {"state": {0: kept}})

    def _compare(self, found: str) -> None:
        there, here = json.loads(found), json.loads(self.fingerprint)
        for name in here:
            old, new = there.get(name), here[name]
            if old != new:
                raise ValueError(
                    f"{self.path} belongs to other runs: {name} is {_short(old)} there and {_short(new)} here. "
                    "Delete the file, name another folder, or call run as before (with the same chunk, too)."
                )


def digest(scenario: Scenario) -> str:
    """A number that changes with anything in the scenario: its data, its tasks, its permutations."""
    data, found = scenario.data, hashlib.md5(usedforsecurity=False)
    tensors = [data.x, data.y, data.x_test, data.y_test, *scenario.rows, *scenario.rows_test, scenario.relabel, scenario.mask]
    for tensor in [*tensors, *(scenario.view_state[k] for k in sorted(scenario.view_state))]:
        if tensor is not None:
            found.update(str(tuple(tensor.shape)).encode())
            found.update(tensor.detach().cpu().contiguous().numpy())
    return found.hexdigest()


def _short(value: Any, most: int = 300) -> str:
    text = json.dumps(value)
    return text if len(text) <= most else f"{text[:most]}..."
