"""torchvision's .pth and Keras's .h5: read exactly, without their frameworks and without trust."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import sys
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netgen.weights import keras, pth, published, source, tfjs
from netgen.weights.command import main
from tests.helpers import weights_files as files
from tests.helpers.weights_files import SMALL
from xresnet.basics.cli import UserError

TENSORS = files.state_dict(files.units())
ZIP, STREAM = files.pth_zip(TENSORS), files.pth_stream(TENSORS)
NET = ["resnet50", "--task", "noun", *SMALL]
TORCH_NET = [*NET, "--stride-in", "3x3", "--pool1", "padded"]


@pytest.fixture
def h5(tmp_path):
    """A Keras file in the published layout."""
    return files.write_h5(tmp_path / "k.h5", files.keras_layers(files.units(biases=True)))


# ---- .pth -------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [ZIP, STREAM], ids=["zip", "stream"])
def test_both_containers_hold_the_same_tensors(data):
    found = pth.load(data, "f")
    assert list(found) == list(TENSORS)
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(found[name], tensor)


def test_numbers_of_all_kinds_become_floats_and_views_stay_views():
    half = np.arange(6, dtype=np.float16).reshape(2, 3)
    found = pth.load(files.pth_zip({"h": half, "d": np.array([0.1]), "t": half.T}), "f")
    assert found["h"].dtype == found["d"].dtype == np.float32
    np.testing.assert_array_equal(found["t"], half.T)
    tensor = pth.Tensor(pth.Storage("BFloat16Storage", "0", 2), 0, (2,), (1,))
    assert tensor.of(b"\x80\x3f\x20\xc1").tolist() == [1.0, -10.0]


def test_a_checkpoint_is_unwrapped():
    wrapped = {f"module.{name}": tensor for name, tensor in TENSORS.items()}
    assert list(pth.load(files.pth_zip(wrapped), "f")) == list(TENSORS)


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((5,), (1,), 0), ((2, 2), (1,), 0), ((4,), (-1,), 3), ((1000,), (0,), 0), ((1,), (1,), -1)],
)
def test_a_tensor_stays_inside_its_storage(size, stride, offset):
    tensor = pth.Tensor(pth.Storage("FloatStorage", "0", 4), offset, size, stride)
    with pytest.raises(ValueError, match="a tensor of size"):
        tensor.of(bytes(16))


class Harm:
    """What a pickle can do to whoever trusts it."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('harm done')",))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (ZIP[:-100], "f is cut short, damaged or not a PyTorch state dict"),
        (STREAM[:-100], "f is cut short, damaged"),
        (STREAM[:40], "f is cut short, damaged"),
        (pickle.dumps({"a": 1}, 2), "not one of PyTorch's"),
        (pickle.dumps(Harm(), 2), r"wants to call \w+.exec: only state dicts"),
        (files.pth_zip(TENSORS, b"cos\nsystem\n(X\x04\x00\x00\x00truetR0"), "wants to call os.sys"),
        (files.pth_zip({}), "contains no tensors"),
        (b"PK\x05\x06" + bytes(18), "not one of PyTorch's"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "the memory 2,147,483,647 in a pickle"),
        (b"\x80\x05\x96" + bytes(7) + b"\x7f.", "a length|protocol 5|expected|damaged"),
    ],
)
def test_a_bad_pth_gets_one_clear_line(data, message):
    with pytest.raises(UserError, match=message) as caught:
        pth.load(data, "f")
    assert "\n" not in str(caught.value)


def test_a_zip_bomb_is_not_unpacked():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10_000_000))
    with pytest.raises(UserError, match="larger than its archive"):
        pth.load(out.getvalue(), "f")


def test_a_big_endian_file_is_refused():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("a/byteorder", "big")
    with pytest.raises(UserError, match="big-endian"):
        pth.load(out.getvalue(), "f")


