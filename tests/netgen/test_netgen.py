"""netgen without Caffe: golden files, parameters, shapes, options, errors."""

from __future__ import annotations

import contextlib
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import FILES

import netgen
from netgen import Network, paper
from netgen.catalog import CATALOG
from netgen.command import generate
from netgen.measure import measure, takes_part
from netgen.net import Net
from netgen.option import flag
from netgen.options import OPTIONS, Solver, divisor
from xresnet.basics.cli import UserError
from xresnet.basics.numbers import Number
from xresnet.caffeproto import TEST, TRAIN, NetParameter, SolverParameter, text

# REFERENCE arithmetic, checked in real Caffe by test_netgen_caffe.py.
EXACT = {
    ("resnet50", "noun"): 23_903_452,
    ("resnet50", "adj"): 23_801_002,
    ("resnet50", "anp"): 24_694_366,
    ("x0_resnet50", None): 43_159_431,
    ("xi_resnet50", None): 43_159_431,
    ("xs_resnet50", None): 43_184_007,
}


def command(net: str, task: str | None = None, *more: str) -> list[str]:
    return [net, *(["--task", task] if task else []), *more]


def net_of(*argv: str):
    return text.loads(generate(list(argv)), NetParameter)


def layers(net) -> dict:
    return {layer.name: layer for layer in net.layer}


@pytest.mark.parametrize("path", FILES)
def test_committed_file_is_what_netgen_emits(path, root):
    assert (root / path).read_text() == FILES[path](), "run: make nets"


@pytest.mark.parametrize(("net", "task"), EXACT)
def test_parameters_are_table_2s(net, task):
    counted = json.loads(generate(command(net, task, "--params", "--json")))
    assert counted["total"] == EXACT[net, task]
    assert counted["paper_millions"] == paper.params(net, task)
    assert f"{counted['total'] / 1e6:.2f}" == f"{paper.params(net, task):.2f}"


@pytest.mark.parametrize(
    ("branch_norm", "total"), [("none", 43_151_238), ("branch2c", 43_167_624), ("both", 43_159_431)]
)
def test_the_readings_of_the_moved_norm_differ_as_reckoned(branch_norm, total):
    argv = ["x0_resnet50", "--branch-norm", branch_norm, "--params", "--json"]
    assert json.loads(generate(argv))["total"] == total


def test_xs_joins_every_two_tasks_in_both_blocks():
    crosses = [layer for layer in net_of("xs_resnet50").layer if "cross" in layer.name]
    pairs = ["anp-adj", "noun-adj", "adj-anp", "noun-anp", "adj-noun", "anp-noun"]
    expected = [f"res5{block}_cross_{pair}" for block in "bc" for pair in pairs]
    assert sorted(layer.name for layer in crosses) == sorted(expected)
    for layer in crosses:
        source, _ = layer.name.rsplit("_", 1)[1].split("-")
        before = "res5a" if "res5b" in layer.name else "res5b"
        assert (layer.type, list(layer.bottom)) == ("Scale", [f"{before}_{source}"])
        assert not layer.scale_param.bias_term
        filler = layer.scale_param.filler
        assert (filler.type, filler.variance_norm) == ("msra", 2)  # AVERAGE


def test_the_control_scales_each_tasks_own_shortcut_and_no_others():
    by_name = layers(net_of("xself_resnet50"))
    assert list(by_name["res5b_noun"].bottom) == [
        "res5a_noun",
        "res5b_branch2c_noun",
        "res5b_cross_noun-noun",
    ]
    assert list(by_name["res5b_cross_noun-noun"].bottom) == ["res5a_noun"]
    xs = layers(net_of("xs_resnet50"))["res5b_cross_adj-noun"]
    assert by_name["res5b_cross_noun-noun"].scale_param == xs.scale_param
    argv = ["xself_resnet50", "--params", "--json"]
    assert json.loads(generate(argv))["total"] == 43_159_431 + 6 * 2048


