"""The Makefile's virtual environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import xresnet

ROOT = Path(__file__).parents[1]
MAKEFILE = ROOT / "Makefile"

pytestmark = pytest.mark.skipif(not MAKEFILE.exists(), reason="no Makefile: not a checkout")


def script(path: Path, status: int) -> Path:
    """A program that notes its arguments in a file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "$@" >> "{path}.calls"\nexit {status}\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("works", [True, False])
def test_an_environment_that_works_keeps_its_python(tmp_path: Path, works: bool) -> None:
    """Another Python laid over an environment mixes two standard libraries."""
    own = script(tmp_path / "venv/bin/python", status=0 if works else 1)
    other = script(tmp_path / "other", status=0)
    stamp = tmp_path / "venv/.ready"
    done = subprocess.run(
        ["make", "-C", str(ROOT), f"VENV={stamp.parent}", f"PYTHON={other}", str(stamp)],
        capture_output=True,
        text=True,
    )
    made_anew = other.with_suffix(".calls")
    if works:
        assert done.returncode == 0 and stamp.exists(), done.stderr
        assert "pip install" in own.with_suffix(".calls").read_text()
        assert not made_anew.exists()
    else:
        assert made_anew.read_text().split() == ["-m", "venv", "--clear", str(stamp.parent)]


PACKAGES = [
    path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()
    and path.name not in ("tests", "bench")
]  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The project's wheel, from a copy of its sources: building leaves files beside them."""
    place = tmp_path_factory.mktemp("wheel")
    junk = shutil.ignore_patterns("__pycache__", ".*")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, place / "source" / name, ignore=junk)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place / "source")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(place)]
    made = subprocess.run(
        [*command, str(place / "source")], capture_output=True, text=True, cwd=place
    )
    if made.returncode:
        pytest.skip(f"NO WHEEL CAN BE BUILT HERE: {made.stderr.strip().splitlines()[-1]}")
    (wheel,) = place.glob("*.whl")
    return wheel


def test_the_wheel_has_every_module_and_file_of_its_packages(wheel: Path) -> None:
    junk = ("__pycache__",)
    wanted = {
        str(path.relative_to(ROOT))
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and not set(junk) & set(path.parts) and not path.name.startswith(".")
    }
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert "xresnet/reproduce/grids/cifar.json" in wanted
    assert sorted(wanted - inside) == []
    assert {name.partition("/")[0] for name in inside if ".dist-info/" not in name} <= set(PACKAGES)


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    def run(*command: object) -> subprocess.CompletedProcess:
        own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, cwd=tmp_path, env=own
        )

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


@pytest.mark.parametrize(
    ("docker", "status", "told"),
    [
        ("echo sha256:abc", 0, "--build-arg DEBIAN=debian:x@sha256:abc"),
        ("exit 0", 1, "docker-pin: no digest of debian:x from this docker"),
        ("echo unknown flag: --format >&2; exit 125", 1, "network: unknown flag: --format"),
        (None, 1, "docker-pin: docker is not on PATH"),
    ],
)
def test_docker_pin_prints_a_digest_or_says_why_not(tmp_path, docker, status, told) -> None:
    if docker is not None:
        script(tmp_path / "docker", 0).write_text(f"#!/bin/sh\n{docker}\n")
    path = f"{tmp_path}:/usr/bin:/bin" if docker else str(tmp_path)
    done = subprocess.run(
        [shutil.which("make"), "-s", "-C", str(ROOT), "docker-pin", "BASE=debian:x"],
        capture_output=True, text=True, env={"PATH": path},
    )  # fmt: skip
    assert told in done.stdout + done.stderr
    assert (done.returncode == 0) == (status == 0)
