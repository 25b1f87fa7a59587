"""Scenarios: masks and labels on hand-made examples, transforms that can be undone, bad input refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import clouds, refused
from torch import nn

import clbook
from clbook import Data, Scenario, permuted, reconstruct, rotated, split
from clbook.scenarios import check_scenario, sequence

T, F = True, False


def rows_of(scenario: Scenario) -> list[list[int]]:
    return [rows.tolist() for rows in scenario.rows]


# masks and labels of the three scenarios -------------------------------------------------------------------------------


def test_split_task() -> None:
    """4 classes, 2 tasks: each task has its own two outputs, whatever has been seen."""
    s = split(clouds(), 2, kind="task")
    assert s.mask.tolist() == [[[T, T, F, F], [F, F, T, T]]] * 2
    assert s.relabel.tolist() == [[0, 1, -1, -1], [-1, -1, 2, 3]]
    assert s.n_outputs == 4 and s.names == ("0/1", "2/3")


def test_split_domain() -> None:
    """Two outputs, shared: the first and the second class of whatever task it is."""
    s = split(clouds(), 2, kind="domain")
    assert s.mask.tolist() == [[[T, T], [T, T]]] * 2
    assert s.relabel.tolist() == [[0, 1, -1, -1], [-1, -1, 0, 1]]
    assert s.n_outputs == 2


def test_split_class() -> None:
    """All outputs of the classes seen so far; a task not yet seen is judged with its own outputs as well."""
    s = split(clouds(), 2, kind="class")
    assert s.mask[0].tolist() == [[T, T, F, F], [T, T, T, T]]
    assert s.mask[1].tolist() == [[T, T, T, T], [T, T, T, T]]
    assert s.relabel.tolist() == [[0, 1, -1, -1], [-1, -1, 2, 3]]


def test_three_tasks_class_by_class() -> None:
    s = split(clouds(classes=3), 3, kind="class")
    own = [[T, F, F], [T, T, F], [T, T, T]]  # outputs once tasks 0..i have been seen
    assert s.mask.tolist() == [[own[max(i, j)] for j in range(3)] for i in range(3)]


@pytest.mark.parametrize(
    ("kind", "outputs", "relabel", "newest"),
    [
        ("domain", 3, [[0, 1, 2], [0, 1, 2]], [[T, T, T], [T, T, T]]),
        ("task", 6, [[0, 1, 2], [3, 4, 5]], [[T, T, T, F, F, F], [F, F, F, T, T, T]]),
        ("class", 6, [[0, 1, 2], [3, 4, 5]], [[T] * 6, [T] * 6]),
    ],
)
def test_permuted_outputs(kind: str, outputs: int, relabel: list, newest: list) -> None:
    s = permuted(clouds(classes=3), 2, kind=kind)
    assert (s.n_outputs, s.relabel.tolist(), s.mask[-1].tolist()) == (outputs, relabel, newest)


def test_split_deals_out_the_classes_in_order() -> None:
    d = clouds(classes=4)
    s = split(d, 2, kind="domain", order=[3, 0, 2, 1])
    assert s.names == ("3/0", "2/1")
    for k, group in enumerate([(3, 0), (2, 1)]):
        task = s[k]
        assert set(d.y[s.rows[k]].tolist()) == set(group)
        assert torch.equal(task.y, (d.y[s.rows[k]] == group[1]).long())  # label 0 for the first named class
        assert torch.equal(task.x, d.x[s.rows[k]]) and torch.equal(task.x_test, d.x_test[s.rows_test[k]])
        assert (task.classes, task.index, task.name) == ((0, 1), k, s.names[k])


def test_split_leaves_no_sample_out_and_takes_none_twice() -> None:
    s = split(clouds(n=61, classes=4), 4)
    assert torch.cat(s.rows).sort().values.tolist() == list(range(61))


# permutations ----------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), tasks=st.integers(1, 4), first=st.booleans())
def test_permutations_can_be_undone(seed: int, tasks: int, first: bool) -> None:
    d = clouds(n=8, n_test=4, shape=(2, 3, 5))
    s = permuted(d, tasks, seed=seed, first_identity=first)
    pixels = s.view.pixels
    for k in range(tasks):
        assert pixels[k].sort().values.tolist() == list(range(30))
        assert torch.equal(s[k].x[:, pixels[k].argsort()], d.x)
        assert torch.equal(s[k].x_test[:, pixels[k].argsort()], d.x_test)
    if first:
        assert torch.equal(s[0].x, d.x)


def test_permutations_depend_on_the_seed_alone() -> None:
    d, torch_state = clouds(shape=(1, 5, 5)), torch.get_rng_state()
    a, b, other = permuted(d, 4, seed=1), permuted(d, 6, seed=1), permuted(d, 4, seed=2)
    assert torch.equal(a.view.pixels, b.view.pixels[:4])  # a longer stream begins like a shorter one
    assert len(b.view.pixels.unique(dim=0)) == 6
    assert not torch.equal(a.view.pixels[1:], other.view.pixels[1:])
    assert torch.equal(torch.get_rng_state(), torch_state)


@pytest.mark.parametrize(("square", "corner"), [(2, 3), (4, 2), (8, 0)])
def test_a_square_permutation_touches_only_the_centre(square: int, corner: int) -> None:
    s = permuted(clouds(shape=(1, 8, 8)), 6, square=square)
    moved = (s.view.pixels != torch.arange(64)).any(0).view(8, 8)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[corner : corner + square, corner : corner + square] = True
    assert not moved[~inside].any()
    assert moved[inside].float().mean() > 0.5  # five permutations hardly ever leave a pixel where it was


def test_a_batch_of_many_tasks_shows_each_sample_as_its_task_does() -> None:
    s = permuted(clouds(shape=(1, 3, 4)), 3, kind="class")
    task, row = torch.tensor([[2, 0, 1, 1], [0, 0, 2, 1]]), torch.tensor([[5, 1, 7, 0], [3, 3, 9, 59]])
    batch = s.batch(task, row)
    assert batch.x.shape == (2, 4, 12) and batch.mask.shape == (2, 4, 12)
    for i in range(2):
        for j in range(4):
            one = s[int(task[i, j])]
            assert torch.equal(batch.x[i, j], one.x[row[i, j]]) and batch.y[i, j] == one.y[row[i, j]]
    assert batch.mask.all()  # the newest task in the batch has been seen, so all outputs count
    assert torch.equal(s.batch(task, row, seen=0).mask, s.mask[0, task])
    assert torch.equal(s.batch(1, row[0]).mask, s.mask[1, 1].expand(4, -1))


def test_a_stream_holds_one_copy_of_the_data() -> None:
    d = clouds(n=1000)
    s = permuted(d, 100).to("cpu")
    assert s.data.x.data_ptr() == d.x.data_ptr()
    assert len({rows.data_ptr() for rows in s.rows}) == 1


# rotations -------------------------------------------------------------------------------------------------------------


def test_rotations_by_quarter_turns() -> None:
    d = clouds(n=5, shape=(2, 6, 6))
    s = rotated(d, [0, 90, 180, -90])
    for k, turns in enumerate([0, 1, 2, 3]):
        wanted = torch.rot90(d.x.view(5, 2, 6, 6), turns, (2, 3)).flatten(1)  # counter-clockwise
        torch.testing.assert_close(s[k].x, wanted, atol=1e-5, rtol=0)
    assert s.names == ("0 degrees", "90 degrees", "180 degrees", "-90 degrees")


@pytest.mark.parametrize("shape", [(1, 7, 7), (1, 6, 10), (3, 9, 4)])
def test_rotations_agree_with_torchvision(shape: tuple[int, ...]) -> None:
    from torchvision.transforms.functional import InterpolationMode, rotate

    d = clouds(n=4, shape=shape)
    wanted = rotate(d.x.view(4, *shape), 33.0, interpolation=InterpolationMode.BILINEAR).flatten(1)
    torch.testing.assert_close(rotated(d, [33.0])[0].x, wanted, atol=1e-5, rtol=0)


# parts of a scenario ---------------------------------------------------------------------------------------------------


def marked(n: int = 40, n_test: int = 20) -> Data:
    """Every image is one number of its own, negative in the test part: it can be told where a sample comes from."""
    x = torch.arange(1.0, n + 1)[:, None].repeat(1, 4)
    return Data(x, torch.arange(n) % 4, -x[:n_test], torch.arange(n_test) % 4, "marked", (1, 2, 2), 4)


def overlapping(d: Data) -> Scenario:
    """Two tasks that share the images 10 to 29."""
    s = permuted(d, 2)
    return replace(s, rows=(torch.arange(30), torch.arange(10, 40)))


@pytest.mark.parametrize("make", [lambda d: split(d, 2), lambda d: permuted(d, 3), lambda d: rotated(d, [0, 10]), overlapping])
def test_held_out_never_shows_test_data(make) -> None:
    full = make(marked())
    s = full.held_out(0.25, seed=1)
    hidden: set[int] = set()
    for k in range(len(s)):
        shown = set(s.data.x[s.rows[k]][:, 0].tolist())
        tested = set(s.data.x_test[s.rows_test[k]][:, 0].tolist())
        assert min(shown | tested) > 0  # all of it is training data
        assert len(tested) == round(0.25 * len(full.rows[k])) and len(shown) > len(full.rows[k]) / 2
        assert make is overlapping or len(shown) + len(tested) == len(full.rows[k])
        hidden |= tested
    assert not any(hidden & set(s.data.x[rows][:, 0].tolist()) for rows in s.rows)  # nor is it trained on in another guise
    x, y = s.test(0)
    assert y.tolist() == [int(full.relabel[0, (round(float(v)) - 1) % 4]) for v in x[:, 0]]  # labels of the same samples


def test_held_out_is_seeded() -> None:
    s = permuted(clouds(), 2)
    assert rows_of(s.held_out(0.2, seed=5)) == rows_of(s.held_out(0.2, seed=5)) != rows_of(s.held_out(0.2, seed=6))
    for fraction in (0.0, 1.0, -1.0):
        with refused(f"fraction must be .*, got {fraction}"):
            s.held_out(fraction)


def test_first_keeps_the_outputs() -> None:
    s = split(clouds(), 4, kind="class")
    cut = s.first(2)
    assert (len(cut), cut.n_outputs, cut.names) == (2, 4, s.names[:2])
    assert torch.equal(cut.mask, s.mask[:2, :2]) and torch.equal(cut[1].y, s[1].y)
    for n in (0, 5):
        with refused(f"n_tasks must .*, got {n}"):
            s.first(n)


def test_tasks_by_number() -> None:
    s = split(clouds(), 4)
    assert [t.index for t in s] == [0, 1, 2, 3] and torch.equal(s[-1].x, s[3].x) and s[-1].index == 3
    for k in (4, -5):
        with pytest.raises(IndexError, match=f"task {k} of a scenario with 4"):
            s[k]
    assert torch.equal(s.test(1, 3)[0], s.test(1)[0][:3]) and torch.equal(s.test(1, 3)[1], s.test(1)[1][:3])


def test_to_changes_the_dtype_of_the_inputs() -> None:
    s = rotated(clouds(shape=(1, 4, 4)), [0, 90]).to("cpu", torch.float64)
    assert s[1].x.dtype == torch.float64 and s[1].y.dtype == torch.int64


# a view of the reader's own ----------------------------------------------------------------------------------------------


class Shift(nn.Module):
    """Each task adds a number of its own, which is a buffer, and writes down where it was sent."""

    def __init__(self, numbers: list[float]) -> None:
        super().__init__()
        self.register_buffer("numbers", torch.tensor(numbers))
        self.sent: list[tuple[object, ...]] = []

    def forward(self, x: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        return x + self.numbers[task][..., None].to(x.dtype)

    def to(self, *where: object, **more: object) -> Shift:
        self.sent.append(where)
        return super().to(*where, **more)


def test_a_module_as_a_view_goes_with_the_data() -> None:
    """A copy is sent with the data, and the reader's own module stays where it is."""
    view = Shift([0.0, 10.0])
    s = replace(permuted(clouds(), 2), view=view)
    torch.testing.assert_close(s[1].x, clouds().x + 10)
    moved = s.to("meta")
    assert isinstance(moved.view, Shift) and moved.view is not view
    assert moved.view.numbers.device.type == "meta" and moved.view.sent == [("meta",)]
    assert view.numbers.device.type == "cpu" and view.sent == []
    assert moved.data.x.device.type == moved.mask.device.type == moved.rows[0].device.type == "meta"
    batch = s.to("cpu", torch.float64).batch(torch.tensor([0, 1]), torch.tensor([3, 3]))
    torch.testing.assert_close(batch.x[1] - batch.x[0], torch.full((6,), 10.0, dtype=torch.float64))


