"""Streams without boundaries, a detector of changes, methods that are told of none, and metrics at any time."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import clouds, net_for, refused, train

import clbook
from clbook import Method, Scenario, metrics
from clbook.lab import streams
from clbook.lab.experiments import reproduce
from clbook.lab.streams import StreamCLSER, StreamRidge, by_chance, by_clock, dip, falls, judged, verdict
from clbook.methods import ER, EWC, MAS, SI, Finetune, Joint, Ridge
from clbook.methods.detector import begin, changes, watch
from clbook.methods.online import (
    ChangeLwF,
    StreamAGEM,
    StreamDERpp,
    StreamER,
    StreamEWC,
    StreamLwF,
    StreamMAS,
    StreamSI,
)  # fmt: skip

D = torch.float64


def tasks(kind: str = "domain") -> Scenario:
    data = clouds(n=240, classes=4)
    return clbook.split(data, 2, kind="class") if kind == "class" else clbook.permuted(data, 3)


# the stream ------------------------------------------------------------------------------------------------------------


def origins(stream: Scenario, scenario: Scenario) -> torch.Tensor:
    """Which task each sample of a stream comes from, by looking it up among the samples of the tasks [N]."""
    found = torch.full((len(stream.data.x),), -1)
    for k, task in enumerate(scenario):
        there = (stream.data.x[:, None] == task.x[None]).all(-1) & (stream.data.y[:, None] == task.y[None])
        assert (found[there.any(1)] < 0).all(), "a sample that two tasks have says nothing"
        found[there.any(1)] = k
    return found


@pytest.mark.parametrize("kind", ["domain", "class"])
@pytest.mark.parametrize("width", [0.0, 0.4, 1.0])
def test_a_stream_shows_n_samples_of_each_task_once(kind: str, width: float) -> None:
    scenario = tasks(kind)
    stream = clbook.blurred(scenario, width, n=60, seed=3)
    assert len(stream) == len(scenario) and [len(r) for r in stream.rows] == [60] * len(scenario)
    assert origins(stream, scenario).bincount().tolist() == [60] * len(scenario)
    assert len({tuple(v) for v in stream.data.x.tolist()}) == 60 * len(scenario), "no sample twice"
    assert stream.mask.all() and stream.in_order
    for k, task in enumerate(scenario):
        assert torch.equal(stream.test(k)[0], task.x_test) and torch.equal(stream.test(k)[1], task.y_test)


def test_without_width_the_tasks_follow_each_other() -> None:
    scenario = tasks()
    stream = clbook.blurred(scenario, 0.0, n=50)
    assert origins(stream, scenario).tolist() == [0] * 50 + [1] * 50 + [2] * 50


@pytest.mark.parametrize("width", [0.25, 1.0])
def test_the_share_of_the_next_task_rises_linearly_over_the_width(width: float) -> None:
    """Means over many streams, beside the formula; nothing of the next task comes before the transition or after it."""
    data, n, many = clouds(n=40, classes=4), 40, 300
    scenario = clbook.permuted(data, 2)
    first = {tuple(v) for v in scenario[0].x.tolist()}
    share = torch.zeros(2 * n)
    for seed in range(many):
        x = clbook.blurred(scenario, width, seed=seed).data.x
        share += torch.tensor([tuple(v) not in first for v in x.tolist()]) / many
    t = torch.arange(2 * n) + 0.5
    expected = (0.5 + (t - n) / (width * n)).clamp(0, 1)
    inner = slice(n // 2, -n // 2) if width == 1 else slice(None)  # the ends have samples of one task alone
    assert (share - expected)[inner].abs().max() < 0.13  # a share's own spread is 0.03, and places move by a sample or two
    assert abs(float((share - expected).mean())) < 0.005


def test_a_stream_depends_on_its_seed_alone_and_refuses_what_it_cannot_show() -> None:
    one, same, other = (clbook.blurred(tasks(), n=30, seed=s).data.x for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    with refused('kind="domain" or "class", got kind="task"'):
        clbook.blurred(clbook.split(clouds(), 2, kind="task"))
    with refused("n must be at most 240, the samples of the smallest task, got 241"):
        clbook.blurred(tasks(), n=241)
    with refused("width"):
        clbook.blurred(tasks(), 1.5)


def test_the_batches_of_a_stream_come_in_its_order_and_those_of_joint_training_do_not() -> None:
    stream, seen = clbook.blurred(tasks(), n=40), list[torch.Tensor]()

    class Watched(Finetune):
        def prepare(self, state: Any, scenario: Scenario, k: int, batch: Any, rng: Any) -> Any:
            seen.append(batch.x)
            return batch

    class All(Joint):
        prepare = Watched.prepare

    train(stream, Watched(), [5], epochs=1, batch_size=10)
    assert torch.equal(torch.cat(seen), stream.data.x.to(seen[0]))
    seen.clear()
    train(stream, All(), [5], epochs=1, batch_size=10)
    assert not torch.equal(torch.cat(seen), stream.data.x.to(seen[0]))


# the detector ----------------------------------------------------------------------------------------------------------


@given(window=st.integers(2, 12), k=st.floats(0.5, 3), rise=st.floats(5, 50))
@settings(max_examples=40, deadline=None)
def test_the_delay_of_a_step_is_the_one_that_the_rule_gives(window: int, k: float, rise: float) -> None:
    """Losses of +-1 around 0, then `rise`: after d batches the mean of the window is known, and is compared with k std."""
    window *= 2
    noise = torch.tensor([1.0, -1.0], dtype=D).repeat(3 * window)
    losses = torch.cat([noise, torch.full((window,), rise, dtype=D)])
    std, start = noise[:window].std(), len(noise)
    means = [losses[start + d - window + 1 : start + d + 1].mean() for d in range(window)]
    late = next((d for d, mean in enumerate(means) if mean > k * std + 1e-12), None)
    found = changes(losses, window, k)
    assert found == ([] if late is None else [start + late])


def test_falling_and_constant_losses_raise_no_alarm() -> None:
    falling = torch.linspace(3, 0.1, 500, dtype=D)
    assert changes(falling, 20, 1.0) == changes(torch.ones(200, dtype=D), 20, 0.0) == []


def test_noise_alone_raises_few_alarms_and_a_step_is_found_soon() -> None:
    rng = torch.Generator().manual_seed(0)
    false, delays = 0, []
    for _ in range(20):
        noise = 1 + 0.3 * torch.randn(600, generator=rng)
        false += len(changes(noise, 40, 1.0))
        (found,) = changes(torch.cat([noise[:300], noise[300:] + 1]), 40, 1.0)
        delays.append(found - 300)
    assert false == 0 and 0 <= min(delays) and max(delays) < 40
    assert len(changes(noise, 4, 0.5)) > 10, "a short window and a low bound would cry wolf"


def test_after_a_change_a_detector_begins_anew() -> None:
    seen = begin(2, torch.zeros((), dtype=D))
    steps = []
    for loss in (1.0, 1.2, 0.9, 5.0, 5.0, 5.0):
        seen, changed, calmer = watch(seen, loss, 1.0)
        steps.append((changed, calmer))
    #       not full         first window   (1.2 + 0.9) / 2 < 1.1    above        not full         first window again
    assert steps == [(False, False), (False, True), (False, True), (True, False), (False, False), (False, True)]


# methods ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        StreamEWC(lam=0.0), StreamMAS(lam=0.0), StreamSI(lam=0.0), StreamLwF(lam=0.0), ChangeLwF(lam=0.0),
        StreamER(lam=0.0), StreamDERpp(alpha=0.0, beta=0.0), StreamEWC(lam=5.0, window=500), StreamLwF(lam=0.0, rate=0.0),
    ],
)  # fmt: skip
def test_at_strength_zero_or_before_any_change_each_is_fine_tuning(method: Method) -> None:
    stream = clbook.blurred(tasks("class"), n=60)
    plain, mine = (train(stream, one, [2], epochs=1, batch_size=10) for one in (Finetune(), method))
    torch.testing.assert_close(plain.theta[0], mine.theta[0])


@pytest.mark.parametrize(
    "make",
    [StreamEWC, StreamMAS, StreamSI, StreamLwF, ChangeLwF, StreamER, StreamAGEM, StreamDERpp, StreamCLSER, StreamRidge],
    ids=lambda m: m.__name__,
)
def test_a_stack_gives_what_single_runs_give_and_remembers_no_boundary(make: type[Method]) -> None:
    """Small windows, so that there are changes; and the hooks that would tell of a boundary do nothing."""
    fields = {f.name for f in dataclasses.fields(make)}
    more = {"lam": 2.0} if "lam" in fields else {}
    more |= {"window": 3, "k": 0.3, "recent": 20} if "window" in fields else {}
    stream = clbook.blurred(tasks("class"), n=60)
    stack = train(stream, make(**more), [0, 1], epochs=1, batch_size=10)
    for seed in (0, 1):
        torch.testing.assert_close(train(stream, make(**more), [seed], epochs=1, batch_size=10).theta[0], stack.theta[seed])
    plain = train(stream, Finetune(), [0], epochs=1, batch_size=10)
    assert not torch.allclose(plain.theta[0], stack.theta[0]), "it does something"
    net, theta = net_for(stream), net_for(stream).init(0)
    state = make(**more).start(net, theta)
    rng = torch.Generator()
    assert make(**more).after_task(net, theta, state, stream[0], rng) is state
    assert make(**more).before_task(net, theta, state, stream[0], rng) == (theta, state)


@pytest.mark.parametrize(
    ("told", "mine"),
    [
        (EWC(lam=3.0, n_samples=60), StreamEWC(lam=3.0, every=6, recent=60)),
        (MAS(lam=0.5, n_samples=60), StreamMAS(lam=0.5, every=6, recent=60)),
        (SI(lam=3.0), StreamSI(lam=3.0, every=6, recent=60)),
    ],
    ids=["EWC", "MAS", "SI"],
)
def test_a_clock_that_strikes_at_the_boundary_is_as_good_as_being_told(told: Method, mine: Method) -> None:
    """Six batches of ten a task, and a clock of six: the same Omega from the same 60 samples, one batch after the boundary."""
    stream = clbook.blurred(tasks("class"), 0.0, n=60)
    states: dict[str, Any] = {}

    def kept(method: Method, name: str) -> Method:
        class Keeping(type(method)):  # type: ignore[misc]
            stacks = False

            def after_step(self, theta: Any, state: Any, update: Any) -> Any:
                theta, state = super().after_step(theta, state, update)
                states.setdefault(name, []).append((theta, state))
                return theta, state

        return Keeping(**vars(method))

    class Seventh(type(mine)):  # type: ignore[misc]
        """Consolidates when the seventh batch has come in: after six steps, as at the end of the task."""

        def observe(self, net: Any, theta: Any, state: Any, *rest: Any) -> Any:
            start = {"batches": state["batches"] - 1}
            new = super().observe(net, theta, state | start, *rest)
            return new | {"batches": state["batches"] + 1}

    train(stream, kept(told, "told"), [0], epochs=1, batch_size=10)
    train(stream, kept(Seventh(**vars(mine)), "mine"), [0], epochs=1, batch_size=10)
    for name in ("omega", "theta_star"):
        torch.testing.assert_close(states["mine"][6][1][name], states["told"][6][1][name], rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(states["mine"][11][0], states["told"][11][0])


def test_a_buffer_is_a_uniform_draw_from_all_that_has_passed() -> None:
    """Over many seeds every sample of the stream is kept equally often, whenever it came."""
    stream, kept, runs = clbook.blurred(tasks("class"), n=30), torch.zeros(60), 400
    method, net = StreamER(size=12), net_for(stream)
    for seed in range(runs):
        rng, state = torch.Generator().manual_seed(seed), method.start(net, net.init(0))
        for k in range(2):
            for rows in torch.arange(30).split(10):
                state = method.observe(net, net.init(0), state, stream, stream.batch(k, rows), rng)
        place = state["kept"][:, 0] * 30 + state["kept"][:, 1]
        assert len(set(place.tolist())) == 12
        kept[place] += 1 / runs
    assert (kept - 12 / 60).abs().max() < 0.08 and abs(float(kept[:30].mean()) - 0.2) < 0.01  # a share's own spread is 0.02


def test_replay_weighs_old_and_new_by_lam_whatever_the_number_of_tasks() -> None:
    stream = clbook.blurred(tasks("class"), n=30).to("cpu", D)
    net = net_for(stream)
    theta, new, old = net.init(0).to(D), stream.batch(1, torch.arange(10)), stream.batch(0, torch.arange(10))
    found = StreamER(lam=3.0).loss(net, theta, {}, new._replace(old=old))
    torch.testing.assert_close(found, net.loss(theta, new) / 4 + 3 * net.loss(theta, old) / 4)
    assert not torch.allclose(found, ER(lam=2.0).loss(net, theta, {}, new._replace(old=old)))


def test_dark_replay_keeps_the_outputs_of_the_moment() -> None:
    stream = clbook.blurred(tasks("class"), n=30)
    net, rng, method = net_for(stream), torch.Generator().manual_seed(0), StreamDERpp(size=12)
    state, thetas, when = method.start(net, net.init(0)), [], {}
    for k in range(2):
        for i, rows in enumerate(torch.arange(30).split(10)):
            theta = net.init(10 * k + i)
            thetas.append(theta)
            when |= {(k, int(r)): len(thetas) - 1 for r in rows}
            state = method.observe(net, theta, state, stream, stream.batch(k, rows), rng)
    assert len({when[(int(k), int(r))] for k, r in state["kept"]}) > 2
    for (k, r), z in zip(state["kept"].tolist(), state["outputs"], strict=True):
        expected = net(thetas[when[(k, r)]], stream.batch(k, torch.tensor([r])).x)[0]
        torch.testing.assert_close(z, expected)


def test_sums_over_a_stream_are_those_of_all_samples_at_once() -> None:
    """Halfway and at the end the answers are those of ridge regression on what has gone by; nothing waits for a boundary."""
    stream = clbook.blurred(tasks("class"), n=40).to("cpu", D)
    method, net, rng = StreamRidge(lam=0.3), net_for(stream), torch.Generator()
    theta = net.init(0).to(D)
    state = method.start(net, theta)
    test = stream.batch(1, torch.arange(40))
    seen_x, seen_y = [], []
    for k in range(2):
        for rows in torch.arange(40).split(10):
            batch = stream.batch(k, rows)
            state = method.observe(net, theta, state, stream, batch, rng)
            seen_x.append(batch.x)
            seen_y.append(batch.y)
        everything = dataclasses.replace(stream[k], x=torch.cat(seen_x), y=torch.cat(seen_y))
        at_once = Ridge(lam=0.3).after_task(net, theta, Ridge(lam=0.3).start(net, theta), everything, rng)
        expected = Ridge(lam=0.3).predict(net, theta, at_once, test)
        torch.testing.assert_close(method.predict(net, theta, state, test), expected)


def test_two_memories_pull_on_replay_from_a_reservoir() -> None:
    """Without the pull it is replay from the reservoir, also in the third segment, where ER's own weights would differ."""
    stream = clbook.blurred(tasks(), n=30).to("cpu", D)
    net = net_for(stream)
    theta, fast, slow = (net.init(i).to(D) for i in range(3))
    batch = stream.batch(2, torch.arange(10))._replace(old=stream.batch(0, torch.arange(10)))
    state = {"theta_fast": fast, "theta_slow": slow}
    plain = StreamER(lam=2.0).loss(net, theta, {}, batch)
    torch.testing.assert_close(StreamCLSER(lam=2.0, beta=0.0).loss(net, theta, state, batch), plain)
    old = batch.old
    assert old is not None
    outputs = torch.stack([net(t, old.x) for t in (fast, slow)])  # [2, B, C]
    right = outputs.log_softmax(-1).gather(-1, old.y.expand(2, -1)[..., None])[..., 0]
    better = outputs[right.argmax(0), torch.arange(10)]
    pull = (net(theta, old.x) - better).square().mean()
    torch.testing.assert_close(StreamCLSER(lam=2.0, beta=0.7).loss(net, theta, state, batch), plain + 0.7 * pull)


