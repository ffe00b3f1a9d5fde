"""One go on a CUDA GPU: equality with the CPU, then speed and memory, beside the hand-written net.

    python -m bench.gpu [--batches 24,most] [--precisions fp32,tf32,bf16] [--steps 20]
                        [--hows eager,compiled,graphs]
    python -m bench.gpu --rehearse       # on a CPU: figures of no use

`most` is the largest batch of a power of two that the engine trains in the GPU's memory, eager.
Needs PyTorch and nothing else; makes its own LMDB. bench/gpu.sh calls it. Prints Markdown for
docs/PERFORMANCE.md: img/s, peak memory, and the share of the matrix-product rate
that the same precision reaches here.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from bench.torchcaffe_peers import HandXS, hand_step
from data_prep.lmdb_writer import Writer
from netgen.command import generate
from torchcaffe.net import Net
from torchcaffe.solver import Choices, Solver
from xresnet.basics.cli import Parser
from xresnet.basics.numbers import COUNT, several
from xresnet.caffeproto import TRAIN, NetParameter, SolverParameter, text
from xresnet.caffeproto.datum import image_datum, label_datum

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
PRECISIONS = ("fp32", "tf32", "bf16")
HOWS = ("eager", "compiled", "graphs")  # the last: compiled, replayed as CUDA graphs
SHAPE = {"size": 224, "width": 64}  # of a rehearsal: smaller
GMAC_FORWARD = 4.73  # XS-ResNet-50 an image; a training step is three times that


def write_data(folder: Path, count: int = 512) -> None:
    """Random records as data_prep lays them out."""
    rng = np.random.default_rng(0)
    places = (folder / f"train_{kind}_lmdb" for kind in ("image", "label"))
    images, labels = map(Writer, places)
    with images, labels:
        for i in range(count):
            name, side = f"{i:08d}".encode(), SHAPE["size"]
            pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
            images.put(name, image_datum(pixels, 0)[0])
            labels.put(name, label_datum([int(rng.integers(k)) for k in (117, 553, 167)]))
        for writer in (images, labels):
            writer.commit(last=True)


def net_proto(folder: Path, batch: int) -> object:
    words = ["xs_resnet50", "--data", str(folder), "--batch", str(batch)]
    words += ["--input-size", str(SHAPE["size"]), "--width", str(SHAPE["width"])]
    net = text.loads(generate(words), NetParameter)
    for layer in [one for one in net.layer if "TEST" in text.dump(one)]:
        net.layer.remove(layer)
    return net


def equality(folder: Path) -> None:
    """Blobs and gradients of the GPU against the CPU, float32, batch 2."""
    proto = net_proto(folder, 2)
    torch.manual_seed(0)
    nets = [Net(proto, TRAIN), Net(proto, TRAIN)]
    nets[1].load_state_dict(nets[0].state_dict())
    nets[1].to(DEVICE)
    x = torch.randn(2, 3, SHAPE["size"], SHAPE["size"]) * 60
    labels = torch.ones(2, 3, 1, 1)
    found = []
    for net, device in zip(nets, ("cpu", DEVICE)):
        fed = {"data": x.to(device), "label": labels.to(device)}
        net.loss(net(**fed)).backward()
        found.append([one.blob.grad.cpu() for one in net.learned if one.blob.grad is not None])
    apart = [((a - b).norm() / a.norm().clamp(min=1e-12)).item() for a, b in zip(*found)]
    told = f"median {statistics.median(apart):.1e}, largest {max(apart):.1e}"
    print(f"gradients, {DEVICE} against cpu, float32: {told} by norm\n")


def product_rate(kind: torch.dtype) -> float:
    """Multiply-adds a second of a large matrix product, the most one can hope for."""
    n = 8192 if CUDA else 512
    a, b = (torch.randn(n, n, device=DEVICE, dtype=kind) for _ in range(2))
    for _ in range(3):
        a @ b
    synchronize()
    start = perf_counter()
    for _ in range(10):
        a @ b
    synchronize()
    return 10 * n**3 / (perf_counter() - start)


def measured(step, steps: int) -> tuple[float, float]:
    """Seconds a step (median), and peak GiB."""
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(5 if CUDA else 1):
        step()
    times = []
    for _ in range(steps):
        synchronize()
        start = perf_counter()
        step()
        synchronize()
        times.append(perf_counter() - start)
    return statistics.median(times), torch.cuda.max_memory_allocated() / 2**30 if CUDA else 0.0


def synchronize() -> None:
    if CUDA:
        torch.cuda.synchronize()


def engine(folder: Path, batch: int, bf16: bool, how: str):
    model = folder / "net.prototxt"
    model.write_text(text.dump(net_proto(folder, batch)))
    param = SolverParameter(
        net=str(model), base_lr=1e-4, lr_policy="fixed", momentum=0.9, type="SGD"
    )
    more = {"compile": how == "compiled", "cuda_graphs": how == "graphs"}
    solver = Solver(param, Choices(DEVICE, bf16=bf16, channels_last=True, **more))
    return lambda: solver.step(1), solver


def by_hand(batch: int, bf16: bool, how: str):
    net = HandXS(width=SHAPE["width"]).to(DEVICE).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(net.parameters(), 1e-4, 0.9)
    x = torch.randn(batch, 3, SHAPE["size"], SHAPE["size"], device=DEVICE)
    x = x.contiguous(memory_format=torch.channels_last)
    labels = torch.ones(batch, 3, dtype=torch.long, device=DEVICE)
    modes = {"compiled": None, "graphs": "reduce-overhead"}
    run = torch.compile(net, mode=modes[how]) if how in modes else net
    cast = torch.autocast(DEVICE, torch.bfloat16) if bf16 else contextlib.nullcontext()

    def step() -> None:
        with cast:
            hand_step(run, optimiser, x, labels)

    return step


def main() -> int:
    p = Parser("bench.gpu", description=__doc__)
    p.add_argument("--batches", type=several(replace(COUNT, word="most")), default=(24, "most"))
    p.add_argument("--precisions", default=",".join(PRECISIONS))
    p.add_argument("--hows", default=",".join(HOWS))
    p.add_argument("--steps", type=COUNT, default=20)
    p.add_argument("--rehearse", action="store_true", help="without a GPU, a small net, one step")
    args = p.parse_args()
    if args.rehearse:
        args.batches, args.steps = (2, "most"), 1
        SHAPE.update(size=32, width=4)
    precisions, hows = args.precisions.split(","), args.hows.split(",")
    for flag, given, known in (("precisions", precisions, PRECISIONS), ("hows", hows, HOWS)):
        if strange := set(given) - set(known):
            p.error(f"--{flag}: {', '.join(strange)}: of {', '.join(known)}")
    if not CUDA and not args.rehearse:
        print("bench.gpu: PyTorch sees no CUDA GPU here; nothing measured", file=sys.stderr)
        return 1
    name = torch.cuda.get_device_name() if CUDA else "a rehearsal on a CPU"
    print(f"{name}, PyTorch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        equality(folder)
        print("| batch | precision | run | img/s | GiB | of the product rate | wait for data |")
        print("|---:|---|---|---:|---:|---:|---:|")
        for precision in precisions:
            for batch in args.batches:
                batch = most(folder, precision == "bf16") if batch == "most" else batch
                for how in hows:
                    table(folder, batch, precision, args.steps, how)
    return 0


def most(folder: Path, bf16: bool) -> int:
    """The largest batch, a power of two, that the engine trains in the GPU's memory."""
    batch = 2
    while CUDA or batch < 4:  # a rehearsal has no end of memory
        step = solver = None
        try:
            step, solver = engine(folder, 2 * batch, bf16, "eager")
            step()
        except torch.cuda.OutOfMemoryError:
            break
        finally:
            if solver is not None:
                solver.close()
            del step, solver
            torch.cuda.empty_cache()
        batch *= 2
    return batch


