"""What of the images can be held to in minutes: patches, scripts, the Dockerfile, stopping."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xresnet.basics import cache
from xresnet.realcaffe import train_log

ROOT = Path(__file__).resolve().parent.parent

DOCKER = ROOT / "docker"
SCRIPTS = sorted([*DOCKER.glob("*.sh"), *(ROOT / "bench").glob("*.sh")])


@pytest.fixture(scope="session")
def caffe_source(tmp_path_factory) -> Path:
    """Debian's source package of Caffe, fetched once into the user's cache."""
    folder = cache.folder("caffe") / "source"
    command = [sys.executable, DOCKER / "fetch.py", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"NOT TESTED FOR LACK OF A NETWORK: {done.stderr}")
    return Path(done.stdout.strip())


def test_every_patch_says_why_and_applies_exactly(caffe_source, tmp_path) -> None:
    subprocess.run(["tar", "-xzf", caffe_source, "-C", tmp_path], check=True)
    patches = sorted((DOCKER / "patches").glob("*.patch"))
    assert len(patches) == 7
    for patch in patches:
        reason = patch.read_text().split("\n--- a/")[0].strip()
        assert len(reason.splitlines()) > 2, f"{patch.name} gives no reason"
        if shutil.which("patch"):
            command = ["patch", "-p1", "--fuzz=0", "--silent", "-d", tmp_path, "-i", patch]
        else:  # it is git that every developer has
            command = ["git", "apply", "--directory", tmp_path.name, patch]
        cwd = tmp_path.parent if command[0] == "git" else None
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, f"{patch.name}: {done.stdout}{done.stderr}"
    # What no compiler of today takes is gone.
    assert "536870912" not in (tmp_path / "src/caffe/util/io.cpp").read_text()
    for layer in ("conv", "deconv"):
        text = (tmp_path / f"src/caffe/layers/cudnn_{layer}_layer.cpp").read_text()
        assert len(re.findall(r"Algorithm_v7\(", text)) == 3
        assert not re.search(r"cudnnGetConvolution\w+Algorithm\(", text)


def _linter(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    assert found, f"no {name} in the environment: make setup"
    return found


def test_scripts_pass_shellcheck() -> None:
    done = subprocess.run([_linter("shellcheck"), *SCRIPTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_passes_hadolint(root) -> None:
    command = [_linter("hadolint"), "--no-color", root / "Dockerfile"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_only_the_fetch_stages_use_the_network(root) -> None:
    stage = ""
    text = re.sub(r"\\\n", " ", (root / "Dockerfile").read_text())
    for line in text.splitlines():
        if line.startswith("FROM "):
            stage = line.split(" AS ")[1]
        elif line.startswith("RUN ") and not stage.startswith("fetch"):
            assert line.startswith("RUN --network=none"), f"{stage}: {line}"


def test_nothing_floats(root) -> None:
    for name in ("Dockerfile", "compose.yaml"):
        text = (root / name).read_text()
        assert not re.search(r"^(FROM|.*image:).*:latest", text, re.MULTILINE)
    for name in ("nvidia.txt", "python.txt", "weights.txt"):
        for line in (DOCKER / name).read_text().splitlines():
            assert line.startswith("#") or re.match(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line)


def test_the_image_has_what_pyproject_asks_for(root) -> None:
    block = re.search(
        r"^dependencies = \[(.*?)^\]", (root / "pyproject.toml").read_text(), re.M | re.S
    )
    wanted = set(re.findall(r'^ *"([\w-]+)', block[1], re.MULTILINE))
    pinned = set(re.findall(r"^([\w-]+)==", (DOCKER / "python.txt").read_text(), re.MULTILINE))
    assert pinned >= wanted, "run docker/pin.sh"


def test_the_weights_are_fetched_with_what_their_stage_copies(root, tmp_path) -> None:
    stage = (root / "Dockerfile").read_text().split(" AS fetch-weights\n")[1].split("\nFROM ")[0]
    copied = ["xresnet/__init__.py", "xresnet/basics"]  # in the stage before
    copied += re.findall(r"^COPY ([\w/]+) \1$", stage, re.MULTILINE)
    (tmp_path / "xresnet").mkdir()
    for name in copied:
        (tmp_path / name).symlink_to(root / name)
    pinned = re.search(r"find-links /fetch/wheels (?:\\\n)? *([\w ]+?) *\\", stage)[1].split()
    seen = "|".join([*pinned, "google", "xresnet", "netgen"])
    code = (
        "import sys; from netgen.weights import command; from pathlib import Path\n"
        "mods = {m.split('.')[0]: getattr(x, '__file__', None) for m, x in sys.modules.items()}\n"
        "print([m for m, f in mods.items() if f and 'site-packages' in f])"
    )
    command = [sys.executable, "-c", code]
    clean = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for module in re.findall(r"'(\w+)'", done.stdout):
        ours = module.startswith(("_", "sitecustomize", "distutils"))
        assert ours or re.fullmatch(seen, module), module


def test_the_image_has_every_package_of_ours(root) -> None:
    block = re.search(r"^packages = \[(.*?)\]", (root / "pyproject.toml").read_text(), re.M | re.S)
    packages = re.findall(r'"(\w+)["./]', block[1])
    seen = re.findall(r"^!(\w+)$", (root / ".dockerignore").read_text(), re.MULTILINE)
    assert {"netgen", "xresnet", *packages} <= set(seen)


# ---- scripts that write where they are told to -----------------------------------------

CMAKE = """\
#!/bin/sh
# As CMake installs Caffe: to $DESTDIR and the prefix that it was configured with.
case $1 in
--install)
    to=$DESTDIR$(cat "$2.prefix")
    mkdir -p "$to/bin" "$to/lib" "$to/include" "$to/share"
    touch "$to/include/caffe.hpp" "$to/share/CaffeConfig.cmake" "$to/lib/libproto.a"
    echo '#!/bin/sh' >"$to/bin/caffe" && chmod +x "$to/bin/caffe"
    ;;
