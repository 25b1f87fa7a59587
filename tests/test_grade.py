"""`clbook grade`: what is handed in can do no harm, gets what it is worth, and touches nobody else's grade."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from pages import ROOT
from small import refused
from test_master import notebook

from clbook import InputError, code
from clbook.course import judging, leaderboard, master
from clbook.course.grade import GraderError, grader, pool, report, sandbox, submission, wire
from clbook.course.grade.grader import Entry, Grades
from clbook.course.leaderboard import Row, ranked
from clbook.lab.cli import main

sys.path.insert(0, str(Path(__file__).parent / "grading"))
import hostile
from assignments import CONTEST, CUBE, FRAUDS, IMPORTS, MINE, NOTHING, SQUARES

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the walls are Linux's")

LIMITS = {"assignment": "squares", "seconds": 1, "memory_mb": 100}


def a_master(folder: Path, parts: list[tuple[str, str]] | None = None, said: Any = LIMITS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "master.ipynb").write_text(json.dumps(notebook(parts or SQUARES, said)))
    return folder


def left(pid: int) -> list[int]:
    """The processes below this one that have not ended, and do not within five seconds."""
    end = time.monotonic() + 5
    while (found := running(pid)) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def running(pid: int) -> list[int]:
    """The processes below this one that have not ended."""
    found = []
    for one in pool.descendants(pid):
        try:
            stat = Path(f"/proc/{one}/stat").read_text()
        except OSError:
            continue
        found += [one] if stat.rpartition(")")[2].split()[0] not in "ZX" else []
    return found


@dataclass
class Class:
    """What a folder of submissions became: the grades, where they are, and what was there before."""

    grades: Grades
    out: Path
    outside: Path
    called: list[int]

    def entry(self, student: str) -> Entry:
        return next(e for e in self.grades.entries if e.student == student)

    def check(self, student: str, name: str = "square") -> grader.Checked:
        return next(c for c in self.entry(student).checks if c.name == name)


class Warm(pool.Forker):
    """A process that several tests take in turns, since starting one takes seconds."""

    idle: ClassVar[list[Warm]] = []

    def start(self) -> None:
        if self.process is None:
            super().start()

    def give_back(self) -> None:
        if self not in self.idle:
            self.idle.append(self)


def stop(self: grader.Grader) -> None:
    """What a grader does at its end, except that processes that are kept warm are given back."""
    self._stopping = True
    for forker in self._started:
        forker.give_back() if isinstance(forker, Warm) else forker.stop()


@pytest.fixture(scope="module", autouse=True)
def warm() -> Iterator[None]:
    """Let all graders of these tests share their processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grader, "Forker", lambda imports: Warm.idle.pop() if Warm.idle else Warm())
        patch.setattr(grader.Grader, "stop", stop)
        yield
    for one in Warm.idle:
        one.stop()


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Class]:
    """All hostile submissions and some honest ones, graded once by the command."""
    root = tmp_path_factory.mktemp("room")
    one = Warm()
    one.start()
    one.give_back()
    if not one.offers["landlock"] or not (one.offers["namespaces"] or one.offers["landlock"] >= 6):
        pytest.skip("hostile code is not run without walls: this kernel offers neither namespaces nor Landlock 6")
    folder, outside, place = root / "in", root / "outside", a_master(root / "squares")
    for made in (folder, outside):
        made.mkdir()
        made.chmod(0o777)
    called: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        words = {
            "MASTER_FILE": place / "master.ipynb",
            "CLASS_FOLDER": folder,
            "OUTSIDE": outside,
            "PORT": server.getsockname()[1],
        }
        for name, (_, source) in hostile.CASES.items():
            for key, value in words.items():
                source = source.replace(key, str(value))
            (folder / f"{name}.py").write_text(source + CUBE)
        for name, (_, content) in hostile.FILES.items():
            (folder / name).write_bytes(content)
        for name in hostile.NAMES:
            (folder / f"{name}.py").write_text(hostile.HONEST + CUBE)
        for name in ("Ada", "zoë"):
            (folder / f"{name}.py").write_text(hostile.HONEST + CUBE)
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.py")).write_text(hostile.HONEST + CUBE)
        (folder / "a link.py").symlink_to(place / "master.ipynb")
        os.mkfifo(folder / "a pipe.py")
        (folder / "two files").mkdir()
        for name in ("one.py", "two.py"):
            (folder / "two files" / name).write_text(hostile.HONEST)
        (folder / "one folder").mkdir()
        (folder / "one folder" / "my work.py").write_text(hostile.HONEST + CUBE)
        (folder / "notes.txt").write_text("no submission")
        before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        out = root / "out"
        line = ["grade", str(folder), "--assignment", str(place), "--seed", "5", "--out", str(out), "--gradescope", "--quiet"]
        assert main(line) == 0
        try:
            called.append(server.accept()[1][1])
        except TimeoutError:
            pass
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    yield Class(report.read(out), out, outside, called)


@pytest.mark.parametrize("case", hostile.CASES)
def test_harm_comes_to_nothing_and_is_named(case: str, room: Class) -> None:
    said, _ = hostile.CASES[case]
    checked = room.check(case)
    words = " ".join([checked.reason, *(c["message"] for c in checked.criteria), *room.entry(case).notes])
    if said:
        assert checked.score == 0 and re.search(said, words), (checked.score, words)
    else:
        assert checked.score == checked.points, words


def test_there_are_enough_of_them() -> None:
    assert len(hostile.CASES) + len(hostile.FILES) >= 30


@pytest.mark.parametrize("student", ["Ada", "zoë", *hostile.NAMES, "one folder", os.fsdecode(b"\xff\xfe")])
def test_nobody_elses_grade_is_touched(student: str, room: Class) -> None:
    assert (room.entry(student).score, room.entry(student).trouble) == (5.0, "")


def test_what_the_attack_is_not_about_is_graded_all_the_same(room: Class) -> None:
    lost = [name for name in hostile.CASES if room.check(name, "cube").score < 3]
    assert set(lost) <= {"loops for ever at the top", "replaces clbook"}, lost


