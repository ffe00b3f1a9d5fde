"""The command line's mistakes, which are one line each."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")

from torchcaffe import direct
from torchcaffe.__main__ import main
from xresnet.basics.cli import UserError
from xresnet.caffeproto import NetParameter

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
        ('base_lr: nan lr_policy: "fixed"', "base_lr: expected a finite number, not nan"),
        ('base_lr: 1 lr_policy: "fixed" max_iter: -5', "max_iter: expected an integer from 0"),
        ('base_lr: 1 lr_policy: "fixed" average_loss: 0', "average_loss: expected an integer from"),
        ('base_lr: 1 lr_policy: "fixed" iter_size: 0', "iter_size: expected an integer from 1"),
        ('base_lr: 1 lr_policy: "fixed" test_iter: 0', "test_iter: expected an integer from 1"),
    ],
)
def test_a_mistake_in_the_solver_is_named(solver, told, tmp_path):
    (tmp_path / "s.prototxt").write_text(solver)
    with pytest.raises(UserError) as caught:
        main(["train", "-solver", str(tmp_path / "s.prototxt")])
    assert told in str(caught.value)


@pytest.mark.parametrize(("prefix", "there"), [(None, "my.solver"), ("in", "in/my.solver")])
def test_snapshots_are_called_as_caffe_calls_them(prefix, there, tmp_path, monkeypatch):
    """Without a prefix, and with one that is a folder; tests/test_docker.py holds Caffe to it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "n.prototxt").write_text(
        'layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 } } } '
        'layer { name: "y" type: "Scale" bottom: "x" top: "y" scale_param { axis: 0 } } '
        'layer { name: "l" type: "Reduction" bottom: "y" top: "l" loss_weight: 1 }'
    )
    solver = 'net: "n.prototxt" base_lr: 1 lr_policy: "fixed" max_iter: 1 solver_mode: CPU '
    solver += f'snapshot_prefix: "{prefix}"' if prefix else ""
    (tmp_path / "my.solver.prototxt").write_text(solver)
    assert main(["train", "-solver", "my.solver.prototxt"]) == 0
    assert (tmp_path / f"{there}_iter_1.solverstate").is_file()


def test_show_code_prints_what_runs(tmp_path, capsys):
    (tmp_path / "n.prototxt").write_text(NET)
    assert main(["time", "-model", str(tmp_path / "n.prototxt"), "--show-code"]) == 0
    assert "c = F.relu_(layer['c'](x))" in capsys.readouterr().out


def test_time_reports_each_layer(tmp_path, capsys):
    (tmp_path / "n.prototxt").write_text(NET)
    assert main(["time", "-model", str(tmp_path / "n.prototxt"), "-iterations", "2"]) == 0
    told = capsys.readouterr().err
    assert "Average Forward pass" in told
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


@pytest.mark.parametrize(
    "wrong",
    [
        ["test", "-iterations", "-3"],
        ["test", "-iterations", "0"],
        ["time", "-iterations", "nan"],
        ["test", "-gpu", "abc"],
        ["test", "-gpu", "-1"],
        ["test", "-level", "1e9"],
        ["export", "--onnx"],
    ],
)
def test_a_number_out_of_range_is_one_line(wrong, capsys):
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"argument {wrong[1]}" in error


DATA = (
    'layer { name: "d" type: "%s" top: "x" %s } '
    'layer { name: "r" type: "ReLU" bottom: "x" top: "y" }'
)


def export(net, folder, *more):
    (folder / "n.prototxt").write_text(net)
    (folder / "w.caffemodel").write_bytes(NetParameter(name="x").SerializeToString())
    files = ["-model", str(folder / "n.prototxt"), "-weights", str(folder / "w.caffemodel")]
    return main(["export", *files, *more])


def test_a_net_that_reads_a_database_is_no_inference_net(tmp_path):
    pytest.importorskip("onnxruntime", reason="NO ONNXRUNTIME HERE: pip install '.[export]'")
    rows = "memory_data_param { batch_size: 1 channels: 3 height: 4 width: 4 }"
    out = ["--onnx", str(tmp_path / "n.onnx")]
    with pytest.raises(UserError, match=r"'d' .MemoryData. reads files: export the deploy form"):
        export(DATA % ("MemoryData", rows), tmp_path, *out)
    with pytest.raises(UserError, match="no input or no output"):
        export('name: "x"', tmp_path, *out)
    assert not (tmp_path / "n.onnx").exists()


