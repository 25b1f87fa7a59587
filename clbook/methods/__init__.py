"""One file per method. Book: book/families."""

from clbook.methods.ewc import EWC
from clbook.methods.finetune import Cumulative, Finetune, Joint
from clbook.methods.l2 import L2

__all__ = ["EWC", "L2", "Cumulative", "Finetune", "Joint"]
