"""The code cells of a notebook or a .py file, and which of their statements a name needs.

Nothing is run here: cells are read as data, and what a name needs is found in the syntax tree. Book: book/grading.
"""

from __future__ import annotations

import ast
import json
import re
import symtable
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from clbook.checks import InputError

MAGIC = re.compile(r"^(\s*)(%%?|!|\?)(.*)$")
SETUP = re.compile(r"%(pip|conda|matplotlib|config|load_ext|autoreload)\b")  # it changes nothing here, so nothing is said
TIMED = re.compile(r"^\s*%(?:time|timeit)\s+(?!-)(.*)$")  # what is timed counts
SETTERS = {"torch", "numpy", "random", "warnings"}  # torch.manual_seed(0) by itself changes what comes after
# they change nothing that they are given
LOOKERS = {"print", "display", "repr", "len", "type", "help", "plt", "sns", "plots", "fig", "figure", "ax", "axes"}
MOST, STATEMENTS = 2**20, 5_000  # characters of code, and statements at the top
FOLLOWED = 400  # statements whose order is followed; of more of them, all that bind or change a name are needed
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True)
class Cell:
    """One code cell: its number in the notebook (from 1) and its source."""

    number: int
    source: str


@dataclass(frozen=True)
class Statement:
    """One top-level statement: where it stands, what it binds or changes, and what it needs."""

    cell: int
    index: int
    node: ast.stmt
    changes: frozenset[str]
    needs: frozenset[str]

    @cached_property
    def at_once(self) -> set[str]:
        """What is looked up when the statement is run, and not first when a function that it defines is called."""
        return globals_of(_Hollow().visit(ast.parse(ast.unparse(self.node)))) & self.needs

    @cached_property
    def later(self) -> set[str]:
        """What the functions in it look up when they are called."""
        inner = (n for n in ast.walk(self.node) if isinstance(n, (*FUNCTIONS, ast.GeneratorExp)))
        return {name for n in inner for name in globals_of(n)} & self.needs


class _Hollow(ast.NodeTransformer):
    """Functions without what is in them."""

    def visit_FunctionDef(self, node: Any) -> Any:
        node.body = [ast.Pass()]
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> Any:
        node.body = ast.Constant(None)
        return node


def notebook(text: str) -> dict[str, Any]:
    """The notebook as it is stored. Raises InputError for anything else than version 4 of the format."""
    if not text.strip():
        raise InputError("the file is empty")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"it is no notebook ({said}); open it in Jupyter and save it again") from None
    cells = found.get("cells") if isinstance(found, dict) else None
    if not isinstance(cells, list) or found.get("nbformat") != 4:
        raise InputError("it is no notebook of the format 4; open it in Jupyter and save it again")
    for number, cell in enumerate(cells, 1):
        source = cell.get("source") if isinstance(cell, dict) else None
        lines = source if isinstance(source, list) else [source]
        if not all(isinstance(line, str) for line in lines):
            raise InputError(f"cell {number} of the notebook has no text")
    return found


