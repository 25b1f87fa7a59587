"""What goes to a process that is not trusted and comes back: words and plain arrays, of limited size, and never code.

A message is two lengths, JSON, and the bytes of the arrays one after the other. Nothing in it is unpacked or executed when it
is read: an array is its type, out of a short list, its shape, and as many bytes as these say.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import torch

from clbook.checks import InputError, short

HEAD = struct.Struct("<QQ")
WORDS = 2**22  # bytes of JSON
TEXT = 10_000  # characters of one entry that is text
ENTRIES = 10_000
TYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")


def pack(words: dict[str, Any], entries: dict[str, Any]) -> bytes:
    """A message. Raises InputError for an entry that is not a number, a text or an array of numbers."""
    raw, plain = [], {}
    for name, value in entries.items():
        plain[str(name)], content = _packed(str(name), value)
        raw.append(content)
    text, body = json.dumps({"words": words, "entries": plain}).encode(), b"".join(raw)
    return HEAD.pack(len(text), len(body)) + text + body


def lengths(start: bytes, most: int) -> int | None:
    """How long the message is that begins so, None where too little has come. Raises InputError for more than `most` bytes."""
    if len(start) < HEAD.size:
        return None
    words, body = HEAD.unpack_from(start)
    if words > WORDS or body > most:
        raise InputError(f"its answers have {max(words, body):,} bytes, and at most {most:,} are read")
    return HEAD.size + words + body


def unpack(message: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The words and the entries of a message. Raises InputError for anything that `pack` does not make."""
    try:
        words, body = HEAD.unpack_from(message)
        if len(message) != HEAD.size + words + body:
            raise ValueError("its length is not what it says")
        said = json.loads(message[HEAD.size : HEAD.size + words])
        text, plain = said["words"], said["entries"]
        if not isinstance(text, dict) or not isinstance(plain, dict) or len(plain) > ENTRIES:
            raise ValueError("it holds no entries")
        at, found = HEAD.size + words, {}
        for name, one in plain.items():
            found[name], at = _unpacked(one, message, at)
        if at != len(message):
            raise ValueError("there are bytes that belong to no entry")
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError, struct.error) as error:
        raise InputError(f"what it sent is no answer ({short(' '.join(str(error).split()), 100)})") from None
    return text, found


def _packed(name: str, value: Any) -> tuple[Any, bytes]:
    if isinstance(value, str):
        return value[:TEXT], b""
    if isinstance(value, int | float) and not isinstance(value, np.generic):
        return (value if type(value) in (bool, int, float) else float(value)), b""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    array = np.asarray(value) if isinstance(value, np.ndarray | np.generic | list | tuple) else None
    if array is None or str(array.dtype) not in TYPES:
        why = " (does a function return nothing?)" if value is None else ""
        raise InputError(f"{name!r} is {short(value, 60)}, and an answer is a number, a text or an array of numbers{why}")
    return [str(array.dtype), list(array.shape)], np.ascontiguousarray(array).tobytes()


def _unpacked(one: Any, message: bytes, at: int) -> tuple[Any, int]:
    if not isinstance(one, list):
        if not isinstance(one, str | int | float) or (isinstance(one, str) and len(one) > TEXT):
            raise ValueError("an entry is neither number nor text")
        return one, at
    kind, shape = one
    if kind not in TYPES or not isinstance(shape, list) or len(shape) > 32:
        raise ValueError("an array has an unknown type")
    if not all(type(n) is int and 0 <= n < 2**40 for n in shape):
        raise ValueError("an array has no shape")
    end = at + math.prod(shape) * np.dtype(kind).itemsize
    if end > len(message):
        raise ValueError("an array is longer than what was sent")
    array = np.frombuffer(message[at:end], dtype=kind).reshape(shape).copy()
    if kind == "bool":  # any other byte would be neither
        array = np.frombuffer(message[at:end], dtype="uint8").reshape(shape) != 0
    return array, end
