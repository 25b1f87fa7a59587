"""The oldest dependencies that pyproject.toml allows, as pip takes them, and what tests need: for `make test-oldest`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = (
    "pytest", "hypothesis", "beartype", "nbformat", "nbclient", "ipykernel", "beautifulsoup4", "distributed", "submitit",
    "setuptools>=77",
)  # fmt: skip


def oldest() -> list[str]:
    """name==version for every dependency with a lower bound, and the bare name of every other."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    return [re.sub(r">=", "==", each) for each in found]


if __name__ == "__main__":
    print("numpy<2", *oldest(), *TOOLS, sep="\n")
