"""Table 2's published models without Caffe: parameters, names, errors; the index map."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netgen import deepsentibank
from netgen.classics import DEEPSENTIBANK_CLASSES
from netgen.command import generate
from netgen.measure import measure, takes_part
from netgen.paper import paper
from xresnet.basics.cli import UserError
from xresnet.caffeproto import TEST, TRAIN, NetParameter, text

# The nets with a task each, and the smallest input of each.
CLASSICS = {"caffenet": 39, "inception_v1": 47, "vggnet16": 1}

# REFERENCE arithmetic, checked in real Caffe by test_netgen_classics_caffe.py.
EXACT = {
    ("caffenet", "noun"): 57_552_423,
    ("caffenet", "adj"): 57_347_573,
    ("caffenet", "anp"): 59_133_865,
    ("inception_v1", "noun"): 10_816_805,
    ("inception_v1", "adj"): 10_663_055,
    ("inception_v1", "anp"): 12_003_755,
    ("vggnet16", "noun"): 134_944_743,
    ("vggnet16", "adj"): 134_739_893,
    ("vggnet16", "anp"): 136_526_185,
    ("deepsentibank", None): 65_426_857,
}

# Table 2's parameter column: every cell that has a figure.
CELLS = [
    (row["net"], None if task == "all" or row["net"] == "deepsentibank" else task, millions)
    for row in paper()["table2"]
    for task, millions in row["params"].items()
]


def argv_of(net: str, task: str | None, *more: str) -> list[str]:
    return [net, *(["--task", task] if task else []), *more]


def net_of(*argv: str):
    return text.loads(generate(list(argv)), NetParameter)


def counted(*argv: str) -> dict:
    return json.loads(generate([*argv, "--params", "--json"]))


# ---- Parameters -----------------------------------------------------------------


@pytest.mark.parametrize(("net", "task", "millions"), CELLS)
def test_every_parameter_cell_of_table_2_to_the_printed_digit(net, task, millions):
    found = counted(*argv_of(net, task))
    assert f"{found['total'] / 1e6:.2f}" == f"{millions:.2f}"
    assert found["paper_millions"] == millions


def test_table_2_has_all_its_cells():
    # A net a task: four architectures and three tasks. DeepSentiBank has one, an X-net one for all.
    assert len(CELLS) == 4 * 3 + 1 + 3


@pytest.mark.parametrize(("net", "task"), EXACT)
def test_parameters_are_exact(net, task):
    assert counted(*argv_of(net, task))["total"] == EXACT[net, task]


@pytest.mark.parametrize(
    ("net", "total", "inference"),
    [
        ("caffenet", 60_965_224, 60_965_224),
        ("inception_v1", 13_378_280, 6_998_552),
        ("vggnet16", 138_357_544, 138_357_544),
    ],
)
def test_with_imagenets_classes_they_are_the_published_models(net, total, inference):
    found = counted(net, "--tasks", "imagenet:1000", "--task", "imagenet")
    assert (found["total"], found["inference_total"]) == (total, inference)


def test_inception_reports_with_and_without_auxiliary_heads():
    table = generate(["inception_v1", "--task", "noun", "--params"])
    assert re.search(r"^total\b.* 10,816,805\b", table, re.MULTILINE)
    assert re.search(r"^without auxiliary heads +6,144,727$", table, re.MULTILINE)
    assert "auxiliary" not in generate(["vggnet16", "--task", "noun", "--params"])


# ---- Names and shapes ------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "names", "classifiers"),
    [
        ("caffenet", "conv1 conv2 conv3 conv4 conv5 fc6 fc7", ["fc8_noun"]),
        (
            "vggnet16",
            "conv1_1 conv1_2 conv2_1 conv2_2 conv3_1 conv3_2 conv3_3 conv4_1 conv4_2 conv4_3 "
            "conv5_1 conv5_2 conv5_3 fc6 fc7",
            ["fc8_noun"],
        ),
        (
            "inception_v1",
            "conv1/7x7_s2 conv2/3x3_reduce conv2/3x3 loss1/conv loss1/fc loss2/conv loss2/fc "
            + " ".join(
                f"inception_{module}/{part}"
                for module in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
                for part in ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
            ),
            [f"loss{i}/classifier_noun" for i in (1, 2, 3)],
        ),
    ],
)
def test_published_names_but_for_the_classifiers(net, names, classifiers):
    learned = {layer.name: layer for layer in net_of(net, "--task", "noun").layer if layer.param}
    assert set(learned) == {*names.split(), *classifiers}
    for name, layer in learned.items():
        rates = [(param.lr_mult, param.decay_mult) for param in layer.param]
        assert rates == ([(10, 1), (20, 0)] if name in classifiers else [(1, 1), (2, 0)]), name


def test_layers_between_carry_the_published_names():
    names = [layer.name for layer in net_of("caffenet", "--task", "noun", "--deploy").layer]
    published = (
        "data conv1 relu1 pool1 norm1 conv2 relu2 pool2 norm2 conv3 relu3 conv4 relu4 conv5 relu5 "
        "pool5 fc6 relu6 drop6 fc7 relu7 drop7 fc8_noun prob_noun"
    )
    assert " ".join(names) == published
    names = [layer.name for layer in net_of("inception_v1", "--task", "noun", "--deploy").layer]
    published = (
        "data conv1/7x7_s2 conv1/relu_7x7 pool1/3x3_s2 pool1/norm1 conv2/3x3_reduce "
        "conv2/relu_3x3_reduce conv2/3x3 conv2/relu_3x3 conv2/norm2 pool2/3x3_s2 inception_3a/1x1"
    )
    assert " ".join(names[:12]) == published
    assert {"pool3/3x3_s2", "pool4/3x3_s2", "inception_5b/output", "pool5/7x7_s1"} <= set(names)
    assert not any(name.startswith(("loss1/", "loss2/")) for name in names)


def test_caffenets_groups_and_normalisation():
    by_name = {layer.name: layer for layer in net_of("caffenet", "--task", "adj").layer}
    groups = [by_name[f"conv{i}"].convolution_param.group for i in range(1, 6)]
    assert groups == [1, 2, 1, 2, 2]
    biases = [by_name[f"conv{i}"].convolution_param.bias_filler.value for i in range(1, 6)]
    assert biases == [0, 1, 0, 1, 1]
    lrn = by_name["norm1"].lrn_param
    assert (lrn.local_size, lrn.alpha, lrn.beta) == (5, pytest.approx(1e-4), 0.75)
    assert list(by_name["norm1"].bottom) == ["pool1"]


def test_auxiliary_losses_count_three_tenths_and_scores_are_the_main_classifiers():
    net = net_of("inception_v1", "--task", "anp")
    weights = {x.name: list(x.loss_weight) for x in net.layer if x.type == "SoftmaxWithLoss"}
    assert weights == {
        "loss1/loss_anp": [pytest.approx(0.3)],
        "loss2/loss_anp": [pytest.approx(0.3)],
        "loss_anp": [1],
    }
    scored = {tuple(layer.bottom) for layer in net.layer if layer.type == "Accuracy"}
    assert scored == {("loss3/classifier_anp", "label_anp")}
    ratios = {x.name: x.dropout_param.dropout_ratio for x in net.layer if x.type == "Dropout"}
    assert ratios == {
        "loss1/drop_fc": pytest.approx(0.7),
        "loss2/drop_fc": pytest.approx(0.7),
        "pool5/drop_7x7_s1": pytest.approx(0.4),
    }


@pytest.mark.parametrize(
    ("net", "size", "mean"),
    [
        ("caffenet", 227, [104, 117, 123]),
        ("inception_v1", 224, [104, 117, 123]),
        ("vggnet16", 224, [103.939, 116.779, 123.68]),
        ("resnet50", 224, [103.939, 116.779, 123.68]),
    ],
)
def test_input_size_and_mean_are_the_published_models(net, size, mean):
    shape = net_of(net, "--task", "adj", "--deploy").layer[0].input_param.shape[0].dim
    assert list(shape) == [1, 3, size, size]
    data = net_of(net, "--task", "adj").layer[0].transform_param
    assert list(data.mean_value) == pytest.approx(mean)
    assert not data.HasField("crop_size")
    own = net_of(net, "--task", "adj", "--mean", "1,2,3", "--input-size", "99", "--crop").layer
    for layer in own[:2]:
        assert list(layer.transform_param.mean_value) == [1, 2, 3]
        assert layer.transform_param.crop_size == 99
        assert layer.transform_param.mirror == takes_part(layer, TRAIN)
        assert takes_part(layer, TRAIN) != takes_part(layer, TEST)


@given(st.sampled_from(list(CLASSICS)), st.integers(1, 300))
def test_any_input_has_a_map_left_or_is_refused(net, size):
    argv = [net, "--task", "adj", "--deploy", "--input-size", str(size)]
    if size < CLASSICS[net]:
        with pytest.raises(UserError, match=f"needs at least {CLASSICS[net]}"):
            net_of(*argv)
        return
    layers = measure(net_of(*argv), {})
    assert all(n >= 1 for layer in layers for top in layer.tops for n in top)
    if net == "inception_v1":
        assert next(layer for layer in layers if layer.name == "pool5/7x7_s1").tops == [
            (1, 1024, 1, 1)
        ]


# ---- DeepSentiBank -----------------------------------------------------------------


def test_deepsentibank_is_caffenet_with_its_own_classifier():
    net = net_of("deepsentibank", "--deploy")
    assert [layer.name for layer in net.layer][-2:] == ["fc8-t", "prob"]
    assert net.layer[-2].inner_product_param.num_output == DEEPSENTIBANK_CLASSES
    body = net_of("caffenet", "--task", "anp", "--deploy").layer[:-2]
    assert list(net.layer[:-2]) == list(body)


def test_index_map_keeps_the_anps_order_and_names_the_missing():
    found = deepsentibank.index_map(["c_d", "x_y", "a_b"], ["a_b", "c_d"])
    assert found == {"indices": [1, None, 0], "missing": ["x_y"]}


def test_all_553_anps_have_an_output(shared):
    folder = shared / "vso"
    classes, anps = folder / "deepsentibank_2089_classes.json", folder / "mtvso_anp.txt"
    command = [sys.executable, "-m", "netgen.deepsentibank", "--classes", classes]
    ran = subprocess.run([*command, "--labels", folder], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["missing"] == []
    outputs = json.loads(classes.read_text())
    assert [outputs[i] for i in found["indices"]] == anps.read_text().split()
    assert len(set(found["indices"])) == 553


def _outputs(n: int = DEEPSENTIBANK_CLASSES) -> str:
    return json.dumps([f"a_{i}" for i in range(n)])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"anp.txt": "a_1\n"}, "cannot read .*classes.json"),
        ({"classes.json": "[", "anp.txt": "a_1\n"}, "classes.json:1: not JSON"),
        ({"classes.json": '{"a": 1}', "anp.txt": "a_1\n"}, "expected a list"),
        ({"classes.json": _outputs(3), "anp.txt": "a_1\n"}, "3 names, but the net has 2,089"),
        (
            {"classes.json": _outputs().replace("a_2000", "a_7"), "anp.txt": "a_1\n"},
            "a_7 is listed twice",
        ),
        ({"classes.json": _outputs()}, "no class list named anp.txt"),
        ({"classes.json": _outputs(), "a_anp.txt": "a_1", "b_anp.txt": "a_1"}, "several class"),
        ({"classes.json": _outputs(), "anp.txt": ""}, "contains no ANP"),
        ({"classes.json": _outputs(), "anp.txt": "a_1\n\na_2\n"}, "anp.txt:2: expected one ANP"),
        ({"classes.json": _outputs(), "anp.txt": "a_1\na_1\n"}, "a_1 is listed twice"),
    ],
)
def test_bad_lists_get_one_clear_line(files, message, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    argv = ["--classes", str(tmp_path / "classes.json"), "--labels", str(tmp_path)]
    with pytest.raises(UserError, match=message):
        deepsentibank.main(argv)


# ---- Errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("caffenet", "choose it with --task adj.anp.noun"),
        ("vggnet --task noun", "unknown net 'vggnet' .did you mean 'vggnet16'"),
        ("caffenet --task noun --input-size 38", "--input-size 38 is too small: caffenet"),
        ("inception_v1 --task noun --input-size 46", "inception_v1 needs at least 47"),
        (
            "vggnet16 --task noun --depth 101",
            "--depth does not apply to vggnet16; it is for resnet50",
        ),
        ("caffenet --task noun --stride-in 3x3", "--stride-in does not apply to caffenet"),
        ("deepsentibank", "not trained: add --deploy"),
        ("deepsentibank --solver", "not trained: add --deploy"),
        ("deepsentibank --deploy --tasks a:3", "--tasks does not apply to deepsentibank"),
        ("deepsentibank --deploy --batch 3", "--batch does not apply to deepsentibank"),
        ("deepsentibank --deploy --task anp", "--task does not apply to deepsentibank"),
    ],
)
def test_a_bad_option_gets_one_clear_line(argv, message):
    with pytest.raises(UserError, match=message):
        generate(argv.split())
