"""The live figures compute what clbook computes, and answer to mouse, finger and keyboard."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import live
import live_stills
import nbformat
import pytest
import torch
from chromium import CHROMIUM, MISSING
from pages import ROOT
from playwright.sync_api import Browser, Page
from torch import Tensor
from torch.func import grad

import clbook
from clbook import fisher, sampling
from clbook.likelihood import distillation
from clbook.method import Method, Update, merge, proximal
from clbook.methods import ER, EWC, L2, MAS, Finetune, LwF
from clbook.methods.mas import mas_importance
from clbook.scenarios import Batch

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
STATIC = ROOT / "book" / "_static" / "live"
SCRIPTS = list(dict.fromkeys([*live.SHARED, *(script for scripts in live.FIGURES.values() for script in scripts)]))
TEXT = (ROOT / "book" / "live.md").read_text(encoding="utf-8")
KINDS = ("task", "domain", "class")
NEAR = {"rtol": 1e-4, "atol": 1e-7}


# the numbers ------------------------------------------------------------------------------------------------------------------

Lab = Callable[..., Any]
# what every script of this file may use: typed arrays of lists, a run on pairs of digits, one of the two tasks of two weights
PRELUDE = """
  const floats = (list) => Float64Array.from(list), bits = (rows) => rows.map((row) => Uint8Array.from(row));
  const {PAIRS, TRAINING} = Live.forget;
  const learned = (kind, name, strength, tasks, more = {}) => {
    const scenario = Live.split(Live.digits(), PAIRS, kind);
    const method = new Live.methods[name](strength);
    const run = new Live.Run({net: new Live.MLP(64, 32, scenario.C), scenario, method, seed: 1, ...TRAINING, ...more});
    while (run.learned < tasks) run.step();
    return run;
  };
  const toy = (w, task) => new Live.TwoWeights(floats(Live.data.toy[task].x), w);
