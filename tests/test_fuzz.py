"""Nonsense from outside: whatever a file holds or a command line says, one clear line comes back and no traceback.

`make fuzz` tries ten thousand inputs of each kind (CLBOOK_FUZZ), `make test` a few of them.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import clouds, train

import clbook
from clbook import Result, store
from clbook.checks import InputError
from clbook.lab import spec
from clbook.lab.cli import main
from clbook.lab.report import Report
from clbook.methods import EWC, Finetune

MANY = int(os.environ.get("CLBOOK_FUZZ", "60"))
some = settings(
    max_examples=MANY, deadline=None, database=None, derandomize="CLBOOK_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip

SPEC = b"""seeds = 2
[training]
steps = 5
[network]
hidden = [6]
[[scenario]]
name = "split"
data = "digits"
tasks = 2
kind = ["task", "domain"]
[[method]]
name = "EWC"
lam = [1.0, 100.0]
"""
WORDS = st.sampled_from(
    "run reproduce list sweep --help --scenario permuted split rotated --tasks 2 -1 0 1e9 --kind task domain class --method "
    "ewc mas finetune nothing --lam 10 nan inf --lr 0 1e-3 -5 --seeds --steps 1 --epochs --dataset digits mnist2 --hidden 3 "
    "--out --device cuda:9 cpu tpu --preset quick huge --optimizer sgd rmsprop --eval-every --quiet --batch-size".split()
)


def change(data: st.DataObject, whole: bytes) -> bytes:
    """A file cut off, with bytes altered or put in, or something else altogether."""
    how = data.draw(st.sampled_from(["cut", "alter", "insert", "other"]))
    if how == "other":
        return data.draw(st.binary(max_size=200))
    at = int(data.draw(st.floats(0, 1, exclude_max=True)) * len(whole))  # whole may differ in length from time to time
    if how == "cut":
        return whole[:at]
    new = data.draw(st.binary(min_size=1, max_size=8))
    return whole[:at] + new + whole[at + (len(new) if how == "alter" else 0) :]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small result."""
    folder = tmp_path_factory.mktemp("kept")
    train(clbook.split(clouds(), 2), Finetune(), 2).save(folder / "result")
    return folder


@some
@given(data=st.data())
def test_a_spec_is_understood_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("spec") / "spec.toml"
    path.write_bytes(change(data, SPEC))
    try:
        parts = spec.read(path, "cpu")
    except InputError as error:
        assert "\n" not in str(error).strip() or "TOML" in str(error)
    else:
        assert all(part.methods and part.seeds for part in parts)


@some
@given(data=st.data(), which=st.sampled_from([0, 1]))
def test_a_stored_result_is_whole_or_refused(data: st.DataObject, which: int, kept: Path) -> None:
    good = Result.load(kept / "result")
    originals = [file.read_bytes() for file in store.files(kept / "result")]
    path = kept / "changed"
    for file, content in zip(store.files(path), originals, strict=True):
        file.write_bytes(content)
    store.files(path)[which].write_bytes(change(data, originals[which]))
    for read in (Result.load, Report.load):
        try:
            found = read(path)
        except InputError as error:
            assert str(path) in str(error) or "result" in str(error) or "report" in str(error)
        else:
            assert isinstance(found, Result)
            np.testing.assert_array_equal(found.R, good.R)


@some
@given(data=st.data())
def test_a_checkpoint_is_whole_or_not_used(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    scenario, folder = clbook.split(clouds(), 2), tmp_path_factory.mktemp("checkpoint")
    method = EWC(lam=10.0, n_samples=20)
    whole = train(scenario, method, 1, checkpoint=folder, steps=3)
    files = sorted(f for f in folder.iterdir())
    file = data.draw(st.sampled_from(files))
    file.write_bytes(change(data, file.read_bytes()))
    try:
        again = train(scenario, method, 1, checkpoint=folder, steps=3)
    except InputError as error:
        assert str(folder) in str(error)
    else:
        np.testing.assert_array_equal(again.R, whole.R)


@some
@given(words=st.lists(st.one_of(WORDS, st.text(max_size=8)), max_size=6))
def test_the_command_line_answers_in_one_line(
    words: list[str], tmp_path_factory: pytest.TempPathFactory, monkeypatch_module: pytest.MonkeyPatch
) -> None:
    words = [w for w in words if "\0" not in w]
    if words[:1] in (["run"], ["reproduce"]):
        words += ["--steps", "1", "--tasks", "2", "--dataset", "no-such-data"]  # far enough to parse, never to train
    out, err = io.StringIO(), io.StringIO()
    monkeypatch_module.chdir(tmp_path_factory.mktemp("cli"))
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err
    try:
        status = main(words)
    except SystemExit as error:  # --help
        status = error.code
    finally:
        sys.stdout, sys.stderr = before
    assert status in (0, 2), (status, err.getvalue())
    assert "Traceback" not in err.getvalue() + out.getvalue()
    assert status == 0 or len(err.getvalue().strip().splitlines()) == 1, err.getvalue()


@pytest.fixture(scope="module")
def monkeypatch_module() -> object:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def pickled(path: Path, bomb: Path) -> bytes:
    array = np.empty(1, dtype=object)
    array[0] = Bomb(bomb)
    buffer = io.BytesIO()
    np.savez(buffer, R=array)
    return buffer.getvalue()


@pytest.mark.parametrize("content", ["npz", "pickle", "zip"])
def test_a_malicious_pickle_does_nothing(content: str, tmp_path: Path) -> None:
    bomb = tmp_path / "exploded"
    payload = {"npz": pickled(tmp_path, bomb), "pickle": pickle.dumps(Bomb(bomb)), "zip": b""}[content]
    if content == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("data.pkl", pickle.dumps(Bomb(bomb)))
        payload = buffer.getvalue()
    import hashlib
    import json

    path = tmp_path / "evil"
    numbers, words = store.files(path)
    for read in (Result.load, Report.load):
        numbers.write_bytes(payload)
        words.write_text(json.dumps({"runs": [], "names": [], "info": {}, "sha256": hashlib.sha256(payload).hexdigest()}))
        with pytest.raises(InputError):
            read(path)
    folder = tmp_path / "checkpoint"
    scenario = clbook.split(clouds(), 2)
    train(scenario, Finetune(), 1, checkpoint=folder, steps=3)
    for file in folder.glob("*.npz"):
        file.write_bytes(payload)
        words = file.with_suffix(".json")
        words.write_text(json.dumps(json.loads(words.read_text()) | {"sha256": hashlib.sha256(payload).hexdigest()}))
    train(scenario, Finetune(), 1, checkpoint=folder, steps=3)  # they are not used, and the runs start anew
    assert not bomb.exists()
