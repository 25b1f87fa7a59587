"""What a link leads to, beside the link: a term's definition, an equation, a figure, a reference, an exercise.

A page opened from disk may not fetch another, so each page carries what its links point at, in `template` elements that a
browser neither shows nor loads. book/_static/pages.js shows them.
"""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag
from sphinx.application import Sphinx

LINK = re.compile(r'<a\b(?![^>]*\bheaderlink\b)[^>]*\bhref="([^"]*#[^"]+)"')
KINDS = ("figure", "div.math", "div.citation", "div.exercise", "div.solution")


class BuiltPage:
    """A page as it was written, parsed when something on it is asked for."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.html = file.read_text(encoding="utf-8")
        self.start = self.html.find("<article")
        self.end = self.html.rfind("</article>")

    @cached_property
    def places(self) -> dict[str, Tag]:
        article = BeautifulSoup(self.html[self.start : self.end], "html.parser")
        return {place["id"]: place for place in article.find_all(id=True)}

    def content(self, anchor: str) -> list[Tag]:
        """What a reader wants to see of this place, or nothing: a heading says it all in the link."""
        place = self.places.get(anchor)
        if place is None:
            return []
        if place.name == "dt":
            definition = place.find_next_sibling("dd")
            return [place, definition] if definition else []
        if place.name == "span":  # the second name of what follows
            place = place.find_next_sibling() or place
        return [place] if any(place.css.match(kind) for kind in KINDS) else []


def preview(target: BuiltPage, anchor: str, here: Path) -> str:
    """The content in HTML, without what may stand on a page only once, its addresses seen from `here`."""
    copies = BeautifulSoup("".join(str(tag) for tag in target.content(anchor)), "html.parser")
    for tag in copies.select(".headerlink, .headerlink + br, script, style, details"):
        tag.decompose()
    for tag in copies.find_all(True):
        del tag["id"]
        for name in ("href", "src"):
            address = tag.get(name)
            if address and not urlsplit(address).scheme:
                there = target.file if address.startswith("#") else target.file.parent / address
                tag[name] = os.path.relpath(there, here.parent) + (address if address.startswith("#") else "")
    return str(copies)


def write_previews(app: Sphinx) -> None:
    pages: dict[Path, BuiltPage] = {}
    files = [Path(app.builder.get_outfilename(name)) for name in sorted(app.env.found_docs)]
    for file in files:
        pages[file.resolve()] = BuiltPage(file.resolve())
    for page in pages.values():
        templates = []
        formulas = "MathJax" in page.html
        for address in dict.fromkeys(LINK.findall(page.html[page.start : page.end])):
            parts = urlsplit(address)
            there = (page.file.parent / unquote(parts.path)).resolve() if parts.path else page.file
            if parts.netloc or there not in pages:
                continue
            html = preview(pages[there], unquote(parts.fragment), page.file)
            if html and (formulas or 'class="math' not in html):
                templates.append(f'<template class="preview-of" data-of="{address}">{html}</template>')
        page.file.write_text(page.html[: page.end] + "\n".join(templates) + page.html[page.end :], encoding="utf-8")