def test_the_mean_of_the_shortcuts_is_one_by_the_number_of_tasks():
    five = ["--tasks", "a:2,b:2,c:2,d:2,e:2"]
    for tasks, factor in ([], 1 / 3), (five, 0.2), (["--tasks", "a:2"], None):
        net = net_of("xi_resnet50", "--shortcut-factor", "mean", *tasks)
        name = "res5c_adj" if not tasks else "res5c_a"
        coefficients = list(layers(net)[name].eltwise_param.coeff)
        others = [factor] * (len(coefficients) - 2)
        expected = [] if factor is None else [factor, 1, *others]
        assert coefficients == pytest.approx(expected)


def test_cross_weights_start_and_learn_as_asked():
    options = ["--cross-start", "0.25", "--cross-lr", "10", "--cross-decay", "0"]
    for net in "xs_resnet50", "xself_resnet50":
        crosses = [layer for layer in net_of(net, *options).layer if "cross" in layer.name]
        assert crosses
        for layer in crosses:
            filler = layer.scale_param.filler
            assert (filler.type, filler.value) == ("constant", 0.25)
            assert [(p.lr_mult, p.decay_mult) for p in layer.param] == [(10, 0)]
        others = [layer for layer in net_of(net, *options).layer if "cross" not in layer.name]
        assert others == [layer for layer in net_of(net).layer if "cross" not in layer.name]
    with pytest.raises(UserError, match="--cross-std and --cross-start"):
        generate(["xs_resnet50", "--cross-std", "0.1", "--cross-start", "0.25"])


@pytest.mark.parametrize("net", [["xs_resnet50"], ["resnet50", "--task", "anp"], ["rock_resnet50"]])
def test_a_tail_is_the_net_behind_a_block(net):
    """Layer for layer, but for the first, which read the cached maps."""
    for form in [], ["--deploy"]:
        whole, tail = (net_of(*net, *form, *more) for more in ([], ["--from-block", "res4f"]))
        behind, ours = (
            [la for la in x.layer if la.type not in ("Input", "Data") and la.name[:6] != "label_"]
            for x in (whole, tail)
        )
        first = next(i for i, la in enumerate(behind) if la.name == "res5a_branch1")
        for layer in ours:
            layer.bottom[:] = ["res4f" if name == "data" else name for name in layer.bottom]
        assert ours == behind[first:]
    data = [la for la in net_of(*net, "--from-block", "res4f").layer if la.top[:1] == ["data"]]
    assert [la.data_param.batch_size for la in data] == [24, 23]
    assert not any(la.HasField("transform_param") for la in data)  # no flips, no mean
    (image,) = (la for la in tail.layer if la.type == "Input")
    assert list(image.input_param.shape[0].dim) == [1, 1024, 14, 14]


def test_a_tail_counts_its_own_parameters():
    whole, tail = (
        json.loads(generate(["xs_resnet50", *more, "--params", "--json"]))
        for more in ([], ["--from-block", "res4f"])
    )
    trunk = sum(
        layer["params"]
        for layer in whole["layers"]
        if not layer["name"].startswith(("res5", "bn5"))
        and not layer["name"].startswith(("scale5", "fc_"))
    )
    assert tail["total"] == whole["total"] - trunk
    assert tail["paper_millions"] is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["xs_resnet50", "--from-block", "res4g"], "no block .res4g. .did you mean .res4f"),
        (["xs_resnet50", "--from-block", "res5a"], "no shared block 'res5a'.*res2a to res4f"),
        (["xs_resnet50", "--from-block", "res2a", "--branch-after", "none"], "share none"),
        (["xs_resnet50", "--from-block", "res4f", "--mean", "1"], "exclude each other"),
        (["xs_resnet50", "--from-block", "res4f", "--crop"], "exclude each other"),
        (["caffenet", "--task", "adj", "--from-block", "res4f"], "does not apply to caffenet"),
    ],
)
def test_a_tail_that_cannot_be_is_refused(argv, message):
    with pytest.raises(UserError, match=message):
        generate(argv)


