"""Initial weights without Caffe: what is copied where, what is refused, what is shown."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from netgen import names
from netgen.command import generate
from netgen.weights import branch
from netgen.weights.command import main
from tests.helpers import weights_files as files
from tests.helpers.weights_files import SMALL
from xresnet.basics.cli import UserError
from xresnet.caffeproto import caffemodel
from xresnet.caffeproto.caffemodel import Layer


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A published ResNet in small, as a .caffemodel."""
    path = tmp_path_factory.mktemp("published") / "ResNet.caffemodel"
    caffemodel.save(path, "ResNet", files.published())
    return path


def init(capsys, out, *argv: object) -> tuple[dict, dict[str, Layer]]:
    """The report, and the layers written, by name."""
    capsys.readouterr()
    assert main(["init", *map(str, argv), "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    return report, {layer.name: layer for layer in caffemodel.load(out)}


def learned(*argv: str) -> dict[str, list]:
    """Each layer of netgen's net that has blobs, and their shapes."""
    layers = json.loads(generate([*argv, "--params", "--json"]))["layers"]
    return {x["name"]: x["blobs"] for x in layers if x["blobs"]}


def equal(a: Layer, b: Layer) -> bool:
    return len(a.blobs) == len(b.blobs) and all(map(np.array_equal, a.blobs, b.blobs))


# ---- Which layer starts from which ------------------------------------------------------


BRANCHES = [
    *product(["res5a", "res5b", "res3a", "res2a"], ["both", "branch2c", "none"]),
    ("none", "both"),
]


@pytest.mark.parametrize(("after", "norm"), BRANCHES)
@pytest.mark.parametrize("net", ["x0_resnet50", "xs_resnet50", "xp_resnet50", "xg_resnet50"])
def test_every_layer_is_accounted_for(net, after, norm, resnet, tmp_path, capsys):
    argv = [net, *SMALL, "--branch-after", after, "--branch-norm", norm]
    report, made = init(capsys, tmp_path / "w", *argv, "--from", resnet)
    wanted = learned(*argv)
    several = [name for many in report["copied_to_several"].values() for name in many]
    told = [*report["copied"], *several, *report["folded"], *report["fresh"]]
    assert sorted(told) == sorted(wanted)
    assert set(made) == set(wanted) - set(report["fresh"])
    for name, layer in made.items():
        assert [list(blob.shape) for blob in layer.blobs] == wanted[name]
    assert report["ignored"] == ["fc1000"]
    assert all("_cross_" in name or name.startswith("fc_") for name in report["fresh"])
    source = {layer.name: layer for layer in caffemodel.load(resnet)}
    for origin, many in report["copied_to_several"].items():
        assert len(many) == 3
        assert all(equal(made[name], source[origin]) for name in many)
    assert all(equal(made[name], source[name]) for name in report["copied"])


def test_whole_towers_start_alike_from_conv1_on(resnet, tmp_path, capsys):
    argv = ["xs_resnet50", *SMALL, "--branch-after", "none"]
    report, made = init(capsys, tmp_path / "w", *argv, "--from", resnet)
    assert report["copied_to_several"]["conv1"] == ["conv1_adj", "conv1_anp", "conv1_noun"]
    assert report["copied"] == []
    assert equal(made["bn_conv1_adj"], made["bn_conv1_noun"])


def test_without_folding_only_the_moved_norms_are_left_out(resnet, tmp_path, capsys):
    argv = ["xs_resnet50", *SMALL, "--from", resnet, "--branch-init", "fresh"]
    report, made = init(capsys, tmp_path / "w", *argv)
    assert report["folded"] == []
    assert {"bn5a_adj", "scale5a_noun"} <= set(report["fresh"])
    unused = [f"{kind}5a_{b}" for b in ("branch1", "branch2c") for kind in ("bn", "scale")]
    assert sorted(report["ignored"]) == sorted([*unused, "fc1000"])
    source = {layer.name: layer for layer in caffemodel.load(resnet)}
    assert equal(made["res5a_branch1"], source["res5a_branch1"])


def test_folded_norms_are_as_the_issue_has_them(resnet, tmp_path, capsys):
    """gamma = sqrt(g1^2 + g2^2), beta = b1 + b2, statistics to match."""
    _, made = init(capsys, tmp_path / "w", "x0_resnet50", *SMALL, "--from", resnet)
    source = {layer.name: layer for layer in caffemodel.load(resnet)}
    one, two = (source[f"scale5a_{b}"].blobs for b in ("branch1", "branch2c"))
    gamma, beta = made["scale5a_noun"].blobs
    np.testing.assert_allclose(gamma, np.hypot(one[0], two[0]), rtol=1e-6)
    np.testing.assert_allclose(beta, one[1] + two[1], rtol=1e-6)
    _, var, factor = made["bn5a_noun"].blobs
    np.testing.assert_allclose(var + 1e-5, gamma**2, rtol=1e-6)
    assert factor.tolist() == [1]
    assert equal(made["bn5a_noun"], made["bn5a_adj"])


def test_the_published_net_keeps_its_classifier(tmp_path, capsys):
    units = files.units()
    tensors = files.state_dict(units)
    rng = np.random.default_rng(1)
    tensors["fc.weight"] = rng.normal(size=(1000, 4 * files.WIDTH << 3)).astype(np.float32)
    tensors["fc.bias"] = rng.normal(size=1000).astype(np.float32)
    path = tmp_path / "r.pth"
    path.write_bytes(files.pth_zip(tensors))
    shape = ["--stride-in", "3x3", "--pool1", "padded", *SMALL[2:]]
    report, made = init(capsys, tmp_path / "w", "resnet50_imagenet", *shape, "--from", path)
    assert report["fresh"] == report["ignored"] == []
    np.testing.assert_array_equal(made["fc1000"].blobs[0], tensors["fc.weight"])
    np.testing.assert_array_equal(made["fc1000"].blobs[1], tensors["fc.bias"])


def test_a_thin_nets_own_names_are_the_published_ones_too(tmp_path, capsys):
    source, published = tmp_path / "thin.caffemodel", files.published(stem_width=6)
    caffemodel.save(source, "thin", files.pynetbuilder(published, bias=0.25))
    argv = ["xs_resnet50", *SMALL, "--stem-width", "6", "--from", source]
    report, made = init(capsys, tmp_path / "w", *argv)
    assert report["ignored"] == ["fc_nsfw"]
    assert made["conv1"].blobs[0].shape == (6, 3, 7, 7)
    by_name = {layer.name: layer for layer in published}
    assert equal(made["res3b_branch2c"], by_name["res3b_branch2c"])
    mean, var, factor = by_name["bn3b_branch2a"].blobs
    running = made["bn3b_branch2a"].blobs
    np.testing.assert_allclose(running[0], mean / factor - 0.25, rtol=1e-6)
    np.testing.assert_allclose(running[1], var / factor, rtol=1e-6)
    with pytest.raises(UserError, match=r"6 channels in conv1 and 4 in .*--width 4 --stem-width 6"):
        main(["init", "xs_resnet50", *SMALL, "--from", str(source), "--out", str(tmp_path / "w")])


def test_frozen_norms_need_statistics(resnet, tmp_path, capsys):
    argv = ["xs_resnet50", *SMALL, "--bn", "frozen", "--from", resnet]
    report, _ = init(capsys, tmp_path / "w", *argv)
    assert not any(name.startswith("bn") for name in report["fresh"])
    with pytest.raises(UserError, match="bn5a_adj is frozen, but would start without statistics"):
        init(capsys, tmp_path / "w", *argv, "--branch-init", "fresh")


def test_rectified_moments_are_those_of_many_draws():
    rng = np.random.default_rng(0)
    mean, std = np.array([-2.0, 0.0, 0.5, 3.0]), np.array([1.0, 0.5, 2.0, 0.1])
    draws = np.maximum(rng.normal(mean, std, (1_000_000, 4)), 0)
    first, var = branch.rectified(mean, std**2)
    np.testing.assert_allclose(first, draws.mean(0), rtol=0.02)
    np.testing.assert_allclose(var, draws.var(0), rtol=0.05)
    assert branch.rectified(np.array([-1.0]), np.array([0.0]))[0][0] == 0


def test_a_trained_net_starts_its_like(resnet, tmp_path, capsys):
    """X0's own weights in XS: nothing is folded twice, only cross weights are new."""
    first = tmp_path / "x0.caffemodel"
    _, made = init(capsys, first, "x0_resnet50", *SMALL, "--from", resnet)
    report, again = init(capsys, tmp_path / "w", "xs_resnet50", *SMALL, "--from", first)
    assert report["folded"] == []
    assert all("_cross_" in name or name.startswith("fc_") for name in report["fresh"])
    assert all(equal(again[name], made[name]) for name in made)


def test_towers_start_from_their_tasks_own_files(resnet, tmp_path, capsys):
    sources = []
    for i, task in enumerate(("adj", "noun")):
        layers = [x for x in files.published(seed=i + 1) if x.name != "fc1000"]
        count = {"adj": 3, "noun": 5}[task]
        blobs = (np.full((count, 32 * 4), i, np.float32), np.zeros(count, np.float32))
        layers.append(Layer(f"fc_{task}", "InnerProduct", blobs))
        path = tmp_path / f"{task}.caffemodel"
        caffemodel.save(path, task, layers)
        sources += ["--from", f"{task}={path}"]
    argv = ["cross_stitch_resnet50", *SMALL, *sources, "--from", resnet]
    report, made = init(capsys, tmp_path / "w", *argv)
    own = {layer.name: layer for layer in files.published(seed=2)}
    common = {layer.name: layer for layer in caffemodel.load(resnet)}
    assert equal(made["res4a_branch2b_noun"], own["res4a_branch2b"])
    assert equal(made["res4a_branch2b_anp"], common["res4a_branch2b"])
    assert made["fc_noun"].blobs[0].max() == 1
    assert "fc_anp" in report["fresh"]
    assert not any(name.startswith("fc_") for name in report["ignored"])


def test_a_classifier_starts_afresh_whatever_the_published_one_is_called(tmp_path, capsys):
    """CaffeNet's fc8 would be the origin of fc8_noun by name."""
    source = tmp_path / "caffenet.caffemodel"
    caffemodel.save(source, "CaffeNet", files.published("caffenet"))
    report, made = init(capsys, tmp_path / "w", "caffenet", "--task", "noun", "--from", source)
    assert report["fresh"] == ["fc8_noun"]
    assert report["ignored"] == ["fc8"]
    assert set(report["copied"]) == set(made) == {f"conv{i}" for i in range(1, 6)} | {"fc6", "fc7"}


def test_origins_of_names():
    tasks = ["noun", "big_noun"]
    assert names.origin("res5b_branch2a_noun", tasks) == ("res5b_branch2a", "noun")
    assert names.origin("res5b_branch2a_big_noun", tasks) == ("res5b_branch2a", "big_noun")
    assert names.origin("res5b_cross_adj-noun", tasks) == ("res5b_cross_adj-noun", None)
    assert names.origin("_noun", tasks) == ("_noun", None)
    assert names.norm_names("conv1") == ("bn_conv1", "scale_conv1")


# ---- What is refused ----------------------------------------------------------------------


def replaced(resnet, path, name: str, *blobs: np.ndarray):
    """The published file with other blobs in one layer."""
    layers = [
        Layer(x.name, x.kind, blobs if x.name == name else x.blobs) for x in caffemodel.load(resnet)
    ]
    caffemodel.save(path, "n", layers)
    return path


def test_a_shape_mismatch_names_layer_and_both_shapes(resnet, tmp_path):
    argv = ["init", "xs_resnet50", *SMALL, "--width", "8", "--from", str(resnet)]
    expected = "a ResNet of 4 channels in conv1 and 4 in res2a_branch2a: .* with --width 4$"
    with pytest.raises(UserError, match=expected):
        main([*argv, "--out", str(tmp_path / "w")])
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("layer", "blobs", "message"),
    [
        ("res5b_branch2a", [np.ones((2, 2))], "'res5b_branch2a' .for 'res5b_branch2a_adj'. blob 0"),
        ("bn2a_branch1", [np.ones(16)], "has 1 blob .16., the net wants 3 blobs .16, 16, 1."),
        ("conv1", [np.full((4, 3, 7, 7), np.nan), np.ones(4)], "588 of its 588 values are NaN"),
        ("bn5a_branch1", [np.ones(128), np.full(128, np.inf), np.ones(1)], "128 values are NaN"),
        ("bn5a_branch2c", [np.ones(128), -np.ones(128), np.ones(1)], "a negative variance"),
        ("scale5a_branch2c", [np.ones(128)], "has 1 blob .128., the net wants 2 blobs"),
        ("scale5a_branch1", [np.ones(1), np.ones(1)], "blob 0 is 1, the net needs 128"),
    ],
)
def test_what_cannot_be_used_is_named(layer, blobs, message, resnet, tmp_path):
    source = replaced(resnet, tmp_path / "s", layer, *(b.astype(np.float32) for b in blobs))
    argv = ["init", "xs_resnet50", *SMALL, "--from", str(source), "--out", str(tmp_path / "w")]
    with pytest.raises(UserError, match=message):
        main(argv)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "name a command"),
        ("init xs_resnet50 --out w", "required: --from"),
        ("init --from R --out w", "init needs the name of a net"),
        ("init xs_resnet --from R --out w", "did you mean 'xs_resnet50'"),
        ("init xs_resnet50 --from nowhere --out w", "cannot read nowhere: No such file"),
        ("init xs_resnet50 --from R --out w --solver", "--solver is an option of python -m netgen"),
        ("init xs_resnet50 --from R --out w --lr 1", "--lr is the solver's and changes no net"),
        ("init xs_resnet50 --task adj --from R --out w", "--task does not apply to xs_resnet50"),
        ("init xs_resnet50 --from R --from R --out w", "all tasks already have a file"),
        ("init xs_resnet50 --from R --out w --wdith 4", "unrecognized arguments: --wdith"),
        (
            "init xs_resnet50 --from R --out w --bn-epsilon 0",
            "expected a number above 0",
        ),
        ("init xs_resnet50 --from R --out w --bn-epsilon 1e-3", "is for Keras files only"),
        ("init xs_resnet50 --branch-init no --from R --out w", "invalid choice: 'no'"),
        ("init vggnet16 --task adj --from R --out w", "nothing in .* has the name of a layer"),
        ("show nowhere", "cannot read nowhere"),
        ("show R R", "unrecognized arguments"),
    ],
)
def test_a_mistake_gets_one_clear_line(argv, message, resnet, tmp_path):
    words = [str(resnet) if word == "R" else word for word in argv.split()]
    command = [sys.executable, "-m", "netgen.weights", *words]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode in (1, 2)
    assert ran.stdout == ""
    assert len(ran.stderr.splitlines()) == 1
    assert re.search(message, ran.stderr)
    assert not (tmp_path / "w").exists()