"""


@pytest.fixture(scope="module")
def lab(browser: Browser) -> Iterator[Lab]:
    """lab(body, **values): what a function with this body returns in a browser that has loaded every script."""
    page = browser.new_page()
    for script in SCRIPTS:
        page.add_script_tag(path=STATIC / script)

    def call(body: str, **values: Any) -> Any:
        given = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in values.items()}
        return page.evaluate(f"(given) => {{ {PRELUDE} const {{{', '.join(given)}}} = given; {body} }}", given)

    yield call
    page.close()


@pytest.fixture(scope="module")
def net() -> clbook.Net:
    return clbook.mlp(64, 10, (32,))


@pytest.fixture(scope="module")
def data() -> clbook.Data:
    return clbook.load("digits").to("cpu", torch.float64)


@pytest.fixture(scope="module")
def samples(data: clbook.Data, net: clbook.Net) -> dict[str, Tensor]:
    """A network beside its initial place, 90 digits and, for each, which outputs count."""
    theta = net.init(0).double() + 0.05 * torch.randn(net.n_params, generator=torch.Generator().manual_seed(1)).double()
    x, y = data.x[:90], data.y[:90]
    even = torch.arange(10) % 2 == 0
    masks = torch.where((y % 2 == 0)[:, None], even, torch.ones(10, dtype=torch.bool))
    return {"theta": theta, "x": x, "y": y, "masks": masks}


def same(found: list[float], expected: Tensor) -> None:
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected.double().flatten(), **NEAR)


def test_the_digits_are_those_of_the_package(lab: Lab, data: clbook.Data) -> None:
    found = lab("const d = Live.digits(); return [d.train, d.test].map(({x, y}) => [Array.from(x), y]);")
    for (x, y), (x_here, y_here) in zip(found, [(data.x, data.y), (data.x_test, data.y_test)], strict=True):
        assert x == x_here.flatten().tolist() and y == y_here.tolist()


def test_loss_and_gradient_are_those_of_the_package(lab: Lab, net: clbook.Net, samples: dict[str, Tensor]) -> None:
    index = torch.zeros(90, dtype=torch.int64)
    batch = Batch(samples["x"], samples["y"], samples["masks"], index, index)
    found = lab(
        "const g = Live.lossGradient(new Live.MLP(64, 32, 10), floats(theta), {x: floats(x.flat()), y, masks: bits(masks)});"
        "return [g.loss, Array.from(g.gradient)];",
        **samples,
    )
    same([found[0]], net.loss(samples["theta"], batch))
    same(found[1], grad(lambda t: net.loss(t, batch))(samples["theta"]))


@pytest.mark.parametrize(
    ("estimator", "size"), [("exact", 1), ("empirical", 1), ("batched", 1), ("batched", 17), ("batched", 90)]
)
@pytest.mark.parametrize("classes", [10, 6])
def test_the_fisher_is_that_of_the_package(
    lab: Lab, net: clbook.Net, samples: dict[str, Tensor], estimator: Any, size: int, classes: int
) -> None:
    mask = torch.arange(10) < classes
    rows = mask[samples["y"]]
    given = {"theta": samples["theta"], "x": samples["x"][rows], "y": samples["y"][rows], "mask": mask}
    expected = fisher(net, given["theta"], given["x"], given["y"], mask=mask, estimator=estimator, batch_size=size)
    found = lab(
        "const rows = {x: floats(x.flat()), y, masks: bits(y.map(() => mask))};"
        "return Array.from(Live.fisher(new Live.MLP(64, 32, 10), floats(theta), rows, estimator, size));",
        **given,
        estimator=estimator,
        size=size,
    )
    same(found, expected)


@pytest.mark.parametrize("classes", [10, 6])
def test_the_importance_of_mas_is_that_of_the_package(
    lab: Lab, net: clbook.Net, samples: dict[str, Tensor], classes: int
) -> None:
    mask = torch.arange(10) < classes
    found = lab(
        "const rows = {x: floats(x.flat()), y, masks: bits(y.map(() => mask))};"
        "return Array.from(Live.masImportance(new Live.MLP(64, 32, 10), floats(theta), rows));",
        mask=mask,
        **samples,
    )
    same(found, mas_importance(net, samples["theta"], samples["x"], mask=mask))


def test_distillation_and_its_gradient_are_those_of_the_package(lab: Lab) -> None:
    g = torch.Generator().manual_seed(2)
    f, recorded = (3 * torch.randn(7, 5, generator=g, dtype=torch.float64) for _ in range(2))
    old = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 1, 0]]).bool()
    now = torch.tensor([[1, 1, 0, 0, 1], [0, 0, 1, 1, 0]]).bool()
    loss, signal = lab(
        "const groups = old.map((o, g) => ({old: o, now: now[g]}));"
        "const d = Live.distillation(floats(f.flat()), floats(recorded.flat()), 5, groups, 2);"
        "return [d.loss, Array.from(d.signal)];",
        f=f,
        recorded=recorded,
        old=old,
        now=now,
    )
    same([loss], distillation(f, recorded, now, old, 2.0))
    same(signal, grad(lambda f: distillation(f, recorded, now, old, 2.0))(f))


def test_springs_pull_and_merge_as_in_the_package(lab: Lab) -> None:
    g = torch.Generator().manual_seed(3)
    theta, star, other = (torch.randn(6, generator=g, dtype=torch.float64) for _ in range(3))
    omega, more = (torch.rand(6, generator=g, dtype=torch.float64) * torch.tensor([1, 1, 0, 1, 0, 1]) for _ in range(2))
    state, ewc = {"omega": omega, "theta_star": star}, EWC(lam=30.0, pull="explicit")
    found = lab(
        "const spring = {omega: floats(omega), star: floats(star)}, merged = Live.merge(spring, floats(more), floats(other));"
        "const t = floats(theta), pull = Array.from(Live.pull(t, spring, 30));"
        "return {penalty: Live.penalty(t, spring, 30), pull, proximal: Array.from(Live.proximal(t, spring, 7)),"
        "  omega: Array.from(merged.omega), star: Array.from(merged.star)};",
        theta=theta,
        star=star,
        other=other,
        omega=omega,
        more=more,
    )
    same([found["penalty"]], ewc.penalty(theta, state))
    same(found["pull"], grad(lambda t: ewc.penalty(t, state))(theta))
    same(found["proximal"], proximal(theta, state, torch.tensor(7.0)))
    merged = merge(state, more, other)
    same(found["omega"], merged["omega"])
    same(found["star"], merged["theta_star"])


RUNS: dict[str, tuple[Method, float]] = {
    "Finetune": (Finetune(), 0),
    "L2": (L2(lam=0.3), 0.3),
    "EWC": (EWC(lam=50.0), 50),
    "MAS": (MAS(lam=0.5), 0.5),
    "LwF": (LwF(lam=1.5), 1.5),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RUNS)
def test_a_whole_run_over_three_tasks_ends_where_the_package_ends(lab: Lab, data: clbook.Data, name: str, kind: Any) -> None:
    method, strength = RUNS[name]
    scenario = clbook.split(data, 5, kind=kind).first(3)
    net, sizes = clbook.mlp(64, scenario.n_outputs, (32,)), {"steps": 12, "batch_size": 8}
    result = clbook.run(scenario, method, net=net, lr=0.2, optimizer="sgd", dtype=torch.float64, progress=False, **sizes)
    orders = [
        sampling.order(len(rows), 12, 8, sampling.generator(0, "order", k)).flatten() for k, rows in enumerate(scenario.rows)
    ]
    R, theta = lab(
        "const more = {steps: 12, batchSize: 8, theta: floats(start), order: (k) => orders[k]};"
        "const run = learned(kind, name, strength, 3, more);"
        "return [run.R, Array.from(run.theta)];",
        kind=kind,
        name=name,
        strength=strength,
        start=net.init(0),
        orders=[order.tolist() for order in orders],
    )
    same(theta, result.theta[0])
    for i, row in enumerate(R):
        assert row == pytest.approx(result.R[0, i, : i + 1].tolist())


def test_a_step_of_replay_is_that_of_the_package(lab: Lab, data: clbook.Data, net: clbook.Net) -> None:
    scenario, theta = clbook.split(data, 5, kind="task"), net.init(4).double()
    new = scenario.batch(2, torch.arange(8))
    old = scenario.batch(torch.tensor([0, 1] * 4), torch.arange(8), 2)
    both = [{"x": b.x.tolist(), "y": b.y.tolist(), "masks": b.mask.tolist()} for b in (new, old)]
    found = lab(
        "const [fresh, old] = both.map(({x, y, masks}) => ({x: floats(x.flat()), y, masks: bits(masks)}));"
        "const run = {net: new Live.MLP(64, 32, 10), theta: floats(theta), k: 2};"
        "return Array.from(new Live.methods.ER(5).direction(run, {...fresh, old}));",
        theta=theta,
        both=both,
    )
    same(found, ER().direction(net, theta, {}, new._replace(old=old)))


class TwoWeights(torch.nn.Module):
    """The classifier of notebook 3, logits 0 and theta . x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        z = x @ self.w
        return torch.stack([torch.zeros_like(z), z], -1)


