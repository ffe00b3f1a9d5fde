"""Exact evaluation: Caffe's tie rule, both ways on real nets, intervals, McNemar, confusion."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import lmdb
import numpy as np
import pytest

from data_prep.classes import Classes
from netgen import Network
from tests.reproduce.test_train import training
from xresnet.basics.cli import UserError
from xresnet.caffeproto import Datum
from xresnet.reproduce.__main__ import main
from xresnet.reproduce.accuracy import confusion, ranks
from xresnet.reproduce.data import Data
from xresnet.reproduce.deepsentibank import DeepSentiBank
from xresnet.reproduce.driver import train
from xresnet.reproduce.evaluate import evaluate
from xresnet.reproduce.evaluation import Evaluation, compare
from xresnet.reproduce.forward import scores
from xresnet.reproduce.net import Net, net_of
from xresnet.reproduce.records import keys, labels, records
from xresnet.reproduce.run import Run
from xresnet.reproduce.stats import bootstrap, mcnemar, paired_bootstrap


@pytest.fixture(scope="module")
def run(caffe_tools, drawn, tmp_path_factory):
    """A run of two epochs."""
    made = training(drawn, tmp_path_factory.mktemp("eval"), max_epochs=2)
    train(made)
    return made


@pytest.mark.caffe
def test_caffe_test_and_the_scores_agree_to_the_last_image(run):
    result = evaluate(net_of(run.folder), run.folder)
    for task, values in result["tasks"].items():
        for k in (1, 5):
            right = values[f"top{k}"]
            assert right["caffe_test"] * 117 == pytest.approx(right["correct"], abs=1e-2)
            low, high = right["interval"]
            assert low <= right["percent"] <= high
            # Classes weighted by their images give the whole.
            own = values["classes"]
            total = sum(c["images"] * c[f"top{k}"] for c in own if c["images"]) / 100
            assert total == pytest.approx(right["correct"])
        assert len(values["classes"]) == run.data.names.counts[task]
    written = Evaluation.find(run.folder)
    assert written.result() == result and written.snapshot == run.snapshots()[-1].weights.stem
    confused = result["confusion"]
    assert confused["wrong"] == 117 - result["tasks"]["anp"]["top1"]["correct"]
    assert all(0 <= confused[k]["share"] <= 1 for k in ("same_noun", "same_adjective"))


@pytest.mark.caffe
def test_weights_of_another_snapshot_make_a_disagreement_impossible_to_miss(run, monkeypatch):
    net = net_of(run.folder)
    other = Net(net.name, net.model, net.deploy, run.snapshots()[0].weights)
    real = scores
    monkeypatch.setattr(
        "xresnet.reproduce.evaluate.scores",
        lambda deploy, weights, *rest: {
            task: np.roll(values, 1, axis=1)
            for task, values in real(deploy, weights, *rest).items()
        },
    )
    with pytest.raises(UserError, match="their scores"):
        evaluate(other, run.folder)


@pytest.mark.caffe
def test_two_nets_are_compared_image_by_image(run, tmp_path):
    evaluate(net_of(run.folder), run.folder)
    first = net_of(run.folder, str(run.snapshots()[0].iteration))
    tmp_path.joinpath("first").mkdir()
    evaluate(first, tmp_path / "first")
    last, other = (Evaluation.find(place) for place in (run.folder, tmp_path / "first"))
    found = compare(last, other)["tasks"]["noun"]["top1"]
    a, b = (one.result()["tasks"]["noun"]["top1"]["percent"] for one in (last, other))
    assert found["difference"] == pytest.approx(a - b)
    assert compare(last, last)["tasks"]["anp"]["top5"]["p"] == 1
    with pytest.raises(UserError, match="xresnet eval"):
        Evaluation.find(tmp_path)


@pytest.mark.caffe
def test_an_evaluation_a_snapshot(run, drawn, tmp_path, capsys):
    folder = tmp_path / "xs"
    shutil.copytree(run.folder, folder)
    for old in folder.glob("eval*"):
        old.unlink()
    first, last = (str(s.iteration) for s in (run.snapshots()[0], run.snapshots()[-1]))
    assert main(["eval", str(folder)]) == 0
    whole = Evaluation.find(folder).result()
    assert main(["eval", str(folder), "--snapshot", first]) == 0
    assert [e.iteration for e in Evaluation.all(folder)] == [int(first), int(last)]
    assert Evaluation.find(folder).result() == whole
    weights = folder / f"snapshot_iter_{first}.caffemodel"
    assert Evaluation.find(weights).result()["weights"]["file"] == weights.name
    capsys.readouterr()
    assert main(["eval", str(folder), "--against", str(weights), "--json"]) == 0
    against = json.loads(capsys.readouterr().out)["against"]
    assert (against["a"], against["b"]) == (
        f"xs, snapshot_iter_{last}",
        f"xs, snapshot_iter_{first}",
    )
    with pytest.raises(UserError, match="already names one"):
        main(["eval", str(weights), "--snapshot", last])
    # The page tells which it shows, and Figure 5 is of the same; a half of a newer one is none.
    half = folder / "snapshot_iter_9999.caffemodel"
    half.write_bytes(weights.read_bytes()[:-7])
    shutil.copy(weights.with_suffix(".solverstate"), half.with_suffix(".solverstate"))
    for newest, shown in ((last, last), (first, first)):
        if newest == first:
            for path in folder.glob(f"eval_snapshot_iter_{last}.*"):
                path.unlink()
        assert main(["report", str(folder)]) == 0
        page = (folder / "report.html").read_text()
        assert page.count(f"xs, snapshot_iter_{shown}") == 4 and "9999" not in page
    # Of before there was a file a snapshot.
    for suffix in (".json", ".npz"):
        (folder / f"eval_snapshot_iter_{first}{suffix}").rename(folder / f"eval{suffix}")
    (found,) = Evaluation.all(folder)
    assert found.iteration == int(first)
    cut = found.path.read_text()[:-30]
    found.path.write_text(cut)
    with pytest.raises(UserError, match=r"eval.json:\d+: not JSON, or cut short"):
        main(["report", str(folder)])
    found.path.write_text('{"name": "xs", "images": 3, "weights": []}')
    with pytest.raises(UserError, match=r"eval\.json: weights: expected an object, not"):
        main(["report", str(folder)])


@pytest.mark.caffe
def test_what_it_is_compared_with_is_looked_at_first(run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "xresnet.reproduce.commands.evaluate.evaluate", None
    )  # tests would take long
    with pytest.raises(UserError, match="not evaluated"):
        main(["eval", str(run.folder), "--against", str(tmp_path)])
    for name, arrays, words in (
        ("other", {"truth_anp": np.zeros(117, np.int16)}, "was tested on other images"),
        ("damaged", {"truth_anp": np.zeros(117)}, "evaluate the run again"),
    ):
        other = tmp_path / name
        other.mkdir()
        np.savez(other / "eval_x.npz", **arrays)
        (other / "eval_x.json").write_text("{}")
        with pytest.raises(UserError, match=words):
            main(["eval", str(run.folder), "--against", str(other)])
    (other / "eval_x.npz").write_bytes(b"PK\3\4")
    with pytest.raises(UserError, match="damaged"):
        main(["eval", str(run.folder), "--against", str(other)])


def test_what_is_no_run_says_so(tmp_path):
    with pytest.raises(UserError, match="not a run's folder"):
        net_of(tmp_path)


def test_records_and_labels_are_read_in_step(drawn):
    triples = set(Classes.read(drawn / "classes").combinations)
    truth = labels(drawn)
    assert set(zip(*(truth[t].tolist() for t in ("adj", "anp", "noun")))) <= triples
    images = list(records(drawn))
    assert len(images) == len(truth["anp"]) == 117
    assert {image.shape for image in images} == {(3, 32, 32)}


@pytest.mark.parametrize(("kind", "read"), [("image", "records"), ("label", "labels")])
def test_a_database_that_was_cut_is_one_line(drawn, tmp_path, kind, read):
    """Half a copy: read through a memory map, it would end the process by SIGBUS."""
    for pair in ("image", "label"):
        shutil.copytree(drawn / f"test_{pair}_lmdb", tmp_path / f"test_{pair}_lmdb")
    file = tmp_path / f"test_{kind}_lmdb" / "data.mdb"
    os.truncate(file, file.stat().st_size - 8192)
    code = (
        "import sys; from pathlib import Path; from xresnet.basics import cli\n"
        "from xresnet.reproduce import evaluate\n"
        f"cli.run(lambda _: list(evaluate.{read}(Path(sys.argv[1]))) and 0, 'eval')"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert done.returncode == 1, done.returncode
    assert done.stderr.count("\n") == 1 and f"{file} is cut short" in done.stderr


@pytest.mark.parametrize("read", [labels, keys])
def test_databases_of_unequal_length_are_told(drawn, tmp_path, read):
    """Without it: a traceback of an evaluation, and no end of a trunk's cache."""
    for kind in ("image", "label"):
        shutil.copytree(drawn / f"test_{kind}_lmdb", tmp_path / f"test_{kind}_lmdb")
    with lmdb.open(str(tmp_path / "test_image_lmdb")) as base, base.begin(write=True) as changed:
        changed.delete(next(iter(changed.cursor()))[0])
    message = r"test_image_lmdb has 116 records, test_label_lmdb 117: make both again"
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_a_record_that_is_no_image_is_one_line(tmp_path):
    place = tmp_path / "test_image_lmdb"
    with lmdb.open(str(place), map_size=1 << 20) as base, base.begin(write=True) as out:
        out.put(b"00000000_dark_moon/0.jpg", Datum(data=b"none", encoded=True).SerializeToString())
    with pytest.raises(UserError, match=r"dark_moon/0.jpg: the image cannot be decoded"):
        list(records(tmp_path))


