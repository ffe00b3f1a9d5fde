"""Training step and inference of XS-ResNet-50 beside its peers, in one interleaved run.

    python -m bench.torchcaffe_step              # train: Caffe, by hand, engine; fp32 and bf16
    python -m bench.torchcaffe_step --compiled   # the same through torch.compile, without Caffe
    python -m bench.torchcaffe_step --infer      # deploy: Caffe, OpenCV, onnxruntime, engine

Prints the median seconds of each over the rounds, the ratios of medians and the peak memory.
Every round asks each for a pass (eight of one image), in turn, so that what else the machine
does hits all alike; each is a process of its own that waits meanwhile. OMP_NUM_THREADS says
how many threads they take, 2 by default.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from netgen.command import generate
from xresnet import realcaffe
from xresnet.basics.cli import Parser, UserError
from xresnet.basics.numbers import COUNT
from xresnet.caffeproto import TEST, NetParameter, text

# Run by pycaffe: a solver's step, or a pass forward.
CAFFE = """
import sys, time, numpy as np, caffe
model, weights, train = sys.argv[1:]
if train == "yes":
    solver = caffe.get_solver(model)
else:
    net = caffe.Net(model, weights, caffe.TEST)
    net.blobs["data"].data[...] = np.random.RandomState(0).normal(0, 50, net.blobs["data"].data.shape)
def go():
    if train == "yes": solver.step(1)
    else: net.forward()
go()
print("ready"); sys.stdout.flush()
for line in sys.stdin:
    count = int(line); start = time.time()
    for i in range(count): go()
    seconds = (time.time() - start) / count
    peak = [s for s in open("/proc/self/status") if s.startswith("VmHWM")][0].split()[1]
    print(seconds, float(peak) / 1024); sys.stdout.flush()
"""  # noqa: E501


class Worker:
    """A process that makes a pass when asked."""

    def __init__(self, command: list[object], **more: str) -> None:
        threads = os.environ.get("OMP_NUM_THREADS", "2")
        quiet = {
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "GLOG_minloglevel": "2",
        }
        said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=said, text=True,
            env={**os.environ, **quiet, **more},
        )  # fmt: skip
        self.name, self.said, self.ready = Path(command[0]).name, said, False
        self.seconds: list[float] = []
        self.peak = 0.0

    def ask(self, passes: int) -> None:
        """Make so many passes, and note the seconds of one."""
        self.start(passes)
        self.seconds.append(self.finish())

    def wait(self) -> None:
        """Until it is warm."""
        if self.ready:
            return
        if self.process.stdout.readline().strip() != "ready":
            self.process.wait()
            self.said.seek(0)
            last = (self.said.read().strip().splitlines() or ["it says nothing"])[-1]
            raise UserError(f"{self.name} did not start: {last}")
        self.ready = True

    def start(self, passes: int) -> None:
        self.wait()
        self.process.stdin.write(f"{passes}\n")
        self.process.stdin.flush()

    def finish(self) -> float:
        """Wait for the passes begun; the seconds of one."""
        seconds, self.peak = map(float, self.process.stdout.readline().split())
        return seconds

    def processor_time(self) -> float:
        """Seconds that its threads have run so far."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def ours(kind: str, folder: Path, batch: int, *flags: str) -> Worker:
    return Worker([sys.executable, "-m", "bench.torchcaffe_worker", kind, folder, batch, *flags])


def caffe(model: Path, weights: Path | None = None) -> Worker:
    train = "no" if weights else "yes"
    return Worker([realcaffe.find("pycaffe"), "-c", CAFFE, model, weights or "-", train])


