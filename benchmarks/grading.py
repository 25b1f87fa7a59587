"""How long `clbook grade` takes for a class of a hundred: right, wrong and hostile submissions, two workers.

    python benchmarks/grading.py [ASSIGNMENT] [STUDENTS]

A tenth would do harm (loop for ever, take memory, end the process, print without end), and a fifth has a wrong definition.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from clbook.course import master
from clbook.course.grade.grader import grade_folder

ROOT = Path(__file__).resolve().parent.parent
HARM = {
    "loops for ever": "while True: pass",
    "takes memory": "return [bytearray(2**24) for _ in range(10**6)]",
    "ends the process": "import os; os._exit(0)",
    "prints without end": "while True: print('x' * 10**6)",
}


def write(folder: Path, found: master.Master, students: int) -> None:
    """A file for each student: the solution, and for three in ten a last definition that is wrong or does harm."""
    solution = "\n\n".join(cell.source for cell in found.solution_cells())
    asked = sorted({name for hidden in found.hidden for name in hidden.asks_for})
    harm = list(HARM.items())
    for i in range(students):
        name, kind, more = asked[i // 10 % len(asked)], "right", ""
        if i % 10 == 0:
            kind, attack = harm[i // 10 % len(harm)]
            more = f"def attack():\n    {attack}\n\n\n{name} = attack()"
        elif i % 10 in (3, 6):
            kind, more = "wrong", f"{name} = None"
        (folder / f"{i:03} {kind}.py").write_text(f"{solution}\n\n{more}\n# student {i}\n")


def main(name: str = "springs", students: int = 100) -> None:
    found = master.read(ROOT / "coursework" / name)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "in"
        folder.mkdir()
        write(folder, found, students)
        began, load, before = time.perf_counter(), os.getloadavg()[0], os.times()
        grades = grade_folder(folder, found, Path(place) / "out", seed=1)
        wall, after = time.perf_counter() - began, os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    print(f"{name}: {students} submissions, two workers, {os.cpu_count()} cores, load {load:.1f} before and")
    print(f"{os.getloadavg()[0]:.1f} after. {grades.isolation.split(':')[0]}")
    print(f"{wall / 60:.1f} minutes by the clock, {wall / students:.2f} seconds each; processor {cpu / 60:.1f} minutes")
    kinds = Counter(entry.student.split(" ", 1)[1] for entry in grades.entries)
    for kind, count in kinds.items():
        scores = [e.score for e in grades.entries if e.student.endswith(kind)]
        print(f"{kind:20} {count:3}: {min(scores):g} to {max(scores):g} of {grades.points:g} points")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
