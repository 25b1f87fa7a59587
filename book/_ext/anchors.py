"""Ordinary links to a word of the glossary or to a work in the list, as a notebook needs them.

`[replay](../book/glossary.md#term-replay)` and `[Li & Hoiem](../book/references.md#ref-lihoiem2017)` open the file where a
notebook runs, and lead to the very entry in the built book. MyST knows the headings of a page only; this names the entries.
"""

from __future__ import annotations

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def name_entries(app: Sphinx, env: BuildEnvironment) -> None:
    """Every glossary entry and every work by its id, beside the headings that links can lead to."""
    objects = env.get_domain("std").get_objects()
    places = [(page, anchor, name) for name, _, kind, page, anchor, _ in objects if kind == "term"]
    places += [(w.bibliography_key.docname, w.citation_id, w.key) for w in env.get_domain("cite").citations]
    for page, anchor, name in places:
        slugs = env.metadata[page].setdefault("myst_slugs", {})
        slugs[anchor] = slugs[anchor.lower()] = (0, anchor, name)  # as headings are, in small letters


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("env-updated", name_entries, priority=900)  # the list of works is known only then
    return {"parallel_read_safe": True, "parallel_write_safe": True}
