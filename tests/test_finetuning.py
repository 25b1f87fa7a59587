"""Fine-tuning: a network that knows its first task, several right answers, low rank, text that the old network writes."""

from __future__ import annotations

import ast
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from catalogue import several
from small import clouds, net_for, refused, train
from torch import Tensor, nn
from torch.func import grad, vmap

import clbook
from clbook import AnyOf, Categorical, Method, Net, Scenario, text
from clbook.lab import answers, further, language, rates
from clbook.lab.experiments import reproduce
from clbook.lab.report import Report
from clbook.methods import ER, EWC, Finetune, LoRA, OwnAnswers, PolicyGradient, PseudoRehearsal, RecordedReplay
from clbook.methods.pseudo import written
from clbook.scenarios import Batch

D = torch.float64


def batch_of(scenario: Scenario, k: int = 0, n: int = 8) -> Batch:
    return scenario.to("cpu", D).batch(k, torch.arange(n))


# a network that knows its first task --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [Finetune(), EWC(lam=10.0), ER(size=3), clbook.methods.LwF(), clbook.methods.MAS(lam=1.0)])
def test_to_go_on_from_a_trained_network_is_to_have_trained_it(method: Method) -> None:
    """The second task ends at the same theta, bit for bit, whether the first was trained now or brought along."""
    scenario = clbook.split(clouds(classes=4), 2, kind="class")
    whole = train(scenario, method, [3], keep_thetas=True)
    brought = train(scenario, method, [3], net=net_for(scenario).pretrained(whole.thetas[0][0]))
    assert torch.equal(brought.theta[0], whole.theta[0])
    assert np.array_equal(brought.R, whole.R, equal_nan=True)


def test_a_task_that_is_known_takes_no_steps() -> None:
    scenario = clbook.split(clouds(classes=4), 2, kind="class")
    theta = net_for(scenario).init(5).to(D)
    result = train(scenario.first(1), Finetune(), [0, 1], net=net_for(scenario).pretrained(theta))
    assert all(torch.equal(t, theta) for t in result.theta)
    both = train(scenario, Finetune(), [0], net=net_for(scenario).pretrained(theta, tasks=2))
    assert torch.equal(both.theta[0], theta)


@pytest.mark.parametrize("method", [Finetune(), LoRA(rank=1)])
def test_a_checkpoint_of_another_pretrained_network_is_refused(method: Method, tmp_path: Path) -> None:
    scenario = clbook.split(clouds(classes=4), 2, kind="class")
    net = net_for(scenario)
    train(scenario, method, net=net.pretrained(net.init(1)), checkpoint=tmp_path)
    with refused("network is"):
        train(scenario, method, net=net.pretrained(net.init(2)), checkpoint=tmp_path)


def test_pretrained_needs_a_theta_that_fits_and_a_task() -> None:
    net = clbook.mlp(3, 2, ())
    with refused("one vector of 8 parameters, got \\[7\\]"):
        net.pretrained(torch.zeros(7))
    with refused("tasks"):
        net.pretrained(torch.zeros(8), tasks=0)


def test_a_method_with_a_network_of_its_own_refuses_a_pretrained_one() -> None:
    scenario = clbook.split(clouds(classes=4), 2, kind="class")
    net = net_for(scenario)
    with refused("k-WTA trains a network of another form"):
        train(scenario, clbook.methods.KWTA(k=2), net=net.pretrained(net.init(0)))


# several right answers ----------------------------------------------------------------------------------------------------


def test_one_right_answer_is_a_label() -> None:
    f, y, mask = torch.randn(9, 4, dtype=D), torch.arange(9) % 3, torch.tensor([True, True, True, False])
    hot = nn.functional.one_hot(y, 4).to(D)
    for name in ("loss", "log_p", "score"):
        torch.testing.assert_close(getattr(AnyOf(), name)(f, hot, mask), getattr(Categorical(), name)(f, y, mask).to(D))


def test_log_p_of_several_answers_by_hand() -> None:
    f, y = torch.tensor([[0.0, math.log(2), math.log(5)]], dtype=D), torch.tensor([[1.0, 0.0, 1.0]], dtype=D)
    assert float(AnyOf().log_p(f, y, torch.ones(3).bool())) == pytest.approx(math.log(6 / 8))
    assert float(AnyOf().score(f, y, torch.ones(3).bool())) == 1.0
    assert float(AnyOf().score(f, 1 - y, torch.ones(3).bool())) == 0.0