def source_of(cell: dict[str, Any]) -> str:
    """The text of a cell, which the format stores as a string or as a list of lines."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def code_cells(text: str, suffix: str) -> list[Cell]:
    """The code cells of a notebook (.ipynb), or of a file whose cells begin with `# %%` (.py). Raises InputError."""
    if suffix == ".ipynb":
        cells = notebook(text)["cells"]
        found = [Cell(n, source_of(c)) for n, c in enumerate(cells, 1) if c.get("cell_type") == "code"]
    else:
        parts = re.split(r"(?m)^# ?%%.*\n?", text)
        found = [Cell(n, part) for n, part in enumerate(parts, 1) if part.strip()]
    if sum(len(c.source) for c in found) > MOST:
        raise InputError(f"its code has more than {MOST} characters")
    return found


def plain(source: str) -> tuple[str, list[str]]:
    """The source as Python has it, line for line, and the magics of IPython that were left out."""
    if source.lstrip().startswith("%%"):
        first = source.lstrip().splitlines()[0]
        return "", [f"{first} (the whole cell)"]
    if _parses(source):
        return source, []
    lines, left_out = source.split("\n"), []
    for i, line in enumerate(lines):
        if timed := TIMED.match(line):
            lines[i] = timed[1]
        elif magic := MAGIC.match(line):
            lines[i] = f"{magic[1]}pass"
            left_out.append(line.strip())
        elif re.match(r"^\s*[\w.]+\?{1,2}\s*$", line):
            lines[i] = "pass"
            left_out.append(line.strip())
    return "\n".join(lines), left_out


def parse(source: str) -> list[ast.stmt]:
    """The statements. Raises InputError that says which line is wrong."""
    try:
        return ast.parse(source).body
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise InputError(f"line {error.lineno}: {error.msg}{f': {line}' if line else ''}"[:300]) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"it cannot be read as Python: {error or type(error).__name__}") from None


def statements(cells: Iterable[Cell]) -> tuple[list[Statement], list[str]]:
    """All top-level statements, and what is to be said of cells and lines that cannot be used."""
    found: list[Statement] = []
    notes: list[str] = []
    for cell in cells:
        source, left_out = plain(cell.source)
        notes += [f"cell {cell.number}: left out {line[:80]}" for line in left_out if not SETUP.match(line)]
        try:
            body = parse(source)
            found += [_statement(cell.number, i, node) for i, node in enumerate(body)]
        except (InputError, RecursionError, SyntaxError, MemoryError, ValueError) as error:
            notes.append(f"cell {cell.number} was left out, {error or 'it is nested too deeply'}")
        if len(found) > STATEMENTS:
            raise InputError(f"its code has more than {STATEMENTS} statements")
    return found, notes


def needed(body: list[Statement], names: Iterable[str], setters: bool = True) -> list[Statement]:
    """The statements that these names need, in their order: all that bind or change them, and what those need in turn.

    So a definition is used, and the experiments and figures around it are not run. A statement that binds or changes nothing
    that is looked up afterwards is left out: a function, class or simple value that another one of the same name overwrites
    before it was used, and a loop that takes a name again after its last use. With `setters`, what sets something for all that
    follow is among them, such as torch.manual_seed(0).
    """
    modules, lasting, names = _imported(body), _lasting(body), set(names)
    effects = [s.changes - lasting if isinstance(s.node, ast.Expr) else s.changes for s in body]
    always = {i for i, s in enumerate(body) if (setters and _sets(s.node, modules)) or "*" in s.changes}
    by_name: dict[str, list[int]] = {}
    for i, changed in enumerate(effects):
        for name in changed:
            by_name.setdefault(name, []).append(i)
    needs: dict[str, set[str]] = {name: set().union(*(body[i].needs for i in found)) for name, found in by_name.items()}
    known = _reached(names | {n for i in always for n in body[i].needs}, needs)
    picked = sorted(always | {i for name in known for i in by_name.get(name, ())})
    for _ in range(2 if len(picked) <= FOLLOWED else 0):  # the second time without what the functions left out look up
        live = names | {name for i in picked for name in body[i].later} | _awaited([body[i] for i in picked])
        kept = []
        for i in reversed(picked):
            if i not in always and not effects[i] & live:
                continue
            kept.append(i)
            overwritten = _defined(body[i].node, lasting)
            live = (live | effects[i]) - overwritten if overwritten else live | effects[i]
            live |= _reached(body[i].at_once, needs)
        picked = kept[::-1]
    return [body[i] for i in picked]


def _awaited(body: list[Statement]) -> set[str]:
    """The names that a statement looks up at once and that only a later one binds, as where cells were reordered."""
    found, there = set[str](), set[str]()
    for s in body:
        found |= s.at_once - there
        there |= s.changes
    return found


def _reached(names: Iterable[str], needs: dict[str, set[str]]) -> set[str]:
    """These names and all that their definitions need in turn."""
    known, waiting = set[str](), set(names)
    while waiting:
        name = waiting.pop()
        known.add(name)
        waiting |= needs.get(name, set()) - known
    return known


def _defined(node: ast.stmt, lasting: set[str]) -> set[str]:
    """The name that a statement gives a meaning of its own, whatever it meant before; none where it may raise or do more.

    That is a function, a class, a constant, and a call of a function or class of the notebook that changes nothing it is given.
    """
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
        return set()
    value = node.value
    calls = [n for n in ast.walk(value) if isinstance(n, ast.Call)]
    harmless = all(
        next(_root(c.func), "") in lasting and all(a.id in lasting for a in c.args if isinstance(a, ast.Name)) for c in calls
    )
    simple = isinstance(value, ast.Constant | ast.Lambda) or (isinstance(value, ast.Call) and harmless)
    return {node.targets[0].id} if simple else set()


def globals_of(node: ast.AST) -> set[str]:
    """The names that a piece of code looks up outside of its functions."""
    return set(_looked_up(symtable.symtable(ast.unparse(node), "cell", "exec")))


def bound(node: ast.AST) -> set[str]:
    """The names that a statement binds where it stands."""
    found = set()
    for part in _outside_functions(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store | ast.Del):
            found.add(part.id)
        elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(part.name)
        elif isinstance(part, ast.alias):
            found.add(part.asname or part.name.partition(".")[0])
        elif isinstance(part, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and part.name:
            found.add(part.name)
    return found


def _statement(cell: int, index: int, node: ast.stmt) -> Statement:
    changes = bound(node) | {root for part in _outside_functions(node) for root in _changed(part)}
    return Statement(cell, index, node, frozenset(changes), frozenset(globals_of(node) - _counters(node)))


def _counters(node: ast.AST) -> set[str]:
    """The names that a loop or a with binds for itself."""
    parts = list(_outside_functions(node))
    targets = [p.target for p in parts if isinstance(p, ast.For)]
    targets += [p.optional_vars for p in parts if isinstance(p, ast.withitem) and p.optional_vars is not None]
    return {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}


def _lasting(body: list[Statement]) -> set[str]:
    """Functions, classes and modules: a call that is given one does not change it."""
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    return {name for s in body if isinstance(s.node, kinds) for name in s.changes}


def _changed(node: ast.AST) -> Iterator[str]:
    """The names whose object a node may change: x.a = 1, x[0] = 1, x.append(1), train(x)."""
    if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        yield from _root(node)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        call = node.value
        root = next(_root(call.func), "")
        if root not in LOOKERS:
            yield from [root] if isinstance(call.func, ast.Attribute) else []
            yield from (a.id for a in call.args if isinstance(a, ast.Name))


def _root(node: ast.AST) -> Iterator[str]:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    if isinstance(node, ast.Name):
        yield node.id


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """A statement and what is in it, without the insides of functions, classes and comprehensions."""
    yield node
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp)
    if not isinstance(node, (*inner, ast.GeneratorExp)):
        for child in ast.iter_child_nodes(node):
            yield from _outside_functions(child)


def _looked_up(table: symtable.SymbolTable) -> Iterator[str]:
    top = table.get_type() == "module"
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (top or symbol.is_global()):
            yield symbol.get_name()
    for inner in table.get_children():
        yield from _looked_up(inner)


def _imported(body: list[Statement]) -> dict[str, str]:
    """The modules by the names that they are imported under."""
    found: dict[str, str] = {}
    for s in body:
        if isinstance(s.node, ast.Import):
            found |= {a.asname or a.name.partition(".")[0]: a.name.partition(".")[0] for a in s.node.names}
    return found


def _sets(node: ast.stmt, modules: dict[str, str]) -> bool:
    """Whether a statement by itself sets something for all that follow, such as torch.manual_seed(0)."""
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute)):
        return False
    root = next(_root(node.value.func), "")
    simple = {n.id for a in node.value.args for n in ast.walk(a) if isinstance(n, ast.Name)} <= set(modules)
    return modules.get(root) in SETTERS and simple


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