@settings(max_examples=150)
@given(st.data(), st.booleans())
def test_a_damaged_pth_is_read_or_refused(data, zipped):
    changed = bytearray(ZIP if zipped else STREAM)
    # The pickle's head as often as all the numbers behind it.
    end = data.draw(st.sampled_from([500, len(changed)]))
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    try:
        assert pth.load(bytes(changed), "f")
    except UserError as error:
        assert "\n" not in str(error)


# ---- .h5 --------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["legacy", "model", "keras3"])
def test_all_layouts_hold_the_same_layers(layout, tmp_path):
    layers = files.keras_layers(files.units(biases=True))
    path = files.write_h5(tmp_path / "k.h5", layers, layout)
    found = keras.load(path.read_bytes(), "f")
    assert set(found.layers) == set(layers)
    for name, arrays in layers.items():
        assert all(map(np.array_equal, found.layers[name], arrays))


def test_epsilon_is_the_models_own_where_the_file_describes_it(h5, tmp_path):
    assert keras.load(h5.read_bytes(), "f").epsilon is None
    norms = [{"class_name": "BatchNormalization", "config": {"epsilon": 0.002}}] * 2
    with h5py.File(h5, "a") as file:
        file.attrs["model_config"] = json.dumps({"config": {"layers": norms}})
    assert keras.load(h5.read_bytes(), "f").epsilon == 0.002
    var = files.units(biases=True)[1, 0, ""]["var"]
    layers = source.load(str(h5)).layers
    np.testing.assert_allclose(layers["bn_conv1"].blobs[1] + 1e-5, var + 0.002, rtol=1e-6)


@pytest.mark.parametrize(
    ("old", "given", "epsilon"), [(False, None, 1.001e-5), (True, None, 1e-3), (True, 1e-5, 1e-5)]
)
def test_biases_and_epsilon_go_into_the_statistics(old, given, epsilon):
    units = files.units(biases=True)
    units[1, 0, ""]["var"] *= 1e-6  # so that a wrong epsilon would show
    layers, ignored = published.keras(files.keras_layers(units, old), given, "f")
    assert ignored == []
    u = units[1, 0, ""]
    mean, var, factor = layers["bn_conv1"].blobs
    np.testing.assert_allclose(mean, u["mean"] - u["bias"], atol=1e-7)
    np.testing.assert_allclose(var + np.float64(1e-5), u["var"] + epsilon, rtol=1e-6)
    assert factor.tolist() == [1]
    weight, bias = layers["conv1"].blobs
    np.testing.assert_allclose(weight, u["weight"], rtol=1e-6)
    assert not bias.any()
    assert len(layers["res2a_branch2a"].blobs) == 1


def test_he_s_statistics_are_known_whatever_holds_them(monkeypatch):
    layers = files.keras_layers(files.units(biases=True), old=True)
    known = published._statistics(_units(layers))
    monkeypatch.setattr(published, "HES_STATISTICS", known)

    def variance(layers, epsilon=None, described=1e-3):
        return published.keras(layers, epsilon, "f", described)[0]["bn2a_branch1"].blobs[1]

    as_it_is = layers["bn2a_branch1"][3]
    np.testing.assert_array_equal(variance(layers), as_it_is)
    np.testing.assert_allclose(variance(layers, 1e-3), as_it_is + 1e-3 - 1e-5, rtol=1e-6)
    layers["bn5c_branch2c"][3][0] += 1e-4  # trained on: its framework's epsilon counts now
    np.testing.assert_allclose(variance(layers), as_it_is + 1e-3 - 1e-5, rtol=1e-6)


def _units(layers):
    units = published.Units()
    for name, values in layers.items():
        key, is_norm, _ = published._keras_part(name)
        if key is not None and is_norm:
            units.found[key] |= {"mean": values[2], "var": values[3]}
    return units


# ---- .tgz -------------------------------------------------------------------------------


@pytest.fixture
def keras_layers():
    return files.keras_layers(files.units(biases=True), old=True)


