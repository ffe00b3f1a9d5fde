"""`pytest --strict-skips`, which `.ci/run` asks for, and the guard against CUDA's gigabytes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest


@pytest.mark.parametrize(
    ("reason", "status"),
    [("NO PYTORCH HERE: pip install '.[torch]'", 1), ("SKIPPED FOR LACK OF REAL DATA", 0)],
)
def test_a_skip_that_pip_could_mend_fails_the_run(reason, status, root, tmp_path):
    (tmp_path / "test_one.py").write_text(
        f"import pytest\ndef test_here(): pass\ndef test_there(): pytest.skip({reason!r})\n"
    )
    (tmp_path / "conftest.py").write_text("from tests.conftest import *  # noqa\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    for words, wanted in ((["--strict-skips"], status), ([], 0)):
        ran = subprocess.run(
            [*command, *words], capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        assert ran.returncode == wanted, ran.stdout + ran.stderr


def test_gigabytes_are_not_fetched_unasked(root, tmp_path):
    """pip as this test makes it plans CUDA's packages."""
    fake = tmp_path / "pip.py"
    fake.write_text(
        textwrap.dedent(
            """
            import json, sys
            assert "--dry-run" in sys.argv, "it would have fetched"
            names = ["torch", "nvidia-cublas", "triton"]
            print(json.dumps({"install": [{"metadata": {"name": name}} for name in names]}))
            """
        )
    )
    ran = subprocess.run(
        [sys.executable, "-c", HIDDEN, str(root / "tests" / "get_torch.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert ran.returncode == 1, ran.stderr
    assert "pip would fetch PyTorch for CUDA, 2 packages" in ran.stderr


HIDDEN = """
import importlib.util, runpy, sys
importlib.util.find_spec = lambda name: None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
