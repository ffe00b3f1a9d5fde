"""HDF5 files of strangers: no other file is read through them, and none unfolds without bound."""

from __future__ import annotations

import numpy as np
import pytest

h5py = pytest.importorskip("h5py", reason="NO H5PY HERE: pip install h5py")

from netgen.weights import keras  # noqa: E402
from xresnet.basics.cli import UserError  # noqa: E402
from xresnet.basics.hdf5 import Reader  # noqa: E402
from xresnet.caffeproto import LayerParameter  # noqa: E402

SECRET = np.arange(8, dtype=np.float32)


def hostile(folder, how: str) -> None:
    """`x.h5` in `folder`, its data set `w` made in the way `how`; `secret` is another file."""
    SECRET.tofile(folder / "secret")
    with h5py.File(folder / "secret.h5", "w") as file:
        file["w"] = SECRET
    with h5py.File(folder / "x.h5", "w") as file:
        if how == "external storage":
            where = [(str(folder / "secret"), 0, SECRET.nbytes)]
            file.create_dataset("w", SECRET.shape, "<f4", external=where)
        elif how == "external link":
            file["w"] = h5py.ExternalLink(str(folder / "secret.h5"), "/w")
        elif how == "soft link":
            file["out"] = h5py.ExternalLink(str(folder / "secret.h5"), "/")
            file["w"] = h5py.SoftLink("/out/w")
        elif how == "virtual":
            layout = h5py.VirtualLayout(SECRET.shape, "<f4")
            layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "w", SECRET.shape)
            file.create_virtual_dataset("w", layout)
        elif how == "fill":  # 8 GB of one value, nowhere stored
            file.create_dataset("w", (2 * 10**9,), "<f4", fillvalue=1)
        elif how == "zeros":
            file.create_dataset("w", (1 << 26,), "<f4", compression="gzip", chunks=(1 << 22,))
            file["w"][:] = 0
        elif how == "text":
            file["w"] = "text"
        elif how == "group":
            file.create_group("w")


REFUSED = {
    "external storage": "lies in other files",
    "external link": "is a link, which is not followed",
    "soft link": "is a link, which is not followed",
    "virtual": "lies in other files",
    "fill": r"would take 8\.00 GB, out of a file of",
    "zeros": r"would take 0\.27 GB",
    "text": "is not a numeric data set",
    "group": "is not a numeric data set",
}


@pytest.mark.parametrize("how", REFUSED)
def test_hostile_files_are_refused(how, tmp_path):
    hostile(tmp_path, how)
    size = (tmp_path / "x.h5").stat().st_size
    with (
        h5py.File(tmp_path / "x.h5", "r") as file,
        pytest.raises(UserError, match=f"^x: .*{REFUSED[how]}"),
    ):
        reader = Reader(file, size, "x")
        reader.array(reader.at("w"))


@pytest.mark.parametrize("how", REFUSED)
def test_weights_and_records_go_the_same_way(how, tmp_path):
    hostile(tmp_path, how)
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file.attrs["layer_names"] = ["layer"]
        group = file.create_group("layer")
        group.attrs["weight_names"] = ["w"]
        if how in ("external link", "soft link"):
            group["w"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/w")
        else:
            group["w"] = file["w"]
    with pytest.raises(UserError, match=REFUSED[how]):
        keras.load((tmp_path / "x.h5").read_bytes(), "x.h5")
    pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")
    from torchcaffe.data import Feed

    (tmp_path / "list").write_text(str(tmp_path / "x.h5"))
    param = {"source": str(tmp_path / "list"), "batch_size": 1}
    made = LayerParameter(name="d", type="HDF5Data", top=["w"], hdf5_data_param=param)
    with pytest.raises(UserError, match=f"layer 'd': .*{REFUSED[how]}"):
        Feed(made)


def test_what_lies_in_the_file_is_read(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a/b/w", data=np.tile(SECRET, 1000), compression="gzip")
    with h5py.File(tmp_path / "x.h5", "r") as file:
        reader = Reader(file, (tmp_path / "x.h5").stat().st_size, "x")
        found = reader.array(reader.at("b/w", reader.at("a")))
        np.testing.assert_array_equal(found, np.tile(SECRET, 1000))
        assert reader.at("a/none") is None
