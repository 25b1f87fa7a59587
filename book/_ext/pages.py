"""What Sphinx and its theme leave undone on the pages of this book: mathematics that breaks its lines, light icons, names for
screen readers, buttons under the titles of notebooks, previews of what a link leads to, cards of the parts.

Everything here happens when the book is built; the pages then need no server and no network.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from previews import write_previews
from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger(__name__)

# Where `make` puts the scripts of package.json: in the virtual environment, beside the packages of requirements.txt.
SCRIPTS = Path(sys.prefix, "share", "clbook", "node_modules")
# The parts of MathJax that a page can ask for: 3 of its 70 MB.
MATHJAX = {
    "mathjax/tex-chtml.js": "tex-chtml.js",
    "mathjax/LICENSE": "LICENSE",
    "mathjax/a11y/assistive-mml.js": "a11y/assistive-mml.js",
    "mathjax/input/tex/extensions": "input/tex/extensions",
    "@mathjax/mathjax-newcm-font/chtml": "fonts/mathjax-newcm-font/chtml",
}
NO_MENU = {"enableMenu": False}  # it makes each formula a stop of the tab key: 346 on one page
MATHJAX_CONFIG = {
    "loader": {"paths": {"fonts": "[mathjax]/fonts"}},
    "output": {"displayOverflow": "linebreak", "linebreaks": {"width": "100%"}},
    # spoken formulas need a worker, which a browser refuses to a page that is opened from disk; MathML stays for screen readers
    "options": {
        "enableEnrichment": False,
        "enableSpeech": False,
        "enableBraille": False,
        "enableExplorer": False,
        **NO_MENU,
        "menuOptions": {"settings": {"enrich": False, "speech": False, "braille": False, "assistiveMml": True}},
    },
}


def configure(app: Sphinx, config: Any) -> None:
    """Set what follows from the repository's address, and choose the MathJax that is installed."""
    owner, name = urlsplit(config.html_theme_options["repository_url"]).path.strip("/").split("/")[:2]
    config.html_baseurl = config.ogp_site_url = config.html_baseurl or f"https://{owner}.github.io/{name}/"
    config.ogp_site_name = config.html_title
    config.notfound_urls_prefix = urlsplit(config.html_baseurl).path
    config.notfound_context["body"] = config.notfound_context["body"].replace('href="', f'href="{config.notfound_urls_prefix}')
    if (SCRIPTS / "mathjax").exists():
        config.mathjax_path = "mathjax/tex-chtml.js"
        config.mathjax3_config = MATHJAX_CONFIG
    else:  # where npm could not be reached
        log.info("MathJax 4 is not installed in %s: long formulas will scroll instead of breaking. See `make book`.", SCRIPTS)
        config.mathjax3_config = {"options": NO_MENU}
        app.setup_extension("sphinx-mathjax-offline")


def copy_mathjax(app: Sphinx) -> None:
    target = Path(app.outdir, "_static", "mathjax")
    if target.exists() or not (SCRIPTS / "mathjax").exists():
        return
    for source, name in MATHJAX.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (SCRIPTS / source).is_dir() else shutil.copy
        copy(SCRIPTS / source, target / name)


# Mark-up that screen readers stumble over, and what to write instead.
REPAIRS = [
    (r'role="doc-biblioentry"', 'role="listitem"'),
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    (r"<th\b([^>]*)>\s*(?:<p></p>)?\s*</th>", r"<td\1></td>"),  # empty corners of tables
    (r' id="(exercise|solution)-content"', ""),  # the same on every exercise
    # a short formula and the marks around it may not be parted
    (r'(\(?)(<span class="math [^>]*>\\\([^<]{1,24}\\\)</span>)([.,;:!?)]+)', r'<span class="nobreak">\1\2\3</span>'),
    (r'(\()(<span class="math [^>]*>\\\([^<]{1,24}\\\)</span>)(?=[\s<])', r'<span class="nobreak">\1\2</span>'),
    (r'>Solution to(<a [^>]*>) ', r'>Solution to \1'),  # a space that would be underlined
]


def repair(body: str) -> str:
    for pattern, replacement in REPAIRS:
        body = re.sub(pattern, replacement, body)
    return body


def notebook_buttons(page: str, config: Any) -> str:
    """The line under the title of a notebook: open it in Colab, or download it."""
    options = config.html_theme_options
    place = f"{urlsplit(options['repository_url']).path}/blob/{options['repository_branch']}/{quote(page)}.ipynb"
    colab = f"{options['launch_buttons']['colab_url']}/github{place}"
    source = f"../_sources/{page}.ipynb"
    return (
        '<p class="notebook-buttons">'
        f'<a class="notebook-button" href="{colab}">Open in Colab</a> '
        f'<a class="notebook-button" href="{source}" download>Download the notebook</a></p>'
    )


def finish_body(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if "body" not in context:
        return
    body = repair(context["body"])
    if str(context.get("sourcename", "")).endswith(".ipynb"):
        body = body.replace("</h1>", "</h1>" + notebook_buttons(page, app.config), 1)
    context["body"] = body


# Outside the text, in what the theme writes. Its icon script has 1.5 MB, and its style sheet the same icons as a font.
FRAME = [
    (r"<script [^>]*/fontawesome\.js[^>]*></script>", ""),
    (r'<summary>(?=<span class="toctree-toggle")', '<summary aria-label="Pages of this chapter">'),
]


# The index of all words and what reads it, which only the page of the search needs: it does not search while one types.
SEARCH = (r'<script src="[^"]*(searchtools|language_data|searchindex)\.js[^"]*"></script>', "")


# MathJax, on a page without a formula: Sphinx goes by the source, where a formula may stand in what is not shown.
FORMULAS = (r"<script[^>]*>window\.MathJax.*?</script>|<script [^>]*/tex-chtml\.js[^>]*></script>", "")


def lighten(app: Sphinx) -> None:
    for file in Path(app.outdir).rglob("*.html"):
        html = file.read_text(encoding="utf-8")
        unused = [*([] if file.name == "search.html" else [SEARCH]), *([] if 'class="math' in html else [FORMULAS])]
        for pattern, replacement in FRAME + unused:
            html = re.sub(pattern, replacement, html)
        file.write_text(html, encoding="utf-8")
    # nobody reads the maps of scripts
    for file in [*Path(app.outdir, "_static").rglob("*.map"), *Path(app.outdir, "_static").rglob("fontawesome.js*")]:
        file.unlink(missing_ok=True)


def finish(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        copy_mathjax(app)
        lighten(app)
        if app.builder.name == "html":
            write_previews(app)


def single_page_knows_every_node(app: Sphinx) -> None:
    """Sphinx forgets the HTML of nodes for its builder of one page as soon as any extension names that builder."""
    handlers = app.registry.translation_handlers
    handlers["singlehtml"] = handlers.get("html", {}) | handlers.get("singlehtml", {})


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", configure)
    app.connect("builder-inited", single_page_knows_every_node)
    app.connect("html-page-context", finish_body, priority=900)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
