"""The drawings of the docs that no generator holds, in a browser."""

from __future__ import annotations

import html
import importlib.util
import json
import re

import cv2
import pytest

from tests.helpers.browser import after
from xresnet.basics.cli import UserError

# Each text's box, and whether one of the rectangles but the first, the ground, holds it.
_MEASURE = """<script>
const box = one => one.getBoundingClientRect();
const rects = [...document.querySelectorAll("svg rect")].slice(1).map(box);
const held = [...document.querySelectorAll("svg text")].map(text => { const b = box(text);
  return [text.textContent, rects.some(r => r.left <= b.left && b.right <= r.right - 4
    && r.top <= b.top && b.bottom <= r.bottom)] });
document.body.dataset.held = JSON.stringify(held);
</script>"""


def test_the_engines_drawing_keeps_its_words_in_their_boxes(root, tmp_path):
    svg = (root / "docs/figures/engine.svg").read_text()
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8><body>{svg}{_MEASURE}")
    page = after((tmp_path / "page.html").as_uri(), tmp_path, 1)
    held = dict(json.loads(html.unescape(re.search(r'data-held="(.*?)"', page)[1])))
    assert len(held) > 20 and [text for text, inside in held.items() if not inside] == []


def test_the_engines_drawing_has_a_ground_of_its_own_on_which_arrows_show(root):
    svg = (root / "docs/figures/engine.svg").read_text()
    width, height = re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups()
    assert f'<rect width="{width}" height="{height}" fill="#ffffff"/>' in svg
    lines = [path for path in re.findall(r"<path [^>]*>", svg) if "stroke=" in path]
    assert len(lines) == 11 and all('marker-end="url(#h)"' in path for path in lines)


def demo_module(root, monkeypatch, folder):
    """docs/demo.py, which reads and writes in `folder` as if that were the repository."""
    spec = importlib.util.spec_from_file_location("demo", root / "docs/demo.py")
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    monkeypatch.setattr(demo, "ROOT", folder)
    monkeypatch.setattr(demo, "REPORT", folder / "report.html")
    return demo


def test_readmes_pictures_show_the_reports_examples(root, tmp_path, monkeypatch):
    demo = demo_module(root, monkeypatch, tmp_path)
    if not demo.browser():
        pytest.skip("SKIPPED FOR LACK OF A BROWSER: no chromium on PATH (apt-get install chromium)")
    with pytest.raises(UserError, match="run `make demo` first"):
        demo.main()
    (tmp_path / "docs/figures").mkdir(parents=True)
    (tmp_path / "report.html").write_text(
        "<!doctype html><style>*{margin:0} div{height:4000px} #examples{background:#f00}"
        "@media(prefers-color-scheme:dark){#examples{background:#00f}}</style>"
        "<div></div><div id=examples></div>"
    )
    demo.main()
    for scheme, colour in {"light": (0, 0, 255), "dark": (255, 0, 0)}.items():
        picture = cv2.imread(str(tmp_path / f"docs/figures/demo-{scheme}.png"))
        committed = root / f"docs/figures/demo-{scheme}.png"
        assert picture.shape == cv2.imread(str(committed)).shape == (*demo.SIZE[::-1], 3)
        assert committed.stat().st_size < 150_000
        assert (picture[10, 600] == colour).all()
