"""One file per method. Book: book/families."""

from clbook.methods.answers import OwnAnswers, PolicyGradient
from clbook.methods.dual import CLSER, FastWeights
from clbook.methods.ewc import EWC
from clbook.methods.finetune import Cumulative, Finetune, Joint
from clbook.methods.fixed import LDA, ClassMeans, Ridge
from clbook.methods.gating import HAT, XdG
from clbook.methods.gem import AGEM, GEM
from clbook.methods.generative import DGR
from clbook.methods.imm import IMM, Average
from clbook.methods.kwta import KWTA
from clbook.methods.l2 import L2
from clbook.methods.lora import LoRA
from clbook.methods.lwf import LwF
from clbook.methods.mas import MAS
from clbook.methods.packnet import PackNet
from clbook.methods.plastic import ContinualBackprop, ShrinkPerturb, WeightDecay
from clbook.methods.progressive import Progressive
from clbook.methods.pseudo import PseudoRehearsal, RecordedReplay
from clbook.methods.replay import ER, DERpp
from clbook.methods.rwalk import RWalk
from clbook.methods.separate import Separate
from clbook.methods.si import SI
from clbook.methods.transfer import FeatureExtraction

__all__ = [
    "AGEM", "CLSER", "DGR", "ER", "EWC", "GEM", "HAT", "IMM", "KWTA", "L2", "LDA",
    "MAS", "SI", "Average", "ClassMeans", "ContinualBackprop", "Cumulative", "DERpp", "FastWeights", "FeatureExtraction",
    "Finetune", "Joint", "LoRA", "LwF", "OwnAnswers", "PackNet", "PolicyGradient", "Progressive", "PseudoRehearsal", "RWalk",
    "RecordedReplay", "Ridge", "Separate", "ShrinkPerturb", "WeightDecay", "XdG",
]  # fmt: skip
