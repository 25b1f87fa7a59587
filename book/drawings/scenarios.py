"""The three scenarios side by side: what the network is told, and which answers compete."""

from __future__ import annotations

from .sketch import Element, Panel, Point, arrow, box, circle, lines, path, text

PARTS = {"blade": "task A", "bracket": "task B", "bolt": "task C"}
W, H = 210, 286
QUESTIONS = {
    "task-incremental": ("“This is a blade.", "Which defect does it have?”"),
    "domain-incremental": ("“Good or defective?”", "(the part is not told)"),
    "class-incremental": ("“Which part is it,", "and which defect?”"),
}


def scenarios() -> list[Panel]:
    return [task(), domain(), class_()]


def asked(scenario: str) -> list[Element]:
    """What all three have: the heading, the picture of a blade, the network and the question."""
    return [
        text((W / 2, 16), scenario.capitalize(), colour=scenario, bold=True, size=15),
        *lines((W / 2, 40), *QUESTIONS[scenario]),
        *blade((W / 2, 102)),
        *arrow((W / 2, 130), (W / 2, 150)),
        box((45, 152), 120, 30, stroke="ink"),
        text((W / 2, 172), "network"),
    ]  # fmt: skip


def blade(at: Point) -> list[Element]:
    """A picture of a turbine blade with a nick in its edge."""
    x, y = at
    leaf = [(-7, 12), (-13, -8), (-9, -21), (5, -19), (11, -8), (5, -3), (9, 1), (8, 12)]
    root = [(-12, 12), (13, 12), (10, 21), (-9, 21)]
    return [
        box((x - 28, y - 28), 56, 56, stroke="muted"),
        *(
            path([(x + a, y + b) for a, b in outline], closed=True, stroke="task A", fill="task A", opacity=0.15)
            for outline in (leaf, root)
        ),
    ]


def outputs(y: float, names: list[str], colours: list[str], on: list[bool]) -> list[Element]:
    """A row of output units under the network, those that compete filled and joined to it."""
    elements: list[Element] = []
    gap = 30
    for i, (name, colour, active) in enumerate(zip(names, colours, on, strict=True)):
        x = W / 2 + gap * (i - (len(names) - 1) / 2)
        seen = colour if active else "muted"
        elements += arrow((W / 2 + (x - W / 2) * 0.6, 184), (x, y - 10), colour=seen, pen=1.2)[: 1 + active]
        elements.append(circle((x, y), 8, stroke=seen, fill=seen if active else "none", dash="" if active else "3 2"))
        if name:
            elements.append(text((x, y + 26), name))
    return elements


def parts(y: float, on: list[bool]) -> list[Element]:
    """Two outputs a part, with the parts' names below."""
    colours = [colour for colour in PARTS.values() for _ in range(2)]
    elements = outputs(y, [""] * 6, colours, [active for active in on for _ in range(2)])
    for i, (part, colour) in enumerate(PARTS.items()):
        elements.append(text((W / 2 + 60 * (i - 1), y + 26), part, colour=colour if on[i] else "muted"))
    return elements


def task() -> Panel:
    return Panel(
        "Task-incremental",
        "The network is told that the part is a blade; only the two outputs of the blade compete.",
        (W, H),
        [*asked("task-incremental"), *parts(224, [True, False, False]), text((W / 2, 278), "2 of 6 answers compete", size=12)],
    )


def domain() -> Panel:
    elements: list[Element] = []
    for x, name in ((70, "good"), (140, "defective")):
        elements += arrow((W / 2 + (x - W / 2) * 0.6, 184), (x, 214), pen=1.2)
        elements += [circle((x, 224), 8, fill="ink"), text((x, 250), name)]
    return Panel(
        "Domain-incremental",
        "Nothing is told; the same two outputs, good and defective, serve every part.",
        (W, H),
        [*asked("domain-incremental"), *elements, text((W / 2, 278), "the same 2 for every part", size=12)],
    )


def class_() -> Panel:
    return Panel(
        "Class-incremental",
        "Nothing is told; all six outputs, two for each of three parts, compete.",
        (W, H),
        [*asked("class-incremental"), *parts(224, [True, True, True]), text((W / 2, 278), "all 6 answers compete", size=12)],
    )