def test_any_function_is_a_view() -> None:
    s = replace(permuted(clouds(), 2), view=lambda x, task: x * (1 + task[..., None]))
    torch.testing.assert_close(s.to("cpu")[1].x, 2 * clouds().x)
    torch.testing.assert_close(s.batch(torch.tensor([1, 0]), torch.tensor([0, 0])).x[0], 2 * clouds().x[0])


# tokens and real targets -------------------------------------------------------------------------------------------------


def test_reconstruction_shows_each_task_what_it_sees() -> None:
    """The target is the input as the task shows it, and all outputs count in every task, whatever its classes."""
    d = clouds(shape=(1, 2, 3))
    for base in (permuted(d, 2), split(d, 2, kind="task"), split(d, 2, kind="class")):
        s = reconstruct(base)
        assert s.n_outputs == 6 and s.mask.shape == (2, 2, 6) and s.mask.all() and not s.labelled
        for k, task in enumerate(s):
            assert torch.equal(task.y, task.x) and torch.equal(task.y_test, task.x_test) and torch.equal(task.x, base[k].x)
        batch = s.batch(torch.tensor([[1, 0]]), torch.tensor([[2, 1]]))
        assert torch.equal(batch.y, batch.x) and batch.mask.shape == (1, 2, 6)
        check_scenario(s)
    assert s.likelihood == clbook.Gaussian(0.5**0.5) and reconstruct(base, sigma=2.0).likelihood == clbook.Gaussian(2.0)


