"""Two heads on one body: the ways to learn a new task with them, that of LwF among them."""

from __future__ import annotations

from .sketch import Element, Panel, arrow, box, images, text

W, H = 165, 206
BODY, OLD, NEW = (22.0, 98.0, 121.0, 30.0), (22.0, 48.0, 54.0, 28.0), (89.0, 48.0, 54.0, 28.0)  # x, y, width, height


def part(place: tuple[float, float, float, float], symbol: str, colour: str | None) -> list[Element]:
    """The parameters of one part of the network: filled where they are trained, dashed where they stay."""
    x, y, width, height = place
    style = {"stroke": colour, "fill": colour, "opacity": 0.25} if colour else {"stroke": "muted", "dash": "4 3"}
    return [
        box((x, y), width, height, **style),
        text((x + width / 2, y + height / 2 + 5), symbol, colour="ink" if colour else "muted", size=15),
    ]


def scheme(
    title: str, colour: str, desc: str, *, inputs: tuple[str, ...], trained: str, heads: str, answers: dict[str, str]
) -> Panel:
    """One way to train: `trained` and `heads` name parts by s, o and n; `answers` says what a head is taught or asked for."""
    elements = [text((W / 2, 16), title, colour=colour, bold=True, size=14)]
    for name, place in (("o", OLD), ("n", NEW)):
        if name not in heads:
            continue
        x = place[0] + place[2] / 2
        elements += part(place, f"*θ*_{name}", colour if name in trained else None)
        elements += arrow((x, BODY[1] - 1), (x, place[1] + place[3] + 2), pen=1.2)
        if name in answers:
            elements.append(text((x, 40), answers[name], size=12))
    elements += part(BODY, "*θ*_s", colour if "s" in trained else None)
    elements += arrow((W / 2, 150), (W / 2, 130), pen=1.2)
    for k, name in enumerate(inputs):
        x = W / 2 + 44 * (k - (len(inputs) - 1) / 2)
        elements += images((x - 16, 152), "task A" if name == "old" else "task B", side=22)
    elements.append(text((W / 2, 201), " and ".join(inputs) + " images", size=12))
    return Panel(title, desc, (W, H), elements)


def lwf_heads() -> list[Panel]:
    return [
        scheme(
            "The old task", "task A", "Old images go through the body into the old head, which is taught the old labels.",
            inputs=("old",), trained="so", heads="o", answers={"o": "old labels"},
        ),
        scheme(
            "LwF: 1. record", "LwF", "New images go through the unchanged body into the old head, whose answers are kept.",
            inputs=("new",), trained="", heads="o", answers={"o": "its answers"},
        ),
        scheme(
            "LwF: 2. train all", "LwF",
            "New images; the old head is taught the recorded answers, the new head the new labels; everything is trained.",
            inputs=("new",), trained="son", heads="on", answers={"o": "its answers", "n": "labels"},
        ),
        scheme(
            "Fine-tuning", "Fine-tuning", "New images; body and new head are trained, and the old head is left behind.",
            inputs=("new",), trained="sn", heads="on", answers={"n": "labels"},
        ),
        scheme(
            "Feature extraction", "Feature extraction", "New images; only the new head is trained.",
            inputs=("new",), trained="n", heads="on", answers={"n": "labels"},
        ),
        scheme(
            "Joint training", "Joint", "Old and new images; everything is trained, on old and on new labels.",
            inputs=("old", "new"), trained="son", heads="on", answers={"o": "old labels", "n": "labels"},
        ),
    ]  # fmt: skip
