"""Net: one vector in, the numbers of a plain nn.Module out."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import clouds, module_with, refused, train
from torch import nn

from clbook import Categorical, Gaussian, Net, Scenario, cnn, mlp, split, transformer
from clbook.likelihood import masked
from clbook.methods import DERpp, FeatureExtraction, LwF, PackNet
from clbook.net import Gate, default_net
from clbook.scenarios import Batch


def batch_of(x: torch.Tensor, y: list[int], mask: torch.Tensor, gates: dict | None = None) -> Batch:
    zero = torch.zeros(len(x), dtype=torch.int64)
    return Batch(x, torch.tensor(y), mask, zero, zero, gates or {})


@settings(max_examples=20, deadline=None)
@given(hidden=st.lists(st.integers(1, 6), max_size=3), n_in=st.integers(1, 5), n_out=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_net_is_its_module(hidden: list[int], n_in: int, n_out: int, seed: int) -> None:
    net = mlp(n_in, n_out, hidden)
    theta, x = net.init(seed), torch.randn(7, n_in)
    sizes = [n_in, *hidden, n_out]
    assert net.n_params == len(theta) == sum((a + 1) * b for a, b in pairwise(sizes))
    h = x  # the same by hand
    parts = list(net.unflatten(theta).values())
    for w, b in zip(parts[::2], parts[1::2], strict=True):
        h = h @ w.T + b
        h = h if b is parts[-1] else h.relu()
    torch.testing.assert_close(net(theta, x), h)
    torch.testing.assert_close(net(theta, x), module_with(net, theta)(x))
    assert torch.equal(net.flatten(net.unflatten(theta)), theta)


def test_init_is_the_modules_own_and_leaves_the_global_generator_alone() -> None:
    net, before = mlp(4, 3, (5,)), torch.get_rng_state()
    theta = net.init(11)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(net.init(11), theta) and not torch.equal(net.init(12), theta)
    torch.manual_seed(11)
    plain = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    assert torch.equal(nn.utils.parameters_to_vector(plain.parameters()), theta)


def test_cnn_is_its_module() -> None:
    net = cnn((2, 8, 12), 5, channels=(3, 4), hidden=6)
    plain = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(4 * 2 * 3, 6), nn.ReLU(), nn.Linear(6, 5),
    )  # fmt: skip
    theta, x = net.init(0), torch.rand(3, 2 * 8 * 12)
    nn.utils.vector_to_parameters(theta, plain.parameters())
    torch.testing.assert_close(net(theta, x), plain(x.view(3, 2, 8, 12)))


def test_masked_loss_is_cross_entropy_over_the_outputs_that_count() -> None:
    net, x = mlp(3, 5, (4,)), torch.rand(2, 3)
    theta = net.init(0)
    mask = torch.tensor([[True, True, False, False, True], [False, True, True, False, False]])
    logits = net(theta, x)
    by_hand = [-logits[0, [0, 1, 4]].log_softmax(0)[2], -logits[1, [1, 2]].log_softmax(0)[0]]  # labels 4 and 1
    torch.testing.assert_close(net.loss(theta, batch_of(x, [4, 1], mask)), torch.stack(by_hand).mean())
    assert masked(logits, mask).softmax(-1)[~mask].eq(0).all()


def test_outputs_that_do_not_count_get_no_gradient() -> None:
    net, x = mlp(3, 4, ()), torch.rand(6, 3)
    theta = net.init(0).requires_grad_()
    mask = torch.tensor([True, False, True, False]).expand(6, 4)
    (g,) = torch.autograd.grad(net.loss(theta, batch_of(x, [0, 2, 0, 2, 0, 2], mask)), theta)
    w, b = net.unflatten(g).values()
    assert w[[1, 3]].eq(0).all() and b[[1, 3]].eq(0).all() and w[[0, 2]].ne(0).all()


def test_reconstruction_loss() -> None:
    net, x = mlp(3, 3, ()), torch.rand(4, 3)
    theta, told = net.init(0), net.told(Gaussian(sigma=0.5**0.5))
    batch = batch_of(x, [0] * 4, torch.ones(4, 1, dtype=torch.bool))._replace(y=x)
    assert float(told.loss(theta, batch)) == pytest.approx(float(((net(theta, x) - x) ** 2).mean()))
    assert net.likelihood == Categorical() and told.likelihood == Gaussian(sigma=0.5**0.5)


# gates and dropout -----------------------------------------------------------------------------------------------------


def test_a_gate_multiplies_its_units() -> None:
    net, x = mlp(2, 3, (4,)), torch.rand(5, 2)
    theta, (name,) = net.init(0), net.gates
    w1, b1, w2, b2 = net.unflatten(theta).values()
    factor = torch.tensor([0.0, 1.0, 2.0, 0.5])
    wanted = ((x @ w1.T + b1).relu() * factor) @ w2.T + b2
    torch.testing.assert_close(net(theta, x, {name: factor}), wanted)
    torch.testing.assert_close(net(theta, x, {name: torch.ones(4)}), net(theta, x))
    each = torch.rand(5, 4)  # a factor of its own for every sample
    torch.testing.assert_close(net(theta, x, {name: each}), ((x @ w1.T + b1).relu() * each) @ w2.T + b2)


def test_dropout_gates_have_the_right_rate_and_mean() -> None:
    net = mlp(50, 3, (80, 40), dropout=(0.2, 0.5))
    g = torch.Generator().manual_seed(0)
    gates = net.dropout((4000,), g)
    assert [tuple(v.shape) for v in gates.values()] == [(4000, 50), (4000, 80), (4000, 40)]
    for p, factor in zip((0.2, 0.5, 0.5), gates.values(), strict=True):
        assert factor.unique().tolist() == pytest.approx([0, 1 / (1 - p)])
        n = factor.numel()
        assert abs(float((factor == 0).double().mean()) - p) < 5 * (p * (1 - p) / n) ** 0.5  # five standard errors
    again = net.dropout((4000,), torch.Generator().manual_seed(0))
    assert all(torch.equal(again[k], gates[k]) for k in gates)


def test_dropout_is_off_unless_gates_are_given() -> None:
    wet, dry = mlp(4, 2, (6,), dropout=(0.5, 0.5)), mlp(4, 2, (6,))
    theta, x = dry.init(3), torch.rand(5, 4)
    assert torch.equal(wet.init(3), theta) and torch.equal(wet(theta, x), dry(theta, x))
    assert dry.dropout((5,), torch.Generator()) == {}
    assert mlp(4, 2, (6,), dropout=(0.0, 0.3)).gates.keys() == dry.gates.keys()


# which parameters are the last -----------------------------------------------------------------------------------------


def test_last_layers() -> None:
    net = mlp(3, 2, (4, 5))  # 3*4+4, 4*5+5, 5*2+2
    for layers, count in ((1, 12), (2, 37), (3, 53)):
        chosen = net.last(layers)
        assert int(chosen.sum()) == count and chosen[-count:].all()
    one = net.last(1, torch.tensor([False, True]))
    w, b = (net.unflatten(one.double())[n] for n in net.names[-2:])
    assert w.tolist() == [[0] * 5, [1] * 5] and b.tolist() == [0, 1] and int(one.sum()) == 6
    for layers in (0, 4):
        with refused(rf"1\.\.3 can be chosen, got {layers}"):
            net.last(layers)


# the order of the layers ------------------------------------------------------------------------------------------------


class HeadFirst(nn.Module):
    """The output layer is written down first and called last."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.head, self.body = nn.Linear(9, n_out), nn.Linear(n_in, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).relu())


