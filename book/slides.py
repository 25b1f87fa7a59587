"""The figures of the book as a folder for slides: every stored figure and every drawing, in the order of the book.

    make slides

_build/slides then holds one file a figure, PNG or SVG, and slides.md, which has a slide for each: the title of its page, the
figure, its caption, and the words for those who cannot see it. Tools that make slides of Markdown take the file as it is.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parent))
import drawings
from drawings.sketch import GAP, PAPER

ROOT = Path(__file__).parents[1]
INK = dict(re.findall(r"^ *([\w-]+): (#\w{6});", PAPER, flags=re.M))  # the colours of paper
DRAWING = re.compile(r"^```\{drawing\} (?P<name>\S+)\n(?P<options>(?::.*\n)+)(?P<caption>(?:.*\n)+?)```", flags=re.M)
SVG = "http://www.w3.org/2000/svg"
ET.register_namespace("", SVG)
IN_A_ROW = 3  # panels of a drawing


@dataclass(frozen=True)
class Slide:
    """A figure: its name without a suffix, the title of its page, its caption, its words, its kind and what the file holds."""

    name: str
    page: str
    title: str
    caption: str
    alt: str
    suffix: str
    content: bytes

    def markdown(self, file: str) -> str:
        return f"# {self.title}\n\n![{self.alt}]({file})\n\n{self.caption}\n\n<!-- {self.page} -->\n"


def pages(root: Path) -> Iterator[str]:
    """The pages of _toc.yml in reading order."""

    def below(node: dict[str, Any]) -> Iterator[str]:
        for child in node.get("chapters", []) + node.get("sections", []):
            yield child["file"]
            yield from below(child)

    for part in yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))["parts"]:
        yield from below(part)


def words(text: str) -> str:
    return " ".join(text.split())


def of_notebook(file: Path, page: str) -> Iterator[Slide]:
    """The figures that a notebook has stored."""
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    title = next(line[2:] for line in "".join(cells[0]["source"]).splitlines() if line.startswith("# "))
    for cell in cells:
        shown = cell["metadata"].get("mystnb", {})
        stored = [output.get("data", {}).get("image/png") for output in cell.get("outputs", [])]
        if not any(stored) or "figure" not in shown:
            continue
        picture = base64.b64decode("".join(next(filter(None, stored))))
        figure = shown["figure"]
        yield Slide(figure["name"], page, title, words(figure["caption"]), words(shown["image"]["alt"]), ".png", picture)


def of_text(file: Path, page: str, seen: set[str]) -> Iterator[Slide]:
    """The drawings of a chapter, each where it is met first."""
    text = file.read_text(encoding="utf-8")
    title = next(line[2:] for line in text.splitlines() if line.startswith("# "))
    for found in DRAWING.finditer(text):
        if found["name"] in seen:
            continue
        seen.add(found["name"])
        options = dict(re.findall(r"^:(\w+): (.*)$", found["options"], flags=re.M))
        picture = side_by_side(drawings.draw(found["name"])).encode()
        yield Slide(options["name"], page, title, words(found["caption"]), words(options["alt"]), ".svg", picture)


def side_by_side(panels: list[str]) -> str:
    """The panels of a drawing, three in a row, as one SVG. It has the colours of paper: slides know nothing of the page's."""
    parsed = [ET.fromstring(panel) for panel in panels]
    sizes = [[float(n) for n in panel.attrib["viewBox"].split()[2:]] for panel in parsed]
    place, x, y, low = [], 0.0, 0.0, 0.0
    for n, (w, h) in enumerate(sizes):
        if n and n % IN_A_ROW == 0:
            x, y = 0.0, low + GAP
        place.append((x, y))
        x, low = x + w + GAP, max(low, y + h)
    width = max(x + w for (x, _), (w, _) in zip(place, sizes, strict=True))
    size = {"viewBox": f"0 0 {width:g} {low:g}", "width": f"{width:g}", "height": f"{low:g}"}
    whole = ET.Element(f"{{{SVG}}}svg", size | {"font-family": "sans-serif"})
    for panel, (x, y), (w, h) in zip(parsed, place, sizes, strict=True):
        for gone in ("style", "class"):
            panel.attrib.pop(gone, None)
        panel.attrib |= {"x": f"{x:g}", "y": f"{y:g}", "width": f"{w:g}", "height": f"{h:g}"}
        whole.append(panel)
    text = ET.tostring(whole, encoding="unicode")
    text = re.sub(r"var\((--[\w-]+), (#\w{6})\)", lambda m: INK.get(m[1], m[2]), text)
    return text.replace("currentColor", INK["--pst-color-text-base"])


def slides(root: Path = ROOT) -> Iterator[Slide]:
    """Every figure of the book, in its order."""
    seen: set[str] = set()
    for page in pages(root):
        notebook, text = root / f"{page}.ipynb", root / f"{page}.md"
        if notebook.exists():
            yield from of_notebook(notebook, page)
        elif text.exists():
            yield from of_text(text, page, seen)


def write(folder: Path, root: Path = ROOT) -> list[Path]:
    """Write the figures and slides.md into a folder, which is emptied first; return the figures."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written, said = [], []
    for n, slide in enumerate(slides(root), 1):
        file = folder / f"{n:02d}-{slide.name.removeprefix('fig-')}{slide.suffix}"
        file.write_bytes(slide.content)
        written.append(file)
        said.append(slide.markdown(file.name))
    (folder / "slides.md").write_text("\n---\n\n".join(said), encoding="utf-8")
    return written


if __name__ == "__main__":
    folder = ROOT / "_build" / "slides"
    print(f"{len(write(folder))} figures, and slides.md with their captions: {folder}")
