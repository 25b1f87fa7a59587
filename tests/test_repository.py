"""One address of the repository, the same in every file, and one command that changes it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pages import CONFIG, NOTEBOOKS, ROOT

spec = importlib.util.spec_from_file_location("repository", ROOT / "book" / "repository.py")
repository = importlib.util.module_from_spec(spec)
spec.loader.exec_module(repository)

URL = CONFIG["repository"]["url"]
PLACES = [
    "README.md", "pyproject.toml", "CITATION.cff", "clbook/lab/cli.py", "book/index.md", "book/about.md",
    *(p.relative_to(ROOT).as_posix() for p in [*NOTEBOOKS, *sorted((ROOT / "coursework").rglob("[a-z]*.ipynb"))]),
]  # fmt: skip
NAMED = re.compile(r"(?:github\.com/|google\.com/github/|mybinder\.org/v2/gh/)([\w.-]+/clbook)(?![\w-])")


@pytest.mark.parametrize("place", PLACES)
def test_every_place_names_the_repository_of_the_configuration(place: str) -> None:
    named = set(NAMED.findall((ROOT / place).read_text(encoding="utf-8")))
    assert named == {repository.slug(URL)}, f"run: make repository URL={URL}"


def test_one_command_changes_every_place(tmp_path: Path) -> None:
    files = [*PLACES, "_config.yml"]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    changed = repository.rename(tmp_path, files, "https://github.com/somebody/elsewhere")
    assert set(changed) == set(files)
    old = repository.slug(URL)
    for name in files:
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert f"github.com/{old}" not in text and f"github/{old}" not in text, name
        assert "/somebody/elsewhere" in text, name
    assert repository.named_in(tmp_path) == "somebody/elsewhere"


def test_another_repository_whose_name_begins_the_same_stays(tmp_path: Path) -> None:
    old = repository.slug(URL)
    (tmp_path / "_config.yml").write_text(f"repository:\n  url: https://github.com/{old}\n")
    (tmp_path / "text.md").write_text(f"https://github.com/{old}-data and https://github.com/{old}/issues")
    repository.rename(tmp_path, ["text.md"], "https://github.com/a/b")
    assert (tmp_path / "text.md").read_text() == f"https://github.com/{old}-data and https://github.com/a/b/issues"


@pytest.mark.parametrize("url", ["", "clbook", "https://github.com/somebody", "http://github.com/a/b", "https://gitlab.com/a/b"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SystemExit, match=r"https://github\.com/you/your-book"):
        repository.slug(url)


def test_no_tracked_file_outside_the_places_names_it() -> None:
    """Else a new place would escape the test above."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git here")
    old = repository.slug(URL)
    search = ["git", "grep", "-lIE", f"(github.com|google.com/github|mybinder.org/v2/gh)/{old}"]
    found = subprocess.run(search, cwd=ROOT, capture_output=True, text=True)
    places = set(found.stdout.split()) - {"_config.yml", "CHANGELOG.md"}
    assert places <= set(PLACES), sorted(places - set(PLACES))
