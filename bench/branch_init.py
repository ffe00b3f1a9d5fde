"""How far the branching point moves a pretrained net's outputs: --branch-init fold and fresh.

    python -m data_prep run --ontology ... --images ... --size 64 --out work/data
    python -m bench.branch_init --data work/data --work work/branch_init

Trains a small single-task ResNet with PyTorch, makes the initial weights of X0
(whose tasks nothing joins) and XS from it, and lets pycaffe compare, on the same
test images, each block's output behind the branch and the trained classifier's
answers with the single-task net's: in TEST, where running statistics count, and
in TRAIN, where the batch's do. docs/REPRODUCTION.md has the figures.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from netgen.command import generate
from netgen.weights.command import main as weights
from xresnet import realcaffe
from xresnet.basics.cli import Parser
from xresnet.basics.numbers import COUNT
from xresnet.caffeproto import caffemodel, databases
from xresnet.caffeproto.datum import parse_datum

BLOCKS, WIDTH, SIZE, BATCH = (1, 1, 1, 3), 16, 64, 96
MEAN = np.array([103.53, 116.28, 123.675], np.float32)[:, None, None]  # torchvision's, BGR
STD = 255 * np.array([0.225, 0.224, 0.229], np.float32)[:, None, None]

# Run by pycaffe: blobs and answers of each batch, in the phase asked for.
FORWARD = """
import sys, numpy as np, caffe
model, weights, phase, images, out, tail = sys.argv[1:]
found = {}
for batch in np.load(images):
    # A new net each time: a forward pass in TRAIN moves the running statistics.
    net = caffe.Net(model, weights, getattr(caffe, phase))
    net.blobs["data"].reshape(*batch.shape)
    net.blobs["data"].data[...] = batch
    net.forward()
    for name in ("res5a", "res5b", "res5c"):
        found.setdefault(name, []).append(net.blobs[name + tail].data.copy())
    found.setdefault("prob", []).append(net.blobs["prob_anp"].data.copy())
np.savez(out, **{name: np.concatenate(values) for name, values in found.items()})
"""


def main() -> None:
    p = Parser("bench.branch_init", description=__doc__.split("\n\n")[0])
    p.add_argument("--data", type=Path, required=True, help="LMDBs of data_prep, 64 x 64")
    p.add_argument("--work", type=Path, required=True)
    p.add_argument("--epochs", type=COUNT, default=8)
    p.add_argument("--batches", type=COUNT, default=8, help=f"to compare on, {BATCH} images each")
    args = p.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    classes = {t: lines(args.data / "classes" / f"{t}.txt") for t in ("adj", "anp", "noun")}
    shape = ["--tasks", ",".join(f"{task}:{count}" for task, count in classes.items())]
    shape += ["--width", str(WIDTH), "--blocks", ",".join(map(str, BLOCKS))]
    shape += ["--input-size", str(SIZE), "--stride-in", "3x3", "--pool1", "padded"]
    trained = args.work / "trained.pth"
    if not trained.exists():
        train(args.data, classes["anp"], args.epochs, trained)
    single = with_classifier(args.work, shape, trained)
    images, labels = records(args.data / "test_image_lmdb")
    labels = labels[: args.batches * BATCH]
    images = images[: len(labels)].astype(np.float32) - MEAN
    np.save(args.work / "images.npy", images.reshape(args.batches, BATCH, 3, SIZE, SIZE))

    def outputs(name: str, net: list[str], file: Path, phase: str) -> dict[str, np.ndarray]:
        model, out = args.work / f"{name}.prototxt", args.work / f"{name}.npz"
        model.write_text(generate([*net, *shape, "--deploy"]))
        command = [realcaffe.find("pycaffe"), "-c", FORWARD, model, file, phase]
        run(*command, args.work / "images.npy", out, "" if name == "single" else "_anp")
        return dict(np.load(out))

    print(f"{'net':20} {'phase':5} moved: {'res5a':>7} {'res5b':>8} {'res5c':>8} {'same':>6} right")
    before = {}
    for phase in ("TEST", "TRAIN"):
        before[phase] = outputs("single", ["resnet50", "--task", "anp"], single, phase)
        line("pretrained", phase, before[phase], before["TEST"], labels)
        for norm in ("both", "branch2c"):
            for net in ("x0_resnet50", "xs_resnet50"):
                for how in ("fold", "fresh"):
                    argv = [net, "--branch-norm", norm]
                    file = args.work / f"{net}_{norm}_{how}.caffemodel"
                    more = ["--from", str(single), "--out", str(file), "--branch-init", how]
                    with contextlib.redirect_stdout(io.StringIO()):
                        weights(["init", *argv, *shape, *more])
                    after = outputs(f"{net}_{norm}_{how}", argv, file, phase)
                    name = f"{net.split('_')[0]} {norm} {how}"
                    line(name, phase, after, before[phase], labels)


def line(name: str, phase: str, after: dict, before: dict, labels: np.ndarray) -> None:
    """One row: how far each block's output is from what it was, relative; answers."""
    moved = [
        np.linalg.norm(after[block] - before[block]) / np.linalg.norm(before[block])
        for block in ("res5a", "res5b", "res5c")
    ]
    answers = after["prob"].argmax(1)
    same, right = (answers == before["prob"].argmax(1)).mean(), (answers == labels).mean()
    figures = " ".join(f"{value:8.2g}" for value in moved)
    print(f"{name:20} {phase:5} {'':6}{figures} {same:6.1%} {right:.1%}", flush=True)


