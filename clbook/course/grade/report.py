"""What a teacher and a student get: one page each, JSON, CSV for the class, Gradescope's results and Canvas's table.

Names, messages and what was printed were written by others: in a page they are text and nothing else, in a table no formula, on
the disk no path. The pages ask nothing of the network. Book: book/grading.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from clbook.checks import InputError
from clbook.course.grade.grader import Checked, Entry, Grades
from clbook.course.grade.scores import number, tenths
from clbook.course.grade.submission import shown
from clbook.store import replace

STYLE = """
:root { color-scheme: light dark; --line: #d0d4da; --faint: #5a6270; --box: #f4f6f8 }
:root { --good: #1a7f37; --bad: #b3261e; --part: #8a5a00 }
@media (prefers-color-scheme: dark) {
  :root { --line: #3b424c; --faint: #a3acb8; --box: #1d2228; --good: #57c46f; --bad: #ff8a80; --part: #e5b567 }
}
body { font: 1rem/1.55 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin: 2rem 0 .3rem }
.faint { color: var(--faint) } .good { color: var(--good) } .bad { color: var(--bad) } .part { color: var(--part) }
.score { font-size: 1.25rem; font-weight: 600 }
ul.criteria { list-style: none; padding: 0; margin: .4rem 0 }
ul.criteria > li { border-top: 1px solid var(--line); padding: .45rem 0 }
h1, h2, p, li { overflow-wrap: anywhere }
pre { background: var(--box); padding: .7rem; overflow: auto; max-height: 20rem; white-space: pre-wrap }
pre { overflow-wrap: anywhere }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap } a { color: inherit }
th[scope=row] { overflow-wrap: anywhere; min-width: 7rem; max-width: 16rem } td.why { min-width: 10rem }
td svg { vertical-align: middle }
""".strip()
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def write(grades: Grades, out: Path, *, gradescope: bool = False, canvas: Path | None = None) -> list[str]:
    """Write all of it into the folder `out`; what is to be said of it. Raises InputError for a Canvas table that is none."""
    table = fill_canvas(grades, canvas) if canvas is not None else None
    names = file_names(e.student for e in grades.entries)
    _forget(out, {name.lower() for name in names.values()})
    replace(out / "grades.json", json.dumps(grades.data, indent=1) + "\n")
    replace(out / "grades.csv", class_csv(grades))
    replace(out / "index.html", class_page(grades))
    for entry in grades.entries:
        replace(out / "reports" / f"{names[entry.student]}.html", student_page(grades, entry))
        if gradescope:
            words = json.dumps(gradescope_results(grades, entry), indent=1)
            replace(out / "gradescope" / names[entry.student] / "results.json", words + "\n")
    said = [f"written: {out}/grades.json, grades.csv, index.html, reports/"]
    said += [f"written: {out}/gradescope/STUDENT/results.json"] if gradescope else []
    if table is not None:
        replace(out / "canvas.csv", table[0])
        said += [f"written: {out}/canvas.csv", *table[1]]
    return said


def _forget(out: Path, names: set[str]) -> None:
    """Delete what was written for those that the grades in `out` list and that are no longer in the class, and nothing else."""
    try:
        before = file_names(e.student for e in read(out).entries)
    except (InputError, TypeError):
        return
    for name in before.values():
        if name.lower() not in names:
            (out / "reports" / f"{name}.html").unlink(missing_ok=True)
            (out / "gradescope" / name / "results.json").unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a folder that holds more than was written stays
                (out / "gradescope" / name).rmdir()


def read(folder: Path) -> Grades:
    """The grades that `write` wrote. Raises InputError where there are none."""
    try:
        return Grades.of(json.loads((folder / "grades.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{str(folder)!r} holds no grades.json of clbook grade ({error}); give the folder it wrote") from None


# a name that every disk takes as it is, and that looks like none with a digest
PLAIN = re.compile(
    r"(?i)(?!(con|prn|aux|nul|com\d|lpt\d)(\.|$))[A-Z0-9][A-Z0-9 _.,@-]{0,79}(?<![. ])(?<!-[0-9a-f]{16})",
    re.ASCII,
)


def file_names(students: Iterable[str]) -> dict[str, str]:
    """A name for the files of each student, safe on every disk and of this one alone, also where capitals do not count."""
    plain = {s: s if PLAIN.fullmatch(s) else "" for s in students}
    seen = Counter(name.lower() for name in plain.values())
    return {s: name if name and seen[name.lower()] == 1 else _with_digest(s) for s, name in plain.items()}


def _with_digest(student: str) -> str:
    digest = hashlib.sha256(student.encode(errors="surrogatepass")).hexdigest()
    return f"{re.sub('[^A-Za-z0-9_-]+', '_', student)[:40]}-{digest[:16]}"


# pages ------------------------------------------------------------------------------------------------------------------------


def page(title: str, body: Iterable[str]) -> str:
    """A whole page that needs nothing else."""
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{text(title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<main>",
            *body,
            "</main>\n</body>\n</html>\n",
        ]
    )


def text(words: str) -> str:
    """Words as a page shows them: no tag, no control character, nothing that turns the direction of what follows."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", words)
    return escape(re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", "\ufffd", plain))


def student_page(grades: Grades, entry: Entry) -> str:
    return page(f"{grades.title}: {entry.student}", _student(grades, entry))


def _student(grades: Grades, entry: Entry) -> Iterator[str]:
    yield f"<h1>{text(grades.title)}</h1>"
    yield f'<p class="faint">{text(entry.student)} · {text(entry.file)}</p>'
    yield f'<p class="score">{tenths(entry.score)} of {tenths(entry.points)} points</p>'
    if entry.trouble:
        yield f'<p class="bad">It could not be graded: {text(entry.trouble)}.</p>'
        return
    for checked in entry.checks:
        yield from _check(checked)
    if entry.notes:
        yield "<h2>What was noticed while your notebook was read</h2>\n<ul>"
        yield from (f"<li>{text(note)}</li>" for note in entry.notes)
        yield "</ul>"
    yield f'<p class="faint">How it was run: {text(entry.isolation)}. Of the notebook, the definitions that a check asks '
    yield "for were run, and all that these need. Cells that begin with # CHECK are yours and do not count.</p>"


def _check(checked: Checked) -> Iterator[str]:
    state, word = _state(checked.score, checked.points)
    score = f"{tenths(checked.score)} of {tenths(checked.points)}, {word}"
    yield f'<h2>{text(checked.name)} <span class="{state}">{score}</span></h2>'
    if checked.reason:
        yield f'<p class="bad">{text(checked.reason)}</p>'
    if checked.criteria:
        yield '<ul class="criteria">'
        for c in checked.criteria:
            state, word = _state(c["share"], 1)
            share = f" ({100 * c['share']:.0f} %)" if 0 < c["share"] < 1 else ""
            message = f"<br>{text(said)}" if (said := _message(c)) else ""
            yield f'<li><span class="{state}">{word}{share}</span>: {text(c["criterion"])}{message}</li>'
        yield "</ul>"
    if checked.printed.strip():
        yield f"<details><summary>What your code printed</summary>\n<pre>{text(checked.printed)}</pre></details>"


def _message(criterion: dict[str, Any]) -> str:
    """What is said of a criterion beyond that it is met."""
    return str(criterion["message"]) if criterion["share"] < 1 or criterion["data"] else ""


def _state(score: float, points: float) -> tuple[str, str]:
    return ("good", "right") if score >= points else ("part", "in part") if score > 0 else ("bad", "not yet")


def class_page(grades: Grades) -> str:
    return page(f"{grades.title}: the class", _class(grades))


def _class(grades: Grades) -> Iterator[str]:
    yield f"<h1>{text(grades.title)}</h1>"
    mean = sum(e.score for e in grades.entries) / len(grades.entries)
    yield f'<p class="faint">{len(grades.entries)} handed in; mean {tenths(mean)} of {tenths(grades.points)} points; '
    yield f"seed of the hidden checks {grades.seed}. How it was run: {text(grades.isolation)}.</p>"
    if grades.left_out:
        yield f"<p>Left out, because they are no notebook and no .py: {text(', '.join(grades.left_out))}</p>"
    heads = "".join(f'<th scope="col" class="n">{text(c.name)}</th>' for c in grades.entries[0].checks)
    yield '<div class="wide"><table>\n<tr><th scope="col">student</th><th scope="col" class="n">points</th>'
    yield f'<th scope="col">why not</th>{heads}</tr>'  # before the checks, so that a phone shows it
    names = file_names(e.student for e in grades.entries)
    for e in grades.entries:
        link = f'<a href="reports/{names[e.student].replace(" ", "%20")}.html">{text(e.student)}</a>'
        cells = "".join(f'<td class="n">{tenths(c.score)}</td>' for c in e.checks)
        why = sentence(reasons(e), 200)
        yield f'<tr><th scope="row">{link}</th><td class="n">{tenths(e.score)}</td><td class="why">{text(why)}</td>{cells}</tr>'
    yield "</table></div>"


def reasons(entry: Entry) -> str:
    """Why an entry has no points: what is wrong with all of it, or each check that gave nothing, and why."""
    by_reason: dict[str, list[str]] = {}
    for checked in entry.checks:
        if reason := _reason(checked):
            by_reason.setdefault(reason, []).append(checked.name)
    named = lambda why, names: re.match(rf"(there is no )?{re.escape(' and '.join(names))}\b", why)  # noqa: E731
    said = (why if named(why, names) else f"{', '.join(names)}: {why}" for why, names in by_reason.items())
    return entry.trouble or "; ".join(said)


def _reason(checked: Checked) -> str:
    """Why a check gave nothing: what ended it, or else what was said of the criteria that were not met."""
    if checked.reason or checked.score > 0:
        return checked.reason
    return "; ".join((x["message"] or x["criterion"]).rstrip(".") for x in checked.criteria if x["share"] <= 0)


def sentence(words: str, most: int) -> str:
    """A text of at most so many characters that ends where a sentence or at least a word ends."""
    if len(words) <= most:
        return words
    found = re.match(rf"(?s)(.{{1,{most - 1}}}[.;])\s", words)
    return found[1].rstrip(";") if found else f"{words[: most - 1].rpartition(' ')[0] or words[: most - 1]}…"


# tables -----------------------------------------------------------------------------------------------------------------------


def class_csv(grades: Grades) -> str:
    """One row a student: points in all and for each check, as they are, and why a check gave nothing."""
    names = [c.name for c in grades.entries[0].checks]
    rows: list[list[Any]] = [["student", "file", "score", "points", *names, "trouble"]]
    for e in grades.entries:
        rows.append([e.student, e.file, *map(number, (e.score, e.points, *(c.score for c in e.checks))), reasons(e)])
    return table(rows)


def table(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV in which no cell is a formula."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([harmless(cell) for cell in row] for row in rows)
    return out.getvalue()


def harmless(cell: Any) -> Any:
    """A text that a spreadsheet would take for a formula, as a text."""
    if not isinstance(cell, str):
        return cell
    plain = "".join(c if c.isprintable() else "?" for c in cell)
    return f"'{plain}" if plain.lstrip().startswith(("=", "+", "-", "@")) else plain


def gradescope_results(grades: Grades, entry: Entry) -> dict[str, Any]:
    """What Gradescope reads as results.json of one submission."""
    tests = []
    for i, c in enumerate(entry.checks, 1):
        lines = [c.reason] if c.reason else []
        lines += [f"{_state(x['share'], 1)[1]}: {x['criterion']}. {_message(x)}".rstrip() for x in c.criteria]
        tests.append({
            "name": c.name, "number": str(i), "score": c.score, "max_score": c.points, "output": "\n".join(lines),
            "output_format": "text", "status": "passed" if c.score >= c.points else "failed", "visibility": "visible",
        })  # fmt: skip
    output = [entry.trouble] if entry.trouble else []
    output += [f"How it was run: {entry.isolation}.", *entry.notes]
    return {
        "score": entry.score, "execution_time": round(entry.seconds), "output": "\n".join(output), "output_format": "text",
        "visibility": "visible", "stdout_visibility": "hidden", "tests": tests,
    }  # fmt: skip


def fill_canvas(grades: Grades, export: Path) -> tuple[str, list[str]]:
    """The teacher's export of Canvas's gradebook with this assignment's points in it, and what is to be said of it.

    The column is the one with the assignment's title, which Canvas follows by a number in brackets, else a new one. A student
    is known by ID, SIS User ID, SIS Login ID or name, or by the name that Canvas gives to a downloaded file. Raises InputError.
    """
    try:
        rows = list(csv.reader(io.StringIO(export.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{export} cannot be read as Canvas's export: {error}") from None
    if not rows or not {"Student", "ID"} <= set(rows[0]):
        raise InputError(f"{export} is no export of Canvas's gradebook: its first row must have Student and ID, got {rows[:1]}")
    head = rows[0]
    title = re.compile(rf"\s*{re.escape(grades.title)}\s*(\(\d+\))?\s*", re.IGNORECASE)
    columns = [i for i, name in enumerate(head) if title.fullmatch(name)]
    if len(columns) > 1:
        raise InputError(f"{export} has {len(columns)} columns called {grades.title!r}; leave one of them")
    column = columns[0] if columns else len(head)
    width = max(len(head), column + 1)
    rows = [row + [""] * (width - len(row)) for row in rows]
    rows[0][column] = rows[0][column] or grades.title
    given, unknown = _matched(grades.entries, head, rows[1:])
    for row in rows[1:]:
        if row[head.index("Student")].strip().lower() == "points possible":
            row[column] = row[column] or number(grades.points)
    for i, entry in given.items():
        rows[1 + i][column] = number(entry.score)
    said = [f"in no row of {export.name}, or in several: {shown(e.student)}" for e in unknown]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)  # as the teacher's export has them
    return out.getvalue(), said


def _matched(entries: list[Entry], head: list[str], rows: list[list[str]]) -> tuple[dict[int, Entry], list[Entry]]:
    """Which row is whose; entries that fit no row, or several, or a row that another fits as well, are left."""
    names = [_names(head, row) for row in rows]
    found: dict[int, list[Entry]] = {}
    unknown = []
    for e in entries:
        downloaded = re.match(r"[^_]+(?:_LATE)?_(\d+)_\d+_", e.student)
        key = downloaded[1] if downloaded else _plain(e.student)
        fits = [i for i, of_row in enumerate(names) if key and key in of_row]
        if len(fits) == 1:
            found.setdefault(fits[0], []).append(e)
        else:
            unknown.append(e)
    unknown += [e for several in found.values() if len(several) > 1 for e in several]
    return {i: e[0] for i, e in found.items() if len(e) == 1}, unknown


def _names(head: list[str], row: list[str]) -> set[str]:
    at = dict(zip(head, row, strict=False))
    known = {at.get(n, "") for n in ("ID", "SIS User ID", "SIS Login ID")}
    last, _, first = at.get("Student", "").partition(",")
    known |= {at.get("SIS Login ID", "").partition("@")[0], f"{last} {first}", f"{first} {last}"}
    return {_plain(name) for name in known} - {""}


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
