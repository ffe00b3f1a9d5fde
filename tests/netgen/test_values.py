"""Nets as values: built from Python, round the command line and back; joints of one's own."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import netgen
from netgen import Network, Task, build
from netgen.catalog import CATALOG
from netgen.command import generate, parse, read
from netgen.options import OPTIONS, Options, Solver, solver_choices, words
from tests.helpers.caffe_nets import pycaffe
from tests.netgen.test_joints_caffe import SMALL, STEP_BACK, train_net
from tests.reproduce.test_train import training
from xresnet.basics.cli import UserError
from xresnet.basics.numbers import Number
from xresnet.caffeproto import NetParameter, text
from xresnet.reproduce.driver import train
from xresnet.reproduce.run import Run

# ---- build ----------------------------------------------------------------------


def test_what_is_built_is_what_the_command_prints():
    net = build("xs_resnet50", width=8, blocks=[1, 1, 1, 2], tasks=(Task("a", 2), Task("b", 3)))
    typed = ["xs_resnet50", "--width", "8", "--blocks", "1,1,1,2", "--tasks", "a:2,b:3"]
    assert net.words() == typed
    assert net.prototxt() == generate(typed)
    assert net.deploy() == generate([*typed, "--deploy"])
    solver = net.solver(lr=0.5, seed=3, cpu=True)
    assert solver == generate([*typed, "--solver", "--lr", "0.5", "--seed", "3", "--cpu"])
    assert json.dumps(net.params(), indent=2) + "\n" == generate([*typed, "--params", "--json"])
    assert net.choose(width=16, blocks=None).words() == [
        *("xs_resnet50", "--width", "16", "--tasks", "a:2,b:3")
    ]
    assert net == read(typed).network and Network(net.name, net.choices) == net


@pytest.mark.parametrize("name", CATALOG)
def test_a_net_is_the_same_as_text_and_as_message(name):
    task = {"task": "noun"} if CATALOG[name].single_task else {}
    net = build(name, **task)
    assert text.loads(net.deploy(), NetParameter) == net.proto(deploy=True)
    if CATALOG[name].trained:
        assert text.loads(net.prototxt(), NetParameter) == net.proto()


@pytest.mark.parametrize(
    ("argv", "choices"),
    [
        ("xs_resnet", {}),
        ("resnet50", {}),
        ("resnet50 --task nuon", {"task": "nuon"}),
        ("caffenet --task noun --width 8", {"task": "noun", "width": 8}),
        ("xs_resnet50 --task noun", {"task": "noun"}),
        ("xs_resnet50 --lr 3", {"lr": 3.0}),
        ("xs_resnet50 --depth 50 --blocks 1,1,1,1", {"depth": 50, "blocks": (1, 1, 1, 1)}),
        ("xs_resnet50 --test-batch 7", {"test_batch": 7}),
        ("xs_resnet50 --branch-after res9z", {"branch_after": "res9z"}),
        ("x0_resnet50 --joint a:b", {"joint": "a:b"}),
        ("deepsentibank --deploy --input-size 7", {"input_size": 7}),
    ],
)
def test_what_cannot_be_is_told_in_the_commands_words(argv, choices):
    with pytest.raises(UserError) as typed:
        generate(argv.split())
    with pytest.raises(UserError) as given:
        build(argv.split()[0], **choices)
    assert str(given.value) == str(typed.value) and "\n" not in str(given.value)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"wdith": 8}, "no option 'wdith' .did you mean 'width'"),
        ({"width": 0}, "^--width: expected channels from 1 to 4,096, not 0$"),
        ({"width": "8"}, "^--width: expected channels"),
        ({"width": True}, "^--width: expected channels"),
        ({"blocks": 3}, "^--blocks: expected a list"),
        ({"mean": ()}, "^--mean: expected a list"),
        ({"bn": "frosen"}, "unknown 'frosen' .did you mean 'frozen'"),
        ({"bn": 3}, "--bn: unknown 3; there are batch, frozen, published"),
        ({"freeze_towers": 1}, "expected True or False"),
        ({"data": ""}, "cannot be written into a prototxt"),
        ({"data": "a\nb"}, "cannot be written into a prototxt"),
        ({"data": 3}, "cannot be written into a prototxt"),
        ({"tasks": "adj:3"}, r"--tasks: expected several Task"),
        ({"tasks": {"adj": 3}}, r"--tasks: expected a Task\(name, classes\), not 'adj'"),
        ({"tasks": ()}, "at least one task"),
        ({"tasks": (Task("a", 1), Task("a", 2))}, "task 'a' is named twice"),
        ({"loss_weights": "adj:1"}, "--loss-weights: expected weights by task"),
        ({"loss_weights": {"adj": -1}}, "task 'adj': expected a number from 0"),
        ({"loss_weights": {"nuon": 1}}, "no task 'nuon' .did you mean 'noun'"),
    ],
)
def test_a_wrong_value_is_one_clear_line(choices, message):
    with pytest.raises(UserError, match=message) as said:
        build("xs_resnet50", **choices)
    assert "\n" not in str(said.value)


def test_the_solver_takes_its_own_options_alone():
    for choices, message in (
        ({"width": 3}, "the solver has no option 'width'"),
        ({"momentun": 0.5}, "did you mean 'momentum'"),
        ({"momentum": 1.0}, "^--momentum: expected a momentum from 0 below 1, not 1.0"),
    ):
        with pytest.raises(UserError, match=message):
            build("xs_resnet50").solver(**choices)
    with pytest.raises(UserError, match="evaluated as published, not trained"):
        build("deepsentibank").solver()


def test_words_of_a_file_are_told_with_their_place():
    assert parse(["xs_resnet50", "--width=4", "--seed", "2"], "here") == (
        *("xs_resnet50", {"width": 4}, {"seed": 2}),
    )
    for typed, message in (
        (["--width", "x"], "^here: argument --width: expected channels"),
        (["--wdith", "4"], "^here: unrecognized arguments: --wdith"),
        (["--help"], "^here: unrecognized arguments: --help"),
        (["--tasks", "a"], "^here: --tasks: 'a' is not of the form name:classes"),
        (["--crop"], "^here: --crop is not for you"),
        (["--crop=1"], "^here: --crop is not for you"),
    ):
        with pytest.raises(UserError, match=message):
            parse(typed, "here", {"--crop": "is not for you"})


# ---- round the header and back ------------------------------------------------------

NAMES = st.from_regex(r"[A-Za-z0-9_]{1,8}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


def numbers(of: Number) -> st.SearchStrategy:
    if of.kind is int:
        return st.integers(int(of.low), int(min(of.high, 10**6)))
    bounds = {"min_value": max(of.low, -1e30), "max_value": min(of.high, 1e30)}
    return st.floats(**bounds, allow_nan=False).filter(of.holds) | (
        st.just(of.word) if of.word else st.nothing()
    )


def values(option) -> st.SearchStrategy:
    """Values of an option, of all kinds that it takes."""
    if option.name == "tasks":
        tasks = st.builds(Task, NAMES, st.integers(1, 10**6))
        return st.lists(tasks, min_size=1, max_size=4, unique_by=lambda t: t.name).map(tuple)
    if option.name == "loss_weights":
        weights = st.dictionaries(st.sampled_from(["adj", "anp", "noun"]), st.floats(0, 1e6))
        return weights.filter(bool)
    if option.default is False:
        return st.just(True)
    if isinstance(option.of, Number):
        one = numbers(option.of)
        return st.lists(one, min_size=1, max_size=4) if option.many else one
    return st.sampled_from(option.of) if option.of else TEXTS


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_header_has_the_command_that_means_the_same_values(data):
    entry = data.draw(st.sampled_from(list(CATALOG.values())))
    takes = [o for o in OPTIONS.values() if o.family in entry.families and o.name != "joint"]
    drawn = st.lists(st.sampled_from(takes), max_size=5, unique=True)
    choices = {option.name: data.draw(values(option)) for option in data.draw(drawn)}
    if entry.single_task:
        choices.setdefault("task", "noun")
    of_solver = [option for option in OPTIONS.values() if option.family is Solver]
    drawn = st.lists(st.sampled_from(of_solver), max_size=3, unique=True)
    solver = {option.name: data.draw(values(option)) for option in data.draw(drawn)}
    try:
        net = Network(entry.name, choices)
        solver = solver_choices(solver)
    except UserError:  # such as two that exclude each other, or a blank name
        assume(False)
    typed = [*net.words(), "--solver", *words(solver)]
    asked = read(typed)
    assert (asked.network, asked.solver, asked.form) == (net, solver, "solver")
    assert list(asked.network.choices) == list(net.choices), "in their order"
    try:
        made = net.solver(**solver) if entry.trained else net.deploy()
    except UserError:  # such as a task that is none
        return
    header = made.split("\n\n")[0]
    again = read(shlex.split(re.search(r"made by: (.*)", header)[1])[3:])
    assert again.network == net and again.network.options == net.options
    assert Solver(**again.solver) == (Solver(**solver) if entry.trained else Solver())


def test_every_option_is_declared_in_one_family():
    assert set(OPTIONS) == {one for one in vars(Options()) if one != "deploy"} | set(vars(Solver()))
    for option in OPTIONS.values():
        assert option.what and (option.metavar or option.of or option.default is False)


def test_command_lines_become_values_at_the_edges_alone(root):
    """No module hands words to another: those that read them are commands, and the grid's."""
    edges = {"netgen/diff.py", "netgen/weights/command.py", "xresnet/reproduce/choices.py"}
    found = set()
    for package in ("netgen", "xresnet", "torchcaffe", "data_prep"):
        for path in (root / package).rglob("*.py"):
            imports = re.findall(r"^ *(?:from|import) .*", path.read_text(), re.MULTILINE)
            if any(re.search(r"\bnetgen(\.command\b| import .*\bcommand\b)", x) for x in imports):
                found.add(str(path.relative_to(root)))
    assert found == edges


