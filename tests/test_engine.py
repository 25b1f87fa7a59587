"""run: a stack gives what its runs give alone, a run is the plain PyTorch loop, and bad input never starts training."""

from __future__ import annotations

import inspect
import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from small import clouds, module_with, net_for, train
from torch import nn

import clbook
from clbook import Method, Result, Scenario, permuted, split
from clbook import methods as catalogue
from clbook.engine import pick_device
from clbook.methods import EWC, L2, Cumulative, Finetune, Joint
from clbook.stack import Stack

NAMES = sorted(catalogue.__all__)
# Where a method's own defaults are too large for the small network here; every other one is taken as it comes.
SMALL: dict[str, dict[str, Any]] = {"KWTA": {"k": 3}, "DGR": {"z": 4, "hidden": 8}, "DERpp": {"size": 20}}
DRY = {"Progressive"}  # methods that refuse a network with dropout


def example(name: str) -> Method:
    return getattr(catalogue, name)(**SMALL.get(name, {}))


def other(m: Method) -> Method:
    """The same method with other strengths: half of each float, which stays in every allowed range; zeros become 0.3."""
    return replace(m, **{name: value / 2 or 0.3 for name, value in m.hyper.items()})


def stream(name: str = "") -> Scenario:
    """Three tasks; in the kind of scenario that the method can be used in."""
    return split(clouds(n=48, classes=6), 3, kind="task" if name and example(name).needs_task else "class")


def run_unchecked(*args: Any, **more: Any) -> Result:
    """`run` without the checks of types that only the tests have: what a user's wrong types meet."""
    return inspect.unwrap(clbook.run)(*args, **{"steps": 2, "progress": False} | more)


def same(a: Result, b: Result, rtol: float = 0.0, atol: float = 0.0) -> None:
    for x, y in zip(a.theta, b.theta, strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=atol)
    np.testing.assert_allclose(a.R, b.R, atol=1e-9)
    np.testing.assert_allclose(a.curve, b.curve, atol=1e-9)
    assert np.array_equal(a.curve_steps, b.curve_steps) and np.array_equal(a.memory_bytes, b.memory_bytes)


# a stack gives what its runs give alone ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_stacked_equals_alone(name: str) -> None:
    """Two strengths and two seeds in one batch, in double precision: the same numbers as four runs one by one."""
    s, m = stream(name), example(name)
    dropout = (0.0, 0.0) if name in DRY else (0.1, 0.2)
    sizes = {"net": net_for(s, (6,), dropout=dropout), "steps": 5, "lr": 0.01, "eval_every": 4, "future": True}
    stacked = train(s, [m, other(m)], 2, chunk=4, **sizes)
    alone = [train(s, one, [seed], **sizes) for one in (m, other(m)) for seed in (0, 1)]
    assert len(stacked.runs) == 4 and [r["seed"] for r in stacked.runs] == [0, 1, 0, 1]
    for r, one in enumerate(alone):
        same(part(stacked, r), one, rtol=1e-10, atol=1e-10)
    assert not torch.equal(stacked.theta[0], stacked.theta[1])


def part(result: Result, r: int) -> Result:
    arrays = {n: getattr(result, n)[r : r + 1] for n in ("R", "curve", "memory_bytes", "seconds", "runs", "theta", "thetas")}
    return replace(result, **arrays)


@pytest.mark.parametrize("name", NAMES)
def test_other_strengths_are_other_runs(name: str) -> None:
    """Otherwise the test above would not see a strength that is taken from the first run of a stack."""
    m = example(name)
    assert other(m) == m or other(m).hyper != m.hyper
    assert all(f.name in m.hyper for f in fields(m) if f.type == "float"), "a float field that is no float is not stacked"


