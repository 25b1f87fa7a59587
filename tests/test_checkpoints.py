"""A run that was cut short ends as if nothing had happened, and never goes on from what belongs to another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from catalogue import NAMES, example
from catalogue import stream as stream_for
from small import clouds, net_for, refused, train
from torch import Tensor

from clbook import Method, Net, Result, Scenario, Spring, checkpoints, evaluate, loop, permuted, split
from clbook.methods import EWC, L2, Finetune
from clbook.scenarios import Batch

SIZES: dict[str, Any] = {"eval_every": 4, "keep_thetas": True, "dtype": torch.float32, "lr": 0.01, "steps": 6}


class PowerCut(Exception):
    pass


def stream() -> Scenario:
    return split(clouds(n=48, classes=6), 3, kind="class")


def cut_short(monkeypatch: pytest.MonkeyPatch, k: int, step: int, size: int = 6) -> None:
    """The next run stops in task k once so many of its steps are done; at the last of them the task is still not over."""
    after_step = evaluate.Record.after_step

    def cut(self: evaluate.Record) -> None:
        if self.task == k and self.step >= step:
            monkeypatch.setattr(evaluate.Record, "after_step", after_step)
            raise PowerCut
        after_step(self)

    monkeypatch.setattr(evaluate.Record, "after_step", cut)


def identical(a: Result, b: Result) -> None:
    assert all(torch.equal(x, y) for x, y in zip(a.theta, b.theta, strict=True))
    assert all(torch.equal(x, y) for s, t in zip(a.thetas, b.thetas, strict=True) for x, y in zip(s, t, strict=True))
    assert [len(t) for t in a.thetas] == [len(t) for t in b.thetas]
    for name in ("R", "curve", "curve_steps", "memory_bytes", "n_params"):
        assert np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)
    assert a.runs == b.runs


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# going on ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "keep_optimizer", "optimizer"),
    [(0, False, "adam"), (1, False, "adam"), (1, True, "sgd"), (2, False, "sgd"), (1, True, "adam"), (2, True, "adam")],
)
@pytest.mark.parametrize("often", [False, True])
def test_going_on_gives_the_same_to_the_bit(
    often: bool, k: int, keep_optimizer: bool, optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the end of the task before, or from the step before where every step is written."""
    s, sizes = stream(), SIZES | {"keep_optimizer": keep_optimizer, "optimizer": optimizer, "lr_decay": True}
    sizes["net"] = net_for(s, dropout=(0.2, 0.5))
    methods = [EWC(lam=3.0, estimator="sampled", n_samples=5), EWC(lam=7.0, estimator="sampled", n_samples=5)]
    whole = train(s, methods, 2, chunk=4, **sizes)
    monkeypatch.setattr(checkpoints, "EVERY", -1.0 if often else 1e9)
    cut_short(monkeypatch, k, step=4)
    with pytest.raises(PowerCut):
        train(s, methods, 2, chunk=4, checkpoint=tmp_path / "here", **sizes)
    ends = [6 * k + 3, 6 * k + 4] if often else [6 * k - 6, 6 * k][max(0, 2 - k) :] if k else []
    assert written(tmp_path) == sorted(f"group-0-{n:09d}.{part}" for n in ends for part in ("json", "npz"))
    identical(train(s, methods, 2, chunk=4, checkpoint=tmp_path / "here", **sizes), whole)