class Branches(nn.Module):
    """Layers one within the other, one used twice, and a parameter that belongs to no layer but the whole network."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.last = nn.Linear(4, 3)
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.first = nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.inner(self.inner(self.first(x))) * self.scale)


def tasks() -> Scenario:
    return split(clouds(n=48, classes=6), 3, kind="task")


def head_first() -> Net:
    return Net(lambda: HeadFirst(6, 6))


def test_layers_stand_in_the_order_of_the_forward_pass() -> None:
    net = Net(lambda: HeadFirst(6, 6), example=torch.zeros(1, 6))
    assert net.names == ["head.weight", "head.bias", "body.weight", "body.bias"]
    assert net.layers == ("body", "head") and (net.n_outputs, net.output_shape) == (6, (6,))
    assert net.layer_of == {"head.weight": "head", "head.bias": "head", "body.weight": "body", "body.bias": "body"}
    chosen = net.unflatten(net.last())
    assert chosen["head.weight"].all() and chosen["head.bias"].all() and not (chosen["body.weight"].any())
    branches = Net(Branches, example=torch.zeros(2, 5))
    assert branches.layer_of["scale"] == "" and branches.n_outputs == branches.output_shape[-1]
    with refused("the order of the layers is not clear: module '' has parameters of its own and calls 'first'"):
        _ = branches.layers
    assert mlp(4, 2, (3, 5)).layers == ("0", "3", "6") and mlp(4, 2, ()).layers == ("0",)
    assert cnn((1, 4, 4), 2, channels=(3,), hidden=5).output_shape == (2,)
    words = transformer(7, 5, width=8, heads=2, depth=1)
    assert words.output_shape == (5, 7) and words.layers[0] == "token" and words.layers[-1] == "head"
    with refused(r"give Net\(factory, example=x\[:1\]\)"):
        _ = head_first().layers
    assert head_first().told(example=torch.zeros(3, 6)).layers == net.layers


def test_feature_extraction_trains_the_layer_that_is_called_last() -> None:
    first, *later = train(tasks(), FeatureExtraction(), net=head_first(), keep_thetas=True).thetas[0]
    net = head_first()
    before = net.unflatten(first)
    for k, theta in enumerate(later, start=1):
        now = net.unflatten(theta)
        assert torch.equal(now["body.weight"], before["body.weight"]) and torch.equal(now["body.bias"], before["body.bias"])
        rows = (now["head.weight"] != before["head.weight"]).any(1).nonzero().flatten().tolist()
        assert rows == list(range(2, 2 * k + 2)), "the rows of the new tasks learn, those of the first do not"


def test_the_warm_up_of_lwf_opens_the_layer_that_is_called_last() -> None:
    result = train(tasks().first(2), LwF(warmup=12), net=head_first(), keep_thetas=True)
    before, after = (head_first().unflatten(theta) for theta in result.thetas[0])
    moved = {name: before[name] != after[name] for name in before}
    assert moved["head.weight"].any(1).tolist() == moved["head.bias"].tolist() == [False, False, True, True, False, False]
    assert not moved["body.weight"].any() and not moved["body.bias"].any()


def test_der_keeps_as_many_outputs_as_the_last_layer_has() -> None:
    """The layer that is registered last has nine outputs here, and the network six."""
    s, kept = tasks(), []

    class Watched(DERpp):
        def after_task(self, net, theta, state, task, rng):
            kept.append(super().after_task(net, theta, state, task, rng))
            return kept[-1]

    train(s, Watched(size=10), net=head_first())
    assert [tuple(state["outputs"].shape) for state in kept] == [(10, 6)] * 3


def test_packnet_prunes_all_layers_but_the_one_that_is_called_last() -> None:
    states: list[dict[str, torch.Tensor]] = []

    class Watched(PackNet):
        def after_task(self, net, theta, state, task, rng):
            states.append(net.unflatten(state["owner"]) | {"theta": theta.clone()})
            return state

    train(tasks(), Watched(prune=0.5), net=head_first())
    owner = states[0]
    assert int((owner["body.weight"] == 0).sum()) == round(0.5 * 9 * 6)
    assert owner["head.bias"].tolist() == [1, 1, 0, 0, 0, 0] and owner["head.weight"][:2].eq(1).all()
    assert states[-1]["head.bias"].tolist() == [1, 1, 2, 2, 3, 3]


# the transformer --------------------------------------------------------------------------------------------------------


def test_a_block_is_torchs_own_encoder_layer() -> None:
    """The same weights in nn.TransformerEncoderLayer, with a causal mask: the same numbers."""
    net = transformer(7, 6, width=8, heads=2, depth=1)
    theta, x = net.init(3).double(), torch.randint(7, (4, 6), generator=torch.Generator().manual_seed(0))
    p = net.unflatten(theta)
    plain = nn.TransformerEncoderLayer(8, 2, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True).double()
    places = {
        "self_attn.in_proj_weight": "qkv.weight", "self_attn.in_proj_bias": "qkv.bias",
        "self_attn.out_proj.weight": "out.weight",
        "self_attn.out_proj.bias": "out.bias", "linear1.weight": "up.weight", "linear1.bias": "up.bias",
        "linear2.weight": "down.weight", "linear2.bias": "down.bias", "norm1.weight": "norm_1.weight",
        "norm1.bias": "norm_1.bias",
        "norm2.weight": "norm_2.weight", "norm2.bias": "norm_2.bias",
    }  # fmt: skip
    plain.load_state_dict({name: p[f"blocks.0.{ours}"] for name, ours in places.items()})
    h = p["token.weight"][x] + p["position.weight"]
    h = plain(h, src_mask=nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64))
    h = nn.functional.layer_norm(h, (8,), p["norm.weight"], p["norm.bias"])
    torch.testing.assert_close(net(theta, x), h @ p["head.weight"].T + p["head.bias"])


def test_no_position_sees_what_comes_after_it() -> None:
    net = transformer(9, 7, width=8, heads=4, depth=2)
    theta, x = net.init(0).double(), torch.randint(9, (1, 7), generator=torch.Generator().manual_seed(1))
    for t in range(7):
        other = x.clone()
        other[0, t] = (other[0, t] + 1) % 9
        a, b = net(theta, x)[0], net(theta, other)[0]
        torch.testing.assert_close(a[:t], b[:t], rtol=0, atol=0)
        assert (a[t] - b[t]).abs().max() > 1e-6
    torch.testing.assert_close(net(theta, x[:, :3]), net(theta, x)[:, :3])  # and a shorter text is one that ends earlier


# bad input -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), r"layer '1' \(BatchNorm1d\).*GroupNorm or LayerNorm"),
        (lambda: nn.BatchNorm1d(4, track_running_stats=False), "BatchNorm1d"),
        (lambda: nn.Sequential(nn.InstanceNorm2d(4, track_running_stats=True)), r"layer '0' \(InstanceNorm2d\)"),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), r"layer '1' \(Dropout\).*mlp\(\.\.\., dropout"),
        (lambda: nn.Sequential(nn.Dropout2d(0.5)), "Dropout2d"),
        (nn.Linear(3, 4), r"lambda: Linear\(\.\.\.\), not the network"),
    ],
)
def test_layers_that_are_no_function_of_theta(factory, message: str) -> None:
    with refused(message):
        Net(factory)


def test_layers_that_are_allowed() -> None:
    net = Net(lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.Tanh(), Gate(4), nn.Linear(4, 2)))
    x = torch.rand(6, 4)
    torch.testing.assert_close(net(net.init(0), x)[2:3], net(net.init(0), x[2:3]))  # a sample does not see the others


def test_a_factory_must_build_a_new_module() -> None:
    module = nn.Linear(3, 2)
    with refused("same module twice"):
        Net(lambda: module).init(0)


@pytest.mark.parametrize("dropout", [(1.0, 0.0), (-0.1, 0.0), (0.0, 1.5), (float("nan"), 0.0)])
def test_bad_dropout(dropout: tuple[float, float]) -> None:
    with refused(r"dropout must be .*, got \("):
        mlp(4, 2, (3,), dropout=dropout)


def test_bad_sizes() -> None:
    with refused(r"hidden must be greater than or equal to 1, got \(0,\)"):
        mlp(4, 2, (0,))
    with refused(r"at least 4 pixels a side, got \(1, 8, 3\)"):
        cnn((1, 8, 3), 2)
    with refused("width must be a multiple of heads, got 10 and 4"):
        transformer(5, 3, width=10, heads=4)


def test_default_net_fits_the_scenario() -> None:
    s = split(clouds(), 2, kind="domain")
    net = default_net(s, hidden=(3,))
    assert net(net.init(0), s.data.x).shape == (60, 2)


def test_hidden_layers_can_be_normalised_before_their_relu() -> None:
    net, x = mlp(3, 2, (5,), norm=True), torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    theta = net.init(0) + 0.1  # so that the norm's own weights are not just 1 and 0
    p = list(net.unflatten(theta).values())
    h = x @ p[0].T + p[1]
    h = (h - h.mean(1, keepdim=True)) / (h.var(1, correction=0, keepdim=True) + 1e-5).sqrt() * p[2] + p[3]
    torch.testing.assert_close(net(theta, x), h.relu() @ p[4].T + p[5])