def test_a_package_of_npm_s_is_what_keras_s_h5_is(keras_layers, tmp_path):
    h5 = source.load(str(files.write_h5(tmp_path / "k.h5", keras_layers)))
    tgz = source.load(str(files.write_tgz(tmp_path / "k.tgz", keras_layers)))
    assert list(tgz.layers) == list(h5.layers)
    assert (tgz.mean, tgz.demands, tgz.ignored) == (h5.mean, h5.demands, h5.ignored)
    for name, layer in h5.layers.items():
        for blob, same in zip(layer.blobs, tgz.layers[name].blobs):
            np.testing.assert_array_equal(blob, same)
    weight = tgz.layers["fc1000"].blobs[0]
    np.testing.assert_array_equal(weight, keras_layers["fc1000"][0].T)
    described = source.load(str(files.write_tgz(tmp_path / "k.tgz", keras_layers, epsilon=0.5)))
    var = keras_layers["bn_conv1"][3]
    np.testing.assert_allclose(described.layers["bn_conv1"].blobs[1], var + 0.5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dtype": "float16"}, "bn2a_branch1/gamma is not unquantised float32"),
        ({"quantization": {"dtype": "uint8"}}, "is not unquantised float32"),
        ({"shape": [-1]}, "not a TensorFlow.js layers model"),
        ({"shape": [1]}, r"its shards hold [\d,]+ bytes, not"),
        ({"shape": ["x"]}, "not a TensorFlow.js layers model"),
        ({"shape": [2**40]}, "not a TensorFlow.js layers model"),
        ({"name": "bn2a_branch1/delta"}, "not a TensorFlow.js layers model"),
        ({"name": 7}, "not a TensorFlow.js layers model"),
    ],
)
def test_a_bad_model_json_gets_one_clear_line(keras_layers, tmp_path, changed, message):
    path = files.write_tgz(tmp_path / "k.tgz", keras_layers, **changed)
    with pytest.raises(UserError, match=message) as caught:
        source.load(str(path))
    assert "\n" not in str(caught.value)


