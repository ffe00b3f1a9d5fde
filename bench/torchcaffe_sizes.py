"""A training iteration of large and small nets at every size: Caffe, by hand, engine.

    python -m bench.torchcaffe_sizes [--nets x0_resnet50,xs_resnet50] [--widths 8,64]
                                     [--sizes 32,64,96,224] [--batches 1,8,32]

Prints a table for docs/PERFORMANCE.md: medians in milliseconds over interleaved rounds, a
process each, and the engine's speed over Caffe's. By hand there is XS alone. OMP_NUM_THREADS
says how many threads each takes, 2 by default.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from pathlib import Path

from bench.torchcaffe_step import Worker, caffe, ours, train_net, write_solver
from xresnet.basics.cli import Parser
from xresnet.basics.numbers import COUNT, several


def workers(folder: Path, net: str, width: int, size: int, batch: int) -> dict[str, Worker]:
    solver = write_solver(folder, train_net(batch, net, size, width))
    shape = [f"size={size}", f"width={width}"]
    found = {"Caffe": caffe(solver)}
    if net == "xs_resnet50":
        found["by hand"] = ours("by_hand", folder, batch, *shape)
        found["by hand, bf16"] = ours("by_hand", folder, batch, *shape, "bf16")
    found["engine"] = ours("engine", folder, batch)
    found["engine, bf16"] = ours("engine", folder, batch, "bf16")
    return found


def row(net: str, width: int, size: int, batch: int, rounds: int) -> str:
    """A line of the table."""
    with tempfile.TemporaryDirectory() as name:
        here = workers(Path(name), net, width, size, batch)
        for _ in range(rounds):
            for worker in here.values():
                worker.ask(4)
        medians = {who: 1e3 * statistics.median(w.seconds) for who, w in here.items()}
        for worker in here.values():
            worker.close()
    told = [f"{medians[who]:.1f}" if who in medians else "" for who in COLUMNS]
    times = [f"{medians['Caffe'] / medians[who]:.2f}" for who in ("engine", "engine, bf16")]
    return f"| {net}, {width} | {size} | {batch} | {' | '.join([*told, *times])} |"


COLUMNS = ("Caffe", "by hand", "engine", "by hand, bf16", "engine, bf16")


def main() -> None:
    p = Parser("bench.torchcaffe_sizes", description=__doc__.splitlines()[0])
    p.add_argument("--nets", default="x0_resnet50,xs_resnet50")
    p.add_argument("--widths", type=several(COUNT), default=(8, 64))
    p.add_argument("--sizes", type=several(COUNT), default=(32, 64, 96, 224))
    p.add_argument("--batches", type=several(COUNT), default=(1, 8, 32))
    p.add_argument("--rounds", type=COUNT, default=5)
    args = p.parse_args()
    numbers = args.widths, args.sizes, args.batches
    print(f"| net, width | px | batch | {' | '.join(COLUMNS)} | x Caffe | bf16 |")
    print(f"|---|{'---:|' * 9}")
    for net, width, size, batch in itertools.product(args.nets.split(","), *numbers):
        print(row(net, width, size, batch, args.rounds), flush=True)


if __name__ == "__main__":
    main()
