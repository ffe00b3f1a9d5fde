"""README's pictures of the demo's report, docs/figures/demo-{light,dark}.png, in a browser.

python docs/demo.py        `make demo-picture`, after `make demo`
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from xresnet.basics import cli
from xresnet.basics.cli import UserError

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "work/demo/report.html"
SIZE = 1060, 640  # pixels
COLOURS = 256  # of the palette, which halves the file
SCHEMES = {"dark": 0, "light": 1}  # as Chromium numbers them
# The page in a frame, which can be scrolled to a section before the picture is taken.
FRAME = """<!doctype html><style>*{{margin:0;border:0}}</style>
<iframe src="{page}" width="{width}" height="{height}" scrolling="no"></iframe><script>
onload = () => document.querySelector("iframe").contentDocument
  .getElementById("examples").scrollIntoView()
</script>"""


def browser() -> str | None:
    """The program that takes the pictures."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def main(argv: object = None) -> None:
    program = browser()
    if not program:
        raise UserError("no chromium or google-chrome on PATH")
    if not REPORT.exists():
        raise UserError(f"{REPORT} does not exist: run `make demo` first")
    width, height = SIZE
    with tempfile.TemporaryDirectory() as folder:
        frame, shot = Path(folder, "frame.html"), Path(folder, "shot.png")
        frame.write_text(FRAME.format(page=REPORT.as_uri(), width=width, height=height))
        for scheme, number in SCHEMES.items():
            command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
            command += ["--allow-file-access-from-files", f"--user-data-dir={folder}/profile"]
            command += [f"--blink-settings=preferredColorScheme={number}"]
            command += [f"--window-size={width},{height}", f"--screenshot={shot}", frame.as_uri()]
            subprocess.run(command, check=True, capture_output=True)
            path = ROOT / f"docs/figures/demo-{scheme}.png"
            with Image.open(shot) as picture:
                picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(cli.run(main, "demo.py"))