def test_draws_answers_and_the_fisher_are_those_of_labels() -> None:
    f, mask = torch.randn(5, 4, dtype=D), torch.tensor([True, False, True, True])
    rng = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    assert torch.equal(AnyOf().sample(f, mask, rng()).argmax(-1), Categorical().sample(f, mask, rng()))
    assert torch.equal(AnyOf().answer(f, mask).argmax(-1), Categorical().answer(f, mask))
    for mine, theirs in zip(AnyOf().fisher_terms(f, mask), Categorical().fisher_terms(f, mask), strict=True):
        assert torch.equal(mine, theirs)


def test_own_answers_are_the_nearest_that_are_always_right() -> None:
    """q = p_0 y / sum p_0 y: no other distribution over the right answers has a smaller KL(q || p_0)."""
    scenario = several()
    net, batch = net_for(scenario), batch_of(scenario)
    theta = net.init(0).to(D)
    p0, right = net(theta, batch.x).softmax(-1), batch.y
    q = p0 * right / (p0 * right).sum(-1, keepdim=True)
    kl = lambda q: (torch.special.xlogy(q, q) - torch.special.xlogy(q, p0)).sum(-1)  # noqa: E731
    for seed in range(20):
        other = torch.rand(q.shape, generator=torch.Generator().manual_seed(seed), dtype=D) * right
        assert bool((kl(q) <= kl(other / other.sum(-1, keepdim=True))).all())
    entropy = -torch.special.xlogy(q, q).sum(-1).mean()
    loss = OwnAnswers().loss(net, theta, {"before": theta}, batch)
    assert float(loss) == pytest.approx(float((kl(q) + 0).mean() + entropy))  # the cross-entropy at theta_0


def test_own_answers_that_the_network_holds_for_impossible_are_still_a_distribution() -> None:
    """With outputs of 0 and 500 the right answers have p_0 = 0 in floating point; the nearest of them have not."""
    net = clbook.mlp(1, 3, ())
    theta = torch.cat([torch.zeros(3), torch.tensor([500.0, 1.0, 0.0])])
    y, mask = torch.tensor([[0.0, 1.0, 1.0]]), torch.ones(1, 3).bool()
    batch = Batch(torch.zeros(1, 1), y, mask, torch.zeros(1).long(), torch.zeros(1).long())
    q = torch.tensor([1.0, 0.0]).softmax(-1)
    expected = (q * torch.tensor([499.0, 500.0])).sum()
    torch.testing.assert_close(OwnAnswers().loss(net, theta, {"before": theta}, batch), expected)


def test_where_every_answer_is_right_own_answers_have_nothing_to_learn() -> None:
    scenario = several()
    net, batch = net_for(scenario), batch_of(scenario)
    theta = net.init(0).to(D)
    everything = batch._replace(y=torch.ones_like(batch.y))
    assert float(OwnAnswers().direction(net, theta, {"before": theta}, everything).abs().max()) < 1e-12


def test_the_exact_policy_gradient_climbs_the_expected_reward() -> None:
    scenario = several()
    net, batch = net_for(scenario), batch_of(scenario)
    theta = net.init(0).to(D)
    found = PolicyGradient(answers="exact").direction(net, theta, {}, batch)
    reward = lambda t: (net(t, batch.x).softmax(-1) * batch.y).sum() / len(batch.x)  # noqa: E731
    torch.testing.assert_close(found, -grad(reward)(theta))


def test_sampled_policy_gradients_average_to_the_exact_one() -> None:
    """With the mean reward of a batch of B as the baseline, to (1 - 1/B) of it: the sample's own reward is in the mean."""
    scenario = several()
    net, batch, method = net_for(scenario, ()), batch_of(scenario, n=4), PolicyGradient()
    theta, rng = net.init(0).to(D), torch.Generator().manual_seed(0)
    gumbel = torch.stack([method.prepare({}, scenario, 0, batch, rng).drawn["gumbel"] for _ in range(20_000)])
    one = lambda g: method.direction(net, theta, {}, batch._replace(drawn={"gumbel": g}))  # noqa: E731
    mean = vmap(one)(gumbel).mean(0)
    exact = 3 / 4 * PolicyGradient(answers="exact").direction(net, theta, {}, batch)
    assert float((mean - exact).norm() / exact.norm()) < 0.05


