"""Training step and inference of XS-ResNet-50 beside its peers, in one interleaved run.

    python -m bench.torchcaffe_step              # train: Caffe, by hand, engine; fp32 and bf16
    python -m bench.torchcaffe_step --infer      # deploy: Caffe, OpenCV, onnxruntime, engine

Prints the median seconds of each over the rounds and the ratios of medians. Every
round runs all of them once, in turn, so that what else the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

import realcaffe
from bench.torchcaffe_peers import HandXS, hand_step
from caffeproto import TRAIN, NetParameter, SolverParameter, text
from netgen.command import generate
from torchcaffe import blobs, export
from torchcaffe.net import Net
from torchcaffe.solver import Choices, Solver


def train_net(batch: int) -> object:
    net = text.loads(generate(["xs_resnet50"]), NetParameter)
    for layer in net.layer:
        if layer.type == "Data":
            layer.type = "DummyData"
            shape = [batch, 3, 224, 224] if layer.top[0] == "data" else [batch, 3, 1, 1]
            layer.ClearField("data_param")
            layer.ClearField("transform_param")
            layer.dummy_data_param.shape.add(dim=shape)
            kind = (
                {"type": "constant", "value": 1} if shape[1:] == [3, 1, 1] else {"type": "gaussian"}
            )
            layer.dummy_data_param.data_filler.add(**kind)
    return net


def engine(folder: Path, batch: int, **choices) -> object:
    """One solver step of ours."""
    param = SolverParameter(
        net=str(folder / "train.prototxt"), base_lr=1e-4, lr_policy="fixed", momentum=0.9,
        weight_decay=1e-4, type="SGD", snapshot_after_train=False,
    )  # fmt: skip
    solver = Solver(param, Choices(channels_last=True, **choices))
    solver.net.to(memory_format=torch.channels_last)
    return lambda: solver.step(1)


def by_hand(batch: int, bf16: bool, compiled: bool) -> object:
    net = HandXS().to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(net.parameters(), 1e-4, 0.9, weight_decay=1e-4)
    x = torch.randn(batch, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    labels = torch.ones(batch, 3, dtype=torch.long)
    run = torch.compile(net) if compiled else net

    def step() -> None:
        x.normal_()  # the engine's DummyData draws anew as well
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            hand_step(run, optimiser, x, labels)

    return step


def caffe_step(model: Path) -> float:
    """Seconds of a forward-backward in real Caffe, 2 iterations; the update is not in it."""
    ran = subprocess.run(
        [realcaffe.find("caffe"), "time", "-model", model, "-iterations", "2"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(re.search(r"Average Forward-Backward: (\S+) ms", ran.stderr)[1]) / 1e3


def interleaved(runs: dict, rounds: int) -> dict[str, float]:
    """Median seconds of each; a run that returns a number has timed itself."""
    for name, run in runs.items():
        if not name.startswith("caffe"):
            run()
            run()
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = perf_counter()
            told = run()
            spent[name].append(told if isinstance(told, float) else perf_counter() - start)
    return {name: statistics.median(times) for name, times in spent.items()}


def show(medians: dict[str, float], batch: int) -> None:
    first = next(iter(medians.values()))
    for name, seconds in medians.items():
        print(
            f"{name:28} {1e3 * seconds:9.1f} ms  {batch / seconds:8.2f} img/s  "
            f"{first / seconds:6.2f}x",
            flush=True,
        )


def training(folder: Path, batch: int, rounds: int, compiled: bool) -> None:
    model = folder / "train.prototxt"
    model.write_text(text.dump(train_net(batch)))
    runs = {"caffe": lambda: caffe_step(model)}
    for bf16 in (False, True):
        for how in (False, True) if compiled else (False,):
            label = ("bf16" if bf16 else "fp32") + (" compiled" if how else "")
            runs[f"by hand {label}"] = by_hand(batch, bf16, how)
            runs[f"engine {label}"] = engine(folder, batch, bf16=bf16, compile=how)
    show(interleaved(runs, rounds), batch)


CAFFE_FORWARD = """
import sys, time, numpy as np, caffe
net = caffe.Net(sys.argv[1], sys.argv[2], caffe.TEST)
net.blobs["data"].data[...] = np.random.RandomState(0).normal(0, 50, net.blobs["data"].data.shape)
net.forward()
for line in sys.stdin:
    start = time.time(); net.forward(); print(time.time() - start, flush=True)
"""


def inference(folder: Path, batch: int, rounds: int) -> None:
    import cv2
    import onnxruntime

    proto = text.loads(generate(["xs_resnet50", "--deploy"]), NetParameter)
    proto.layer[0].input_param.shape[0].dim[0] = batch
    model, weights = folder / "deploy.prototxt", folder / "w.caffemodel"
    model.write_text(text.dump(proto))
    seeded = Net(proto, 1)
    for learned in seeded.learned:
        if seeded.layer_named(learned.name).param.type == "BatchNorm":
            torch.nn.init.ones_(learned.blob)
    weights.write_bytes(seeded.to_proto().SerializeToString())
    assert blobs.read_net(weights).layer
    net = export.load(model, weights).to(memory_format=torch.channels_last)
    x = torch.randn(batch, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    ready = export.ready(net, data=x)
    export.onnx(export.load(model, weights), folder / "xs.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        str(folder / "xs.onnx"), options, providers=["CPUExecutionProvider"]
    )
    array = np.ascontiguousarray(x.numpy())
    reader = cv2.dnn.readNetFromCaffe(str(model), str(weights))
    cv2.setNumThreads(torch.get_num_threads())

    def opencv() -> None:
        reader.setInput(array)
        reader.forward(list(net.outputs))

    def run() -> None:
        with torch.inference_mode():
            net(data=x)

    def run_ready() -> None:
        with torch.inference_mode():
            ready(x)

    caffe = subprocess.Popen(
        [realcaffe.find("pycaffe"), "-c", CAFFE_FORWARD, model, weights],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip

    def ask() -> float:
        caffe.stdin.write("\n")
        caffe.stdin.flush()
        return float(caffe.stdout.readline())

    runs = {
        "caffe": ask,
        "opencv dnn": opencv,
        "onnxruntime": lambda: session.run(None, {"data": array}) and None,
        "engine folded": run,
        "engine ready": run_ready,
    }
    show(interleaved(runs, rounds), batch)
    caffe.stdin.close()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--infer", action="store_true")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--compiled", action="store_true")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.infer:
            inference(Path(folder), args.batch, args.rounds)
        else:
            training(Path(folder), args.batch, args.rounds, args.compiled)


if __name__ == "__main__":
    assert TRAIN == 0
    main()