@pytest.mark.parametrize("implicit", [True, False])
def test_loss_fisher_and_a_step_of_two_weights_are_those_of_the_package(lab: Lab, implicit: bool) -> None:
    x = torch.tensor(lab("return Live.data.toy.B.x"), dtype=torch.float64).view(-1, 2)
    toy, all_outputs = clbook.Net(TwoWeights), torch.ones(1, 2, dtype=torch.bool)
    theta, w, star = (torch.tensor(v, dtype=torch.float64) for v in ([0.4, -1.1], [-1.5, 2.5], [1.5, -1.0]))

    def loss(theta: Tensor) -> Tensor:  # the labels are drawn at w, so this is what is learned from all draws together
        return distillation(toy(theta, x), toy(w, x), all_outputs, all_outputs, 1.0)

    F = fisher(toy, theta, x)
    state, ewc = {"omega": F, "theta_star": star}, EWC(lam=20.0, pull="implicit" if implicit else "explicit")
    force = torch.zeros(2) if implicit else grad(lambda t: ewc.penalty(t, state))(theta)
    moved = theta - 0.5 * (grad(loss)(theta) + force)
    step, _ = ewc.bind({"lam": torch.tensor(20.0)}).after_step(moved, state, Update(theta, force, torch.tensor(0.5)))
    found = lab(
        "const B = toy(w, 'B'), F = B.fisher(theta), how = {eta: 0.5, lam: 20, implicit};"
        "return [B.loss(theta), F, Live.springStep(theta, B, {omega: F, star}, how)];",
        theta=theta,
        w=w,
        star=star,
        implicit=implicit,
    )
    same([found[0]], loss(theta))
    same(found[1], F)
    same(found[2], step)