def test_a_full_disk_is_told_with_the_file(tmp_path):
    one = Evaluation.of(tmp_path, tmp_path / "a.caffemodel")
    one.path.with_suffix(".npz").symlink_to("/dev/full")
    truth = {"adj": np.zeros(2, np.int64)}
    with pytest.raises(UserError, match=r"cannot write .*/eval_a\.npz: No space left"):
        one.write({}, {"adj": np.eye(2, 6, dtype=np.float32)}, truth)
    assert not one.path.exists()


def test_ties_count_against_the_truth_as_in_caffe():
    values = np.array([[1, 1, 0, 0], [0, 3, 2, 1], [0, 0, 0, 0]], np.float32)
    assert ranks(values, np.array([0, 2, 3])).tolist() == [2, 2, 4]


def test_a_class_that_the_net_lacks_is_never_right():
    values = np.full((1, 6), -np.inf, np.float32)
    assert ranks(values, np.array([2]))[0] > 5


def test_mcnemar_is_the_sign_test():
    for a, b in itertools.product(range(6), repeat=2):
        n, k = a + b, min(a, b)
        tail = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
        assert mcnemar(a, b) == pytest.approx(min(1, 2 * tail))
    assert mcnemar(30_000, 28_000) < 1e-15
    assert 0.1 < mcnemar(500, 470) < 1


