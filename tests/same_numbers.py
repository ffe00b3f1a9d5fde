"""Whether two builds of Caffe, or one on a CPU and on a GPU, compute the same numbers.

    python -m tests.same_numbers --pycaffe PREFIX/bin/pycaffe            against the one here
    python -m tests.same_numbers --pycaffe PREFIX/bin/pycaffe --gpu 0    against its own CPU

For each net: the same weights and inputs in both; all outputs, the gradient of the image
and that of every parameter are compared, by the largest difference over the largest value
of a blob. One line a net; exit status 1 if any is beyond the limit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from netgen.catalog import CATALOG
from tests.netgen.test_joints_caffe import train_net
from xresnet import realcaffe
from xresnet.caffeproto import text

LIMIT = 1e-5
SMALL = ["--tasks", "adj:3,anp:7,noun:5", "--width", "8"]

# Run by pycaffe: writes (made by numpy, which no Caffe has a part in) or takes the weights,
# then one forward and one backward pass in TRAIN. Dropout and the order of random numbers
# differ between CPU and GPU: its ratio is 0 in the nets that come here.
PASS = """
import sys, numpy as np, caffe
model, out, gpu = sys.argv[1:]
if gpu != "none":
    caffe.set_device(int(gpu))
    caffe.set_mode_gpu()
net = caffe.Net(model, caffe.TRAIN)
rng = np.random.RandomState(0)
for name, blobs in net.params.items():
    kind = net.layers[list(net._layer_names).index(name)].type
    for i, blob in enumerate(blobs):
        shape = blob.data.shape
        if kind == "BatchNorm":
            continue  # its averages are no weights; in TRAIN it takes the batch's
        if kind == "Scale":
            blob.data[...] = rng.uniform(0.5, 1, shape) if i == 0 else rng.uniform(-0.2, 0.2, shape)
        else:
            fan = max(1, int(np.prod(shape[1:])))  # no larger: a softmax must not saturate
            blob.data[...] = rng.normal(0, (2.0 / fan) ** 0.5 if i == 0 else 0.1, shape)
for name in [n for n in net.blobs if n == "data" or n.startswith("label")]:
    shape = net.blobs[name].data.shape
    drawn = rng.randint(0, 3, shape) if name != "data" else rng.normal(0, 1, shape)
    net.blobs[name].data[...] = drawn
found = dict(("out " + k, v.copy()) for k, v in net.forward().items())
net.backward()
for name, blobs in net.params.items():
    for i, blob in enumerate(blobs):
        found["grad %s %d" % (name, i)] = blob.diff.copy()
np.savez(out, **found)
"""


def small_nets() -> dict[str, list[str]]:
    """Every net of the catalog that trains, in a size at which each takes a second or two."""
    nets = {}
    for name, entry in CATALOG.items():
        if name == "deepsentibank":  # published for inference only; it is caffenet
            continue
        single = ["--task", "anp"] if entry.single_task else []
        tasks = SMALL[:2]
        if "tasks" in entry.defaults:
            nets[name] = [name, *SMALL[2:], "--input-size", "64"]
            continue
        nets[name] = [name, *single, *(SMALL if "resnet" in name else tasks)]
        if "resnet" in name:
            nets[name] += ["--input-size", "64"]
    return nets


def without_dropout(argv: list[str], batch: int) -> str:
    net = train_net(argv, batch=batch)
    for layer in net.layer:
        if layer.type == "Dropout":
            layer.dropout_param.dropout_ratio = 0
        # The label's slice of a single task; databases are Input layers here.
    return text.dump(net)


def numbers(pycaffe: Path, model: Path, out: Path, gpu: str) -> dict[str, np.ndarray]:
    """Outputs and gradients of one pass."""
    command = [pycaffe, "-c", PASS, model, out, gpu]
    ran = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"{pycaffe}: {ran.stderr.strip()[-2000:]}")
    with np.load(out) as found:
        return {name: found[name] for name in found.files}


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference over the largest value.

    A gradient that is nought but for rounding (a bias before a BatchNorm) has no scale of
    its own: 1e-3 is it then.
    """
    assert np.isfinite(ours).all() and np.isfinite(theirs).all()
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-3))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--pycaffe", type=Path, required=True, help="of the build to be held")
    parser.add_argument("--reference", type=Path, help="the other's: realcaffe's, or the same")
    parser.add_argument("--gpu", default="none", metavar="N", help="where the first one runs")
    parser.add_argument("--nets", help="names from `netgen --list`, at full size: all, small")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--limit", type=float, default=LIMIT)
    parser.add_argument("--out", type=Path, help="a folder that keeps nets and numbers")
    args = parser.parse_args(argv)
    same = args.pycaffe if args.gpu != "none" else realcaffe.find("pycaffe")
    reference = args.reference or same
    nets = {n: [n] for n in args.nets.split(",")} if args.nets else small_nets()

    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name, options in nets.items():
            model = folder / f"{name}.same.prototxt"
            model.write_text(without_dropout(options, args.batch))
            ours = numbers(args.pycaffe, model, folder / f"{name}.ours.npz", args.gpu)
            theirs = numbers(reference, model, folder / f"{name}.theirs.npz", "none")
            assert ours.keys() == theirs.keys()
            by_blob = {blob: difference(ours[blob], theirs[blob]) for blob in ours}
            at = max(by_blob, key=by_blob.__getitem__)
            worst = max(worst, by_blob[at])
            outputs = max(value for blob, value in by_blob.items() if blob.startswith("out "))
            count = f"{len(by_blob)} blobs"
            print(f"{name:<22}{count:>11}  outputs {outputs:.1e}  all {by_blob[at]:.1e}  ({at})")
    print(f"largest relative difference of {len(nets)} nets: {worst:.1e} (limit {args.limit:g})")
    return int(worst > args.limit)


if __name__ == "__main__":
    sys.exit(main())
