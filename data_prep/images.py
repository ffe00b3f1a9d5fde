"""Which image files lie under a folder, by ANP: `<root>/<adj_noun>/<anything>.jpg`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from basics.cli import UserError
from basics.files import PathLike
from data_prep.ontology import is_name

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

# Stages shorten long lists of complaints on the terminal; the manifest has all of them.
SHOWN = 20


@dataclass
class Images:
    """What a scan of `root` found.

    `by_anp` maps an ANP to its files, as paths relative to `root`, sorted;
    `ignored` lists (path, reason) for everything else that lay there.
    """

    root: Path
    by_anp: dict[str, list[str]] = field(default_factory=dict)
    ignored: list[tuple[str, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """The number of image files."""
        return sum(map(len, self.by_anp.values()))


def find_root(folder: PathLike) -> Path:
    """The folder that holds the ANP folders: `folder` itself, or its one `bi_concepts*`.

    VSO's archives unpack to `bi_concepts1553/<adj_noun>/`, and people name
    the folder above it.

    Raises:
        UserError: `folder` is not a folder, or has several `bi_concepts*` in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the one that holds the ANP folders")
    inner = sorted(entry for entry in folder.glob("bi_concepts*") if entry.is_dir())
    if len(inner) > 1:
        names = ", ".join(entry.name for entry in inner)
        raise UserError(f"{folder}: which of {names}? name one of them")
    return inner[0] if inner else folder


def scan(folder: PathLike) -> Images:
    """Find the images under `folder` (see `find_root`) by their names, opening none.

    Raises:
        UserError: no ANP folder there, or a folder cannot be read.
    """
    images = Images(find_root(folder))
    root = os.fspath(images.root)
    try:
        for anp in _entries(root):
            if not is_name(anp.name):
                images.ignored.append((anp.name, "its name is not adjective_noun"))
            elif _leaves(anp, root):
                images.ignored.append((anp.name, "a link that leaves the image folder"))
            elif anp.is_dir():
                images.by_anp[anp.name] = list(_files(anp, root, images.ignored))
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
    if not images.by_anp:
        raise UserError(f"{images.root}: no folder named adjective_noun in it")
    return images


def _files(anp: os.DirEntry[str], root: str, ignored: list[tuple[str, str]]) -> Iterator[str]:
    for file in _entries(anp.path):
        path = f"{anp.name}/{file.name}"
        if not file.name.lower().endswith(SUFFIXES):
            ignored.append((path, "not named like an image"))
        elif not _fits_a_list(file.name):
            ignored.append((path, "a list cannot hold its name (not UTF-8, or a line break)"))
        elif _leaves(file, root):
            ignored.append((path, "a link that leaves the image folder"))
        elif not file.is_file():
            ignored.append((path, "not a file"))
        else:
            yield path


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)


def _leaves(entry: os.DirEntry[str], root: str) -> bool:
    if not entry.is_symlink():
        return False
    return Path(root).resolve() not in Path(entry.path).resolve().parents


def _fits_a_list(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\n" not in name and "\r" not in name
