"""Records in Caffe's order and transforms as Caffe's; export; several processes."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")

import torchcaffe  # noqa: E402
from netgen.command import generate  # noqa: E402
from tests.helpers.caffe_nets import run  # noqa: E402
from tests.torchcaffe.oracle import ONE_THREAD, error  # noqa: E402
from torchcaffe import data, direct  # noqa: E402
from torchcaffe.data import Feed, open_source  # noqa: E402
from xresnet.basics.cli import UserError  # noqa: E402
from xresnet.caffeproto import TRAIN, Datum, LayerParameter, NetParameter, text  # noqa: E402

torch.set_num_threads(1)


def database(path: Path, count: int = 11, size: int = 6, encoded: bool = False) -> Path:
    rng = np.random.default_rng(0)
    base = lmdb.open(str(path), map_size=1 << 26)
    with base.begin(write=True) as out:
        for i in range(count):
            pixels = rng.integers(0, 256, (3, size, size), np.uint8)
            datum = Datum(channels=3, height=size, width=size, label=300 + i)
            datum.data = pixels.tobytes()
            if encoded:
                datum.data = cv2.imencode(".png", pixels.transpose(1, 2, 0))[1].tobytes()
                datum.encoded = True
            out.put(f"{i:08d}".encode(), datum.SerializeToString())
    base.close()
    return path


def layer(source: Path, batch: int = 4, **transform) -> object:
    return LayerParameter(
        name="data",
        type="Data",
        top=["data", "label"],
        phase=TRAIN,
        transform_param=transform,
        data_param={"source": str(source), "batch_size": batch, "backend": "LMDB"},
    )


# Run by pycaffe: the batches of a Data layer.
BATCHES = """
import sys, numpy as np, caffe
net = caffe.Net(sys.argv[1], caffe.TEST)
found = {}
for i in range(5):
    net.forward()
    found["data%d" % i] = net.blobs["data"].data.copy()
    found["label%d" % i] = net.blobs["label"].data.copy()