@pytest.mark.parametrize("make", [Finetune, EWC, L2])
def test_stacked_equals_alone_in_single_precision(make: type) -> None:
    s = stream()
    sizes = {"optimizer": "sgd", "lr": 0.1, "dtype": torch.float32, "steps": 20}
    stacked = train(s, make(), 3, chunk=3, **sizes)
    for r in range(3):
        same(part(stacked, r), train(s, make(), [r], **sizes), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunks_give_the_same_as_one_stack(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    train_stack = Stack.train
    monkeypatch.setattr(Stack, "train", lambda self, *args: sizes.append(len(self.jobs)) or train_stack(self, *args))
    s, methods = stream(), [EWC(lam=1.0), EWC(lam=5.0), L2(lam=2.0), EWC(lam=1.0, consolidation="latest")]
    whole = train(s, methods, 2, chunk=100)
    assert sizes == [4, 2, 2]  # EWC of one kind; L2; EWC of another kind
    sizes.clear()
    pieces = train(s, methods, 2, chunk=chunk)
    assert max(sizes) == chunk if chunk < 3 else max(sizes) == 3
    same(pieces, whole, rtol=1e-10, atol=1e-11)
    assert [(r["method"], r["lam"], r["seed"]) for r in pieces.runs] == [
        (m.label, m.lam, seed) for m in methods for seed in (0, 1)
    ]  # the order of the call, whatever the stacks


def test_runs_depend_on_their_seed_alone() -> None:
    s = stream()
    a = train(s, EWC(kind="sampled"), [7, 3])
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    state = torch.get_rng_state()
    b = train(s, EWC(kind="sampled"), [3])
    assert torch.equal(torch.get_rng_state(), state)
    same(part(a, 1), b, rtol=1e-10, atol=1e-11)
    same(b, train(s, EWC(kind="sampled"), [3]))


# a run is the plain PyTorch loop -----------------------------------------------------------------------------------------


def plain_loop(s: Scenario, seed: int, net: clbook.Net, epochs: int, size: int, make: Any, keep: bool = False) -> Any:
    """What a reader would write: a module, an optimiser a task, shuffled batches, accuracy on all tasks so far."""
    module, order = module_with(net, net.init(seed).double()), torch.Generator().manual_seed(seed)
    R, opt = np.full((len(s), len(s)), np.nan), None
    for k, task in enumerate(s):
        opt = opt if keep and opt else make(module.parameters())
        n = len(task.x)
        steps = epochs * n // size
        index = torch.cat([torch.randperm(n, generator=order) for _ in range(math.ceil(steps * size / n))])[: steps * size]
        for rows in index.view(steps, size):
            logits = module(task.x[rows]).masked_fill(~task.mask, -math.inf)
            opt.zero_grad()
            nn.functional.cross_entropy(logits, task.y[rows]).backward()
            opt.step()
        for j in range(k + 1):
            with torch.no_grad():
                guess = module(s[j].x_test).masked_fill(~s.mask[k, j], -math.inf).argmax(1)
            R[k, j] = (guess == s[j].y_test).double().mean()
    return R, nn.utils.parameters_to_vector(module.parameters()).detach()


@pytest.mark.parametrize("kind", ["task", "domain", "class"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("keep", [False, True])
def test_fine_tuning_is_the_plain_loop(kind: str, optimizer: str, keep: bool) -> None:
    s = split(clouds(n=50, classes=6), 3, kind=kind).to("cpu", torch.float64)
    net, seed = net_for(s, (9,)), 4
    make = lambda p: {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer](p, lr=0.05)  # noqa: E731
    R, theta = plain_loop(s, seed, net, 3, 7, make, keep)
    result = train(s, Finetune(), [seed], net=net, epochs=3, batch_size=7, optimizer=optimizer, lr=0.05, keep_optimizer=keep)
    torch.testing.assert_close(result.theta[0], theta, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(result.R[0], R, atol=1e-9)


def test_keeping_the_optimiser_makes_a_difference_for_adam() -> None:
    a, b = (train(stream(), Finetune(), keep_optimizer=keep).theta[0] for keep in (False, True))
    assert (a - b).abs().max() > 1e-4


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_falling_learning_rate_is_torchs_own_schedule(optimizer: str, keep: bool) -> None:
    """lr (1 - s / S) at step s of S, anew in each task: torch.optim's LambdaLR gives the same."""
    s = split(clouds(n=48, classes=6), 3, kind="class").to("cpu", torch.float64)
    net = net_for(s)
    result = train(s, Finetune(), net=net, optimizer=optimizer, lr=0.05, decay=True, keep_optimizer=keep, steps=6)
    theta, order, opt = net.init(0).double().requires_grad_(), torch.Generator().manual_seed(0), None
    for k in range(3):
        if opt is None or not keep:
            opt = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]([theta], lr=0.05)
        opt.param_groups[0]["initial_lr"] = opt.param_groups[0]["lr"] = 0.05
        falling = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 1 - step / 6)
        index = torch.cat([torch.randperm(16, generator=order) for _ in range(3)])[:48]
        for rows in index.view(6, 8):
            theta.grad = torch.autograd.grad(net.loss(theta, s.batch(k, rows)), theta)[0]
            opt.step()
            falling.step()
    torch.testing.assert_close(result.theta[0], theta.detach(), rtol=1e-9, atol=1e-11)


def test_steps_of_an_epoch() -> None:
    """50 samples in batches of 8: six whole batches a pass, two passes are twelve and not thirteen; at least one step."""
    d = clouds(n=100, classes=4)
    result = train(split(d, 2), Finetune(), epochs=2, batch_size=8, eval_every=1)
    assert result.curve_steps.tolist() == [[0, i] for i in range(1, 13)] + [[1, i] for i in range(13, 25)]
    assert len(train(split(d, 2), Finetune(), epochs=1, batch_size=1000, eval_every=1).curve_steps) == 2


def test_each_pass_sees_every_sample_once() -> None:
    s = split(clouds(n=48, classes=6), 3)
    stack = Stack([(Finetune(), 3)], net_for(s), s, clbook.training.Training(steps=6, batch_size=8), torch.float32, False)
    passes = stack._index(0)[0].view(3, 16)
    assert passes.sort(1).values.tolist() == [list(range(16))] * 3 and not torch.equal(passes[0], passes[1])


# what is drawn and what is measured --------------------------------------------------------------------------------------


def batches_seen(s: Scenario, method: Method, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Any]]:
    """Every batch of a run, with the task that was being trained."""
    seen: list[tuple[int, Any]] = []
    make = Stack._batch

    def watched(self: Stack, k: int, index: torch.Tensor) -> Any:
        batch = make(self, k, index)
        seen.append((k, batch))
        return batch

    monkeypatch.setattr(Stack, "_batch", watched)
    train(s, method, steps=8, batch_size=16)
    return seen


@pytest.mark.parametrize("kind", ["task", "domain", "class"])
@pytest.mark.parametrize("make", [Finetune, Cumulative, Joint])
def test_batches_come_from_the_right_tasks_with_the_right_masks(make: type, kind: str, monkeypatch) -> None:
    s = split(clouds(n=48, classes=6), 3, kind=kind)
    drawn = {k: torch.zeros(3, 16, dtype=torch.int64) for k in range(3)}
    for k, batch in batches_seen(s, make(), monkeypatch):
        newest = {Finetune: k, Cumulative: k, Joint: 2}[make]  # the newest task whose data are at hand
        for x, y, mask, task, row in zip(batch.x[0], batch.y[0], batch.mask[0], batch.task[0], batch.row[0], strict=True):
            one = s[int(task)]
            torch.testing.assert_close(x.float(), one.x[row])
            assert y == one.y[row] and torch.equal(mask, s.mask[newest, task]) and mask[y]
            drawn[k][task, row] += 1
    allowed = {Finetune: lambda k: {k}, Cumulative: lambda k: set(range(k + 1)), Joint: lambda k: {0, 1, 2}}[make]
    for k in range(3):
        assert set(drawn[k].sum(1).nonzero().flatten().tolist()) == allowed(k)
        times = drawn[k][sorted(allowed(k))]  # 128 draws in whole passes: every sample equally often, up to one
        assert times.max() - times.min() <= 1 and times.sum() == 128


def test_what_all_data_weigh() -> None:
    """48 images of six values at a byte each, and their labels; a learner stores each task's images, also where they recur."""
    for make in (Joint, Cumulative):
        assert train(split(clouds(n=48), 2), make(), steps=1).memory_bytes.tolist() == [48 * 7]
        assert train(permuted(clouds(n=48), 5), make(), steps=1).memory_bytes.tolist() == [5 * 48 * 7]
    assert train(split(clouds(n=48), 2), Finetune(), steps=1).memory_bytes.tolist() == [0]


def test_joint_training_in_the_class_scenario_sees_all_outputs_from_the_start(monkeypatch) -> None:
    assert all(batch.mask.all() for _, batch in batches_seen(stream(), Joint(), monkeypatch))


def test_the_curve_and_the_matrix_agree() -> None:
    s = stream()
    result = train(s, Finetune(), 2, steps=6, eval_every=3)
    assert result.curve_steps.tolist() == [[0, 3], [0, 6], [1, 9], [1, 12], [2, 15], [2, 18]]
    for k in range(3):  # the last measurement in a task is the one after it
        np.testing.assert_array_equal(result.curve[:, 2 * k + 1, : k + 1], result.R[:, k, : k + 1])
    assert np.array_equal(np.isnan(result.R[1]), np.triu(np.ones((3, 3)), 1)) and np.isnan(result.curve[:, :2, 1:]).all()


def test_future_tasks_are_measured_on_request() -> None:
    s = permuted(clouds(), 3)
    result = train(s, Finetune(), future=True, eval_every=12)
    assert not np.isnan(result.R).any() and not np.isnan(result.curve).any()
    plain = train(s, Finetune())
    np.testing.assert_array_equal(np.tril(result.R[0]), np.tril(plain.R[0]))


def test_eval_samples_are_the_first_of_each_test_set() -> None:
    s = stream()
    few = replace(s, rows_test=tuple(rows[:4] for rows in s.rows_test))
    a = train(s, Finetune(), eval_every=6, eval_samples=4)
    b = train(few, Finetune(), eval_every=6)
    np.testing.assert_array_equal(a.curve, b.curve)
    assert not np.array_equal(a.R, b.R)


def test_accuracy_is_counted_over_chunks_of_the_test_set(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(stream(), Finetune())
    monkeypatch.setattr("clbook.stack.TEST_ROWS", 3)
    np.testing.assert_allclose(train(stream(), Finetune()).R, whole.R, atol=1e-12)


def test_reconstruction_learns_without_labels() -> None:
    d = clouds()
    s = replace(permuted(replace(d, y=None, y_test=None), 2), loss="reconstruction")
    net = clbook.mlp(6, 6, (5,))
    short, long = (train(s, Finetune(), net=net, steps=n, lr=0.02) for n in (1, 300))
    x = s[1].x_test.double()
    score = -float((net(long.theta[0], x) - x).square().mean())
    assert long.R[0, 1, 1] == pytest.approx(score) and score > short.R[0, 1, 1]


def test_thetas_are_kept_on_request() -> None:
    s, net = stream(), net_for(stream())
    result = train(s, Finetune(), 2, net=net, keep_thetas=True)
    assert [len(t) for t in result.thetas] == [3, 3] and torch.equal(result.thetas[1][2], result.theta[1])
    one = train(s.first(1), Finetune(), 2, net=net)
    same(replace(one, theta=[t[0] for t in result.thetas]), one)
    assert train(s, Finetune(), net=net).thetas == [[]]


# dropout ---------------------------------------------------------------------------------------------------------------


def test_dropout_is_drawn_for_each_run_and_step_and_is_off_in_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    s = stream()
    net = net_for(s, (40,), dropout=(0.2, 0.5))
    seen: list[Any] = []
    make = Stack._batch
    monkeypatch.setattr(Stack, "_batch", lambda self, k, index: seen.append(make(self, k, index)) or seen[-1])
    stacked = train(s, Finetune(), 2, net=net, steps=10, lr=0.05)
    rates = [torch.stack([b.gates[name] for b in seen]).eq(0).double().mean() for name in net.gates]
    assert float(rates[0]) == pytest.approx(0.2, abs=0.03) and float(rates[1]) == pytest.approx(0.5, abs=0.02)
    for name in net.gates:
        a, b = seen[0].gates[name], seen[1].gates[name]
        assert not torch.equal(a[0], a[1]) and not torch.equal(a[0], b[0])  # other runs, other steps
    dry = net_for(s, (40,))
    scores = [
        dry(t, s[0].x_test.double()).masked_fill(~s.mask[2, 0], -math.inf).argmax(1) == s[0].y_test for t in stacked.theta
    ]
    np.testing.assert_allclose(stacked.R[:, 2, 0], [x.double().mean() for x in scores], atol=1e-12)


def test_a_network_without_dropout_is_trained_alike_whatever_its_gates() -> None:
    s = stream()
    same(train(s, Finetune(), net=net_for(s)), train(s, Finetune(), net=net_for(s, dropout=(0.0, 0.0))))


# progress --------------------------------------------------------------------------------------------------------------


def test_progress_names_task_and_accuracy_and_can_be_switched_off(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    train(stream(), Finetune(), steps=2, progress=False)
    monkeypatch.setenv("CLBOOK_PROGRESS", "0")
    train(stream(), Finetune(), steps=2, progress=None)
    assert capsys.readouterr() == ("", "")
    train(stream(), Finetune(), steps=200, batch_size=2, progress=True, dtype=torch.float32)
    shown = capsys.readouterr().err
    assert "Finetune" in shown and "600/600" in shown and "task 3/3 4/5, accuracy 0." in shown
    monkeypatch.delenv("CLBOOK_PROGRESS")
    train(stream(), Finetune(), steps=2, progress=None)
    assert "6/6" in capsys.readouterr().err


# devices ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cuda", "mps", "wanted"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_cuda_then_mps_then_the_cpu(cuda: bool, mps: bool, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device() == pick_device("auto") == torch.device(wanted)
    assert pick_device("cpu") == torch.device("cpu")
    for name, there in (("cuda", cuda), ("mps", mps)):
        if not there:
            with pytest.raises(ValueError, match=f"no device '{name}' here"):
                pick_device(name)
    with pytest.raises(ValueError, match="unknown device 'gpu': choose \"auto\", cuda, mps, cpu"):
        pick_device("gpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", NAMES)
def test_cuda_gives_what_the_cpu_gives(name: str) -> None:
    s, sizes = stream(name), {"steps": 5, "lr": 0.01}
    cpu, cuda = (train(s, example(name), 2, device=d, **sizes) for d in ("cpu", "cuda"))
    for a, b in zip(cpu.theta, cuda.theta, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


# bad input -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any step of training fails the test: bad input must be refused before."""

    def step(*args: object) -> None:
        raise AssertionError("training has started")

    monkeypatch.setattr(Stack, "train", step)


def spoiled(name: str, value: float) -> clbook.Data:
    d = clouds(classes=6)
    tensor = getattr(d, name).clone()
    tensor[0] = value
    return replace(d, **{name: tensor})


BAD: dict[str, tuple[Any, dict[str, Any]]] = {
    # message, then what is changed in a call that is fine
    "methods: unknown name": (r"unknown method 'ewc': .*clbook\.methods has .*EWC.*Finetune", {"methods": "ewc"}),
    "methods: class": (r"unknown method <class .*EWC'>: give an instance", {"methods": EWC}),
    "methods: one of two": ("unknown method 'si'", {"methods": [L2(), "si"]}),
    "methods: none": ("at least one method, got none", {"methods": []}),
    "seeds: none": ("at least one seed.*got 0", {"seeds": 0}),
    "seeds: empty": (r"at least one seed.*got \[\]", {"seeds": []}),
    "seeds: no numbers": (r"whole numbers; got \[0\.5\]", {"seeds": [0.5]}),
    "scenario: NaN": ("1 of 60 training inputs hold NaN", {"scenario": lambda: split(spoiled("x", math.nan), 3)}),
    "scenario: infinity": (
        "1 of 30 test inputs hold NaN or infinity",
        {"scenario": lambda: split(spoiled("x_test", math.inf), 3)},
    ),
    "scenario: label too large": (r"such as 6; allowed are 0\.\.5", {"scenario": lambda: split(spoiled("y", 6), 3)}),
    "scenario: label below 0": (r"such as -1; allowed are 0\.\.5", {"scenario": lambda: permuted(spoiled("y_test", -1), 3)}),
    "scenario: empty task": (r"task 2 \(4/5\) has no training samples", {"scenario": lambda: split(clouds(n=4, classes=6), 3)}),
    "scenario: no test": (r"task 2 \(4/5\) has no test samples", {"scenario": lambda: split(clouds(n_test=4, classes=6), 3)}),
    "steps and epochs": ("either epochs or steps per task, got epochs=1 and steps=2", {"epochs": 1}),
    "neither": ("got epochs=None and steps=None", {"steps": None}),
    "steps": ("steps must be a whole number of at least 1, got 0", {"steps": 0}),
    "epochs": ("epochs must be .* got -1", {"epochs": -1, "steps": None}),
    "batch_size": ("batch_size must be .* got 0", {"batch_size": 0}),
    "eval_every": ("eval_every must be .* got 0", {"eval_every": 0}),
    "eval_samples": ("eval_samples must be .* got 0", {"eval_samples": 0}),
    "optimizer": ("unknown optimizer 'rmsprop': choose one of sgd, adam", {"optimizer": "rmsprop"}),
    "lr: 0": ("lr must be a positive number, got 0", {"lr": 0.0}),
    "lr: NaN": ("lr must be a positive number, got nan", {"lr": math.nan}),
    "lr: infinite": ("lr must be a positive number, got inf", {"lr": math.inf}),
    "on_divergence": ('on_divergence must be "raise" or "nan", got \'stop\'', {"on_divergence": "stop"}),
    "chunk": ("chunk must be at least 1, got 0", {"chunk": 0}),
    "device": ("unknown device 'gpu'", {"device": "gpu"}),
    "dtype": ("dtype must be a floating type .* got torch.int64", {"dtype": torch.int64}),
    "net: outputs": ("the network has 5 outputs, and this scenario needs 6", {"net": lambda: clbook.mlp(6, 5)}),
    "net: inputs": (r"does not take this scenario's inputs, which are \[B, 6\]", {"net": lambda: clbook.mlp(7, 6)}),
    "net: BatchNorm": (
        r"BatchNorm1d.*GroupNorm or LayerNorm",
        {"net": lambda: clbook.Net(lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)))},
    ),
    "net: Dropout": (
        r"Dropout\) draws random",
        {"net": lambda: clbook.Net(lambda: nn.Sequential(nn.Linear(6, 6), nn.Dropout()))},
    ),
    "lambda below 0": (r"EWC\.lam must be a finite number >= 0, got -1", {"methods": lambda: EWC(lam=-1.0)}),
    "lambda NaN": (r"L2\.lam must be a finite number >= 0, got nan", {"methods": lambda: L2(lam=math.nan)}),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_training(case: str, untrained: None) -> None:
    message, change = BAD[case]
    good: dict[str, Any] = {"scenario": stream(), "methods": Finetune(), "seeds": 1}
    with pytest.raises(AssertionError, match="training has started"):
        run_unchecked(**good)  # nothing else is wrong with the call
    with pytest.raises(ValueError, match=message):
        built = {k: v() if inspect.isfunction(v) else v for k, v in change.items()}
        run_unchecked(**good | built)


def test_half_a_step_is_no_step() -> None:
    training = clbook.training.Training(steps=2)
    for value in (2.5, "2"):
        object.__setattr__(training, "steps", value)
        with pytest.raises(ValueError, match="steps must be a whole number of at least 1, got"):
            training.__post_init__()


def test_methods_that_need_what_is_not_there(untrained: None) -> None:
    d = clouds(classes=6)
    unlabelled = replace(permuted(replace(d, y=None, y_test=None), 2), loss="reconstruction")
    labels = [name for name in NAMES if example(name).needs_labels]
    assert "EWC" in labels
    for name in labels:
        with pytest.raises(ValueError, match=f"{example(name).label} needs labels"):
            run_unchecked(unlabelled, example(name))
    for name in (name for name in NAMES if example(name).needs_task):
        with pytest.raises(ValueError, match='needs kind="task", got kind="domain"'):
            run_unchecked(permuted(d, 2), example(name))


def test_numpy_numbers_are_numbers(tmp_path) -> None:
    result = run_unchecked(stream(), [L2(lam=float(v)) for v in np.logspace(0, 1, 2)], np.arange(2))
    assert [(r["lam"], r["seed"]) for r in result.runs] == [(1, 0), (1, 1), (10, 0), (10, 1)]
    result.save(tmp_path / "r")
    assert Result.load(tmp_path / "r").runs == result.runs
