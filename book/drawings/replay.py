"""The loop of replay: new samples and old ones, in one batch."""

from __future__ import annotations

from .sketch import Panel, arrow, box, images, lines, small_network, text

W, H = 350, 262


def replay() -> list[Panel]:
    batch = [((158 + 24 * (k % 2), 106 + 24 * (k // 2)), "task B" if k < 2 else "task A") for k in range(4)]
    return [
        Panel(
            "Replay",
            "Samples of the new task and samples from a small store of old ones go together into a batch, and the batch "
            "into the network, for one step. At the end of the task some of the new samples are put into the store.",
            (W, H),
            [
                *images((36, 30), "task B", 4),
                *lines((50, 92), "new samples", colour="task B"),
                box((12, 176), 90, 38, stroke="task A", dash="5 3"),
                *(box((19 + 20 * k, 187), 16, 16, stroke="task A", fill="task A", opacity=0.2) for k in range(4)),
                *lines((57, 232), "a small store", "of old samples", colour="task A"),
                *arrow((92, 58), (150, 110), pen=2, colour="task B"),
                *arrow((106, 192), (150, 148), pen=2, colour="task A"),
                box((152, 100), 56, 56),
                *(box(at, 20, 20, stroke=colour, fill=colour, opacity=0.2) for at, colour in batch),
                text((180, 90), "batch"),
                *arrow((212, 128), (244, 128), pen=2),
                *small_network((252, 92), 84, 72, stroke="ink"),
                text((294, 184), "one step"),
                *arrow((294, 84), (180, 70), bend=(238, 30), colour="muted"),
                text((244, 34), "the next batch", size=12, colour="muted"),
                *arrow((50, 100), (50, 172), pen=1.2, colour="muted", dash="4 3"),
                *lines((58, 132), "some are kept", "after the task", anchor="start", size=12, colour="muted", leading=14),
            ],
        )
    ]
