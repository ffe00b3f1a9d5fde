"""Find the image files of a folder by ANP: `<root>/<adj_noun>/<anything>.jpg`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.folder import check_name
from data_prep.ontology import is_name
from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike, inside

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

LEAVES = "a link that leads out of the image folder"


@dataclass
class Images:
    """The result of a scan of `root`.

    `by_anp`: ANP -> its files, sorted paths relative to `root`; `ignored`: (path, reason) of
    everything else.
    """

    root: Path
    by_anp: dict[str, list[str]] = field(default_factory=dict)
    ignored: list[tuple[str, str]] = field(default_factory=list)

    @property
    def leaving(self) -> list[str]:
        """The ignored links that lead out of the image folder."""
        return [path for path, reason in self.ignored if reason == LEAVES]

    @property
    def advice(self) -> str:
        """An addition to an error message about links that lead out of the folder, or ""."""
        leaving = self.leaving
        if not leaving:
            return ""
        return (
            f"; ignored: {len(leaving):,} links that lead out of the image folder, such as "
            f"{leaving[0]}: name the folder that they lead to, or copy the files there"
        )

    @property
    def counts(self) -> dict[str, int]:
        """ANP -> number of image files."""
        return {anp: len(paths) for anp, paths in self.by_anp.items()}

    @property
    def facts(self) -> dict[str, Any]:
        """A manifest's entry."""
        return {
            "root": str(self.root),
            "anps": len(self.by_anp),
            "images": sum(self.counts.values()),
            "links_out": len(self.leaving),
            "ignored": self.ignored,
        }


def find_root(folder: PathLike, by_anp: bool = True) -> Path:
    """The folder that the paths in lists are relative to: `folder`, or its one `bi_concepts*`.

    VSO's archives unpack to `bi_concepts1553/<adj_noun>/`, and people name the folder above it.

    Args:
        by_anp: whether to look for `bi_concepts*`, as for VSO's images.

    Raises:
        UserError: `folder` is not a folder, has several `bi_concepts*`, or its name is not UTF-8.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "holds the ANP folders" if by_anp else "the paths start from"
        raise UserError(f"{folder}: no such folder; name the one that {what}")
    inner = [] if not by_anp else sorted(e for e in folder.glob("bi_concepts*") if e.is_dir())
    if len(inner) > 1:
        names = ", ".join(entry.name for entry in inner)
        raise UserError(f"{folder}: which of {names}? name one of them")
    return check_name(inner[0] if inner else folder)


def scan(folder: PathLike) -> Images:
    """Find the images under `folder` (see `find_root`) by their names, without opening any.

    Raises:
        UserError: there is no ANP folder, or a folder cannot be read.
    """
    images = Images(find_root(folder))
    root = os.path.realpath(images.root)
    try:
        for anp in _entries(images.root):
            fits = "" if is_name(anp.name) else "its name is not adjective_noun"
            if wrong := unfit_for_lists(anp.name) or fits or _wrong_link(anp, root):
                images.ignored.append((anp.name, wrong))
            elif not anp.is_dir():
                images.ignored.append((anp.name, "not a folder"))
            else:
                images.by_anp[anp.name] = list(_files(anp, root, images.ignored))
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
    if not images.by_anp:
        raise UserError(f"{images.root}: no folder named adjective_noun in it{images.advice}")
    return images


def unfit_for_lists(name: str) -> str:
    """Why a list of images cannot contain a name; "" if it can."""
    if re.search(r"[\n\r\0\ud800-\udfff]", name):
        return "a list cannot hold its name (not UTF-8, or a line break)"
    return ""


def _files(anp: os.DirEntry[str], root: str, ignored: list[tuple[str, str]]) -> Iterator[str]:
    for file in _entries(anp.path):
        path = f"{anp.name}/{file.name}"
        fits = "" if file.name.lower().endswith(SUFFIXES) else "not named like an image"
        if wrong := fits or unfit_for_lists(file.name) or _wrong_link(file, root):
            ignored.append((path, wrong))
        elif not file.is_file():
            ignored.append((path, "not a file"))
        else:
            yield path


def _entries(folder: PathLike) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)


def _wrong_link(entry: os.DirEntry[str], root: str) -> str:
    if entry.is_symlink() and not inside(entry.path, root):
        return LEAVES
    if entry.is_symlink() and not os.path.exists(entry.path):  # gone, or a link in a circle
        return "a link that leads to nothing"
    return ""