def test_intervals_are_those_of_resampled_images():
    right = np.random.default_rng(1).random(400) < 0.3
    rng = np.random.default_rng(2)
    shares = [right[rng.integers(0, 400, 400)].mean() for _ in range(4000)]
    low, high = bootstrap(int(right.sum()), 400)
    assert (low, high) == pytest.approx(np.quantile(shares, [0.025, 0.975]), abs=0.01)
    assert bootstrap(400, 400) == (1, 1)
    low, high = paired_bootstrap(40, 20, 1000)
    assert 0 < low < 0.02 < high
    # Half as wide as a test that forgets the pairing would have it, at 30% each.
    assert high - low < 0.5 * 2 * 1.96 * math.sqrt(2 * 0.3 * 0.7 / 1000)


def test_confusions_go_to_the_same_noun_or_adjective_or_elsewhere():
    names = Classes.of(["happy_dog", "happy_cat", "sad_dog", "sad_cat"])
    label = names.anp_index
    truth = np.array([label["sad_dog"]] * 4 + [label["happy_cat"]])
    guess = np.array(
        [label[n] for n in ("happy_dog", "happy_dog", "sad_cat", "sad_dog", "sad_dog")]
    )
    found = confusion(guess, truth, names)
    assert found["wrong"] == 4
    assert found["same_noun"] == {"errors": 2, "share": 0.5, "by_chance": pytest.approx(1 / 3)}
    assert found["same_adjective"]["errors"] == 1
    assert found["pairs"][0] == {
        "truth": "sad_dog", "guess": "happy_dog", "images": 2, "of": 4
    }  # fmt: skip


