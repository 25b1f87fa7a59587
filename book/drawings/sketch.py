"""The strokes of the drawings: shapes in, SVG elements out, in one style.

A drawing is a row of panels. Each panel is an SVG of its own, at most as wide as a phone, with letters of 12 pixels or more
there: on a wide page the panels stand side by side, on a narrow one they go to the next row, and no letter shrinks. Lines
and letters have the colour of the page's text and methods, tasks and scenarios that of `clbook.plots`, made darker or
lighter until it can be read on the page, light or dark; so the drawings need no white card. Lengths are in pixels, x to the
right, y downwards.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from clbook.plots import COLOURS

PHONE = 350  # the widest panel: what a page of 390 pixels leaves
SMALLEST = 12  # the smallest letter
GAP = 12  # between panels
BACKGROUND = {"light": "#ffffff", "dark": "#121212"}  # of the theme's pages
CONTRAST = 4.5  # what letters need on it
# the colours of the page itself, with what they are where there is no page
PAGE = {
    "ink": "currentColor",
    "muted": "var(--pst-color-text-muted, #48566b)",
    "paper": "var(--pst-color-background, #ffffff)",
    "none": "none",
}

Point = tuple[float, float]
Element = ET.Element


@dataclass(frozen=True)
class Panel:
    """One SVG: its title, one sentence on what is seen, its size in pixels and its elements, the last on top."""

    title: str
    desc: str
    size: tuple[int, int]
    elements: Sequence[Element]

    def svg(self) -> Element:
        width, height = self.size
        root = ET.Element("svg", {
            "xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width} {height}",
            "style": f"flex: 1 1 {width}px; max-width: {min(1.3 * width, PHONE):g}px",
        })  # fmt: skip
        if 2 * width + GAP <= PHONE:
            root.set("class", "half")  # two fit side by side on a phone, and the last one should not outgrow them
        ET.SubElement(root, "title").text = self.title
        ET.SubElement(root, "desc").text = self.desc
        root.extend(self.elements)
        return root


# Colours ---------------------------------------------------------------------------------------------------------------


def paint(name: str) -> str:
    """The CSS value of a colour of the page or of `clbook.plots.COLOURS`, by its name in capitals or not."""
    colours = {known.lower(): colour for known, colour in COLOURS.items()}
    if name not in PAGE and name.lower() not in colours:
        raise ValueError(f"colour={name!r} is unknown. Known are {', '.join([*PAGE, *COLOURS])}.")
    return PAGE.get(name) or f"var({variable(name)}, {readable(colours[name.lower()], BACKGROUND['light'])})"


def variable(name: str) -> str:
    return "--drawn-" + re.sub(r"\W", "-", name).lower()


def style_sheet() -> str:
    """The colours of both kinds of page as CSS variables, those of paper, and how panels stand side by side."""
    light, dark = (
        "".join(f"  {variable(name)}: {readable(colour, background)};\n" for name, colour in COLOURS.items())
        for background in BACKGROUND.values()
    )
    # a dark page can be printed with its background or without: on paper a drawing stands on white
    paper = f".bd-article .drawing {{\n{light}{PAPER}}}\n"
    return f"html {{\n{light}}}\nhtml[data-theme=dark] {{\n{dark}}}\n{LAYOUT}@media print {{\n{paper}}}\n"


PAPER = """\
  --pst-color-background: #ffffff;
  --pst-color-text-base: #222832;
  --pst-color-text-muted: #48566b;
  background: #ffffff;
  color: #222832;