def test_equation_2_sums_own_shortcut_residual_and_the_others():
    by_name = layers(net_of("xs_resnet50"))
    assert list(by_name["res5b_noun"].bottom) == [
        "res5a_noun",
        "res5b_branch2c_noun",
        "res5b_cross_adj-noun",
        "res5b_cross_anp-noun",
    ]
    by_name = layers(net_of("xi_resnet50"))
    assert list(by_name["res5c_adj"].bottom) == [
        "res5b_adj",
        "res5c_branch2c_adj",
        "res5b_anp",
        "res5b_noun",
    ]
    by_name = layers(net_of("x0_resnet50"))
    assert list(by_name["res5c_adj"].bottom) == ["res5b_adj", "res5c_branch2c_adj"]


def test_branching_moves_the_norms_behind_the_addition():
    by_name = layers(net_of("xs_resnet50"))
    assert list(by_name["res5a"].bottom) == ["res5a_branch1", "res5a_branch2c"]
    assert "bn5a_branch1" not in by_name
    assert "scale5a_branch2c" not in by_name
    for task in ("adj", "anp", "noun"):
        assert list(by_name[f"bn5a_{task}"].bottom) == ["res5a"]
        assert list(by_name[f"bn5a_{task}"].top) == [f"res5a_{task}"]
        assert by_name[f"res5a_relu_{task}"].type == "ReLU"


def test_single_task_layers_keep_the_published_names():
    names = [layer.name for layer in net_of("resnet50", "--task", "noun", "--deploy").layer]
    assert names[:8] == [
        "data",
        "conv1",
        "bn_conv1",
        "scale_conv1",
        "conv1_relu",
        "pool1",
        "res2a_branch1",
        "bn2a_branch1",
    ]
    assert {"res4f_branch2b", "scale5c_branch2c", "res5c_relu", "pool5", "fc_noun"} <= set(names)


def test_the_published_net_is_resnet_50_with_imagenet_s_classifier():
    published, single = (
        layers(net_of("resnet50_imagenet")),
        layers(net_of("resnet50", "--task", "noun")),
    )
    assert published.pop("fc1000").inner_product_param.num_output == 1000
    own = {"fc_noun", "loss_noun", "top1_noun", "top5_noun"}
    trunk = [name for name in single if name not in own and "label" not in name]
    assert [single[name] for name in trunk] == [published[name] for name in trunk]
    names = Path(netgen.__file__).with_name("imagenet_classes.txt").read_text().splitlines()
    assert len(names) == 1000
    assert (names[0], names[285], names[967], names[999]) == (
        *("tench", "Egyptian_cat", "espresso", "toilet_tissue"),
    )


def test_a_stem_of_its_own_width_changes_conv1_alone():
    plain = layers(net_of("xs_resnet50", "--width", "32"))
    wide = layers(net_of("xs_resnet50", "--width", "32", "--stem-width", "64"))
    changed = [name for name in plain if plain[name] != wide[name]]
    assert changed == ["conv1"]
    assert wide["conv1"].convolution_param.num_output == 64


def test_published_norms_are_frozen_but_for_the_branching_points():
    norms = [x for x in net_of("xs_resnet50", "--bn", "published").layer if x.type == "BatchNorm"]
    free = [x.name for x in norms if not x.batch_norm_param.use_global_stats]
    assert free == ["bn5a_adj", "bn5a_anp", "bn5a_noun"]


def test_frozen_norms_are_those_that_the_published_net_has():
    for net in ("xs_resnet50", "xp_resnet50", "rock_resnet50", "cross_stitch_resnet50"):
        norms = [x for x in net_of(net, "--bn", "frozen").layer if x.type == "BatchNorm"]
        for layer in norms:
            new = "_cross_" in layer.name or "_rock" in layer.name
            assert layer.batch_norm_param.use_global_stats is not new, layer.name


def test_deeper_nets_number_their_long_stages():
    names = {layer.name for layer in net_of("resnet50", "--task", "adj", "--depth", "152").layer}
    assert {"res3b7_branch2a", "res4b35_branch2c", "res5c"} <= names
    assert "res4c" not in names
    conv1 = layers(net_of("resnet50", "--task", "adj", "--depth", "101"))["conv1"]
    assert not conv1.convolution_param.bias_term