def test_a_sequence_of_texts() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randint(5, (2, 12, 3), generator=g)
    datas = [Data(x, y, x[:4], y[:4], "one", (3,), 5), Data(y, x, y[:6], x[:6], "two", (3,), 5)]
    s = sequence(datas, kind="domain")
    check_scenario(s)
    assert s.n_outputs == 5 and s.mask.all() and torch.equal(s[1].x, y) and torch.equal(s[1].y, x)
    task = sequence(datas, kind="task")
    assert torch.equal(task[1].y, x + 5) and task.mask[0].tolist() == [[T] * 5 + [F] * 5, [F] * 5 + [T] * 5]
    batch = task.batch(torch.tensor([1, 0]), torch.tensor([7, 2]))
    assert torch.equal(batch.x, torch.stack([y[7], x[2]])) and torch.equal(batch.y, torch.stack([x[7] + 5, y[2]]))


def test_a_sequence_of_real_targets() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(10, 4, generator=g), torch.randn(10, 2, generator=g)
    data = Data(x, y, x[:3], y[:3], "line", (4,), 2)
    s = sequence([data, replace(data, y=-y)], kind="domain")
    check_scenario(s)
    assert s.likelihood == clbook.Gaussian() and s.n_outputs == 2 and torch.equal(s[1].y, -y)
    assert s.to("cpu", torch.float64)[0].y.dtype == torch.float64
    with refused('real targets .*: kind must be "domain", got \'task\''):
        sequence([data, data], kind="task")
    with refused(r"Categorical\(.*\) does not fit targets of type torch.float32"):
        check_scenario(replace(s, likelihood=clbook.Categorical()))


