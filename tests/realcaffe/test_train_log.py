"""Caffe's log, line by line; the lines are real ones, shortened."""

from __future__ import annotations

import math

from xresnet.realcaffe import train_log
from xresnet.realcaffe.train_log import (
    Done,
    Fatal,
    FinalLoss,
    Snapshot,
    TestPass,
    TestResult,
    TrainStep,
)

TRAIN = """\
I1120 20:32:32.250980  5704 solver.cpp:45] Initializing solver from parameters: 
test_iter: 2
I1120 20:32:32.252242  5704 net.cpp:244] This network produces output prob
I1120 20:32:32.252264  5704 solver.cpp:289] Solving tiny
I1120 20:32:32.252270  5704 solver.cpp:347] Iteration 0, Testing net (#0)
I1120 20:32:32.253288  5704 solver.cpp:414]     Test net output #0: loss_noun = 0.898401 (* 1 = 0.898401 loss)
I1120 20:32:32.253294  5704 solver.cpp:414]     Test net output #1: prob = 0.464717
I1120 20:32:32.253297  5704 solver.cpp:414]     Test net output #2: prob = 0.535283
I1120 20:32:32.253315  5704 solver.cpp:414]     Test net output #3: top1_noun = 0.5
I1120 20:32:32.253332  5704 solver.cpp:239] Iteration 0 (1.18909e-25 iter/s, 0.001s/5 iters), loss = 0.552057
I1120 20:32:32.253338  5704 solver.cpp:258]     Train net output #0: loss_noun = 0.552057 (* 1 = 0.552057 loss)
I1120 20:32:32.253342  5704 sgd_solver.cpp:112] Iteration 0, lr = 0.01
I1120 20:32:39.253358  5704 solver.cpp:239] Iteration 5 (0.714286 iter/s, 7s/5 iters), loss = 0.578186
I1120 20:32:39.253360  5709 data_layer.cpp:73] Restarting data prefetching from start.
I1120 20:32:39.253361  5704 solver.cpp:258]     Train net output #0: loss_adj = -nan (* 1 = -nan loss)
I1120 20:32:39.253362  5704 solver.cpp:258]     Train net output #1: loss_noun = 1.2e-05 (* 1 = 1.2e-05 loss)
I1120 20:32:39.253364  5704 sgd_solver.cpp:112] Iteration 5, lr = 1e-05
I1120 20:32:39.253458  5704 solver.cpp:464] Snapshotting to binary proto file a b/tiny_iter_6.caffemodel
I1120 20:32:39.253616  5704 sgd_solver.cpp:284] Snapshotting solver state to binary proto file a b/tiny_iter_6.solverstate
I1120 20:32:39.253813  5704 solver.cpp:327] Iteration 6, loss = 0.595539
I1120 20:32:39.253816  5704 solver.cpp:347] Iteration 6, Testing net (#1)
I1120 20:32:39.253823  5704 solver.cpp:414]     Test net output #0: top1_noun = 0.375
I1120 20:32:39.253849  5704 solver.cpp:332] Optimization Done.
I1120 20:32:39.253850  5704 caffe.cpp:250] Optimization Done.
"""  # noqa: E501, W291

WEIGHTED = """\
I1120 20:32:32.252270  5704 solver.cpp:347] Iteration 5, Testing net (#0)
I1120 20:32:32.253288  5704 solver.cpp:414]     Test net output #0: loss1/loss_anp = 2.5 (* 0.3 = 0.75 loss)
I1120 20:32:32.253293  5704 solver.cpp:414]     Test net output #1: loss_anp = 1e-05 (* 1 = 1e-05 loss)
I1120 20:32:32.253294  5704 solver.cpp:414]     Test net output #2: loss2/loss_anp = 2 (* 0.3 = 0.6 loss)
"""  # noqa: E501

TEST = """\
I1120 20:32:32.407054  5721 caffe.cpp:275] Use CPU.
I1120 20:32:32.411947  5721 caffe.cpp:281] Running for 3 iterations.
I1120 20:32:32.412045  5721 caffe.cpp:304] Batch 0, loss_noun = 0.693598
I1120 20:32:32.412070  5721 caffe.cpp:304] Batch 0, top1_noun = 0.5
I1120 20:32:32.412125  5721 caffe.cpp:309] Loss: 0.708799
I1120 20:32:32.412130  5721 caffe.cpp:321] loss_noun = 0.708799 (* 1 = 0.708799 loss)
I1120 20:32:32.412189  5721 caffe.cpp:321] top1_noun = 0.666667
"""


def test_a_training_log() -> None:
    events = list(train_log.read(TRAIN.splitlines(keepends=True)))
    prob = {"prob": 0.464717, "prob[1]": 0.535283}
    assert events[:2] == [
        TestPass(0, 0, {"loss_noun": 0.898401, **prob, "top1_noun": 0.5}, 0.898401),
        TrainStep(0, 0.552057, 0.01, {"loss_noun": 0.552057}, 5, 0.001),
    ]
    step = events[2]
    assert isinstance(step, TrainStep)
    assert (step.iteration, step.lr, step.iterations, step.seconds) == (5, 1e-05, 5, 7.0)
    assert math.isnan(step.outputs["loss_adj"]) and step.outputs["loss_noun"] == 1.2e-05
    assert events[3:] == [
        Snapshot("a b/tiny_iter_6.caffemodel"),
        Snapshot("a b/tiny_iter_6.solverstate"),
        FinalLoss(6, 0.595539),
        TestPass(6, 1, {"top1_noun": 0.375}),
        Done(),
    ]


def test_an_event_comes_with_its_last_line() -> None:
    reader = train_log.Reader()
    seen = [len(reader.feed(line)) for line in TRAIN.splitlines()]
    assert [number for number, events in enumerate(seen) if events] == [9, 11, 16, 17, 18, 19, 22]


def test_a_test_log() -> None:
    means = {"loss_noun": 0.708799, "top1_noun": 0.666667}
    assert list(train_log.read(TEST.splitlines())) == [TestResult(0.708799, means)]


def test_a_log_cut_short_gives_what_was_complete() -> None:
    for length in range(len(TRAIN)):
        for event in train_log.read(TRAIN[:length].splitlines()):
            assert not isinstance(event, Fatal)
    assert list(train_log.read(TRAIN.splitlines()[:5])) == []
    assert list(train_log.read(TRAIN.splitlines()[:11]))[1:] == [], "no rate yet: no step"


def test_stopped_by_a_signal() -> None:
    lines = [
        "I1120 20:32:32.2 1 solver.cpp:321] Optimization stopped early.",
        "I1120 20:32:32.2 1 caffe.cpp:250] Optimization Done.",
    ]
    assert list(train_log.read(lines)) == [Done(early=True)]


def test_a_fatal_line() -> None:
    line = (
        "F1120 20:32:32.486999  5724 common.cpp:66] Cannot use GPU in CPU-only Caffe: check mode."
    )
    assert list(train_log.read([line, "*** Check failure stack trace: ***"])) == [
        Fatal("Cannot use GPU in CPU-only Caffe: check mode.")
    ]


def test_a_test_passs_loss_is_weighted() -> None:
    (test,) = train_log.read(WEIGHTED.splitlines(keepends=True))
    assert test.outputs["loss1/loss_anp"] == 2.5
    assert test.loss == 0.75 + 1e-05 + 0.6