*)
    for word; do
        case $word in -DCMAKE_INSTALL_PREFIX=*) prefix=${word#*=} ;; *caffe-out) out=$word ;; esac
    done
    echo "$prefix" >"$out.prefix"
    ;;
esac
"""


def test_a_build_removes_nothing_of_others(tmp_path) -> None:
    """PREFIX may be /usr/local, and BUILD a folder with a `src` of one's own."""
    tools, build, prefix = tmp_path / "tools", tmp_path / "build", tmp_path / "local"
    tools.mkdir()
    for name in ("cmake", "ninja", "protoc", "patch", "c++"):
        (tools / name).write_text(CMAKE if name == "cmake" else "#!/bin/sh\n")
        (tools / name).chmod(0o755)
    others = [build / "src" / "a.cpp"]
    others += [prefix / name for name in ("include/a.h", "share/a", "lib/liba.a")]
    for path in others:
        path.parent.mkdir(parents=True)
        path.touch()
    (tmp_path / "LICENSE").touch()
    subprocess.run(["tar", "-czf", "source.tar.gz", "LICENSE"], cwd=tmp_path, check=True)
    command = [DOCKER / "build.sh", "cpu", "source.tar.gz", prefix]
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "BUILD": "build"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(path.exists() for path in others)
    assert os.access(prefix / "bin" / "pycaffe", os.X_OK) and (prefix / "bin" / "caffe").exists()
    assert not (prefix / "include" / "caffe.hpp").exists()
    assert not (prefix / "lib" / "libproto.a").exists()


def test_a_toolkit_is_made_in_a_folder_of_its_own(tmp_path) -> None:
    (tmp_path / "bin").mkdir()
    command = [DOCKER / "toolkit.sh", tmp_path, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and (tmp_path / "bin").exists()
    assert done.stderr.startswith(f"toolkit.sh: {tmp_path} was not made by this script")


def test_a_toolkit_that_lacks_a_library_is_named(tmp_path) -> None:
    libraries = ["cudart", "cublas", "cublasLt", "curand", "nccl", "nvrtc", "nvrtc-builtins"]
    (tmp_path / "cuda" / "lib64").mkdir(parents=True)
    (tmp_path / "cuda" / "licenses").mkdir()
    for name in libraries:
        (tmp_path / "cuda" / "lib64" / f"lib{name}.so.13").touch()
    command = [DOCKER / "runtime.sh", tmp_path / "cuda", tmp_path / "a"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"runtime.sh: no libcudnn.so.* in {tmp_path}/cuda/lib64\n"
    (tmp_path / "cuda" / "lib64" / "libcudnn.so.9").touch()
    subprocess.run([*command[:-1], tmp_path / "b"], check=True)
    assert len(list((tmp_path / "b" / "lib64").iterdir())) == 8


# ---- the entry point, with real Caffe -------------------------------------------------

NET = """\
name: "endless"
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 8 dim: 16 } shape { dim: 8 }
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""
SOLVER = """\
net: "net.prototxt"
base_lr: 0.001
lr_policy: "fixed"
display: 100
max_iter: 100000000
solver_mode: CPU
snapshot_prefix: "snapshot"
"""


@pytest.fixture
def inside(tmp_path, caffe_tools):
    """Starts the entry point as a container would: its /data is a folder of the test's."""
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    started = []

    def start(*words: str, **variables: str) -> subprocess.Popen:
        path = f"{caffe_tools['caffe'].parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        # As one who is no root, it keeps who it is; the tests may run as root.
        own = {"XRESNET_USER_SET": "1", "XRESNET_DATA": str(tmp_path), "PATH": path}
        # As the image has it for a Caffe built from source; realcaffe's wrappers say it themselves.
        own["GLOG_logtostderr"] = "1"
        process = subprocess.Popen(
            [DOCKER / "entrypoint.sh", *words],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **own, **variables},
        )
        started.append(process)
        return process

    # nohup leaves SIGHUP ignored, and no shell can trap what it was born to ignore.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield start
    signal.signal(signal.SIGHUP, before)
    for process in started:
        process.terminate()  # the entry point ends Caffe, which a kill would leave behind
        try:
            process.communicate(timeout=60)  # reads on: Caffe may be waiting to be read
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(process: subprocess.Popen, words: str) -> list[str]:
    """The lines of stderr up to the first with `words`."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return lines
    pytest.fail(f"no {words!r} in\n{''.join(lines)}")


@pytest.mark.caffe
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_docker_stop_makes_a_snapshot_and_the_next_run_takes_it_up(inside, tmp_path, number):
    first = inside("caffe", "train", "-solver", "solver.prototxt")
    _until(first, "Iteration 300")
    first.send_signal(number)
    rest = first.stderr.read()
    assert first.wait(60) == 0
    assert "Snapshotting solver state" in rest
    (state,) = tmp_path.glob("snapshot_iter_*.solverstate")
    stopped = int(re.findall(r"\d+", state.name)[0])
    assert stopped >= 300

    (tmp_path / "old.caffemodel").write_bytes(b"")  # only Caffe's refusal would open it
    command = ["caffe", "train", "--solver=solver.prototxt", "-weights", "old.caffemodel"]
    second = inside(*command)
    said = "".join(_until(second, "Iteration"))
    assert "going on from snapshot_iter_" in said
    assert int(re.search(r"Iteration (\d+)", said.splitlines()[-1])[1]) >= stopped
    second.send_signal(signal.SIGHUP)  # a snapshot, and on
    _until(second, "Snapshotting solver state")
    _until(second, "Iteration")
    second.send_signal(number)
    second.stderr.read()
    assert second.wait(60) == 0
    assert len(list(tmp_path.glob("*.solverstate"))) == 3

    third = inside(*command[:3], RESUME="0")
    assert "Iteration 0 (" in _until(third, "Iteration")[-1]


@pytest.mark.caffe
@pytest.mark.parametrize(
    ("name", "prefix", "state"),
    [
        ("s.prototxt", "", "s_iter_100.solverstate"),
        ("my.solver.prototxt", "snapshot_prefix: 'there'", "there/my.solver_iter_100.solverstate"),
        ("s.prototxt", 'type:"Adam" snapshot_prefix: "p" "q"', "pq_iter_100.solverstate"),
    ],
)
def test_snapshots_are_found_where_caffe_puts_them(inside, tmp_path, name, prefix, state) -> None:
    (tmp_path / "there").mkdir()
    kept = [line for line in SOLVER.splitlines() if "snapshot" not in line]
    (tmp_path / name).write_text("\n".join([*kept, prefix]).replace("100000000", "100"))
    command = ["caffe", "train", f"-solver={name}"]
    assert inside(*command).wait(60) == 0
    assert (tmp_path / state).exists()
    assert f"going on from {state}" in inside(*command).communicate(timeout=60)[1]


@pytest.mark.caffe
@pytest.mark.parametrize("words", [["-solver", "none.prototxt"], ["-solver"], []])
def test_without_a_solver_caffe_says_so(inside, words) -> None:
    assert inside("caffe", "train", *words).wait(60) not in (0, 2)


def test_a_solver_that_is_none_is_one_line(inside, tmp_path) -> None:
    (tmp_path / "solver.prototxt").write_text("base_lr: fast")
    process = inside("caffe", "train", "-solver", "solver.prototxt")
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and said.count("\n") == 1
    assert "error: solver.prototxt:1:10: " in said


@pytest.mark.caffe
def test_a_half_written_snapshot_is_not_taken(inside, tmp_path) -> None:
    (tmp_path / "snapshot_iter_900.solverstate").write_bytes(b"")
    (tmp_path / "snapshot_iter_800.solverstate").write_bytes(b"state without its weights")
    process = inside("caffe", "train", "-solver", "solver.prototxt")
    assert "Iteration 0 (" in _until(process, "Iteration")[-1]


@pytest.mark.caffe
@pytest.mark.parametrize("half", ["caffemodel", "solverstate"])
def test_of_a_half_snapshot_and_a_whole_one_the_whole_is_taken(inside, tmp_path, half) -> None:
    """A full disk or a power cut leaves halves; and /data may be mounted elsewhere since."""
    solver = tmp_path / "solver.prototxt"
    solver.write_text(SOLVER.replace('"snapshot"', f'"{tmp_path}/there/snapshot"'))
    (tmp_path / "there").mkdir()
    command = ["caffe", "train", "-solver", "solver.prototxt"]
    first = inside(*command)
    _until(first, "Iteration 300")
    first.send_signal(signal.SIGHUP)
    _until(first, "Snapshotting solver state")
    _until(first, "Iteration")
    first.terminate()
    first.stderr.read()
    first.wait(60)
    (tmp_path / "there").rename(tmp_path / "here")
    solver.write_text(SOLVER.replace('"snapshot"', f'"{tmp_path}/here/snapshot"'))
    folder = tmp_path / "here"
    older, newer = sorted(
        folder.glob("*.solverstate"), key=lambda path: int(re.findall(r"\d+", path.name)[0])
    )
    with newer.with_suffix(f".{half}").open("r+b") as file:
        file.truncate(newer.with_suffix(f".{half}").stat().st_size - 3)
    second = inside(*command)
    said = "".join(_until(second, "Iteration"))
    assert f"going on from {older}" in said
    at = int(re.search(r"Iteration (\d+)", said.splitlines()[-1])[1])
    assert int(re.findall(r"\d+", older.name)[0]) <= at


def test_the_image_without_the_project_knows_whole_snapshots(root, tmp_path) -> None:
    """What its stage copies and installs is all that the entry point's Python takes."""
    stage = (root / "Dockerfile").read_text().split(" AS caffe-cuda\n")[1].split("\nFROM ")[0]
    stage = stage.replace("\\\n", "")
    copies = re.findall(r"^COPY (?!--)(.*) /opt/xresnet/([\w/]+?)/?$", stage, re.MULTILINE)
    assert ("xresnet/basics", "xresnet/basics") in copies
    for sources, target in copies:
        for source in map(root.joinpath, sources.split()):
            if source.is_dir():
                shutil.copytree(source, tmp_path / target)
            else:
                (tmp_path / target).mkdir(parents=True, exist_ok=True)
                shutil.copy(source, tmp_path / target)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    train = ["caffe", "train", "-solver", "solver.prototxt", "-weights", "it's.caffemodel"]
    code = (
        "import sys; from xresnet.reproduce import resume; resume.main(sys.argv[1:])\n"
        "mods = {m.split('.')[0]: getattr(x, '__file__', None) for m, x in sys.modules.items()}\n"
        "print(*[m for m, f in mods.items() if f and 'site-packages' in f])"
    )
    own = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *train], env=own, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    command, modules = done.stdout.splitlines()
    assert shlex.split(command) == train
    seen = {name for name in modules.split() if not name.startswith(("_", "sitecust", "distutils"))}
    assert seen <= {"numpy", "google"}
    installed = (root / "docker" / "apt-run.txt").read_text()
    assert "python3-numpy" in installed and "python3-protobuf" in installed


@pytest.mark.caffe
def test_debians_own_python_will_do(caffe_tools, root, tmp_path) -> None:
    """The protobuf and numpy beside Debian's pycaffe are older than the image's."""
    (tmp_path / "solver.prototxt").write_text(SOLVER.replace("100000000", "1"))
    (tmp_path / "net.prototxt").write_text(NET)
    train = ["train", "-solver", "solver.prototxt"]
    subprocess.run([caffe_tools["caffe"], *train], cwd=tmp_path, capture_output=True, check=True)
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from xresnet.reproduce import resume;"
    command = [caffe_tools["pycaffe"], "-c", f"{code} resume.main(sys.argv[1:])", root]
    done = subprocess.run([*command, "caffe", *train], cwd=tmp_path, capture_output=True, text=True)
    assert shlex.split(done.stdout) == [
        *("caffe", *train, "-snapshot", "snapshot_iter_1.solverstate")
    ], done.stderr


@pytest.mark.caffe
@pytest.mark.slow
def test_table2_is_stopped_and_taken_up(inside, tmp_path) -> None:
    """From raw images in /data, stopped while it trains; the same command ends it."""
    draw = ["data_prep", "sample", "--per-anp", "12", "--out", str(tmp_path)]
    assert inside(*draw).wait(120) == 0
    command = ["table2", "--smoke", "--rows", "xs_resnet50"]
    options = {"DATA_PREP": "--min-images 10 --size 64"}
    first = inside(*command, **options)
    log = tmp_path / "results" / "smoke" / "runs" / "xs_resnet50" / "train.log"
    deadline = time.monotonic() + 200
    while not (log.exists() and "Iteration 5" in log.read_text()):
        assert first.poll() is None and time.monotonic() < deadline, first.stderr.read()
        time.sleep(0.2)
    first.terminate()
    first.stderr.read()
    assert first.wait(60) in (1, 130)
    events = list(train_log.read(log.read_text().splitlines()))
    assert any(isinstance(event, train_log.Snapshot) for event in events)
    assert list(log.parent.glob("snapshot_iter_*.solverstate"))


def test_a_command_that_is_none_says_what_there_is(inside) -> None:
    process = inside("tabel2")
    assert process.wait(10) == 127
    assert "no command 'tabel2': table2, xresnet" in process.stderr.read()


def test_an_empty_data_folder_says_what_belongs_there(inside, tmp_path) -> None:
    process = inside("table2", "--smoke")
    assert process.wait(60) == 1
    assert f"mount your data there (-v FOLDER:{tmp_path})" in process.stderr.read()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--wieghts", "imagenet"], "unrecognized arguments: --wieghts imagenet"),
        (["--rows", "xs_resnet5"], "unknown row 'xs_resnet5' (did you mean 'xs_resnet50'?)"),
        (["--weights", "imagenet"], "put bvlc_reference_caffenet.caffemodel"),
    ],
)
def test_a_mistake_is_told_before_databases_are_made(inside, tmp_path, words, said) -> None:
    """Of all VSO images they take hours."""
    (tmp_path / "bi_concepts").mkdir()
    (tmp_path / "ontology.txt").touch()
    process = inside("table2", *words, XRESNET_CACHE=str(tmp_path / "cache"))
    told = process.stderr.read()
    assert process.wait(60) in (1, 2)
    assert said in told and len(told.splitlines()) == 1, told
    assert not (tmp_path / "lmdb").exists()


