"""Springs on the weights of a network, as stiff as task A needs them."""

from __future__ import annotations

from .sketch import Element, Panel, circle, line, lines, network, spring, text, units, wires

W, H = 320, 250
STIFFNESS = (8.0, 1.0, 0.0)  # of the three weights that are marked, beside a task B whose loss has the curvature 1
OLD, NEW = 120.0, 290.0  # where task A left a weight, and where task B alone would put it


def rest(stiffness: float) -> float:
    """Where a weight comes to rest: the minimum of stiffness (theta - OLD)^2 / 2 + (theta - NEW)^2 / 2."""
    return (stiffness * OLD + NEW) / (stiffness + 1)


def springs() -> list[Panel]:
    return [weights(), pulls()]


def number(x: float, y: float, i: int) -> list[Element]:
    return [circle((x, y), 10, fill="paper", stroke="EWC"), text((x, y + 4.5), str(i + 1), size=12, bold=True)]


def weights() -> Panel:
    at = network((30, 42), 260, 152, (3, 4, 2), 9)
    marked = [(at[0][0], at[1][0], 0.5, 6.0), (at[0][1], at[1][2], 0.35, 2.5), (at[1][3], at[2][1], 0.5, 1.0)]
    thick = [line(a, b, stroke="EWC", pen=pen) for a, b, _, pen in marked]
    labels = [
        part for i, (a, b, t, _) in enumerate(marked) for part in number(a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]), i)
    ]
    return Panel(
        "What task A needs",
        "A network; three of its connections are marked, the first wide, the second narrower, the third thin.",
        (W, H),
        [
            text((W / 2, 18), "What task A needs", size=15, bold=True),
            *wires(at, stroke="muted", pen=0.6),
            *thick,
            *units(at, 9),
            *labels,
            *lines((W / 2, 222), "The wider a connection, the larger", "its Fisher information *F*_i for task A."),
        ],
    )


def pulls() -> Panel:
    rows: list[Element] = []
    words = ("stiff spring: it stays", "soft spring: it gives way", "no spring: it is free")
    for i, (stiffness, label) in enumerate(zip(STIFFNESS, words, strict=True)):
        y = 68 + 58 * i
        x = rest(stiffness)
        rows += number(20, y, i)
        if stiffness:
            rows += [
                line((44, y - 14), (44, y + 14), pen=3),
                spring((44, y), (x - 9, y), coils=8, swing=8, stroke="EWC", pen=3 if stiffness > 2 else 1.2),
            ]
        rows += [circle((x, y), 9, fill="paper"), text(((OLD + NEW) / 2, y + (30 if stiffness else 5)), label)]
    return Panel(
        "What task B moves",
        "Three weights on parallel lines. Task B pulls all three to the right. The first is held by a strong spring and hardly "
        "moves, the second by a weak one and goes half of the way, the third has no spring and goes all the way.",
        (W, H),
        [
            text((W / 2, 18), "What task B moves", size=15, bold=True),
            line((OLD, 48), (OLD, 206), stroke="task A", dash="4 3"),
            line((NEW, 48), (NEW, 206), stroke="task B", dash="4 3"),
            *rows,
            *lines((OLD, 226), "as task A", "left it", colour="task A"),
            *lines((NEW - 22, 226), "as task B", "wants it", colour="task B"),
        ],
    )
