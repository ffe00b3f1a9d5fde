"""How far the multitask nets stand from ImageNet's ResNet-50 before they have learned anything.

    python -m bench.imagenet_start --work work/start

At full size, in real Caffe, in the TEST phase, on scikit-image's photographs: how far res5c of
each arm of the study is from the published net's, relative, how many times as large the pooled
features are (root mean square), and what the published classifier makes of them: the
probability that it gives to its first answer, and its answer then. Cross weights
start at random, so several seeds. docs/REPRODUCTION.md and docs/RESULTS.md have the figures.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
from pathlib import Path

import cv2
import numpy as np
import skimage

import netgen
from netgen.command import generate
from netgen.weights.command import main as weights
from xresnet import realcaffe
from xresnet.basics.cli import Parser
from xresnet.caffeproto import caffemodel
from xresnet.reproduce.forward import softmax

PHOTOGRAPHS = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png", "motorcycle_left.png")
MEAN = np.array([103.939, 116.779, 123.68], np.float32)
SEEDS = (1, 2, 3, 4, 5)
ARMS = {
    "X0": ["x0_resnet50"],
    "XI": ["xi_resnet50"],
    "XI, mean": ["xi_resnet50", "--shortcut-factor", "mean"],
    "XS": ["xs_resnet50"],
    "self": ["xself_resnet50"],
}

# Run by pycaffe: blobs of a net, whose weights without a source start from this seed.
FORWARD = """
import sys, numpy as np, caffe
model, weights, seed, images, out = sys.argv[1:6]
caffe.set_random_seed(int(seed))
net = caffe.Net(model, weights, caffe.TEST)
images = np.load(images)
net.blobs["data"].reshape(*images.shape)
net.blobs["data"].data[...] = images
net.forward()
np.savez(out, **{name: net.blobs[name].data for name in sys.argv[6:]})
"""


def main() -> None:
    p = Parser("bench.imagenet_start", description=__doc__.split("\n\n")[0])
    p.add_argument("--work", type=Path, required=True)
    args = p.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    published = args.work / "published.caffemodel"
    quietly("fetch", "resnet50", "--out", str(published))
    names = Path(netgen.__file__).with_name("imagenet_classes.txt").read_text().split()
    kernel, bias = next(x for x in caffemodel.load(published) if x.name == "fc1000").blobs
    np.save(args.work / "images.npy", np.stack([photograph(name) for name in PHOTOGRAPHS]))

    def answers(blob: np.ndarray) -> np.ndarray:
        return softmax(blob.mean((2, 3)) @ kernel.T + bias)

    before = forward(args.work, ["resnet50_imagenet"], published, 1, "res5c", "prob_imagenet")
    prob = before["prob_imagenet"]
    agree = np.abs(answers(before["res5c"]) - prob).max()
    assert agree < 1e-4, f"NumPy's classifier differs from Caffe's by {agree}"
    first = prob.argmax(1)
    print("published: " + ", ".join(f"{names[c]} {p[c]:.3f}" for c, p in zip(first, prob)))
    tasks = ("adj", "anp", "noun")
    size = np.sqrt((before["res5c"].mean((2, 3)) ** 2).mean())
    for arm, net in ARMS.items():
        start = args.work / "start.caffemodel"
        quietly("init", net[0], "--from", str(published), "--out", str(start))
        for seed in SEEDS if arm in ("XS", "self") else SEEDS[:1]:
            after = forward(args.work, net, start, seed, *(f"res5c_{task}" for task in tasks))
            for task, blob in zip(tasks, after.values()):
                moved = np.linalg.norm(blob - before["res5c"]) / np.linalg.norm(before["res5c"])
                most = np.abs(blob - before["res5c"]).max() / np.abs(before["res5c"]).max()
                grown = np.sqrt((blob.mean((2, 3)) ** 2).mean()) / size
                now = answers(blob)
                told = ", ".join(
                    f"{p[c]:.3f}" + ("" if p.argmax() == c else f" (now {names[p.argmax()]})")
                    for c, p in zip(first, now)
                )
                print(
                    f"{arm} seed {seed} {task:4}: moved {moved:.2g}, at most {most:.2g} of the "
                    f"largest, pooled {grown:.2f} times as large; {told}",
                    flush=True,
                )


def photograph(name: str) -> np.ndarray:
    """3 x 224 x 224, BGR less the mean, resized as data_prep resizes."""
    pixels = cv2.imread(str(Path(skimage.__file__).parent / "data" / name))
    return (cv2.resize(pixels, (224, 224)) - MEAN).transpose(2, 0, 1)


def forward(
    work: Path, net: list[str], start: Path, seed: int, *blobs: str
) -> dict[str, np.ndarray]:
    """Blobs of a deploy net in real Caffe."""
    model, out = work / "net.prototxt", work / "blobs.npz"
    model.write_text(generate([*net, "--deploy"]))
    command = [realcaffe.find("pycaffe"), "-c", FORWARD, model, start, seed]
    command += [work / "images.npy", out, *blobs]
    subprocess.run(list(map(str, command)), check=True, stderr=subprocess.DEVNULL)
    return dict(np.load(out))


def quietly(*argv: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        weights(list(argv))


if __name__ == "__main__":
    main()
