"""Named data sets as plain tensors: the whole set is one tensor, and a batch is an index.

Book: notebooks/01_forgetting, "The data".
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from clbook.checks import Count, InputError, Whole, checked

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
# MD5 of the uncompressed files, so that a file that was cut off is noticed before anything is trained on it.
CHECKSUMS = {
    "mnist": {
        f"MNIST/raw/train-{IMAGES}": "6bbc9ace898e44ae57da46a324031adb",
        f"MNIST/raw/train-{LABELS}": "a25bea736e30d166cdddb491f175f624",
        f"MNIST/raw/t10k-{IMAGES}": "2646ac647ad5339dbf082846283269ea",
        f"MNIST/raw/t10k-{LABELS}": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion": {
        f"FashionMNIST/raw/train-{IMAGES}": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        f"FashionMNIST/raw/train-{LABELS}": "9018921c3c673c538a1fc5bad174d6f9",
        f"FashionMNIST/raw/t10k-{IMAGES}": "8181f5470baa50b63fa0f6fddb340f0a",
        f"FashionMNIST/raw/t10k-{LABELS}": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}
NAMES = ("digits", *CHECKSUMS)


class DataError(RuntimeError):
    """A data set that is missing, cut off or not what its checksum says."""


@dataclass(frozen=True, eq=False)
class Data:
    """A data set on one device.

    x [N, D] in [0, 1] and y [N] with values 0 .. n_classes - 1 for images; the same for the test part. x may have any shape
    and dtype, such as token numbers [N, T]; y may be a token at every position [N, T], real targets [N, K] with K = n_classes,
    or None. `shape` is the shape of one input, (channels, height, width) for an image, and D the product of its numbers.
    """

    x: Shaped[Tensor, "N *D"]
    y: Shaped[Tensor, "N *K"] | None
    x_test: Shaped[Tensor, "M *D"]
    y_test: Shaped[Tensor, "M *K"] | None
    name: str
    shape: tuple[int, ...]
    n_classes: int

    @property
    def labelled(self) -> bool:
        """Whether y holds classes (or tokens), and not real targets or nothing."""
        return self.y is not None and not self.y.is_floating_point()

    @checked
    def subset(self, n_train: Count | None = None, n_test: Count | None = None, seed: Whole = 0) -> Data:
        """The same data with at most n_train training and n_test test samples, drawn with `seed`."""
        train, test = _draw(len(self.x), n_train, seed), _draw(len(self.x_test), n_test, seed + 1)
        return replace(
            self,
            x=self.x[train],
            y=None if self.y is None else self.y[train],
            x_test=self.x_test[test],
            y_test=None if self.y_test is None else self.y_test[test],
        )

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Data:
        """The same data on another device, with what is floating in another floating dtype if one is given."""
        x, y, x_test, y_test = (_moved(v, device, dtype) for v in (self.x, self.y, self.x_test, self.y_test))
        return replace(self, x=x, y=y, x_test=x_test, y_test=y_test)


@checked
def load(name: str, root: str | Path | None = None) -> Data:
    """The named data set: "digits" (embedded, 8x8), "mnist" or "fashion" (28x28).

    `root` is the folder that holds torchvision's layout (`MNIST/raw/...`); by default $CLBOOK_DATA, else
    `~/.cache/clbook`. Files that are missing are downloaded there and checked.

    Raises InputError for an unknown name and DataError for files that are missing, cut off or altered.
    Source: LeCun et al. 1998 (MNIST), Xiao et al. 2017 (Fashion-MNIST), Alpaydin & Kaynak 1998 (digits).

    >>> data = load("digits")
    >>> data.shape, data.n_classes
    ((1, 8, 8), 10)
    """
    if name == "digits":
        return _digits()
    if name not in CHECKSUMS:
        raise InputError(f"unknown data set {name!r}: choose one of {', '.join(NAMES)}")
    folder = data_dir() if root is None else Path(root).expanduser()
    if not all((folder / file).is_file() for file in CHECKSUMS[name]):
        _download(name, folder)
    for file, md5 in CHECKSUMS[name].items():
        _check(folder / file, md5)
    return _read(name, folder)


def data_dir() -> Path:
    """Where the data sets lie: $CLBOOK_DATA, else ~/.cache/clbook."""
    return Path(os.environ.get("CLBOOK_DATA") or "~/.cache/clbook").expanduser()


def _moved(v: Tensor | None, device: torch.device | str, dtype: torch.dtype | None) -> Any:
    return None if v is None else v.to(device, dtype if v.is_floating_point() else None)


def _draw(available: int, wanted: int | None, seed: int) -> Tensor:
    order = torch.randperm(available, generator=torch.Generator().manual_seed(seed))
    return order[:wanted].sort().values


def _digits() -> Data:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(images, dtype=torch.float32)[order] / 16, torch.tensor(labels, dtype=torch.int64)[order]
    return Data(x[:1437], y[:1437], x[1437:], y[1437:], "digits", (1, 8, 8), 10)


def _read(name: str, folder: Path) -> Data:
    from torchvision.datasets.mnist import read_image_file, read_label_file

    images, labels, test_images, test_labels = [folder / file for file in CHECKSUMS[name]]
    x, x_test = [read_image_file(str(f)).flatten(1).float().div_(255) for f in (images, test_images)]
    y, y_test = read_label_file(str(labels)), read_label_file(str(test_labels))
    return Data(x, y, x_test, y_test, name, (1, 28, 28), 10)


def _check(path: Path, expected: str) -> None:
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if found != expected:
        raise DataError(
            f"{path} is not the file it should be (cut off or altered): "
            f"expected MD5 {expected}, found {found}, {path.stat().st_size} bytes. "
            "Delete it and load again to download it anew, or set CLBOOK_DATA to a folder with good files."
        )


def _download(name: str, folder: Path) -> None:
    """Download into a temporary folder and move whole files, so that nothing half-written is ever left behind."""
    from torchvision.datasets import MNIST, FashionMNIST

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            {"mnist": MNIST, "fashion": FashionMNIST}[name](temporary, download=True)
            for file in CHECKSUMS[name]:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(Path(temporary) / file, folder / file)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{name!r} is not in {folder} and could not be downloaded ({type(error).__name__}: {error}). "
            "Either set CLBOOK_DATA to a folder that holds torchvision's layout (MNIST/raw/train-images-idx3-ubyte, "
            "...), or set CLBOOK_PRESET=quick to work with the embedded digits."
        ) from error
