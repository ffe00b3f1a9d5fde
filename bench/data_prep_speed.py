"""`data_prep lmdb` beside convert_imageset and beside decoding alone, in interleaved rounds.

    python -m bench.data_prep_speed --images 3000 --rounds 5

Draws 500 x 375 JPEGs of about 94 KB (the size of VSO's), makes 224 x 224
databases of them with each program in turn, and prints the medians of the
rounds' ratios. "Decoding" reads the files and decodes them in as many
threads as there are cores, writing nothing: the limit for anything that
uses this decoder. The machine should be quiet: wall seconds and CPU seconds
are both printed, and far more wall than CPU over cores means that it is not.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from data_prep.classes import Classes
from data_prep.decode import decode
from data_prep.folder import DataFolder
from data_prep.lists import Entry, write_parts
from data_prep.parallel import default_threads
from data_prep.records import KEPT_BLOCK
from xresnet import realcaffe
from xresnet.basics import memory
from xresnet.basics.cli import Parser
from xresnet.basics.numbers import COUNT

CLASSES = Classes.of(["dark_moon", "tiny_star"])


def draw(root: Path, count: int) -> list[Entry]:
    """Soft shapes under grain, which compress like photos."""
    rng = np.random.RandomState(0)
    entries = []
    for anp in CLASSES.anp:
        (root / anp).mkdir(parents=True)
    for i in range(count):
        soft = rng.randint(0, 256, (9, 12, 3)).astype(np.uint8)
        picture = cv2.resize(soft, (500, 375), interpolation=cv2.INTER_CUBIC)
        grain = rng.randint(-30, 31, (375, 500, 1)).astype(np.int16)
        picture = np.clip(picture + grain, 0, 255).astype(np.uint8)
        data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 89])[1]
        entry = Entry(f"{CLASSES.anp[i % 2]}/{i}.jpg", i % 2)
        (root / entry.path).write_bytes(data.tobytes())
        entries.append(entry)
    return entries


def decode_all(paths: list[str]) -> None:
    memory.keep_freed(KEPT_BLOCK)
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(default_threads() - 1) as pool:
        for _ in pool.map(lambda path: decode(path) and None, paths, chunksize=16):
            pass


def timed(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = Parser("bench.data_prep_speed", description=__doc__)
    parser.add_argument("--images", type=COUNT, default=3000)
    parser.add_argument("--rounds", type=COUNT, default=5)
    parser.add_argument("--decode", nargs="?", help=argparse.SUPPRESS)  # one decoding run
    options = parser.parse_args()
    if options.decode:
        root = Path(options.decode)
        decode_all([str(path) for path in sorted(root.rglob("*.jpg"))])
        return

    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        images, folder = work / "images", DataFolder(work / "data")
        entries = draw(images, options.images)
        size = sum(path.stat().st_size for path in images.rglob("*.jpg")) / len(entries)
        CLASSES.write(folder.classes)
        folder.record("filter", {"classes": CLASSES.facts})
        # One image is the test part: the work is in the other.
        write_parts(folder, [entries, entries[:1]])
        convert = [
            str(realcaffe.find("convert_imageset")),
            "-resize_width",
            "224",
            "-resize_height",
            "224",
        ]
        ours = [sys.executable, "-m", "data_prep", "lmdb", "--fresh", "--images", str(images)]
        commands = {
            "convert_imageset": [
                *convert,
                f"{images}/",
                str(folder.list("train")),
                str(work / "reference"),
            ],
            "data_prep lmdb": [*ours, "--out", str(folder.root)],
            "decoding": [sys.executable, __file__, "--decode", str(images)],
        }
        print(f"{len(entries)} images of {size / 1000:.0f} KB, {default_threads() - 1} cores")
        rounds = []
        for _ in range(options.rounds):
            seconds = {}
            for name, command in commands.items():
                # Nobody pays for deleting an old database or for another's unwritten pages.
                for old in (work / "reference", *folder.root.glob("*_lmdb")):
                    shutil.rmtree(old, ignore_errors=True)
                os.sync()
                seconds[name] = timed(command)
            rounds.append({name: wall for name, (wall, _) in seconds.items()})
            told = (f"{n} {wall:.2f} s (CPU {cpu:.2f})" for n, (wall, cpu) in seconds.items())
            print(", ".join(told), flush=True)
        mine = [r["data_prep lmdb"] for r in rounds]
        times = statistics.median(r["convert_imageset"] / m for r, m in zip(rounds, mine))
        share = statistics.median(r["decoding"] / m for r, m in zip(rounds, mine))
        rate = len(entries) / statistics.median(mine)
        print(f"{rate:,.0f} img/s; {times:.2f} x convert_imageset; {share:.0%} of decoding alone")


if __name__ == "__main__":
    main()
