"""The real thing: Debian's Caffe, started through our wrappers."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.caffe_nets import write_lmdbs
from xresnet import realcaffe
from xresnet.realcaffe import train_log, wrappers

pytestmark = pytest.mark.caffe

NET = """\
name: "tiny"
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 4 dim: 3 } shape { dim: 4 }
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss_noun" }
layer { name: "top1" type: "Accuracy" bottom: "fc" bottom: "label" top: "top1_noun"
  include { phase: TEST } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" include { phase: TEST } }
"""
SOLVER = """\
net: "net.prototxt"
test_iter: 2
test_interval: 10
base_lr: 0.01
lr_policy: "fixed"
snapshot_prefix: "tiny"
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with a tiny net in it."""
    (tmp_path / "net.prototxt").write_text(NET)
    return tmp_path


@pytest.fixture
def prefix(caffe_tools) -> Path:
    """Our prefix; skipped where a Caffe on PATH was preferred."""
    if not wrappers.is_ours(caffe_tools["caffe"]):
        pytest.skip("the Caffe here is not ours")
    (found,) = re.findall(r"^prefix=(.*)$", caffe_tools["caffe"].read_text(), re.MULTILINE)
    return Path(found.strip("'"))


def run(*command: object, cwd: Path | None = None, **options) -> subprocess.CompletedProcess:
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=300, **options)


def test_the_tools_answer(caffe_tools) -> None:
    assert "caffe version" in run(caffe_tools["caffe"], "--version").stdout
    assert re.match(r"\d+\.\d+", realcaffe.version())
    for tool in ("convert_imageset", "compute_image_mean"):
        done = run(caffe_tools[tool])
        assert "Usage:" in done.stdout + done.stderr


def test_pycaffe_is_a_python_with_caffe(caffe_tools, prefix, work) -> None:
    (work / "mine.py").write_text("value = 5")
    (work / "script.py").write_text(
        "import sys, caffe, caffe.io, mine\nprint(caffe.__version__, mine.value, sys.argv[1:])\n"
    )
    environment = {"PYCAFFE_PATH": str(work), "PYTHONPATH": "/of/another", "PYTHONHOME": "/none"}
    done = run(caffe_tools["pycaffe"], work / "script.py", "a b", env=environment)
    assert (done.stdout, done.returncode) == ("1.0.0 5 ['a b']\n", 0), done.stderr
    assert run(caffe_tools["pycaffe"], "-c", "raise SystemExit(3)").returncode == 3


def test_openblas_computes_with_what_the_cpu_has(prefix, monkeypatch) -> None:
    told = re.search(r"^flags.*", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0].split()
    best = {"avx512vl": "SkylakeX", "avx2": "Haswell"}
    wanted = next((name for flag, name in best.items() if flag in told), None)
    if wanted is None:
        pytest.skip("no AVX2 here")
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    assert realcaffe.kernels() == wanted
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    assert realcaffe.kernels() == "Nehalem"


def test_log_files_are_written_only_where_a_folder_is_named(caffe_tools, work, monkeypatch):
    """By default glog copies each call's log into the temporary folder, for ever."""
    (work / "solver.prototxt").write_text(SOLVER + "max_iter: 1\nsolver_mode: CPU\n")
    folders = [work / "tmp", work / "logs", work / "mine"]
    for folder in folders:
        folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folders[0]))
    command = [caffe_tools["caffe"], "train", "-solver", "solver.prototxt"]
    assert "Optimization Done" in run(*command, cwd=work).stderr
    run(caffe_tools["convert_imageset"], "./", "none.txt", "lmdb", cwd=work)
    code = "import caffe; caffe.Net('net.prototxt', caffe.TEST)"
    assert run(caffe_tools["pycaffe"], "-c", code, cwd=work).returncode == 0
    assert not list(folders[0].iterdir())
    assert "Optimization Done" in run(*command, f"-log_dir={folders[1]}", cwd=work).stderr
    assert (folders[1] / "caffe.INFO").exists()
    monkeypatch.setenv("GLOG_log_dir", str(folders[2]))
    assert run(*command, cwd=work).returncode == 0
    assert (folders[2] / "caffe.INFO").exists()


