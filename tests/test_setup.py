"""The Makefile's virtual environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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


def test_the_wheel_has_every_module_and_file_of_its_packages(tmp_path: Path) -> None:
    packages = [
        path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()
        and path.name not in ("tests", "bench")
    ]  # fmt: skip
    junk = shutil.ignore_patterns("__pycache__", ".*")
    for name in packages:
        shutil.copytree(ROOT / name, tmp_path / "source" / name, ignore=junk)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "source")
    wanted = {
        str(path.relative_to(tmp_path / "source"))
        for name in packages
        for path in (tmp_path / "source" / name).rglob("*")
        if path.is_file()
    }
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path)]
    made = subprocess.run(
        [*command, str(tmp_path / "source")], capture_output=True, text=True, cwd=tmp_path
    )
    if made.returncode:
        pytest.skip(f"NO WHEEL CAN BE BUILT HERE: {made.stderr.strip().splitlines()[-1]}")
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert "xresnet/reproduce/grids/cifar.json" in wanted
    assert sorted(wanted - inside) == []
    assert {name.partition("/")[0] for name in inside if ".dist-info/" not in name} <= set(packages)


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
