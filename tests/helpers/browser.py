"""A page as a real browser shows it: how wide it is, and its picture."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

HEIGHT = 3000
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--allow-file-access-from-files",
)
_SCHEMES = {"dark": 0, "light": 1}
# A browser's window has a least width; a frame in it has none.
_FRAME = """<!doctype html><meta charset="utf-8"><style>*{{margin:0;border:0;padding:0}}</style>
<iframe src="{page}" width="{width}" height="{height}"></iframe><script>
onload = () => {{ document.body.dataset.wide =
  document.querySelector("iframe").contentDocument.documentElement.scrollWidth }}
</script>"""


def after(address: str, folder: Path, seconds: int) -> str:
    """The elements of a page so many seconds after it was opened, of the page's own time."""
    return _run(["--dump-dom", f"--virtual-time-budget={1000 * seconds}", address], folder)


def seen(page: str | Path, folder: Path, width: int, scheme: str) -> tuple[int, np.ndarray]:
    """Pixels that a page needs from side to side, and its picture, `width` x `HEIGHT` BGR.

    `page` is a file; `folder` takes what the browser writes; `scheme` is light or dark.
    """
    frame, picture = folder / "frame.html", folder / "page.png"
    address = html.escape(Path(page).resolve().as_uri())
    frame.write_text(_FRAME.format(page=address, width=width, height=HEIGHT))
    look = [f"--blink-settings=preferredColorScheme={_SCHEMES[scheme]}"]
    look += [f"--window-size={max(width, 600)},{HEIGHT}", frame.as_uri()]
    told = _run(["--dump-dom", *look], folder)
    _run([f"--screenshot={picture}", *look], folder)
    return int(re.search(r'data-wide="(\d+)"', told)[1]), cv2.imread(str(picture))[:, :width]


def _run(arguments: list[str], folder: Path) -> str:
    """What the browser prints."""
    browser = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if not browser:
        pytest.skip("SKIPPED FOR LACK OF A BROWSER: no chromium on PATH (apt-get install chromium)")
    command = [browser, *_FLAGS, f"--user-data-dir={folder}/profile", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