@pytest.mark.parametrize("step", range(7))
def test_it_goes_on_from_every_step_of_a_task(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from before the first one, and from after the last one, when the method has not yet looked back."""
    s = stream()
    sizes = SIZES | {"net": net_for(s, dropout=(0.2, 0.5)), "keep_optimizer": True}
    method = EWC(lam=3.0, estimator="sampled", n_samples=5)
    whole = train(s, method, **sizes)
    monkeypatch.setattr(checkpoints, "EVERY", -1.0)
    if step < 6:
        cut_short(monkeypatch, 1, step)
    else:
        after_task = evaluate.Record.after_task
        monkeypatch.setattr(evaluate.Record, "after_task", lambda self: raise_once(self, after_task, monkeypatch))
    with pytest.raises(PowerCut):
        train(s, method, checkpoint=tmp_path, **sizes)
    identical(train(s, method, checkpoint=tmp_path, **sizes), whole)


def raise_once(record: evaluate.Record, after_task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if record.task == 1:
        monkeypatch.setattr(evaluate.Record, "after_task", after_task)
        raise PowerCut
    after_task(record)


@dataclass(frozen=True)
class Interrupted(EWC):
    """EWC that is stopped from within, as a keyboard would, in whatever hook is asked for."""

    def prepare(self, state: Any, scenario: Scenario, k: int, batch: Batch, rng: torch.Generator) -> Batch:
        fuse("prepare", k)
        return batch._replace(drawn={"noise": torch.rand(len(batch.x), 1, generator=rng, dtype=batch.x.dtype)})

    def loss(self, net: Any, theta: Tensor, state: Any, batch: Batch) -> Tensor:
        return super().loss(net, theta, state, batch._replace(x=batch.x + 0.1 * batch.drawn["noise"]))

    def before_task(self, net: Any, theta: Tensor, state: Any, task: Any, rng: Any) -> Any:
        fuse("before_task", task.index)
        return theta, state

    def after_task(self, net: Any, theta: Tensor, state: Any, task: Any, rng: Any) -> Any:
        fuse("after_task", task.index)
        return super().after_task(net, theta, state, task, rng)


left: dict[tuple[str, int], int] = {}  # how often a hook may still be called in a task


def fuse(hook: str, k: int) -> None:
    if (hook, k) in left:
        left[hook, k] -= 1
        if left[hook, k] < 0:
            left.clear()
            raise KeyboardInterrupt


@pytest.mark.parametrize(("hook", "calls"), [("before_task", 0), ("prepare", 1), ("prepare", 7), ("after_task", 1)])
@pytest.mark.parametrize("every", [-1.0, 1e9])
def test_a_run_that_is_stopped_in_a_hook_goes_on(
    hook: str, calls: int, every: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = stream()
    sizes = SIZES | {"net": net_for(s, dropout=(0.2, 0.5)), "keep_optimizer": True, "chunk": 2}
    method = Interrupted(lam=3.0, estimator="sampled", n_samples=5)
    whole = train(s, method, 2, **sizes)
    monkeypatch.setattr(checkpoints, "EVERY", every)
    left[hook, 1] = calls
    with pytest.raises(KeyboardInterrupt):
        train(s, method, 2, checkpoint=tmp_path, **sizes)
    identical(train(s, method, 2, checkpoint=tmp_path, **sizes), whole)


@pytest.mark.parametrize("name", NAMES)
def test_every_method_goes_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the middle of its last task, with whatever it remembers."""
    s, m = stream_for(name), example(name)
    whole = train(s, m, 2, **SIZES)
    monkeypatch.setattr(checkpoints, "EVERY", -1.0)
    cut_short(monkeypatch, 2, step=3)
    with pytest.raises(PowerCut):
        train(s, m, 2, checkpoint=tmp_path, **SIZES)
    identical(train(s, m, 2, checkpoint=tmp_path, **SIZES), whole)


def test_only_what_is_left_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_short(monkeypatch, 1, step=0)
    methods = [L2(lam=1.0), Finetune()]
    with pytest.raises(PowerCut):
        train(stream(), methods, checkpoint=tmp_path, **SIZES)
    trained: list[tuple[str, int]] = []
    cut_batches = loop.batches

    def watched(scenario: Scenario, task: Any, *args: Any) -> Any:
        trained.append(task.index)
        return cut_batches(scenario, task, *args)

    monkeypatch.setattr(loop, "batches", watched)
    first = train(stream(), methods, checkpoint=tmp_path, **SIZES)
    assert trained == [1, 2, 0, 1, 2]  # the rest of L2, and all of Finetune
    identical(train(stream(), methods, checkpoint=tmp_path, **SIZES), first)
    assert len(trained) == 5  # a finished run is read and not trained


def test_a_run_that_diverged_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = SIZES | {"optimizer": "sgd", "lr": 0.1, "steps": 20, "on_divergence": "nan", "chunk": 2}
    methods = [L2(lam=1.0, pull="explicit"), L2(lam=1e9, pull="explicit")]
    whole = train(stream(), methods, **sizes)
    assert np.isnan(whole.R[1, 1:]).all() and not np.isnan(whole.R[0, 2]).any()
    cut_short(monkeypatch, 2, step=8)
    with pytest.raises(PowerCut):
        train(stream(), methods, checkpoint=tmp_path, **sizes)
    resumed = train(stream(), methods, checkpoint=tmp_path, **sizes)
    assert np.array_equal(resumed.R, whole.R, equal_nan=True) and torch.equal(resumed.theta[0], whole.theta[0])


# whose it is -------------------------------------------------------------------------------------------------------------

OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "strength": ("runs is", {"methods": EWC(lam=2.0)}),
    "estimator": ("runs is", {"methods": EWC(lam=1.0, estimator="empirical")}),
    "method": ("code is", {"methods": L2(lam=1.0)}),
    "seed": ("runs is", {"seeds": [1]}),
    "steps": ("training is", {"steps": 13}),
    "rate": ("training is", {"lr": 0.02}),
    "curve": ("training is", {"eval_every": 3}),
    "classes": ("scenario is", {"scenario": lambda: split(clouds(n=48, classes=6), 3, order=[2, 1, 0, 3, 4, 5], kind="class")}),
    "kind": ("scenario is", {"scenario": lambda: split(clouds(n=48, classes=6), 3, kind="task")}),
    "images": ("scenario is", {"scenario": lambda: split(clouds(n=48, classes=6, seed=1), 3, kind="class")}),
    "network": ("network is", {"net": lambda: net_for(stream(), (5,))}),
    "dtype": ("scenario is", {"dtype": torch.float64}),
    "thetas": ("keep_thetas is", {"keep_thetas": False}),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_checkpoint_of_other_runs_is_refused(case: str, tmp_path: Path) -> None:
    message, change = OTHERS[case]
    call: dict[str, Any] = {"scenario": stream(), "methods": EWC(lam=1.0), "seeds": [0], "checkpoint": tmp_path} | SIZES
    train(**call)
    before = {name: (tmp_path / name).read_bytes() for name in written(tmp_path)}
    with refused(rf"group-0-000000018\.json belongs to other runs: {message}.* there and .* here\. Delete the file"):
        train(**call | {k: v() if callable(v) else v for k, v in change.items()})
    assert {name: (tmp_path / name).read_bytes() for name in written(tmp_path)} == before


def forward(words: str) -> type[torch.nn.Module]:
    """A network of a reader's own, of the same layers whatever its forward pass is."""
    scope: dict[str, Any] = {"nn": torch.nn, "__name__": "notebook"}
    exec(
        "class Mine(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 6)\n"
        f"    def forward(self, x):\n        return self.b(self.a(x).{words}())\n",
        scope,
    )
    return scope["Mine"]


def test_another_forward_pass_is_another_network(tmp_path: Path) -> None:
    old, new = forward("relu"), forward("tanh")
    train(stream(), Finetune(), net=Net(old), checkpoint=tmp_path, **SIZES)
    with refused("network is"):
        train(stream(), Finetune(), net=Net(new), checkpoint=tmp_path, **SIZES)


def test_another_view_is_another_scenario(tmp_path: Path) -> None:
    shown = lambda view: replace(permuted(clouds(), 2), view=view)  # noqa: E731
    train(shown(lambda x, task: x * 2), Finetune(), checkpoint=tmp_path)
    with refused("scenario is"):
        train(shown(lambda x, task: x * 3), Finetune(), checkpoint=tmp_path)
    train(shown(lambda x, task: x * 2), Finetune(), checkpoint=tmp_path)  # the same written anew


def test_other_permutations_are_another_scenario(tmp_path: Path) -> None:
    """Two streams that differ in nothing but the seed of their permutations."""
    train(permuted(clouds(), 2, seed=0), Finetune(), checkpoint=tmp_path)
    with refused("scenario is"):
        train(permuted(clouds(), 2, seed=1), Finetune(), checkpoint=tmp_path)


def spring(omega: str) -> type[Spring]:
    """A spring of a reader's own, whose stiffness is written as `omega`."""
    scope: dict[str, Any] = {"Spring": Spring, "torch": torch, "dataclass": dataclass, "__name__": "notebook"}
    exec(
        "@dataclass(frozen=True)\nclass Mine(Spring):\n    '''What it is good for.'''\n"
        f"    def importance(self, net, theta, state, task, rng):\n        # a word on it\n        return {omega}\n",
        scope,
    )
    return scope["Mine"]


def test_a_method_that_was_rewritten_does_not_go_on_from_what_it_was(tmp_path: Path) -> None:
    """The name, the fields and the shape of the state are the same; the numbers would be a mixture of two methods."""
    old, new = spring("torch.ones_like(theta)"), spring("theta.square()")
    train(stream(), old(lam=1.0), checkpoint=tmp_path, **SIZES)
    with refused("belongs to other runs: code is"):
        train(stream(), new(lam=1.0), checkpoint=tmp_path, **SIZES)
    again = spring("torch.ones_like(theta)")
    identical(train(stream(), again(lam=1.0), checkpoint=tmp_path, **SIZES), train(stream(), old(lam=1.0), **SIZES))


# files that are not what they were ---------------------------------------------------------------------------------------


def finished(folder: Path) -> Result:
    """A run whose last two checkpoints lie in the folder."""
    result = train(stream(), EWC(lam=3.0), checkpoint=folder, **SIZES)
    assert written(folder) == [f"group-0-{n:09d}.{part}" for n in (12, 18) for part in ("json", "npz")]
    return result


HARM = {
    "cut in the middle": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one bit": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "something else": lambda path: path.write_text("<html>a login page</html>"),
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("part", ["npz", "json"])
def test_where_the_newest_file_is_harmed_the_one_before_it_is_used(
    part: str, harm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finished(tmp_path)
    HARM[harm](tmp_path / f"group-0-000000018.{part}")
    trained: list[int] = []
    cut_batches = loop.batches
    monkeypatch.setattr(
        loop, "batches", lambda scenario, task, *args: trained.append(task.index) or cut_batches(scenario, task, *args)
    )
    identical(train(stream(), EWC(lam=3.0), checkpoint=tmp_path, **SIZES), whole)
    assert trained == [2]
    said = capsys.readouterr().out
    if (part, harm) != ("json", "gone"):  # without it, there is no file to speak of
        assert said.count("\n") == 1 and "group-0-000000018.json cannot be used" in said and "before it is used" in said
        assert "pickle" not in said and "Traceback" not in said


def test_where_both_files_are_harmed_the_run_starts_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = finished(tmp_path)
    for file in tmp_path.glob("*.npz"):
        file.write_bytes(b"no zip at all")
    identical(train(stream(), EWC(lam=3.0), checkpoint=tmp_path, **SIZES), whole)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and all("cannot be used" in line and "pickle" not in line for line in said)


def test_a_checkpoint_that_cannot_be_written_says_so_in_one_line(tmp_path: Path) -> None:
    """Below a file there can be no folder, not even for root."""
    (tmp_path / "file").write_text("")
    with refused(r"file/here/group-0-000000006\.npz cannot be written \(Not a directory\); name a folder of yours"):
        train(stream(), Finetune(), checkpoint=tmp_path / "file" / "here", **SIZES)


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s, replace, calls = stream(), Path.replace, []

    def full_disk(self: Path, target: Path) -> Path:
        calls.append(target.name)
        if target.name == "group-0-000000012.npz":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full_disk)
    with refused("No space left on device"):
        train(s, Finetune(), checkpoint=tmp_path, **SIZES)
    assert written(tmp_path) == ["group-0-000000006.json", "group-0-000000006.npz"], "nothing half-written is left behind"
    monkeypatch.setattr(Path, "replace", replace)
    whole = train(s, Finetune(), **SIZES)
    identical(train(s, Finetune(), checkpoint=tmp_path, **SIZES), whole)


def test_no_folder_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoints, "EVERY", -1.0)
    train(stream(), Finetune(), **SIZES)
    assert written(tmp_path) == []


class Counting(Method):
    """A state that grows from task to task, and that is of another type than theta."""

    def start(self, net: Any, theta: Tensor) -> Any:
        return {"n": torch.zeros((), dtype=torch.int64), "seen": torch.zeros((0, 3), dtype=torch.bool)}

    def after_task(self, net: Any, theta: Tensor, state: Any, task: Any, rng: torch.Generator) -> Any:
        row = torch.rand(1, 3, generator=rng) > 0.5
        return {"n": state["n"] + len(task.x), "seen": torch.cat([state["seen"], row])}


def test_a_state_comes_back_with_its_types_and_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, states = train(stream(), Counting(), 2, **SIZES), []
    after_task = Counting.after_task
    cut_short(monkeypatch, 2, step=2)
    with pytest.raises(PowerCut):
        train(stream(), Counting(), 2, checkpoint=tmp_path, **SIZES)
    monkeypatch.setattr(Counting, "after_task", lambda *args: states.append(after_task(*args)) or states[-1])
    with refused("code is"):  # a hook that was replaced is other code
        train(stream(), Counting(), 2, checkpoint=tmp_path, **SIZES)
    monkeypatch.setattr(Counting, "after_task", after_task)
    identical(train(stream(), Counting(), 2, checkpoint=tmp_path, **SIZES), whole)
    assert whole.memory_bytes.tolist() == [8 + 9] * 2