@pytest.mark.parametrize("name", hostile.FILES)
def test_what_cannot_be_read_is_an_entry_with_the_reason(name: str, room: Class) -> None:
    entry = room.entry(Path(name).stem)
    said = " ".join([entry.trouble, *entry.notes, *(c.reason for c in entry.checks)])
    assert entry.checks[0].score == 0 and re.search(hostile.FILES[name][0], said), said


def test_links_pipes_and_several_files_are_not_read(room: Class) -> None:
    assert "is a link" in room.entry("a link").trouble
    assert "is no file" in room.entry("a pipe").trouble
    assert "2 files that could be it (one.py, two.py)" in room.entry("two files").trouble
    assert room.grades.left_out == ["notes.txt"]


def test_nothing_was_written_elsewhere_and_nobody_was_called(room: Class) -> None:
    assert list(room.outside.iterdir()) == [] and room.called == []


def test_no_process_outlives_the_grading(room: Class) -> None:
    assert Warm.idle
    for forker in Warm.idle:
        assert forker.process is not None and left(forker.process.pid) == []


# reports ----------------------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """The tags of a page, with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_no_page_holds_anything_but_text_of_what_was_handed_in(room: Class) -> None:
    pages = [*(room.out / "reports").iterdir(), room.out / "index.html"]
    assert len(pages) == len(room.grades.entries) + 1
    for path in pages:
        page = Tags(path.read_text(encoding="utf-8"))
        assert not {t for t, _ in page.tags} & {"script", "img", "iframe", "object", "form", "base"}, path
        for _, attributes in page.tags:
            assert not any(name.startswith("on") or name in ("src", "action") for name in attributes)
            assert re.match(r"reports/[\w.,@ %-]+\.html$", attributes.get("href") or "reports/x.html")
        assert "\x1b" not in page.text and "\u202e" not in page.text
    printed = Tags((room.out / "reports" / "prints a page.html").read_text())
    assert "<script>alert(1)</script>" in printed.text and "5 of 5 points" in printed.text


def test_a_page_tells_what_is_missing(room: Class) -> None:
    page = Tags((room.out / "reports" / "answers another shape.html").read_text()).text
    assert "3 of 5 points" in page and "x has the shape [2], and [] was expected" in page and "level" in page