def test_methods_for_several_answers_refuse_labels() -> None:
    scenario = clbook.split(clouds(classes=4), 2, kind="domain")
    for method in (OwnAnswers(), PolicyGradient()):
        with refused("several right answers.*got Categorical"):
            train(scenario, method)


# low rank -----------------------------------------------------------------------------------------------------------------


def two_tasks() -> Scenario:
    return clbook.permuted(clouds(classes=3), 2)


def lora(rank: int = 1, **more: object) -> tuple[Net, Tensor, Tensor]:
    """The adapted network, its theta before and after the second task."""
    scenario = two_tasks()
    net = net_for(scenario)
    method = LoRA(rank=rank, **more)
    known = net.pretrained(net.init(4).to(D))
    adapted = method.extend(known, scenario)
    start = adapted.init(0).to(D)
    return adapted, start, train(scenario, method, [0], net=known, optimizer="sgd", lr=0.1).theta[0]


def test_lora_starts_as_the_network_it_adapts() -> None:
    scenario = two_tasks()
    net = net_for(scenario)
    theta, x = net.init(4), scenario[0].x
    adapted = LoRA(rank=2).extend(net.pretrained(theta), scenario)
    torch.testing.assert_close(adapted(adapted.init(9), x), net(theta, x))


@pytest.mark.parametrize("rank", [1, 2])
def test_lora_moves_weights_by_the_rank_it_says_and_nothing_else(rank: int) -> None:
    net, before, after = lora(rank)
    old, new = net.unflatten(before), net.unflatten(after)
    for name in old:
        if name.endswith((".A.weight", ".B.weight")):
            assert not torch.equal(old[name], new[name])
        else:
            assert torch.equal(old[name], new[name]), name
    moved = new["0.B.weight"] @ new["0.A.weight"]
    assert int(torch.linalg.matrix_rank(moved, rtol=1e-9)) == rank


def test_the_outputs_of_lora_by_hand() -> None:
    net, _, after = lora(2, alpha=3)
    p, x = net.unflatten(after), two_tasks()[1].x.to(D)
    weights = {k: p[f"{k}.layer.weight"] + 3 / 2 * p[f"{k}.B.weight"] @ p[f"{k}.A.weight"] for k in "03"}
    by_hand = (x @ weights["0"].T + p["0.layer.bias"]).relu() @ weights["3"].T + p["3.layer.bias"]
    torch.testing.assert_close(net(after, x), by_hand)


def test_lora_can_be_told_which_layers_to_adapt() -> None:
    net, _, _ = lora(1, layers=("3",))
    assert [n for n in net.names if n.endswith(".A.weight")] == ["3.A.weight"]
    with refused("LoRA.layers must name Linear layers.*'9'"):
        LoRA(layers=("9",)).extend(net_for(two_tasks()), two_tasks())


# text that the old network writes -----------------------------------------------------------------------------------------

V, T = 5, 6


