"""Text that every reader has: the prose and the code of Python's own library, cut into windows of tokens.

Prose are the docstrings and the help topics, code is everything else, written anew without docstrings and comments; a third
text are the names of the characters of Unicode. All come from the reader's own Python, so another version of Python gives
slightly other text. A token is one ASCII character; test windows come from modules, or for names from blocks of 256
characters, of which no training window does. Book: notebooks/10_finetuning.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from clbook.checks import Count, checked
from clbook.data import Data, DataError

TOKENS = 128  # ASCII
TEST_SHARE = 10  # one module in so many is tested on
NOT_READ = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "encodings", "__pycache__"}
Topic = Literal["prose", "code", "names"]
Part = Literal["train", "test"]
PARTS = get_args(Part)


@checked
def library(
    topic: Topic,
    context: Count = 64,
    *,
    n_train: Count | None = None,
    n_test: Count | None = None,
    modules: Count | None = None,
) -> Data:
    """Windows of `context` characters, x [N, T], and the character that follows each, y [N, T]; token numbers below 128.

    At most n_train and n_test windows, spread evenly over all there are, of the first `modules` modules. Raises InputError for
    an unknown topic, DataError where this Python comes without the source of its library.
    """
    train = _windows(read(topic, "train", modules), context, n_train)
    test = _windows(read(topic, "test", modules), context, n_test)
    return Data(train[:, :-1], train[:, 1:], test[:, :-1], test[:, 1:], topic, (context,), TOKENS)


def encoded(text: str) -> Tensor:
    """The tokens of a text [n]; a character that is not ASCII becomes a question mark."""
    return torch.tensor(list(text.encode("ascii", "replace")), dtype=torch.int64)


def decoded(tokens: Tensor) -> str:
    """The text of tokens [n]."""
    return bytes(tokens.tolist()).decode("ascii")


def _windows(text: str, context: int, most: int | None) -> Tensor:
    """Windows [N, context + 1], each beginning with the last character of the one before."""
    tokens = encoded(text)
    windows = tokens[: (len(tokens) - 1) // context * context + 1].unfold(0, context + 1, context)
    if most is None or most >= len(windows):
        return windows.clone()
    return windows[torch.linspace(0, len(windows) - 1, most).long()]


@checked
def read(topic: Topic, part: Part, modules: Count | None = None) -> str:
    """All text of the library on one side of the split, of the first `modules` modules.

    Raises InputError for an unknown topic or part, DataError where this Python comes without the source of its library.
    """
    if not (found := _texts(modules)[topic, part]):
        raise DataError(
            "this Python comes without the source of its library; use one from python.org, conda, uv or your system"
        )
    return found


@lru_cache
def _texts(modules: int | None) -> dict[tuple[str, str], str]:
    """The six texts: prose, code and names, to train on and to test on."""
    pieces: dict[tuple[str, str], list[str]] = {(topic, part): [] for topic in get_args(Topic) for part in PARTS}
    for name, source in islice(_modules(), modules):
        try:
            tree = ast.parse(source)
        except SyntaxError:  # a file for another version of Python
            continue
        pieces["prose", _part(name)] += _docstrings(tree)
        pieces["code", _part(name)].append(_code(tree))
    for name, text in _topics() if modules is None else ():
        pieces["prose", _part(name)].append(text)
    for name, text in islice(_blocks(), modules):
        pieces["names", _part(name)].append(text)
    return {key: "\n\n".join(some) for key, some in pieces.items()}


def _modules() -> Iterator[tuple[str, str]]:
    """Name and source of every module of the library, in the same order everywhere."""
    folder = Path(sysconfig.get_path("stdlib"))
    for path in sorted(folder.rglob("*.py"), key=lambda p: p.relative_to(folder).as_posix()):
        parts = path.relative_to(folder).parts
        if not NOT_READ & set(parts) and not path.name.endswith("_topics.py") and parts[0] != "pydoc_data":
            try:
                yield "/".join(parts), path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue


def _docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if text := ast.get_docstring(node):
                yield text


def _code(tree: ast.Module) -> str:
    """The module without docstrings, as Python writes it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _topics() -> Iterator[tuple[str, str]]:
    """The texts of help("..."), by name, where this Python has them."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return
    yield from sorted(topics.items())


def _blocks() -> Iterator[tuple[str, str]]:
    """The names of the characters of Unicode, a line each, in blocks of 256, without those that end in the number."""
    for start in range(0, sys.maxunicode, 256):
        names = (unicodedata.name(chr(c), "") for c in range(start, start + 256))
        if block := [name for c, name in enumerate(names, start) if name and not name.endswith(f"{c:X}")]:
            yield f"U+{start:X}", "\n".join(block)


def _part(name: str) -> str:
    return PARTS[hashlib.sha256(name.encode()).digest()[0] % TEST_SHARE == 0]
