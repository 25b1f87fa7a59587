"""clbook: the small package behind the book on continual learning.

A scenario is a list of tasks; a method says what the loss is and what it remembers; `run` is the only loop; it returns R.
"""

from clbook.checks import InputError
from clbook.data import Data, DataError, load
from clbook.importance import fisher, fisher_overlap
from clbook.likelihood import AnyOf, Categorical, Gaussian
from clbook.loop import DivergedError, Training, run
from clbook.method import Method, Spring
from clbook.methods.mas import mas_importance
from clbook.net import Net, cnn, mlp, transformer
from clbook.presets import preset
from clbook.result import Result
from clbook.scenarios import Scenario, Task, blurred, permuted, reconstruct, rotated, sequence, split
from clbook.version import __version__

__all__ = [
    "AnyOf", "Categorical", "Data", "DataError", "DivergedError", "Gaussian", "InputError", "Method", "Net", "Result",
    "Scenario", "Spring", "Task", "Training", "__version__", "blurred", "cnn", "fisher", "fisher_overlap", "load",
    "mas_importance", "mlp", "permuted", "preset", "reconstruct", "rotated", "run", "sequence", "split", "transformer",
]  # fmt: skip