class Counts(nn.Module):
    """A bigram model: the outputs for the next token depend on the present one alone, through a table [V, V]."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(V, V)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.table(x)
        return outputs


def texts(tasks: int = 2, n: int = 40) -> Scenario:
    """In task k, token t is followed by t + k + 1 nine times out of ten, and by any token else."""
    g, datas = torch.Generator().manual_seed(0), []
    for k in range(tasks):
        x = torch.randint(V, (n + 10, T + 1), generator=g)
        for t in range(T):
            follows = torch.rand(n + 10, generator=g) < 0.9
            x[:, t + 1] = torch.where(follows, (x[:, t] + k + 1) % V, x[:, t + 1])
        datas.append(clbook.Data(x[:n, :-1], x[:n, 1:], x[n:, :-1], x[n:, 1:], f"text {k}", (T,), V))
    return clbook.sequence(datas, kind="domain")


def bigrams() -> Net:
    return Net(Counts, example=torch.zeros((1, T), dtype=torch.int64))


def test_a_network_that_is_sure_writes_what_it_is_sure_of() -> None:
    theta = (50 * torch.eye(V).roll(1, 1)).flatten()  # after token i comes i + 1
    text = written(bigrams(), theta, 3, 2, torch.Generator().manual_seed(0))
    assert text.tolist() == [[2, 3, 4, 0, 1, 2]] * 3


def test_what_is_written_has_the_networks_own_frequencies() -> None:
    theta = torch.randn(V, V, generator=torch.Generator().manual_seed(1))
    text = written(bigrams(), theta.flatten(), 4000, 0, torch.Generator().manual_seed(0))
    counts = torch.zeros(V, V).index_put_((text[:, :-1].flatten(), text[:, 1:].flatten()), torch.ones(()), accumulate=True)
    frequencies = counts / counts.sum(-1, keepdim=True)
    assert float((frequencies - theta.softmax(-1)).abs().max()) < 0.03


def test_pseudo_rehearsal_pulls_nowhere_while_the_network_is_the_old_one() -> None:
    """At temperature 1 its old loss is the entropy of the network's own answers there, which is least where p = q."""
    scenario, net, method = texts().to("cpu", D), bigrams(), PseudoRehearsal(lam=2.0, size=7, first=0)
    theta, rng = net.init(0).to(D), torch.Generator().manual_seed(0)
    _, state = method.before_task(net, theta, method.start(net, theta), scenario[1], rng)
    batch = scenario.batch(1, torch.arange(6))
    drawn = method.prepare(state, scenario, 1, batch, rng)
    torch.testing.assert_close(method.direction(net, theta, state, drawn), grad(lambda t: net.loss(t, batch))(theta))
    p = net(theta, drawn.drawn["text"]).softmax(-1)
    entropy = -(p * p.log()).sum(-1).mean()
    torch.testing.assert_close(method.loss(net, theta, state, drawn) - net.loss(theta, batch), 2 * entropy)


def test_strong_pseudo_rehearsal_keeps_what_fine_tuning_loses() -> None:
    scenario = replace(texts(n=200), likelihood=Categorical("log_likelihood"))
    sizes = {"net": bigrams(), "steps": 150, "lr": 0.05}
    lost = lambda method: float(np.diff(train(scenario, method, **sizes).R[0, :, 0])[0])  # noqa: E731
    learned = train(scenario, PseudoRehearsal(lam=30.0, size=100, first=0), **sizes)
    assert learned.memory_bytes[0] == 0
    assert lost(Finetune()) < 3 * lost(PseudoRehearsal(lam=30.0, size=100, first=0)) < 0


def test_recorded_replay_keeps_the_windows_of_er_and_what_the_old_network_said_of_them() -> None:
    scenario, net = texts().to("cpu", D), bigrams()
    theta, task, method = net.init(0).to(D), scenario[0], RecordedReplay(lam=2.0, size=7)
    state = method.after_task(net, theta, method.start(net, theta), task, torch.Generator().manual_seed(1))
    er = ER(size=7)
    kept = er.after_task(net, theta, er.start(net, theta), task, torch.Generator().manual_seed(1))["kept"]
    assert torch.equal(state["text"], task.x[kept[:, 1]])
    assert torch.equal(state["recorded"], net(theta, task.x[kept[:, 1]]))
    # one more window from nowhere would add its cross-entropy with itself: the entropy of what the network says
    batch = batch_of(scenario, 1)._replace(drawn=dict(state))
    p = state["recorded"].log_softmax(-1)
    entropy = -(p.exp() * p).sum(-1).mean()
    assert method.loss(net, theta, state, batch) == pytest.approx(float(net.loss(theta, batch) + 2 * entropy))


def test_pseudo_rehearsal_stacked_is_what_each_run_is_alone() -> None:
    scenario, net = texts(), bigrams()
    methods = [PseudoRehearsal(lam=lam, size=9, first=1) for lam in (0.5, 2.0)]
    stacked = train(scenario, methods, [0, 1], net=net)
    alone = [train(scenario, m, [s], net=net) for m in methods for s in (0, 1)]
    for theta, one in zip(stacked.theta, alone, strict=True):
        torch.testing.assert_close(theta, one.theta[0])


def test_pseudo_rehearsal_needs_a_network_that_writes() -> None:
    with refused("needs one that gives the next token at every position"):
        train(clbook.split(clouds(), 2), PseudoRehearsal())
    with refused("first=7"):
        train(texts(), PseudoRehearsal(first=7), net=bigrams())


