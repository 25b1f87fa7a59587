"""The kinds of code that can be checked: what each is called in a file, what it must do, and a template to start from."""

from __future__ import annotations

from dataclasses import dataclass

from clbook.course.kinds import agem, distillation, ewc, fisher, mas, method, penalty, replay, si
from clbook.course.properties import Property


@dataclass(frozen=True)
class Kind:
    """One kind: `names` are those of a function (or class) of this kind in a reader's file, `example` how one is written."""

    says: str
    example: str
    names: tuple[str, ...]
    properties: tuple[Property, ...]
    template: str


KINDS: dict[str, Kind] = {
    "fisher": Kind(
        "the diagonal of the Fisher information", "fisher(model, x, y, mask) -> {name: tensor}",
        ("fisher", "fisher_information", "diag_fisher", "compute_fisher", "estimate_fisher"), (fisher.VALUE, fisher.LEFT),
        fisher.TEMPLATE,
    ),
    "penalty": Kind(
        "the energy of springs", "penalty(model, star, importance, lam) -> number",
        ("penalty", "ewc_penalty", "ewc_loss", "spring_penalty"), (penalty.VALUE,), penalty.TEMPLATE,
    ),
    "remember": Kind(
        "a copy of the parameters", "remember(model) -> {name: tensor}",
        ("remember", "copy_parameters", "save_parameters", "snapshot"), (penalty.COPY,), penalty.TEMPLATE,
    ),
    "ewc": Kind(
        "a class that carries EWC from task to task", "EWC(lam) with after_task(model, x, y) and penalty(model)",
        ("EWC", "OnlineEWC", "ElasticWeightConsolidation"), (ewc.VALUE, ewc.SECOND, ewc.LEFT), ewc.TEMPLATE,
    ),
    "mas": Kind(
        "the importance of memory aware synapses", "mas(model, x, mask) -> {name: tensor}",
        ("mas", "mas_importance", "mas_omega", "compute_mas"), (mas.VALUE, mas.LEFT), mas.TEMPLATE,
    ),
    "distillation": Kind(
        "the loss of learning without forgetting", "distillation(new_outputs, old_outputs, T) -> number",
        ("distillation", "distillation_loss", "lwf_loss", "kd_loss", "lwf"), (distillation.VALUE,), distillation.TEMPLATE,
    ),
    "si": Kind(
        "the importance of synaptic intelligence", "si(gradients, thetas, xi) -> [P]",
        ("si", "si_importance", "si_omega", "synaptic_intelligence"), (si.VALUE,), si.TEMPLATE,
    ),
    "agem": Kind(
        "the projection of A-GEM", "project(g, g_ref) -> [P]", ("project", "agem", "agem_project", "project_gradient"),
        (agem.VALUE,), agem.TEMPLATE,
    ),
    "replay": Kind(
        "the loss of experience replay", "replay_loss(model, x, y, mask, x_old, y_old, mask_old, k) -> number",
        ("replay_loss", "replay", "er_loss", "rehearsal_loss"), (replay.VALUE,), replay.TEMPLATE,
    ),
    "method": Kind(
        "a method of clbook's own kind", "an instance of a subclass of clbook.Method", (),
        (method.PURE, method.RESUMED, method.STACKED, method.MEMORY, method.IMPORTANCE, method.ENERGY), method.TEMPLATE,
    ),
}  # fmt: skip
OF_NAME = {name: kind for kind, k in KINDS.items() for name in k.names}
