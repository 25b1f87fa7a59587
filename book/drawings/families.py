"""The five families in one picture: what each keeps when a task ends, and where it acts."""

from __future__ import annotations

from .sketch import Element, Panel, arrow, box, circle, line, network, small_network, spring, text, units, wires

W, H = 165, 206


def families() -> list[Panel]:
    return [regularisation(), models(), rehearsal(), memories(), neurons()]


def family(title: str, desc: str, keeps: str, acts: str, elements: list[Element]) -> Panel:
    return Panel(
        title,
        desc,
        (W, H),
        [
            text((W / 2, 16), title, size=14, bold=True),
            *elements,
            text((W / 2, 172), f"keeps {keeps}", size=12),
            text((W / 2, 192), acts, size=12, colour="muted"),
        ],
    )


def regularisation() -> Panel:
    at = network((22, 46), 96, 96, (3, 4, 2), 6)
    held = ((at[0][0], at[1][0]), (at[0][2], at[1][3]), (at[1][1], at[2][0]))
    return family(
        "Regularisation",
        "A network; springs sit on some of its weights, and its outputs are tied to recorded answers.",
        "stiffness, answers",
        "acts on weights, outputs",
        [
            *wires(at, stroke="muted", pen=0.8),
            *(line(a, b, stroke="paper", pen=3) for a, b in held),
            *(spring(a, b, coils=5, swing=4, stroke="EWC", pen=1.6) for a, b in held),
            *units(at, 6),
            *(spring((y[0] + 6, y[1]), (y[0] + 28, y[1]), coils=3, swing=4, stroke="LwF", pen=1.6) for y in at[2]),
            *(line((y[0] + 28, y[1] - 9), (y[0] + 28, y[1] + 9), stroke="LwF", pen=3) for y in at[2]),
        ],
    )


def models() -> Panel:
    return family(
        "New models",
        "Two networks, one for task A and one for task B, and an arrow from both to a third, their mean.",
        "networks, a mean",
        "acts on whole networks",
        [
            *small_network((10, 36), 54, 44, stroke="task A"),
            *small_network((101, 36), 54, 44, stroke="task B"),
            *arrow((42, 86), (66, 106)),
            *arrow((123, 86), (99, 106)),
            *small_network((55, 106), 54, 44, stroke="IMM"),
        ],
    )


def rehearsal() -> Panel:
    return family(
        "Rehearsal",
        "A network that is fed with samples of the new task and with old ones from a store.",
        "samples",
        "acts on the batch",
        [
            *(box((14 + 15 * k, 46), 12, 12, stroke="task B", fill="task B", opacity=0.2) for k in range(3)),
            box((8, 104), 54, 40, stroke="task A", dash="4 3"),
            *(
                box((14 + 15 * (k % 3), 110 + 15 * (k // 3)), 12, 12, stroke="task A", fill="task A", opacity=0.2)
                for k in range(6)
            ),
            *arrow((62, 56), (88, 82), colour="task B"),
            *arrow((66, 118), (88, 104), colour="task A"),
            *small_network((92, 58), 64, 70, stroke="ink"),
        ],
    )


def memories() -> Panel:
    return family(
        "Two memories",
        "A fast network learns the task; a slow network takes over a little of it at each step, and old samples support both.",
        "a slow copy",
        "acts between two copies",
        [
            *small_network((48, 32), 70, 44, stroke="CLS-ER"),
            text((42, 58), "fast", size=12, anchor="end"),
            *arrow((74, 82), (74, 102)),
            *arrow((92, 102), (92, 82), dash="3 2"),
            *small_network((48, 106), 70, 44, stroke="ink"),
            text((42, 132), "slow", size=12, anchor="end"),
        ],
    )


def neurons() -> Panel:
    at = network((22, 42), 120, 108, (3, 5, 2), 7)
    a, b = at[1][:2], at[1][3:]
    return family(
        "Few neurons",
        "A network whose hidden units are divided up: two for task A, two for task B, one is free.",
        "masks",
        "acts on units",
        [
            *wires([at[0], a, [at[2][0], at[2][1]]], stroke="task A", pen=1.2),
            *wires([at[0], b, [at[2][0], at[2][1]]], stroke="task B", pen=1.2),
            *units([at[0], at[2]], 7),
            *(circle(p, 7, fill="task A", stroke="task A") for p in a),
            *(circle(p, 7, fill="task B", stroke="task B") for p in b),
            circle(at[1][2], 7, fill="paper", stroke="muted", dash="3 2"),
        ],
    )
