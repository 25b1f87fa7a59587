"""The book builds without a warning, and its pages need nothing but themselves."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup
from pages import CONFIG, EXTRA, PAGES, ROOT, Built

# what a browser fetches by itself, and where its address stands
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "embed": "src"}
FETCHED_LINKS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "manifest", "shortcut"}


@cache
def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def built_page(book: Built, page: str) -> BeautifulSoup:
    return soup(book.html / f"{page}.html")


def outside(address: str) -> bool:
    return bool(urlsplit(address).netloc)


def test_builds_without_a_warning(book: Built) -> None:
    warnings = "\n".join(line for line in book.log.splitlines() if "WARNING" in line or "ERROR" in line)
    assert book.returncode == 0, f"the build failed:\n{warnings or book.log[-3000:]}"
    assert not warnings, warnings


def test_sources_of_all_pages_exist() -> None:
    missing = [p for p in PAGES if not any((ROOT / f"{p}{end}").exists() for end in (".md", ".ipynb"))]
    assert not missing, f"_toc.yml lists pages that are not there: {missing}"


def test_every_text_is_in_the_table_of_contents() -> None:
    texts = {p.relative_to(ROOT).with_suffix("").as_posix() for p in (ROOT / "book").rglob("*.md")}
    assert texts <= set(PAGES), f"not in _toc.yml: {sorted(texts - set(PAGES))}"


def test_pages_are_those_of_the_table_of_contents(book: Built) -> None:
    pages = {p.relative_to(book.html).with_suffix("").as_posix() for p in book.html.rglob("*.html") if "_static" not in p.parts}
    assert pages == {*PAGES, *EXTRA, "index", "404"}
    assert f"url={PAGES[0]}.html" in (book.html / "index.html").read_text(), "index.html must lead to the first page"


@pytest.mark.parametrize("page", PAGES + EXTRA)
def test_page_fetches_nothing_from_elsewhere(book: Built, page: str) -> None:
    wanted = []
    for tag in built_page(book, page).find_all([*FETCHED, "link"]):
        if tag.name == "link" and FETCHED_LINKS.isdisjoint(tag.get("rel", [])):
            continue
        wanted.append(tag.get("href" if tag.name == "link" else FETCHED[tag.name]) or "")
    assert any(address.endswith(".css") or ".css?" in address for address in wanted), "a page without any style sheet"
    assert not [address for address in wanted if outside(address)]


def test_style_sheets_fetch_nothing_from_elsewhere(book: Built) -> None:
    sheets = list(book.html.rglob("*.css"))
    assert book.html / "_static" / "book.css" in sheets
    for sheet in sheets:
        text = sheet.read_text(encoding="utf-8")
        addresses = re.findall(r"(?:url\(|@import\s)\s*['\"]?([^'\")\s;]+)", text)
        assert not [a for a in addresses if outside(a)], sheet.name


def test_mathjax_lies_beside_the_pages(book: Built) -> None:
    with_math = [p for p in PAGES if built_page(book, p).select(".math")]
    assert with_math, "a book on this subject without a formula"
    for page in with_math:
        scripts = [s["src"].split("?")[0] for s in built_page(book, page).find_all("script", src=True) if "mathjax" in s["src"]]
        assert scripts, page
        assert all((book.html / page).parent.joinpath(s).exists() for s in scripts), scripts


@pytest.mark.parametrize("page", PAGES + EXTRA)
def test_links_inside_the_book_arrive(book: Built, page: str) -> None:
    here = book.html / f"{page}.html"
    for tag in soup(here).find_all("a", href=True):
        address = urlsplit(tag["href"])
        if address.scheme or address.netloc or tag["href"] in ("", "#"):
            continue
        there = (here.parent / unquote(address.path)).resolve() if address.path else here
        assert there.exists(), f"{page} links to {tag['href']}, which is not there"
        if address.fragment and there.suffix == ".html" and there.stem not in EXTRA:
            anchor = unquote(address.fragment)
            assert soup(there).find(attrs={"id": anchor}) or soup(there).find(attrs={"name": anchor}), (
                f"{page} links to {tag['href']}: no such place on that page"
            )


@pytest.mark.parametrize("page", [p for p in PAGES if (ROOT / f"{p}.ipynb").exists()])
def test_notebook_page_opens_in_colab(book: Built, page: str) -> None:
    repository = CONFIG["repository"]
    where = urlsplit(repository["url"]).path
    expected = f"https://colab.research.google.com/github{where}/blob/{repository['branch']}/{page}.ipynb"
    assert expected in [a["href"] for a in built_page(book, page).find_all("a", href=True)]


@pytest.mark.parametrize("page", PAGES)
def test_page_has_one_title_and_words_for_every_picture(book: Built, page: str) -> None:
    article = built_page(book, page).find("article")
    assert article and len(article.find_all("h1")) == 1
    for image in article.find_all("img"):
        alt = image.get("alt", "")
        assert alt.strip() and not alt.endswith((".png", ".svg", ".jpg")), f"{image.get('src')}: alt text {alt!r}"
