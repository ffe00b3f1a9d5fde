"""The drawings of the docs that no generator holds, in a browser."""

from __future__ import annotations

import html
import json
import re

from tests.helpers.browser import after

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
