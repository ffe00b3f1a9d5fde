"""Download the images of a list of addresses with img2dataset.

img2dataset downloads shards of the list, with processes of one machine or a Spark or Ray
cluster, and a rerun skips finished shards. Each file is then checked here, because servers
answer for a lost image in many ways: an error, an HTML page, a GIF, a small placeholder that is
the same for all. Images are linked to `OUT/<adj_noun>/<hash>.jpg`; everything else is listed in
`OUT/rejected.csv` with its reason.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.decode import Unreadable, decode
from data_prep.folder import DataFolder
from data_prep.parallel import default_threads, ordered
from data_prep.spreadsheet import table
from data_prep.urls import read_urls
from xresnet.basics import bars
from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike, replacing, write
from xresnet.basics.numbers import COUNT, NATURAL, PROCESSES, THREADS, TRIES, WAIT

DISTRIBUTORS = {"multiprocessing": "", "pyspark": "pyspark", "ray": "ray"}  # name -> package
MIN_BYTES = 2052  # Flickr's answer for a deleted photo has 2,051 bytes; no photo is as small
PLACEHOLDER = 5  # addresses; the same bytes at as many are nobody's photo


class Fetched(NamedTuple):
    """An address and its file with the SHA-256, or the error."""

    anp: str
    url: str
    expected: str
    path: Path | None
    sha256: str
    error: str


@dataclass(frozen=True)
class Downloaded:
    """The result of `download`. `facts`: the number of addresses and of images, how many were
    rejected for which reason, and the settings of img2dataset."""

    folder: Path
    facts: dict[str, Any]


def download(
    urls: PathLike,
    out: PathLike,
    *,
    distributor: str = "multiprocessing",
    cluster: str = "",
    processes: int = 2,
    threads: int = 16,
    timeout: int = 20,
    retries: int = 2,
    per_shard: int = 1000,
    min_bytes: int = MIN_BYTES,
) -> Downloaded:
    """Download the images that `urls` lists into `out`; an interrupted run is resumed.

    Args:
        urls: the list of addresses; see `urls.read_urls`.
        out: the folder for the ANP folders, downloaded.csv and rejected.csv.
        distributor: "multiprocessing", "pyspark" or "ray".
        cluster: the Spark master or Ray address; "" is this machine.
        processes: parallel download processes.
        threads: connections per process.
        timeout: seconds until a request fails.
        retries: how often a failed request is repeated.
        per_shard: addresses per shard.
        min_bytes: smaller files count as placeholders.

    Raises:
        UserError: the list is invalid, img2dataset is not installed or fails, or `out` cannot
            be written.
    """
    if distributor not in DISTRIBUTORS:
        raise UserError(f"distributor: expected {', '.join(DISTRIBUTORS)}, not {distributor!r}")
    numbers = {
        "processes": PROCESSES.check(processes, "processes"),
        "threads": THREADS.check(threads, "threads"),
        "timeout": WAIT.check(timeout, "timeout"),
        "retries": TRIES.check(retries, "retries"),
        "per_shard": COUNT.check(per_shard, "per_shard"),
    }
    NATURAL.check(min_bytes, "min_bytes")
    engine = {"distributor": distributor, "cluster": cluster, **numbers}
    out = Path(out)
    _check_installed(distributor)
    with DataFolder(out).lock():
        try:
            shards, total = _prepare(urls, out / ".download", per_shard)
            _fetch(shards, total, engine)
            rejected = _keep_images(shards, out, total, min_bytes)
        except OSError as error:
            place = error.filename2 or error.filename or out
            raise UserError(f"cannot write {place}: {error.strerror or error}") from error
    reasons = Counter(reason.partition(":")[0] for _, _, reason in rejected)
    facts = {
        "addresses": total,
        "images": total - len(rejected),
        "rejected": dict(reasons.most_common()),
        "engine": engine,
    }
    return Downloaded(out, facts)


def _check_installed(distributor: str) -> None:
    for package in ("img2dataset", DISTRIBUTORS[distributor]):
        if package and importlib.util.find_spec(package) is None:
            extra = "download" if package == "img2dataset" else package
            raise UserError(f"{package} is not installed: pip install 'xresnet-caffe[{extra}]'")


def _prepare(addresses: PathLike, work: Path, per_shard: int) -> tuple[Path, int]:
    """Write the list as img2dataset reads it; returns its folder, named by a hash of the list,
    and the number of addresses."""
    text, total = io.StringIO(), 0
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["anp", "expected", "url"])
    for url in bars.bar(read_urls(addresses), "addresses", unit="url"):
        rows.writerow([url.anp, url.sha256, url.url])
        total += 1
    data = text.getvalue().encode()
    name = hashlib.sha256(data + b"%d" % per_shard).hexdigest()[:16]
    folder = work / name
    if not (folder / "urls.csv").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / "urls.csv", data)
    return folder, total


def _fetch(folder: Path, total: int, engine: dict[str, Any]) -> None:
    """Run img2dataset in a process of its own, since it takes over signals and prints a lot."""
    job = json.dumps({"folder": str(folder.resolve()), **engine})
    log = folder / "log.txt"
    with log.open("ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "data_prep.fetch_shards", job],
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            with bars.bar(what="download", total=total, unit="img") as bar:
                while process.poll() is None:
                    bar.update(_counted(folder) - bar.n)
                    time.sleep(0.5)
                bar.update(_counted(folder) - bar.n)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    missing = total - _counted(folder)
    if process.returncode or missing:
        why = re.findall(r"^\w+(?:Error|Exception): .*", log.read_text(errors="replace"), re.M)
        raise UserError(
            f"img2dataset stopped with status {process.returncode}, {missing:,} addresses not "
            f"tried{': ' if why else ''}{''.join(why[:1])[:200]} (see {log}); the same command "
            "goes on there"
        )


def _counted(folder: Path) -> int:
    count = 0
    for path in folder.glob("shards/*_stats.json"):
        try:
            count += json.loads(path.read_text())["count"]
        except (ValueError, LookupError, TypeError):  # being written at this moment
            continue
    return count


def _fetched(folder: Path) -> Iterator[Fetched]:
    """The results in the shards, in the list's order."""
    import pyarrow.parquet as parquet  # comes with img2dataset

    columns = ["key", "anp", "url", "expected", "status", "error_message", "sha256"]
    for path in sorted(folder.glob("shards/*.parquet")):
        rows = parquet.read_table(path, columns=columns).to_pylist()
        for row in sorted(rows, key=lambda row: row["key"]):
            good = row["status"] == "success"
            yield Fetched(
                row["anp"],
                row["url"],
                row["expected"] or "",
                path.with_suffix("") / f"{row['key']}.jpg" if good else None,
                row["sha256"] or "",
                row["error_message"] or "",
            )


