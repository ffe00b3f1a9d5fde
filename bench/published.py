"""Nets of your own files, with random weights, against real Caffe: agreement and speed.

    python -m bench.published [--batch N] DEPLOY.prototxt ...

Prints for each the largest difference of any output, relative to its largest number, and the
milliseconds of a pass forward, the median of five in turn. Both get the same weights: drawn for
signals that neither fade nor grow.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

import torchcaffe
from xresnet import realcaffe
from xresnet.basics import cli
from xresnet.basics.numbers import COUNT
from xresnet.caffeproto import TEST, NetParameter, text
from xresnet.caffeproto.upgrade import upgraded

CAFFE = """
import sys, time, numpy as np, caffe
model, weights, fed, out = sys.argv[1:]
net = caffe.Net(model, weights, caffe.TEST)
for name, array in np.load(fed).items():
    net.blobs[name].reshape(*array.shape)
    net.blobs[name].data[...] = array
spent = []
for i in range(6):
    start = time.time(); tops = net.forward(); spent.append(time.time() - start)
np.savez(out, seconds=sorted(spent[1:])[2], **{"top " + k: v for k, v in tops.items()})
"""


def draw(net: torchcaffe.Net) -> None:
    """Weights by layer type, from one seed."""
    import torch

    random = torch.Generator().manual_seed(0)
    for one in net.learned:
        blob, kind = one.blob.data, net.layer_named(one.name).param.type
        if kind == "BatchNorm":
            blob.fill_(0.0 if one.index == 0 else 1.0)
        elif blob.dim() > 1:
            blob.normal_(0, (2 / (blob.numel() / blob.shape[0])) ** 0.5, generator=random)
        else:
            blob.uniform_(0.5, 1, generator=random)


def compare(model: Path, batch: int | None, folder: Path) -> str:
    """A row of the table."""
    import torch

    # Before a last softmax: random scores are far apart, and behind it all but one of them gone.
    proto = upgraded(text.load(model, NetParameter))
    read = {bottom for layer in proto.layer for bottom in layer.bottom}
    last = [x for x in proto.layer if x.type == "Softmax" and x.top[0] not in read]
    for layer in last:
        proto.layer.remove(layer)
    headless = folder / "net.prototxt"
    headless.write_text(text.dump(proto))
    net = torchcaffe.Net(proto, TEST)
    draw(net)
    weights = folder / "w.caffemodel"
    weights.write_bytes(net.to_proto().SerializeToString())
    rng = np.random.default_rng(0)
    fed = {
        name: rng.normal(0, 50 if len(shape) == 4 else 1, (batch or shape[0], *shape[1:]))
        for name, shape in net.inputs.items()
    }
    fed = {name: array.astype(np.float32) for name, array in fed.items()}
    np.savez(folder / "fed.npz", **fed)
    command = [realcaffe.find("pycaffe"), "-c", CAFFE, headless, weights]
    subprocess.run(
        [*map(str, command), str(folder / "fed.npz"), str(folder / "out.npz")],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    caffe = np.load(folder / "out.npz")
    folded = torchcaffe.load(headless, weights)
    spent = []
    with torch.inference_mode():
        given = {name: torch.from_numpy(array) for name, array in fed.items()}
        tops = net(**given)
        for _ in range(6):
            start = perf_counter()
            folded(**given)
            spent.append(perf_counter() - start)
    worst = 0.0
    for name in net.outputs:
        wanted = caffe[f"top {name}"]
        worst = max(worst, np.abs(tops[name].numpy() - wanted).max() / np.abs(wanted).max())
    seconds = (float(caffe["seconds"]), statistics.median(spent[1:]))
    told = " | ".join(f"{1e3 * s:.1f}" for s in seconds)
    return f"| {model} | {worst:.1e} | {told} | {seconds[0] / seconds[1]:.2f} |"


def main(argv: list[str] | None = None) -> int:
    p = cli.Parser(prog="bench.published", description=__doc__.splitlines()[0])
    p.add_argument("models", nargs="+", type=Path, metavar="DEPLOY.prototxt")
    p.add_argument("--batch", type=COUNT, help="images; default: the file's own")
    args = p.parse_args(argv)
    print(
        "| net | largest difference | Caffe, ms | engine, ms | times |\n|---|---:|---:|---:|---:|"
    )
    for model in args.models:
        with tempfile.TemporaryDirectory() as name:
            print(compare(model, args.batch, Path(name)), flush=True)
    return 0


if __name__ == "__main__":
    cli.run(main, "bench.published")
