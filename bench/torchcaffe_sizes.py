"""Training or inference of large and small nets at every size: Caffe, by hand, engine.

    python -m bench.torchcaffe_sizes [--infer] [--nets x0_resnet50,xs_resnet50] [--widths 8,64]
                                     [--sizes 32,64,96,224] [--batches 1,8,32] [--blocks 1,1,1,3]
                                     [--processor-time]

Prints a table for docs/PERFORMANCE.md: medians in milliseconds over interleaved rounds, a
process each, and how many times Caffe's speed the engine has. Training, the last column is what
the memory alone would take for the weights: read for both passes, their gradients written, and
read and written by the update. By hand there is XS alone. OMP_NUM_THREADS says how many threads
each takes, 2 by default; for small nets the engine takes one of them, as `torchcaffe train` does.
With other work on the machine, compare processor time, on one thread.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
from pathlib import Path
from time import perf_counter

from bench.torchcaffe_step import Worker, caffe, ours, train_net, write_deploy, write_solver
from xresnet.basics.cli import Parser
from xresnet.basics.numbers import COUNT, several

TURN = 0.25  # seconds of a turn, about
# Of an iteration, for each weight: two passes read it, one writes its gradient, and the update
# reads weight, gradient and momentum, and writes weight and momentum; 4 bytes each.
BYTES = 4 * (2 + 1 + 3 + 2)
TRAIN = ("Caffe", "by hand", "engine", "by hand, bf16", "engine, bf16")
INFER = ("Caffe", "engine, `load(...)`", "engine, `pack=True`")


def training(folder: Path, net: str, more: list[str], size: int, width: int, batch: int) -> dict:
    solver = write_solver(folder, train_net(batch, net, size, width, more))
    shape = [f"size={size}", f"width={width}"]
    found = {"Caffe": caffe(solver)}
    pixels = batch * (-(-size // 32)) ** 2  # that the last norms see; PyTorch refuses one
    if net == "xs_resnet50" and not more and pixels > 1:
        found["by hand"] = ours("by_hand", folder, batch, *shape)
        found["by hand, bf16"] = ours("by_hand", folder, batch, *shape, "bf16")
    found["engine"] = ours("engine", folder, batch)
    found["engine, bf16"] = ours("engine", folder, batch, "bf16")
    return found


def inference(folder: Path, net: str, more: list[str], size: int, width: int, batch: int) -> dict:
    words = [net, "--input-size", str(size), "--width", str(width), *more]
    write_deploy(folder, batch, words)
    found = {"Caffe": caffe(folder / "deploy.prototxt", folder / "w.caffemodel")}
    found[INFER[1]] = ours("folded", folder, batch)
    found[INFER[2]] = ours("packed", folder, batch)
    return found


def medians(workers: dict[str, Worker], rounds: int, processor_time: bool) -> dict[str, float]:
    """Milliseconds of a pass, by the clock or of processor time."""
    passes = {}
    for name, worker in workers.items():
        worker.ask(1)
        passes[name] = max(1, round(TURN / worker.seconds.pop()))
    for _ in range(rounds):
        for name, worker in workers.items():
            before = worker.processor_time()
            worker.ask(passes[name])
            if processor_time:
                worker.seconds[-1] = (worker.processor_time() - before) / passes[name]
    found = {name: 1e3 * statistics.median(worker.seconds) for name, worker in workers.items()}
    for worker in workers.values():
        worker.close()
    return found


def bandwidth() -> float:
    """Bytes a second of the sum of two arrays that no cache holds, on as many threads."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    a, b, c = (torch.ones(1 << 26) for _ in range(3))
    spent = []
    for _ in range(5):
        start = perf_counter()
        torch.add(a, b, out=c)
        spent.append(perf_counter() - start)
    return 3 * a.nbytes / min(spent)


def weights(net: str, more: list[str], size: int, width: int) -> int:
    """How many numbers a net learns."""
    from torchcaffe.net import Net
    from xresnet import caffeproto

    made = Net(train_net(1, net, size, width, more), caffeproto.TRAIN)
    return sum(parameter.numel() for parameter in made.parameters())


def main() -> None:
    p = Parser("bench.torchcaffe_sizes", description=__doc__.splitlines()[0])
    p.add_argument("--infer", action="store_true", help="the deploy net instead of training")
    p.add_argument("--nets", default="x0_resnet50,xs_resnet50")
    p.add_argument("--widths", type=several(COUNT), default=(8, 64))
    p.add_argument("--sizes", type=several(COUNT), default=(32, 64, 96, 224))
    p.add_argument("--batches", type=several(COUNT), default=(1, 8, 32))
    p.add_argument("--blocks", help="of the residual stages, as netgen's; none by hand then")
    p.add_argument("--rounds", type=COUNT, default=5)
    p.add_argument("--processor-time", action="store_true", help="instead of time by the clock")
    args = p.parse_args()
    more = ["--blocks", args.blocks] if args.blocks else []
    columns, engines = (INFER, INFER[1:]) if args.infer else (TRAIN, ("engine", "engine, bf16"))
    speed = 0.0 if args.infer else bandwidth()
    if speed:
        print(f"Memory: {speed / 1e9:.1f} GB/s\n")
    ratios = [f"x Caffe: {name}" for name in engines]
    last = [] if args.infer else ["weights alone"]
    heads = ["net, width", "px", "batch", *columns, *ratios, *last]
    print(f"| {' | '.join(heads)} |\n|---|{'---:|' * (len(heads) - 1)}")
    numbers = args.widths, args.sizes, args.batches
    for net, width, size, batch in itertools.product(args.nets.split(","), *numbers):
        with tempfile.TemporaryDirectory() as name:
            make = inference if args.infer else training
            workers = make(Path(name), net, more, size, width, batch)
            found = medians(workers, args.rounds, args.processor_time)
        cells = [f"{found[who]:.1f}" if who in found else "" for who in columns]
        cells += [f"{found['Caffe'] / found[who]:.2f}" for who in engines]
        if speed:
            cells.append(f"{1e3 * BYTES * weights(net, more, size, width) / speed:.1f}")
        print(f"| {net}, {width} | {size} | {batch} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
