"""Sweeps: what a spec means, what is kept, and what survives a death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small import refused

from clbook import Training, store
from clbook.checks import InputError
from clbook.lab import parts as parts_module
from clbook.lab import spec
from clbook.lab.executors import Submitit, executor
from clbook.lab.parts import Part, Shape, Stream, parts_of
from clbook.lab.work import Here, SweepError, claimed, compute, status, sweep, sweep_here
from clbook.methods import EWC, MAS, Finetune

STREAM = Stream("split", "digits", 2, "domain")
SPEC = {
    "seeds": 2,
    "training": {"steps": 5, "batch_size": 16},
    "network": {"hidden": [6]},
    "scenario": [{"name": "split", "data": "digits", "tasks": 2, "kind": ["task", "domain"]}],
    "method": [{"name": "EWC", "lam": [1.0, 100.0], "n_samples": 20}, {"name": "Finetune"}],
}


def small(steps: int = 5, seeds: int = 4) -> list[Part]:
    """One part a seed, for each of two methods."""
    training, shape = Training(steps=steps, batch_size=16), Shape(hidden=(6,))
    return [Part(STREAM, shape, training, (m,), (s,)) for m in (Finetune(), EWC(lam=10.0, n_samples=20)) for s in range(seeds)]


def accuracies(parts: list[Part], folder: Path) -> np.ndarray:
    return np.stack([part.load(folder).R for part in parts])


def test_a_spec_is_every_combination_once() -> None:
    runs = [(p.stream.kind, m, s) for p in spec.parts(SPEC) for m in p.methods for s in p.seeds]
    methods = [EWC(lam=1.0, n_samples=20), EWC(lam=100.0, n_samples=20), Finetune()]
    assert sorted(map(repr, runs)) == sorted(repr((k, m, s)) for k in ("task", "domain") for m in methods for s in (0, 1))


def test_small_networks_share_a_part_and_wide_ones_do_not() -> None:
    training = Training(steps=5)
    methods = [EWC(lam=lam) for lam in (1.0, 2.0, 3.0)]
    small = list(parts_of(STREAM, Shape(hidden=(6,)), training, methods, range(4), "cpu"))
    wide = list(parts_of(STREAM, Shape(hidden=(2000, 2000)), training, methods, range(4), "cpu"))
    assert len(small) == 1 and len(small[0].methods) * len(small[0].seeds) == 12
    assert [len(p.methods) * len(p.seeds) for p in wide] == [1] * 12


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sedes": 3}, "sedes"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": "x"}, "seeds"),
        ({"training": {"steps": 5, "learning_rate": 1}}, "learning_rate"),
        ({"training": {"steps": -5}}, "Training.steps"),
        ({"training": []}, "training"),
        ({"network": {"hidden": [0]}}, "Shape.hidden"),
        ({"scenario": []}, "scenario"),
        ({"scenario": [{"name": "spilt"}]}, "Stream.name"),
        ({"method": [{"name": "EWCC", "lam": 1.0}]}, "EWCC"),
        ({"method": [{"name": "EWC"}]}, "lam"),
        ({"method": [{"name": "EWC", "lam": [1.0, -1.0]}]}, "EWC.lam"),
        ({"method": [{"name": "EWC", "lam": []}]}, "lam"),
    ],
)
def test_a_spec_with_a_mistake_is_refused_by_name(change: dict, says: str) -> None:
    with refused(says):
        list(spec.parts(SPEC | change))


def test_a_list_is_one_value_where_the_field_holds_several() -> None:
    found = list(spec.parts(SPEC | {"method": [{"name": "MAS", "lam": 1.0, "only": [0, 1]}]}))
    assert {m.only for p in found for m in p.methods} == {(0, 1)}
    found = list(spec.parts(SPEC | {"method": [{"name": "MAS", "lam": 1.0, "only": [[0], [0, 1]]}]}))
    assert {m.only for p in found for m in p.methods} == {(0,), (0, 1)}


def test_the_key_knows_the_fields_and_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    part = small()[0]
    changes = {"seeds": (9,)}, {"training": Training(steps=6)}, {"stream": replace(STREAM, tasks=5)}
    others = [replace(part, **change) for change in changes]
    assert len({part.key, *(p.key for p in others)}) == 4
    before = part.key
    monkeypatch.setattr(parts_module.code, "digest", lambda *owners: "another")
    assert part.key != before


def test_stacked_and_apart_give_the_same(tmp_path: Path) -> None:
    together = Part(STREAM, Shape(hidden=(6,)), Training(steps=5), (MAS(lam=1.0, n_samples=20),), (0, 1, 2))
    apart = [replace(together, seeds=(s,)) for s in together.seeds]
    sweep([together, *apart], tmp_path, Here(), progress=False)
    np.testing.assert_array_equal(together.load(tmp_path).R, np.concatenate([p.load(tmp_path).R for p in apart]))


def test_what_is_kept_is_not_computed_again_and_what_is_damaged_is(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    parts = small(seeds=2)
    sweep(parts, tmp_path, Here(), progress=False)
    good = accuracies(parts, tmp_path)
    times = {f: f.stat().st_mtime_ns for f in tmp_path.glob("*.npz")}
    damaged = store.files(tmp_path / parts[1].key)[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert status(parts, tmp_path).damaged == [parts[1].key]
    sweep(parts, tmp_path, Here(), progress=False)
    assert parts[1].key in capsys.readouterr().out
    np.testing.assert_array_equal(accuracies(parts, tmp_path), good)
    assert {f for f in times if f.stat().st_mtime_ns != times[f]} == {damaged}


def test_one_part_that_fails_costs_no_other(tmp_path: Path) -> None:
    parts = small(seeds=2)
    bad = replace(parts[0], stream=Stream("split", "no such data", 2, "domain"))
    with pytest.raises(SweepError, match=r"1 of 5 .* no such data"):
        sweep([bad, *parts], tmp_path, Here(), progress=False)
    assert len(status(parts, tmp_path).done) == 4


def test_a_part_that_another_computes_is_left_to_it(tmp_path: Path) -> None:
    part = small()[0]
    with claimed(tmp_path / part.key) as mine, claimed(tmp_path / part.key) as theirs:
        assert (mine, theirs) == (True, False)
        assert status([part], tmp_path).running == [part.key]
    assert status([part], tmp_path).missing == [part.key]


def test_the_claim_of_a_dead_process_does_not_count(tmp_path: Path) -> None:
    part = small()[0]
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    import socket

    (tmp_path / f".{part.key}.running").write_text(f"{socket.gethostname()} {gone.pid}")
    assert status([part], tmp_path).missing == [part.key]
    compute(part, str(tmp_path), "cpu")
    assert status([part], tmp_path).done == [part.key]


def test_code_that_changed_meanwhile_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="not that with which the sweep began"):
        compute(small()[0], str(tmp_path), "cpu", "another key")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written to"):
        sweep(small(), tmp_path / "file" / "folder", Here(), progress=False)


def test_processes_give_what_one_process_gives(tmp_path: Path) -> None:
    parts = small()
    sweep_here(parts, tmp_path / "two", 2, device="cpu", progress=False)
    sweep(parts, tmp_path / "one", Here(), device="cpu", progress=False)
    np.testing.assert_array_equal(accuracies(parts, tmp_path / "two"), accuracies(parts, tmp_path / "one"))


SLOW = """
    from pathlib import Path
    import sys
    sys.path.insert(0, {tests!r})
    from test_sweep import small
    from clbook.lab.work import sweep_here
    if __name__ == "__main__":
        sweep_here(small(steps=400, seeds=3), {folder!r}, 2, device="cpu", progress=False)
