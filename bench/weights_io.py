"""Reading and writing a .caffemodel of 100 MB, beside protobuf's own messages in the same run.

    python -m bench.weights_io

Each of five interleaved rounds runs in processes of their own; printed are
the medians, the ratio to protobuf and the peak memory as a multiple of the
file, what the interpreter and its modules take before the file not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from xresnet.basics.cli import Parser

ROUNDS = 5
# ResNet-50's size: a hundred megabytes in layers of many sizes.
SIZES = [64 * 147, *[64 * 1024, 256 * 1024] * 16, *[2048 * 512] * 16, *[2048] * 60, 2_000_000]


def read_ours(path: str) -> float:
    from xresnet.caffeproto import caffemodel

    def work() -> object:
        return caffemodel.load(path)

    return timed(work)


def read_protobuf(path: str) -> float:
    """Arrays from protobuf's messages: as quick as it goes there."""
    import numpy as np

    from xresnet.caffeproto import NetParameter

    def work() -> object:
        net = NetParameter.FromString(Path(path).read_bytes())
        return {x.name: [np.array(b.data, np.float32) for b in x.blobs] for x in net.layer}

    return timed(work)


def show_ours(path: str) -> float:
    """Reading, and a pass over all numbers besides: `netgen.weights show`."""
    from netgen.weights import command

    return timed(lambda: command.show(path, False))


def write_ours(path: str) -> float:
    from xresnet.caffeproto import caffemodel

    layers = caffemodel.load(path)
    return timed(lambda: caffemodel.save(f"{path}.out", "net", layers))


def write_protobuf(path: str) -> float:
    from xresnet.basics import files
    from xresnet.caffeproto import NetParameter, caffemodel

    layers = caffemodel.load(path)

    def work() -> object:
        net = NetParameter(name="net")
        for layer in layers:
            added = net.layer.add(name=layer.name, type=layer.kind)
            for blob in layer.blobs:
                added.blobs.add(shape={"dim": blob.shape}, data=blob.ravel())
        return files.write(f"{path}.out", net.SerializeToString())

    return timed(work)


CASES = [
    ("read", read_ours, read_protobuf),
    ("show", show_ours, None),
    ("write, synced", write_ours, write_protobuf),
]


def timed(work) -> float:
    """Seconds, and on stdout the memory that came on top of what was there."""
    before = peak()
    start = time.perf_counter()
    kept = work()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "memory": peak() - before}))
    del kept
    return seconds


def peak() -> int:
    """Bytes; ru_maxrss would count the parent's, whose memory a child is born with."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main() -> None:
    p = Parser("bench.weights_io", description=__doc__.split("\n\n")[0])
    p.add_argument("--case", help=argparse.SUPPRESS)
    p.add_argument("--path", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.case:
        globals()[args.case](args.path)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = make(Path(folder) / "w.caffemodel")
        size = Path(path).stat().st_size
        print(f"{size / 1e6:.1f} MB, {len(SIZES)} layers, {ROUNDS} rounds")
        results: dict[str, list[dict]] = {}
        for _ in range(ROUNDS):
            for _, *calls in CASES:
                for call in filter(None, calls):
                    results.setdefault(call.__name__, []).append(measure(call.__name__, path))
        print(f"{'':14} {'ours':>8} {'memory':>8} {'protobuf':>10} {'memory':>8} {'ratio':>7}")
        for title, ours, theirs in CASES:
            line = f"{title:14} {row(results[ours.__name__], size)}"
            if theirs:
                ratio = median(results, theirs, "seconds") / median(results, ours, "seconds")
                line += f"  {row(results[theirs.__name__], size)} {ratio:6.1f}x"
            print(line)


def make(path: Path) -> str:
    """A file of random numbers, SIZES to a layer."""
    import numpy as np

    from xresnet.caffeproto import caffemodel

    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(size, np.float32) for size in SIZES]
    layers = [caffemodel.Layer(f"l{i}", "Convolution", (a,)) for i, a in enumerate(arrays)]
    caffemodel.save(path, "net", layers)
    return str(path)


def measure(case: str, path: str) -> dict:
    command = [sys.executable, "-m", "bench.weights_io", "--case", case, "--path", path]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def median(results: dict, call, what: str) -> float:
    return statistics.median(found[what] for found in results[call.__name__])


def row(found: list[dict], size: int) -> str:
    seconds = statistics.median(x["seconds"] for x in found)
    memory = statistics.median(x["memory"] for x in found) / size
    return f"{seconds:7.3f}s {memory:7.2f}x"


if __name__ == "__main__":
    main()
