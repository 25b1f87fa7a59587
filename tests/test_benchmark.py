"""The benchmark looks at the test set once, loses nothing when it is stopped, and keeps the order of the families."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import users_meet_it

from clbook import InputError, code, load, methods, metrics, result
from clbook.data import NAMES
from clbook.lab import compare, entries, parts, search
from clbook.lab.answers import WAYS
from clbook.lab.benchmark import MARGIN, PERMUTED_REFERENCE, PUBLISHED, REFERENCE, Published, difference, rows
from clbook.lab.compare import cells_of, compare_all
from clbook.lab.entries import ENTRIES, FAMILIES, PERMUTED, PERMUTED_TABLE, SPLIT, TABLE, Table
from clbook.lab.experiments import EXPERIMENTS, reproduce
from clbook.lab.fixed import CLASSIFIERS
from clbook.lab.further import FURTHER
from clbook.lab.language import TUNED
from clbook.lab.parts import Part, Shape
from clbook.lab.plasticity import REMEDIES
from clbook.lab.report import Report, Setting
from clbook.lab.search import Search
from clbook.method import Update
from clbook.scenarios import KINDS

QUICK = TABLE["quick"]
TINY = Shape(hidden=(12,))


def sized(sizes: Table = QUICK, suite: str = "split", **more: Any) -> Table:
    """Only one suite, small, with wide intervals left alone."""
    found = next(s for s in sizes.suites if s.name == suite)
    return replace(sizes, suites=(replace(found, steps=20, shape=TINY),), **{"seeds": 2, "wide": 1e9} | more)


SMALL = sized()


SPLIT_FEW = ("fine-tuning", "EWC", "XdG")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only three methods and one suite, and no checks of shapes, which other tests have: they take a quarter of the time."""
    chosen = {name: SPLIT[name] for name in SPLIT_FEW}
    monkeypatch.setattr(entries, "ENTRIES", {"split": chosen})
    monkeypatch.setattr(search, "MOST", 4)  # so few steps say little, and a search could go on for long
    with users_meet_it():
        yield


def setting(folder: Path, **more) -> Setting:
    return Setting(SMALL, load("digits"), folder / "work", "cpu", progress=False, **more)


# what is compared ------------------------------------------------------------------------------------------------------------


def test_every_method_of_the_package_is_in_the_table() -> None:
    """Or in the one of the features that never change, in that of fine-tuning, or in that of hundreds of tasks."""
    others = [m for m, _ in CLASSIFIERS.values()] + [m for _, m in WAYS.values()] + [r.method for r in REMEDIES.values()]
    others += [tried.method for sizes in (TUNED["book"], FURTHER.sizes["book"]) for tried in sizes.settings()]
    there = {type(m).__name__ for m in (*(entry.method for entry in SPLIT.values()), *others)}
    assert there == set(methods.__all__)
    assert {entry.family for entry in SPLIT.values()} == set(FAMILIES)


def test_what_is_published_and_what_is_to_be_reached_belongs_to_a_row() -> None:
    cells = {
        f"{s} {k}: {label}" for s, entries in ENTRIES.items() for k in KINDS for label, e in entries.items() if k in e.kinds
    }
    assert {key.removesuffix(", forgetting") for key in REFERENCE | PERMUTED_REFERENCE} <= cells
    assert set(PUBLISHED["split"]) <= set(SPLIT)
    means = {label: tuple(p.mean for p in row) for label, row in PUBLISHED["split"].items()}
    assert means["MAS"] == (99.22, 68.57, 19.52) and means["GEM"] == (98.42, 96.16, 92.20), "Hsu et al. 2018, table 2"
    assert means["EWC"] == (98.64, 63.95, 20.01) and means["DGR"] == (99.50, 95.72, 90.79), "van de Ven & Tolias 2019"


