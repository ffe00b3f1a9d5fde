"""The data path alone: images a second from an LMDB to float tensors, as XS trains on them.

    python -m bench.torchcaffe_data [--batches 40] [--encoded]

Raw 224 x 224 records of random pixels (or JPEG with --encoded) are written first, then read
by the engine's two Data layers, flipped and freed of their mean, and thrown away. Best and
median over five stretches of so many batches of 24.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import torch

from data_prep.lmdb_writer import Writer
from netgen.command import generate
from torchcaffe.data import Feed
from xresnet.basics import memory
from xresnet.basics.cli import Parser
from xresnet.basics.numbers import COUNT
from xresnet.caffeproto import TRAIN, NetParameter, text
from xresnet.caffeproto.datum import encoded_datum, image_datum, label_datum

BATCH, RECORDS, STRETCHES = 24, 480, 5


def write(folder: Path, encoded: bool) -> None:
    """Databases as data_prep lays them out; JPEGs of blurred noise, about 20 KB each."""
    rng = np.random.default_rng(0)
    places = (folder / f"train_{kind}_lmdb" for kind in ("image", "label"))
    images, labels = map(Writer, places)
    with images, labels:
        for i in range(RECORDS):
            name = f"{i:08d}".encode()
            pixels = rng.integers(0, 256, (224, 224, 3), np.uint8)
            if encoded:
                jpeg = cv2.imencode(".jpg", cv2.GaussianBlur(pixels, (5, 5), 0))[1]
                images.put(name, encoded_datum(jpeg.tobytes(), 0))
            else:
                images.put(name, image_datum(pixels, 0)[0])
            labels.put(name, label_datum([1, 2, 3]))
        for writer in (images, labels):
            writer.commit(last=True)


def main() -> None:
    p = Parser("bench.torchcaffe_data", description=__doc__.splitlines()[0])
    p.add_argument("--batches", type=COUNT, default=40)
    p.add_argument("--encoded", action="store_true")
    args = p.parse_args()
    memory.keep_freed()
    torch.set_num_threads(2)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), args.encoded)
        words = ["xs_resnet50", "--data", name, "--batch", str(BATCH)]
        net = text.loads(generate(words), NetParameter)
        train = [
            one for one in net.layer if one.type == "Data" and "train_" in one.data_param.source
        ]
        for layer in train:
            layer.phase = TRAIN
        feeds = [Feed(layer) for layer in train]
        rates = []
        for _ in range(STRETCHES):
            start = perf_counter()
            for _ in range(args.batches):
                for feed in feeds:
                    feed.next()
            rates.append(args.batches * BATCH / (perf_counter() - start))
        for feed in feeds:
            feed.close()
    kind = "JPEG" if args.encoded else "raw"
    print(f"{kind}: {statistics.median(rates):.0f} images/s, best {max(rates):.0f}")


if __name__ == "__main__":
    main()
