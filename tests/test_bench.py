"""The benchmarks' mistakes, one line each; what they measure is docs/PERFORMANCE.md's."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Run a benchmark where packages are missing, and where no Caffe can be found.
WITHOUT = """
import runpy, sys
packages, prog, *argv = sys.argv[1:]
for name in packages.split(","):
    sys.modules[name] = None
sys.prefix = sys.base_prefix
sys.argv = [prog, *argv]
runpy.run_module(prog, run_name="__main__", alter_sys=True)
"""


def told(root, packages: str, *argv: str) -> str:
    """The line that the benchmark ends with."""
    command = [sys.executable, "-c", WITHOUT, packages, *argv]
    ran = subprocess.run(
        command, capture_output=True, text=True, cwd=root, env={"PATH": "/nowhere"}, timeout=100
    )
    assert ran.returncode in (1, 2), ran.stderr
    (line,) = ran.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["bench.gpu"], "torch is not installed here: pip install '.[torch]'"),
        (["bench.torchcaffe_data"], "torch is not installed here"),
        (["bench.torchcaffe_worker", "engine", ".", "1"], "torch is not installed here"),
        (["bench.torchcaffe_peers"], "torch is not installed here"),
        (["bench.netspec_xs"], "caffe is not installed here: run it with pycaffe"),
        (
            ["bench.netgen_speed"],
            "pycaffe is not installed; run: python -m xresnet.realcaffe install",
        ),
        (["bench.torchcaffe_step"], "pycaffe is not installed"),
        (["bench.busy_cores"], "pycaffe is not installed"),
        (["bench.driver_cost", "--data", "nowhere"], "nowhere has no finished LMDBs"),
        (
            ["bench.branch_init", "--data", "none", "--work", "/dev/null/w"],
            "/dev/null/w: Not a dir",
        ),
    ],
)
def test_what_is_missing_is_one_line(argv, line, root):
    assert f"bench: error: {line}" in told(root, "torch,caffe", *argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["bench.torchcaffe_step", "--batch", "0"],
        ["bench.torchcaffe_step", "--rounds", "-1"],
        ["bench.torchcaffe_sizes", "--widths", "8,nan"],
        ["bench.netgen_speed", "--runs", "0"],
        ["bench.data_prep_full_size", "--labels", "x", "--work", "x", "--kills", "-1"],
        ["bench.driver_cost", "--data", "x", "--epochs", "1e9"],
    ],
)
def test_a_number_out_of_range_is_one_line(argv, root):
    assert f"{argv[0]}: error: argument {argv[-2]}: expected" in told(root, "torch", *argv)
