"""ImageData and HDF5Data against real Caffe: the same batches in the same order."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")

from tests.helpers.caffe_nets import pycaffe  # noqa: E402
from tests.torchcaffe.oracle import error  # noqa: E402
from torchcaffe.data import Feed, shapes  # noqa: E402
from xresnet.basics.cli import UserError  # noqa: E402
from xresnet.caffeproto import TEST, LayerParameter, NetParameter, text  # noqa: E402

BATCHES = """
import sys, numpy as np, caffe
net = caffe.Net(sys.argv[1], caffe.TEST)
found = {}
for i in range(5):
    net.forward()
    for name, blob in net.blobs.items():
        found["%s%d" % (name, i)] = blob.data.copy()
np.savez(sys.argv[2], **found)
"""


def agree(made: LayerParameter, caffe_tools, folder: Path) -> None:
    """Five batches, which go more than once round the records."""
    made.phase = TEST
    (folder / "net.prototxt").write_text(text.dump(NetParameter(layer=[made])))
    pycaffe(caffe_tools, BATCHES, folder / "net.prototxt", folder / "o.npz")
    wanted = np.load(folder / "o.npz")
    told = shapes(made)
    feed = Feed(made)
    try:
        for i in range(5):
            tops = feed.next()
            for name, shape in zip(made.top, told):
                assert tuple(tops[name].shape) == shape == wanted[f"{name}{i}"].shape
                assert error(tops[name].numpy(), wanted[f"{name}{i}"]) < 1e-6, (name, i)
    finally:
        feed.close()


@pytest.fixture
def images(tmp_path) -> Path:
    """A list of seven drawn images of several sizes; one name has a space."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(7):
        pixels = rng.integers(0, 256, (20 + i, 30 - i, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"im age{i}.png"), cv2.GaussianBlur(pixels, (5, 5), 0))
        lines.append(f"im age{i}.png {10 * i}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    return tmp_path


@pytest.mark.caffe
@pytest.mark.parametrize(
    ("fields", "transform"),
    [
        ({}, {}),
        ({"is_color": False}, {"scale": 0.1}),
        ({}, {"crop_size": 8, "mean_value": [10, 20, 30]}),
    ],
)
def test_image_files_are_caffes(fields, transform, images, caffe_tools):
    where = {"source": str(images / "list.txt"), "root_folder": f"{images}/"}
    param = {**where, "batch_size": 4, "new_height": 12, "new_width": 16, **fields}
    agree(
        LayerParameter(
            name="d", type="ImageData", top=["data", "label"], image_data_param=param,
            transform_param=transform,
        ),
        caffe_tools, images,
    )  # fmt: skip


def test_a_missing_image_is_named(images):
    (images / "im age3.png").unlink()
    param = {"source": str(images / "list.txt"), "root_folder": f"{images}/", "batch_size": 4}
    param.update(new_height=12, new_width=16)
    made = LayerParameter(name="d", type="ImageData", top=["data"], image_data_param=param)
    feed = Feed(made)
    with pytest.raises(UserError, match=r"cannot read image .*im age3\.png"):
        feed.next()
    feed.close()


@pytest.fixture
def rows(tmp_path) -> Path:
    """Two HDF5 files of five and three rows, in a list."""
    h5py = pytest.importorskip("h5py", reason="NO H5PY HERE: pip install '.[export]'")
    rng = np.random.default_rng(0)
    names = []
    for i, count in enumerate((5, 3)):
        names.append(str(tmp_path / f"{i}.h5"))
        with h5py.File(names[-1], "w") as file:
            file["x"] = rng.normal(0, 1, (count, 2, 3)).astype(np.float32)
            file["y"] = rng.integers(0, 9, (count,)).astype(np.float32)
    (tmp_path / "list.txt").write_text("\n".join(names) + "\n")
    return tmp_path


@pytest.mark.caffe
def test_hdf5_rows_are_caffes(rows, caffe_tools):
    param = {"source": str(rows / "list.txt"), "batch_size": 3}
    agree(
        LayerParameter(name="d", type="HDF5Data", top=["x", "y"], hdf5_data_param=param),
        caffe_tools, rows,
    )  # fmt: skip


def test_a_missing_data_set_is_named(rows):
    param = {"source": str(rows / "list.txt"), "batch_size": 3}
    made = LayerParameter(name="d", type="HDF5Data", top=["z"], hdf5_data_param=param)
    with pytest.raises(UserError, match=r"0\.h5 has no data set 'z'"):
        Feed(made)