@pytest.mark.parametrize("name", ["benchmark", "benchmark-permuted", "benchmark-fashion"])
@pytest.mark.parametrize("preset", ["quick", "book", "paper"])
def test_every_size_names_data_and_fits_its_entries(name: str, preset: str) -> None:
    sizes = EXPERIMENTS[name].sizes[preset]
    assert sizes.data in NAMES
    assert {cell.label for cell in cells_of(sizes)} == {label for s in sizes.suites for label in ENTRIES[s.name]}


def test_the_budget_is_the_published_one() -> None:
    """Split MNIST as van de Ven & Tolias 2019 train it."""
    split = TABLE["book"].suites[0]
    assert (split.shape.hidden, split.steps, split.batch_size) == ((400, 400), 2000, 128)
    assert (split.optimizer, split.lr) == ("adam", 1e-3)
    assert TABLE["book"].seeds >= 5 and TABLE["paper"].seeds >= 10 and not split.lr_decay
    assert PERMUTED["ER"].method.size == 10 and SPLIT["ER"].method.size == 100
    assert min(PERMUTED_TABLE["book"].suites[0].shape.hidden) >= 800, "at 400 units springs fall short of what is published"


def test_what_is_tuned_for_one_method_is_tuned_for_its_rivals() -> None:
    tuned = {label: {t.name for t in entry.tuned} for label, entry in SPLIT.items()}
    assert tuned["GEM"] == {"margin"} and tuned["DER++"] == {"alpha", "beta"} and tuned["k winners take all"] == {"k"}
    assert tuned["online EWC"] == {"lam", "gamma"} and {"fast", "slow"} <= tuned["CLS-ER"] and tuned["ER"] == {"lam"}
    given = {"DGR", "DGR, distilled", "average of weights", "fast and slow weights"}  # the first two for their cost
    assert all(tuned[label] for label, entry in SPLIT.items() if "lam" in entry.method.hyper and label not in given)


# the search ----------------------------------------------------------------------------------------------------------------