# the text of Python's own library -----------------------------------------------------------------------------------------

MODULE = '''"""What it is."""
import os  # not this

class A:
    """About A."""

    def f(self):
        """About f."""

def g(x):
    return "kept"
'''


def test_prose_are_the_docstrings_and_code_is_the_rest() -> None:
    assert list(text._docstrings(ast.parse(MODULE))) == ["What it is.", "About A.", "About f."]
    code = text._code(ast.parse(MODULE))
    assert "About" not in code and "not this" not in code and "'kept'" in code
    assert [type(n).__name__ for n in ast.parse(code).body] == ["Import", "ClassDef", "FunctionDef"]


def test_each_target_is_the_next_character_and_windows_follow_each_other() -> None:
    windows = text._windows("abcdefghi", 4, None)
    assert [text.decoded(w) for w in windows] == ["abcde", "efghi"]
    data = text.library("prose", 8, n_train=30, n_test=5, modules=40)
    assert torch.equal(data.x[:, 1:], data.y[:, :-1]) and data.x.shape == (30, 8) and data.x_test.shape == (5, 8)
    assert int(data.x.max()) < text.TOKENS


def test_no_module_is_trained_and_tested_on() -> None:
    sides = {part: set() for part in text.PARTS}
    for name, _ in text._modules():
        sides[text._part(name)].add(name)
    assert not sides["train"] & sides["test"] and 0.05 < len(sides["test"]) / len(sides["train"]) < 0.2


def test_a_character_that_is_not_ascii_is_a_question_mark() -> None:
    assert text.decoded(text.encoded("naïve")) == "na?ve"


# the experiments ----------------------------------------------------------------------------------------------------------


def test_what_each_way_calls_right() -> None:
    y = torch.tensor([3, 8])
    assert answers.targets(y, "0/1").argmax(-1).tolist() == [1, 0]
    assert answers.targets(y, "digit").argmax(-1).tolist() == [3, 8]
    assert [row.nonzero().flatten().tolist() for row in answers.targets(y, "parity")] == [[1, 3, 5, 7, 9], [0, 2, 4, 6, 8]]


def test_divergences_by_hand() -> None:
    """A network without inputs: two biases, so p is softmax of theta."""
    net, x = clbook.mlp(1, 2, ()), torch.zeros(3, 1)
    p, q = torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.5])
    theta = lambda p: torch.cat([torch.zeros(2), p.log()])  # noqa: E731
    kl = lambda p, q: float((p * (p / q).log()).sum())  # noqa: E731
    assert answers.divergences(net, theta(p), theta(q), x) == pytest.approx((kl(p, q), kl(q, p)), rel=1e-5)


def test_parity_is_forgetting_and_distance_of_every_way(tmp_path: Path) -> None:
    sizes = replace(answers.ANSWERS.sizes["quick"], seeds=1, lrs=(1e-2,), tuned_steps=(60,), steps=200)
    report = reproduce("parity", "quick", tmp_path, sizes=sizes, progress=False, quiet=True)
    lost = answers.forgotten(report.arrays)
    for way in answers.WAYS:
        old, new, kl, reverse = report.arrays[way][0, 0, 0]
        assert lost[way][0, 0, 0] == pytest.approx(report.arrays["start"][0] - old)
        assert report.ours[f"{way}: parity"] == pytest.approx(new) and min(kl, reverse) > 0
    # the nearest answers are nearer than those that are given, and keep more
    assert report.arrays["own right answers"][0, 0, 0, 2] < report.arrays["labels 0 and 1"][0, 0, 0, 2]
    assert lost["own right answers"] < lost["labels 0 and 1"]


def test_the_fronts_of_the_language_model(tmp_path: Path) -> None:
    sizes = replace(language.TUNED["quick"], seeds=1, recovery_steps=(1,))
    report = reproduce("lm-finetuning", "quick", tmp_path, sizes=sizes, progress=False, quiet=True)
    fronts = language.fronts(report)
    full = fronts["all weights"][fronts["all weights"][:, 0, 0] == sizes.lr][0, 0]
    result = report.results[f"all weights, {sizes.lr:g}"]
    assert full[1:] == pytest.approx(-result.R[0, 1])
    assert set(fronts) == {*(family for family, *_ in sizes.settings()), "averaged with the base"}
    assert report.arrays["recovery"].shape == (1, 1, 3)