def test_the_inputs_of_two_weights_are_those_of_notebook_3(lab: Lab) -> None:
    notebook = nbformat.read(ROOT / "notebooks" / "03_ewc.ipynb", as_version=4)
    (source,) = [c.source for c in notebook.cells if c.cell_type == "code" and "def make_task" in c.source]
    there: dict[str, Any] = {"torch": torch, "clbook": clbook, "grad": grad}
    exec(source, there)
    for task in ("A", "B"):
        x, w = lab("const {x, w} = Live.data.toy[task]; return [x, w];", task=task)
        assert torch.tensor(x).view(-1, 2).sub(there[task][0][: len(x) // 2]).abs().max() <= 0.0006
        labels = torch.bernoulli(torch.sigmoid(there[task][0] @ torch.tensor(w)), generator=after_inputs(task)).long()
        assert torch.equal(labels, there[task][1]), "these weights drew the labels"


def after_inputs(task: str) -> torch.Generator:
    """The generator of a task once its inputs have been drawn."""
    g = torch.Generator().manual_seed({"A": 0, "B": 1}[task])
    torch.randn(2000, 2, generator=g)
    return g


# what must hold whatever the numbers ------------------------------------------------------------------------------------------


def test_random_numbers_are_uniform_and_an_order_holds_each_index_once(lab: Lab) -> None:
    drawn, order = lab(
        "const r = Live.mulberry32(5), order = Array.from(Live.shuffled(100, r));"
        "return [Array.from({length: 20000}, r), order.sort((a, b) => a - b)];"
    )
    assert order == list(range(100))
    u = torch.tensor(drawn)
    assert 0 <= u.min() and u.max() < 1
    assert torch.histc(u, 10, 0, 1).sub(2000).abs().max() < 5 * (20000 * 0.1 * 0.9) ** 0.5
    assert abs(float(torch.corrcoef(torch.stack([u[1:], u[:-1]]))[0, 1])) < 5 / 20000**0.5


def test_ewc_with_a_huge_lambda_keeps_every_weight_that_matters(lab: Lab) -> None:
    moved, all_moved = lab(
        "const run = learned('task', 'EWC', 1e12, 1), {omega, star} = run.method.spring;"
        "while (run.learned < 2) run.step();"
        "const gone = (least) => Math.max(...run.theta.map((t, k) => (omega[k] > least ? Math.abs(t - star[k]) : 0)));"
        "return [gone(1e-6), gone(-1)];"
    )
    assert moved < 1e-4 < all_moved, "free weights learn on"


def test_replay_keeps_the_first_task_and_fine_tuning_class_by_class_forgets_it_wholly(lab: Lab) -> None:
    one = "const run = learned('class', name, strength, 2); return run.R;"
    assert lab(one, name="Finetune", strength=0)[1][0] == 0
    assert lab(one, name="ER", strength=20)[1][0] > 0.9


def test_the_batched_fisher_of_one_sample_is_the_empirical_and_of_all_the_squared_gradient(lab: Lab) -> None:
    empirical, single, whole, squared = lab(
        "const {net, data, theta} = Live.importance.learner(), t = theta(10);"
        "const g = Live.lossGradient(net, t, data).gradient;"
        "return [Live.fisher(net, t, data, 'empirical'), Live.fisher(net, t, data, 'batched', 1),"
        "  Live.fisher(net, t, data, 'batched', data.y.length), g.map((v) => v * v)].map((v) => Array.from(v));"
    )
    same(single, torch.tensor(empirical))
    same(whole, torch.tensor(squared))


def test_the_gradients_under_the_lens_add_up_to_the_gradient(lab: Lab) -> None:
    mean, expected = lab(
        "const {net, data, theta} = Live.importance.learner(), t = theta(30), [unit, pixel] = [7, 27];"
        "const each = Live.importance.perSample(net, t, data, unit, pixel);"
        "return [each.reduce((a, b) => a + b) / each.length, Live.lossGradient(net, t, data).gradient[64 * unit + pixel]];"
    )
    assert mean == pytest.approx(expected, rel=1e-9) and expected != 0


def test_the_border_of_a_region_has_the_loss_it_should(lab: Lab) -> None:
    rises = lab("const A = toy([1.5, -1], 'A'); return Live.springs.region(A, 0.05).map((t) => A.loss(t) - A.loss(A.w));")
    assert rises == pytest.approx([0.05] * len(rises), abs=0.002)


# what the page says -----------------------------------------------------------------------------------------------------------


def test_what_the_page_says_of_forgetting_is_so(lab: Lab) -> None:
    strengths = [10 ** (e / 4) for e in range(-4, 33, 4)]
    kept = lab(
        "return strengths.flatMap((s) => [1, 2, 3].map((seed) => learned('class', 'EWC', s, 2, {seed}).R[1][0]));",
        strengths=strengths,
    )
    assert max(kept) < 1 / 3 and "more than a third" in TEXT
    alone = lab("return learned('task', 'Finetune', 0, 5).R[4];")
    assert min(alone) >= 0.9 and "each pair keeps 90 % or more" in TEXT
    average = lab("return [1, 2, 3].map((n) => learned('class', 'ER', n, 5).R[4].reduce((a, b) => a + b / 5, 0));")
    one, two, three = (f"{100 * a:.0f} %" for a in average)
    assert f"{three} on average, against {two} with two and {one} with one" in TEXT


def test_what_the_page_says_of_springs_is_so(lab: Lab) -> None:
    solve = (
        "const A = toy([1.5, -1], 'A'), at = (w, how) => {"
        "  const B = toy(w, 'B'), s = Live.springs.solve({A, B, eta: 0.5, lam: 1, implicit: true, ...how});"
        "  const ends = Object.entries(s.ways).map(([m, {end}]) => [m, [A.loss(end), B.loss(end)]]);"
        "  return {...s, losses: Object.fromEntries(ends)}; };"
    )
    found = lab(solve + "return [[-1.5, 2.5], [0, -1], [1.5, 2.5]].map((w) => at(w).losses);")
    start, beside, above = found
    assert start["EWC"][0] < start["L2"][0] and start["EWC"][1] < start["L2"][1]
    for name, shown in start.items():
        assert f"{name} {shown[0]:.3f} and {shown[1]:.3f}" in TEXT
    assert f"{sum(beside['EWC']):.3f} with EWC and {sum(beside['L2']):.3f} with L2" in TEXT
    assert above["EWC"][0] == pytest.approx(above["L2"][0], abs=0.001), "at the same loss on A"
    assert above["EWC"][1] < above["SGD"][1] + 0.005 < above["L2"][1] - 0.04, "almost all the way to B, and short of it"

    for eta in (0.5, 1.0):
        bound, notches = lab(
            solve + "const run = (lam) => at([-1.5, 2.5], {eta, lam, implicit: false});"
            "const strengths = Array.from({length: 121}, (_, k) => 10 ** (-2 + k / 20));"
            "return [run(1).bound, strengths.map((lam) => [lam, run(lam).ways.EWC.broken])];",
            eta=eta,
        )
        assert [broken for _, broken in notches] == [lam > bound for lam, _ in notches], "broken beyond the mark and only there"
        assert f"{bound:.0f}" == {0.5: "38", 1.0: "19"}[eta] and r"\Omega_i) = 38$" in TEXT

    end, F = lab(solve + "const s = at([-1.5, 2.5], {lam: 1e4}); return [s.ways.EWC.end, s.F];")
    across, along = abs(end[0] - 1.5), abs(end[1] + 1)
    assert f"{along:.2f}" == "0.03" and 90 < along / across < 150 and f"{F[0] / F[1]:.0f}" == "25"


def test_what_the_page_says_of_importance_is_so(lab: Lab) -> None:
    stages = lab(
        "const {net, data, theta} = Live.importance.learner(), sum = (v) => v.reduce((a, b) => a + b);"
        "return [0, 300, 1000].map((stage) => { const t = theta(stage), exact = Live.fisher(net, t, data, 'exact');"
        "  const like = (v) => Live.correlation(exact, v), batched = (b) => Live.fisher(net, t, data, 'batched', b);"
        "  return {empirical: like(Live.fisher(net, t, data, 'empirical')), mas: like(Live.masImportance(net, t, data)),"
        "    batched: [1, 16, 32, 1024].map((b) => like(batched(b))), sums: [1, 2, 4, 8].map((b) => sum(batched(b)))}; });"
    )
    start, opening, end = stages
    assert f"{start['empirical']:.2f} at the start and {end['empirical']:.2f} at the end" in TEXT
    assert all(0.6 < s["mas"] < 0.8 and s["empirical"] > max(s["batched"][2], s["mas"]) for s in (start, end))
    assert [f"{opening[k]:.2f}" for k in ("empirical", "mas")] == ["0.96", "0.67"] and "near 0.96 up to batches of 16" in TEXT
    assert opening["batched"][1] == pytest.approx(0.96, abs=0.01) and opening["batched"][3] == pytest.approx(0.5, abs=0.05)
    assert all(opening["sums"][i + 1] / opening["sums"][i] == pytest.approx(0.5, abs=0.05) for i in range(3))


# under the reader's hand ------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """opened(name, **context): a page with that figure alone; what went wrong on it fails the test."""
    trouble: list[str] = []
    contexts = []

    def open_figure(name: str, width: int = 900, **more: Any) -> Page:
        file = tmp_path / f"{name}.html"
        theme = ":root { --pst-color-text-base: #222832; --pst-color-text-muted: #48566b; } body { margin: 8px; }"
        file.write_text(live_stills.page(name, theme), encoding="utf-8")
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **more))
        page = contexts[-1].new_page()
        page.on("console", lambda m: trouble.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: trouble.append(str(e)))
        page.on("request", lambda r: None if r.url.startswith("file:") else trouble.append(r.url))
        page.goto(file.as_uri())
        page.locator(".live-stage").wait_for()
        page.wait_for_function("document.querySelector('.live-stage').dataset.state != 'busy'")
        return page

    yield open_figure
    for context in contexts:
        context.close()
    assert not trouble


