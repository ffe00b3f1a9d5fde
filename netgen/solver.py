"""Solvers: stochastic gradient descent as in the paper (section 5.2)."""

from __future__ import annotations

from typing import Any

from netgen.net import comment
from netgen.options import Options, Solver
from xresnet.basics.numbers import COUNT
from xresnet.caffeproto import SolverParameter, text

EPOCHS = 20  # the paper: "until convergence"; see docs/REPRODUCTION.md


def solver(short: str, options: Options, s: Solver) -> Any:
    """A SolverParameter for the net whose files are named `short`, such as `xs`."""
    _, test_iter = options.test_pass
    epoch = -(-options.train_images // options.batch)
    interval = epoch if s.test_interval is None else s.test_interval
    made = SolverParameter(
        net=s.net or f"prototxt/{short}.prototxt",
        type="SGD",
        base_lr=s.lr,
        lr_policy="fixed",
        momentum=s.momentum,
        weight_decay=s.weight_decay,
        max_iter=COUNT.check(EPOCHS * epoch, "--max-iter") if s.max_iter is None else s.max_iter,
        display=s.display,
        average_loss=s.display,
        snapshot=epoch if s.snapshot is None else s.snapshot,
        snapshot_prefix=s.snapshot_prefix or f"snapshots/{short}",
        solver_mode="CPU" if s.cpu else "GPU",
    )
    if interval:
        made.test_iter.append(test_iter)
        made.test_interval = interval
        # Before the first batch BatchNorm's statistics are empty and scores NaN, which Caffe's
        # Accuracy counts as correct.
        made.test_initialization = False
    if s.seed is not None:
        made.random_seed = s.seed
    return made


def prototxt(short: str, options: Options, s: Solver, header: str = "") -> str:
    """The solver as prototxt, with a comment that explains its numbers."""
    batch, iterations = options.test_pass
    epoch = -(-options.train_images // options.batch)
    notes = (
        f"One epoch is {epoch:,} iterations: {options.train_images:,} images in batches of "
        f"{options.batch}.\n"
        f"A test pass sees each image once: {iterations:,} x {batch} = {options.test_images:,}.\n"
        "Divide base_lr by ten when the loss plateaus: stop with a snapshot (Ctrl-C), then\n"
        "`caffe train -solver THIS_FILE -snapshot LAST.solverstate`. Caffe has no such policy.\n"
    )
    return comment(f"{header}\n\n{notes}".strip()) + text.dump(solver(short, options, s))
