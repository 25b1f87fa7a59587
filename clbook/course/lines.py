"""How many lines a method has: other spacing, comments and documentation change nothing. Book: book/grading."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator

LINE = 120  # characters of a statement that counts as one line
# by these, text becomes code; and names such as __builtins__, but for those that a class needs
TEXT_TO_CODE = {"exec", "eval", "compile", "builtins", "importlib", "inspect", "linecache"}
HARMLESS = {"__init__", "__post_init__", "__name__", "__future__"}


def count_lines(text: str) -> int:
    """Lines of code as Python writes them anew: one statement each, without imports, docstrings and comments.

    A statement of more than 120 characters counts as several, and so does one with a long text in it.
    """
    tree = _undocumented(text)
    tree.body = [n for n in tree.body if not isinstance(n, ast.Import | ast.ImportFrom)]
    return sum(math.ceil(len(line) / LINE) for line in _lines(ast.unparse(tree)))


def text_to_code(text: str) -> str:
    """The first name in the code by which text could be run as code, such as exec or __builtins__; "" where there is none.

    It is looked for among names, attributes, imports and texts that are no docstrings.
    """
    for node in ast.walk(_undocumented(text)):
        said = " ".join(v for _, v in ast.iter_fields(node) if isinstance(v, str))
        for word in re.findall(r"\w+", said if not isinstance(node, ast.FunctionDef | ast.ClassDef) else ""):
            if word in TEXT_TO_CODE or (word.startswith("__") and word.endswith("__") and word not in HARMLESS):
                return str(word)
    return ""


def _undocumented(text: str) -> ast.Module:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _lines(text: str) -> Iterator[str]:
    return (line.strip() for line in text.splitlines() if line.strip())
