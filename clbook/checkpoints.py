"""Going on where a run was cut short. A checkpoint belongs to the runs, the data and the code that it was written by."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from clbook import code, store
from clbook.checks import InputError, short
from clbook.evaluate import Record
from clbook.net import Net
from clbook.runs import Runs
from clbook.scenarios import Scenario

if TYPE_CHECKING:
    from clbook.loop import Training

EVERY = 60.0  # seconds between two checkpoints within a task


class Checkpoint:
    """The files of one group of runs, written after each task and now and then between; without a folder it does nothing.

    The last two are kept: should the newest be cut off or altered, the one before it is taken, and a line says so.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None, number: int, runs: Runs, scenario: Scenario, training: Training
    ) -> None:
        if folder is not None and not isinstance(folder, str | os.PathLike):
            raise InputError(f"checkpoint must be the name of a folder, got {short(folder)}")
        self.folder = None if folder is None else Path(folder)
        self.name, self.saved_at = f"group-{number}", time.monotonic()
        self.belongs_to = {} if folder is None else _belongs_to(runs, scenario, training)

    def save_sometimes(self, runs: Runs, record: Record) -> None:
        """Write, if it was long ago that this was done."""
        if self.folder is not None and time.monotonic() - self.saved_at > EVERY:
            self.save(runs, record)

    def save(self, runs: Runs, record: Record) -> None:
        """Write everything that the runs need to go on."""
        if self.folder is None:
            return
        arrays = {name: v.cpu().numpy() for name, v in (runs.saved() | record.saved()).items()}
        store.write(self.folder / f"{self.name}-{record.steps:09d}", arrays, {"belongs_to": self._belongs_to(record)})
        for path in self._written()[2:]:
            for file in store.files(path):
                file.unlink(missing_ok=True)
        self.saved_at = time.monotonic()

    def restore(self, runs: Runs, record: Record, training: Training) -> None:
        """Put the runs where the newest good file left them. Raises InputError when the files are of other runs."""
        for path in self._written():
            try:
                arrays, text = store.read(path)
            except store.StoreError as error:
                print(f"clbook: {error} The checkpoint before it is used, if there is one.")
                continue
            there = text.get("belongs_to")
            self._compare(path, there if isinstance(there, dict) else {}, self._belongs_to(record))
            saved = {name: torch.from_numpy(v) for name, v in arrays.items()}
            runs.restore(saved, training)
            record.restore(saved)
            return

    def _written(self) -> list[Path]:
        """The checkpoints there are, the newest first."""
        folder = self.folder
        return [] if folder is None else sorted((p.with_suffix("") for p in folder.glob(f"{self.name}-*.json")), reverse=True)

    def _belongs_to(self, record: Record) -> dict[str, Any]:
        return self.belongs_to | {"keep_thetas": record.keep_thetas}

    def _compare(self, path: Path, there: dict[str, Any], expected: dict[str, Any]) -> None:
        for name, here in expected.items():
            if there.get(name) != here:
                raise InputError(
                    f"{path}.json belongs to other runs: {name} is {short(there.get(name))} there and {short(here)} here. "
                    "Delete the file, name another folder, or call run as before (with the same chunk, too)."
                )


def _belongs_to(runs: Runs, scenario: Scenario, training: Training) -> dict[str, Any]:
    """What must be the same for a checkpoint to be continued, as JSON has it."""
    found = {
        "code": code.digest(type(runs.method), "clbook.loop"),
        "runs": [[repr(m), seed] for m, seed in zip(runs.methods, runs.seeds, strict=True)],
        "training": asdict(training),
        "scenario": [scenario.data.name, scenario.kind, repr(scenario.likelihood), scenario.targets, fingerprint(scenario)],
        "network": [runs.net.n_params, repr(runs.net.module), code.digest(*_own_classes(runs.net.module)), *_learned(runs.net)],
        "dtype": str(runs.theta.dtype),
    }
    loaded: dict[str, Any] = json.loads(json.dumps(found, default=store.plain))
    return loaded


def _learned(net: Net) -> list[Any]:
    """How many tasks a pre-trained network knows, and a number that changes with its theta."""
    if not net.knows:
        return []
    start = net.init(0)  # a method may have put what was learned into a network of its own
    return [net.knows, hashlib.sha256(start.numpy().data).hexdigest()[:16]]


def _own_classes(module: torch.nn.Module) -> list[type]:
    """The classes of a module and its parts that are not PyTorch's."""
    found = dict.fromkeys(type(m) for m in module.modules())
    return [c for c in found if c.__module__.partition(".")[0] != "torch"]


def fingerprint(scenario: Scenario) -> str:
    """A number that changes with anything in the scenario: its data, its tasks, its permutations."""
    data, found, view = scenario.data, hashlib.sha256(repr(scenario.data.shape).encode()), {}
    if isinstance(scenario.view, torch.nn.Module):
        view = scenario.view.state_dict()
        found.update(code.digest(*_own_classes(scenario.view)).encode())
    elif inspect.isfunction(scenario.view):
        found.update(code.of_function(scenario.view).encode())
    parts = {"x": data.x, "y": data.y, "x_test": data.x_test, "y_test": data.y_test, "relabel": scenario.relabel}
    parts |= {"mask": scenario.mask} | {f"view {name}": v for name, v in view.items()}
    parts |= {f"rows {k}": rows for k, rows in enumerate((*scenario.rows, *scenario.rows_test))}
    parts |= {"in order": torch.ones(1)} if scenario.in_order else {}
    for name, tensor in parts.items():
        if tensor is not None:
            found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            found.update(tensor.detach().cpu().contiguous().numpy().data)
    return found.hexdigest()[:32]