def test_a_slow_teacher_is_a_moving_average() -> None:
    stream = tasks("class")
    method, net = StreamLwF(rate=0.75), net_for(stream)
    a, b = net.init(0), net.init(1)
    state = method.observe(net, b, {"teacher": a}, stream, stream.batch(0, torch.arange(4)), torch.Generator())
    torch.testing.assert_close(state["teacher"], 0.75 * a + 0.25 * b)


def test_a_window_of_one_batch_is_refused() -> None:
    with refused("StreamEWC.window must be at least 2 batches to have a std, got 1"):
        StreamEWC(lam=1.0, window=1)


# metrics at any time -----------------------------------------------------------------------------------------------------

# Task 0: learned to 0.9, falls to 0.2, ends at 0.6. Task 1: from 0.5 to 0.7.
CURVE = np.array([[0.5, np.nan], [0.9, np.nan], [0.2, 0.5], [0.6, 0.7]])
TRAINED = np.array([0, 0, 1, 1])


def test_anytime_metrics_by_hand() -> None:
    assert metrics.average_anytime_accuracy(CURVE) == pytest.approx((0.5 + 0.9 + 0.35 + 0.65) / 4)
    assert metrics.min_accuracy(CURVE, TRAINED) == pytest.approx(0.2)  # 0.5 came before it was learned
    assert metrics.worst_case_accuracy(CURVE, TRAINED) == pytest.approx(0.7 / 2 + 0.2 / 2)
    many = np.stack([CURVE, 1 - CURVE])
    assert metrics.min_accuracy(many, TRAINED).tolist() == pytest.approx([0.2, 0.4])
    one = CURVE[:2, :1]
    assert metrics.worst_case_accuracy(one, TRAINED[:2]) == 0.9 and np.isnan(metrics.min_accuracy(one, TRAINED[:2]))


