"""Data: the right numbers, and clear errors that leave nothing half-written."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from small import refused

from clbook import DataError, data, load

IMAGES = torch.arange(3 * 28 * 28).remainder(256).to(torch.uint8).view(3, 28, 28)
LABELS = torch.tensor([7, 0, 3], dtype=torch.uint8)


def write_idx(folder: Path) -> dict[str, str]:
    """A whole MNIST of three images in torchvision's layout; returns its checksums."""
    sums = {}
    for file in data.CHECKSUMS["mnist"]:
        images = "images" in file
        head = struct.pack(">4I", 0x803, 3, 28, 28) if images else struct.pack(">2I", 0x801, 3)
        content = head + (IMAGES if images else LABELS).numpy().tobytes()
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
        sums[file] = hashlib.md5(content).hexdigest()
    return sums


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small MNIST that load() takes for the real one, and no way to download another."""
    monkeypatch.setattr(data, "CHECKSUMS", data.CHECKSUMS | {"mnist": write_idx(tmp_path)})
    monkeypatch.setenv("CLBOOK_DATA", str(tmp_path))

    def no_network(*args: object, **more: object) -> None:
        raise AssertionError("nothing may be downloaded here")

    monkeypatch.setattr(torchvision.datasets, "MNIST", no_network)
    return tmp_path


def test_digits_are_all_there_and_split_once() -> None:
    d = load("digits")
    assert (d.x.shape, d.x_test.shape, d.shape, d.n_classes) == ((1437, 64), (360, 64), (1, 8, 8), 10)
    assert d.x.min() == 0 and d.x.max() == 1 and d.x.dtype == torch.float32
    # class counts of the 1797 digits, as the data set's own description lists them
    counts = torch.cat([d.y, d.y_test]).bincount().tolist()
    assert counts == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert torch.equal(load("digits").x, d.x)
    together = torch.cat([d.x, d.x_test]).unique(dim=0)
    assert len(together) == 1797  # no image twice, so none in both parts


def test_idx_files_are_read_as_flat_images_between_0_and_1(small: Path) -> None:
    d = load("mnist")
    assert torch.equal((d.x * 255).round().to(torch.uint8).view(3, 28, 28), IMAGES)
    assert d.y.tolist() == [7, 0, 3] and d.y.dtype == torch.int64
    assert (d.name, d.shape, d.n_classes) == ("mnist", (1, 28, 28), 10)


def test_root_comes_before_the_environment(small: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    monkeypatch.setenv("CLBOOK_DATA", str(tmp_path_factory.mktemp("empty")))
    assert len(load("mnist", root=small).x) == 3
    assert data.data_dir() != small
    monkeypatch.delenv("CLBOOK_DATA")
    assert data.data_dir() == Path.home() / ".cache" / "clbook"


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"'cifar'.*digits, mnist, fashion"):
        load("cifar")


@pytest.mark.parametrize("harm", ["cut off", "altered"])
def test_a_harmed_file_is_named_with_both_checksums(small: Path, harm: str) -> None:
    name = f"MNIST/raw/t10k-{data.IMAGES}"
    content = (small / name).read_bytes()
    harmed = content[:-100] if harm == "cut off" else content[:-1] + b"\xff"
    (small / name).write_bytes(harmed)
    with pytest.raises(DataError) as error:
        load("mnist")
    text = str(error.value)
    assert str(small / name) in text
    assert hashlib.md5(content).hexdigest() in text and hashlib.md5(harmed).hexdigest() in text
    assert "Delete it" in text and "CLBOOK_DATA" in text
    assert (small / name).read_bytes() == harmed  # nobody's file is deleted behind their back


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("Error downloading"), KeyboardInterrupt()])
def test_a_failed_download_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def half(root: str, download: bool) -> None:
        raw = Path(root) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        (raw / f"train-{data.IMAGES}").write_bytes(b"half of it")
        raise error

    monkeypatch.setenv("CLBOOK_DATA", str(tmp_path / "here"))
    monkeypatch.setattr(torchvision.datasets, "MNIST", half)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else DataError) as caught:
        load("mnist")
    assert [p for p in tmp_path.rglob("*") if p.name != "here"] == []
    if not isinstance(error, KeyboardInterrupt):
        for word in ("CLBOOK_DATA", "CLBOOK_PRESET=quick", "mnist", str(tmp_path / "here"), type(error).__name__):
            assert word in str(caught.value)


def test_a_download_is_checked_moved_whole_and_done_once(small: Path, tmp_path_factory, monkeypatch) -> None:
    calls = []

    def good(root: str, download: bool) -> None:
        calls.append(root)
        write_idx(Path(root))

    folder = tmp_path_factory.mktemp("fresh")
    monkeypatch.setattr(torchvision.datasets, "MNIST", good)
    assert load("mnist", root=folder).y.tolist() == load("mnist", root=folder).y.tolist() == [7, 0, 3]
    assert len(calls) == 1
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == sorted(data.CHECKSUMS["mnist"])


def test_a_download_of_wrong_files_is_refused(small: Path, tmp_path_factory, monkeypatch) -> None:
    def bad(root: str, download: bool) -> None:
        write_idx(Path(root))
        (Path(root) / f"MNIST/raw/train-{data.LABELS}").write_bytes(b"a login page")

    monkeypatch.setattr(torchvision.datasets, "MNIST", bad)
    with pytest.raises(DataError, match="expected MD5"):
        load("mnist", root=tmp_path_factory.mktemp("fresh"))


def test_subset_is_seeded_and_keeps_pairs() -> None:
    d = load("digits")
    s = d.subset(50, 20, seed=3)
    assert (len(s.x), len(s.y), len(s.x_test), len(s.y_test)) == (50, 50, 20, 20)
    assert torch.equal(s.x, d.subset(50, 20, seed=3).x) and not torch.equal(s.x, d.subset(50, 20, seed=4).x)
    for x, y in zip(s.x, s.y, strict=True):
        where = (d.x == x).all(1).nonzero().flatten()
        assert len(where) == 1 and d.y[where[0]] == y
    assert len(d.subset().x) == len(d.subset(10**6).x) == len(d.x)
    for name, value in (("n_train", 0), ("n_test", -3), ("n_train", 2.5)):
        with refused(f"{name} must be .*, got {value}"):
            d.subset(**{name: value})


def test_to_changes_the_inputs_alone() -> None:
    d = load("digits").to("cpu", torch.float64)
    assert (d.x.dtype, d.x_test.dtype, d.y.dtype) == (torch.float64, torch.float64, torch.int64)


REAL = {
    "mnist": ([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], [5, 0, 4, 1, 9], 0.1307, 0.3081),
    "fashion": ([6000] * 10, [9, 0, 0, 3, 0], 0.2860, 0.3530),
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_files(name: str) -> None:
    """Published class counts, first labels, mean and standard deviation of the pixels; runs where the files lie."""
    if not all((data.data_dir() / file).is_file() for file in data.CHECKSUMS[name]):
        pytest.skip(f"{name} is not in {data.data_dir()}: set CLBOOK_DATA to a folder that holds it")
    d = load(name)
    counts, first, mean, std = REAL[name]
    assert (d.x.shape, d.x_test.shape) == ((60000, 784), (10000, 784))
    assert d.y.bincount().tolist() == counts and d.y[:5].tolist() == first
    assert float(d.x.mean()) == pytest.approx(mean, abs=1e-4) and float(d.x.std()) == pytest.approx(std, abs=1e-4)
    assert d.x.min() == 0 and d.x.max() == 1
