"""Pictures, the page of networks, what nets cost, what differs; and a joint added by a stranger."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import networks
import pytest

from netgen import catalog, diff, draw
from netgen.command import generate
from netgen.report import training_memory
from netgen.tasks import Task
from tests.helpers.caffe_nets import run, write_lmdbs
from xresnet.basics.cli import UserError


def test_the_page_of_networks_is_what_the_catalog_says(root):
    page = (root / networks.PAGE).read_text()
    assert page == networks.page(page), "run: make nets"
    assert networks.page("<!-- nets -->\nold<!-- end -->") in page
    with pytest.raises(UserError, match="marks"):
        networks.page("")


@pytest.mark.parametrize("path", networks.figures())
def test_a_committed_picture_is_drawn_from_its_net(path, root):
    assert networks.stamp(networks.figures()[path]) in (root / path).read_text(), "run: make nets"


def graphviz() -> bool:
    try:
        import pygraphviz  # noqa: F401
    except ImportError:
        return shutil.which("dot") is not None
    return True


@pytest.mark.skipif(not graphviz(), reason="SKIPPED FOR LACK OF GRAPHVIZ: no dot, no pygraphviz")
@pytest.mark.parametrize(
    ("ending", "magic"),
    [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("dot", b"digr")],
)
def test_a_picture_in_every_format(ending, magic, tmp_path):
    path = tmp_path / f"xs.{ending}"
    command = [sys.executable, "-m", "netgen", "xs_resnet50", "--draw", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert path.read_bytes().startswith(magic)


def test_a_picture_in_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"must end in \.svg, \.png, \.pdf, \.dot"):
        generate(["xs_resnet50", "--draw", str(tmp_path / "xs.gif")])


def edges(*argv: str) -> dict[str, int]:
    """How many lines of each style the picture has, shortcuts only."""
    entry = catalog.find(argv[0])
    source = draw.source(entry, entry.options(task="noun" if entry.single_task else None))
    styles = re.findall(r"-> .*\[style=(\w+) color=\"#\w+\"([^\]]*)\]", source)
    found = {"solid": 0, "dotted": 0, "dashed": 0}
    for style, more in styles:
        found[style] += "weight=8" not in more
    return found


def test_tasks_whose_names_end_alike_have_colours_of_their_own():
    tasks = (Task("x", 2), Task("a_x", 3), Task("x_x", 4))
    xs = catalog.find("xs_resnet50")
    source = draw.source(xs, xs.options(tasks=tasks))
    for task, colour in zip(tasks, draw.COLOURS):
        (box,) = re.findall(rf'"[^"]*" .*softmax: {task.name}".* color="(#\w+)"', source)
        assert box == colour


def test_help_writes_nothing(root, tmp_path):
    """In a copy: what a script's --help rewrites would be missed where it writes the same."""
    (tmp_path / "docs").mkdir()
    names = ["networks.py", "results.py"]
    scripts = [[shutil.copy(root / "docs" / name, tmp_path / "docs")] for name in names]
    modules = [["-m", name] for name in ("netgen", "netgen.weights", "netgen.deepsentibank")]
    for words in [*([*one, "--help"] for one in modules + scripts), *([*s, "x"] for s in scripts)]:
        command = [sys.executable, "-B", *words]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == (0 if words[-1] == "--help" else 2), ran.stderr
        assert f"usage: {words[-2].rpartition('/')[2]}" in ran.stdout or words[-1] == "x"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["docs", *names]


def test_pictures_tell_the_shortcuts_apart():
    """res2a, 3a, 4a and 5a project; twelve other blocks, or ten and two a task, do not."""
    assert edges("resnet50") == {"solid": 12, "dotted": 4, "dashed": 0}
    assert edges("x0_resnet50") == {"solid": 10 + 6, "dotted": 4, "dashed": 0}
    assert edges("xi_resnet50") == {"solid": 10 + 6, "dotted": 4, "dashed": 12}
    assert edges("xs_resnet50") == {"solid": 10 + 6, "dotted": 4, "dashed": 12}