np.savez(sys.argv[2], **found)
"""


@pytest.mark.caffe
@pytest.mark.parametrize("encoded", [False, True])
def test_batches_are_caffes(encoded, caffe_tools, tmp_path):
    """Round and round the records, with mean, crop from the centre and scale."""
    source = database(tmp_path / "base", encoded=encoded)
    made = layer(source, crop_size=4, mean_value=[10, 20, 30], scale=0.5)
    made.phase = 1
    (tmp_path / "net.prototxt").write_text(text.dump(NetParameter(layer=[made])))
    out = tmp_path / "o.npz"
    run(caffe_tools["pycaffe"], "-c", BATCHES, tmp_path / "net.prototxt", out)
    wanted = np.load(out)
    feed = Feed(made)
    for i in range(5):
        tops = feed.next()
        assert np.array_equal(tops["label"].numpy(), wanted[f"label{i}"])
        assert error(tops["data"].numpy(), wanted[f"data{i}"]) < 1e-6
    feed.close()


def labels(feed: Feed, batches: int) -> list[int]:
    found = [int(v) for _ in range(batches) for v in feed.next()["label"]]
    feed.close()
    return found


def test_ranks_share_the_records_and_a_cursor_goes_on(tmp_path):
    made = layer(database(tmp_path / "base"))
    whole = labels(Feed(made), 6)
    assert whole == [300 + i % 11 for i in range(24)]
    halves = [labels(Feed(made, rank=r, world=2), 3) for r in range(2)]
    assert [v for pair in zip(*halves) for v in pair] == whole
    first, second = Feed(made), Feed(made)
    begun = [int(v) for _ in range(2) for v in first.next()["label"]]
    second.restore(first.state())
    first.close()
    assert begun + labels(second, 4) == whole


def test_shuffling_sees_each_record_once_an_epoch(tmp_path):
    made = layer(database(tmp_path / "base"), batch=11)
    found = labels(Feed(made, shuffle=True), 2)
    assert sorted(found[:11]) == sorted(found[11:]) == [300 + i for i in range(11)]
    assert found[:11] != found[11:]


def test_flips_are_whole_images_half_the_time(tmp_path):
    source = database(tmp_path / "base")
    plain = Feed(layer(source, batch=11)).next()["data"]
    feed = Feed(layer(source, batch=11, mirror=True))
    flips = 0
    for _ in range(30):
        for x, y in zip(plain, feed.next()["data"]):
            flipped = torch.equal(y, x.flip(2))
            assert flipped or torch.equal(y, x)
            flips += flipped
    feed.close()
    assert 0.4 < flips / 330 < 0.6


LIKE = Datum(channels=1, height=2, width=3, data=b"abcdef", label=5)
ODD = {
    "another label": Datum(channels=1, height=2, width=3, data=b"ghijkl", label=300),
    "no label": Datum(channels=1, height=2, width=3, data=b"ghijkl"),
    "not encoded": Datum(channels=1, height=2, width=3, data=b"ghijkl", encoded=False),
    "another shape": Datum(channels=1, height=3, width=2, data=b"ghijkl", label=5),
    "numbers too": Datum(channels=1, height=2, width=3, data=b"ghijkl", float_data=[1, 2]),
    "numbers": Datum(channels=1, height=2, width=3, float_data=range(6), label=5),
    "too few": Datum(channels=1, height=2, width=3, data=b"ghijk", label=5),
    "too many": Datum(channels=1, height=2, width=3, data=b"ghijklm", label=5),
    "later shape": LIKE.SerializeToString() + Datum(height=1).SerializeToString(),
    "torn": LIKE.SerializeToString()[:-1],
    "cut": LIKE.SerializeToString()[:8],
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("at", [0, 2])
def test_records_read_together_are_those_read_one_by_one(odd, at, tmp_path, monkeypatch):
    records = [LIKE.SerializeToString()] * 4
    records[at] = ODD[odd] if isinstance(ODD[odd], bytes) else ODD[odd].SerializeToString()
    with lmdb.open(str(tmp_path / "base"), map_size=1 << 20) as base, base.begin(write=True) as out:
        for i, record in enumerate(records):
            out.put(b"%d" % i, record)

    def found() -> object:
        try:
            return [
                x.tolist()
                for x in open_source(layer(tmp_path / "base")).batch_of([*range(4)], None)
            ]
        except UserError as error:
            return str(error)

    together = found()
    monkeypatch.setattr(data, "SHORT", 0)
    monkeypatch.setattr(data._Database, "_alike", lambda *_: None)
    assert together == found()


def test_alike_records_are_read_together(tmp_path):
    source = open_source(layer(database(tmp_path / "base")))
    images, labels = source._alike([0, 1, 10])
    assert images.shape == (3, 3, 6, 6) and labels.tolist() == [300, 301, 310]


def test_a_missing_database_is_named(tmp_path):
    with pytest.raises(UserError, match=r"layer 'data': .*none does not exist"):
        Feed(layer(tmp_path / "none"))


@pytest.mark.parametrize("left", [0.3, 0.9])
def test_a_database_that_was_cut_kills_nobody(tmp_path, left):
    """Half a copy: read through a memory map, it would end the process by SIGBUS."""
    file = database(tmp_path / "base", size=64) / "data.mdb"
    os.truncate(file, int(file.stat().st_size * left))
    with pytest.raises(UserError, match=r"layer 'data': .*data.mdb is cut short, "):
        Feed(layer(tmp_path / "base"))


def test_a_page_that_is_none_is_one_line(tmp_path):
    """Zeros in the middle, as a crash of the machine leaves: the tree leads nowhere."""
    file = database(tmp_path / "base", count=300, size=16) / "data.mdb"
    whole = file.read_bytes()
    file.write_bytes(whole[:8192] + bytes(len(whole) - 8192))
    with pytest.raises(UserError, match="base: "):
        feed = Feed(layer(tmp_path / "base"))
        for _ in range(100):
            feed.next()


def crafted_png(side: int = 20_000) -> bytes:
    """A small file that says it holds 400 megapixels."""
    png = bytearray(cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes())
    png[16:24] = struct.pack(">II", side, side)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    return bytes(png)


@pytest.mark.parametrize("image", [crafted_png(), b""], ids=["too many pixels", "nothing"])
def test_an_encoded_record_that_is_no_image_is_one_line(tmp_path, image):
    with lmdb.open(str(tmp_path / "base"), map_size=1 << 20) as base, base.begin(write=True) as out:
        out.put(b"0", Datum(data=image, encoded=True).SerializeToString())
    with pytest.raises(UserError, match="record 0: the image cannot be decoded"):
        Feed(layer(tmp_path / "base", batch=1)).next()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("large.png", "too many pixels"),
        ("none.png", "No such file"),
        ("page.jpg", "a web page"),
        ("nul\0.png", "null byte"),
    ],
)
def test_an_image_file_that_is_none_is_one_line(tmp_path, name, told):
    (tmp_path / "large.png").write_bytes(crafted_png())
    (tmp_path / "page.jpg").write_bytes(b"<html></html>")
    (tmp_path / "list.txt").write_text(f"{tmp_path / name} 0\n")
    param = {"source": str(tmp_path / "list.txt"), "batch_size": 1}
    made = LayerParameter(name="d", type="ImageData", top=["data"], image_data_param=param)
    with pytest.raises(UserError, match=told):
        Feed(made).next()


TASKS = ["--tasks", "adj:3,anp:7,noun:5"]
SMALL = [*TASKS, "--width", "4", "--input-size", "48", "--blocks", "1,1,1,2"]


def with_statistics(model: Path) -> torchcaffe.Net:
    """The net with running statistics as if it had been trained."""
    net = torchcaffe.load(model, fold=False)
    for name, blob in net.state_dict().items():
        if "bn" in name:
            torch.nn.init.uniform_(blob, 0.5, 1)
    return net


def test_a_loaded_net_is_a_module_and_folding_changes_nothing(tmp_path):
    model, weights = tmp_path / "d.prototxt", tmp_path / "w.caffemodel"
    model.write_text(generate(["xs_resnet50", *SMALL, "--deploy"]))
    net = with_statistics(model)
    weights.write_bytes(net.to_proto().SerializeToString())
    x = torch.randn(2, 3, 48, 48) * 50
    plain = torchcaffe.load(model, weights, fold=False)(data=x)
    folded = torchcaffe.load(model, weights)(data=x)
    assert set(plain) == {"prob_adj", "prob_anp", "prob_noun"}
    for name in plain:
        assert error(folded[name].numpy(), plain[name].numpy()) < 1e-4
        assert np.ptp(plain[name].numpy()) > 1e-4


PACKED = [
    ["xs_resnet50", *SMALL],
    ["xg_resnet50", *SMALL],
    ["rock_resnet50", *SMALL],
    ["inception_v1", "--task", "noun", *TASKS],
]


@pytest.mark.parametrize("argv", PACKED, ids=lambda argv: argv[0])
def test_a_packed_net_is_the_folded_one(argv, tmp_path):
    """For several batch sizes, and twice, as it keeps weights laid out for a size."""
    model, weights = tmp_path / "d.prototxt", tmp_path / "w.caffemodel"
    model.write_text(generate([*argv, "--deploy"]))
    weights.write_bytes(with_statistics(model).to_proto().SerializeToString())
    size = 48 if "--input-size" in argv else 224
    folded = torchcaffe.load(model, weights)
    packed = torchcaffe.load(model, weights, pack=True)
    for batch in (1, 2, 1):
        x = torch.randn(batch, 3, size, size) * 50
        plain = folded(data=x)
        found = packed(data=x)
        assert set(found) == set(plain)
        for name in plain:
            assert error(found[name].numpy(), plain[name].numpy()) < 1e-4
            assert np.ptp(plain[name].numpy()) > 1e-4


@pytest.mark.parametrize(
    ("namespace", "name"),
    [("aten", "mkldnn_reorder_conv2d_weight"), ("mkldnn", "_convolution_pointwise")],
)
def test_where_pytorch_lacks_what_packs_the_net_is_folded(
    namespace, name, tmp_path, monkeypatch, capfd
):
    model = tmp_path / "d.prototxt"
    model.write_text(generate(["xs_resnet50", *SMALL, "--deploy"]))

    class Without:
        """The operators, but for the one that is gone."""

        def __getattr__(self, asked):
            if asked == name:
                raise AttributeError(asked)
            return getattr(there, asked)

    there = getattr(torch.ops, namespace)
    monkeypatch.setattr(torch.ops, namespace, Without())
    net = torchcaffe.load(model, pack=True)
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 1 and "the net is folded only" in told[0]
    assert isinstance(net, torchcaffe.Net)
    assert net(torch.randn(1, 3, 48, 48))["prob_adj"].shape == (1, 3)


def test_onnx_and_state_dict(tmp_path):
    pytest.importorskip("onnxruntime", reason="NO ONNXRUNTIME HERE: pip install '.[export]'")
    model, weights = tmp_path / "d.prototxt", tmp_path / "w.caffemodel"
    model.write_text(generate(["resnet50", "--task", "noun", *SMALL, "--deploy"]))
    net = with_statistics(model)
    weights.write_bytes(net.to_proto().SerializeToString())
    words = ["export", "-model", model, "-weights", weights]
    words += ["--onnx", tmp_path / "n.onnx", "--state-dict", tmp_path / "n.pt"]
    run(sys.executable, "-m", "torchcaffe", *words, env=ONE_THREAD)
    assert (tmp_path / "n.onnx").stat().st_size > 10000
    assert len(torch.load(tmp_path / "n.pt")) == len(net.state_dict())


# Run by torchrun, or alone: gradients of one global batch of 8 over the ranks.
RANKS = """
import sys, torch
from torchcaffe import parallel
from torchcaffe.solver import Choices, Solver
from xresnet.caffeproto import SolverParameter, text
torch.set_num_threads(1)
solver = Solver(text.load(sys.argv[1], SolverParameter), Choices(sync_bn=True))
solver._gradients()
if solver.rank == 0:
    torch.save([one.blob.grad for one in solver.net.learned], sys.argv[2])