"""

LAYOUT = """\
.bd-article .drawing {
  color: var(--pst-color-text-base);
  display: flex;
  flex-wrap: wrap;
  gap: 12px;
  justify-content: center;
  margin: 0 auto;
  max-width: 7in;
}
.bd-article .drawing > svg {
  height: auto;
  min-width: 0;
}
@media (max-width: 600px) {
  .bd-article .drawing > svg.half {
    max-width: calc(50% - 6px) !important;
  }
}
.bd-article figure:has(> .drawing),
.bd-article figure.from-notebook {
  break-inside: avoid;
  width: 100%;
}
.bd-article figure.from-notebook img {
  max-width: min(100%, 7in);
}
"""


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, from 0 (black) to 1 (white), as the accessibility guidelines (WCAG 2) define it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """Contrast of two colours #rrggbb, from 1 (none) to 21 (black on white)."""
    darker, lighter = sorted((luminance(a), luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)


def readable(colour: str, background: str) -> str:
    """The colour, moved towards black on a light background and towards white on a dark one until letters can be read."""
    end = 0 if luminance(background) > 0.5 else 255
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    for step in range(101):
        mixed = "#" + "".join(f"{round(c + (end - c) * step / 100):02x}" for c in channels)
        if contrast(mixed, background) >= CONTRAST:
            return mixed
    raise ValueError(f"background={background!r} has no readable colour. Use a light or a dark one.")


# Shapes ----------------------------------------------------------------------------------------------------------------


def shape(
    tag: str, *, stroke: str = "ink", fill: str = "none", pen: float = 1.5, opacity: float = 1, dash: str = "", **place: Any
) -> Element:
    """An element in the style of the book: `pen` is the width of the line, `opacity` that of the filling."""
    style = f"stroke:{paint(stroke)};stroke-width:{pen:g};fill:{paint(fill)};fill-opacity:{opacity:g};stroke-linejoin:round"
    if dash:
        style += f";stroke-dasharray:{dash}"
    numbers = {key: value if isinstance(value, str) else f"{value:.1f}" for key, value in place.items()}
    return ET.Element(tag, {**numbers, "style": style})


def line(a: Point, b: Point, **style: Any) -> Element:
    return shape("line", x1=a[0], y1=a[1], x2=b[0], y2=b[1], **style)


def path(points: Sequence[Point], closed: bool = False, **style: Any) -> Element:
    d = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points) + (" Z" if closed else "")
    return shape("path", d=d, **style)


def curve(a: Point, towards: Point, b: Point, **style: Any) -> Element:
    """From a to b, bent towards a third point."""
    return shape("path", d="M{:.1f} {:.1f} Q{:.1f} {:.1f} {:.1f} {:.1f}".format(*a, *towards, *b), **style)


def circle(centre: Point, radius: float, **style: Any) -> Element:
    return shape("circle", cx=centre[0], cy=centre[1], r=radius, **style)


def box(corner: Point, width: float, height: float, **style: Any) -> Element:
    return shape("rect", x=corner[0], y=corner[1], width=width, height=height, rx=4, **style)


def tip(at: Point, after: Point, colour: str, size: float = 8) -> Element:
    """The head of an arrow that arrives `at` a point, coming from `after`."""
    dx, dy = at[0] - after[0], at[1] - after[1]
    length = math.hypot(dx, dy)
    ux, uy = dx / length, dy / length
    back = (at[0] - size * ux, at[1] - size * uy)
    sides = [(back[0] - s * size * uy / 2, back[1] + s * size * ux / 2) for s in (1, -1)]
    return path([at, *sides], closed=True, stroke=colour, fill=colour, pen=0.5)


def arrow(a: Point, b: Point, *, colour: str = "ink", bend: Point | None = None, **style: Any) -> list[Element]:
    """An arrow from a to b, bent towards a third point if there is one."""
    start = bend or a
    length = math.dist(start, b)
    stop = (b[0] + 5 * (start[0] - b[0]) / length, b[1] + 5 * (start[1] - b[1]) / length)  # the line ends inside the head
    shaft = curve(a, bend, stop, stroke=colour, **style) if bend else line(a, stop, stroke=colour, **style)
    return [shaft, tip(b, start, colour)]


