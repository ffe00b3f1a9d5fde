"""How long a training takes, from a few timed iterations of its net."""

from __future__ import annotations

import re
import subprocess

from xresnet.basics.cli import UserError
from xresnet.basics.files import unnamed
from xresnet.reproduce.training import Training

ITERATIONS = 5
_MILLISECONDS = re.compile(r"Average (Forward pass|Forward-Backward): ([\d.e+-]+) ms")


def estimate(training: Training) -> float:
    """The seconds of a whole run with its tests; with the plateau rule, at most.

    They are computed from the times of an iteration by the engine's command `time`.

    Raises:
        UserError: the engine cannot run the net; its last line.
    """
    both, forward = _timed(training)
    options, epoch = training.options, training.epoch
    iterations = training.schedule.end(-1, epoch)
    # A test an epoch, at last one by `test`, one from the scores, and one of the training images.
    batches = options.test_images * (iterations / epoch + 2) + options.train_images
    return iterations * both + batches / options.batch * forward


def spoken(seconds: float) -> str:
    """`40 s`, `25 min`, `3 h 10 min`."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{max(seconds, 1):.0f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


def _timed(training: Training) -> tuple[float, float]:
    """The seconds of an iteration, and of its forward pass."""
    engine = training.engine
    data = training.data.order[1] if training.data.order else training.data
    with unnamed(data.network(training.net).prototxt()) as net:
        command = [*engine.program(), "time", "-model", str(net), "-iterations", str(ITERATIONS)]
        command += engine.one_gpu
        ran = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=engine.environment()
        )
    said = ran.stdout + ran.stderr
    times = {what: float(ms) / 1e3 for what, ms in _MILLISECONDS.findall(said)}
    if ran.returncode or len(times) < 2:
        last = (said.strip().splitlines() or ["no word"])[-1]
        raise UserError(f"{training.name}: {engine.typed[-1]} time failed: {last}")
    return times["Forward-Backward"], times["Forward pass"]
