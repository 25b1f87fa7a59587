"""A run that is killed at random moments ends with the same bits as one that was left alone (`make fuzz`: fifty kills)."""

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
