"""A full-size run without the images: 384,258 small generated JPEGs through `data_prep run`.

    python -m bench.data_prep_full_size --labels vso/labels --work /tmp/full --kills 3

The ANPs are those of the class lists; image numbers an ANP vary around the
paper's mean of 695, as floor(0.8 n) has to cope with. A few files are
broken, a few are copies. The run is killed (SIGKILL) on the way as often as
--kills says and started again; printed are times, rates, peak memory and
sizes. Then `filter` and `split` alone, and `lmdb` for lists of 3,000 and of
300,000 images, to see whether an image costs more in a large database. The
folder is deleted at the end. About 5 GB of disk.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from data_prep.classes import Classes
from data_prep.folder import DataFolder
from xresnet.basics import bars
from xresnet.basics.cli import Parser
from xresnet.basics.numbers import COUNT, NATURAL, PIXELS

TOTAL = 384_258


def generate(root: Path, anps: tuple[str, ...], total: int) -> None:
    """`total` JPEGs of 32 x 32, every one different but for some copies."""
    rng = np.random.RandomState(0)
    share = rng.uniform(0.75, 1.25, len(anps))
    counts = np.floor(share / share.sum() * total).astype(int)
    counts[: total - counts.sum()] += 1
    noise = rng.randint(0, 256, (4096, 32, 32, 3)).astype(np.uint8)
    number = 0
    bar = bars.bar(what="generate", total=total, unit="img")
    for anp, count in zip(anps, counts):
        (root / anp).mkdir(parents=True)
        for i in range(count):
            number += 1
            which = number - (number % 997 == 3)  # now and then the same file once more
            picture = noise[which % 4096].copy()
            # What tells them apart lies at the end of the file, as in a photo.
            tens, ones = divmod(which >> 12, 10)
            picture[-8:, -16:-8], picture[-8:, -8:] = 25 * tens, 25 * ones
            data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 70])[1].tobytes()
            if number % 5003 == 7:
                data = b"<html>gone</html>"
            (root / anp / f"{i:05d}.jpg").write_bytes(data)
        bar.update(count)
    bar.close()


def run(command: list[str], seconds: float | None = None) -> tuple[int, float, float]:
    """Exit status, wall seconds, peak resident megabytes; killed after `seconds`."""
    start = time.monotonic()
    process = subprocess.Popen(command)
    if seconds is not None:
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, time.monotonic() - start, usage.ru_maxrss / 1024


def main() -> None:
    parser = Parser("bench.data_prep_full_size", description=__doc__)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--total", type=COUNT, default=TOTAL)
    parser.add_argument("--size", type=PIXELS, default=32)
    parser.add_argument("--kills", type=NATURAL, default=3)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()

    images, out = options.work / "images", options.work / "data"
    if not images.exists():
        generate(images, Classes.read(options.labels).anp, options.total)
    command = [sys.executable, "-m", "data_prep", "run", "--labels", options.labels]
    command += ["--images", str(images), "--out", str(out), "--size", str(options.size)]
    rng = random.Random(1)
    for _ in range(options.kills):
        status, seconds, peak = run(command, rng.uniform(8, 40))
        done = [path.name for path in out.glob("*_lmdb")] + [p.name for p in out.glob(".partial/*")]
        print(f"killed after {seconds:.1f} s ({status}), peak {peak:.0f} MB, there: {done}")
    status, seconds, peak = run(command)
    print(f"last run: status {status}, {seconds:.1f} s, peak {peak:.0f} MB")
    shutil.rmtree(out)
    status, seconds, peak = run(command)
    print(f"undisturbed: status {status}, {seconds:.1f} s, peak {peak:.0f} MB")
    for database in sorted(out.glob("*_lmdb")):
        print(f"{database.name}: {(database / 'data.mdb').stat().st_size / 1e6:,.0f} MB")
    shutil.rmtree(out)

    data_prep = [sys.executable, "-m", "data_prep"]
    place = ["--images", str(images), "--out", str(out)]
    for stage in (["filter", "--labels", options.labels], ["split"]):
        status, seconds, peak = run([*data_prep, *stage, *place])
        print(f"{stage[0]}: status {status}, {seconds:.1f} s, peak {peak:.0f} MB")
    lists = DataFolder(out)
    train = lists.list("train").read_text().splitlines(keepends=True)
    for count in (3_000, 300_000, 3_000, 300_000, 3_000):
        lists.list("train").write_text("".join(train[:count]))
        lists.list("test").write_text(train[-1])
        for old in out.glob("*_lmdb"):
            shutil.rmtree(old)
        os.sync()
        size = ["--size", str(options.size)]
        status, seconds, peak = run([*data_prep, "lmdb", *place, *size])
        each = seconds / min(count, len(train)) * 1e6
        print(f"lmdb, {count:,}: status {status}, {each:.0f} us an image, peak {peak:.0f} MB")
    if not options.keep:
        shutil.rmtree(options.work)


if __name__ == "__main__":
    main()
