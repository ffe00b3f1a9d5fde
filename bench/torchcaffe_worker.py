"""One runner of bench.torchcaffe_step in a process of its own: passes, as stdin asks for.

    python -m bench.torchcaffe_worker KIND FOLDER BATCH [bf16] [compiled] [size=S] [width=C]

Says `ready` when warm, then the seconds of a pass and the peak memory (MiB). A process
each, so that peak memory is its own, as are the memory allocator's habits.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from time import perf_counter
from typing import Callable

import numpy as np

from xresnet.basics import cores

cores.configure_openmp()  # for by hand too: how OpenMP waits is no difference to measure

Pass = Callable[[], object]


def by_hand(
    folder: Path, batch: int, bf16: int = 0, compiled: int = 0, size: int = 224, width: int = 64
) -> Pass:
    """A training step of the hand-written net, channels last."""
    import torch

    from bench.torchcaffe_peers import HandXS, hand_step

    net = HandXS(width=width).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(net.parameters(), 1e-4, 0.9, weight_decay=1e-4)
    x = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.ones(batch, 3, dtype=torch.long)
    run = torch.compile(net) if compiled else net

    def step() -> None:
        x.normal_()  # the engine's DummyData draws anew as well
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(bf16)):
            hand_step(run, optimiser, x, labels)

    return step


def engine(folder: Path, batch: int, bf16: int = 0, compiled: int = 0) -> Pass:
    """A solver step of ours, as `python -m torchcaffe train` takes it."""
    import torch

    from torchcaffe import order
    from torchcaffe.solver import Choices, Solver
    from xresnet.basics import memory
    from xresnet.caffeproto import SolverParameter, text

    memory.keep_freed()
    param = text.load(folder / "solver.prototxt", SolverParameter)
    solver = Solver(param, Choices(channels_last=True, bf16=bool(bf16), compile=bool(compiled)))
    torch.set_num_threads(min(torch.get_num_threads(), order.threads(solver.net)))
    return lambda: solver.step(1)


def packed(folder: Path, batch: int) -> Pass:
    """The deploy net as `torchcaffe.load(..., pack=True)` gives it."""
    import torch

    from torchcaffe import export

    net = export.load(folder / "deploy.prototxt", folder / "w.caffemodel", pack=True)
    x = torch.from_numpy(images(folder))
    return lambda: net(data=x)


def folded(folder: Path, batch: int) -> Pass:
    """The deploy net as `torchcaffe.load(...)` alone gives it."""
    import torch

    from torchcaffe import export

    net = export.load(folder / "deploy.prototxt", folder / "w.caffemodel")
    x = torch.from_numpy(images(folder))

    def run() -> None:
        with torch.inference_mode():
            net(data=x)

    return run


def onnxruntime(folder: Path, batch: int) -> Pass:
    """What `torchcaffe export --onnx` wrote."""
    import os

    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "2"))
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(str(folder / "xs.onnx"), options, providers=providers)
    array = images(folder)
    return lambda: session.run(None, {"data": array})


def opencv(folder: Path, batch: int) -> Pass:
    """OpenCV's own reader of the deploy net."""
    import os

    import cv2

    cv2.setNumThreads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    reader = cv2.dnn.readNetFromCaffe(str(folder / "deploy.prototxt"), str(folder / "w.caffemodel"))
    outputs = reader.getUnconnectedOutLayersNames()
    array = images(folder)

    def run() -> None:
        reader.setInput(array)
        reader.forward(outputs)

    return run


def images(folder: Path) -> np.ndarray:
    """As the deploy net wants them."""
    from xresnet.caffeproto import NetParameter, text

    (data,) = text.load(folder / "deploy.prototxt", NetParameter).layer[0].input_param.shape
    return np.random.default_rng(0).normal(0, 50, tuple(data.dim)).astype(np.float32)


def peak() -> float:
    """Peak resident memory, MiB. (getrusage's counts the parent before exec.)"""
    return float(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


KINDS = {f.__name__: f for f in (by_hand, engine, packed, folded, onnxruntime, opencv)}


def main() -> None:
    kind, folder, batch, *flags = sys.argv[1:]
    given = {name: int(value or 1) for name, _, value in (flag.partition("=") for flag in flags)}
    run = KINDS[kind](Path(folder), int(batch), **given)
    run()
    run()
    print("ready", flush=True)
    for line in sys.stdin:
        start = perf_counter()
        for _ in range(int(line)):
            run()
        seconds = (perf_counter() - start) / int(line)
        print(seconds, peak(), flush=True)


if __name__ == "__main__":
    main()
