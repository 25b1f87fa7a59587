"""The projections of A-GEM and of GEM: the nearest direction that goes against no old gradient."""

from __future__ import annotations

from math import copysign

import torch

from clbook.methods.gem import project, project_all

from .sketch import Element, Panel, Point, arrow, line, lines, path, text, window

W, H = 320, 254
CENTRE, UNIT = (150.0, 150.0), 92.0  # pixels
G_REF, NEW_1 = (-0.75, 0.85), (1.25, 0.15)
G_1, G_2, NEW_2 = (-0.85, 0.75), (0.15, 0.95), (1.35, -0.35)


def at(v: Point) -> Point:
    """The point of the panel at which a vector from the centre ends."""
    return CENTRE[0] + UNIT * v[0], CENTRE[1] - UNIT * v[1]


def gem_cone() -> list[Panel]:
    return [half_space(), cone()]


def vector(v: Point, words: str, colour: str, shift: Point, anchor: str = "middle") -> list[Element]:
    x, y = at(v)
    return [
        *arrow(CENTRE, (x, y), colour=colour, pen=2.2),
        text((x + shift[0], y + shift[1]), words, colour=colour, size=15, anchor=anchor),
    ]


def allowed(colour: str, *gradients: Point) -> Element:
    """The region of all z with z . g >= 0 for one or two gradients g, as far as the panel shows it."""
    far, edges = 9.0, []
    for g, other in zip(gradients, gradients[::-1], strict=True):
        edge = (-g[1], g[0])  # at a right angle to g, on the side of the other gradient if there is one
        side = copysign(far, edge[0] * other[0] + edge[1] * other[1])
        edges.append((side * edge[0], side * edge[1]))
    if len(edges) == 1:
        edges.append((-edges[0][0], -edges[0][1]))
    inside = (far * sum(g[0] for g in gradients), far * sum(g[1] for g in gradients))
    region = path([CENTRE, at(edges[0]), at(inside), at(edges[1])], closed=True, stroke="none", fill=colour, opacity=0.14)
    return window((20, 30), W - 40, 180, [region, *(line(CENTRE, at(edge), stroke=colour) for edge in edges)])


def half_space() -> Panel:
    z = tuple(project(torch.tensor(NEW_1), torch.tensor(G_REF)).tolist())
    return Panel(
        "A-GEM: a half-space",
        "The old gradient points to the upper left; the half-plane on its side of a line through the centre is shaded. The new "
        "gradient lies outside of it; a dashed line leads from its end at a right angle to the line, where z ends.",
        (W, H),
        [
            text((W / 2, 16), "A-GEM: one condition", size=15, bold=True),
            allowed("A-GEM", G_REF),
            *vector(G_REF, "*g*_{ref}", "task A", (-2, -8)),
            *vector(NEW_1, "*g*", "task C", (12, 6)),
            line(at(NEW_1), at(z), stroke="ink", dash="4 3", pen=1.2),
            *vector(z, "*z*", "A-GEM", (-2, -10)),
            *lines((W / 2, 230), "Shaded: no first-order harm", "to the old samples as a whole."),
        ],
    )


def cone() -> Panel:
    z = tuple(project_all(torch.tensor(NEW_2), torch.tensor([G_1, G_2])).tolist())
    return Panel(
        "GEM: a cone",
        "Two old gradients and the shaded cone of vectors that make an acute angle with both. The new gradient lies outside; a "
        "dashed line leads from its end to the nearest point of the cone, where z ends.",
        (W, H),
        [
            text((W / 2, 16), "GEM: a condition for each task", size=15, bold=True),
            allowed("GEM", G_1, G_2),
            *vector(G_1, "*g*_1", "task A", (-2, -8)),
            *vector(G_2, "*g*_2", "task B", (-2, -8)),
            *vector(NEW_2, "*g*", "task C", (12, 6)),
            line(at(NEW_2), at(z), stroke="ink", dash="4 3", pen=1.2),
            *vector(z, "*z*", "GEM", (4, -10)),
            *lines((W / 2, 230), "Shaded: no first-order harm", "to any one of the old tasks."),
        ],
    )