def test_no_cell_of_a_table_is_a_formula(room: Class) -> None:
    with (room.out / "grades.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(room.grades.entries)
    assert not any(cell.lstrip()[:1] in "=+-@" for row in rows for cell in row.values() if cell)
    ada = next(row for row in rows if row["student"] == "Ada")
    assert (ada["score"], ada["points"], ada["square"], ada["cube"]) == ("5", "5", "2", "3")


@pytest.mark.parametrize(
    ("score", "said"), [(10.1926, "10.2"), (20.0, "20"), (0.0, "0"), (19.99, "19.9"), (1.5, "1.5"), (0.04, "0"), (9.96, "9.9")]
)
def test_people_read_one_decimal_and_programs_all_digits(score: float, said: str, tmp_path: Path) -> None:
    """People never read a whole number that was not reached."""
    entry = Entry("Ada", "Ada.py", score, 20.0, "level 3", checks=[grader.Checked("a", 20.0, score)])
    grades = Grades("squares", "Squares", 20.0, 1, "level 3", [entry])
    (row,) = csv.DictReader(report.class_csv(grades).splitlines())
    assert float(row["score"]) == float(row["a"]) == score == report.gradescope_results(grades, entry)["score"]
    (tmp_path / "export.csv").write_text("Student,ID\nAda,1\n")
    assert float(report.fill_canvas(grades, tmp_path / "export.csv")[0].splitlines()[1].split(",")[2]) == score
    assert f"{said} of 20 points" in report.student_page(grades, entry)
    assert f'<td class="n">{said}</td>' in report.class_page(grades)
    assert Grades.of(json.loads(json.dumps(grades.data))).entries[0].score == score


def test_the_class_page_says_which_criterion_gave_nothing_and_none_that_gave_a_part() -> None:
    criteria = [
        {"criterion": "memory budget", "share": 0.0, "message": "90 bytes, and 80 are allowed", "data": {}},
        {"criterion": "accuracy", "share": 0.4, "message": "so so", "data": {}},
    ]
    nothing, part = (grader.Checked("contest", 5.0, score, criteria=criteria) for score in (0.0, 1.0))
    for checked, said in ((nothing, "contest: 90 bytes, and 80 are allowed"), (part, "")):
        entry = Entry("Dan", "Dan.py", checked.score, 5.0, "level 3", checks=[checked])
        page = report.class_page(Grades("own", "Own", 5.0, 1, "level 3", [entry]))
        assert f'<td class="why">{said}</td>' in page


def test_a_teacher_reads_of_each_check_why_it_gave_nothing_and_each_reason_once() -> None:
    gone, unwritten = "KeyError: 'half'", "step is not written yet"
    checks = [grader.Checked(name, 2.0, reason=gone) for name in ("fisher", "sweep")]
    checks += [grader.Checked("step", 2.0, reason=unwritten), grader.Checked("interval", 2.0, 1.0)]
    entry = Entry("Dan", "Dan.py", 1.0, 8.0, "level 3", checks=checks)
    grades = Grades("springs", "Springs", 8.0, 1, "level 3", [entry])
    assert report.reasons(entry) == f"fisher, sweep: {gone}; {unwritten}"
    (row,) = csv.DictReader(report.class_csv(grades).splitlines())
    assert row["trouble"] == report.reasons(entry)
    entry.trouble = "the file is empty"
    assert report.reasons(entry) == entry.trouble


def test_a_reason_ends_where_a_sentence_or_a_word_ends() -> None:
    words = "It keeps 3 samples of 0.5 KB. They are too many; keep fewer of them"
    assert report.sentence(words, len(words)) == words
    assert report.sentence(words, 50) == "It keeps 3 samples of 0.5 KB. They are too many"
    assert report.sentence(words, 40) == "It keeps 3 samples of 0.5 KB."
    assert report.sentence(words, 20) == "It keeps 3 samples…" and report.sentence("x" * 9, 5) == "xxxx…"


def test_joblib_says_nothing_of_semaphores_within_the_walls(engine: grader.Grader) -> None:
    late = "def square(x):\n    import sys\n    for n in [m for m in sys.modules if m.split('.')[0] == 'joblib']:\n"
    late += "        del sys.modules[n]\n    import joblib\n    return x * x"
    checked = engine.grade(handed_in(late, OWN_CUBE)).checks[0]
    assert (checked.score, checked.printed) == (2, "")


def test_every_file_lies_where_it_belongs(room: Class) -> None:
    names = list(report.file_names(e.student for e in room.grades.entries).values())
    assert len({n.lower() for n in names}) == len(names) == len(room.grades.entries)
    assert all(re.fullmatch(r"[\w.,@ -]{1,80}", n, re.ASCII) for n in names)
    assert not {".", ".."} & set(names)
    assert sorted(p.name for p in (room.out / "gradescope").iterdir()) == sorted(names)


ALIKE = ["anna", "Anna", "ANNA", "Zoe\u0308", "Zo\u00eb", "zo\u00eb", "nul", "Aux.old", "a.", "a", "\\udcff", "\udcff", "Bob"]


def test_names_that_differ_in_capitals_or_accents_alone_have_files_of_their_own() -> None:
    found = report.file_names(ALIKE)
    assert len({name.lower() for name in found.values()}) == len(ALIKE) and found["Bob"] == "Bob"
    assert not {name.split(".")[0].lower() for name in found.values()} & {"nul", "aux", "con"}
    forged = [*ALIKE, *(name for name in found.values() if name not in ALIKE), found["Anna"].upper()]  # they call themselves so
    assert len({name.lower() for name in report.file_names(forged).values()}) == len(forged)


def test_gradescope_gets_what_it_reads(room: Class) -> None:
    found = json.loads((room.out / "gradescope" / "answers NaN" / "results.json").read_text())
    assert found["score"] == 3 == sum(t["score"] for t in found["tests"]) and isinstance(found["execution_time"], int)
    assert [(t["name"], t["max_score"], t["status"]) for t in found["tests"]] == [
        ("square", 2, "failed"),
        ("cube", 3, "passed"),
    ]
    assert "NaN" in found["tests"][0]["output"] and found["visibility"] == "visible"
    assert found["tests"][1]["output"] == "right: the cube.\nright: positive."


def test_the_level_of_the_walls_stands_in_every_result(room: Class) -> None:
    assert room.grades.isolation in grader.LEVELS.values()
    assert {e.isolation for e in room.grades.entries} == {room.grades.isolation}


EXPORT = """\ufeffStudent,ID,SIS User ID,SIS Login ID,Section,Squares (77),Other (78)
    Points Possible,,,,,5,10
"Lovelace, Ada",101,s-1,ada@x.org,A,,4
"Noether, Emmy",102,s-2,emmy,A,,5
"Hopper, Grace",103,s-3,grace,A,,6
"Doe, John",104,s-4,jdoe,A,,
"Doe, John",105,s-5,jdoe2,B,,
Student of another course,106,,x,B,,
"""


def graded(*students: str) -> Grades:
    entries = [Entry(s, f"{s}.py", 2.5, 5.0, "level 3") for s in students]
    return Grades("squares", "Squares", 5.0, 1, "level 3", entries)


def test_canvas_gets_its_own_table_back_with_the_points_in_it(tmp_path: Path) -> None:
    (tmp_path / "export.csv").write_text(EXPORT, encoding="utf-8")
    names = ["Ada Lovelace", "noetheremmy_102_9999_student", "s-3", "John Doe", "nobody"]
    filled, said = report.fill_canvas(graded(*names), tmp_path / "export.csv")
    rows = list(csv.reader(filled.splitlines()))
    assert rows[0] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Squares (77)", "Other (78)"]
    assert [row[5] for row in rows[1:]] == ["5", "2.5", "2.5", "2.5", "", "", ""]
    assert [row[6] for row in rows[1:]] == ["10", "4", "5", "6", "", "", ""]
    assert [line.rpartition(": ")[2] for line in said] == ["John Doe", "nobody"]


def test_canvas_gets_a_new_column_where_it_has_none(tmp_path: Path) -> None:
    (tmp_path / "export.csv").write_text(EXPORT.replace("Squares (77)", "Cubes (77)"), encoding="utf-8")
    filled, _ = report.fill_canvas(graded("emmy"), tmp_path / "export.csv")
    rows = list(csv.reader(filled.splitlines()))
    assert rows[0][-1] == "Squares" and rows[1][-1] == "5" and rows[3][-1] == "2.5"


def test_two_who_would_get_the_same_row_get_none(tmp_path: Path) -> None:
    (tmp_path / "export.csv").write_text(EXPORT, encoding="utf-8")
    filled, said = report.fill_canvas(graded("emmy", "s-2"), tmp_path / "export.csv")
    assert list(csv.reader(filled.splitlines()))[3][5] == "" and len(said) == 2


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "export.csv").write_text("Name,Points\nAda,3\n")
    with refused("no export of Canvas's gradebook"):
        report.fill_canvas(graded("Ada"), tmp_path / "export.csv")


# notebooks as students leave them ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grader.Grader]:
    """A grader of the squares, for what is handed in one by one."""
    folder = a_master(tmp_path_factory.mktemp("engine") / "squares", said=LIMITS | {"seconds": 5})
    found = grader.Grader(master.read(folder), 7)
    yield found
    found.stop()


def handed_in(*cells: str) -> submission.Submission:
    content = json.dumps(notebook([("code", c) for c in cells])).encode()
    return submission.Submission.of("Ada", "Ada.ipynb", content)


