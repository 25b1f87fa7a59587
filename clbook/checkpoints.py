"""Going on where a run was cut short: arrays in an .npz file, no code in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Checkpoint:
    """The file of one stack of runs, written whole after each task; without a folder it does nothing."""

    def __init__(self, folder: str | os.PathLike[str] | None, number: int, fingerprint: dict[str, Any]) -> None:
        self.path = None if folder is None else Path(folder) / f"stack-{number}.npz"
        self.fingerprint = json.dumps(fingerprint, sort_keys=True)

    def save(self, stack: Any) -> None:
        """Write the stack; the old file stays until the new one is complete."""
        if self.path is None:
            return
        arrays = {f"state.{k}": v.cpu().numpy() for k, v in stack.state.items()}
        kept = next(iter(stack.optimizer.state.values()), {})
        arrays |= {f"optimizer.{k}": v.cpu().numpy() for k, v in kept.items() if isinstance(v, torch.Tensor)}
        arrays |= {f"thetas.{i}": v.numpy() for i, v in enumerate(stack.thetas)}
        arrays |= {
            "theta": stack.theta.cpu().numpy(),
            "R": stack.R,
            "alive": stack.alive.cpu().numpy(),
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
        if str(saved["fingerprint"]) != self.fingerprint:
            raise ValueError(f"{self.path} belongs to other runs: {saved['fingerprint']} instead of {self.fingerprint}. Delete it or name another folder.")
        device = stack.theta.device
        stack.theta = torch.from_numpy(saved["theta"]).to(device)
        stack.state = {k[6:]: torch.from_numpy(v).to(device) for k, v in saved.items() if k.startswith("state.")}
        stack.thetas = [torch.from_numpy(saved[f"thetas.{i}"]) for i in range(sum(k.startswith("thetas.") for k in saved))]
        stack.R, stack.alive = saved["R"], torch.from_numpy(saved["alive"]).to(device)
        stack.curve, stack.curve_steps = list(saved["curve"]), [tuple(map(int, s)) for s in saved["curve_steps"]]
        for name in ("data_rng", "method_rng"):
            for generator, state in zip(getattr(stack, name), saved[name], strict=True):
                generator.set_state(torch.from_numpy(state))
        stack.done_steps, stack.next_task, stack.seconds = int(saved["counters"][0]), int(saved["counters"][1]), float(saved["counters"][2])
        kept = {k[10:]: torch.from_numpy(v) for k, v in saved.items() if k.startswith("optimizer.")}
        if kept and stack.training.keep_optimizer:
            stack.optimizer = stack._optimizer(torch.nn.Parameter(stack.theta))
            stack.optimizer.load_state_dict(stack.optimizer.state_dict() | {"state": {0: kept}})
