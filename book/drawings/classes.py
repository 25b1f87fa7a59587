"""Why classes that arrived one after the other cannot be told apart: which were compared, and what is done to the outputs."""

from __future__ import annotations

from .sketch import Element, Panel, arrow, box, line, text

TASK = {1: "task A", 2: "task A", 3: "task B", 4: "task B"}  # of each class
W, H = 320, 256
STEP = 104  # pixels for a change of an output by one


def classes_that_never_met() -> list[Panel]:
    return [compared(), pushed()]


def compared() -> Panel:
    """A cell for each pair of classes: in the colour of the task that compared them, or with a question mark."""
    side, left, top = 40, 122, 58
    elements: list[Element] = [
        text((W / 2, 18), "What was compared", size=15, bold=True),
        text((left + 2 * side, 44), "with class"),
        text((16, top + 2 * side + 4), "images", anchor="start"),
        text((16, top + 2 * side + 20), "of class", anchor="start"),
    ]
    for row, mine in enumerate(TASK):
        y = top + side * row
        elements.append(text((left - 12, y + 25), str(mine), anchor="end", colour=TASK[mine]))
        for column, other in enumerate(TASK):
            x = left + side * column
            if mine == other:
                continue
            corner, middle, together = (x + 2, y + 2), (x + side / 2, y + 25), TASK[mine] == TASK[other]
            if together:
                elements.append(box(corner, side - 4, side - 4, stroke=TASK[mine], fill=TASK[mine], opacity=0.35))
                elements.append(text(middle, str(other), colour=TASK[mine]))
            else:
                elements.append(box(corner, side - 4, side - 4, stroke="muted", dash="3 3"))
                elements.append(text(middle, "?", colour="muted"))
    elements.append(text((W / 2, H - 12), "?  never, in either task", colour="muted"))
    return Panel(
        "What was compared",
        "Four rows and four columns, one for each class. The pair of classes 1 and 2 is filled in the colour of task A, that "
        "of classes 3 and 4 in the colour of task B. Eight cells join a class of A with one of B and hold a question mark.",
        (W, H),
        elements,
    )


def push(label: int) -> dict[int, float]:
    """Where a step on a sample with this label pushes each output, when all four are alike: [c = y] - p_c."""
    return {c: (c == label) - 1 / len(TASK) for c in TASK}


def pushed() -> Panel:
    """The pushes of two samples of task B, one with each label, as arrows from where the outputs stood."""
    base = 140
    elements: list[Element] = [
        text((W / 2, 18), "What task B does to the outputs", size=15, bold=True),
        line((24, base), (W - 24, base), stroke="muted", pen=1),
    ]
    for place, c in enumerate(TASK):
        x, y = 64 + 64 * place, float(base)
        for step, label in enumerate((3, 4)):
            end = y - STEP * push(label)[c]
            shift = 8 * (step - 0.5)
            elements += arrow((x + shift, y), (x + shift, end), colour=TASK[c], pen=2)
            y = end
        elements.append(text((x, base + 76), f"*z*_{c}", size=14, colour=TASK[c]))
    elements.append(text((96, H - 12), "only down", colour="task A"))
    elements.append(text((224, H - 12), "up, and down a little", colour="task B"))
    return Panel(
        "What task B does to the outputs",
        "Four outputs on a line. Two arrows lead down from each of the outputs 1 and 2. At the outputs 3 and 4 one arrow leads "
        "far up and one a little down.",
        (W, H),
        elements,
    )
