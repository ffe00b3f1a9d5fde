"""The project's own papers: one version everywhere, links that lead somewhere, a whole wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
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


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(tmp_path):
    def run(*command: object) -> subprocess.CompletedProcess:
        own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, cwd=tmp_path, env=own
        )

    made = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    if made.returncode:
        pytest.skip(f"NO WHEEL CAN BE BUILT HERE: {made.stderr.strip().splitlines()[-1]}")
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "empty", with_pip=True)
    bin = tmp_path / "empty" / "bin"
    installed = run(bin / "pip", "install", "--quiet", wheel)
    if "No matching distribution" in installed.stderr or "Connection" in installed.stderr:
        pytest.skip("NO NETWORK, or no package index, to install the wheel's dependencies from")
    assert installed.returncode == 0, installed.stderr
    assert run(bin / "xresnet", "--version").stdout == f"xresnet {xresnet.__version__}\n"
    assert "43,184,007" in run(bin / "xresnet", "netgen", "xs_resnet50", "--params").stdout
    assert run(bin / "python", "-m", "netgen", "xs_resnet50").stdout.startswith("# XS-ResNet-50")
    drawn = run(bin / "xresnet", "data_prep", "sample", "--per-anp", "2", "--out", "vso")
    assert drawn.returncode == 0 and (tmp_path / "vso" / "ontology.txt").exists(), drawn.stderr
    page = run(bin / "xresnet", "report", "--help")
    assert page.returncode == 0, page.stderr