# ---- What is shown --------------------------------------------------------------------------


def test_show_lists_layers_shapes_and_norms(tmp_path, capsys):
    path = tmp_path / "w.caffemodel"
    blobs = (np.full((2, 3, 1, 1), 2, np.float32), np.array([3, 4], np.float32))
    caffemodel.save(path, "n", [Layer("conv", "Convolution", blobs), Layer("relu", "ReLU", ())])
    main(["show", str(path)])
    assert capsys.readouterr().out == (
        "conv  Convolution  2x3x1x1 |4.899|  2 |5|\nw.caffemodel: 1 layer, 8 values\n"
    )
    main(["show", str(path), "--json"])
    (layer,) = json.loads(capsys.readouterr().out)["layers"]
    assert layer["blobs"][1] == {"shape": [2], "norm": 5.0, "not_finite": 0}


def test_show_counts_what_is_no_number(tmp_path, capsys):
    path = tmp_path / "w.caffemodel"
    blob = np.array([1, np.nan, np.inf], np.float32)
    caffemodel.save(path, "n", [Layer("bn", "BatchNorm", (blob,))])
    main(["show", str(path)])
    out = capsys.readouterr().out
    assert "3 (2 NaN or infinite)" in out
    assert "warning: 2 values" in out
    main(["show", str(path), "--json"])
    (layer,) = json.loads(capsys.readouterr().out)["layers"]
    assert layer["blobs"] == [{"shape": [3], "norm": None, "not_finite": 2}]


def test_the_report_in_words(resnet, tmp_path, capsys):
    out = tmp_path / "w.caffemodel"
    main(["init", "xs_resnet50", *SMALL, "--from", str(resnet), "--out", str(out)])
    said = capsys.readouterr().out
    assert "copied to every task: 18 to 54" in said
    assert "res5c_branch2b -> res5c_branch2b_adj, res5c_branch2b_anp, res5c_branch2b_noun" in said
    assert "folded across the branching point: 8" in said
    assert "in the file, not in the net: 1\n  fc1000" in said
    assert f"wrote {out}" in said


def test_netgen_itself_needs_no_numpy():
    script = (
        "import sys; from netgen.command import generate; generate(['xs_resnet50']);"
        "sys.exit('numpy' in sys.modules or 'netgen.weights' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