SQUARE, WRONG, OWN_CUBE = (
    "def square(x):\n    return x * x",
    "def square(x):\n    return x + x",
    "def cube(x):\n    return x * square(x)",
)
SURVIVE = {
    "as it should be": (SQUARE, OWN_CUBE),
    "reordered": (OWN_CUBE, SQUARE),
    "duplicated, the last one right": (WRONG, OWN_CUBE, SQUARE),
    "other cells around": ("import os\nprint(os.getcwd())", SQUARE, "1 / 0", OWN_CUBE, "result = square(10**9)"),
    "a cell that is no Python": (SQUARE, "def broken(:", OWN_CUBE),
    "magics": ("%matplotlib inline\n!ls", SQUARE, "%%time\nx = 1", OWN_CUBE, "square?"),
    "its check changed": (SQUARE, OWN_CUBE, "# CHECK square\ndef square(x):\n    return 0"),
    "in one cell": (f"{SQUARE}\n\n\n{OWN_CUBE}\n\nfor i in range(3):\n    print(square(i))",),
    "used before it is there": ("answer = square(3)\ndef cube(x):\n    return x * square(x) + 0 * answer", SQUARE),
    "what is needed at once comes later": (
        "def square(x):\n    return by[2](x)", OWN_CUBE, "by = {2: twice}", "twice = once", SQUARE.replace("square", "once"),
    ),
    "lambdas and tensors": ("import torch\nsquare = lambda x: torch.tensor(float(x)) ** 2", OWN_CUBE),
    "from the future": ("from __future__ import annotations\ndef square(x: nothing) -> nowhere:\n    return x * x", OWN_CUBE),
    "with a dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    n: int = 2",
        "p = P()\ndef square(x):\n    return x**p.n",
        OWN_CUBE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", SURVIVE)
def test_a_right_notebook_is_right_however_it_is_arranged(how: str, engine: grader.Grader) -> None:
    entry = engine.grade(handed_in(*SURVIVE[how]))
    assert entry.score == 5, [c.reason for c in entry.checks]


def test_the_last_definition_wins(engine: grader.Grader) -> None:
    assert engine.grade(handed_in(SQUARE, OWN_CUBE, WRONG)).checks[0].score == 0


def test_deleted_cells_cost_what_they_held_and_no_more(engine: grader.Grader) -> None:
    entry = engine.grade(handed_in(SQUARE))
    assert [c.score for c in entry.checks] == [2, 0] and "there is no cube in what was handed in" in entry.checks[1].reason


def test_where_a_definition_is_not_there_what_may_have_become_of_it_is_said(engine: grader.Grader) -> None:
    other_name = engine.grade(handed_in(SQUARE, "def qube(x):\n    return x**3"))
    assert other_name.checks[1].reason.endswith(" (there is qube)")
    no_python = engine.grade(handed_in(SQUARE, "def cube(x)\n    return x**3"))
    assert "there is no cube in what was handed in: cell 2 was left out, line 1: expected ':'" in no_python.checks[1].reason


def test_a_cell_that_raises_is_said_with_its_line_and_the_rest_goes_on(engine: grader.Grader) -> None:
    entry = engine.grade(handed_in("shift = 1\nshift = 1 / 0", f"{SQUARE} + shift - shift", OWN_CUBE))
    assert entry.score == 5 and "cell 1, line 2: ZeroDivisionError: division by zero" in entry.notes


def test_what_failed_because_of_something_else_is_not_noted(engine: grader.Grader) -> None:
    entry = engine.grade(handed_in("a = 1 / 0\nb = a\nc = b + d", "def square(x):\n    return x * x + 0 * c"))
    assert entry.notes == ["cell 1, line 1: ZeroDivisionError: division by zero"]


def test_what_is_not_written_yet_is_called_that(engine: grader.Grader) -> None:
    entry = engine.grade(handed_in('def square(x):\n    """Twice."""\n    ...  # your code'))
    assert entry.checks[0].reason == "square is not written yet"


def test_what_nobody_asks_for_is_not_run(engine: grader.Grader) -> None:
    slow = "import time\nresult = [time.sleep(60) for _ in range(square(9))]\nplot = show(result)"
    entry = engine.grade(handed_in(SQUARE, OWN_CUBE, slow))
    assert entry.score == 5 and entry.notes == []


def test_shares_are_shares_of_the_points(engine: grader.Grader) -> None:
    entry = engine.grade(handed_in(SQUARE, "def cube(x):\n    return x + 1"))
    assert [c.score for c in entry.checks] == [2, 1.5]


# the seed, what is kept, and what is refused ----------------------------------------------------------------------------------


def run(folder: Path, out: Path, *more: str, trust: bool = True) -> int:
    """The command on a small class. What it hands in is honest, so that a machine without walls may run it, too."""
    line = ["grade", str(folder / "in"), "--assignment", str(folder / "squares"), "--out", str(out), "--workers", "1"]
    return main([*line, *more, *(["--trust-submissions"] if trust else [])])


@pytest.fixture
def small_class(tmp_path: Path) -> Path:
    a_master(tmp_path / "squares", said=LIMITS | {"seconds": 5})
    (tmp_path / "in").mkdir()
    for name in ("Ada", "Bob"):
        (tmp_path / "in" / f"{name}.py").write_text(f"{SQUARE}\n{CUBE}")
    return tmp_path


def test_interrupted_it_goes_on_where_it_was(small_class: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    out, asked = small_class / "out", list[str]()
    check = grader.Grader.check

    def counted(self: grader.Grader, hidden: master.Hidden, handed: submission.Submission) -> Any:
        asked.append(handed.student)
        if handed.student == "Bob" and asked.count("Bob") == 1:
            raise KeyboardInterrupt
        return check(self, hidden, handed)

    monkeypatch.setattr(grader.Grader, "check", counted)
    (small_class / "in" / "Bob.py").write_text(f"{SQUARE}\n{CUBE}# Bob\n")
    assert run(small_class, out) == 130 and not (out / "grades.json").exists()
    assert "goes on where it was" in capsys.readouterr().err
    assert run(small_class, out) == 0
    assert asked.count("Ada") == 2 and asked.count("Bob") == 3, "two checks each, and the one that was interrupted"
    assert asked.count("the master's solution") == 2
    first = report.read(out)
    assert run(small_class, out) == 0 and len(asked) == 7 and report.read(out) == first
    (small_class / "in" / "Ada.py").write_text(f"{WRONG}\n{CUBE}")
    assert run(small_class, out) == 0 and len(asked) == 9
    assert {e.student: e.score for e in report.read(out).entries} == {"Ada": 3, "Bob": 5}
    assert run(small_class, out, "--seed", "9") == 0 and len(asked) == 15, "another seed asks for other numbers"


KEPT_FOR = [  # an assignment, a module, and whether a change there makes what was kept useless
    ("study", "clbook.metrics", True),
    ("study", "clbook.course.judging", True),
    ("springs", "clbook.importance", True),
    ("springs", "clbook.course.kinds.fisher", True),
    ("own_method", "clbook.methods.ewc", True),
    ("own_method", "clbook.course.contest", True),
    ("study", "clbook.course.grade.wire", True),
    ("study", "clbook.course.grade.child", True),
    ("springs", "clbook", True),
    ("springs", "clbook.lab.language", False),
    ("study", "clbook.course.quiz", False),
]


@pytest.mark.parametrize(("name", "module", "useless"), KEPT_FOR)
def test_what_is_kept_is_of_use_until_code_changes_that_a_check_uses(
    name: str, module: str, useless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, tree = master.read(ROOT / "coursework" / name), code._tree
    before = grader.Grader(found, 1).code
    for known in (code._of_module, code._named_in):  # what it remembers of this module is forgotten
        forgets = lambda of, known=known: (known.__wrapped__ if of == module else known)(of)  # noqa: E731
        monkeypatch.setattr(code, known.__name__, forgets)
    for line, counts in (("def another():\n    return 1", useless), ('"""Other words."""', False)):

        def changed(of: str, line: str = line) -> ast.Module:
            parsed = tree(of)
            return ast.Module([*ast.parse(line).body, *parsed.body[1:]], []) if of == module else parsed

        monkeypatch.setattr(code, "_tree", changed)
        assert (grader.Grader(found, 1).code != before) == counts, line


@pytest.mark.parametrize("at", range(2))
def test_what_is_kept_is_of_use_until_pytorch_or_numpy_changes(
    at: int, small_class: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = submission.Submission("Ada", "Ada.py", "1")
    one = grader.Grader(master.read(small_class / "squares"), 3, small_class / "kept")
    one.level = 1
    before = one._file(work)
    assert before == one._file(work) and grader.VERSIONS[0] == f"torch {metadata.version('torch')}"
    monkeypatch.setattr(grader, "VERSIONS", ["another one" if i == at else v for i, v in enumerate(grader.VERSIONS)])
    assert one._file(work) != before


def test_who_left_the_class_leaves_no_pages_and_nothing_else_is_deleted(tmp_path: Path) -> None:
    """What a teacher wrote beside the reports stays, even where its name could be a student's."""

    def graded(*students: str) -> Grades:
        return Grades("squares", "Squares", 5, 1, "", [Entry(s, f"{s}.py", 1, 5, "") for s in students])

    everybody = ["Ada", "Bob", "ada", "../Eve", "Cy"]
    names = report.file_names(everybody)
    report.write(graded(*everybody), tmp_path, gradescope=True)
    own = [tmp_path / "reports" / "Dan.html", tmp_path / "gradescope" / "Bob" / "note.txt", tmp_path.parent / "Eve.html"]
    for file in own:
        file.write_text("mine")
    report.write(graded("Ada"), tmp_path, gradescope=True)
    assert sorted(p.name for p in (tmp_path / "reports").iterdir()) == ["Ada.html", "Dan.html"]
    assert sorted(p.name for p in (tmp_path / "gradescope").iterdir()) == ["Ada", "Bob"]
    assert [p.name for p in (tmp_path / "gradescope" / "Bob").iterdir()] == ["note.txt"]
    assert len(names) == 5 and all(file.read_text() == "mine" for file in own)
    (tmp_path / "grades.json").write_text("no grades")
    report.write(graded("Bob"), tmp_path)
    assert (tmp_path / "reports" / "Ada.html").exists(), "nothing says whose it was"


def test_what_breaks_the_grader_itself_stops_nobody(small_class: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = grader.Grader.check

    def breaks(self: grader.Grader, hidden: master.Hidden, handed: submission.Submission) -> Any:
        if handed.student == "Bob":
            raise RecursionError("too deep")
        return check(self, hidden, handed)

    monkeypatch.setattr(grader.Grader, "check", breaks)
    (small_class / "in" / "Bob.py").write_text(f"{SQUARE}\n{CUBE}# Bob\n")
    assert run(small_class, small_class / "out") == 0
    ada, bob = report.read(small_class / "out").entries
    assert ada.score == 5 and bob.score == 0 and "could not deal with it (RecursionError" in bob.trouble


def test_the_seed_cannot_be_guessed_and_is_kept(small_class: Path) -> None:
    seeds = []
    for name in ("one", "one", "two"):
        assert run(small_class, small_class / name) == 0
        seeds.append(report.read(small_class / name).seed)
    assert seeds[0] == seeds[1] != seeds[2]


def test_a_master_whose_own_solution_fails_grades_nobody(small_class: Path, capsys: Any) -> None:
    wrong = [
        (k, s.replace("square(3)]", "x").replace("THE_RIGHT_ANSWER = square(3)", "THE_RIGHT_ANSWER = 8")) for k, s in SQUARES
    ]
    a_master(small_class / "squares", wrong)
    assert run(small_class, small_class / "out") == 2
    said = capsys.readouterr().err
    assert "the master's own solution gets 0 of 2 at '# HIDDEN square'" in said and "8 was expected" in said


def test_a_master_that_cannot_be_executed_says_where(small_class: Path, capsys: Any) -> None:
    a_master(
        small_class / "squares",
        [(k, s.replace("THE_RIGHT_ANSWER = square(3)", "THE_RIGHT_ANSWER = 1 / 0")) for k, s in SQUARES],
    )
    assert run(small_class, small_class / "out") == 2
    assert "cell 6, # HIDDEN square: ZeroDivisionError" in capsys.readouterr().err


class Bare(pool.Forker):
    """A process on a machine that offers no walls, started anew and ended for good."""

    def start(self) -> None:
        super().start()
        self.offers = {"namespaces": 0, "landlock": 0, "limits": 1}


def test_without_a_sandbox_trust_must_be_said(small_class: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(grader, "Forker", lambda imports: Bare())
    assert run(small_class, small_class / "out", trust=False) == 2
    assert "--trust-submissions" in capsys.readouterr().err
    assert run(small_class, small_class / "out") == 0
    assert {e.score for e in report.read(small_class / "out").entries} == {5}
    assert "no sandbox" in report.read(small_class / "out").isolation


DAEMONS = """
import os, time
def square(x):
    for i in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(1000)
            os._exit(0)
    time.sleep(0.2)
    return x * x
"""
ASKING = "def ask(student, seed):\n    return {'x': student.square(3)}"


@pytest.mark.parametrize("offers", [{"namespaces": 0}, {"landlock": 0}], ids=["no namespaces", "no Landlock"])
def test_with_weaker_walls_processes_are_still_ended(offers: dict[str, int], engine: grader.Grader, tmp_path: Path) -> None:
    weak = Warm.idle.pop() if Warm.idle else Warm()
    weak.start()
    strong = dict(weak.offers)
    weak.offers |= offers
    words = {"seed": 0, "given": False, "cells": {"1": DAEMONS}, "picked": [[1, 0], [1, 1]], "asking": ASKING}
    assert weak.process is not None
    outcome = weak.run(wire.pack(words, {}), pool.Limits(5, 300))
    assert outcome.answers == {"x": 9} and left(weak.process.pid) == []
    weak.offers = strong
    weak.give_back()


def test_submissions_may_not_lie_where_every_submission_reads(small_class: Path) -> None:
    inside = Path(sandbox.readable()[0])
    with refused("which every submission may read"):
        grader._apart(inside, small_class)


def test_walls_within_which_nothing_runs_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, int]] = []

    def narrow(self: pool.Forker, job: bytes, limits: pool.Limits) -> pool.Outcome:
        asked.append(dict(self.offers))
        return pool.Outcome(reason=pool.BARE) if self.offers["namespaces"] else pool.Outcome({"seed": 0})

    monkeypatch.setattr(pool.Forker, "run", narrow)
    one = Warm()
    one.process, one.offers = Any, {"namespaces": 1, "landlock": 3}  # type: ignore[assignment]
    one._settle()
    assert one.offers == {"namespaces": 0, "landlock": 3} and len(asked) == 2
    monkeypatch.setattr(pool.Forker, "run", lambda *_: pool.Outcome(reason=pool.BARE))
    with pytest.raises(GraderError, match="not even a question without code"):
        one._settle()


def test_results_may_not_lie_among_what_was_handed_in(small_class: Path, capsys: Any) -> None:
    assert run(small_class, small_class / "in" / "out") == 2
    assert "would be taken for something handed in" in capsys.readouterr().err


@pytest.mark.parametrize(("cpu", "said"), [(9.5, "took longer than 10 seconds"), (0.5, "it crashed (SIGKILL)")])
def test_who_has_used_up_the_time_is_told_so_also_where_the_kernel_counts_a_little_less(cpu: float, said: str) -> None:
    watch = pool._Watch(0, 0, 0, 0, pool.Limits(10, 100), 0, "")
    watch.said += json.dumps({"exit": -9, "cpu": cpu}).encode()
    assert said in watch._why_it_ended()


def test_an_answer_counts_also_where_word_of_the_end_is_read_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a busy machine, where a process may have answered and ended between a look at the doors and the reading."""
    (answers, answering), (printed, printing), (status, saying) = (os.pipe() for _ in range(3))
    end = b'{"pid": 1}\n{"exit": 0, "cpu": 0.1}\n'
    for number, words in ((answering, wire.pack({}, {"x": 9})), (printing, b"nine"), (saying, end)):
        os.write(number, words)
        os.close(number)
    looked = pool.selectors.DefaultSelector.select
    only_word = lambda self, wait: [(key, event) for key, event in looked(self, wait) if key.fd == status]  # noqa: E731
    monkeypatch.setattr(pool.selectors.DefaultSelector, "select", only_word)
    nobody = 2**22 + 1  # no process has this number
    found = pool._Watch(answers, printed, status, nobody, pool.Limits(10, 100), 0, "").outcome()
    assert (found.answers, found.printed, found.reason) == ({"x": 9}, "nine", "")
    for number in (answers, printed, status):
        os.close(number)


def test_an_accident_is_tried_once_more_and_not_kept(small_class: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def breaks(self: pool.Forker, job: bytes, limits: pool.Limits) -> pool.Outcome:
        asked.append(job)
        if b"# Bob" in job:
            return pool.Outcome(reason=pool.KILLED)
        return ask(self, job, limits)

    ask = pool.Forker.run
    (small_class / "in" / "Bob.py").write_text(f"# Bob\n{SQUARE}\n{CUBE}")
    monkeypatch.setattr(pool.Forker, "run", breaks)
    for _ in range(2):
        assert run(small_class, small_class / "out", "--seed", "1") == 0
        assert {e.student: e.score for e in report.read(small_class / "out").entries} == {"Ada": 5, "Bob": 0}
    assert sum(b"# Bob" in job for job in asked) == 8, "two checks, twice each, and none of it kept"
    monkeypatch.setattr(pool.Forker, "run", ask)
    assert run(small_class, small_class / "out", "--seed", "1") == 0
    assert {e.student: e.score for e in report.read(small_class / "out").entries} == {"Ada": 5, "Bob": 5}


def test_a_process_that_comes_up_with_weaker_walls_is_refused(small_class: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has walls of level 2, which is said; whatever is started later has none, and runs nothing."""
    made: list[pool.Forker] = []
    ran: list[int] = []

    class Weakens(pool.Forker):
        def _begin(self) -> None:
            self.offers = {"namespaces": 0, "landlock": 0 if made.index(self) or self.least else 3, "limits": 1}

        def run(self, job: bytes, limits: pool.Limits) -> pool.Outcome:
            if b"# Bob" in job:  # it takes its process down
                self.start()
            ran.append(self.level)
            return pool.Outcome(reason="it was run")

    def weakens(imports: str) -> pool.Forker:
        made.append(Weakens(imports))
        return made[-1]

    monkeypatch.setattr(grader, "Forker", weakens)
    one = grader.Grader(master.read(small_class / "squares"), 3, small_class / "kept")
    assert one.level == 2
    with one.forker():  # the first is busy, so that another is started
        ada = one.entry(handed_in(SQUARE, OWN_CUBE))
    assert len(made) > 1 and not ran
    bob = one.entry(handed_in(f"# Bob\n{SQUARE}", OWN_CUBE))
    for entry, n in ((ada, 2), (bob, 1)):
        assert [pool.MACHINE in c.reason for c in entry.checks][:n] == [True] * n and entry.score == 0
        assert "the walls came out at level 1, and at level 2 before; grade once more" in entry.checks[0].reason
    assert set(ran) <= {2} and not list((small_class / "kept").glob("*"))


def test_walls_that_come_out_weaker_once_are_tried_again() -> None:
    one, levels = pool.Forker(), iter([0, 3, 0, 0])
    one._begin = lambda: setattr(one, "offers", {"namespaces": 0, "landlock": next(levels)})  # type: ignore[method-assign]
    one.least = 2
    one.start()
    assert (one.level, one.least) == (2, 2)
    with pytest.raises(GraderError, match="level 1, and at level 2 before"):
        one.start()


def test_a_process_that_does_not_start_costs_nobody_else_anything(
    small_class: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    ask, failed = pool.Forker.run, list[bytes]()

    def breaks(self: pool.Forker, job: bytes, limits: pool.Limits) -> pool.Outcome:
        if b"# Bob" in job or (b"# Cleo" in job and not any(b"# Cleo" in job for job in failed)):
            failed.append(job)
            raise GraderError("the process that forks could not start")
        return ask(self, job, limits)

    monkeypatch.setattr(pool.Forker, "run", breaks)
    for name in ("Bob", "Cleo"):
        (small_class / "in" / f"{name}.py").write_text(f"# {name}\n{SQUARE}\n{CUBE}")
    assert run(small_class, small_class / "out", "--seed", "1") == 0
    found = {e.student: e for e in report.read(small_class / "out").entries}
    assert {name: e.score for name, e in found.items()} == {"Ada": 5, "Bob": 0, "Cleo": 5}
    assert len(failed) == 5 and all("it was the machine" in c.reason for c in found["Bob"].checks)
    monkeypatch.setattr(pool.Forker, "run", ask)
    assert run(small_class, small_class / "out", "--seed", "1") == 0
    assert {e.score for e in report.read(small_class / "out").entries} == {5}
    monkeypatch.setattr(pool.Forker, "run", lambda *_: (_ for _ in ()).throw(GraderError("no room")))
    assert run(small_class, small_class / "new") == 1
    assert "the master's own solution could not be run: it was the machine" in capsys.readouterr().err


def test_a_judge_that_never_ends_costs_one_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = "def judge(answers, seed):\n    while answers['x'] == 6:\n        try:\n            sum(range(99))\n"
    slow += "        except Exception:\n            pass\n"
    parts = [(k, s.replace("def judge(answers, seed):\n", slow) if "HIDDEN square" in s else s) for k, s in SQUARES]
    monkeypatch.setattr(grader, "JUDGING", 0.2)
    one = grader.Grader(master.read(a_master(tmp_path / "slow", parts, LIMITS | {"seconds": 5})), 3)
    entry = one.grade(handed_in(WRONG, "def cube(x):\n    return x**3"))
    assert [c.score for c in entry.checks] == [0, 3] and "judged within 0.2 seconds" in entry.checks[0].reason
    assert one.grade(handed_in(SQUARE, OWN_CUBE)).score == 5
    one.stop()


def test_an_empty_folder_is_refused(tmp_path: Path, capsys: Any) -> None:
    a_master(tmp_path / "squares")
    (tmp_path / "in").mkdir()
    assert run(tmp_path, tmp_path / "out") == 2
    assert "no .ipynb, no .py and no folder" in capsys.readouterr().err


# messages ---------------------------------------------------------------------------------------------------------------------


def test_a_message_brings_back_what_was_packed() -> None:
    given = {
        "a": np.arange(6, dtype=np.int32).reshape(2, 3),
        "b": 1.5,
        "c": "x",
        "d": True,
        "e": np.zeros((0, 4)),
        "f": [1.0, 2.0],
    }
    words, found = wire.unpack(wire.pack({"k": [1]}, given))
    assert words == {"k": [1]} and (found["b"], found["c"], found["d"]) == (1.5, "x", True)
    for name in "aef":
        np.testing.assert_array_equal(found[name], np.asarray(given[name]))
        assert found[name].dtype == np.asarray(given[name]).dtype


@pytest.mark.parametrize("seed", range(200))
def test_a_damaged_message_is_refused_or_still_plain(seed: int) -> None:
    rng = np.random.default_rng(seed)
    message = bytearray(wire.pack({}, {"a": np.arange(4.0), "b": "word", "c": np.array([True, False])}))
    for _ in range(rng.integers(1, 4)):
        message[rng.integers(len(message))] = rng.integers(256)
    try:
        _, found = wire.unpack(bytes(message[: rng.integers(len(message) + 1)] if seed % 3 == 0 else message))
    except InputError:
        return
    assert all(isinstance(v, np.ndarray | str | int | float) for v in found.values())


# a contest of methods, graded -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def competition(tmp_path_factory: pytest.TempPathFactory) -> Class:
    """A contest of methods, honest and not, graded by the command."""
    root = tmp_path_factory.mktemp("contest")
    place = a_master(root / "own-method", CONTEST, {"assignment": "own-method", "seconds": 10, "memory_mb": 500})
    (root / "in").mkdir()
    made = {
        "Nothing": NOTHING,
        "Class": NOTHING.replace("Nothing()", "Nothing"),
        "The <b>best<b>": MINE,
    }
    for name, source in made.items() | {n: s for n, (_, s) in FRAUDS.items()}.items():
        (root / "in" / f"{name}.py").write_text(f"{IMPORTS}\n{source}")
    out = root / "out"
    line = ["grade", str(root / "in"), "--assignment", str(place), "--seed", "2", "--out", str(out), "--quiet"]
    assert main([*line, "--trust-submissions"]) == 0
    return Class(report.read(out), out, root, [])


@pytest.mark.parametrize("fraud", FRAUDS)
def test_a_fraud_gets_nothing_or_nothing_out_of_it(fraud: str, competition: Class) -> None:
    said, _ = FRAUDS[fraud]
    checked = competition.check(fraud, "hidden streams")
    if not said:
        assert not checked.reason
        honest = competition.check("Nothing", "hidden streams")
        assert checked.criteria[0]["data"]["accuracy"] == honest.criteria[0]["data"]["accuracy"]
        return
    words = " ".join([checked.reason, *(c["criterion"] for c in checked.criteria if c["share"] < 1)])
    assert re.search(said, words) and not any(c["share"] and "accuracy" in c["data"] for c in checked.criteria)


def test_the_leaderboard_of_a_graded_class(competition: Class, capsys: Any) -> None:
    assert main(["leaderboard", str(competition.out)]) == 0
    said = capsys.readouterr().out
    with (competition.out / "LEADERBOARD.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {r["student"] for r in rows} >= {"Nothing", "Class", "keeps in a global"}
    assert "without a place: is too long (it has 29 lines" in said and "without a place: keeps all (it keeps" in said
    for row in rows:
        data = competition.check(row["student"], "hidden streams").criteria[0]["data"]
        assert float(row["accuracy"]) == pytest.approx(np.mean(data["accuracy"]), abs=1e-6)
        assert [float(row[f"stream_{i}"]) for i in (1, 2, 3)] == data["accuracy"]
    page = Tags((competition.out / "LEADERBOARD.html").read_text())
    assert not {t for t, _ in page.tags} & {"b", "script", "img", "link"} and leaderboard.RULE in page.text


def test_grades_without_a_contest_have_no_leaderboard(room: Class, capsys: Any) -> None:
    assert main(["leaderboard", str(room.out)]) == 2
    assert "measures no accuracy on streams" in capsys.readouterr().err
    assert main(["leaderboard", str(room.outside)]) == 2
    assert "holds no grades.json" in capsys.readouterr().err


def test_ranks_are_shared_where_the_difference_may_be_chance() -> None:
    """By hand: b is above a on every stream by 0.02 at least; c is above a on average only; d stands below all."""
    rows = [
        Row("a", (0.60, 0.70, 0.80), 100, 9),
        Row("b", (0.621, 0.720, 0.819), 300, 5),
        Row("c", (0.55, 0.85, 0.78), 200, 5),
        Row("d", (0.30, 0.40, 0.50), 0, 1),
    ]
    assert [(r.student, r.rank) for r in ranked(rows)] == [("c", 1), ("b", 1), ("a", 2), ("d", 4)]


def test_within_a_rank_memory_then_lines_then_the_mean_decide() -> None:
    rows = [Row("p", (0.5, 0.6), 10, 3), Row("q", (0.6, 0.5), 9, 9), Row("r", (0.5, 0.6), 10, 2), Row("s", (0.51, 0.6), 10, 3)]
    assert [r.student for r in ranked(rows)] == ["q", "r", "s", "p"] and {r.rank for r in ranked(rows)} == {1}


def test_with_one_stream_the_rank_follows_the_accuracy() -> None:
    rows = [Row("p", (0.5,), 1, 1), Row("q", (0.6,), 9, 9)]
    assert [(r.student, r.rank) for r in ranked(rows)] == [("q", 1), ("p", 2)]
    board = leaderboard.Leaderboard("x", tuple(ranked(rows)), ())
    assert "nothing is known about chance" in str(board) and "±" not in board.csv


def test_the_interval_is_students() -> None:
    r = Row("a", (0.5, 0.6, 0.7), 0, 0)
    assert r.mean == pytest.approx(0.6) and r.half == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)


def test_a_judge_may_return_tuples_and_verdicts() -> None:
    assert judging.verdict(("a", 0.5, "b")) == judging.Verdict("a", 0.5, "b") == judging.verdict(judging.Verdict("a", 0.5, "b"))


# the page ---------------------------------------------------------------------------------------------------------------------

PAGE = (ROOT / "book" / "grading.md").read_text(encoding="utf-8")
PENALTY = """def penalty(theta, star, omega, lam):
    # BEGIN SOLUTION
    return lam / 2 * (omega * (theta - star).square()).sum()
    # END SOLUTION"""


def test_the_hidden_check_on_the_page_tells_right_from_wrong(tmp_path: Path) -> None:
    first, second = re.findall(r"```python\n(# HIDDEN .*?)\n```", PAGE, flags=re.S)
    parts = [("markdown", "# Page"), ("code", "import torch"), ("code", PENALTY), ("code", first)]
    found = grader.Grader(master.read(a_master(tmp_path / "page", parts, LIMITS | {"seconds": 5})), 3)
    right = PENALTY.replace("# ", "#")
    assert found.grade(handed_in("import torch", right)).score == 3
    entry = found.grade(handed_in("import torch", right.replace("lam / 2", "lam")))
    assert entry.score == 0 and "Is the half there?" in entry.checks[0].criteria[0]["message"]
    found.stop()
    contested = [("markdown", "# Page"), ("code", IMPORTS), ("code", f"# BEGIN SOLUTION{MINE}# END SOLUTION"), ("code", second)]
    (hidden,) = master.read(a_master(tmp_path / "contest", contested)).hidden
    assert (hidden.gives, hidden.asks_for, hidden.points) == (2, ("method",), 16)


def test_the_page_says_what_the_levels_and_the_files_are() -> None:
    assert re.findall(r"^\| (\d) \|", PAGE, flags=re.M) == [str(n) for n in sorted(grader.LEVELS, reverse=True)]
    for name in (
        "index.html",
        "grades.csv",
        "grades.json",
        "canvas.csv",
        "seed.json",
        "LEADERBOARD.csv",
        "--trust-submissions",
    ):
        assert f"`{name}`" in PAGE


def test_a_command_loads_no_figures_tables_and_walls_before_it_needs_them() -> None:
    heavy = "matplotlib seaborn pandas scipy sklearn clbook.plots clbook.lab.experiments clbook.course.grade.grader".split()
    code = f"import sys, clbook.lab.cli; print([m for m in {heavy} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert told.stdout.strip() == "[]"
