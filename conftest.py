"""What every test run starts from: small data, no progress bars, one thread. A variable that is already set wins."""

import os

import pytest

for name, value in {"CLBOOK_PRESET": "quick", "CLBOOK_PROGRESS": "0", "OMP_NUM_THREADS": "1"}.items():
    os.environ.setdefault(name, value)

# What takes longest begins first, so that processes that share the tests end at about the same time. The book is built by the
# first of these, and the next has no need of it.
FIRST = ("tests/test_book.py", "tests/test_benchmark.py", "tests/browser/", "notebooks/")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((k for k, start in enumerate(FIRST) if item.nodeid.startswith(start)), len(FIRST)))