def test_test_phase_scores_and_flips_nothing():
    net = net_of("xs_resnet50")
    test = [layer for layer in net.layer if takes_part(layer, TEST)]
    scores = [layer.name for layer in test if layer.type == "Accuracy"]
    assert scores == [f"top{k}_{task}" for task in ("adj", "anp", "noun") for k in (1, 5)]
    assert not any(layer.transform_param.mirror for layer in test)
    train = [layer for layer in net.layer if takes_part(layer, TRAIN)]
    assert [layer.name for layer in train if layer.transform_param.mirror] == ["data"]
    losses = [layer for layer in train if layer.type == "SoftmaxWithLoss"]
    assert [layer.name for layer in losses] == ["loss_adj", "loss_anp", "loss_noun"]
    assert all(list(layer.loss_weight) == [1] for layer in losses)


def test_a_test_pass_sees_each_image_once():
    solver = text.loads(generate(["xs_resnet50", "--solver"]), SolverParameter)
    data = next(
        layer
        for layer in net_of("xs_resnet50").layer
        if layer.name == "data" and takes_part(layer, TEST)
    )
    assert data.data_param.batch_size * solver.test_iter[0] == 77_073


def test_solver_is_the_papers():
    solver = text.loads(generate(["xs_resnet50", "--solver"]), SolverParameter)
    rate = (solver.base_lr, solver.momentum, solver.weight_decay)
    assert rate == pytest.approx((0.001, 0.9, 0.0001))
    assert (solver.lr_policy, solver.type, solver.net) == ("fixed", "SGD", "prototxt/xs.prototxt")
    assert solver.solver_mode == 1  # GPU
    # An untrained net scores NaN, which Caffe's Accuracy counts as right.
    assert not solver.test_initialization
    cpu = text.loads(generate(["xs_resnet50", "--solver", "--cpu"]), SolverParameter)
    assert cpu.solver_mode == 0


@given(
    st.integers(1, 5),
    st.sampled_from(["x0_resnet50", "xi_resnet50", "xs_resnet50"]),
    st.sampled_from(["res2a", "res3d", "res4f", "res5a", "res5b"]),
    st.sampled_from(["both", "branch2c", "none"]),
    st.integers(1, 8),
    st.integers(32, 260),
)
def test_any_shape_of_net_adds_up(tasks, net, branch, norm, width, size):
    """Summands of one shape everywhere, a 1 x 1 map before each classifier."""
    names = ",".join(f"t{i}:{i + 2}" for i in range(tasks))
    argv = [net, "--tasks", names, "--branch-after", branch, "--branch-norm", norm, "--deploy"]
    made = net_of(*argv, "--width", str(width), "--input-size", str(size))
    measured = {layer.name: layer for layer in measure(made, {})}
    shapes = {
        top: shape
        for layer in made.layer
        for top, shape in zip(layer.top, measured[layer.name].tops)
    }
    for layer in made.layer:
        if layer.type == "Eltwise":
            assert len({shapes[bottom] for bottom in layer.bottom}) == 1
        if layer.type == "InnerProduct":
            assert shapes[layer.bottom[0]] == (1, 32 * width, 1, 1)
    assert [shapes[f"prob_t{i}"] for i in range(tasks)] == [(1, i + 2) for i in range(tasks)]


