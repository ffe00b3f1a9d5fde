"""Download the packages: in parallel, checked, and resumed after an interruption."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable
from urllib.parse import quote

from xresnet.basics import files
from xresnet.basics.cli import UserError
from xresnet.basics.download import Failure, receive
from xresnet.realcaffe.lock import Package
from xresnet.realcaffe.mirrors import VARIABLE

THREADS = 6  # downloads at once; with more, the snapshot service begins to refuse
PAUSE = 0.5  # seconds before the second round over the mirrors, doubled for each further one
ROUNDS_WORKING = 6  # rounds if a mirror has already delivered a package
ROUNDS_SILENT = 2  # rounds if none has, most likely because there is no network


class Fetcher:
    """Downloads packages to a folder, each from the first mirror that has it.

    A file has its own name only once its size and SHA-256 have been checked; an incomplete one is
    kept as `NAME.part` and resumed.

    Args:
        mirrors: base URLs, in the order in which they are tried.
        folder: where the packages are kept.
        on_bytes: called with the number of bytes of each piece; negative where some are discarded.
    """

    def __init__(
        self, mirrors: list[str], folder: Path, on_bytes: Callable[[int], object] = lambda n: None
    ) -> None:
        self.mirrors = mirrors
        self.folder = folder
        self.on_bytes = on_bytes
        self._heard = threading.Event()  # some mirror has delivered
        self._stop = threading.Event()

    def fetch_all(self, packages: Iterable[Package]) -> list[Path]:
        """Download what is missing; returns the files in the order of `packages`.

        Raises:
            UserError: no mirror delivers a package; says what was tried.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(THREADS) as pool:
            tasks = [pool.submit(self.fetch, package) for package in packages]
            try:
                return [task.result() for task in tasks]
            except BaseException:  # Ctrl-C, too: the other downloads must not continue
                self._stop.set()
                for task in tasks:
                    task.cancel()
                raise

    def fetch(self, package: Package) -> Path:
        """Download one package if it is missing; returns its file."""
        target = self.folder / package.file_name
        if target.exists():
            if files.matches(target, package.size, package.sha256):
                self.on_bytes(package.size)
                return target
            target.unlink()  # damaged since its download

        failures: dict[str, Failure] = {}
        attempt = 0
        while attempt < (ROUNDS_WORKING if self._heard.is_set() else ROUNDS_SILENT):
            if attempt:
                self._stop.wait(PAUSE * 2 ** (attempt - 1) * random.uniform(0.8, 1.2))
            attempt += 1
            for mirror in self.mirrors:
                if mirror in failures and failures[mirror].final:
                    continue
                self._check()
                try:
                    self._download(f"{mirror}/{quote(package.path, safe='/+~')}", package, target)
                    return target
                except Failure as failure:
                    failures[mirror] = failure
            if all(failure.final for failure in failures.values()):
                break
        raise UserError(_explain(package, failures, self.folder))

    def _download(self, url: str, package: Package, target: Path) -> None:
        part = target.with_name(target.name + ".part")
        have = part.stat().st_size if part.exists() else 0
        if have > package.size:  # not the beginning of this file
            part.unlink()
            have = 0
        resumed = have > 0
        self.on_bytes(have)
        try:
            if have < package.size:
                have = receive(url, part, package.size, self.on_bytes, self._check)
            if have < package.size:
                raise Failure(f"cut off after {have} of {package.size} bytes")
            if not files.matches(part, package.size, package.sha256):
                part.unlink()
                # What an earlier run has left may have been wrong: worth a try from the beginning.
                raise Failure("wrong SHA-256", final=not resumed)
            part.replace(target)
            self._heard.set()
        except Failure:
            self.on_bytes(-(part.stat().st_size if part.exists() else have))
            raise

    def _check(self) -> None:
        if self._stop.is_set():
            raise UserError("stopped")


def _explain(package: Package, failures: dict[str, Failure], folder: Path) -> str:
    tried = "\n".join(f"  {mirror}: {failure}" for mirror, failure in failures.items())
    return (
        f"cannot fetch {package.file_name}; tried\n{tried}\n"
        f"To fix it, name a Debian mirror that you can reach (--mirror URL, or {VARIABLE} in the"
        f" environment; a folder with a pool/ in it will do), copy {folder} from a machine"
        " where this worked, or put a Caffe of your own on PATH. The files fetched so far are kept."
    )
