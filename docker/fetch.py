"""Fetch Caffe's source from Debian: `python3 docker/fetch.py DIR` in the repository's root.

One file, checked against the SHA-256 in source.json, from realcaffe's mirrors: that of
$XRESNET_DEBIAN_MIRROR, the machine's own, or Debian's dated archive. Needs only Python's standard
library.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from xresnet.basics import cli  # noqa: E402
from xresnet.realcaffe import lock, mirrors  # noqa: E402
from xresnet.realcaffe.fetch import Fetcher  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    parser = cli.Parser("fetch", description="Fetch Caffe's source from Debian.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder to write to")
    folder = parser.parse_args(argv).folder
    locked = lock.read(HERE / "source.json")
    (path,) = Fetcher(mirrors.candidates(None, locked.snapshot), folder).fetch_all(locked.packages)
    print(path)
    return 0


if __name__ == "__main__":
    cli.run(main, "fetch")