solver.close()
parallel.stop()
"""


def test_two_ranks_with_sync_bn_have_the_gradient_of_one(tmp_path):
    from tests.helpers.caffe_nets import write_lmdbs

    write_lmdbs(tmp_path, (3, 7, 5), count=8, size=48)
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    found = []
    for ranks, batch in ((1, 8), (2, 4)):
        net = text.loads(
            generate(["xs_resnet50", *SMALL, "--batch", str(batch), "--data", str(tmp_path)]),
            NetParameter,
        )
        for one in net.layer:
            one.transform_param.mirror = False
        (tmp_path / "net.prototxt").write_text(text.dump(net))
        solver = f'net: "{tmp_path}/net.prototxt" base_lr: 0.1 lr_policy: "fixed" random_seed: 5'
        (tmp_path / "s.prototxt").write_text(solver)
        out = tmp_path / f"{ranks}.pt"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        start = [*torchrun, f"--nproc-per-node={ranks}"] if ranks > 1 else [sys.executable]
        command = [*start, script, tmp_path / "s.prototxt", out]
        ran = subprocess.run(
            [*map(str, command)],
            capture_output=True,
            text=True,
            env={**ONE_THREAD, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert ran.returncode == 0, ran.stderr[-3000:]
        found.append(torch.load(out))
    for alone, shared in zip(*found):
        if alone is not None:
            assert (alone - shared).norm() <= 1e-3 * alone.norm() + 1e-5


def test_a_small_packed_net_takes_one_thread_and_gives_the_others_back(tmp_path, monkeypatch):
    model = tmp_path / "d.prototxt"
    model.write_text(generate(["xs_resnet50", *SMALL, "--deploy"]))
    packed = torchcaffe.load(model, pack=True)
    seen = []
    forward = direct.Plan.forward

    def watched(plan, **fed):
        seen.append(torch.get_num_threads())
        return forward(plan, **fed)

    monkeypatch.setattr(direct.Plan, "forward", watched)
    torch.set_num_threads(2)
    try:
        packed(data=torch.zeros(1, 3, 48, 48))
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(1)