# ---- joints of a user's own -----------------------------------------------------------


def printed(root: Path, heading: str) -> list[str]:
    """The indented blocks of docs/NETWORKS.md below a heading, as a reader would copy them."""
    page = (root / "docs/NETWORKS.md").read_text()
    section = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^    .*\n|^\n(?=\n*    ))+", section, re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE).strip("\n") + "\n" for block in blocks]


def ran(command: str, folder: Path, root: Path) -> subprocess.CompletedProcess:
    command = command.replace("python ", f"{sys.executable} ", 1)
    env = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        command, shell=True, cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def test_the_documents_python_runs_as_printed(root, tmp_path):
    (example,) = printed(root, "From Python")
    (tmp_path / "example.py").write_text(example)
    done = ran("python example.py", tmp_path, root)
    assert (done.returncode, done.stderr) == (0, "") and int(done.stdout) > 10**6
    assert {path.name for path in tmp_path.glob("*.prototxt")} == {
        *("xs.prototxt", "xs_solver.prototxt")
    }


@pytest.fixture
def half(root, tmp_path, monkeypatch) -> Path:
    """A folder with the document's module, in which the test is."""
    module, _ = printed(root, "A joint of your own")
    (tmp_path / "my_joints.py").write_text(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_joints", raising=False)
    return tmp_path


@pytest.mark.caffe
def test_the_documents_joint_runs_as_printed_and_in_real_caffe(half, root, caffe_tools):
    _, commands = printed(root, "A joint of your own")
    first, second = commands.splitlines()
    assert ran(first, half, root).stderr == ""
    table = ran(second, half, root)
    assert "43.16 million parameters" in table.stdout, table.stderr
    made = (half / "xh.prototxt").read_text()
    assert made.startswith("# X-half-ResNet-50: train/test net\n# made by: python -m netgen ")
    assert "--joint my_joints:half" in made.splitlines()[1]
    net = text.loads(made, NetParameter)
    (joint,) = (layer for layer in net.layer if layer.name == "res5b_cross_adj-noun")
    assert (joint.type, joint.power_param.scale) == ("Power", 0.5)
    solver = build("xs_resnet50", joint="my_joints:half").solver()
    assert 'snapshot_prefix: "snapshots/x_half"' in solver
    path = half / "net.prototxt"
    small = ["xs_resnet50", "--joint", "my_joints:half", *SMALL]
    path.write_text(text.dump(train_net(small)))
    (line,) = re.findall(r"^OUT (.*)", pycaffe(caffe_tools, STEP_BACK, path, 0), re.MULTILINE)
    assert np.isfinite(list(json.loads(line)[0].values())).all()


@pytest.mark.caffe
def test_a_run_is_trained_with_a_joint_of_ones_own(half, drawn, caffe_tools):
    plain = training(drawn, half / "run", max_epochs=1)
    made = replace(plain, net=plain.net.choose(joint="my_joints:half"))
    assert made.key != plain.key
    result = Run(made).result()
    assert result["params"] == made.network.params()["total"] < plain.network.params()["total"]
    head = (half / "run/net.prototxt").read_text().splitlines()[:2]
    assert head[0] == "# X-half-ResNet-17: train/test net" and "--joint my_joints:half" in head[1]
    assert json.loads((half / "run/run.json").read_text())["net"] == made.net.words()
    (half / "my_joints.py").unlink()
    sys.modules.pop("my_joints")
    with pytest.raises(UserError, match="--joint: there is no module 'my_joints' in"):
        train(replace(made, name="again"))


TAKEN = "(net, x, block, source, target, options)"
GOOD = f"def half{TAKEN}:\n    return None\n"


@pytest.mark.parametrize(
    ("joint", "module", "message"),
    [
        (
            "half",
            GOOD,
            "--joint: 'half' is not of the form MODULE:FUNCTION, such as my_joints:half",
        ),
        ("my joints:half", GOOD, "is not of the form MODULE:FUNCTION"),
        ("my_joint:half", GOOD, "there is no module 'my_joint' in .*, nor on Python's path"),
        ("my_joints.more:half", GOOD, "my_joints"),
        ("my_joints:hafl", GOOD, "my_joints has no function 'hafl' .did you mean 'half'"),
        ("my_joints:CROSS", "CROSS = 3\n", "my_joints has no function 'CROSS'"),
        (
            "my_joints:half",
            "def half(net, x): pass\n",
            r"takes \(net, x\); a joint takes \(net,",
        ),
        ("math:hypot", GOOD, r"math:hypot: it takes .*; a joint takes \(net,"),
        ("my_joints:half", "def half(:\n", r"SyntaxError: .* \(my_joints.py:1\)"),
        ("my_joints:half", "import no_such\n", r"No module named 'no_such' \(my_joints.py:1\)"),
        ("my_joints:half", "raise SystemExit\n", "module my_joints: SystemExit"),
        ("my_joints:half", f"def half{TAKEN}:\n    return 3\n", "it returns 3: neither None nor"),
        ("my_joints:half", f"def half{TAKEN}:\n    return 'y'\n", "it returns 'y': neither"),
        (
            "my_joints:half",
            f"def half{TAKEN}:\n    return 1 / 0\n",
            r"ZeroDiv.*my_joints.py:2",
        ),
        (
            "my_joints:half",
            f"def half{TAKEN}:\n    return net.layer('Power', source + target, x, power={{}})\n",
            r"ValueError: layer .* no field 'power' .*\(my_joints.py:2\)",
        ),
        ("my_joints:half", f"def half{TAKEN}:\n    return 'data'\n", "it adds blobs of 1 x 2048 x"),
        (
            "my_joints:half",
            f"def half{TAKEN}:\n    return net.layer('Odd', source + target + block.name, x)\n",
            "there is no rule for layer type 'Odd'",
        ),
        (
            "my_joints:half",
            f"def half{TAKEN}:\n    return net.layer('TanH', 'same', x)\n",
            "two layers would have the name 'same'",
        ),
    ],
)
def test_a_joint_that_is_none_is_one_clear_line(joint, module, message, tmp_path, monkeypatch):
    (tmp_path / "my_joints.py").write_text(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_joints", raising=False)
    before = list(sys.path)
    with pytest.raises(UserError, match=message) as said:
        netgen.build("xs_resnet50", joint=joint)
    assert ("\n" not in str(said.value) and "--joint" in str(said.value)) or "same" in message
    assert sys.path == before


def test_a_joint_that_learns_takes_the_options_of_joints(tmp_path, monkeypatch):
    (tmp_path / "my_joints.py").write_text(
        f"def slope{TAKEN}:\n    name = f'res{{block.name}}_cross_{{source}}-{{target}}'\n"
        "    return net.layer('PReLU', name, x)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_joints", raising=False)
    net = build("xs_resnet50", joint="my_joints:slope", cross_lr=3.0, freeze_towers=True)
    slopes = [layer for layer in net.proto().layer if layer.type == "PReLU"]
    assert len(slopes) == 12 and all(layer.param[0].lr_mult == 3 for layer in slopes)
    scale = build("xs_resnet50").params()["total"]
    assert net.params()["total"] == scale, "a value a channel, as XS's"
    with pytest.raises(UserError, match="--joint does not apply to x0_resnet50; it is for xi"):
        build("x0_resnet50", joint="my_joints:slope")
