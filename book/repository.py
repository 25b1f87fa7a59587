"""Set where the repository lives, in every file that names it.

    make repository URL=https://github.com/you/your-book
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ADDRESS = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")


def slug(url: str) -> str:
    """OWNER/NAME of https://github.com/OWNER/NAME, the part of the address by which Colab and Binder know it."""
    if not (found := ADDRESS.fullmatch(url)):
        sys.exit(f"{url!r} is no address of a repository. Give one such as https://github.com/you/your-book")
    return found[1]


def named_in(root: Path) -> str:
    """The repository that _config.yml names; everything else follows it."""
    return slug(re.search(r"^repository:\n  url: (\S+)$", (root / "_config.yml").read_text(encoding="utf-8"), flags=re.M)[1])


def rename(root: Path, files: list[str], url: str) -> list[str]:
    """Replace OWNER/NAME where it follows the address of GitHub, Colab or Binder; return the files that changed."""
    old, new = re.escape(named_in(root)), slug(url)
    pattern = re.compile(rf"(github\.com/|google\.com/github/|mybinder\.org/v2/gh/){old}(?![\w-])")
    changed = []
    for name in files:
        try:
            before = (root / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture
            continue
        after = pattern.sub(rf"\g<1>{new}", before)
        if after != before:
            (root / name).write_text(after, encoding="utf-8")
            changed.append(name)
    return changed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Say where it lives: make repository URL=https://github.com/you/your-book")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in rename(ROOT, [n for n in tracked.split("\0") if n and (ROOT / n).is_file()], sys.argv[1]):
        print(name)
