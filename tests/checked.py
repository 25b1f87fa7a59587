"""The type checker of the tests: a whole number counts as a float, as it does in Python's own type hints (PEP 484)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
