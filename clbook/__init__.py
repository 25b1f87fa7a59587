"""clbook: the small package behind the book on continual learning.

A scenario is a list of tasks; a method says what the loss is and what it remembers; `run` is the only loop; it returns R.
"""

__version__ = "0.1.0"

from clbook.data import Data, DataError, load
from clbook.engine import DivergedError, run
from clbook.importance import fisher, fisher_overlap, mas_importance
from clbook.method import Method, Spring
from clbook.net import Net, cnn, mlp
from clbook.presets import preset
from clbook.result import Result
from clbook.scenarios import Scenario, Task, permuted, rotated, sequence, split

__all__ = [
    "Data", "DataError", "DivergedError", "Method", "Net", "Result", "Scenario", "Spring", "Task",
    "cnn", "fisher", "fisher_overlap", "load", "mas_importance", "mlp", "permuted", "preset", "rotated", "run", "sequence",
    "split",
]  # fmt: skip
