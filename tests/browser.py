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


def seen(page: str | Path, folder: Path, width: int, scheme: str) -> tuple[int, np.ndarray]:
    """Pixels that a page needs from side to side, and its picture, `width` x `HEIGHT` BGR.

    `page` is a file; `folder` takes what the browser writes; `scheme` is light or dark.
    """
    browser = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if not browser:
        pytest.skip("SKIPPED FOR LACK OF A BROWSER: no chromium on PATH (apt-get install chromium)")
    frame, picture = folder / "frame.html", folder / "page.png"
    address = html.escape(Path(page).resolve().as_uri())
    frame.write_text(_FRAME.format(page=address, width=width, height=HEIGHT))
    command = [browser, *_FLAGS, f"--user-data-dir={folder}/profile"]
    command += [f"--blink-settings=preferredColorScheme={_SCHEMES[scheme]}"]
    command += [f"--window-size={max(width, 600)},{HEIGHT}"]
    told = []
    for wish in ("--dump-dom", f"--screenshot={picture}"):
        done = subprocess.run(
            [*command, wish, frame.as_uri()], capture_output=True, text=True, timeout=120
        )
        told.append(done.stdout)
        assert done.returncode == 0, done.stderr[-2000:]
    return int(re.search(r'data-wide="(\d+)"', told[0])[1]), cv2.imread(str(picture))[:, :width]
