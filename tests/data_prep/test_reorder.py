"""The training images in another order: the same records, and a whole data folder."""

from __future__ import annotations

import pytest

from data_prep.__main__ import main
from data_prep.folder import DataFolder
from data_prep.reorder import reorder
from xresnet.basics.cli import UserError
from xresnet.caffeproto import databases


def records(database) -> list[tuple[bytes, bytes]]:
    return list(databases.items(database))


def test_the_same_records_in_another_order(drawn, tmp_path, capsys):
    folders = [DataFolder(drawn), DataFolder(tmp_path / "1"), DataFolder(tmp_path / "2")]
    for seed in (1, 2):
        out = ["--seed", str(seed), "--out", str(tmp_path / str(seed))]
        assert main(["reorder", str(drawn), *out]) == 0
        assert main(["verify", "--out", str(tmp_path / str(seed))]) == 0, capsys.readouterr()
    orders = []
    for folder in folders:
        images, labels = (records(folder.lmdb("train", kind)) for kind in ("image", "label"))
        assert [name for name, _ in images] == [name for name, _ in labels]
        assert [name[9:].decode() for name, _ in images] == [
            line.rpartition(" ")[0] for line in folder.list("train").read_text().splitlines()
        ]
        orders.append(
            [(name[9:], image, label) for (name, image), (_, label) in zip(images, labels)]
        )
        assert records(folder.lmdb("test", "image")) == records(folders[0].lmdb("test", "image"))
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_a_folder_is_made_once_and_again_where_a_kill_left_half(drawn, tmp_path, monkeypatch):
    source, target = DataFolder(drawn), DataFolder(tmp_path / "data")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("data_prep.reorder.write_list", killed)
        with pytest.raises(KeyboardInterrupt):
            reorder(source, target, 3)
    assert "lmdb" not in target.read_manifest()
    order = reorder(source, target, 3).facts
    written = (target.lmdb("train", "image") / "data.mdb").stat().st_mtime_ns
    assert reorder(source, target, 3).facts == order
    assert (target.lmdb("train", "image") / "data.mdb").stat().st_mtime_ns == written
    with pytest.raises(UserError, match="holds other data"):
        reorder(source, target, 4)
    with pytest.raises(UserError, match="to another folder"):
        reorder(source, source, 3)


def test_a_full_disk_is_the_targets(drawn, tmp_path, monkeypatch):
    """Not that of the databases that are read meanwhile."""
    target = DataFolder(tmp_path / "data")
    with monkeypatch.context() as patched:
        patched.setattr("data_prep.lmdb_writer.MAP_SIZE", 1 << 16)
        with pytest.raises(OSError, match="limit reached") as error:
            reorder(DataFolder(drawn), target, 3)
    assert error.value.filename == str(target.lmdb("train", "image"))
    reorder(DataFolder(drawn), target, 3)
    assert main(["verify", "--out", str(target.root)]) == 0


def test_images_that_could_not_be_read_stay_left_out(tmp_path, capsys):
    images, data = tmp_path / "vso", tmp_path / "data"
    main(["sample", "--per-anp", "12", "--out", str(images)])
    options = ["--images", str(images), "--out", str(data)]
    main(["filter", "--ontology", str(images / "ontology.txt"), "--min-images", "10", *options])
    main(["split", *options])
    path = (data / "train.txt").read_text().splitlines()[3].rpartition(" ")[0]
    next(images.rglob(path)).write_bytes(b"no image")
    main(["lmdb", "--size", "32", "--allow-dropped", *options])
    reorder(DataFolder(data), DataFolder(tmp_path / "other"), 1)
    assert main(["verify", "--out", str(tmp_path / "other")]) == 0, capsys.readouterr()
