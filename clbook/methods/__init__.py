"""One file per method. Book: book/families."""

from clbook.methods.ewc import EWC
from clbook.methods.finetune import Cumulative, Finetune, Joint
from clbook.methods.imm import IMM, Average
from clbook.methods.l2 import L2
from clbook.methods.lwf import LwF
from clbook.methods.mas import MAS
from clbook.methods.progressive import Progressive
from clbook.methods.rwalk import RWalk
from clbook.methods.separate import Separate
from clbook.methods.si import SI
from clbook.methods.transfer import FeatureExtraction

__all__ = [
    "EWC",
    "IMM",
    "L2",
    "MAS",
    "SI",
    "Average",
    "Cumulative",
    "FeatureExtraction",
    "Finetune",
    "Joint",
    "LwF",
    "Progressive",
    "RWalk",
    "Separate",
]
