"""What other work on the machine costs a training: Caffe and the engine in one interleaved run.

    python -m bench.busy_cores [--net xs_resnet50] [--width 8] [--size 32] [--batch 16]

For each of Caffe, the engine, and the engine with OpenMP left to spin while it waits: the
milliseconds of an iteration alone and beside a process that keeps one core busy, medians over
the rounds; and how long two trainings take at once, over one after the other (1 is ideal).
OMP_NUM_THREADS says how many threads each takes, 2 by default.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.torchcaffe_step import Worker, caffe, train_net, write_solver
from xresnet.basics.cli import Parser
from xresnet.basics.numbers import COUNT, PIXELS

# A setting of Intel's OpenMP, which GNU's does not read, keeps the engine from choosing.
SPINNING = {"KMP_BLOCKTIME": "200"}


@contextmanager
def neighbour() -> Iterator[None]:
    """A process that computes all the while."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def pairs(folder: Path, batch: int) -> dict[str, list[Worker]]:
    """Two workers of each kind."""
    command = [sys.executable, "-m", "bench.torchcaffe_worker", "engine", folder, batch]
    return {
        "Caffe": [caffe(folder / "solver.prototxt") for _ in range(2)],
        "engine": [Worker(command) for _ in range(2)],
        "engine, spinning": [Worker(command, **SPINNING) for _ in range(2)],
    }


def measure(first: Worker, second: Worker, passes: int) -> tuple[float, float, float]:
    """Seconds of an iteration alone, beside a neighbour; two at once over one after another."""

    def alone(worker: Worker) -> float:
        worker.start(passes)
        return worker.finish()

    single, other = alone(first), alone(second)
    with neighbour():
        beside = alone(first)
    first.start(passes)
    second.start(passes)
    both = max(first.finish(), second.finish())
    return single, beside, both / (single + other)


def main() -> None:
    p = Parser("bench.busy_cores", description=__doc__.splitlines()[0])
    p.add_argument("--net", default="xs_resnet50")
    p.add_argument("--width", type=COUNT, default=8)
    p.add_argument("--size", type=PIXELS, default=32)
    p.add_argument("--batch", type=COUNT, default=16)
    p.add_argument("--passes", type=COUNT, default=20, help="iterations a turn")
    p.add_argument("--rounds", type=COUNT, default=5)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_solver(folder, train_net(args.batch, args.net, args.size, args.width))
        workers = pairs(folder, args.batch)
        for worker in [one for pair in workers.values() for one in pair]:
            worker.wait()
        found: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in workers}
        for _ in range(args.rounds):
            for kind, (first, second) in workers.items():
                found[kind].append(measure(first, second, args.passes))
        print("| | alone, ms | beside a busy process, ms | times | two at once / in turn |")
        print("|---|---:|---:|---:|---:|")
        for kind, rows in found.items():
            single, beside, both = (statistics.median(column) for column in zip(*rows))
            told = f"{1e3 * single:.1f} | {1e3 * beside:.1f} | {beside / single:.2f}"
            print(f"| {kind} | {told} | {both:.2f} |")
        for worker in [one for pair in workers.values() for one in pair]:
            worker.close()


if __name__ == "__main__":
    main()