def go_on(process: subprocess.Popen, log: Path) -> None:
    """Until the log tells of ten more of Caffe's test passes."""
    begun, deadline = log.read_text().count("Iteration"), time.monotonic() + 60
    while log.read_text().count("Iteration") < begun + 10:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def test_a_signal_that_is_blocked_stays_blocked(caffe_tools, work) -> None:
    """dash unblocks all once it has waited for a child, and reproduce relies on SIGTERM's."""
    (work / "solver.prototxt").write_text(SOLVER + "max_iter: 100000000\nsolver_mode: CPU\n")
    launch = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
    launch += "os.execv(sys.argv[1], sys.argv[1:])"
    command = [caffe_tools["caffe"], "train", "-solver", "solver.prototxt"]
    with (work / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", launch, *command], cwd=work, stderr=log)
    try:
        go_on(process, work / "log")
        process.terminate()
        go_on(process, work / "log")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert "Optimization stopped early" in (work / "log").read_text()


@pytest.mark.parametrize(
    "line", ["solver_mode: GPU", "max_iter: 1 solver_mode :GPU # or CPU", "solver_mode:1"]
)
def test_a_solver_file_for_a_gpu_is_known(caffe_tools, work, line) -> None:
    (work / "solver.prototxt").write_text(f"# solver_mode: CPU\n{SOLVER}{line}")
    command = (caffe_tools["caffe"], "train", "-solver", "solver.prototxt")
    assert "CPU-only build" in run(*command, cwd=work).stderr
    (work / "solver.prototxt").write_text(f"{SOLVER}max_iter: 1\nsolver_mode: CPU # {line}\n")
    assert run(*command, cwd=work).returncode == 0


def test_pycaffe_can_start_itself(caffe_tools, prefix, work) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import caffe'], check=1)"
    done = run(caffe_tools["pycaffe"], "-c", code, cwd=work)
    assert done.returncode == 0, done.stderr


def test_every_library_comes_from_the_prefix(caffe_tools, prefix) -> None:
    """No tool lacks one, and none takes the host's: the lock file's packages suffice."""
    libraries = ":".join(str(prefix / folder) for folder in wrappers.LIBRARIES)
    for program in wrappers.PROGRAMS.values():
        loader = [prefix / wrappers.LOADER, "--inhibit-cache", "--library-path", libraries]
        listed = run(*loader, "--list", prefix / program).stdout
        assert "libc.so.6" in listed and "not found" not in listed
        for path in re.findall(r"=> (\S+)", listed):
            assert path.startswith(str(prefix)), listed
    code = (
        "import caffe, caffe.io, skimage.io, scipy.ndimage, h5py, google.protobuf, PIL.Image\n"
        "print(*{line.split()[-1] for line in open('/proc/self/maps') if '.so' in line}, sep='\\n')"
    )
    loaded = run(caffe_tools["pycaffe"], "-c", code).stdout.split()
    assert len(loaded) > 100
    assert all(path.startswith(str(prefix)) for path in loaded)


def test_convert_imageset_and_the_mean(caffe_tools, work) -> None:
    make = (
        "import numpy, PIL.Image\n"
        "for n in range(3):\n"
        "    PIL.Image.fromarray(numpy.full((20, 30, 3), 40 * n, 'uint8')).save(f'{n}.jpg')"
    )
    assert run(caffe_tools["pycaffe"], "-c", make, cwd=work).returncode == 0
    (work / "list.txt").write_text("".join(f"{n}.jpg {n}\n" for n in range(3)))
    size = ("--resize_width=8", "--resize_height=8")
    done = run(caffe_tools["convert_imageset"], *size, "./", "list.txt", "lmdb", cwd=work)
    assert done.returncode == 0 and "Processed 3 files" in done.stderr
    done = run(caffe_tools["compute_image_mean"], "lmdb", "mean.binaryproto", cwd=work)
    assert done.returncode == 0
    assert re.findall(r"mean_value channel \[\d\]: (\d+)", done.stderr) == ["40"] * 3


def test_a_python_layer_runs_inside_caffe(caffe_tools, prefix, work) -> None:
    (work / "ones.py").write_text(
        "import caffe\n"
        "class Ones(caffe.Layer):\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(2, 3)\n"
        "    def forward(self, bottom, top): top[0].data[...] = 1\n"
        "    def backward(self, top, propagate_down, bottom): pass\n"
    )
    (work / "python.prototxt").write_text(
        'layer { name: "p" type: "Python" top: "p" python_param { module: "ones" layer: "Ones" } }'
    )
    command = (caffe_tools["caffe"], "time", "-model", "python.prototxt", "-iterations", "1")
    done = run(*command, cwd=work, env={"PYCAFFE_PATH": str(work), "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr


def test_a_prefix_with_spaces(prefix, work) -> None:
    spaced = work / "a prefix, it's odd"
    spaced.symlink_to(prefix)
    for tool in wrappers.PROGRAMS:
        wrappers.write(work / "my bin" / tool, wrappers.text(tool, spaced))
    assert "1.0.0" in run(work / "my bin" / "caffe", "--version").stdout
    done = run(work / "my bin" / "pycaffe", "-c", "import caffe; print(caffe.__version__)")
    assert done.stdout == "1.0.0\n", done.stderr


def test_logs_of_train_and_test_are_read(caffe_tools, work) -> None:
    (work / "solver.prototxt").write_text(SOLVER + "display: 5 max_iter: 30 snapshot: 20")
    done = run(caffe_tools["caffe"], "train", "-solver", "solver.prototxt", cwd=work)
    assert done.returncode == 0
    events = list(train_log.read(done.stderr.splitlines()))
    steps = [event for event in events if isinstance(event, train_log.TrainStep)]
    passes = [event for event in events if isinstance(event, train_log.TestPass)]
    assert [step.iteration for step in steps] == [0, 5, 10, 15, 20, 25]
    for step in steps:  # the mean over one iteration differs in the last digit
        assert (step.lr, step.outputs) == (0.01, {"loss_noun": pytest.approx(step.loss, rel=1e-5)})
    assert [one.iteration for one in passes] == [0, 10, 20, 30]
    names = ["loss_noun", "prob", *[f"prob[{n}]" for n in range(1, 8)], "top1_noun"]
    assert all(list(one.outputs) == names and one.net == 0 for one in passes)
    written = [event.path for event in events if isinstance(event, train_log.Snapshot)]
    assert written == [
        f"tiny_iter_{n}.{kind}" for n in (20, 30) for kind in ("caffemodel", "solverstate")
    ]
    assert isinstance(events[-3], train_log.FinalLoss) and events[-3].iteration == 30
    assert events[-1] == train_log.Done()

    command = (caffe_tools["caffe"], "test", "-model", "net.prototxt", "-iterations", "3")
    done = run(*command, "-weights", "tiny_iter_30.caffemodel", cwd=work)
    (result,) = train_log.read(done.stderr.splitlines())
    assert list(result.outputs) == names
    assert result.loss == result.outputs["loss_noun"]
    printed = re.findall(r"Batch \d, top1_noun = (\S+)", done.stderr)
    assert result.outputs["top1_noun"] == pytest.approx(sum(map(float, printed)) / 3, abs=1e-5)


def test_hangup_snapshots_and_ctrl_c_stops(caffe_tools, work) -> None:
    (work / "solver.prototxt").write_text(SOLVER + "display: 1000 max_iter: 100000000")
    process = subprocess.Popen(
        [caffe_tools["caffe"], "train", "-solver", "solver.prototxt"],
        cwd=work,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    reader = train_log.Reader()
    seen: list[train_log.Event] = []
    deadline = time.monotonic() + 60
    sent = []
    for line in process.stderr:
        assert time.monotonic() < deadline
        seen += reader.feed(line)
        if not sent and any(isinstance(event, train_log.TrainStep) for event in seen):
            sent.append(signal.SIGHUP)
            process.send_signal(signal.SIGHUP)
        if len(sent) == 1 and sum(isinstance(event, train_log.Snapshot) for event in seen) == 2:
            sent.append(signal.SIGINT)
            process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    # Two each for SIGHUP and for the end, which may fall into one iteration.
    written = [event.path for event in seen if isinstance(event, train_log.Snapshot)]
    assert len(written) == 4 and all((work / path).exists() for path in written)
    assert seen[-1] == train_log.Done(early=True)


def test_a_fatal_error_keeps_its_status(caffe_tools, work) -> None:
    done = run(caffe_tools["caffe"], "train", "-solver", "missing.prototxt", cwd=work)
    assert done.returncode == -signal.SIGABRT
    (event,) = train_log.read(done.stderr.splitlines())
    assert isinstance(event, train_log.Fatal) and "missing.prototxt" in event.message


@pytest.mark.parametrize(
    ("mode", "arguments"), [("", ["-gpu", "0"]), ("solver_mode: GPU", []), ("", ["--gpu=all"])]
)
def test_asking_the_cpu_build_for_a_gpu(caffe_tools, prefix, work, mode, arguments) -> None:
    (work / "solver.prototxt").write_text(SOLVER + "max_iter: 3\n" + mode)
    command = (caffe_tools["caffe"], "train", "-solver", "solver.prototxt", *arguments)
    done = run(*command, cwd=work)
    assert done.returncode == 128 + signal.SIGABRT
    fatal, explanation = done.stderr.index("Cannot use GPU"), done.stderr.index("CPU-only build")
    assert fatal < explanation
    assert "solver_mode: CPU" in done.stderr and "leave out -gpu" in done.stderr


def test_no_mode_in_the_solver_means_the_cpu(caffe_tools, work) -> None:
    (work / "solver.prototxt").write_text(SOLVER + "max_iter: 3")
    done = run(caffe_tools["caffe"], "train", "-solver", "solver.prototxt", cwd=work)
    assert done.returncode == 0 and "Use CPU." in done.stderr


DATA = """\
name: "reads"
layer {{ name: "x" type: "Data" top: "x" include {{ phase: TRAIN }}
  data_param {{ source: "{train}" batch_size: 1 backend: LMDB }} }}
layer {{
  name: "x"
  type: "Data"
  top: "x"
  include {{
    phase: TEST
  }}
  data_param {{
    source: "{test}"  # 'of the other phase'
    batch_size: 1
    backend: LMDB
  }}
}}
layer {{ name: "s" type: "Silence" bottom: "x" }}
"""


@pytest.mark.parametrize(
    ("command", "there", "missing"),
    [
        ("train -solver solver.prototxt", [], ("vso/train_image_lmdb", 3)),
        ("train -solver solver.prototxt", ["vso/train_image_lmdb"], ("vso/test_image_lmdb", 12)),
        ("train --solver=solver.prototxt -gpu 0", [], ("vso/train_image_lmdb", 3)),
        ("test -model net.prototxt -iterations 1", [], ("vso/test_image_lmdb", 12)),
        ("time -model=net.prototxt", [], ("vso/train_image_lmdb", 3)),
        ("time -model net.prototxt -phase TEST", [], ("vso/test_image_lmdb", 12)),
    ],
)
def test_data_that_is_not_there_is_named(caffe_tools, prefix, work, command, there, missing):
    text = DATA.format(train="vso/train_image_lmdb", test="vso/test_image_lmdb")
    (work / "net.prototxt").write_text(text)
    (work / "solver.prototxt").write_text(SOLVER + "max_iter: 1\nsolver_mode: CPU\n")
    for path in there:
        (work / path).mkdir(parents=True)
    done = run(caffe_tools["caffe"], *command.split(), cwd=work)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        f"caffe: there is no database {missing[0]}, which net.prototxt reads (line {missing[1]});"
        f" paths start in {work}. To make it: python -m data_prep run --out vso (see its --help)\n"
    )


@pytest.mark.parametrize(
    ("command", "net", "solver"),
    [
        ("train -solver solver.prototxt", DATA, "test_iter"),  # it tests nothing
        ("time -model net.prototxt", DATA, ""),
        ("train -solver solver.prototxt", DATA.replace("phase: TEST", "stage: 'x'"), "test_iter"),
        ("train -solver solver.prototxt", "# layer {{ type: 'Data' }}\n" + DATA, "test_iter"),
    ],
)
def test_data_that_no_layer_at_work_reads_is_not_asked_for(
    caffe_tools, prefix, work, command, net, solver
):
    write_lmdbs(work, (2,), count=2, size=4)
    train = next(work.glob("train_image_lmdb"))
    (work / "net.prototxt").write_text(net.format(train=train, test="none").replace("'", '"'))
    kept = [line for line in SOLVER.splitlines() if not (solver and line.startswith("test_"))]
    mode = "max_iter: 1\nsolver_mode: CPU\n"
    (work / "solver.prototxt").write_text("\n".join([*kept, mode]))
    done = run(caffe_tools["caffe"], *command.split(), "-iterations", "1", cwd=work)
    assert "there is no database" not in done.stderr and "Check failed" not in done.stderr
    assert done.returncode == 0, done.stderr
