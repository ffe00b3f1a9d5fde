"""The project's own papers: one version everywhere, links that lead somewhere, a whole wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xresnet

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def test_the_version_is_the_same_everywhere():
    version = re.escape(xresnet.__version__)
    labels = re.findall(r'image\.version="(.*?)"', (ROOT / "Dockerfile").read_text())
    assert labels and set(labels) == {xresnet.__version__}
    assert re.search(rf"^version: {version}$", (ROOT / "CITATION.cff").read_text(), re.M)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest[1] == xresnet.__version__
    for name in ("xresnet", "netgen", "data_prep", "torchcaffe", "xresnet.realcaffe"):
        command = [sys.executable, "-m", name, "--version"]
        told = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        assert told.stdout.split()[-1] == xresnet.__version__, name


def test_bare_make_prints_the_targets():
    told = subprocess.run(["make", "-s"], capture_output=True, text=True, cwd=ROOT, check=True)
    listed = set(re.findall(r"make ([\w-]+)", told.stdout))
    rules = re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(), re.M)
    phony = set(re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split())
    assert phony - {"help", "caffe-cuda"} <= listed and phony <= set(rules)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual forges make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    kept = (re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", h)).strip().lower() for h in headings)
    return {h.replace(" ", "-") for h in kept}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    code = r"^```.*?^```|^    [^\n]*$|`[^`\n]*`"
    text = re.sub(code, "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name}: {link}"


def test_the_site_is_built_and_takes_nothing_from_elsewhere(tmp_path):
    """Strictly: a page that nothing leads to, or a link to nowhere, is an error."""
    pytest.importorskip("mkdocs", reason="mkdocs")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", site]
    own = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=own)
    assert made.returncode == 0, made.stderr
    pages = list(site.glob("*.html"))
    assert {page.stem for page in pages} >= {"index", "RESULTS", "DATA", "ENGINE"}
    for page in pages:
        html = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img)[^>]* src="https?:', html)
        assert not re.findall(r'<link[^>]*stylesheet[^>]* href="https?:', html)