def test_the_branch_is_drawn_alone_and_its_joints_are_whole():
    xs = catalog.find("xs_resnet50")
    whole, branch = (draw.source(xs, xs.options(), alone) for alone in (False, True))
    assert "res2a to res5a: 14 blocks" in branch and '"res5a"' not in branch
    assert branch.count("dashed color") == whole.count("dashed color") == 12
    legend = 'solid: identity   dashed: cross-residual"'
    assert legend in branch and "dotted" not in branch and "dotted: projection" in whole
    stitch = catalog.find("cross_stitch_resnet50")  # nothing is shared but the image
    assert draw.source(stitch, stitch.options(), True) == draw.source(stitch, stitch.options())


@pytest.mark.parametrize("net", ["x0", "xi", "xs", "xself", "xp", "xg"])
def test_each_tower_stands_straight(net, root):
    picture = (root / f"docs/figures/{net}.svg").read_text()
    places = re.findall(
        r"<title>(\w*_(adj|anp|noun))</title>\s.*?<text [^>]*x=\"([-.\d]+)", picture, re.S
    )
    assert len(places) >= 3 * 6
    for task in ("adj", "anp", "noun"):
        across = [float(x) for _, of, x in places if of == task]
        assert max(across) - min(across) < 1, task


def test_diff_names_what_is_added_and_what_is_changed(tmp_path, capsys):
    assert diff.main(["x0_resnet50", "xs_resnet50", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["only_a"] == []
    assert len(found["only_b"]) == 12
    assert found["changed"]["res5b_adj"] == [
        [],
        ['bottom: "res5b_cross_anp-adj"', 'bottom: "res5b_cross_noun-adj"'],
    ]
    path = tmp_path / "xs.prototxt"
    path.write_text(generate(["xs_resnet50"]))
    assert diff.main(["xs_resnet50", str(path)]) == 0
    assert capsys.readouterr().out == ""
    assert diff.main(["xs_resnet50", "xs_resnet50 --batch 12"]) == 1
    assert capsys.readouterr().out.splitlines()[0] == "~ data"
    with pytest.raises(UserError, match="no such file"):
        diff.main(["xs_resnet50", str(tmp_path / "none.prototxt")])
    with pytest.raises(UserError, match="did you mean 'xs_resnet50'"):
        diff.main(["xs_resnet50", "xs_resnet"])


# Run by this Python: a command's peak memory in bytes.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, capture_output=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


@pytest.mark.caffe
@pytest.mark.parametrize("net", ["xs_resnet50", "caffenet"])
def test_training_memory_is_what_caffe_takes(net, caffe_tools, tmp_path):
    """The growth from a small batch to a large one, where Caffe's libraries cancel out."""
    data = tmp_path / "data"
    data.mkdir()
    size, more = (64, ["--width", "32"]) if net == "xs_resnet50" else (99, ["--task", "noun"])
    write_lmdbs(data, (117, 553, 167), count=8, size=size)
    peaks, reckoned = [], []
    for batch in (4, 32):
        model, solver = tmp_path / f"{batch}.prototxt", tmp_path / f"s{batch}.prototxt"
        argv = [net, *more, "--input-size", str(size), "--batch", str(batch), "--data", str(data)]
        model.write_text(generate(argv))
        mode = ["--cpu", "--max-iter", "1", "--test-interval", "0"]
        paths = ["--net", str(model), "--snapshot-prefix", str(tmp_path / "s")]
        solver.write_text(generate([*argv, "--solver", *mode, *paths]))
        train = [caffe_tools["caffe"], "train", "-solver", solver]
        peaks.append(int(run(sys.executable, "-c", PEAK, *train)))
        entry = catalog.find(net)
        chosen = {"input_size": size, "batch": batch}
        chosen |= {"width": 32} if net == "xs_resnet50" else {"task": "noun"}
        reckoned.append(training_memory(entry, entry.options(**chosen)))
    measured = peaks[1] - peaks[0]
    assert abs(measured - (reckoned[1] - reckoned[0])) < 0.2 * measured
