"""Files: what was written comes back, whole or not at all, and no file can make this program do anything but read numbers."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from small import clouds, train

from clbook import InputError, Result, split, store
from clbook.methods import Finetune
from clbook.store import StoreError

ARRAYS = {"R": np.array([[0.5, np.nan], [0.25, 1.0]]), "n": np.array([3, 4]), "alive": np.array([True, False])}
WORDS = {"runs": [{"method": "EWC", "lam": 0.5}], "info": {"é": "ü", "none": None}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two good files."""
    store.write(tmp_path / "r", ARRAYS, WORDS)
    return tmp_path / "r"


def unreadable(path: Path, words: str) -> None:
    """Reading fails with one line that names the file, says why and what to do."""
    with pytest.raises(StoreError, match=words) as error:
        store.read(path)
    text = str(error.value)
    assert isinstance(error.value, InputError) and str(path) in text and "\n" not in text
    assert "Delete both and compute again" in text and "pickle" not in text


# there and back ----------------------------------------------------------------------------------------------------------


def test_what_was_written_comes_back(path: Path) -> None:
    numbers, words = store.read(path)
    assert words == WORDS and numbers.keys() == ARRAYS.keys()
    for name, wanted in ARRAYS.items():
        assert numbers[name].dtype == wanted.dtype and np.array_equal(numbers[name], wanted, equal_nan=wanted.dtype.kind == "f")
    assert sorted(p.name for p in path.parent.iterdir()) == ["r.json", "r.npz"]
    assert "sha256" in json.loads(path.with_suffix(".json").read_text())


