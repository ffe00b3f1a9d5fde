"""Reading and writing .caffemodel files, held to protobuf's own; damaged and foreign files."""

from __future__ import annotations

import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from xresnet.basics.cli import UserError
from xresnet.caffeproto import BlobProto, NetParameter, caffemodel, wire
from xresnet.caffeproto.caffemodel import Layer

names = st.text(max_size=8)
blobs = arrays.arrays(
    np.float32, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
)
layers = st.builds(
    Layer, names, st.sampled_from(["Convolution", "BatchNorm", ""]), st.lists(blobs).map(tuple)
)
nets = st.lists(layers, max_size=4).filter(lambda net: any(layer.blobs for layer in net))


def message(name: str, net: list[Layer]):
    """The net as protobuf's message."""
    made = NetParameter(name=name)
    for layer in net:
        added = made.layer.add(name=layer.name, type=layer.kind)
        for blob in layer.blobs:
            added.blobs.add(shape={"dim": blob.shape}, data=blob.ravel())
    return made


def dumped(net: list[Layer]) -> bytes:
    return b"".join(caffemodel.dumps("net", net))


def same(found: list[Layer], expected: list[Layer]) -> None:
    assert [(x.name, x.kind) for x in found] == [(x.name, x.kind) for x in expected]
    for ours, theirs in zip(found, expected):
        assert [b.shape for b in ours.blobs] == [b.shape for b in theirs.blobs]
        for a, b in zip(ours.blobs, theirs.blobs):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == np.float32


# ---- Beside protobuf ---------------------------------------------------------------


@given(nets)
def test_written_are_protobufs_own_bytes(net):
    # Names are set, also where they are empty, in ours; protobuf agrees.
    assert dumped(net) == message("net", net).SerializeToString()


@given(nets)
def test_read_is_what_protobuf_wrote(net):
    same(caffemodel.loads(message("net", net).SerializeToString(), "f"), net)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40), st.data())