def race(workers: dict[str, Worker], rounds: int, batch: int) -> None:
    """The rounds, then a line each: median, images a second, times the first, peak memory."""
    passes = max(1, 8 // batch)  # short ones several times: a turn is not all about waking up
    for worker in workers.values():
        worker.wait()
    for _ in range(rounds):
        for worker in workers.values():
            worker.ask(passes)
    medians = {name: statistics.median(worker.seconds) for name, worker in workers.items()}
    first = next(iter(medians.values()))
    for name, seconds in medians.items():
        print(
            f"{name:24} {1e3 * seconds:9.1f} ms {batch / seconds:8.2f} img/s "
            f"{first / seconds:6.2f}x {workers[name].peak:7.0f} MiB",
            flush=True,
        )
        workers[name].close()


def train_net(
    batch: int,
    name: str = "xs_resnet50",
    size: int = 224,
    width: int = 64,
    more: Sequence[str] = (),
) -> object:
    """A net for training, its databases replaced by numbers drawn in memory."""
    words = [name, "--input-size", str(size), "--width", str(width), *more]
    net = text.loads(generate(words), NetParameter)
    for layer in net.layer:
        if layer.type == "Data":
            images = layer.top[0] == "data"
            shape = [batch, 3, size, size] if images else [batch, 3, 1, 1]
            layer.type = "DummyData"
            layer.ClearField("data_param")
            layer.ClearField("transform_param")
            layer.dummy_data_param.shape.add(dim=shape)
            filler = {"type": "gaussian"} if images else {"type": "constant", "value": 1}
            layer.dummy_data_param.data_filler.add(**filler)
    return net


def write_solver(folder: Path, net: object) -> Path:
    """A solver of `net`, which lies beside it."""
    model = folder / "train.prototxt"
    model.write_text(text.dump(net))
    solver = folder / "solver.prototxt"
    solver.write_text(
        f'net: "{model}" base_lr: 0.0001 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0001\n'
        'type: "SGD" solver_mode: CPU snapshot_after_train: false'
    )
    return solver


def training(
    folder: Path, batch: int, rounds: int, compiled: bool, precisions: tuple[str, ...]
) -> None:
    solver = write_solver(folder, train_net(batch))
    how = ["compiled"] if compiled else []
    workers = {} if compiled else {"caffe": caffe(solver)}
    for precision in precisions:
        flags = [*how, "bf16"] if precision == "bf16" else how
        for who in ("by_hand", "engine"):
            workers[" ".join([who, precision, *how])] = ours(who, folder, batch, *flags)
    race(workers, rounds, batch)


def write_deploy(folder: Path, batch: int, words: Sequence[str] = ("xs_resnet50",)) -> None:
    """The deploy net, and weights for it."""
    import torch

    from torchcaffe.net import Net

    proto = text.loads(generate([*words, "--deploy"]), NetParameter)
    proto.layer[0].input_param.shape[0].dim[0] = batch
    (folder / "deploy.prototxt").write_text(text.dump(proto))
    net = Net(proto, TEST)
    for learned in net.learned:
        if net.layer_named(learned.name).param.type == "BatchNorm":
            torch.nn.init.ones_(learned.blob)
    (folder / "w.caffemodel").write_bytes(net.to_proto().SerializeToString())


def inference(folder: Path, batch: int, rounds: int) -> None:
    from torchcaffe import export

    write_deploy(folder, batch)
    loaded = export.load(folder / "deploy.prototxt", folder / "w.caffemodel")
    export.onnx(loaded, folder / "xs.onnx")
    workers = {"caffe": caffe(folder / "deploy.prototxt", folder / "w.caffemodel")}
    for kind in ("opencv", "onnxruntime", "folded", "packed"):
        workers[kind] = ours(kind, folder, batch)
    race(workers, rounds, batch)


def main() -> None:
    p = Parser("bench.torchcaffe_step", description=__doc__.splitlines()[0])
    p.add_argument("--infer", action="store_true")
    p.add_argument("--batch", type=COUNT, default=8)
    p.add_argument("--rounds", type=COUNT, default=7)
    p.add_argument("--compiled", action="store_true")
    p.add_argument("--precision", choices=["fp32", "bf16"], help="the default is both")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if args.infer:
            inference(Path(name), args.batch, args.rounds)
        else:
            precisions = (args.precision,) if args.precision else ("fp32", "bf16")
            training(Path(name), args.batch, args.rounds, args.compiled, precisions)


if __name__ == "__main__":
    main()