def test_two_networks_in_one() -> None:
    start, a, b = (torch.randn(5, generator=torch.Generator().manual_seed(i), dtype=D) for i in range(3))
    one = torch.ones(5, dtype=D)
    assert torch.equal(further.added(start, (a, b), 0.0), start)
    assert torch.allclose(further.added(start, (a,), 1.0), a)
    assert torch.allclose(further.added(start, (a, b), 0.5), further.weighted_mean((a, b), [one, one]))
    weight = torch.tensor([0.0, 1.0, 0.0, 3.0, 2.0], dtype=D), torch.tensor([1.0, 0.0, 0.0, 1.0, 2.0], dtype=D)
    merged = further.weighted_mean((a, b), weight)
    assert torch.allclose(merged, torch.stack([b[0], a[1], b[2], (3 * a[3] + b[3]) / 4, (a[4] + b[4]) / 2]))
    # the lowest point of two springs
    theta = merged.clone().requires_grad_()
    pull = sum((w * (theta - t).square()).sum() for w, t in zip(weight, (a, b), strict=True))
    assert torch.allclose(torch.autograd.grad(pull, theta)[0], torch.zeros(5, dtype=D), atol=1e-12)


def test_further_fronts_and_merged_networks(tmp_path: Path) -> None:
    sizes = replace(further.FURTHER.sizes["quick"], seeds=1, lam_recorded=(), lam_pseudo=(), lam_ewc=(), shares=())
    report = reproduce("lm-further", "quick", tmp_path, sizes=sizes, progress=False, quiet=True)
    merged = {k.removeprefix("merged/"): v[0] for k, v in report.arrays.items() if k.startswith("merged/")}
    assert merged["base + 0.5 of both task vectors"] == pytest.approx(merged["mean of the two"], rel=1e-4)
    assert merged["code alone"][1] < merged["base"][1] and merged["names alone"][2] < merged["base"][2]
    assert set(language.fronts(report)) == {"both texts"}


def test_every_family_is_tried_at_every_rate_and_trained_with_it(tmp_path: Path) -> None:
    """At the usual rate the numbers are those of the experiment that has this one."""
    few = {"seeds": 1, "shares": (0.5,), "lam_ewc": (), "lam_recorded": (), "lam_pseudo": (), "both_steps": (20,)}
    sizes = replace(rates.RATES.sizes["quick"], **few, rates=(1e-3, 1e-4), lam_l2=())
    slow = reproduce("lm-rates", "quick", tmp_path / "a", sizes=sizes, progress=False, quiet=True)
    usual = replace(further.FURTHER.sizes["quick"], **few, scales=(0.5,))
    other = reproduce("lm-further", "quick", tmp_path / "b", sizes=usual, progress=False, quiet=True)
    found, expected = language.fronts(slow), language.fronts(other)
    assert set(found) == {f"{family}, lr {lr}" for family in ("replay", "both texts") for lr in ("0.001", "0.0001")}
    for family, front in expected.items():
        np.testing.assert_array_equal(found[rates.at(family, 1e-3)], front)
        assert (found[rates.at(family, 1e-4)][..., 2] > front[..., 2]).all(), "a tenth of the rate learns less code"


def test_beyond_the_ends_every_family_is_tried_and_no_strength_twice() -> None:
    """At book size, of the experiments whose curves the book draws as one."""
    tried = [t for e in (language.TUNED, further.FURTHER.sizes, rates.ENDS.sizes) for t in e["book"].settings()]
    pairs = [(t.family, t.strength) for t in tried]
    assert len(pairs) == len(set(pairs))
    for end in (t for t in rates.ENDS.sizes["book"].settings() if "lr" not in t.family and t.family != "top layers alone"):
        others = [t.strength for t in tried if t.family == end.family and t.strength != end.strength]
        assert not min(others) <= end.strength <= max(others)