# bad input -------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_made() -> None:
    d = clouds()
    for tasks in (0, -1):
        for make in (permuted, split):
            with refused(f"tasks must be greater than or equal to 1, got {tasks}"):
                make(d, tasks)
    with pytest.raises(ValueError, match="at least one task, got 0"):
        rotated(d, [])
    with refused("angles must be a finite number, got .nan"):
        rotated(d, [float("nan")])
    with pytest.raises(ValueError, match="4 classes cannot be dealt out evenly over 3 tasks"):
        split(d, 3)
    with pytest.raises(ValueError, match=r"classes 0\.\.3 once each, got \[0, 1, 2, 2\]"):
        split(d, 2, order=[0, 1, 2, 2])
    for square in (1, 4):
        with pytest.raises(ValueError, match=f"between 2 and 3 pixels, got {square}"):
            permuted(d, 2, square=square)
    for make in (split, permuted):
        with refused("kind must be 'task', 'domain' or 'class', got 'tasks'"):
            make(d, 2, kind="tasks")
    with refused("split needs one label a sample .* 'clouds' has none"):
        split(replace(d, y=None), 2)
    with refused("targets must be 'labels' or 'inputs', got 'pixels'"):
        replace(split(d, 2), targets="pixels")


def changed(d: Data, name: str, index: object, value: float) -> Data:
    tensor = getattr(d, name).clone()
    tensor[index] = value
    return replace(d, **{name: tensor})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: permuted(changed(d, "x", (3, 2), float("nan")), 2), "1 of 60 training inputs hold NaN"),
        (lambda d: permuted(changed(d, "x_test", slice(0, 2), float("inf")), 2), "2 of 30 test inputs hold NaN or infinity"),
        (lambda d: permuted(changed(d, "y", 5, 4), 2), r"1 of 60 training labels .* such as 4; allowed are 0\.\.3"),
        (lambda d: permuted(changed(d, "y_test", 5, -1), 2), r"test labels are out of range, such as -1; allowed are 0\.\.3"),
        (lambda d: split(changed(d, "y", 5, 11), 2), r"training labels are out of range, such as 11"),
        (lambda d: split(replace(d, y=d.y % 2), 2), r"task 1 \(2/3\) has no training samples"),
        (lambda d: split(replace(d, y_test=d.y_test % 2), 2), r"task 1 \(2/3\) has no test samples"),
        (lambda d: replace(permuted(d, 2), relabel=torch.tensor([[0, 1, -1, 3]] * 2)), "task 0 .* samples of a class"),
        (lambda d: permuted(replace(d, y=None), 2), "no labels"),
        (lambda d: split(replace(d, shape=(1, 3, 3)), 2), r"training inputs have 6 values each, .* \(1, 3, 3\) have 9"),
        (lambda d: split(d.subset(1), 4, kind="class"), "has no training samples"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_on(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_scenario(make(clouds()))


def test_more_inputs_than_labels() -> None:
    d = clouds()
    s = permuted(d, 2)
    object.__setattr__(s.data, "y", d.y[:-1])  # past the shapes that the tests check at run time
    with pytest.raises(ValueError, match="60 training inputs and 59 labels"):
        check_scenario(s)


def test_good_scenarios_pass() -> None:
    d = clouds()
    for s in (split(d, 2), permuted(d, 3, kind="class"), rotated(d, [0, 45]), split(d, 4, kind="domain").held_out()):
        check_scenario(s)
    check_scenario(reconstruct(permuted(replace(d, y=None, y_test=None), 2)))
    assert clbook.split(d, 2).kind == "task"


# data sets in turn -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "relabel", "newest"),
    [
        ("task", [[0, 1, -1, -1, -1], [-1, -1, 2, 3, 4]], [[T, T, F, F, F], [F, F, T, T, T]]),
        ("class", [[0, 1, -1, -1, -1], [-1, -1, 2, 3, 4]], [[T, T, T, T, T]] * 2),
    ],
)
def test_a_sequence_of_data_sets(kind: str, relabel: list, newest: list) -> None:
    """Every task is its data set as it was, with its outputs after those of the sets before it."""
    datas = [replace(clouds(classes=2, seed=0), name="one"), replace(clouds(n=30, n_test=12, classes=3, seed=1), name="two")]
    s = sequence(datas, kind=kind)
    check_scenario(s)
    assert s.names == ("one", "two") and s.n_outputs == 5
    assert s.relabel.tolist() == relabel and s.mask[1].tolist() == newest
    for task, data, start in zip(s, datas, (0, 2), strict=True):
        assert torch.equal(task.x, data.x) and torch.equal(task.x_test, data.x_test)
        assert torch.equal(task.y, data.y + start) and torch.equal(task.y_test, data.y_test + start)


def test_a_sequence_under_shared_outputs() -> None:
    s = sequence([clouds(classes=3, seed=0), clouds(classes=3, seed=1)], kind="domain")
    assert s.n_outputs == 3 and s.mask.all() and torch.equal(s[1].y, clouds(classes=3).y)


def test_bad_sequences_are_refused() -> None:
    one, wide = clouds(classes=2), clouds(classes=3, shape=(1, 3, 3))
    bare = Data(one.x, None, one.x_test, None, "bare", one.shape, 2)
    cases = (([], "task", "at least one"), ([one, wide], "task", "one shape"), ([one, bare], "task", "bare"),
             ([one, clouds(classes=3)], "domain", r"\[2, 3\]"))  # fmt: skip
    for datas, kind, words in cases:
        with pytest.raises(ValueError, match=words):
            sequence(datas, kind=kind)
    with refused("kind must be 'task', 'domain' or 'class', got 'none'"):
        sequence([one], kind="none")
