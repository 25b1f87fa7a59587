"""How a reader's function is called, and how what it returns is read.

An argument is known by its name, in any order: a function that asks for `model, x, y` gets these, one that asks for
`net, loader` gets batches. So a function can be checked as it stands in the reader's own program.
Book: book/check, "What is understood".
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from clbook.checks import InputError, short

# What an argument may be called, and what it then is.
NAMES: dict[str, tuple[str, ...]] = {
    "model": ("model", "net", "network", "module"),
    "theta": ("theta", "params_vector", "flat"),
    "x": ("x", "xs", "inputs", "images", "data"),
    "y": ("y", "ys", "labels", "targets", "target"),
    "mask": ("mask", "active"),
    "classes": ("classes", "active_classes", "class_ids"),
    "loader": ("loader", "dataloader", "data_loader", "batches"),
    "dataset": ("dataset", "samples"),
    "criterion": ("criterion", "loss_fn", "loss_function"),
    "device": ("device",),
    "star": ("star", "theta_star", "old", "old_params", "old_parameters", "means", "anchor", "previous"),
    "importance": ("importance", "importances", "omega", "fisher", "F"),
    "lam": ("lam", "lambda_", "lmbda", "ewc_lambda", "strength"),
    "new_outputs": ("new_outputs", "outputs", "student", "student_logits", "logits", "new_logits"),
    "old_outputs": ("old_outputs", "recorded", "teacher", "teacher_logits", "old_logits"),
    "T": ("T", "temperature", "temp"),
    "gradients": ("gradients", "grads", "task_gradients"),
    "directions": ("directions", "total_gradients"),
    "thetas": ("thetas", "path", "trajectory"),
    "xi": ("xi", "eps", "epsilon", "damping"),
    "g": ("g", "grad", "gradient"),
    "g_ref": ("g_ref", "grad_ref", "ref", "reference"),
    "x_old": ("x_old", "old_x", "memory_x"),
    "y_old": ("y_old", "old_y", "memory_y"),
    "mask_old": ("mask_old", "old_mask", "memory_mask"),
    "k": ("k", "n_old", "old_tasks"),
}  # fmt: skip
MEANING = {name: canonical for canonical, names in NAMES.items() for name in names}
WHAT = {
    "model": "an nn.Module (with an argument theta beside it: a clbook.Net)", "theta": "all parameters as one vector [P]",
    "x": "inputs [N, D]", "y": "labels [N]", "mask": "which outputs are the task's [C], True or False",
    "classes": "the numbers of the task's outputs, a list", "loader": "batches (x, y) of at most four samples",
    "dataset": "pairs (x, y), one for each sample", "criterion": "nn.CrossEntropyLoss()", "device": '"cpu"',
    "star": "the parameters after the old task", "importance": "Omega, shaped as star",
    "lam": "the strength", "new_outputs": "the outputs now [B, C]", "old_outputs": "the outputs recorded before [B, C]",
    "T": "the temperature", "gradients": "the gradient of the task's own loss at each step [S, P]",
    "directions": "that of the whole loss, penalty included [S, P]", "thetas": "the parameters before each step and at the end "
    "[S + 1, P]", "xi": "the damping", "g": "the gradient of the new batch [P]", "g_ref": "the gradient on the old samples [P]",
    "x_old": "replayed inputs [B, D]", "y_old": "their labels [B]", "mask_old": "the outputs of their task [C]",
    "k": "how many tasks came before",
}  # fmt: skip


class CannotCheck(InputError):
    """A function that cannot be asked: an unknown argument, or an answer that is not what it should be."""


@dataclass(frozen=True)
class Subject:
    """What is checked: a function or class of the reader's, under its own name, with what it declares of its conventions."""

    kind: str
    name: str
    target: Any
    declared: dict[str, Any] = field(default_factory=dict)
    line: int = 0

    @property
    def takes(self) -> set[str]:
        """The arguments of the function, by the names that are used here."""
        return {MEANING.get(p, p) for p in _parameters(self.target)}

    def __call__(self, **known: Any) -> Any:
        return call(self.target, known, self.name)