def test_what_is_exported_goes_where_it_can(tmp_path):
    pytest.importorskip("onnxruntime", reason="NO ONNXRUNTIME HERE: pip install '.[export]'")
    new = tmp_path / "new"
    given = ["--onnx", str(new / "n.onnx"), "--state-dict", str(new / "s.pth")]
    assert export(NET, tmp_path, *given) == 0
    assert sorted(path.name for path in new.iterdir()) == ["n.onnx", "s.pth"]
    for flag in ("--onnx", "--state-dict"):
        with pytest.raises(OSError, match=r"n\.prototxt"):
            export(NET, tmp_path, flag, str(tmp_path / "n.prototxt" / "n.onnx"))


def test_time_measures_no_backward_pass_where_there_is_none(tmp_path, capsys):
    (tmp_path / "n.prototxt").write_text(NET)
    assert main(["time", "-model", str(tmp_path / "n.prototxt"), "-iterations", "2"]) == 0
    told = capsys.readouterr().err
    assert "backward:" not in told and "Average Backward" not in told
    assert "No backward pass: the net has no loss." in told
    label = 'layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 1 } } } '
    loss = 'layer { name: "f" type: "InnerProduct" bottom: "c" top: "f" inner_product_param { '
    loss += 'num_output: 3 } } layer { name: "l" type: "SoftmaxWithLoss" bottom: "f" bottom: "y" }'
    (tmp_path / "n.prototxt").write_text(label + NET + loss)
    assert main(["time", "-model", str(tmp_path / "n.prototxt"), "-iterations", "2"]) == 0
    told = capsys.readouterr().err
    assert "Average Backward pass" in told and "c\tbackward" in told


@pytest.mark.parametrize(
    ("command", "has", "lacks"),
    [
        ("", ["train", "check", "torchrun"], ["--cuda-graphs"]),
        ("train", ["-solver", "--shuffle", "-sigint_effect"], ["-iterations", "--onnx"]),
        ("test", ["-iterations", "-weights"], ["-solver", "--shuffle", "--show-code"]),
        ("time", ["-model", "--show-code", "--bf16"], ["-weights", "--onnx"]),
        ("export", ["--onnx", "--state-dict"], ["-iterations", "--bf16", "-gpu"]),
        ("check", ["-model", "-phase"], ["-weights", "--bf16"]),
    ],
)
def test_help_needs_no_pytorch_and_differs_by_command(command, has, lacks, root):
    words = ["torchcaffe", *command.split(), "--help"]
    hidden = f"import sys; sys.modules['torch'] = None; sys.argv = {words}; "
    hidden += "import runpy; runpy.run_module('torchcaffe', run_name='__main__')"
    ran = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, cwd=root)
    assert ran.returncode == 0, ran.stderr
    for flag in has:
        assert flag in ran.stdout
    for flag in lacks:
        assert flag not in ran.stdout


def test_check_tells_what_does_not_run(tmp_path, capsys):
    model = tmp_path / "n.prototxt"
    model.write_text(NET)
    assert main(["check", "-model", str(model)]) == 0
    assert capsys.readouterr().out == f"{model}: 3 layers of 3 types, all run\n"
    more = 'layer { name: "p" type: "Python" bottom: "c" top: "p" } '
    more += 'layer { name: "q" type: "ReLU" bottom: "p" top: "q" } '
    more += 'layer { name: "d" type: "Convolution" bottom: "x" top: "d" } '
    model.write_text(NET + more)
    assert main(["check", "-model", str(model)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in told] == ["layer 'p'", "layer 'd' (Convolution)",
                                                         str(model)]  # fmt: skip
    assert told[-1].endswith("2 of 6 layers of 4 types do not run")
    data = 'layer { name: "x" type: "Data" top: "x" data_param { source: "none" batch_size: 1 } } '
    model.write_text(data + NET[NET.index('layer { name: "c"') :] + more)
    assert main(["check", "-model", str(model)]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2  # the Python layer, and the sum


def test_time_takes_the_memory_order_that_train_takes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(direct, "serves", lambda *_: False)  # as for larger nets
    (tmp_path / "n.prototxt").write_text(NET)
    words = ["time", "-model", str(tmp_path / "n.prototxt"), "-iterations", "1"]
    assert main(words) == 0
    assert "channels-last: " in capsys.readouterr().err
    assert main([*words, "--channels-last", "yes"]) == 0
    assert "channels-last: " not in capsys.readouterr().err
