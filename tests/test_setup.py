"""The Makefile's virtual environment."""

from __future__ import annotations

import subprocess
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
