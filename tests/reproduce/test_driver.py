"""What the driver makes of Caffe's words, without a Caffe."""

from __future__ import annotations

from tests.reproduce.test_train import training
from xresnet.realcaffe.train_log import Done, Snapshot, TestPass, TrainStep
from xresnet.reproduce.driver import Complete, Written, milestones
from xresnet.reproduce.schedule import Decision


def step(iteration: int) -> TrainStep:
    return TrainStep(iteration, 1.0, 0.1, {})


def snapshot(iteration: int) -> list[Snapshot]:
    stem = f"/runs/xs/snapshot_iter_{iteration}"
    return [Snapshot(f"{stem}.caffemodel"), Snapshot(f"{stem}.solverstate")]


def told(events, tests_at) -> list[object]:
    """The milestones alone: a Written by its iteration."""
    found = milestones(iter(events), tests_at)
    return [
        one.snapshot.iteration if isinstance(one, Written) else one
        for one in found
        if isinstance(one, (Written, Complete))
    ]


def test_a_snapshot_is_written_once_caffe_goes_on():
    events = [step(0), *snapshot(10)]
    assert told(events, lambda at: False) == [], "killed while it wrote, for all we know"
    assert told([*events, step(10)], lambda at: False) == [10, Complete(10)]
    assert told([*events, Done(early=True)], lambda at: False) == [10, Complete(10)]
    assert told([*events, *snapshot(20), step(20)], lambda at: at == 10) == [10, 20, Complete(20)]


def test_where_there_is_a_test_it_completes_an_iteration():
    events = [TestPass(0, 0, {}), *snapshot(10), TestPass(10, 0, {}), step(10), *snapshot(20)]
    assert told([*events, step(20)], lambda at: at == 10) == [
        *(Complete(0), 10, Complete(10)),
        *(20, Complete(20)),
    ]


def test_every_event_passes_and_a_snapshot_is_held_before_what_proves_it():
    """What follows a snapshot may be a loss that is no number: the snapshot is kept first."""
    events = [step(0), *snapshot(10), step(10)]
    found = list(milestones(iter(events), lambda at: False))
    assert [one for one in found if not isinstance(one, (Written, Complete))] == events
    assert [type(one) for one in found[-3:]] == [Written, TrainStep, Complete]


def test_a_rate_changed_by_hand_is_no_stage_of_its_own(drawn, tmp_path):
    """Its solver is written anew, and the next drop is the second stage."""
    run = training(drawn, tmp_path)
    for action, at in (("start", 0), ("start", 10), ("drop", 20), ("stop", 30)):
        run.files.append(Decision(action, at, 0.1, "a test"))
    solvers = [command[command.index("-solver") + 1] for command in run.commands()]
    assert [path.rpartition("/")[2] for path in solvers] == [
        *("solver_1.prototxt", "solver_1.prototxt", "solver_2.prototxt")
    ]
    assert ["-snapshot" in command for command in run.commands()] == [False, True, True]
