"""The live figures are light, keep to their data, and are pictures with words where scripts are off."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from pages import ROOT

from clbook import plots

pytest.importorskip("myst_nb")  # the package is tested without it, too
sys.path.append(str(ROOT / "book" / "_ext"))
import live
import live_export

STATIC = ROOT / "book" / "_static" / "live"
LIMIT = 250_000  # bytes of one figure with its data, its style and its still picture


@pytest.mark.parametrize("name", ["digits.js", "weights.js"])
def test_the_data_beside_the_page_are_those_of_the_package(name: str) -> None:
    stored = (STATIC / name).read_text(encoding="utf-8")
    assert stored == live_export.scripts()[name], "run book/_ext/live_export.py"


@pytest.mark.parametrize("name", live.FIGURES)
def test_a_figure_weighs_at_most_250_kilobytes(name: str) -> None:
    files = [*live.SHARED, *live.FIGURES[name], "live.css", f"{name}.png"]
    assert sum((STATIC / file).stat().st_size for file in files) <= LIMIT


def test_every_file_beside_the_page_belongs_to_a_figure() -> None:
    scripts = {*live.SHARED, *(script for scripts in live.FIGURES.values() for script in scripts)}
    assert {file.name for file in STATIC.iterdir()} == {*scripts, "live.css", *(f"{name}.png" for name in live.FIGURES)}


@pytest.mark.parametrize("script", sorted(path.name for path in STATIC.glob("*.js")))
def test_scripts_run_from_disk_and_ask_for_nothing(script: str) -> None:
    text = (STATIC / script).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|\bfetch\(|XMLHttpRequest|^import |^export |\beval\(|innerHTML|localStorage", text, re.M)


def test_methods_and_tasks_have_the_colours_of_every_other_figure() -> None:
    light = (STATIC / "live.css").read_text(encoding="utf-8").split('html[data-theme="dark"]')[0]
    shown = dict(re.findall(r"--live-(\w+): (#\w{6});", light))
    for key, name in {"a": "task A", "b": "task B", "c": "task C"}.items():
        assert shown[key] == plots.COLOURS[name], name
    for name in ("SGD", "L2", "EWC", "MAS", "LwF", "ER"):
        assert shown[name.lower()] == plots.COLOURS[name], name


SPRINGS = "```{live} springs\n:name: fig-moves\n:alt: Two springs.\n\nThe caption with $x$.\n```"


def built(folder: Path, page: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A book of two pages, the second without a live figure, and what the build said."""
    still = folder / "book" / "_static" / "live" / "springs.png"
    still.parent.mkdir(parents=True)
    still.write_bytes((STATIC / "springs.png").read_bytes())
    (folder / "index.md").write_text(f"# Text\n\n{page}\n\n```{{toctree}}\nother\n```\n")
    (folder / "other.md").write_text("# Other\n\nNothing moves here.\n")
    (folder / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\n"
        "extensions = ['myst_nb', 'live']\nnumfig = True\nmyst_enable_extensions = ['dollarmath']\n"
        f"html_static_path = [{str(ROOT / 'book' / '_static')!r}]\n"
    )
    html = folder / "_build" / "html"
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "--no-color", str(folder), str(html)]
    return subprocess.run(command, capture_output=True, text=True), html


def test_a_live_figure_is_a_numbered_picture_and_its_scripts_are_on_its_page_alone(tmp_path: Path) -> None:
    done, html = built(tmp_path, f"{{numref}}`fig-moves`\n\n{SPRINGS}\n\n{SPRINGS.replace('moves', 'again')}")
    assert done.returncode == 0, done.stderr
    page, other = (BeautifulSoup((html / f"{name}.html").read_text(), "html.parser") for name in ("index", "other"))
    figure = page.find("figure", id="fig-moves")
    assert {"live", "live-springs"} <= set(figure["class"])
    assert figure.find("img")["alt"] == "Two springs." and (html / figure.find("img")["src"]).exists()
    assert figure.find("figcaption").get_text(" ", strip=True).startswith("Fig. 1 The caption with")
    assert page.find("a", href="#fig-moves").get_text() == "Fig. 1"

    scripts = [s for s in page.find_all("script", src=True) if "live/" in s["src"]]
    names = [s["src"].split("?")[0].removeprefix("_static/live/") for s in scripts]
    assert names == live.SHARED + live.FIGURES["springs"], "in order, once each, and none of another figure"
    assert all(s.has_attr("defer") for s in scripts) and all((html / "_static" / "live" / n).exists() for n in names)
    assert any("live/live.css" in link["href"] for link in page.find_all("link"))
    assert not [tag for tag in other.find_all(["script", "link"]) if "live/" in (tag.get("src") or tag.get("href") or "")]


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (SPRINGS.replace("springs", "spring"), "no live figure 'spring': choose one of springs, forget, importance"),
        (SPRINGS.replace(":alt: Two springs.\n", ""), "'springs' needs :alt:"),
    ],
    ids=["unknown", "without words"],
)
def test_a_live_figure_that_cannot_be_stops_the_build(tmp_path: Path, page: str, said: str) -> None:
    done, _ = built(tmp_path, page)
    assert done.returncode != 0 and said in done.stderr