def _keep_images(folder: Path, out: Path, total: int, min_bytes: int) -> list[tuple[str, str, str]]:
    """Link each image to its place in `out`; returns (ANP, address, reason) of the rest."""
    seen = Counter(fetched.sha256 for fetched in _fetched(folder) if fetched.sha256)
    first: dict[tuple[str, str], str] = {}  # (ANP, hash) -> the address that it came from first
    rejected: list[tuple[str, str, str]] = []
    kept: list[tuple[str, str, str]] = []

    def check(fetched: Fetched) -> tuple[Fetched, str]:
        return fetched, _why_rejected(fetched, seen, min_bytes)

    checked = ordered(check, _fetched(folder), default_threads())
    for fetched, reason in bars.bar(checked, "check", total, unit="img"):
        place = (fetched.anp, fetched.sha256)
        if not reason and first.setdefault(place, fetched.url) != fetched.url:
            reason = f"duplicate: of {first[place]}"
        if reason:
            rejected.append((fetched.anp, fetched.url, reason))
            continue
        final = out / fetched.anp / f"{fetched.sha256[:24]}.jpg"
        if not final.exists():
            final.parent.mkdir(exist_ok=True)
            _link(fetched.path, final)
        kept.append((fetched.anp, fetched.url, fetched.sha256))
    write(out / "downloaded.csv", table(("anp", "url", "sha256"), kept))
    write(out / "rejected.csv", table(("anp", "url", "reason"), rejected))
    return rejected


def _link(source: Path, target: Path) -> None:
    """Hard-link a file, which takes no disk space, or copy it where links are not supported."""
    try:
        os.link(source, target)
    except FileExistsError:  # a link to nothing: no file of ours
        raise
    except OSError:
        with source.open("rb") as whole, replacing(target, sync=False) as file:
            shutil.copyfileobj(whole, file)


def _why_rejected(fetched: Fetched, seen: Counter[str], min_bytes: int) -> str:
    """Why a file is not taken; "" for an image."""
    if "/" in fetched.anp or fetched.anp.startswith("."):
        return "its ANP cannot be used as a folder name"
    if fetched.path is None:
        return fetched.error or "not fetched"
    if fetched.expected and fetched.expected != fetched.sha256:
        return "not the bytes with the list's SHA-256"
    if seen[fetched.sha256] >= PLACEHOLDER:
        return f"placeholder: the same bytes at {seen[fetched.sha256]:,} addresses"
    try:
        decode(str(fetched.path))
    except Unreadable as error:
        return str(error)
    size = fetched.path.stat().st_size
    if size < min_bytes:
        return f"placeholder or thumbnail: {size:,} bytes, fewer than {min_bytes:,}"
    return ""
