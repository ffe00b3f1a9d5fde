"""A contact sheet: images of the databases, each with its labels."""

from __future__ import annotations

import cv2
import numpy as np

from data_prep.classes import MISSING, Classes
from data_prep.folder import DataFolder
from data_prep.records import key
from xresnet.basics import bars
from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike, write
from xresnet.caffeproto.databases import reading
from xresnet.caffeproto.datum import parse_datum

TILE, LINE = 160, 15  # pixels: an image's side, a line of text
COLUMNS, ROWS = 8, 5
_LETTERS, _SMALLEST = 10, 8  # pixels


def write_sheet(folder: DataFolder, part: str, classes: Classes, path: PathLike) -> int:
    """Write a JPEG of up to 40 records, evenly spaced in a part; returns their number.

    Image and labels are read from the databases by key, so that a person sees whether they belong
    together. Characters that no font of this machine has are shown as code points, which a line
    on stderr says.

    Raises:
        UserError: the databases cannot be read or hold float maps, or `path` cannot be written.
    """
    records = _spread(folder, part, COLUMNS * ROWS)
    height = TILE + len(classes.tasks) * LINE + 4
    sheet = np.full((-(-len(records) // COLUMNS) * height, COLUMNS * TILE, 3), 255, np.uint8)
    labels = []
    for i, (image, label) in enumerate(records):
        y, x = i // COLUMNS * height, i % COLUMNS * TILE
        sheet[y + 2 : y + TILE - 2, x + 2 : x + TILE - 2] = _picture(image)
        for line, text in enumerate(_lines(label, classes)):
            labels.append((x + 3, y + TILE + LINE * line + 11, text))
    encoded = cv2.imencode(".jpg", _with_texts(sheet, labels), [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
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
                name = bytes(cursor.key())
                found[name] = (bytes(cursor.value()), bytes(labels.get(name) or b""))
    return list(found.values())


def _picture(image: bytes) -> np.ndarray:
    datum = parse_datum(image)
    if datum.floats.size:
        raise UserError("the records are maps, not images: leave out --sheet")
    pixels = datum.array().transpose(1, 2, 0)
    return cv2.resize(np.ascontiguousarray(pixels), (TILE - 4, TILE - 4))


def _lines(label: bytes, classes: Classes) -> list[str]:
    """A line per task: the label and its class."""
    values = map(int, parse_datum(label).float_data)
    return [
        f"{task} {'-' if value == MISSING else f'{value} {classes[task][value]}'}"
        for task, value in zip(classes.tasks, values)
    ]


def _with_texts(pixels: np.ndarray, texts: list[tuple[int, int, str]]) -> np.ndarray:
    """Draw each (x, y of the baseline, text) on `pixels` (H, W, 3), no wider than a tile.

    A long text gets smaller letters; if these would be too small, it is cut and ends in dots.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes half a second
    from matplotlib.figure import Figure

    from xresnet.basics.fonts import fonts_for

    fonts = fonts_for(text for *_, text in texts)
    if fonts.note:
        bars.say(fonts.note)
    height, width = pixels.shape[:2]
    figure = Figure((width / 72, height / 72), dpi=72)  # a point is a pixel
    canvas = FigureCanvasAgg(figure)
    figure.figimage(pixels)
    for x, y, text in texts:
        shown = fonts.shown(text)
        drawn = figure.text(
            x / width,
            1 - y / height,
            shown,
            size=_LETTERS,
            family=list(fonts.families),
            parse_math=False,
        )

        def wide() -> float:
            return drawn.get_window_extent(canvas.get_renderer()).width  # noqa: B023

        if wide() > TILE - 6:
            drawn.set_fontsize(max(_SMALLEST, _LETTERS * (TILE - 6) / wide()))
        while wide() > TILE - 6:
            shown = shown[: min(len(shown) - 1, int(len(shown) * (TILE - 6) / wide()))]
            drawn.set_text(f"{shown}...")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
