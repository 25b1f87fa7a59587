"""Distillation losses as people write them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

KIND = "distillation"


def by_hand(new_outputs, old_outputs, T):
    q = torch.exp(old_outputs / T) / torch.exp(old_outputs / T).sum(1, keepdim=True)
    log_p = new_outputs / T - torch.logsumexp(new_outputs / T, 1, keepdim=True)
    return -(q * log_p).sum() / len(new_outputs)


def divergence(student_logits, teacher_logits, temperature):
    p = F.log_softmax(student_logits / temperature, dim=1)
    return F.kl_div(p, F.softmax(teacher_logits / temperature, dim=1), reduction="batchmean")


def soft_labels(outputs, old_outputs, T):
    return F.cross_entropy(outputs / T, (old_outputs.detach() / T).softmax(1))


def sample_by_sample(logits, recorded, T):
    losses = []
    for z, v in zip(logits, recorded, strict=True):
        q, p = (v / T).softmax(0), (z / T).softmax(0)
        losses.append((q * (q.log() - p.log())).sum())
    return torch.stack(losses).mean()


def hinton(student, teacher, T):
    divergence = nn.KLDivLoss(reduction="batchmean", log_target=True)
    return T**2 * divergence((student / T).log_softmax(1), (teacher / T).log_softmax(1))


hinton.t_squared = True


def powers(new_outputs, old_outputs, T):
    """As the paper of Li and Hoiem writes it: probabilities to the power 1/T, scaled to sum 1."""
    q, p = (f.softmax(1) ** (1 / T) for f in (old_outputs, new_outputs))
    q, p = q / q.sum(1, keepdim=True), p / p.sum(1, keepdim=True)
    return -(q * p.log()).sum(1).mean()


RIGHT = [by_hand, divergence, soft_labels, sample_by_sample, hinton, powers]


def undeclared_hinton(student, teacher, T):
    return T * T * F.cross_entropy(student / T, (teacher / T).softmax(1))


def summed(student, teacher, T):
    return F.cross_entropy(student / T, (teacher / T).softmax(1), reduction="sum")


NOTED = {undeclared_hinton: "t_squared=True", summed: "reduction='sum'"}


def cold(student, teacher, T):
    return F.cross_entropy(student, teacher.softmax(1))


def cold_student(student, teacher, T):
    return F.cross_entropy(student, (teacher / T).softmax(1))


def cold_teacher(student, teacher, T):
    return F.cross_entropy(student / T, teacher.softmax(1))


def labels(student, teacher, T):
    return F.cross_entropy(student, teacher.argmax(1))


def warm_labels(student, teacher, T):
    return F.cross_entropy(student / T, teacher.argmax(1))


def exchanged(student, teacher, T):
    return F.cross_entropy(teacher / T, (student / T).softmax(1))


def other_divergence(student, teacher, T):
    return F.kl_div((teacher / T).log_softmax(1), (student / T).softmax(1), reduction="batchmean")


def probabilities(student, teacher, T):
    return F.kl_div((student / T).softmax(1), (teacher / T).softmax(1), reduction="batchmean")


def pytorchs_mean(student, teacher, T):
    return (F.log_softmax(student / T, 1) * -F.softmax(teacher / T, 1)).mean()


def deits_mean(student, teacher, T):
    found = F.kl_div((student / T).log_softmax(1), (teacher / T).log_softmax(1), reduction="sum", log_target=True)
    return found * T * T / student.numel()


def squares(student, teacher, T):
    return F.mse_loss(student, teacher)


def teacher_twice(student, teacher, T):
    return F.cross_entropy(teacher / T, (teacher / T).softmax(1))


def student_detached(student, teacher, T):
    return F.cross_entropy(student.detach() / T, (teacher / T).softmax(1))


def times_T(student, teacher, T):
    return T * F.cross_entropy(student / T, (teacher / T).softmax(1))


def divided(student, teacher, T):
    return F.cross_entropy(student / T, (teacher / T).softmax(1)) / T**2


WRONG = {
    cold: "no-temperature", cold_student: "teacher-only", cold_teacher: "student-only", labels: "hard-labels",
    warm_labels: "hard-labels", exchanged: "swapped", other_divergence: "reverse", probabilities: "no-log",
    pytorchs_mean: "mean-over-classes", deits_mean: "mean-over-classes", squares: "squared-error", teacher_twice: "self",
    student_detached: "self", times_T: "times-T", divided: "over-T-squared",
}  # fmt: skip


def of_nobody(student, teacher, T):
    return (student / T - teacher / T).abs().mean()


UNKNOWN = [of_nobody]