@settings(max_examples=40, deadline=None)
@given(
    values=arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.bool_, np.uint8]),
        array_shapes(min_dims=0, min_side=0, max_dims=3),
    ),
    words=st.dictionaries(
        st.text(max_size=5), st.one_of(st.text(), st.integers(-(2**60), 2**60), st.booleans(), st.none()), max_size=4
    ),
)
def test_any_array_and_any_words(values: np.ndarray, words: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("any") / "x"
    words.pop("sha256", None)
    store.write(path, {"a": values}, words)
    numbers, found = store.read(path)
    assert found == words and numbers["a"].tobytes() == values.tobytes()
    assert (numbers["a"].shape, numbers["a"].dtype) == (values.shape, values.dtype)


@pytest.mark.parametrize("name", ["lam-0.5", "a.b.c", "r.npz", "r.json", "ünder the mean"])
def test_a_name_keeps_its_dots(name: str, tmp_path: Path) -> None:
    store.write(tmp_path / name, ARRAYS, WORDS)
    stem = name.removesuffix(".npz").removesuffix(".json")
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{stem}.json", f"{stem}.npz"]
    for again in (name, stem, f"{stem}.npz", f"{stem}.json"):
        assert store.read(tmp_path / again)[1] == WORDS


def test_numbers_of_numpys_are_plain_numbers_in_the_text(tmp_path: Path) -> None:
    store.write(tmp_path / "r", {}, {"lam": np.float64(0.5), "n": np.int64(3), "yes": np.bool_(True), "path": Path("a/b")})
    assert store.read(tmp_path / "r")[1] == {"lam": 0.5, "n": 3, "yes": True, "path": "a/b"}


def test_large_arrays_come_back_too(tmp_path: Path) -> None:
    """Beyond 4 MiB they are not packed."""
    large = np.random.default_rng(0).normal(size=(1100, 1000))
    store.write(tmp_path / "r", {"a": large}, {})
    assert np.array_equal(store.read(tmp_path / "r")[0]["a"], large)


# files that are not what they were ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("part", [".npz", ".json"])
def test_a_file_that_was_cut_off(part: str, share: float, path: Path) -> None:
    file = path.with_suffix(part)
    content = file.read_bytes().rstrip()
    file.write_bytes(content[: int(share * len(content))])
    unreadable(path, r"r\.json cannot be used, nor its \.npz")


def test_any_altered_byte_of_the_numbers_is_noticed(path: Path) -> None:
    file = path.with_suffix(".npz")
    content = file.read_bytes()
    for at in range(0, len(content), 7):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        unreadable(path, r"r\.npz does not have the checksum that r\.json says")


@pytest.mark.parametrize(("part", "words"), [(".npz", r"there is no r\.npz"), (".json", r"there is no r\.json")])
def test_a_file_that_is_missing(part: str, words: str, path: Path) -> None:
    path.with_suffix(part).unlink()
    unreadable(path, words)


@pytest.mark.parametrize("text", ["[1, 2]", "3", "null", '"words"', "{", "", "[" * 100_000, "\udc80", '{"sha256": 3}', "{}"])
def test_a_text_that_is_no_dictionary_of_ours(text: str, path: Path) -> None:
    path.with_suffix(".json").write_bytes(text.encode("utf-8", "surrogateescape"))
    unreadable(path, "cannot be used")


def sealed(path: Path, packed: bytes) -> None:
    """Numbers of somebody's own making, under a checksum that is right."""
    import hashlib

    path.with_suffix(".npz").write_bytes(packed)
    path.with_suffix(".json").write_text(json.dumps({"sha256": hashlib.sha256(packed).hexdigest()}))


class Trap:
    """An object that writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, (str(self.target),))


def packed_trap(kind: str, target: Path) -> bytes:
    buffer = io.BytesIO()
    if kind == "an array of objects":
        np.savez(buffer, a=np.array([Trap(target)], dtype=object))
    elif kind == "a bare pickle":
        pickle.dump({"a": Trap(target)}, buffer)
    elif kind == "a pickle as one array":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("a.npy", pickle.dumps(Trap(target)))
    else:
        np.save(buffer, np.array([Trap(target)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["an array of objects", "a bare pickle", "a pickle as one array", "one array and no zip"])
def test_code_in_a_file_is_never_run(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "sprung"
    packed = packed_trap(kind, target)
    sealed(tmp_path / "r", packed)
    for read in (store.read, Result.load):
        with pytest.raises(StoreError) as error:
            read(tmp_path / "r")
        assert "\n" not in str(error.value) and "pickle" not in str(error.value)
    assert not target.exists(), "the file was unpickled"
    with contextlib.suppress(Exception):  # and it is a trap: who unpickles it, springs it
        loaded = np.load(io.BytesIO(packed), allow_pickle=True)
        pickle.loads(zipfile.ZipFile(io.BytesIO(packed)).read("a.npy")) if kind == "a pickle as one array" else loaded["a"]
    assert target.exists(), "the trap would not have gone off anyway"


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all", b"PK\x05\x06" + b"\0" * 18])
def test_numbers_that_are_no_archive(content: bytes, tmp_path: Path) -> None:
    sealed(tmp_path / "r", content)
    if content.endswith(b"\0"):  # an archive of nothing, which is one
        assert store.read(tmp_path / "r")[0] == {}
    else:
        unreadable(tmp_path / "r", "cannot be used")


# folders -----------------------------------------------------------------------------------------------------------------


def test_where_nothing_can_be_written_one_line_says_so(tmp_path: Path) -> None:
    """Below a file there can be no folder, whoever asks."""
    (tmp_path / "file").write_text("a file")
    with pytest.raises(StoreError, match=r"below/r\.npz cannot be written \(Not a directory\); name a folder of yours"):
        store.write(tmp_path / "file" / "below" / "r", ARRAYS, WORDS)
    assert (tmp_path / "file").read_text() == "a file"
    (tmp_path / "r.npz").mkdir()
    with pytest.raises(StoreError, match=r"r\.npz cannot be written"):
        store.write(tmp_path / "r", ARRAYS, WORDS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "r.npz"], "a temporary file was left behind"


@pytest.mark.parametrize("part", ["npz", "json"])
def test_what_was_there_stays_until_the_new_file_is_complete(part: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full in the middle of either file: the old one can be read, or is known not to belong to the new numbers."""
    before = store.read(path)[0]["R"]
    opened = Path.open

    def full(self: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        if "w" in mode and part in self.name:
            with opened(self, mode, *args, **more) as file:
                file.write(b"half of it")
            raise OSError(28, "No space left on device")
        return opened(self, mode, *args, **more)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StoreError, match="No space left on device"):
        store.write(path, ARRAYS | {"R": np.zeros(2)}, WORDS)
    monkeypatch.setattr(Path, "open", opened)
    if part == "npz":
        np.testing.assert_array_equal(store.read(path)[0]["R"], before)
    else:
        unreadable(path, "does not have the checksum")
    assert sorted(p.name for p in path.parent.iterdir()) == ["r.json", "r.npz"]


SMALL_DISK = """
    import sys
    import numpy as np
    from clbook import store

    numbers = np.random.default_rng(0).random(2**16)  # half a megabyte, which does not compress
    store.write("first", {"a": numbers}, {"who": "first"})
    for name in ("second", "first"):
        try:
            store.write(name, {"a": np.random.default_rng(1).random(2**17)}, {"who": "too large"})
        except store.StoreError as error:
            print(error)
    kept, words = store.read("first")
    print(words["who"], (kept["a"] == numbers).all())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a small disk of Linux")
def test_a_disk_that_is_full_costs_nothing_that_is_finished(tmp_path: Path) -> None:
    """A disk of one megabyte in memory: what does not fit is refused in a line, what is there stays readable."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SMALL_DISK))
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = f'mount -t tmpfs -o size=1m none "{disk}" && cd "{disk}" && '
    inside = ["unshare", "-rm", "sh", "-c"]
    try:
        allowed = subprocess.run([*inside, mounted + "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("no disk can be mounted here")
    python = f'"{sys.executable}" "{script}" && ls -A'
    done = subprocess.run([*inside, mounted + python], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    second, first, kept, *left = done.stdout.splitlines()
    for line, name in ((second, "second"), (first, "first")):
        assert line.startswith(f"{name}.npz cannot be written (No space left on device)")
    assert kept == "first True" and left == ["first.json", "first.npz"], "nothing half-written stays"


# results -----------------------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_result_is_refused(tmp_path: Path) -> None:
    result = train(split(clouds(), 2), Finetune(), steps=1)
    for missing in ("R", "curve", "n_params"):
        store.write(tmp_path / "r", {n: v for n, v in result.arrays().items() if n != missing}, result.words())
        with pytest.raises(StoreError, match=f"no result of clbook .* it has no .*{missing}"):
            Result.load(tmp_path / "r")
    for missing in ("runs", "names", "info"):
        store.write(tmp_path / "r", result.arrays(), {n: v for n, v in result.words().items() if n != missing})
        with pytest.raises(StoreError, match=f"it has no .*{missing}"):
            Result.load(tmp_path / "r")


def test_results_of_two_processes_do_not_mix_in_one_name(tmp_path: Path) -> None:
    """Each writes to a temporary file of its own, so the last one wins as a whole."""
    code = (
        "import sys, numpy as np; from clbook import store\n"
        "for _ in range(40): store.write(sys.argv[1], {'a': np.full(50_000, float(sys.argv[2]))}, {'who': sys.argv[2]})"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "r"), who]) for who in "12"]
    assert [p.wait() for p in both] == [0, 0]
    try:
        numbers, words = store.read(tmp_path / "r")
        assert set(numbers["a"].tolist()) == {float(words["who"])}
    except StoreError as error:  # one's numbers and the other's words: seen, and not used
        assert "checksum" in str(error)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.json", "r.npz"]
