"""Full-size ResNet-50 of Keras Applications, and what real Caffe makes of its weights.

Random weights do: biases and normalisations with something to say, one image of
224 x 224. The test takes a minute, so it is run where Keras has been installed for it.
"""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")
pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[frameworks]'")
keras = pytest.importorskip("keras", reason="NO KERAS HERE: pip install '.[frameworks]'")

from keras.src.legacy.saving import legacy_h5_format  # noqa: E402

from tests.netgen.test_weights_caffe import blobs, channels, error, init, photograph  # noqa: E402

pytestmark = [pytest.mark.caffe, pytest.mark.slow]

LIMIT = 1e-4


@pytest.fixture(scope="module")
def keras_net():
    rng = np.random.default_rng(0)
    net = keras.applications.ResNet50(weights=None)
    for layer in net.layers:
        shapes = [w.shape for w in layer.get_weights()]
        if len(shapes) == 4:
            ranges = ((0.2, 0.6), (-0.2, 0.2), (-0.3, 0.3), (0.5, 2))
            layer.set_weights([rng.uniform(*r, s) for r, s in zip(ranges, shapes)])
        elif shapes and len(shapes[0]) == 4:
            kernel = rng.normal(0, np.sqrt(2 / np.prod(shapes[0][:3])), shapes[0])
            layer.set_weights([kernel, rng.uniform(-0.2, 0.2, shapes[1])])
    return net


def save(net, path: Path, layout: str) -> Path:
    """As Keras 3 saves weights, as model.save does, and as the published file was saved."""
    if layout == "published":
        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, net)
    elif layout == "model":
        net.save(path)
    else:
        net.save_weights(path)
    return path


@pytest.mark.parametrize("layout", ["published", "model", "keras3"])
def test_keras_and_caffe_agree(layout, keras_net, caffe_tools, tmp_path):
    path = save(keras_net, tmp_path / "resnet50.weights.h5", layout)
    image = photograph(size=224)
    pixels = keras.applications.resnet.preprocess_input(image.transpose(1, 2, 0)[None].copy())
    features = keras.Model(keras_net.input, keras_net.get_layer("conv5_block3_out").output)
    expected = keras.ops.convert_to_numpy(features(pixels)).transpose(0, 3, 1, 2)
    bgr = image[::-1] - channels(103.939, 116.779, 123.68)
    net = ["resnet50", "--task", "noun", "--pool1", "padded"]
    weights = init(tmp_path / "w.caffemodel", net, path)
    found = blobs(caffe_tools, tmp_path, net, weights, bgr[None], "res5c")["res5c"]
    print(f"keras, {layout}: {error(found, expected):.1e}")
    assert error(found, expected) < LIMIT