def train(data: Path, classes: int, epochs: int, out: Path) -> None:
    """A ResNet trained with random flips, its running statistics then true averages.

    So are those of the published weights (Kaiming He's note on them).
    """
    import torch
    from torch import nn

    from bench.torch_resnet import ResNet

    torch.manual_seed(0)
    images, labels = (torch.tensor(array) for array in records(data / "train_image_lmdb"))
    net = ResNet(BLOCKS, WIDTH, classes)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    steps = len(images) // 128
    sgd = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(sgd, 0.1, total_steps=epochs * steps)

    def batch(i: torch.Tensor) -> torch.Tensor:
        x = ((images[i].float() - torch.tensor(MEAN)) / torch.tensor(STD)).flip(1)  # to RGB
        flipped = torch.rand(len(i)) < 0.5
        x[flipped] = x[flipped].flip(3)
        return x

    for epoch in range(epochs):
        order, total = torch.randperm(len(images)), 0.0
        for i in order[: steps * 128].split(128):
            loss = nn.functional.cross_entropy(net(batch(i)), labels[i])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            schedule.step()
            total += loss.item() / steps
        print(f"epoch {epoch}: loss {total:.3f}", file=sys.stderr, flush=True)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        for _ in range(100):
            net(batch(torch.randint(len(images), (128,))))
    torch.save(net.state_dict(), out)


def with_classifier(work: Path, shape: list[str], trained: Path) -> Path:
    """The single-task net's .caffemodel with the trained classifier, which init leaves out."""
    import torch

    path = work / "single.caffemodel"
    with contextlib.redirect_stdout(io.StringIO()):
        files = ["--from", str(trained), "--out", str(path)]
        weights(["init", "resnet50", "--task", "anp", *shape, *files])
    state = torch.load(trained)
    blobs = (state["fc.weight"].numpy(), state["fc.bias"].numpy())
    layers = [*caffemodel.load(path), caffemodel.Layer("fc_anp", "InnerProduct", blobs)]
    caffemodel.save(path, "single", layers)
    return path


def records(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """All images of a database, N x 3 x H x W in BGR, and their labels."""
    data = [parse_datum(record) for _, record in databases.items(path)]
    return np.stack([datum.array() for datum in data]), np.array([datum.label for datum in data])


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def run(*command: object) -> None:
    quiet = {**os.environ, "GLOG_minloglevel": "2"}
    ran = subprocess.run([*map(str, command)], capture_output=True, text=True, env=quiet)
    if ran.returncode:
        sys.exit(ran.stderr[-2000:])


if __name__ == "__main__":
    main()