def call(function: Callable[..., Any], known: dict[str, Any], name: str) -> Any:
    """The function with what it asks for. Raises CannotCheck for an argument without a default that nobody knows."""
    positional, named = [], {}
    for parameter in _parameters(function).values():
        canonical = MEANING.get(parameter.name, parameter.name)
        if canonical not in known:
            if parameter.default is parameter.empty:
                may = ", ".join(n for c in known for n in NAMES.get(c, (c,))[:2])
                raise CannotCheck(f"{name} asks for {parameter.name!r}, which is not known here; it can ask for {may}")
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(known[canonical])
        else:
            named[parameter.name] = known[canonical]
    return function(*positional, **named)


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    return {n: p for n, p in found.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


# vectors and named parameters -----------------------------------------------------------------------------------------------


def theta_of(model: nn.Module) -> Tensor:
    """All parameters of a module as one vector [P], a copy."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]).clone()


def named(model: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """A vector [P] cut up as the parameters of a module, by name; copies."""
    parts = vector.split([p.numel() for p in model.parameters()])
    return {n: v.clone().view_as(p) for (n, p), v in zip(model.named_parameters(), parts, strict=True)}


def put(model: nn.Module, theta: Tensor) -> None:
    """Give a module the parameters theta [P], in place, as an optimiser would."""
    with torch.no_grad():
        for p, v in zip(model.parameters(), named(model, theta).values(), strict=True):
            p.copy_(v)


def vector(answer: Any, model: nn.Module, name: str) -> Tensor:
    """One number for each parameter, as one vector [P]: from a dictionary by name, a list in order, or a vector.

    Raises CannotCheck for anything else.
    """
    P, names = sum(p.numel() for p in model.parameters()), [n for n, _ in model.named_parameters()]
    if isinstance(answer, dict):
        plain = {re.sub(r"\W|_", "", str(k)): v for k, v in answer.items()}  # some write 0__weight for 0.weight
        missing = [n for n in names if re.sub(r"\W|_", "", n) not in plain]
        if missing:
            raise CannotCheck(f"{name} returns a dictionary without {missing[0]!r}; it has {short(list(answer))}")
        parts: Sequence[Any] = [plain[re.sub(r"\W|_", "", n)] for n in names]
    elif isinstance(answer, Tensor):
        parts = [answer]
    elif isinstance(answer, Sequence) and not isinstance(answer, str):
        parts = answer
    else:
        raise CannotCheck(
            f"{name} must return one number for each parameter, as a dictionary by name, a list or a vector [P]; "
            f"it returned {short(answer, 60)}"
        )
    shapes = [tuple(p.shape) for p in model.parameters()]
    tensors = [torch.as_tensor(p).detach().double() for p in parts]
    if len(tensors) == len(shapes) and all(t.dim() == 0 and len(s) for t, s in zip(tensors, shapes, strict=True)):
        tensors = [t.expand(s) for t, s in zip(tensors, shapes, strict=True)]  # one number for a whole tensor, told as a fault
    whole = torch.cat([t.reshape(-1) for t in tensors]) if tensors else torch.zeros(0)
    if len(whole) != P:
        raise CannotCheck(f"{name} must return one number for each of the {P} parameters, and it returned {len(whole)}")
    return whole


def scalar(answer: Any, name: str) -> Tensor:
    """A loss: one number. Raises CannotCheck for anything else."""
    if isinstance(answer, int | float):
        return torch.tensor(float(answer))
    if not isinstance(answer, Tensor) or answer.numel() != 1 or not answer.is_floating_point():
        raise CannotCheck(f"{name} must return one number, the loss; it returned {short(answer, 60)}")
    return answer.reshape(())


def gradient(value: Tensor, wanted: Sequence[Tensor]) -> Tensor:
    """The gradient of a number as one vector; zeros where the number does not depend on something."""
    if not value.requires_grad:
        return torch.cat([torch.zeros_like(w).reshape(-1) for w in wanted])
    found = torch.autograd.grad(value, list(wanted), allow_unused=True)
    return torch.cat([(torch.zeros_like(w) if g is None else g).reshape(-1) for g, w in zip(found, wanted, strict=True)])