@given(st.integers(1, 10**6), st.integers(1, 100))
def test_divisor_divides_and_fits(number, limit):
    d = divisor(number, limit)
    assert number % d == 0
    assert 1 <= d <= max(limit, 1)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("xs_resnet", "unknown net 'xs_resnet' .did you mean 'xs_resnet50'"),
        ("resnet50", "choose it with --task adj.anp.noun"),
        ("resnet50 --task nuon", "--task: no task 'nuon' .did you mean 'noun'"),
        (
            "xs_resnet50 --task adj",
            "--task does not apply to xs_resnet50; it is for resnet50, caffe",
        ),
        (
            "resnet50 --task noun --cross-blocks 99",
            "--cross-blocks does not .* it is for xi_resnet",
        ),
        ("cross_stitch_resnet50 --freeze-towers", "--freeze-towers does not apply"),
        ("xs_resnet50 --stitch layer", "it is for cross_stitch_resnet50, cross_stitch_caffenet"),
        ("cross_stitch_caffenet --depth 152", "--depth does not apply to cross_stitch_caffenet"),
        ("x0_resnet50 --cross-blocks 1", "--cross-blocks does not apply to x0_resnet50"),
        (
            "xi_resnet50 --cross-std 0.1",
            "--cross-std does not apply .* it is for xs_resnet50, xself_resnet50$",
        ),
        ("xs_resnet50 --primary noun", "--primary does not apply .* it is for rock_resnet50$"),
        ("xs_resnet50 --branch-after none --branch-norm none", "--branch-norm: whole towers"),
        ("xs_resnet50 --cross-blocks 0 --cross-std 0.1", "--cross-std .* this net has none"),
        ("xs_resnet50 --tasks a:1 --freeze-towers", "--freeze-towers .* this net has none"),
        ("xs_resnet50 --depth 101 --blocks 1,1,1,1", "--depth and --blocks exclude each other"),
        ("xs_resnet50 --mean 1,2,3 --mean-file m", "--mean and --mean-file exclude"),
        ("xs_resnet50 --tasks a:0", "classes from 1"),
        ("xs_resnet50 --tasks a:²", "classes from 1"),
        ("xs_resnet50 --tasks a²:1", "must consist of letters"),
        ("xs_resnet50 --tasks a:1,a:2", "twice"),
        (
            "xs_resnet50 --tasks a:2,relu_a:3",
            "two layers would have the name 'res5b_branch2a_relu_a'",
        ),
        ("xs_resnet50 --tasks a", "not of the form name:classes"),
        ("xs_resnet50 --branch-after res5z", "no block 'res5z' .did you mean"),
        ("xs_resnet50 --cross-blocks 3", "after res5a there are 2"),
        ("xs_resnet50 --input-size 31", "--input-size 31 is too small"),
        ("xs_resnet50 --depth 51", "there are 50, 101, 152"),
        ("xs_resnet50 --blocks 1,2", "four numbers"),
        ("xs_resnet50 --blocks 30,1,1,1", "res2 has letters for 26 blocks, not 30"),
        ("xs_resnet50 --blocks 7,1,9,30", "res5 has letters for 26 blocks, not 30"),
        ("xs_resnet50 --test-batch 24", "does not divide the 77,073 test images"),
        ("xs_resnet50 --data \udcff", "cannot be written into a prototxt"),
        ("xs_resnet50 --mean 1,2", "one value or three"),
        ("resnet50_imagenet --tasks a:5", "--tasks does not apply to resnet50_imagenet"),
        ("caffenet --task adj --bn frozen", "--bn does not apply to caffenet"),
        ("xs_resnet50 --bn frozen --bn-fraction 0.9", "--bn frozen uses no moving average"),
        ("xs_resnet50 --lr 3", "--lr is the solver's and changes no net"),
        ("xs_resnet50 --params --momentum=0.5", "--momentum is the solver's and changes no net"),
        ("xs_resnet50 --deploy --cpu", "--cpu is the solver's and changes no net"),
    ],
)
def test_a_bad_option_gets_one_clear_line(argv, message):
    with pytest.raises(UserError, match=message):
        generate(argv.split())
    assert len(refused(*argv.split())) == 1


def refused(*argv):
    """The lines on stderr of netgen, which fails."""
    command = [sys.executable, "-m", "netgen", *argv]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode != 0
    assert ran.stdout == ""
    return ran.stderr.splitlines()


# Every option that is a number, with a net that takes it.
NUMBERS = {
    name: next(
        e
        for e in CATALOG.values()
        if not e.single_task and (one.family in e.families or one.family is Solver)
    )
    for name, one in OPTIONS.items()
    if isinstance(one.of, Number)
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1e99", "", "1,nan,1,1", "x"])
def test_every_number_has_a_range(name, text, capsys):
    if text == "-1" and name in ("stitch_init", "cross_start", "ignore_label"):
        return
    with pytest.raises((SystemExit, UserError)) as stopped:
        generate([NUMBERS[name].name, "--solver", flag(name), text])
    said = str(stopped.value) if stopped.type is UserError else capsys.readouterr().err
    assert flag(name) in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "1"])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_given_as_a_value_is_held_to_the_same_range(name, value):
    if value == -1 and name in ("stitch_init", "cross_start", "ignore_label"):
        return
    one = OPTIONS[name]
    with pytest.raises(UserError, match=f"^{flag(name)}: expected"):
        if one.family is Solver:
            Network(NUMBERS[name].name).solver(**{name: value})
        Network(NUMBERS[name].name, {name: (value,) if one.many else value})


