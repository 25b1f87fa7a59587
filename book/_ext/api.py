"""The directive `api`: every public name of a module with its signature, its docstring as it is written, and its source.

    ```{api} clbook.methods
    ```

Docstrings of the package are plain text with formulas, shapes and errors, made for `help(...)`; so they stand here as they
are, but for the breaks within their paragraphs. An example at their end is shown as code. The module is read and not imported:
the pages are built without waiting for PyTorch. Where the text of a page names one of these in code, as in `clbook.run`, it
becomes a link.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]
PAGE = "book/api"
METHODS = ("clbook.methods", "clbook.methods.online")
MODULES = ("clbook", *METHODS, "clbook.metrics", "clbook.importance", "clbook.plots")
Definition = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Entry:
    """A public name: where it is to be imported from, and where it is defined."""

    name: str
    module: str
    file: Path
    node: Definition

    @property
    def anchor(self) -> str:
        return f"{self.module}.{self.name}"


def file_of(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def definitions(file: Path) -> dict[str, Definition]:
    return {node.name: node for node in parsed(file).body if isinstance(node, Definition)}


@cache
def entries(module: str) -> list[Entry]:
    """What `__all__` lists, or else what is defined here without an underscore."""
    file = file_of(module)
    body = parsed(file).body
    listed = [n.value for n in body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"]
    names = ast.literal_eval(listed[0]) if listed else [n for n in definitions(file) if not n.startswith("_")]
    origin = {a.name: file_of(n.module) for n in body if isinstance(n, ast.ImportFrom) and n.module for a in n.names}
    found = [Entry(name, module, *definition(origin.get(name, file), name)) for name in names if not name.startswith("__")]
    return sorted(found, key=lambda entry: entry.name.lower())


def definition(file: Path, name: str) -> tuple[Path, Definition]:
    """Where a name is defined, followed through the modules that only pass it on, and its definition."""
    if name in (here := definitions(file)):
        return file, here[name]
    for node in parsed(file).body:
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == name for alias in node.names):
            return definition(file_of(node.module), name)
    raise LookupError(f"{name} is not defined in {file}")


def signature(entry: Entry) -> str:
    """How it is called: the arguments of a function with types and defaults, the fields of a class."""
    node = entry.node
    if isinstance(node, ast.FunctionDef):
        arrow = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        line = f"{entry.name}({ast.unparse(node.args)}){arrow}"
        return line if len(line) <= 88 else f"{entry.name}(\n    " + ",\n    ".join(split_arguments(node.args)) + f",\n){arrow}"
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    fields = [ast.unparse(f) for f in node.body if isinstance(f, ast.AnnAssign) and not f.target.id.startswith("_")]
    return "\n    ".join([f"class {entry.name}" + f"({bases})" * bool(bases), *fields])


def split_arguments(arguments: ast.arguments) -> list[str]:
    """The arguments one by one, as they are written."""
    depth, parts, part = 0, [], ""
    for character in ast.unparse(arguments):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(part.strip())
            part = ""
        else:
            part += character
    return [*parts, part.strip()]


# a line that begins something of its own: an indented formula, a point of a list, an equation, what is raised, the source
OF_ITS_OWN = re.compile(r" |- |Source: |Raises |\w+ (?:=|<-) ")
SHORT = 100  # columns; a sentence that ends before them was broken off on purpose


def parts(docstring: str) -> tuple[str, str]:
    """What a docstring says, and the example at its end, or nothing."""
    text, mark, example = docstring.partition("\n\n>>> ")
    return text, f">>> {example}" if mark else ""


def unwrapped(docstring: str) -> str:
    """The docstring with each of its paragraphs on one line, so that a page of any width can wrap it."""
    lines: list[str] = []
    for line in docstring.splitlines():
        before = lines[-1] if lines else ""
        ended = before.endswith((".", ":")) and len(before) < SHORT
        if before and line and not ended and "   " not in before and not OF_ITS_OWN.match(line):
            lines[-1] = f"{before} {line}"
        else:
            lines.append(line)
    return "\n".join(lines)


class Api(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        (module,) = self.arguments
        if module not in MODULES:
            raise self.error(f"the module {module!r} is not among those described: {', '.join(MODULES)}.")
        options = self.config.html_theme_options
        blob = f"{options['repository_url']}/blob/{options['repository_branch']}"
        sections: list[nodes.Node] = []
        for entry in entries(module):
            self.env.note_dependency(str(entry.file))
            section = nodes.section(ids=[entry.anchor], names=[entry.anchor])
            section += nodes.title("", "", nodes.literal("", entry.anchor))
            section += nodes.literal_block("", signature(entry), language="python")
            text, example = parts(ast.get_docstring(entry.node) or "")
            said = [nodes.literal_block("", unwrapped(text), language="text", classes=["docstring"])]
            said += [nodes.literal_block("", example, language="pycon")] if example else []
            source = f"{blob}/{entry.file.relative_to(ROOT).as_posix()}#L{entry.node.lineno}"
            section += [*said, nodes.paragraph("", "", nodes.reference("", "Source", refuri=source))]
            sections.append(section)
        return sections


CODE = re.compile(r'(<a\b.*?</a>)|<code class="docutils literal notranslate"><span class="pre">([\w.]+)</span></code>', re.S)


def link_names(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Turn each public name that the text gives in full, and each method's, into a link to its description."""
    if "body" not in context or page == PAGE or PAGE not in app.env.found_docs:
        return
    known = {e.anchor: e.anchor for module in MODULES for e in entries(module)}
    known |= {e.name: e.anchor for module in METHODS for e in entries(module)}

    def link(found: re.Match[str]) -> str:
        if found[1] or found[2] not in known:
            return found[0]
        return f'<a class="internal api" href="{context["pathto"](PAGE)}#{known[found[2]]}">{found[0]}</a>'

    context["body"] = CODE.sub(link, context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("api", Api)
    app.connect("html-page-context", link_names, priority=800)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