def ready(page: Page) -> None:
    page.wait_for_function("document.querySelector('.live-stage').dataset.state == 'ready'")


def sums(page: Page) -> dict[str, str]:
    """The last column of the table of the springs."""
    rows = page.locator("table.live-table tbody tr").all()
    return {row.locator("th").inner_text().strip(): row.locator("td").last.inner_text() for row in rows}


def tab_to(page: Page, name: str) -> None:
    """Press the tab key until the control of that name has the focus."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate(
            "name => { const e = document.activeElement;"
            "  const text = e.getAttribute('aria-label') ?? (e.labels?.[0] ?? e).textContent; return text.includes(name); }",
            name,
        ):
            return
    pytest.fail(f"the tab key never comes to {name!r}")


def test_springs_answer_to_the_keyboard(opened: Callable[..., Page]) -> None:
    page = opened("springs")
    before = sums(page)
    assert before["EWC"] == "0.643"
    tab_to(page, "the optimum of task B")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert "at −0.5 and 2.5" in (page.locator(".live-handle.live-task-b").get_attribute("aria-label") or "")
    after = sums(page)
    assert all(after[m] < before[m] for m in before), "B is nearer to A now"
    tab_to(page, "Strength of the springs")
    page.keyboard.press("End")
    page.get_by_role("status").get_by_text("λ = 1·10⁴").or_(page.get_by_role("status").get_by_text("λ = 10000")).wait_for()
    tab_to(page, "Start over")
    page.keyboard.press("Enter")
    assert sums(page) == before


@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "finger"])
def test_springs_answer_to_mouse_and_finger(opened: Callable[..., Page], touch: bool) -> None:
    page = opened("springs", width=390 if touch else 900, has_touch=touch)
    box = page.locator(".live-handle.live-task-a").bounding_box()
    assert box and min(box["width"], box["height"]) > 43
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    if touch:
        tool = page.context.new_cdp_session(page)
        for kind, dx in (("touchStart", 0), ("touchMove", -40), ("touchMove", -80), ("touchEnd", None)):
            points = [] if dx is None else [{"x": x + dx, "y": y + dx / 4}]
            tool.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    else:
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x - 80, y - 20, steps=4)
        page.mouse.up()
    moved = page.locator(".live-handle.live-task-a").bounding_box()
    assert moved
    assert moved["x"] - box["x"] == pytest.approx(-80, abs=3) and moved["y"] - box["y"] == pytest.approx(-20, abs=3)
    assert page.evaluate("scrollY") == 0, "the page stays where it is while the finger drags"


def test_the_explicit_step_breaks_beyond_the_mark_and_the_implicit_one_does_not(opened: Callable[..., Page]) -> None:
    page = opened("springs")
    strength = page.get_by_label("Strength of the springs")
    strength.fill("3")
    assert "broken" not in sums(page).values()
    page.get_by_label("Springs pull by").select_option("explicit")
    assert sums(page)["EWC"] == "broken" and sums(page)["SGD"] != "broken"
    page.get_by_role("status").get_by_text("EWC broke after").wait_for()
    mark, thumb = page.evaluate(
        "() => { const box = document.querySelector('.live-bound').getBoundingClientRect(),"
        "  track = document.querySelector('.live-with-mark input').getBoundingClientRect();"
        "  return [box.left - track.left, track.width]; }"
    )
    bound = float(re.findall(r"= ([\d.]+)\.$", page.locator(".live-results .live-note").inner_text())[0])
    share = (mark - 8) / (thumb - 16)
    assert 10 ** (6 * share - 2) == pytest.approx(bound, rel=0.1)


def test_something_is_forgotten_before_any_click_and_by_the_readers_own_choice(opened: Callable[..., Page]) -> None:
    page = opened("forget", reduced_motion="reduce")
    ready(page)
    cells = page.locator(".live-matrix tbody td")
    assert [t.replace("\u00a0", " ") for t in cells.all_inner_texts()] == ["100 %", "", "0 %", "98 %"]
    assert page.locator(".live-digits li").count() > 5
    assert not page.get_by_label("Strength").is_visible(), "fine-tuning has no strength"

    tab_to(page, "What protects the old")
    page.keyboard.type("replay")
    ready(page)
    page.get_by_role("status").get_by_text("Replay of 5 a digit").wait_for()
    assert int(cells.nth(2).inner_text().split("\u00a0")[0]) > 80
    tab_to(page, "Learn 4 and 5")
    page.keyboard.press("Enter")
    ready(page)
    assert page.locator(".live-matrix tbody tr").count() == 3
    page.get_by_label("What the test asks").select_option("domain")
    ready(page)
    page.get_by_role("status").get_by_text("domain-incremental").wait_for()
    page.get_by_role("button", name="Learn all five").click()
    ready(page)
    assert page.locator(".live-matrix tbody tr").count() == 5
    assert page.get_by_role("button", name="Learn all five").is_disabled()
    page.get_by_text("Your tries so far").click()
    assert page.locator(".live-tries tbody tr").count() == 5
    page.get_by_role("button", name="Start over").click()
    ready(page)
    assert cells.first.inner_text() == "100\u00a0%" and cells.nth(2).inner_text() == "…"


def test_the_larger_the_batch_the_less_is_left_of_the_fisher(opened: Callable[..., Page]) -> None:
    page = opened("importance")
    ready(page)
    likeness = []
    tab_to(page, "Batch size")
    for key in ("Home", "End"):
        page.keyboard.press(key)
        words = page.locator("canvas").nth(2).get_attribute("aria-label") or ""
        likeness.append(float(re.findall(r"correlation ([\d.]+)", words)[0]))
    assert likeness[0] == pytest.approx(0.96) and likeness[1] < 0.6
    page.get_by_role("status").get_by_text("batches of 1024").wait_for()
    before = page.get_by_label("hidden unit").input_value()
    page.locator("canvas").first.click(position={"x": 30, "y": 30})
    assert page.get_by_label("hidden unit").input_value() != before
    tab_to(page, "Steps of training")
    page.keyboard.press("Home")
    page.get_by_role("status").get_by_text("After 0 steps").wait_for()


def test_playing_stands_still_for_readers_who_want_less_motion(opened: Callable[..., Page]) -> None:
    for motion, moves in (("reduce", False), ("no-preference", True)):
        page = opened("springs", reduced_motion=motion)
        page.get_by_label("Steps shown").fill("0")
        page.get_by_role("button", name="Play the steps").click()
        assert (page.get_by_role("button", name="Stop").count() == 1) == moves
        if not moves:
            assert page.get_by_label("Steps shown").input_value() == "1000"


@pytest.mark.parametrize("name", live.FIGURES)
def test_every_control_has_a_name_and_every_picture_words(opened: Callable[..., Page], name: str) -> None:
    page = opened(name)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, [role=img], [role=group], table')].filter((e) => {
             const text = e.getAttribute('aria-label') ?? e.labels?.[0]?.textContent ?? e.textContent;
             return !text.trim();
           }).map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert not nameless
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    line = page.locator("[role=status]")
    assert line.get_attribute("aria-live") == "off", "nobody has turned to the figure yet"
    page.locator(".live-stage :is(select, input)").first.focus()
    assert line.get_attribute("aria-live") == "polite"


@pytest.mark.parametrize("name", live.FIGURES)
def test_the_figure_follows_the_theme_and_fits_a_phone(opened: Callable[..., Page], name: str) -> None:
    page = opened(name, width=390)
    ground = "getComputedStyle(document.querySelector('.live-stage')).backgroundColor"
    light = page.evaluate(ground)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert light == "rgb(255, 255, 255)" and page.evaluate(ground) == "rgb(20, 24, 30)"
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
