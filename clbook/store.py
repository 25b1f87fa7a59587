"""Numbers on the disk: PATH.npz and PATH.json, no code in them, whole or not at all.

Everything that is kept goes through here: results, checkpoints, the parts of a sweep. The JSON holds a checksum of the
arrays, so a file that was cut off or altered is noticed before anything is computed from it.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import threading
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np

from clbook.checks import InputError

Path_ = str | os.PathLike[str]


class StoreError(InputError):
    """A file that cannot be used: cut off, altered, unreadable or not one of ours."""


def write(path: Path_, arrays: dict[str, np.ndarray], text: dict[str, Any]) -> None:
    """Write PATH.npz and PATH.json; what was there stays until the new file is complete on the disk.

    Raises StoreError where the folder cannot be written to, with what to do.
    """
    numbers, words = files(path)
    buffer, small = io.BytesIO(), sum(a.nbytes for a in arrays.values()) < 2**22
    (np.savez_compressed if small else np.savez)(buffer, **cast(Any, arrays))
    packed = buffer.getvalue()
    text = _finite(text) | {"sha256": hashlib.sha256(packed).hexdigest()}
    lines = json.dumps(text, indent=1, default=plain, allow_nan=False)
    try:
        replace(numbers, packed)
        replace(words, lines + "\n")
    except OSError as error:
        why = error.strerror or error
        raise StoreError(f"{numbers} cannot be written ({why}); name a folder of yours that has room") from error


def read(path: Path_) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the text that `write` wrote. Raises StoreError for anything else, with the file and what to do."""
    numbers, words = files(path)
    try:
        packed = numbers.read_bytes()
        text = json.loads(words.read_text(encoding="utf-8"))
        if not isinstance(text, dict):
            raise ValueError("it holds no dictionary")
        checksum = text.pop("sha256", None)
        if checksum != hashlib.sha256(packed).hexdigest():
            raise ValueError(f"{numbers.name} does not have the checksum that {words.name} says")
        with np.load(io.BytesIO(packed), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if not all(isinstance(v, np.ndarray) for v in arrays.values()):
            raise ValueError(f"{numbers.name} holds something that is no array")
        return arrays, text
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, RecursionError) as error:
        raise StoreError(f"{words} cannot be used, nor its .npz: {_why(error)}. Delete both and compute again.") from error


def files(path: Path_) -> tuple[Path, Path]:
    """PATH.npz and PATH.json; a PATH such as "lam-0.5" keeps its dot."""
    stem = str(path).removesuffix(".npz").removesuffix(".json")
    return Path(f"{stem}.npz"), Path(f"{stem}.json")


def plain(value: Any) -> Any:
    """A NumPy number as Python's own, which JSON knows; anything else as its text."""
    return value.item() if isinstance(value, np.generic) else str(value)


def _finite(value: Any) -> Any:
    """The same with numbers that JSON does not know, such as infinity, as text."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def replace(path: Path, content: bytes | str) -> None:
    """Put the content in the file's place in one move, once it is safe on the disk. Each thread has its own temporary name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no {Path(error.filename or '?').name}"
    if "pickle" in str(error):  # NumPy's advice would be to run what is in it
        return "it holds something other than numbers"
    return " ".join(str(error).split())[:200] or type(error).__name__