def table(folder: Path, batch: int, precision: str, steps: int, how: str) -> None:
    """The rows of one batch size and precision: by hand and engine."""
    tf32, bf16 = precision == "tf32", precision == "bf16"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    limit = product_rate(torch.bfloat16 if bf16 else torch.float32)
    for who in ("by hand", "engine"):
        solver = None
        torch.compiler.reset()  # it compiles a function so often and no more, and keeps its graphs
        try:
            if who == "engine":
                step, solver = engine(folder, batch, bf16, how)
            else:
                step = by_hand(batch, bf16, how)
            seconds, memory = measured(step, steps)
        except torch.cuda.OutOfMemoryError:
            print(f"| {batch} | {precision} | {who}, {how} | out of memory | | | |")
            continue
        finally:
            if solver is not None:
                solver.close()
        smaller = (SHAPE["size"] / 224 * SHAPE["width"] / 64) ** 2
        share = 3 * GMAC_FORWARD * smaller * 1e9 * batch / seconds / limit
        waited = "" if solver is None else f"{1e3 * solver.runner.feeds[0].waited:.1f} ms"
        print(
            f"| {batch} | {precision} | {who}, {how} | {batch / seconds:.0f} | {memory:.1f} "
            f"| {share:.0%} | {waited} |",
            flush=True,
        )
        if CUDA:
            torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