def test_deepsentibank_is_scored_on_our_anps_among_its_outputs(drawn, tmp_path, monkeypatch):
    """The scores are made up: the real net has 65 million weights."""
    data = Data.read(drawn)
    ours = list(data.names.anp)
    outputs = [f"other_{i}" for i in range(2089)]
    places = {name: 50 * i + 7 for i, name in enumerate(ours[1:])}  # it lacks our first ANP
    for name, place in places.items():
        outputs[place] = name
    (tmp_path / "classes.json").write_text(json.dumps(outputs))
    (tmp_path / "weights.caffemodel").write_bytes(b"")
    truth = labels(drawn)["anp"]

    def made_up(deploy, weights, images, *rest):
        assert sum(1 for _ in images) == len(truth)
        values = np.zeros((len(truth), 2089), np.float32)
        values[:, 0] = 9  # an ANP that is none of ours
        for row, label in zip(values, truth):
            if ours[label] in places:
                row[places[ours[label]]] = 1
        return {"fc8-t": values}

    monkeypatch.setattr("xresnet.reproduce.deepsentibank.scores", made_up)
    published = DeepSentiBank(tmp_path / "weights.caffemodel", tmp_path / "classes.json")
    with pytest.raises(UserError, match="needs images of 224 x 224 or more"):
        published.evaluate(data, tmp_path / "out")
    monkeypatch.setattr("xresnet.reproduce.deepsentibank.INPUT", (32, 227))
    monkeypatch.setattr(Network, "deploy", lambda _: "")  # 32 pixels are too few for it
    monkeypatch.setattr(Network, "params", lambda _: {"total": 1})
    found = published.evaluate(data, tmp_path / "out")
    assert found["missing"] == [ours[0]]
    assert found["tasks"]["anp"]["top1"]["correct"] == int((truth != 0).sum())
    # Among all 2,089 the ANP that is none of ours is always first.
    found = replace(published, among="all").evaluate(data, tmp_path / "all")
    assert found["tasks"]["anp"]["top1"]["correct"] == 0
    assert found["tasks"]["anp"]["top5"]["correct"] == int((truth != 0).sum())


@pytest.mark.caffe
def test_a_finished_run_needs_no_solvers_state(run, tmp_path):
    """A model to hand on: net, classes, weights and what came out."""
    Run(run).result()
    model = tmp_path / "model"
    shutil.copytree(run.folder, model, ignore=shutil.ignore_patterns("*.solverstate"))
    weights = net_of(model).weights
    assert weights == model / net_of(run.folder).weights.name
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"caffemodel is damaged, or belongs to another run"):
        net_of(model)