"""


def children(pid: int) -> list[int]:
    """The processes that a process started, by /proc."""
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(c) for c in tasks.read_text().split()] if tasks.exists() else []


def working(pid: int) -> list[int]:
    """Those of them that compute, and not the one that only watches over shared resources."""
    return [c for c in children(pid) if b"resource_tracker" not in Path(f"/proc/{c}/cmdline").read_bytes()]


def started(tmp_path: Path, folder: Path) -> subprocess.Popen:
    script = tmp_path / "slow.py"
    script.write_text(textwrap.dedent(SLOW.format(tests=str(Path(__file__).parent), folder=str(folder))))
    process = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"OMP_NUM_THREADS": "1"})
    wait_for(lambda: any(folder.glob("*.json")), process)
    return process


def wait_for(true, process: subprocess.Popen, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end and process.poll() is None, "nothing came of it"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_worker_that_is_killed_costs_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    process = started(tmp_path, folder)
    os.kill(working(process.pid)[0], signal.SIGKILL)
    assert process.wait(timeout=120) == 0
    parts = small(steps=400, seeds=3)
    assert len(status(parts, folder).done) == len(parts)
    assert not list(folder.glob("*.part")), "nothing half-written is left"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_workers_end_with_their_parent_and_the_sweep_goes_on_later(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    process = started(tmp_path, folder)
    workers = working(process.pid)
    process.kill()
    process.wait()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{w}").exists() and "Z" not in Path(f"/proc/{w}/stat").read_text().split()[2] for w in workers):
        assert time.monotonic() < end, "a worker outlived its parent"
        time.sleep(0.1)
    parts = small(steps=400, seeds=3)
    first = status(parts, folder)
    assert 0 < len(first.done) < len(parts) and not first.running
    kept = {key: store.files(folder / key)[0].stat().st_mtime_ns for key in first.done}
    sweep_here(parts, folder, 2, device="cpu", progress=False)
    assert len(status(parts, folder).done) == len(parts)
    assert all(store.files(folder / key)[0].stat().st_mtime_ns == when for key, when in kept.items())


def dask_process(*words: str, **env: str) -> subprocess.Popen:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | env
    return subprocess.Popen([sys.executable, "-m", "distributed.cli." + words[0], *words[1:]], env=variables, **quiet)


def free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.filterwarnings("ignore")  # Dask's own, about sockets of the worker that was killed
def test_dask_loses_a_worker_in_the_middle(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    port, parts = free_port(), small(steps=400, seeds=3)
    address = f"tcp://127.0.0.1:{port}"
    scheduler = dask_process("dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1", "--death-timeout", "60")
    workers = [dask_process("dask_worker", address, *options) for _ in range(2)]
    try:
        with executor("dask", scheduler=address) as two:
            wait_for(lambda: len(two._client.scheduler_info()["workers"]) == 2, scheduler)
            futures = [two.submit(compute, part, str(tmp_path), "cpu") for part in parts]
            wait_for(lambda: any(tmp_path.glob("*.json")), scheduler)
            workers[0].kill()
            assert sorted(f.result(timeout=180) for f in futures) == sorted(part.key for part in parts)
    finally:
        for process in (scheduler, *workers):
            process.kill()
            process.wait()
    assert len(list(tmp_path.glob("*.json"))) == len(parts), "every part exactly once"
    serial = tmp_path / "serial"
    sweep(parts, serial, Here(), device="cpu", progress=False)
    np.testing.assert_array_equal(accuracies(parts, tmp_path), accuracies(parts, serial))


@pytest.mark.filterwarnings("ignore")
def test_submitit_on_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    parts = small(seeds=1)
    sweep(parts, tmp_path, Submitit(tmp_path / "jobs", cluster="local", timeout_min=5), device="cpu", progress=False)
    serial = tmp_path / "serial"
    sweep(parts, serial, Here(), device="cpu", progress=False)
    np.testing.assert_array_equal(accuracies(parts, tmp_path), accuracies(parts, serial))


def test_executors_say_what_they_need() -> None:
    with pytest.raises(InputError, match="local, dask, slurm"), executor("grid"):
        pass
    pytest.importorskip("distributed")
    with pytest.raises(InputError, match="scheduler"), executor("dask"):
        pass
