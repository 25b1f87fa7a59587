"""How far the outputs of a network go when one parameter moves, and which of it the short cut of MAS sees."""

from __future__ import annotations

import math

from .sketch import Element, Panel, Point, arrow, circle, line, lines, network, shape, text, units, wires

W, H = 210, 262
IMAGES: tuple[Point, ...] = ((66, 132), (126, 84), (146, 158))  # the outputs for three images, in the panel's pixels
LARGE: tuple[Point, ...] = ((34, -30), (-42, 16), (26, -36))  # what moving weight i does to them
LITTLE: tuple[Point, ...] = ((-9, -12), (12, -6), (12, 7))  # and the same move of weight j
ORIGIN, LENGTH = (34.0, 196.0), 112.0


def mas_sensitivity() -> list[Panel]:
    return [nudge(), moves(), short_cut()]


def heading(words: str) -> Element:
    return text((W / 2, 16), words, size=15, bold=True)


def nudge() -> Panel:
    at = network((30, 50), 150, 130, (2, 3, 2), 9)
    a, b, c, d = at[0][0], at[1][1], at[1][2], at[2][1]
    return Panel(
        "Move one weight",
        "A small network with two outputs; two of its weights, i and j, are marked.",
        (W, H),
        [
            heading("Move one weight"),
            *wires(at, stroke="muted", pen=0.8),
            line(a, b, stroke="MAS", pen=3),
            line(c, d, stroke="ink", pen=3, dash="5 3"),
            *units(at, 9),
            text(((a[0] + b[0]) / 2 + 4, (a[1] + b[1]) / 2 - 12), "*i*", size=15, colour="MAS", bold=True),
            text(((c[0] + d[0]) / 2 + 4, (c[1] + d[1]) / 2 + 20), "*j*", size=15, bold=True),
            text((at[2][0][0] + 14, at[2][0][1] + 5), "*f*_1", anchor="start", size=14),
            text((at[2][1][0] + 14, at[2][1][1] + 5), "*f*_2", anchor="start", size=14),
            *lines((W / 2, 222), "First weight *i* by a small *δ*,", "then weight *j* by as much."),
        ],
    )


def axes(x: str, y: str) -> list[Element]:
    return [
        *arrow(ORIGIN, (196, ORIGIN[1]), colour="muted", pen=1),
        *arrow(ORIGIN, (ORIGIN[0], 40), colour="muted", pen=1),
        text((190, ORIGIN[1] - 12), x, size=14),
        text((ORIGIN[0] - 16, 52), y, size=14),
    ]


def moves() -> Panel:
    arrows: list[Element] = []
    for at, large, little in zip(IMAGES, LARGE, LITTLE, strict=True):
        arrows += arrow(at, (at[0] + large[0], at[1] + large[1]), colour="MAS", pen=2)
        arrows += arrow(at, (at[0] + little[0], at[1] + little[1]), pen=2)
        arrows.append(circle(at, 4, fill="ink"))
    return Panel(
        "How far do the outputs go?",
        "The plane of the two outputs with dots for three images. From each dot a long arrow shows where weight i moves it, "
        "each in another direction, and a short arrow where weight j does.",
        (W, H),
        [
            heading("How far do they go?"),
            *axes("*f*_1", "*f*_2"),
            *arrows,
            *lines((W / 2, 222), "Weight *i* moves them far:", "it gets a stiff spring.", colour="MAS"),
            text((W / 2, 256), "Weight *j* hardly: a soft one."),
        ],
    )


def short_cut() -> Panel:
    angle = math.radians(42)
    x, y = ORIGIN
    f = (x + LENGTH * math.cos(angle), y - LENGTH * math.sin(angle))
    radial = (f[0] + 34 * math.cos(angle), f[1] - 34 * math.sin(angle))
    tangent = (f[0] - 38 * math.sin(angle), f[1] - 38 * math.cos(angle))
    arc = f"M{x + LENGTH:.1f} {y:.1f} A{LENGTH:g} {LENGTH:g} 0 0 0 {x:.1f} {y - LENGTH:.1f}"
    return Panel(
        "The short cut",
        "The output as an arrow from the origin to a circle. One small arrow points outwards, making the output longer, and is "
        "seen by the short cut; another points along the circle, turning the output, and is not seen.",
        (W, H),
        [
            heading("The short cut"),
            *axes("*f*_1", "*f*_2"),
            shape("path", d=arc, stroke="muted", dash="4 3", pen=1),
            *arrow(ORIGIN, f, pen=2),
            text((x + 62, y - 34), "*f*", size=15, anchor="start"),
            *arrow(f, radial, colour="MAS", pen=2),
            *lines((radial[0] + 8, radial[1] - 2), "longer:", "seen", anchor="start", colour="MAS"),
            *arrow(f, tangent, pen=2),
            *lines((tangent[0] - 6, tangent[1] - 28), "turned:", "not seen"),
            *lines((W / 2, 222), "‖*f*‖^2 changes with the length", "of the output alone."),
        ],
    )