def test_a_bad_tgz_gets_one_clear_line(keras_layers, tmp_path, monkeypatch):
    whole = files.write_tgz(tmp_path / "k.tgz", keras_layers).read_bytes()
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 0xFF
    no_model = files.tgz(tmp_path / "n.tgz", {"a/b.txt": b"x"}).read_bytes()
    no_shard = files.tgz(
        tmp_path / "m.tgz",
        {"model.json": b'{"weightsManifest": [{"paths": ["a.bin"], "weights": []}]}'},
    ).read_bytes()
    for data, message in [
        (whole[: len(whole) // 2], "f is cut short or damaged"),
        (bytes(broken), "f is cut short or damaged"),
        (whole[:5], "f is cut short or damaged"),
        (gzip.compress(b"no tar"), "f is cut short or damaged"),
        (no_model, "it has 0 files called model.json"),
        (no_shard, "f is incomplete: a.bin is missing"),
        (files.tgz(tmp_path / "j.tgz", {"model.json": b"["}).read_bytes(), "its model.json is"),
        (files.tgz(tmp_path / "j.tgz", {"model.json": b"[]"}).read_bytes(), "its model.json is"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            tfjs.load(data, "f")
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(tfjs, "MOST", 1000)
    with pytest.raises(UserError, match="unpacks to more than"):
        tfjs.load(whole, "f")


def test_bad_h5_files_get_one_clear_line(h5, tmp_path):
    whole = h5.read_bytes()
    for data, message in [
        (whole[: len(whole) // 2], "f is cut short, damaged or not Keras's"),
        (whole[:512], "f is cut short, damaged or not Keras's"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            keras.load(data, "f")
        assert "\n" not in str(caught.value)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = [1, 2]
    with pytest.raises(UserError, match="has no weights in any of Keras's layouts"):
        source.load(str(tmp_path / "other.h5"))


def test_h5py_is_asked_for_by_name(h5, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match="pip install h5py"):
        source.load(str(h5))


# ---- Conversion ---------------------------------------------------------------------------


def test_torchvisions_conv1_is_bgr_in_units_of_one():
    layers, ignored = published.torchvision(TENSORS, "f")
    assert ignored == []
    np.testing.assert_array_equal(layers["fc1000"].blobs[0], TENSORS["fc.weight"])
    weight, bias = layers["conv1"].blobs
    blue = TENSORS["conv1.weight"][:, 2] / (255 * 0.225)
    np.testing.assert_allclose(weight[:, 0], blue, rtol=1e-6)
    assert not bias.any()


def test_a_deeper_resnets_blocks_are_numbered_and_its_conv1_has_no_bias():
    tensors = dict(TENSORS)
    for i in range(1, 7):
        for name, tensor in TENSORS.items():
            if name.startswith("layer2.1."):
                tensors[name.replace("layer2.1.", f"layer2.{i}.")] = tensor
    layers, _ = published.torchvision(tensors, "f")
    assert {"res3a_branch1", "res3b6_branch2c", "bn3b1_branch2a"} <= set(layers)
    assert len(layers["conv1"].blobs) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer1.0.bn2.running_var": None}, "res2a_branch2b lacks its var"),
        ({"layer4.2.conv3.weight": None}, "res5c_branch2c lacks its weight"),
        ({"layer4.2.bn3.bias": np.ones(3)}, "weights of 128x32x1x1 and a beta of 3"),
        ({"conv1.weight": None, "bn1.weight": None}, "conv1 lacks its weight and gamma"),
    ],
)
def test_an_incomplete_state_dict_says_what_is_missing(change, message):
    tensors = {k: v for k, v in {**TENSORS, **change}.items() if v is not None}
    with pytest.raises(UserError, match=f"f: .*{message}"):
        published.torchvision(tensors, "f")


def test_another_net_is_none_of_theirs():
    with pytest.raises(UserError, match=r"is not one of torchvision's .* holds features.0"):
        published.torchvision({"features.0.weight": np.ones(3)}, "f")
    with pytest.raises(UserError, match="is not one of Keras's ResNets: it holds block1_conv1"):
        published.keras({"block1_conv1": [np.ones(3)]}, None, "f")
    with pytest.raises(UserError, match="'conv1_conv' is not a convolution: 3"):
        published.keras({"conv1_conv": [np.ones(3)]}, None, "f")
    with pytest.raises(UserError, match="not a ResNet: res2 is missing"):
        published.torchvision(
            {"conv1.weight": np.ones(3), "layer2.0.conv1.weight": np.ones(3)}, "f"
        )


def test_a_net_that_computes_something_else_is_refused(tmp_path):
    path = tmp_path / "r.pth"
    path.write_bytes(ZIP)
    argv = ["--from", str(path), "--out", str(tmp_path / "w")]
    both = "differs from the published one: .* --stride-in 3x3 --pool1 padded"
    with pytest.raises(UserError, match=both):
        main(["init", *NET, *argv])
    with pytest.raises(UserError, match=r"with --pool1 padded$"):
        main(["init", *NET, "--stride-in", "3x3", *argv])
    keras_file = files.write_h5(tmp_path / "k.h5", files.keras_layers(files.units(biases=True)))
    with pytest.raises(UserError, match=r"Keras's ResNet .* with --stride-in 1x1"):
        main(["init", *TORCH_NET, "--from", str(keras_file), "--out", str(tmp_path / "w")])
    assert not (tmp_path / "w").exists()


def test_what_else_the_net_needs_is_said(h5, tmp_path, capsys):
    path, out = tmp_path / "r.pth", str(tmp_path / "w")
    path.write_bytes(ZIP)
    main(["init", *TORCH_NET, "--from", str(path), "--out", out])
    assert "make the net with --mean 103.53,116.28,123.675" in capsys.readouterr().out
    main(["init", *TORCH_NET, "--mean", "103.53,116.28,123.675", "--from", str(path), "--out", out])
    assert "note:" not in capsys.readouterr().out
    main(["init", *NET, "--from", str(h5), "--out", out])
    assert "--pool1 padded computes what Keras computes" in capsys.readouterr().out
    main(["init", *NET, "--pool1", "padded", "--from", str(h5), "--out", out])
    assert "note:" not in capsys.readouterr().out
