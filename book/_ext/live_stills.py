"""Photograph the live figures as they open: book/_static/live/NAME.png, what a reader sees where scripts are off.

python book/_ext/live_stills.py writes the pictures. It needs Chromium or Chrome, as the browser tests do.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from chromium import CHROMIUM, MISSING
from live import FIGURES, SHARED
from PIL import Image
from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).parents[1] / "_static" / "live"
COLOURS = 128  # of a picture's palette, the rare ones too: the files stay small
# the theme's two colours of text, and nothing that asks to be clicked
STYLE = """
  :root { --pst-color-text-base: #222832; --pst-color-text-muted: #48566b; }
  body { margin: 0; width: 600px; font-family: sans-serif; } figure { margin: 0; }
  .live-stage { border: 0; } :is(.live-controls, .live-buttons, .live-tries, .live-status) { display: none !important; }
"""


def page(name: str, style: str = STYLE) -> str:
    """A page with this figure alone."""
    scripts = "".join(f'<script src="{(FOLDER / script).as_uri()}"></script>' for script in SHARED + FIGURES[name])
    sheet = f'<link rel="stylesheet" href="{(FOLDER / "live.css").as_uri()}"><style>{style}</style>'
    figure = f'<main class="bd-article"><figure class="live live-{name}"></figure></main>'
    return f'<!doctype html><html lang="en"><meta charset="utf-8">{sheet}{figure}{scripts}</html>'


def photograph(name: str, executable: str) -> bytes:
    """The figure as it opens, as a PNG twice as fine as the page."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "figure.html"
        file.write_text(page(name), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 600, "height": 900}, device_scale_factor=2)
        view.goto(file.as_uri())
        view.wait_for_function("document.querySelector('.live-stage').dataset.state != 'busy'")
        picture = view.locator(".live-stage").screenshot()
        browser.close()
    return picture


if __name__ == "__main__":
    if CHROMIUM is None:
        raise SystemExit(MISSING)
    for name in FIGURES:
        target = FOLDER / f"{name}.png"
        image = Image.open(io.BytesIO(photograph(name, CHROMIUM))).convert("RGB")
        image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(target, optimize=True)
        print(f"{target}: {target.stat().st_size:,} bytes")
