"""The command line's mistakes, which are one line each."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")

from basics.cli import UserError
from torchcaffe.command import main

NET = (
    'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 3, 8, 8] } } } '
    'layer { name: "c" type: "Convolution" bottom: "x" top: "c" '
    "convolution_param { num_output: 2 kernel_size: 3 } } "
    'layer { name: "r" type: "ReLU" bottom: "c" top: "c" }'
)


@pytest.mark.parametrize(
    ("solver", "told"),
    [
        ('net: "none.prototxt" base_lr: 1 lr_policy: "fixed"', "cannot read none.prototxt"),
        ('base_lr: 1 lr_policy: "fixd"', "unknown lr_policy 'fixd' (did you mean 'fixed'?)"),
        ('base_lr: 1 lr_policy: "step" gamma: 0.1', "lr_policy 'step' needs stepsize"),
        ('base_lr: 1 lr_policy: "fixed" type: "Adamm"', "unknown solver type 'Adamm'"),
        ('base_lr: 1 lr_policy: "fixed"', "needs exactly one of net"),
        ('bas_lr: 1 lr_policy: "fixed"', "bas_lr"),
    ],
)
def test_a_mistake_in_the_solver_is_named(solver, told, tmp_path):
    (tmp_path / "s.prototxt").write_text(solver)
    with pytest.raises(UserError) as caught:
        main(["train", "-solver", str(tmp_path / "s.prototxt")])
    assert told in str(caught.value)


def test_show_code_prints_what_runs(tmp_path, capsys):
    (tmp_path / "n.prototxt").write_text(NET)
    assert main(["time", "-model", str(tmp_path / "n.prototxt"), "--show-code"]) == 0
    assert "c = F.relu_(layer['c'](x))" in capsys.readouterr().out


def test_time_reports_each_layer(tmp_path, capsys):
    (tmp_path / "n.prototxt").write_text(NET)
    assert main(["time", "-model", str(tmp_path / "n.prototxt"), "-iterations", "2"]) == 0
    told = capsys.readouterr().err
    assert "Average Forward-Backward" in told
    assert "c\tforward" in told


def test_without_pytorch_one_line_says_what_to_install(root):
    hidden = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['torchcaffe', 'time']; "
        "import runpy; runpy.run_module('torchcaffe', run_name='__main__')"
    )
    ran = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, cwd=root)
    assert ran.returncode == 1
    assert ran.stderr.strip() == (
        "torchcaffe: error: PyTorch is not installed here: pip install '.[torch]'"
    )