def test_what_lies_beyond_the_ends_is_trained_as_it_says(tmp_path: Path) -> None:
    few: dict[str, Any] = {"seeds": 1, "lora": (), "lam_ewc": (), "lam_l2": (), "lrs": (1e-3,), "trainable": (2,)}
    ends = replace(rates.ENDS.sizes["quick"], **few, lam_recorded=(), both_steps=(20,), rates=(1e-3,), averaged=(0.5, 1.0))
    report = reproduce("lm-ends", "quick", tmp_path / "a", sizes=ends, progress=False, quiet=True)
    usual = replace(language.TUNED["quick"], **few, shares=(), lam_pseudo=(), recovery_steps=(1,))
    other = reproduce("lm-finetuning", "quick", tmp_path / "b", sizes=usual, progress=False, quiet=True)
    found, expected = language.fronts(report), language.fronts(other)
    for family in ("all weights", "top layers alone"):
        np.testing.assert_array_equal(found[family], expected[family])
    np.testing.assert_array_equal(found["top layers alone, lr 0.001"], found["top layers alone"])
    half, whole = found["averaged with the base, lr 0.001"][:, 0, 1:]
    assert whole == pytest.approx(found["all weights"][0, 0, 1:], abs=1e-4), "nothing of the base is left"
    assert whole[1] < half[1] < report.arrays["start"][0, 1], "half of the way back"
    assert "both texts" in found


def test_unbeaten_is_what_no_other_setting_is_as_good_as_at_both_texts() -> None:
    def front(*settings: tuple[float, float]) -> np.ndarray:  # two seeds around each
        return np.array([[[i, prose - 0.1, code], [i, prose + 0.1, code]] for i, (prose, code) in enumerate(settings)])

    best = rates.unbeaten([front((3.0, 1.0), (2.0, 2.0), (2.5, 2.0)), front((1.0, 4.0), (2.0, 3.0), (3.0, 1.0))])
    assert best.mean(1)[:, 1:].tolist() == [[3.0, 1.0], [3.0, 1.0], [2.0, 2.0], [1.0, 4.0]]
    rng = np.random.default_rng(0)
    some = front(*rng.random((40, 2)).tolist())
    means = some.mean(1)[:, 1:]
    kept = {tuple(row) for row in rates.unbeaten([some]).mean(1)[:, 1:]}
    for own in means:  # brute force
        assert (tuple(own) in kept) == all(other[0] > own[0] or other[1] > own[1] for other in means if (other != own).any())


def test_prose_is_read_off_between_two_settings() -> None:
    curve = np.array([[[1, 3.0, 1.0], [1, 5.0, 1.0]], [[2, 1.0, 2.0], [2, 2.0, 2.0]]])
    for code, prose in ((1.0, [3.0, 5.0]), (1.25, [2.5, 4.25]), (2.0, [1.0, 2.0]), (7.0, [1.0, 2.0])):
        np.testing.assert_allclose(rates.read_off(curve, code), prose)
    assert rates.read_off(curve, 0.99) is None


def test_the_fronts_of_two_reports_are_one_in_the_order_of_strength() -> None:
    def report(**fronts: list[float]) -> Report:
        arrays = {f"front/{k}": np.array([[[s, 10 * s, 0.0]] * 2 for s in v]) for k, v in fronts.items()}
        return Report("some", "quick", {}, {}, arrays | {"start": np.zeros((1, 2))}, {}, {})

    both = language.fronts(report(a=[1.0, 3.0], b=[5.0]), report(a=[0.5, 2.0], c=[7.0]))
    strengths = {"a": [0.5, 1.0, 2.0, 3.0], "b": [5.0], "c": [7.0]}
    assert {k: v[:, 0, 0].tolist() for k, v in both.items()} == strengths
    assert all((v[..., 1] == 10 * v[..., 0]).all() and v.shape[1:] == (2, 3) for v in both.values())


def test_an_average_with_nothing_of_the_base_is_the_tuned_network() -> None:
    sizes = replace(language.SIZES["quick"], n_train=40, n_test=10)
    scenario, net = sizes.scenario("prose", "code"), sizes.net()
    base, tuned = net.init(0), net.init(1)
    nats = [[language.nats(net, theta, scenario, j) for j in (0, 1)] for theta in (base, tuned)]
    got = language.averaged(net, base, [tuned], scenario, (0.0, 1.0))
    assert got[:, 0, 1:] == pytest.approx(np.array(nats), rel=1e-5)