def test_every_way_to_write_the_same_numbers(values, data):
    """Packed in pieces and number by number, in any mixture, doubles, diffs and unknown fields."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    body = b""
    for piece in (values[a:b] for a, b in zip([0, *cuts], [*cuts, len(values)])):
        raw = struct.pack(f"<{len(piece)}f", *piece)
        if data.draw(st.booleans()):
            body += wire.length(5, len(raw)) + raw
        else:
            body += b"".join(wire.key(5, 5) + raw[i : i + 4] for i in range(0, len(raw), 4))
        if data.draw(st.booleans()):
            body += wire.key(6, 5) + raw[:4] if piece else b""
            body += wire.key(77, 0) + b"\x05" + wire.length(2000, 2) + b"xy"
    shape = wire.encoded(len(values))
    body += wire.length(7, len(shape) + 1) + wire.key(1, 0) + shape  # not packed either
    net = wire.length(100, len(body) + len(wire.length(7, len(body))))
    net += wire.length(7, len(body)) + body
    (layer,) = caffemodel.loads(net, "f")
    np.testing.assert_array_equal(layer.blobs[0], np.array(values, np.float32))
    theirs = NetParameter.FromString(net).layer[0].blobs[0]
    np.testing.assert_array_equal(layer.blobs[0], np.array(theirs.data, np.float32))


def test_a_file_is_read_as_its_bytes_are(tmp_path):
    data = message("net", [Layer("a", "Scale", (np.arange(4, dtype=np.float32),))])
    data = data.SerializeToString() + b"".join(wire.key(77, 5) + b"abcd" for _ in range(40))
    path = tmp_path / "w"
    path.write_bytes(data)
    with path.open("rb") as file:
        assert list(wire.fields(wire.File(file))) == list(wire.fields(data))
        whole = wire.File(file)
        path.write_bytes(data[:-50])  # cut short meanwhile
        with pytest.raises(wire.Truncated, match="shorter"):
            list(wire.fields(whole))


def test_doubles_become_floats():
    net = NetParameter()
    blob = net.layer.add(name="x").blobs.add(shape={"dim": [2]})
    blob.double_data.extend([0.1, 1e300])
    (layer,) = caffemodel.loads(net.SerializeToString(), "f")
    assert layer.blobs[0].tolist() == [np.float32(0.1), np.inf]


def test_the_old_formats_are_read():
    v1 = NetParameter()
    layer = v1.layers.add(name="fc", type=14)
    layer.blobs.add(num=1, channels=1, height=2, width=3, data=range(6))
    (found,) = caffemodel.loads(v1.SerializeToString(), "f")
    assert (found.name, found.kind) == ("fc", "InnerProduct")
    assert found.blobs[0].shape == (1, 1, 2, 3)
    assert caffemodel.fits(found.blobs[0].shape, (2, 3))
    assert not caffemodel.fits(found.blobs[0].shape, (3, 2))
    # 2013: a layer in a layer, its blobs field 50.
    blob = v1.layers[0].blobs[0].SerializeToString()
    inner = wire.length(1, 3) + b"ip1" + wire.length(2, 4) + b"conv" + wire.length(50, len(blob))
    inner += blob
    outer = wire.length(1, len(inner)) + inner
    (found,) = caffemodel.loads(wire.length(2, len(outer)) + outer, "f")
    assert (found.name, found.kind, found.blobs[0].shape) == ("ip1", "conv", (1, 1, 2, 3))


def test_a_file_is_whole_or_not_there(tmp_path):
    net = [Layer("a", "Scale", (np.arange(4, dtype=np.float32),))]
    path = tmp_path / "new" / "w.caffemodel"
    assert caffemodel.save(path, "n", net) == path.stat().st_size
    same(caffemodel.load(path), net)
    assert [p.name for p in path.parent.iterdir()] == ["w.caffemodel"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        caffemodel.save(tmp_path / "file" / "w.caffemodel", "n", net)


# ---- Damaged and foreign files --------------------------------------------------------

WHOLE = dumped(
    [
        Layer("conv1", "Convolution", (np.ones((2, 3, 2, 2), np.float32), np.ones(2, np.float32))),
        Layer("bn1", "BatchNorm", (np.ones(2, np.float32),) * 3),
    ]
)


@pytest.mark.parametrize("size", range(len(WHOLE)))
def test_a_file_cut_short_anywhere_says_so_or_is_shorter(size, tmp_path):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(WHOLE[:size])
    try:
        found = caffemodel.load(path)
    except UserError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
        if size > 40:
            assert re.search(r"is cut short .*(in its first layer|after layer 'conv1')", str(error))
    else:  # cut between two layers: a file like any other
        assert [layer.name for layer in found] == ["conv1"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=4))
def test_a_damaged_file_is_read_or_refused(changes):
    data = bytearray(WHOLE)
    for at, byte in changes:
        data[at] = byte
    try:
        assert caffemodel.loads(bytes(data), "f")
    except UserError as error:
        assert "\n" not in str(error)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_noise_is_read_or_refused(data):
    try:
        assert caffemodel.loads(data, "f")
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"\n<HTML>", "is a web page"),
        (b"PK\x03\x04abcdef", "is a zip file"),
        (b"\x89HDF\r\n\x1a\n", "is HDF5"),
        (b"\x1f\x8b\x08", "is gzipped"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b'name: "ResNet-50"\nlayer { name: "data" }\n', "a prototxt says what a net is"),
        (b"\x80\x02}q\x00.", "is a pickle"),
        (bytes(range(1, 256)), "damaged, or not a .caffemodel|is cut short"),
        (NetParameter(name="x" * 600).SerializeToString(), "holds no weights"),
        (message("n", [Layer("a" * 600, "ReLU", ())]).SerializeToString(), "holds no weights"),
        (b"\x0a\x02n\xff\xa2\x06\x02\x0a\x00" + b"\x00" * 9, "damaged"),
    ],
)
def test_a_foreign_file_gets_one_clear_line(content, message, tmp_path):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        caffemodel.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*No such file"):
        caffemodel.load(tmp_path / "w.caffemodel")
    with pytest.raises(UserError, match=r"cannot read .*directory"):
        caffemodel.load(tmp_path)


def test_a_shape_that_its_numbers_do_not_fill():
    net = NetParameter()
    net.layer.add(name="conv1").blobs.add(shape={"dim": [64, 3, 7, 7]}, data=[1, 2])
    expected = r"layer 'conv1' blob 0: 2 values for a shape of 64x3x7x7"
    with pytest.raises(UserError, match=expected):
        caffemodel.loads(net.SerializeToString(), "f")
    for dims in ([-1, -2], [1 << 62, 1 << 62], [-2]):
        net.layer[0].blobs[0].shape.dim[:] = dims
        with pytest.raises(UserError, match="2 values for a shape of"):
            caffemodel.loads(net.SerializeToString(), "f")


def test_a_run_of_numbers_is_looked_at_once():
    """A million fields of five bytes are one step; two keys in turn are no run."""
    one = wire.key(5, 5) + b"\0\0\x80?"
    field, *more = wire.fields(one * 1_000_000)
    assert not more
    assert wire.numbers(one * 1_000_000, field, "<f4").sum() == 1_000_000
    assert len(list(wire.fields((one + wire.key(6, 5) + b"....") * 50))) == 100


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
def test_a_file_takes_less_than_twice_its_size_of_memory(tmp_path):
    path = tmp_path / "w.caffemodel"
    array = np.ones((1000, 1000), np.float32)
    caffemodel.save(path, "n", [Layer(f"l{i}", "Convolution", (array,)) for i in range(16)])
    script = (
        "import sys; from xresnet.caffeproto import caffemodel\n"
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        "before = peak(); net = caffemodel.load(sys.argv[1]); print((peak() - before) * 1024)"
    )
    command = [sys.executable, "-c", script, str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 1.5 * path.stat().st_size


def test_more_axes_than_caffe_has_are_damage(tmp_path):
    """NumPy has 64, and would end in a traceback."""
    net = NetParameter()
    for axes in (32, 33, 65):
        del net.layer[:]
        blob = net.layer.add(name="c", type="Scale").blobs.add(data=[1.0])
        blob.shape.dim.extend([1] * axes)
        path = tmp_path / f"{axes}.caffemodel"
        path.write_bytes(net.SerializeToString())
        if axes == 32:
            assert caffemodel.load(path)[0].blobs[0].shape == (1,) * 32
        else:
            with pytest.raises(UserError, match=rf"layer 'c' blob 0: {axes} axes; Caffe has at"):
                caffemodel.load(path)


@pytest.mark.parametrize(
    ("blob", "told"),
    [
        (
            BlobProto(num=2, channels=1, height=1, width=1, data=[1, 2]),
            "2x1x1x1 numbers, not a single image",
        ),
        (BlobProto(shape={"dim": [2]}, data=[1, 2]), "holds 2 numbers, not a single image"),
        (BlobProto(num=1, channels=3, height=2, width=2, data=[1]), "is damaged, or no"),
    ],
)
def test_a_mean_that_is_no_one_image_is_told(tmp_path, blob, told):
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    with pytest.raises(UserError, match=told):
        caffemodel.load_mean(tmp_path / "mean.binaryproto")


def test_a_mean_of_either_age_is_one_image(tmp_path):
    place, values = tmp_path / "mean.binaryproto", np.arange(12, dtype=np.float32)
    old = BlobProto(num=1, channels=3, height=2, width=2, data=values)
    for blob in (old, BlobProto(shape={"dim": [3, 2, 2]}, data=values)):
        place.write_bytes(blob.SerializeToString())
        np.testing.assert_array_equal(caffemodel.load_mean(place), values.reshape(3, 2, 2))
