"""How long one takes to generate XS-ResNet-50: netgen against pycaffe's NetSpec.

    python -m bench.netgen_speed [--runs 11]

Whole processes, start-up included, in turn; the second figure is of the pair's
ratio, so that a machine that slows down slows both. Before that the two nets
are held to be the same, layer by layer.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from xresnet import realcaffe
from xresnet.basics.cli import Parser
from xresnet.basics.numbers import COUNT
from xresnet.caffeproto import NetParameter, text

HERE = Path(__file__).parent


def main() -> None:
    parser = Parser("bench.netgen_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=COUNT, default=11, help="pairs of runs (11)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    ours = [sys.executable, "-m", "netgen", "xs_resnet50"]
    peer = [str(realcaffe.find("pycaffe")), str(HERE / "netspec_xs.py")]
    same(ours, peer)
    pairs = [(timed(ours), timed(peer)) for _ in range(args.runs)]
    result = {
        "netgen_seconds": statistics.median(a for a, _ in pairs),
        "netspec_seconds": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(b / a for a, b in pairs),
        "ratios": [min(b / a for a, b in pairs), max(b / a for a, b in pairs)],
        "pairs": len(pairs),
    }
    if args.json:
        print(json.dumps(result))
        return
    print(f"median of {len(pairs)} pairs of processes, CPU seconds:")
    print(f"  netgen   {result['netgen_seconds']:.3f}")
    print(f"  NetSpec  {result['netspec_seconds']:.3f}")
    low, high = result["ratios"]
    print(f"NetSpec / netgen: {result['ratio']:.1f}x ({low:.1f} to {high:.1f})")


def run(command: list[str]) -> str:
    quiet = {**os.environ, "GLOG_minloglevel": "2"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=quiet).stdout


def timed(command: list[str]) -> float:
    """User and system seconds of the whole process."""
    before = os.times()
    run(command)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def same(ours: list[str], peer: list[str]) -> None:
    """Fail where the two nets differ, but for the order of layers and what the peer cannot say."""
    found = [text.loads(run(command), NetParameter) for command in (ours, peer)]
    first, second = (sorted(map(canonical, net.layer)) for net in found)
    assert first == second, [pair for pair in zip(first, second) if pair[0] != pair[1]][:3]


def canonical(layer) -> str:
    """The layer's text; NetSpec cannot give two layers one top, so TEST's end in _test there."""
    return text.dump(layer).replace('_test"', '"')


if __name__ == "__main__":
    start = time.monotonic()
    main()
    print(f"({time.monotonic() - start:.0f} s)", file=sys.stderr)