def test_help_needs_no_data(inside) -> None:
    for word in ("-h", "--help"):
        process = inside("table2", word)
        assert "usage: xresnet table2" in process.communicate(timeout=60)[0]
        assert process.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_becomes_the_owner_of_the_data(inside, tmp_path) -> None:
    # Outside of pytest's folders, which nobody else may enter.
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chown(folder, 1234, 2345)
        options = {"XRESNET_USER_SET": "", "XRESNET_DATA": folder}
        entry = shutil.copy(DOCKER / "entrypoint.sh", folder)
        os.chmod(folder, 0o755)

        def ids(**variables: str) -> str:
            process = subprocess.run(
                [entry, "id"],
                capture_output=True,
                text=True,
                cwd="/",
                env={**os.environ, **options, **variables},
            )
            return re.sub(r"\([^)]*\)", "", process.stdout.strip()) or process.stderr

        assert ids().startswith("uid=1234 gid=2345 groups=2345")
        assert ids(RUN_AS="77:88").startswith("uid=77 gid=88")
        assert ids(RUN_AS="0:0").startswith("uid=0 gid=0")
        os.chown(folder, 0, 0)
        assert ids().startswith("uid=1000 gid=1000")


def test_the_health_check_tells_a_caffe_that_stands_still(tmp_path) -> None:
    def check(*processes: str | tuple[str, str]) -> tuple[int, str]:
        """The answer for processes with these lines in /proc/PID/stat, or (cmdline, stat)."""
        shutil.rmtree(tmp_path / "proc", ignore_errors=True)
        for pid, process in enumerate(processes, start=1):
            words, line = ("", process) if isinstance(process, str) else process
            (tmp_path / "proc" / str(pid)).mkdir(parents=True)
            (tmp_path / "proc" / str(pid) / "stat").write_text(f"{pid} {line}\n")
            (tmp_path / "proc" / str(pid) / "cmdline").write_text(words.replace(" ", "\0"))
        env = {**os.environ, "TMPDIR": str(tmp_path), "PROC": str(tmp_path / "proc")}
        done = subprocess.run([DOCKER / "healthcheck.sh"], env=env, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def stat(name: str, user: int, system: int) -> str:
        return f"({name}) S 1 1 1 0 -1 4194304 9 9 0 0 {user} {system} 0 0 20 0 4 0 1"

    healthy = (0, "")
    assert check(stat("bash", 1, 1)) == healthy
    assert check(stat("bash", 1, 1), stat("caffe", 5, 5)) == healthy
    assert check(stat("bash", 1, 1), stat("caffe", 5, 6)) == healthy
    status, said = check(stat("bash (or so)", 9, 9), stat("caffe", 5, 6))
    assert status == 1 and "done nothing" in said
    assert check(stat("bash", 1, 1)) == healthy
    assert check(stat("ld-2.31.so", 5, 6)) == healthy  # another training
    assert check(stat("ld-2.31.so", 5, 6))[0] == 1
    # torchcaffe is Python's by name; so are others, which may rest.
    torchcaffe = ("python -m torchcaffe train -solver s", stat("python3.11", 7, 7))
    assert check(stat("python3", 8, 8)) == check(stat("python3", 8, 8)) == healthy
    assert check(torchcaffe, stat("python3", 8, 8)) == healthy
    assert check(torchcaffe, stat("python3", 9, 9))[0] == 1


def test_the_page_in_the_compose_file_is_watch(tmp_path) -> None:
    compose = (ROOT / "compose.yaml").read_text()
    command = re.search(r"^    command: python (-m xresnet .*?)  #", compose, re.MULTILINE)[
        1
    ].split()
    (probe,) = re.findall(r'^      test: \[CMD, python, -c, "(.*)"\]$', compose, re.MULTILINE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(tmp_path) if word == "/data" else word for word in command]
    assert command[-2:] == ["--host", "0.0.0.0"] and str(tmp_path) in command
    check = [sys.executable, "-c", probe.replace(":8080", f":{port}")]
    assert f":{port}/" in check[2]
    assert subprocess.run(check, capture_output=True).returncode == 1, "nobody listens yet"
    served = [sys.executable, *command, "--port", str(port)]
    with subprocess.Popen(served, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            assert str(port) in server.stdout.readline()
            subprocess.run(check, check=True)
        finally:
            server.terminate()