@pytest.mark.parametrize("text", ["0", "1000000000"])
@pytest.mark.parametrize("name", NUMBERS)
def test_the_ends_of_a_range_make_a_net_or_one_clear_line(name, text):
    argv = [NUMBERS[name].name, flag(name), text]
    with contextlib.suppress(SystemExit, UserError):
        assert generate(argv)
        assert generate([*argv, "--solver"])


def test_a_reader_that_closes_the_pipe_gets_no_traceback():
    shell = f"{sys.executable} -m netgen xs_resnet50 | head -1"
    ran = subprocess.run(shell, shell=True, capture_output=True, text=True)
    assert ran.stdout == "# XS-ResNet-50: train/test net\n"
    assert ran.stderr == ""


def test_a_typo_in_a_generator_names_layer_field_and_near_miss():
    net = Net("x")
    net.group("g")
    expected = "layer 'c'.*no field 'kernal_size' .did you mean 'kernel_size'"
    with pytest.raises(ValueError, match=expected):
        net.layer("Convolution", "c", "data", convolution_param={"kernal_size": [3]})


def test_list_names_every_net():
    assert set(json.loads(generate(["--list", "--json"]))) == set(CATALOG)


ODD = ["0", "1", "2", "-1", "7", "64", "1e3", "1000000000", "nan", "none", "res2a", "res5c", "mean"]
ODD += ["1,1,1,1", "7,1,1,1", "0.5", "0.9,0.1", "a:1", "a:1,b:2", "noun", "a", "²", "'", "a b", "/"]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_options_make_a_net_or_one_clear_line(data):
    entry = data.draw(st.sampled_from(list(CATALOG.values())))
    forms = [[], ["--deploy"], ["--solver"], ["--params"], ["--params", "--json"]]
    argv = [entry.name, *data.draw(st.sampled_from(forms))]
    argv += ["--task", "noun"] if entry.single_task else []
    takes = [name for name, one in OPTIONS.items() if one.family in entry.families]
    for name in data.draw(st.lists(st.sampled_from(sorted(takes)), max_size=3, unique=True)):
        if name == "deploy":
            continue
        argv.append(flag(name))
        argv += [] if OPTIONS[name].default is False else [data.draw(st.sampled_from(ODD))]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            made = generate(argv)
    except UserError as error:
        assert "\n" not in str(error)
        return
    except SystemExit:
        assert said.getvalue().count("\n") == 1
        return
    if "--params" not in argv:
        kind = SolverParameter if "--solver" in argv else NetParameter
        text.loads(made, kind)


def test_losses_are_weighed_and_labels_ignored_as_asked():
    net = net_of("xs_resnet50", "--loss-weights", "adj:0.5,noun:0", "--ignore-label", "-1")
    losses = {la.name: la for la in net.layer if la.type == "SoftmaxWithLoss"}
    weights = {name: la.loss_weight[0] for name, la in losses.items()}
    assert weights == {"loss_adj": 0.5, "loss_anp": 1, "loss_noun": 0}
    tops = [la.accuracy_param for la in net.layer if la.type == "Accuracy"]
    for param in [*(la.loss_param for la in losses.values()), *tops]:
        assert param.HasField("ignore_label") and param.ignore_label == -1
    plain = net_of("xs_resnet50", "--loss-weights", "adj:1")
    assert plain == net_of("xs_resnet50"), "the paper's sum is the default"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("adj", "'adj' is not of the form task:weight"),
        ("adj:-1", "task 'adj': expected"),
        ("adj:nan", "task 'adj': expected"),
        ("adj:1,adj:2", "twice"),
        ("nuon:1", "no task 'nuon' .did you mean 'noun'"),
    ],
)
def test_wrong_loss_weights_are_named(value, words):
    with pytest.raises(UserError, match=words):
        generate(["xs_resnet50", "--loss-weights", value])
