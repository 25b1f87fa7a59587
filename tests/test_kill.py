"""Runs and sweeps that are killed at random moments end with the same bits as if left alone (`make fuzz`: fifty kills)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

KILLS = int(os.environ.get("CLBOOK_KILLS", "3"))
SWEEP_KILLS = int(os.environ.get("CLBOOK_KILLS", "1"))  # each costs three processes that import PyTorch
SCRIPT = """
    import sys

    import numpy as np
    import torch

    import clbook
    from clbook import checkpoints
    from clbook.methods import ER, EWC

    torch.set_num_threads(1)
    checkpoints.EVERY = 0.02  # many checkpoints within a task
    print("started", flush=True)
    scenario = clbook.split(clbook.load("digits"), 5, kind="class")
    net = clbook.mlp(64, 10, (30,), dropout=(0.1, 0.2))
    how = dict(steps=150, batch_size=16, eval_every=20, keep_optimizer=True, lr_decay=True, keep_thetas=True)
    for name, methods in {"ewc": [EWC(lam=10.0), EWC(lam=100.0)], "er": [ER(size=3)]}.items():
        folder = None if sys.argv[1] == "-" else f"{sys.argv[1]}/{name}"
        r = clbook.run(scenario, methods, 2, net=net, device="cpu", progress=False, checkpoint=folder, **how)
        np.savez(f"{sys.argv[2]}-{name}.npz", R=r.R, curve=r.curve, theta=np.stack(r.theta), thetas=np.stack(r.thetas[0]))
"""


def start(tmp_path: Path, checkpoint: str, out: str) -> subprocess.Popen:
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(script), checkpoint, str(tmp_path / out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})


def finish(process: subprocess.Popen) -> None:
    with process:
        assert process.wait(timeout=300) == 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_run_survives_being_killed(tmp_path: Path) -> None:
    begin = time.monotonic()
    finish(start(tmp_path, "-", "whole"))
    lasts, moments, killed = time.monotonic() - begin, random.Random(0), 0
    while killed < KILLS:
        with start(tmp_path, str(tmp_path / f"kept-{killed // 5}"), "again") as process:
            assert process.stdout is not None and process.stdout.readline() == b"started\n"
            time.sleep(moments.uniform(0, lasts / 4))
            killed += process.poll() is None
            process.kill()
        if killed % 5 == 0 or killed == KILLS:  # let this one go on to its end
            finish(start(tmp_path, str(tmp_path / f"kept-{(killed - 1) // 5}"), "again"))
            for name in ("ewc", "er"):
                with np.load(tmp_path / f"whole-{name}.npz") as whole, np.load(tmp_path / f"again-{name}.npz") as again:
                    for part in whole.files:
                        np.testing.assert_array_equal(again[part], whole[part])


SWEEP = """
    import sys
    from pathlib import Path

    from clbook.lab import spec
    from clbook.lab.work import sweep_here

    TOML = {
        "seeds": 3,
        "training": {"steps": 60},
        "network": {"hidden": [20]},
        "scenario": [{"data": "digits", "kind": ["task", "class"]}],
        "method": [{"name": "EWC", "lam": [1.0, 100.0]}, {"name": "ER", "size": 3}],
    }
    if __name__ == "__main__":
        print("started", flush=True)
        sweep_here(list(spec.parts(TOML, "cpu")), sys.argv[1], int(sys.argv[2]), device="cpu", progress=False)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_sweep_survives_being_killed(tmp_path: Path) -> None:
    """However often it is killed, with its two processes: every part is there once, with the bits of a serial sweep."""
    script = tmp_path / "sweep.py"
    script.write_text(textwrap.dedent(SWEEP))

    def begin(folder: str, workers: int) -> subprocess.Popen:
        command = [sys.executable, str(script), str(tmp_path / folder), str(workers)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})

    start_of = time.monotonic()
    finish(begin("serial", 1))
    lasts, moments, killed = time.monotonic() - start_of, random.Random(1), 0
    while killed < SWEEP_KILLS:
        folder = f"killed-{killed // 5}"
        with begin(folder, 2) as process:
            assert process.stdout is not None and process.stdout.readline() == b"started\n"
            time.sleep(moments.uniform(0, lasts / 2))
            killed += process.poll() is None
            process.kill()
        if killed % 5 == 0 or killed == SWEEP_KILLS:
            folder = f"killed-{(killed - 1) // 5}"
            finish(begin(folder, 2))
            serial, again = (sorted((tmp_path / name).glob("*.npz")) for name in ("serial", folder))
            assert [p.name for p in serial] == [p.name for p in again] and len(serial) > 0
            for one, other in zip(serial, again, strict=True):
                with np.load(one) as a, np.load(other) as b:
                    for name in set(a.files) - {"seconds"}:
                        np.testing.assert_array_equal(a[name], b[name])
            assert not list((tmp_path / folder).glob(".*.running")), "no claim is left behind"
