"""What the pages on single families show: SI's path, averages of networks, slow memories, shared units, and sums."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from .sketch import Element, Panel, Point, arrow, box, circle, line, network, path, text

A, B, C = "task A", "task B", "task C"


# Synaptic intelligence ---------------------------------------------------------------------------------------------------


def si_path() -> list[Panel]:
    steps = [(134, 44), (150, 86), (172, 78), (188, 118), (214, 112), (234, 146), (262, 136), (284, 158), (308, 156)]
    start, end = steps[0], steps[-1]
    ground, left = 200, 104
    elements = [
        *arrow((left - 16, ground), (344, ground), colour="muted"), text((338, ground + 34), "*θ*_1", colour="muted"),
        *arrow((left, ground + 16), (left, 12), colour="muted"), text((left - 18, 22), "*θ*_2", colour="muted"),
        path(steps, stroke="SI", pen=2.5), *(circle(p, 3, stroke="SI", fill="SI") for p in steps[1:-1]),
        circle(start, 6, fill="paper"), text((start[0] + 12, start[1] - 8), "start *θ**", anchor="start"),
        circle(end, 6, fill="ink"), text((end[0] + 4, end[1] - 14), "end"),
        *measure((start[0], ground + 14), (end[0], ground + 14)), text((221, ground + 36), "Δ_1, share *w*_1", size=14),
        *measure((left - 14, start[1]), (left - 14, end[1])),
        text((left - 24, 96), "Δ_2,", anchor="end", size=14), text((left - 24, 114), "share *w*_2", anchor="end", size=14),
    ]  # fmt: skip
    elements += [line((p[0], p[1]), (p[0], ground), stroke="muted", pen=1, dash="2 4") for p in (start, end)]
    elements += [line((p[0], p[1]), (left, p[1]), stroke="muted", pen=1, dash="2 4") for p in (start, end)]
    return [Panel("The path of training", "A path of steps, with how far each parameter went.", (350, 248), elements)]


def measure(a: Point, b: Point) -> list[Element]:
    """A double arrow from a to b."""
    middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
    return [*arrow(middle, a, pen=1), *arrow(middle, b, pen=1)]


# Averages ----------------------------------------------------------------------------------------------------------------


def averages() -> list[Panel]:
    wide = [lambda x, m=m: 0.9 * (x - m) ** 2 for m in (0.36, 0.5, 0.64)]
    far = [lambda x, m=m: 0.17 * (1 - math.exp(-(((x - m) / 0.13) ** 2))) for m in (0.22, 0.78)]
    return [
        valleys("Valleys that meet", wide, (0.36, 0.5, 0.64), (A, B, C)),
        valleys("Valleys far apart", far, (0.22, 0.78), (A, B)),
    ]


def valleys(title: str, losses: list[Callable[[float], float]], at: tuple[float, ...], colours: tuple[str, ...]) -> Panel:
    width, ground, high = 240, 168, 620
    place: Callable[[float, float], Point] = lambda x, y: (20 + 200 * x, ground - 16 - high * y)  # noqa: E731
    xs = [i / 80 for i in range(81)]
    elements = [text((width / 2, 18), title, bold=True), *arrow((10, ground), (234, ground), colour="muted")]
    elements += [text((228, ground + 18), "*θ*", colour="muted"), text((8, 38), "loss", anchor="start", colour="muted")]
    for loss, m, colour in zip(losses, at, colours, strict=True):
        elements.append(path([place(x, loss(x)) for x in xs if loss(x) < 0.175], stroke=colour, pen=2.2))
        elements.append(circle(place(m, loss(m)), 5, stroke=colour, fill=colour))
    mean = sum(at) / len(at)
    top = max(loss(mean) for loss in losses)
    x, y = place(mean, top)
    elements += [line((x, ground), (x, y), stroke="ink", pen=1, dash="3 3"), circle((x, y), 6, fill="paper", pen=2)]
    elements.append(text((x, ground + 18), "mean"))
    desc = "The losses of the tasks, the networks at their lowest points, and the mean of the networks."
    return Panel(title, desc, (width, 196), elements)


# Memories ----------------------------------------------------------------------------------------------------------------


def memories() -> list[Panel]:
    draw, steps = random.Random(4), 120
    level, learner, fast, slow = 0.0, [], [], []
    for t in range(steps):
        level += 0.22 * ((0.85 if t < steps / 2 else 0.2) - level)
        now = level + draw.gauss(0, 0.08)
        learner.append(now)
        for memory, a in ((fast, 0.75), (slow, 0.965)):
            a = min(a, 1 - 1 / (t + 1))
            memory.append(a * memory[-1] + (1 - a) * now if memory else now)
    place: Callable[[int, float], Point] = lambda t, v: (16 + 316 * t / (steps - 1), 186 - 150 * v)  # noqa: E731
    half = place(steps // 2, 0)[0]
    elements = [
        *arrow((8, 204), (342, 204), colour="muted"), text((300, 222), "steps", colour="muted"),
        line((half, 22), (half, 204), stroke="muted", dash="4 4"),
        text(((16 + half) / 2, 16), "task A", colour=A, bold=True), text(((half + 332) / 2, 16), "task B", colour=B, bold=True),
        path([place(t, v) for t, v in enumerate(learner)], stroke="muted", pen=1.1),
        path([place(t, v) for t, v in enumerate(fast)], stroke="fast and slow weights", pen=2),
        path([place(t, v) for t, v in enumerate(slow)], stroke="CLS-ER", pen=3),
        text((half + 56, 58), "slow average", anchor="start", colour="CLS-ER"),
        text((half + 84, 178), "fast average", anchor="start", colour="fast and slow weights"),
        text((half + 20, 194), "learner", anchor="start", colour="muted"),
    ]  # fmt: skip
    desc = "The learner's value over the steps of two tasks, and two running averages of it."
    return [Panel("Fast and slow averages", desc, (348, 230), elements)]


# Few neurons -------------------------------------------------------------------------------------------------------------

UNITS = {A: {0, 1, 3}, B: {3, 4, 5}}


def neurons() -> list[Panel]:
    return [units_of(A, "Units of task A", ()), units_of(B, "Units of task B", (3,)), owners()]


def units_of(task: str, title: str, shared: tuple[int, ...]) -> Panel:
    inputs, hidden, outputs = network((22, 34), 140, 150, (3, 6, 2), 7)
    on = UNITS[task]
    elements = [text((92, 16), title, bold=True, colour=task)]
    for i, h in enumerate(hidden):
        if i in on:
            elements += [line(p, h, stroke=task, pen=1.1) for p in inputs] + [line(h, o, stroke=task, pen=1.1) for o in outputs]
    for i, h in enumerate(hidden):
        used = i in on
        style = {"stroke": task, "fill": task} if used else {"stroke": "muted", "fill": "paper", "dash": "2 2"}
        elements.append(circle(h, 7, **style))
        if i in shared:
            elements.append(circle(h, 10, stroke=A, pen=2))
    elements += [circle(p, 7, fill="paper") for p in (*inputs, *outputs)]
    return Panel(title, "A network in which only some hidden units are switched on.", (184, 196), elements)


def owners() -> Panel:
    inputs, hidden, outputs = network((22, 34), 140, 150, (3, 6, 2), 7)
    pairs = [(p, h) for p in inputs for h in hidden] + [(h, o) for h in hidden for o in outputs]
    draw = random.Random(2)
    whose = [draw.choice((A, B, "")) for _ in pairs]
    elements = [text((92, 16), "PackNet's weights", bold=True)]
    elements += [line(p, q, stroke="muted", pen=1, dash="1 4") for (p, q), w in zip(pairs, whose, strict=True) if not w]
    elements += [line(p, q, stroke=w, pen=1.6) for (p, q), w in zip(pairs, whose, strict=True) if w]
    elements += [circle(p, 7, fill="paper") for p in (*inputs, *hidden, *outputs)]
    desc = "A network whose connections belong to task A, to task B or to nobody yet."
    return Panel("PackNet's weights", desc, (184, 196), elements)


# Sums --------------------------------------------------------------------------------------------------------------------


def sums() -> list[Panel]:
    elements: list[Element] = []
    for y, task, then in ((36, A, ""), (124, B, "then ")):
        for k in (2, 1, 0):
            elements.append(box((12 + 5 * k, y + 5 * k), 46, 40, stroke=task, fill="paper"))
        elements.append(text((35, y + 24), task[-1], colour=task, bold=True, size=15))
        elements.append(text((42, y - 8), f"{then}{task}", colour=task))
        elements += arrow((72, y + 24), (96, 84 + 0.22 * (y - 60)), colour=task)
    elements += [
        box((98, 68), 78, 52, stroke="ink"), text((137, 90), "features"), text((137, 108), "*φ*(*x*), fixed"),
        *arrow((178, 94), (200, 94)),
        box((202, 58), 62, 72, stroke="ink", pen=2.2), text((233, 82), "sums", bold=True), text((233, 101), "*n*, *S*, *G*"),
        text((233, 120), "+ ="),
        *arrow((266, 94), (286, 94)),
        box((288, 70), 56, 48, stroke="ink"), text((316, 90), "*W*", size=15), text((316, 108), "outputs", size=12),
    ]  # fmt: skip
    desc = "Images of two tasks go through fixed features into sums."
    return [Panel("Features, sums, classifier", desc, (350, 186), elements)]
