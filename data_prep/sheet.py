"""A contact sheet: records as they lie in the databases, each with its labels."""

from __future__ import annotations

import unicodedata

import cv2
import numpy as np

from data_prep.classes import MISSING, Classes
from data_prep.folder import DataFolder
from data_prep.records import key
from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike, write
from xresnet.caffeproto.databases import reading
from xresnet.caffeproto.datum import parse_datum

TILE, LINE = 160, 15  # pixels: an image's side, a line of text
COLUMNS, ROWS = 8, 5


def write_sheet(folder: DataFolder, part: str, classes: Classes, path: PathLike) -> int:
    """Write a JPEG of 40 records, evenly spread over a part; returns how many they are.

    Image and labels are read from the databases by key, so a person sees
    whether what Caffe will read belongs together.
    """
    records = _spread(folder, part, COLUMNS * ROWS)
    tiles = [_tile(image, label, classes) for image, label in records]
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    encoded = cv2.imencode(".jpg", np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    write(path, encoded.tobytes())
    return len(records)


def _spread(folder: DataFolder, part: str, most: int) -> list[tuple[bytes, bytes]]:
    image, label = (folder.lmdb(part, kind) for kind in ("image", "label"))
    with reading(image) as images, reading(label) as labels, images.cursor() as cursor:
        if not cursor.last():
            raise UserError(f"{image}: no record in it")
        last = int(cursor.key()[:8])
        found = {}
        for number in np.linspace(0, last, most).astype(int):
            if cursor.set_range(key(int(number), "")):
                name = cursor.key()
                found[name] = (cursor.value(), labels.get(name) or b"")
    return list(found.values())


def _tile(image: bytes, label: bytes, classes: Classes) -> np.ndarray:
    datum = parse_datum(image)
    if datum.floats.size:
        raise UserError("the records are maps, not images: leave out --sheet")
    pixels = datum.array().transpose(1, 2, 0)
    picture = cv2.resize(np.ascontiguousarray(pixels), (TILE - 4, TILE - 4))
    tile = np.full((TILE + len(classes.tasks) * LINE + 4, TILE, 3), 255, np.uint8)
    tile[2 : TILE - 2, 2 : TILE - 2] = picture
    values = parse_datum(label).float_data
    for line, (task, value) in enumerate(zip(classes.tasks, map(int, values))):
        name = "-" if value == MISSING else f"{value} {classes[task][value]}"
        text = _drawable(f"{task} {name}")
        font, scale, place = cv2.FONT_HERSHEY_SIMPLEX, 0.38, (3, TILE + LINE * line + 11)
        width = cv2.getTextSize(text, font, scale, 1)[0][0]
        scale *= min(1, (TILE - 6) / width)  # long names in small letters, not cut off
        cv2.putText(tile, text, place, font, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return tile


def _drawable(text: str) -> str:
    """`text` in ASCII, which is all that OpenCV's letters have: accents off, others as `?`."""
    plain = unicodedata.normalize("NFKD", text)
    shown = "".join(c for c in plain if not unicodedata.combining(c))
    return shown.encode("ascii", "replace").decode()
