"""Two tasks with a common solution that gradient descent passes by, and where in the space of images a method holds on."""

from __future__ import annotations

from math import exp

from .sketch import Element, Panel, Point, arrow, box, circle, line, lines, path, text

LAM = 4.0  # stiffness of the spring on the first parameter


def descent(lam: float, rate: float = 0.02, steps: int = 4000) -> list[Point]:
    """Gradient descent on task B, (t1 + t2 - 1)^2 / 2, from (0, 0), with a spring lam t1^2 / 2 on the first parameter."""
    t1, t2, walk = 0.0, 0.0, [(0.0, 0.0)]
    for _ in range(steps):
        slope = t1 + t2 - 1
        t1, t2 = t1 - rate * (slope + lam * t1), t2 - rate * slope
        walk.append((t1, t2))
    return walk


def common_solution() -> list[Panel]:
    unit, origin = 190.0, (74.0, 252.0)

    def at(p: Point) -> Point:
        return origin[0] + unit * p[0], origin[1] - unit * p[1]

    free, held = descent(0.0), descent(LAM)
    end = at(held[-1])
    every = [at(p) for p in [*held[:200:4], *held[200::40]]]
    return [
        Panel(
            "One solution for both tasks",
            "The plane of two parameters. All points of a vertical line solve task A, all points of a falling line task B; "
            "they cross at one point. From the start at the origin gradient descent on B runs along the diagonal to a point "
            "that solves B alone; with a spring on the first parameter it bends back to the crossing.",
            (350, 306),
            [
                *arrow((origin[0] - 20, origin[1]), (336, origin[1]), colour="muted", pen=1),
                *arrow((origin[0], origin[1] + 16), (origin[0], 20), colour="muted", pen=1),
                text((328, origin[1] + 18), "*θ*_1", size=14),
                text((origin[0] - 20, 30), "*θ*_2", size=14),
                line((origin[0], origin[1] + 16), (origin[0], 34), stroke="task A", pen=4),
                line(at((-0.1, 1.1)), at((1.1, -0.1)), stroke="task B", pen=4),
                text((origin[0] - 8, 156), "solves A", anchor="end", colour="task A"),
                text((at((0.86, 0.14))[0] + 6, at((0.86, 0.14))[1] - 12), "solves B", anchor="start", colour="task B"),
                *arrow(at(free[0]), at((0.985 * free[-1][0], 0.985 * free[-1][1])), colour="fine-tuning", pen=2),
                path(every, stroke="EWC", pen=2),
                circle(at((0, 0)), 5, fill="ink"),
                text((origin[0] + 10, origin[1] + 18), "start", anchor="start"),
                circle(at(free[-1]), 5, stroke="fine-tuning", fill="fine-tuning"),
                *lines((at(free[-1])[0] + 12, at(free[-1])[1] - 12), "gradient descent on B", "ends here", anchor="start"),
                circle(end, 7, stroke="EWC", fill="EWC"),
                *lines((end[0] + 18, end[1] - 2), "solves both: the end", "with a spring on *θ*_1", anchor="start"),
            ],
        )
    ]  # fmt: skip


W, H = 320, 250


def where_held() -> list[Panel]:
    return [sketch("Images alike", 0.47, 0.53), sketch("Images unlike", 0.22, 0.78)]


def sketch(title: str, old: float, new: float) -> Panel:
    """The old output over the images: as it was, as EWC leaves it and as LwF leaves it. Made up, not computed."""
    left, right, base, width = 20, 300, 150, 0.21

    def before(x: float) -> float:
        return 92 - 34 * (x - 0.5) + 26 * exp(-(((x - 0.35) / 0.2) ** 2))

    def curve(held: float | None) -> list[Point]:
        points = []
        for k in range(101):
            x = k / 100
            drift = 0.0 if held is None else 40 * (1 - exp(-(((x - held) / width) ** 4)))
            points.append((left + (right - left) * x, before(x) - drift))
        return points

    def cloud(centre: float, y: float, colour: str, words: str) -> list[Element]:
        x, half = left + (right - left) * centre, (right - left) * 0.13
        return [
            box((x - half, y), 2 * half, 12, stroke=colour, fill=colour, opacity=0.3),
            text((x, y + 28), words, colour=colour),
        ]

    apart = 33 if new - old < 0.3 else 0
    return Panel(
        title,
        "Three curves of the old output over the images: as it was, as EWC leaves it, which agrees at the old images, and as "
        "LwF leaves it, which agrees at the new images"
        + (", and so at the old ones too." if apart else " and drifts at the old ones."),
        (W, H),
        [
            text((W / 2, 18), title, size=15, bold=True),
            path(curve(old), stroke="EWC", pen=2),
            path(curve(new), stroke="LwF", pen=2),
            path(curve(None), dash="5 4", pen=2),
            *arrow((left - 8, base), (right + 12, base), colour="muted", pen=1),
            *cloud(old, base + 6, "task A", "old images"),
            *cloud(new, base + 6 + apart, "task B", "new images"),
            text((80, H - 8), "dashed: before"),
            text((186, H - 8), "EWC, MAS", colour="EWC"),
            text((260, H - 8), "LwF", colour="LwF"),
        ],
    )
