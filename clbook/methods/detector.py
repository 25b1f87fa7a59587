"""When has the task changed? A window over the loss of the batches as they come in.

Book: notebooks/12_streams, "Finding the boundary".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Watch(NamedTuple):
    """What a detector remembers: the newest losses [W], NaN where none has come yet, and mean and std of the calmest window.

    `calm` [2] is (inf, 0) until a window is full.
    """

    losses: Float[Tensor, " W"]
    calm: Float[Tensor, "2"]


def begin(window: int, like: Tensor) -> Watch:
    """A detector that has seen nothing, with the device and dtype of `like`."""
    return Watch(like.new_full((window,), torch.nan), like.new_tensor([torch.inf, 0.0]))


def watch(seen: Watch, loss: Float[Tensor, ""] | float, k: float) -> tuple[Watch, bool, bool]:
    """One more loss: what is remembered now, whether the task has changed, and whether this window is the calmest so far.

    changed:  mean(window) > mean(calmest window) + k std(calmest window)

    The calmest window is the one with the lowest mean since the last change: on a plateau of the loss, its newest and lowest
    part. At a change everything is forgotten, so the next change is found W batches later at the earliest.
    Source: after Aljundi et al. 2019 (arXiv:1812.03596), section 3, who tell a plateau by fixed bounds on mean and std.
    """
    losses = torch.cat([seen.losses[1:], torch.as_tensor(loss).to(seen.losses).reshape(1)])
    if bool(losses.isnan().any()):
        return Watch(losses, seen.calm), False, False
    mean, std = losses.mean(), losses.std()
    if bool(mean > seen.calm[0] + k * seen.calm[1]):
        return begin(len(losses), losses), True, False
    calmer = bool(mean < seen.calm[0])
    return Watch(losses, torch.stack([mean, std]) if calmer else seen.calm), False, calmer


def changes(losses: Float[Tensor, " N"], window: int, k: float) -> list[int]:
    """The places in a series of losses at which `watch` sees a change: the number of the batch, from 0."""
    seen, found = begin(window, losses), []
    for i, loss in enumerate(losses):
        seen, changed, _ = watch(seen, loss, k)
        found += [i] if changed else []
    return found
