"""Where Chromium or Chrome is installed. Run as a script it prints the place, or fails with how to get one."""

from __future__ import annotations

import shutil
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
MISSING = "no Chromium or Chrome is installed; get one e.g. by apt install chromium"

if __name__ == "__main__":
    sys.exit(MISSING) if CHROMIUM is None else print(CHROMIUM)