@given(st.integers(1, 4), st.integers(2, 4), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_worst_is_no_better_than_the_end_and_equals_it_where_only_the_ends_are_measured(
    runs: int, T: int, seed: int
) -> None:
    curve = np.random.default_rng(seed).random((runs, 3 * T, T))
    trained = np.repeat(np.arange(T), 3)
    worst, final = metrics.worst_case_accuracy(curve, trained), curve[:, -1].mean(-1)
    assert (worst <= final + 1e-12).all()
    last = [-1] if T == 2 else [*range(2, 3 * T, 3)]
    ends = metrics.min_accuracy(curve[:, last], trained[last])
    assert (metrics.min_accuracy(curve, trained) <= ends + 1e-12).all()


def test_a_curve_that_was_not_measured_is_refused() -> None:
    with refused("eval_every=1"):
        metrics.average_anytime_accuracy(np.zeros((2, 0, 3)))
    with refused("trained must say"):
        metrics.min_accuracy(CURVE, TRAINED[:3])


# the experiments ---------------------------------------------------------------------------------------------------------


def test_what_counts_as_found() -> None:
    """Transitions from 100 and 200 on, a window of 20: one is found late, one has a second mark, and one mark is elsewhere."""
    assert judged([95, 119, 200, 210], [100, 200], 20) == (2, 2, [19, 0])
    assert judged([], [100], 20) == (0, 0, []) and judged([121], [100], 20) == (0, 1, [])


def test_a_blind_clock_and_alarms_at_random_find_their_share() -> None:
    """A clock as slow as the tasks hits each window in (window + 1) of its phases; random alarms are simulated."""
    starts, rng = [112.5, 262.5, 412.5, 562.5], np.random.default_rng(0)
    assert by_clock(150, starts, 60, 750) == pytest.approx(4 * 60 / 150)  # 113 to 172: sixty batches
    assert by_clock(150, [100, 250], 60, 750) == pytest.approx(2 * 61 / 150)
    assert by_clock(50, starts, 60, 750) == 4 and by_chance(0, starts, 60, 750) == 0
    for alarms in (1, 4):
        found = [judged(sorted(rng.integers(750, size=alarms).tolist()), starts, 60)[0] for _ in range(4000)]
        assert by_chance(alarms, starts, 60, 750) == pytest.approx(np.mean(found), abs=0.04)


# One old task, six steps a task: 0.9 before the switch, 0.2 right after it, back to 0.7, and then 0.1 lower in the last steps.
FALLEN = np.array([0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.6, 0.2, 0.5, 0.7, 0.6, 0.6])
TWO = np.stack([FALLEN, [np.nan] * 6 + [0.5] * 6], -1)
AT = np.repeat([0, 1], 6)


def test_a_fall_and_what_comes_back_by_hand() -> None:
    one = np.stack([TWO, 0.5 * TWO])
    np.testing.assert_allclose(falls(one, AT, 2)[:, 0], [[70, 35], [50, 25]])  # lowest in steps 7 and 8, back by step 10
    np.testing.assert_allclose(falls(one, AT, 2, late=2)[:, 0, 0], [-30, 20])  # from 0.2 to 0.5, then up to 0.7
    np.testing.assert_allclose(dip(one, AT)[:, 0, 0], [70 + 30, 50 - 20])
    still = np.full((3, 18, 3), 0.8)
    assert np.abs(dip(still, np.repeat([0, 1, 2], 6))).max() < 1e-9 and dip(still, np.repeat([0, 1, 2], 6)).shape == (2, 2, 3)


def test_a_steady_decline_is_no_gap() -> None:
    """It falls as much later as right after the switch, and noise alone gives as much of both."""
    line = np.linspace(1, 0, 300)
    curve = np.stack([line, np.where(np.arange(300) < 150, np.nan, 0.5)], -1)[None]
    assert np.abs(dip(curve, np.repeat([0, 1], 150))).max() < 1e-9
    noise = np.clip(0.7 + 0.05 * np.random.default_rng(0).standard_normal((40, 300, 2)), 0, 1)
    fallen, back = dip(noise, np.repeat([0, 1], 150)).mean(1)
    for values in (fallen, back):
        mean, half = metrics.interval(values)
        assert abs(mean) < 1.5 * half, "no dip where there is none"


def test_a_verdict_needs_its_seeds() -> None:
    near = np.array([-1.0, 0.0, 1.0])
    assert verdict(near, near) == "no fall can be told"
    assert verdict(40 + near, 35 - near).endswith("more than half")
    assert verdict(40 + near, 3 + near).endswith("less than half")
    assert verdict(40 + near, 20 + near).endswith("how much cannot be told")


def test_every_memory_holds_as_much_in_the_end() -> None:
    book = streams.GAP.sizes["book"]
    for stream, classes in (("permuted", 10 * book.tasks), ("split", 10)):
        entries = streams.told(stream)
        assert entries["GEM"].method.size * classes == streams.SAMPLES["size"]  # type: ignore[attr-defined]
        assert {entries[k].method.size for k in ("ER", "DER++", "CLS-ER", "A-GEM")} == {200}  # type: ignore[attr-defined]
    assert {e.tuned[0].name for k, e in (streams.TOLD | streams.ONLINE).items() if k != "ridge"} == {"lr"}
    detectors = [k for k in streams.ONLINE if streams.is_detector(k)]
    assert {k.replace("detector", "clock") for k in detectors} <= set(streams.ONLINE), "each has its clock"
    assert {k.replace("detector", "clock") for k in streams.CLASSES if streams.is_detector(k)} <= set(streams.CLASSES)


def test_the_experiments_choose_on_held_out_images_and_measure_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "TOLD", {k: streams.TOLD[k] for k in ("fine-tuning", "ER")})
    gap = reproduce("stability-gap", "quick", tmp_path, progress=False, quiet=True)
    curve, steps = gap.arrays["curve/split: ER"], gap.arrays["steps/split"]
    assert curve.shape == (2, 40, 2) and steps[:, 1].tolist() == [*range(1, 41)]
    assert gap.ours["split: ER: min"] == pytest.approx(100 * curve[:, 20:, 0].min(1), abs=1e-4)
    assert gap.ours["split: ER: final"] == pytest.approx(100 * curve[:, -1].mean(1), abs=1e-4), "the test set is small enough"
    for field in ("lr", "lam"):
        assert len(gap.arrays[f"search/split: ER: {field}"]) >= 3
    chosen = streams.best(gap, "split: ER", "lr")
    scores = {value: score for value, score, _ in gap.arrays["search/split: ER: lr"]}
    assert scores[chosen] == max(scores.values())
    assert gap.arrays["curve/split: ER, half the rate"].shape == curve.shape
    mean, half = metrics.interval(dip(curve, steps[:, 0])[0].mean(0))
    assert gap.ours["split: ER: fall at a switch, lower end"] == pytest.approx(mean - half, abs=1e-3)

    monkeypatch.setattr(streams, "ONLINE", {k: streams.ONLINE[k] for k in ("fine-tuning", "EWC, detector")})
    monkeypatch.setattr(streams, "WIDE", ("fine-tuning",))
    monkeypatch.setattr(streams, "CLASSES", ("fine-tuning",))
    monkeypatch.setattr(streams, "STREAMS", ("permuted",))
    found = reproduce("streams", "quick", tmp_path, progress=False, quiet=True)
    assert found.arrays["losses/permuted: 0.5: EWC, detector"].shape == (2, 40)
    assert found.arrays["losses/search: permuted: EWC, detector"].shape == (2, 40), "one stream a trial, and two trials"
    data = clbook.load("digits").subset(None, 40)
    own = clbook.blurred(clbook.permuted(data, 2), 0.5, n=200, seed=streams.OF_STREAM + 1)
    net = clbook.mlp(64, 10, (20,))
    how = {"epochs": 1, "batch_size": 10, "optimizer": "sgd", "lr": 0.1, "net": net, "device": "cpu", "progress": False}
    rate = {"lr": streams.best(found, "permuted: fine-tuning", "lr")}
    again = clbook.run(own, Finetune(), [1], **how | rate)
    assert found.ours["permuted: 0.5: fine-tuning: final"][1] == pytest.approx(100 * again.R[0, -1].mean())
    first = float(net.loss(net.init(1), own.batch(0, torch.arange(10))))
    assert found.arrays["losses/permuted: 0.5: EWC, detector"][1, 0] == pytest.approx(first, rel=1e-5), (
        "the loss before the step"
    )


def test_a_trial_is_the_mean_of_streams_of_its_own(tmp_path: Path) -> None:
    """Two runs on two streams, none of which any other trial or any run that is shown has; and to listen changes nothing."""
    sizes = dataclasses.replace(streams.BLURRED.sizes["quick"], trials=2)
    s = streams.Setting(sizes, clbook.load("digits").subset(None, 40), tmp_path, "cpu", progress=False)
    seeds = [streams.trial_seeds(s, seed) for seed in streams.SEEDS]
    assert len({*seeds[0], *seeds[1], *range(sizes.seeds)}) == 4 + sizes.seeds
    tasks = streams.tasks_of("permuted", s)
    net, method = streams.net_of(s, tasks), StreamEWC(lam=3.0, window=5, k=0.3)
    both = streams._stream_trial(s, "a", tasks, method, net, 1000, {"eval_every": None}, 0.5)
    chosen = streams.Chosen(method, {"eval_every": None}, net, {})
    for i, seed in enumerate(seeds[0]):
        alone, heard = streams.listen(s, chosen, tasks, [seed], 0.5)
        assert np.allclose(both.R[i, -1], alone.R[0, -1]) and heard.shape == (1, 40)
    assert not np.allclose(both.R[0, -1], both.R[1, -1])
