"""The plateau rule on made-up losses, and snapshots that are whole or not."""

from __future__ import annotations

import pytest

from xresnet.basics.cli import UserError
from xresnet.caffeproto import BlobProto, NetParameter, SolverState
from xresnet.reproduce.schedule import Decision, Epoch, Plateau, Stage, Stages
from xresnet.reproduce.snapshots import delete_except, is_whole_state, is_whole_weights, snapshots


def drive(rule: Plateau, losses) -> list[Decision]:
    """The decisions over epochs of ten iterations, until the rule stops or losses end."""
    taken, epochs = [rule.first()], []
    for i, loss in enumerate(losses, 1):
        epochs.append(Epoch(10 * i, loss, loss))
        taken.append(rule.decide(10 * i, epochs, taken))
        if taken[-1].action == "stop":
            break
    return taken


def test_a_falling_loss_keeps_the_rate_and_a_flat_one_lowers_it():
    losses = [4, 3, 2, 2, 2, 1.5, 1.2, 1.2, 1.2, 1.2, 1.2]
    taken = drive(Plateau(lr=0.1, patience=2, min_gain=0.01), losses)
    assert [d.action for d in taken] == [
        *("start", "keep", "keep", "keep", "keep", "drop"),  # the fifth epoch: two without gain
        *("keep", "keep", "keep", "drop"),  # 1.2 was a gain on 2: another chance
        *("keep", "keep"),
    ]
    assert [d.lr for d in taken if d.action == "drop"] == [0.01, 0.001]
    assert taken[5].numbers["epochs_without_gain"] == 2
    assert taken[5].numbers["best_in_stage"] == 2


def test_a_lowered_rate_that_brings_nothing_is_convergence():
    taken = drive(Plateau(lr=0.1, patience=1), [4, 4, 3.99, 3.99])
    assert [d.action for d in taken] == ["start", "keep", "drop", "keep", "stop"]
    assert "no gain" in taken[-1].why


def test_small_gains_count_once_they_add_up():
    losses = [1 - 0.006 * i for i in range(20)]
    assert all(d.action != "drop" for d in drive(Plateau(patience=2), losses))
    assert any(d.action == "drop" for d in drive(Plateau(patience=1), losses))


def test_the_window_smooths_a_jumping_loss():
    jumps = [2, 1, 1.9, 0.9, 1.8, 0.8, 1.7, 0.7]
    assert any(d.action == "drop" for d in drive(Plateau(patience=1), jumps))
    assert all(d.action == "keep" for d in drive(Plateau(patience=1, window=2), jumps)[1:])


def test_the_most_epochs_and_the_most_drops_end_it():
    falling = [0.5**i for i in range(9)]
    assert drive(Plateau(max_epochs=5), falling)[-1].why.startswith("5 epochs")
    steps = [4, 4, 2, 2, 1, 1, 0.5, 0.5]
    assert drive(Plateau(patience=1, drops=2), steps)[-1].why.endswith("after 2 drops")


def test_an_epoch_without_a_loss_decides_nothing():
    assert drive(Plateau(patience=1), [None, None, None])[-1].action == "keep"


def test_a_plan_fixed_beforehand():
    plan = Stages((Stage(0.1, 6), Stage(0.01, 9)))
    taken = [plan.first()]
    taken.append(plan.decide(6, [], taken))
    taken.append(plan.decide(9, [], taken))
    assert [(d.action, d.lr) for d in taken] == [("start", 0.1), ("drop", 0.01), ("stop", 0.01)]


def test_a_rule_that_cannot_be():
    for wrong in ({"on": "dev"}, {"factor": 1.0}, {"patience": 0}):
        with pytest.raises(UserError):
            Plateau(**wrong)


@pytest.mark.parametrize(
    ("schedule", "asked", "places"),
    [
        (Plateau(), None, [10, 20, 30]),
        (Plateau(), 7, [10, 20, 30]),
        (Plateau(), 0, []),
        (Stages((Stage(0.1, 15), Stage(0.01, 30))), None, [10, 20, 30]),
        (Stages((Stage(0.1, 15), Stage(0.01, 30))), 15, [15, 30]),
        (Stages((Stage(0.1, 15), Stage(0.01, 30))), 0, []),
    ],
)
def test_a_schedule_says_where_caffe_tests(schedule, asked, places):
    interval = schedule.test_interval(asked, 10)
    assert [at for at in range(1, 31) if interval != 0 and at % (interval or 10) == 0] == places


def test_a_schedule_says_where_decisions_are_due():
    plan = Stages((Stage(0.1, 15), Stage(0.01, 30)))
    assert [plan.due_after(at, 10) for at in (0, 14, 15, 29, 30)] == [15, 15, 30, 30, None]
    assert [Plateau().due_after(at, 10) for at in (0, 9, 10)] == [10, 10, 20]


def write_snapshot(folder, iteration: int, layers=("conv1", "loss")) -> tuple[bytes, bytes]:
    net = NetParameter(name="net")
    for name in layers:
        layer = net.layer.add(name=name, type="X")
        layer.blobs.append(BlobProto(data=[0.5] * 100))
    state = SolverState(iter=iteration, learned_net="x", current_step=0)
    state.history.append(BlobProto(data=[0.5] * 100))
    found = net.SerializeToString(), state.SerializeToString()
    (folder / f"snapshot_iter_{iteration}.caffemodel").write_bytes(found[0])
    (folder / f"snapshot_iter_{iteration}.solverstate").write_bytes(found[1])
    return found


def test_every_cut_of_a_snapshot_is_seen(tmp_path):
    weights, state = write_snapshot(tmp_path, 10)
    (snapshot,) = snapshots(tmp_path, "loss")
    assert (snapshot.iteration, snapshot.is_whole("loss")) == (10, True)
    assert not snapshot.is_whole("another layer")
    path = tmp_path / "cut"
    for length in range(len(weights)):
        path.write_bytes(weights[:length])
        assert not is_whole_weights(path, "loss"), length
    for length in range(len(state)):
        path.write_bytes(state[:length])
        assert not is_whole_state(path), length
    path.write_bytes(bytes(len(weights)))  # what a power cut can leave: the size, no content
    assert not is_whole_weights(path) and not is_whole_state(path)
    assert not is_whole_state(tmp_path / "missing")


def test_halves_are_no_snapshots_and_are_taken_away(tmp_path):
    for iteration in (10, 20, 30):
        write_snapshot(tmp_path, iteration)
    (tmp_path / "snapshot_iter_30.caffemodel").write_bytes(b"half")
    (tmp_path / "snapshot_iter_40.caffemodel").write_bytes(b"half")
    (tmp_path / "snapshot_iter_x.caffemodel").write_bytes(b"the user's own")
    (tmp_path / "snapshot_iter_10.torchcaffe").write_bytes(b"of ours")
    (tmp_path / ".snapshot_iter_20.caffemodel.a1").write_bytes(b"half")
    assert [s.iteration for s in snapshots(tmp_path)] == [10, 20]
    delete_except(tmp_path, [20])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "snapshot_iter_20.caffemodel",
        "snapshot_iter_20.solverstate",
        "snapshot_iter_x.caffemodel",
    ]