def test_strengths_are_chosen_without_the_test_set(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With other test labels the search finds the same, and only the final accuracies change."""
    plain = compare_all(setting(tmp_path / "plain"))
    s = setting(tmp_path / "shuffled")
    order = torch.randperm(len(s.data.y_test), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(parts, "_loaded", lambda _: replace(s.data, y_test=s.data.y_test[order], name="shuffled"))
    shuffled = compare_all(s)
    assert any(name.startswith("search/") for name in plain.arrays)
    for name in (n for n in plain.arrays if n.startswith("search/")):
        np.testing.assert_array_equal(plain.arrays[name], shuffled.arrays[name])
    for key in plain.results:
        assert plain.results[key].runs == shuffled.results[key].runs
        assert not np.array_equal(plain.results[key].R, shuffled.results[key].R)
    told, chance = (np.mean([c.ours[f"split task: {name}"] for name in SPLIT_FEW]) for c in (plain, shuffled))
    assert told > 65 and abs(chance - 50) < 10, "labels in random order are guessed"


def test_the_best_held_out_value_is_used(few: None, tmp_path: Path) -> None:
    results, arrays, _, searches = compare_all(setting(tmp_path))
    searched = {name: values for name, values in arrays.items() if name.startswith("search/")}
    assert len(searches) == sum(v[:, 2].sum() for v in searched.values())
    assert {run["seed"] for r in searches for run in r.runs} <= set(SMALL.search_seeds)
    assert not set(SMALL.search_seeds) & {run["seed"] for r in results.values() for run in r.runs}
    for key, field in (("split domain: EWC", "lam"), ("split task: XdG", "drop")):
        tried = searched[f"search/{key}: {field}"]  # [values, 3]
        tuned = SPLIT[key.split(": ")[1]].tuned[0]
        assert set(tuned.first(key.split()[1][:-1])) <= set(tried[:, 0])
        used = {run[field] for run in results[key].runs}
        assert len(used) == 1 and used <= set(tried[tried[:, 1] == tried[:, 1].max(), 0])


def test_a_method_with_a_wide_interval_gets_twice_the_seeds(few: None, tmp_path: Path) -> None:
    sizes = sized(wide=1e-9)
    results = compare_all(replace(setting(tmp_path), sizes=sizes)).results
    assert {len(r.R) for r in results.values()} == {4}
    assert [run["seed"] for run in results["split task: EWC"].runs] == [0, 1, 2, 3]


# going on --------------------------------------------------------------------------------------------------------------------


def test_a_stop_costs_one_part(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compare_all(setting(tmp_path / "whole"))
    done: list[str] = []
    original = Part.compute

    def counted(self: Part, *args) -> object:
        if len(done) == 20 and "stop" not in done:
            done.append("stop")
            raise KeyboardInterrupt
        done.append(self.key)
        return original(self, *args)

    monkeypatch.setattr(Part, "compute", counted)
    with pytest.raises(KeyboardInterrupt):
        compare_all(setting(tmp_path / "cut"))
    again = compare_all(setting(tmp_path / "cut"))
    done.remove("stop")
    assert len(done) == len(set(done)) == len(list((tmp_path / "whole" / "benchmark").glob("*.npz"))), "each part once"
    for key, one in whole.results.items():
        np.testing.assert_array_equal(again.results[key].R, one.R)


@dataclass(frozen=True)
class Same(methods.Finetune):
    """A method whose step does what it did."""

    def after_step(self, theta: torch.Tensor, state: dict, update: Update) -> tuple[torch.Tensor, dict]:
        return theta, state


def changed() -> type:
    """A class of the same name and fields with other code."""

    @dataclass(frozen=True)
    class Same(methods.Finetune):
        """A method whose step does what it did, and then some."""

        def after_step(self, theta: torch.Tensor, state: dict, update: Update) -> tuple[torch.Tensor, dict]:
            return theta - update.before, state

    Same.__qualname__ = "Same"
    return Same


def part_of(method: methods.Finetune, seeds: tuple[int, ...] = (0,)) -> Part:
    cell = next(cells_of(SMALL))
    made = cell.parts(setting(Path()), method, seeds)
    return replace(made[0], seeds=seeds)


def test_a_part_belongs_to_the_code_that_computed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    part = part_of(Same())
    other = replace(part, methods=(changed()(),))
    assert repr(part) == repr(other), "only the code differs"
    assert part.key == replace(part, methods=(Same(),)).key != other.key
    before = part.key
    monkeypatch.setattr(code, "_of_module", lambda name: "edited" if name == "clbook.sampling" else "as it was")
    edited = part.key
    monkeypatch.setattr(code, "_of_module", lambda name: "as it was")
    assert len({before, edited, part.key}) == 3, "code that the loop imports counts"


def test_parts_of_another_commit_are_not_published_with_ours(
    few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are refused before more is computed; where they are allowed, the report names every commit."""
    monkeypatch.setattr(result, "commit", lambda: "a" * 12)
    monkeypatch.setattr(parts, "fits", lambda *_: 1)  # every seed is a part of its own
    sizes = replace(SMALL, data="digits", seeds=1)
    again = {"sizes": replace(sizes, seeds=2), "progress": False, "quiet": True}
    first = reproduce("benchmark", "book", tmp_path, sizes=sizes, progress=False, quiet=True)
    assert first.info["commits"] == ["a" * 12] and first.info["mixed_code"] == ""
    monkeypatch.setattr(result, "commit", lambda: "b" * 12)
    with monkeypatch.context() as patch:
        patch.setattr(Part, "compute", lambda *_: pytest.fail("trained first"))
        with pytest.raises(
            InputError, match=r"several commits \(b{12}, a{12}\): delete what other commits have left in \.work"
        ):
            reproduce("benchmark", "book", tmp_path, **again)
    assert Report.load(tmp_path / "benchmark").info == first.info, "what is published is as it was"
    mixed = reproduce("benchmark", "book", tmp_path, **again, allow_mixed_code=True)
    assert set(mixed.info["commits"]) == {"a" * 12, "b" * 12} and "several commits" in mixed.info["mixed_code"]
    assert mixed.results["split task: EWC"].info["commits"] == ["a" * 12, "b" * 12], "one seed of each"
    assert Report.load(tmp_path / "benchmark").info == mixed.info


def test_the_commits_of_the_search_count(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Part.compute

    def searched_elsewhere(self: Part, *args) -> object:
        monkeypatch.setattr(result, "commit", lambda: "search" if self.stream.held_out else "final")
        return original(self, *args)

    monkeypatch.setattr(Part, "compute", searched_elsewhere)
    sizes = replace(SMALL, seeds=1)
    report = reproduce("benchmark", "quick", tmp_path, sizes=sizes, progress=False, quiet=True)
    assert set(report.info["commits"]) == {"search", "final"}


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    sizes = sized(suite="demo")
    one, two = (compare_all(replace(setting(tmp_path / str(n), workers=n), sizes=sizes)) for n in (1, 2))
    np.testing.assert_array_equal(one.results["demo task: MAS"].R, two.results["demo task: MAS"].R)


def test_runs_are_joined_in_order(few: None, tmp_path: Path) -> None:
    both = part_of(methods.Finetune(), (0, 1)).compute("cpu")
    single = [part_of(methods.Finetune(), (seed,)).compute("cpu") for seed in (0, 1)]
    joined = compare.concat(single)
    assert [run["seed"] for run in joined.runs] == [0, 1]
    assert list(joined.n_params) == [(64 + 1) * 12 + (12 + 1) * 10] * 2 and len(joined.seconds) == len(joined.memory_bytes) == 2
    assert joined.info["training"] == single[0].info["training"] and joined.info["commits"] == [result.commit()]
    np.testing.assert_allclose(joined.R, both.R, atol=1e-2)  # one test sample of about 70 may tip over


# agreement -------------------------------------------------------------------------------------------------------------------


def test_the_difference_of_two_means_is_welchs() -> None:
    from scipy.stats import ttest_ind_from_stats

    ours, theirs = np.array([97.1, 98.4, 96.9, 99.0, 98.1]), Published(96.5, 0.4, 10)
    found = difference(ours, theirs)
    p = ttest_ind_from_stats(
        ours.mean(), ours.std(ddof=1), len(ours), theirs.mean, theirs.error * np.sqrt(theirs.n), theirs.n, equal_var=False
    ).pvalue
    assert (p < 0.05) == (abs(found.points) > found.half) == (found.verdict == "differs")
    edge = Published(ours.mean() - found.half, 0.4, 10)  # just as far as the interval reaches
    assert ttest_ind_from_stats(
        ours.mean(), ours.std(ddof=1), 5, edge.mean, 0.4 * np.sqrt(10), 10, equal_var=False
    ).pvalue == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("ours", "published", "verdict"),
    [
        ([99.1, 99.2, 99.3], Published(99.2, 0.05, 20), "the same"),
        ([99.1, 99.2, 99.3], Published(97.0, 0.05, 20), "differs"),
        ([60.0, 80.0, 95.0], Published(98.2, 0.3, 10), "cannot tell"),  # a wide interval of our own buys no agreement
        ([99.2], Published(99.2, 0.05, 20), "cannot tell"),
        ([99.1, 99.2, 99.3], Published(99.2), "cannot tell"),
        ([99.1, 99.2, 99.3], Published(99.2, 0.05, 1), "cannot tell"),
    ],
)
def test_what_a_difference_says(ours: list[float], published: Published, verdict: str) -> None:
    assert difference(np.array(ours), published).verdict == verdict


def test_a_small_sure_difference_counts_as_the_same() -> None:
    """Within the margin a difference of no consequence is called so, however sure it is."""
    assert difference(np.array([99.49, 99.50, 99.51]), Published(99.5 - MARGIN / 2, 0.01, 20)).verdict == "the same"


# what it shows ---------------------------------------------------------------------------------------------------------------


SOFT = entries.lam(1e2, 1e3, 1e4)  # so few steps do not get far against the springs of the book's size


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """One or two methods of each family at the quick size, with three seeds."""
    names = (
        "fine-tuning", "joint training", "EWC", "LwF", "ER", "A-GEM", "separate networks", "progressive networks",
        "CLS-ER", "fast and slow weights", "XdG", "HAT",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, users_meet_it():
        searched = ("LwF", "XdG")
        chosen = {n: replace(SPLIT[n], tuned=SPLIT[n].tuned if n in searched else ()) for n in names}
        chosen["EWC"] = replace(SPLIT["EWC"], tuned=(SOFT,))
        patch.setattr(entries, "ENTRIES", {"split": chosen})
        patch.setattr(Search, "_next", lambda self: [])  # no more than the first values
        sizes = replace(QUICK, seeds=3, wide=1e9, suites=QUICK.suites[:1])
        return reproduce("benchmark", "quick", tmp_path_factory.mktemp("r"), sizes=sizes, progress=False, quiet=True)


def ours(report: Report, kind: str, label: str) -> float:
    return float(report.ours[f"split {kind}: {label}"].mean())


def test_the_order_of_the_families(report: Report) -> None:
    """What the field agrees on (van de Ven & Tolias 2019; Hsu et al. 2018): who wins where.

    Where the task is told, fine-tuning alone is near the top on these small images, so little can be said there.
    """
    for label in ("EWC", "LwF", "ER", "A-GEM", "separate networks", "progressive networks", "XdG", "HAT"):
        assert ours(report, "task", label) > 95, f"with tasks told, {label} remembers"
    for label in ("EWC", "LwF"):
        assert ours(report, "class", label) < 50, f"{label} cannot tell classes of different tasks apart"
        assert ours(report, "class", "ER") > ours(report, "class", label) + 30, "and rehearsal can"
    for label in ("ER", "fast and slow weights", "CLS-ER"):
        assert ours(report, "class", label) > ours(report, "class", "fine-tuning") + 30
    assert ours(report, "domain", "ER") > ours(report, "domain", "EWC")
    for kind in KINDS:
        best = max(ours(report, kind, label) for label in ("EWC", "LwF", "ER", "A-GEM"))
        assert ours(report, kind, "joint training") > best - 2, "nothing beats all data at once by much"
    for kind in ("domain", "class"):
        assert ours(report, kind, "fine-tuning") < ours(report, kind, "joint training") - 5


def test_rows(report: Report) -> None:
    found = {(row["kind"], row["method"]): row for row in rows(report)}
    row = found["class", "ER"]
    mean, half = metrics.interval(report.ours["split class: ER"])
    assert (row["accuracy"], row["interval"]) == (mean, half) and row["seeds"] == 3
    assert row["bytes"] == 10 * 100 * (64 + 1), "100 images of 64 values and a label for each of ten classes"
    assert found["task", "fine-tuning"]["time"] == 1 and found["task", "fine-tuning"]["bytes"] == 0
    assert row["published"] == PUBLISHED["split"]["ER"][2].mean and found["task", "HAT"]["published"] is None
    assert found["task", "EWC"]["chosen"]["lam"] in SOFT.start and found["task", "HAT"]["chosen"] == {}
    assert ("domain", "progressive networks") not in found and ("class", "XdG") not in found


def test_the_file_holds_the_protocol_and_the_choices(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path / "benchmark", EXPERIMENTS["benchmark"])
    text = json.loads((tmp_path / "benchmark.json").read_text(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert "held" not in text["settings"]["data"] and text["settings"]["held_out"] == 0.1
    assert "a tenth of the training data" in text["notes"] and "test set was looked at once" in text["notes"]
    assert {run["lam"] for run in text["results"]["split task: EWC"]["runs"]} <= set(SOFT.start)
    assert Report.load(tmp_path / "benchmark").arrays["search/split task: XdG: drop"].shape == (4, 3)