def spring(a: Point, b: Point, *, coils: int = 6, swing: float = 6, **style: Any) -> Element:
    """A coil spring from a to b, with straight ends."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = math.hypot(dx, dy)
    nx, ny = -dy / length, dx / length
    points = [a]
    for i in range(2 * coils + 1):
        t = 0.12 + 0.76 * i / (2 * coils)
        side = 0 if i in (0, 2 * coils) else swing * (-1) ** i
        points.append((a[0] + t * dx + side * nx, a[1] + t * dy + side * ny))
    return path([*points, b], **style)


def window(corner: Point, width: float, height: float, elements: Sequence[Element]) -> Element:
    """What is seen of some elements inside a rectangle."""
    x, y = corner
    place = {"x": f"{x:g}", "y": f"{y:g}", "width": f"{width:g}", "height": f"{height:g}", "overflow": "hidden"}
    inner = ET.Element("svg", {**place, "viewBox": f"{x:g} {y:g} {width:g} {height:g}"})
    inner.extend(elements)
    return inner


def network(corner: Point, width: float, height: float, layers: Sequence[int], radius: float = 5) -> list[list[Point]]:
    """Where the units of a network stand, layer by layer from left to right."""
    columns = []
    for k, units in enumerate(layers):
        x = corner[0] + radius + k * (width - 2 * radius) / (len(layers) - 1)
        gap = (height - 2 * radius) / (max(layers) - 1)
        top = corner[1] + height / 2 - gap * (units - 1) / 2
        columns.append([(x, top + i * gap) for i in range(units)])
    return columns


def wires(layers: Sequence[Sequence[Point]], **style: Any) -> list[Element]:
    """Every connection between one layer of units and the next."""
    return [line(a, b, **style) for here, there in pairwise(layers) for a in here for b in there]


def units(layers: Sequence[Sequence[Point]], radius: float = 5, **style: Any) -> list[Element]:
    """The units of a network as circles that hide the wires behind them."""
    return [circle(at, radius, **{"fill": "paper", **style}) for layer in layers for at in layer]


def small_network(corner: Point, width: float, height: float, layers: Sequence[int] = (3, 4, 2), **style: Any) -> list[Element]:
    """A network with all its connections, as a sign for "network"."""
    at = network(corner, width, height, layers, 4)
    return [*wires(at, pen=0.8, stroke=style.get("stroke", "muted")), *units(at, 4, **style)]


def images(corner: Point, colour: str, count: int = 3, side: float = 26, step: float = 5) -> list[Element]:
    """A stack of pictures, the last one in front, its lower left corner the furthest to the left."""
    x, y = corner
    places = [(x + step * (count - 1 - i), y + step * i) for i in range(count)]
    return [
        part
        for at in places
        for part in (
            box(at, side, side, fill="paper", stroke=colour),
            box(at, side, side, fill=colour, stroke=colour, opacity=0.2),
        )
    ]


# Letters ---------------------------------------------------------------------------------------------------------------

# *x* is a symbol, as in a formula; _s or _{old} a lower index, ^2 or ^{old} an upper one
MARK = re.compile(r"\*(?P<symbol>[^*]+)\*|_(?:\{(?P<low>[^}]+)\}|(?P<low1>\w))|\^(?:\{(?P<high>[^}]+)\}|(?P<high1>[\w*]))")


def pieces(words: str) -> Iterator[tuple[str, str]]:
    """The parts of a text, each with its kind: "plain", "symbol", "low" or "high"."""
    end = 0
    for match in MARK.finditer(words):
        if match.start() > end:
            yield "plain", words[end : match.start()]
        kind = str(match.lastgroup).rstrip("1")
        yield kind, str(match[str(match.lastgroup)])
        end = match.end()
    if end < len(words):
        yield "plain", words[end:]


def text(
    at: Point, words: str, *, anchor: str = "middle", size: float = 13, colour: str = "ink", bold: bool = False
) -> Element:
    """One line of words on the baseline `at`, with symbols and indices; `anchor` is start, middle or end."""
    weight = ";font-weight:600" if bold else ""
    element = ET.Element("text", {
        "x": f"{at[0]:.1f}", "y": f"{at[1]:.1f}", "text-anchor": anchor, "font-size": f"{size:g}",
        "style": f"fill:{paint(colour)}{weight}",
    })  # fmt: skip
    raised = 0.0
    for kind, piece in pieces(words):
        shift = {"low": 0.25 * size, "high": -0.35 * size}.get(kind, 0.0)
        span = ET.SubElement(element, "tspan")
        span.text = piece
        if shift != raised:
            span.set("dy", f"{shift - raised:.1f}")
        raised = shift
        if shift:
            span.set("font-size", f"{max(0.75 * size, 9):g}")
        if kind == "symbol":
            span.set("style", "font-family:serif;font-style:italic")
    return element


def lines(at: Point, *rows: str, leading: float = 16, **style: Any) -> list[Element]:
    """Several lines of words, the first on the baseline `at`."""
    return [text((at[0], at[1] + i * leading), row, **style) for i, row in enumerate(rows)]
