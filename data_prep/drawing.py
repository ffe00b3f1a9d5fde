"""The pictures of the sample set (sample.py): nouns are shapes, adjectives how they look."""

from __future__ import annotations

import colorsys
import hashlib
import math
from dataclasses import dataclass

import cv2
import numpy as np

SIZE = 96  # pixels a side of a finished image
_DRAWN = 2 * SIZE  # drawn twice as large and averaged down, for smooth edges


def jpeg(pixels: np.ndarray) -> bytes:
    """The JPEG bytes of an image, (H, W, 3) uint8 blue-green-red."""
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def render(anp: str, index: int, seed: int = 0) -> np.ndarray:
    """The index-th image of an ANP, (96, 96, 3) uint8 blue-green-red."""
    adjective, _, noun = anp.partition("_")
    random = rng(seed, anp, index)
    look = _Look.pick(random, adjective)
    canvas = _background(random, look)
    place = _placement(random, adjective)
    parts = [(_place(points, place), role) for points, role in _SHAPES[noun]]
    _shadow(canvas, parts)
    for points, role in parts:
        _fill(canvas, points, look.fills[role])
    image = cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return _finish(random, adjective, image)


def rng(seed: int, *what: object) -> np.random.RandomState:
    """Random numbers that depend only on the seed and their purpose."""
    # RandomState's stream never changes; default_rng's may change between releases.
    digest = hashlib.sha256(repr((seed, *what)).encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, "<u4"))


# --- adjectives: colours, fill, size, and what is done to the finished picture -----------------

_Colour = tuple[int, int, int]  # blue, green, red


@dataclass
class _Look:
    """Two background colours, and the picture that fills each role of a shape's parts.

    Roles: 0 the body, 1 its second colour, 2 small details.
    """

    sky: tuple[_Colour, _Colour]
    fills: list[np.ndarray]

    @classmethod
    def pick(cls, rng: np.random.RandomState, adjective: str) -> _Look:
        hue = rng.uniform()
        far = hue + rng.uniform(0.3, 0.7)
        grey = 0.12 if adjective == "lonely" else 1.0
        light = rng.uniform(0.9, 1.0) if adjective == "bright" else rng.uniform(0.45, 0.7)
        pale = 0.25 if adjective == "bright" else rng.uniform(0.3, 0.55)
        sky = (
            _colour(hue, pale * grey, light),
            _colour(hue + rng.uniform(-0.12, 0.12), pale * grey, light * 0.8),
        )
        body = _colour(far, 0.85 * grey, rng.uniform(0.85, 1.0))
        second = _colour(far + rng.uniform(0.06, 0.16), 0.7 * grey, rng.uniform(0.7, 0.9))
        detail = _colour(far + 0.5, 0.3 * grey, 0.25)
        pattern = {"striped": _stripes, "dotted": _dots}.get(adjective, _plain)
        other = _colour(far, 0.15, 1.0) if rng.uniform() < 0.5 else _colour(far, 0.9, 0.25)
        return cls(
            sky,
            [pattern(rng, body, other), pattern(rng, second, other), _plain(rng, detail, other)],
        )


def _colour(hue: float, saturation: float, value: float) -> _Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, min(saturation, 1.0), min(value, 1.0))
    return (round(255 * blue), round(255 * green), round(255 * red))


def _plain(rng: np.random.RandomState, colour: _Colour, other: _Colour) -> np.ndarray:
    return cv2.merge([np.full((_DRAWN, _DRAWN), value, np.uint8) for value in colour])


def _stripes(rng: np.random.RandomState, colour: _Colour, other: _Colour) -> np.ndarray:
    angle, period = rng.uniform(0, math.pi), rng.uniform(20, 30)
    wave = _GRID_X * math.cos(angle) + _GRID_Y * math.sin(angle)
    return _mix(np.sin(wave * (2 * math.pi / period)), colour, other)


def _dots(rng: np.random.RandomState, colour: _Colour, other: _Colour) -> np.ndarray:
    angle, period = rng.uniform(0, math.pi), rng.uniform(24, 34)
    u = _GRID_X * math.cos(angle) + _GRID_Y * math.sin(angle)
    v = _GRID_Y * math.cos(angle) - _GRID_X * math.sin(angle)
    rate = 2 * math.pi / period
    return _mix(0.55 - np.cos(u * rate) - np.cos(v * rate), colour, other)


def _mix(wave: np.ndarray, colour: _Colour, other: _Colour) -> np.ndarray:
    share = np.clip(wave * 4 + 0.5, 0, 1)[..., None]
    return (share * colour + (1 - share) * other).astype(np.uint8)


def _placement(rng: np.random.RandomState, adjective: str) -> tuple[float, float, np.ndarray]:
    """Centre x, y in pixels and the 2 x 2 matrix that turns and scales a unit shape."""
    scale = {"tiny": rng.uniform(0.13, 0.17), "lonely": rng.uniform(0.15, 0.20)}.get(
        adjective, rng.uniform(0.30, 0.40)
    ) * _DRAWN
    room = _DRAWN / 2 - 1.1 * scale
    x, y = _DRAWN / 2 + rng.uniform(-0.8, 0.8, 2) * room
    turn = rng.uniform(-0.3, 0.3)
    stretch = rng.uniform(0.9, 1.1)
    matrix = scale * np.array(
        [[math.cos(turn) * stretch, -math.sin(turn)], [math.sin(turn) * stretch, math.cos(turn)]]
    )
    return x, y, matrix


def _finish(rng: np.random.RandomState, adjective: str, image: np.ndarray) -> np.ndarray:
    if adjective == "dark":
        image = cv2.convertScaleAbs(image, alpha=rng.uniform(0.22, 0.34))
    elif adjective == "bright":
        image = cv2.convertScaleAbs(image, alpha=1.1, beta=rng.uniform(20, 35))
    elif adjective == "blurry":
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(3.0, 4.5))
    grain = rng.randint(-5, 6, image.shape).astype(np.int16)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


# --- drawing -----------------------------------------------------------------------------------

_GRID_Y, _GRID_X = np.mgrid[0:_DRAWN, 0:_DRAWN].astype(np.float32)
_SHIFT = 4  # binary digits behind the point in OpenCV's drawing coordinates


def _background(rng: np.random.RandomState, look: _Look) -> np.ndarray:
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[-1:1:8j, -1:1:8j]  # a ramp is as smooth when drawn small and enlarged
    share = np.clip((x * math.cos(angle) + y * math.sin(angle)) / 2 + 0.5, 0, 1)[..., None]
    ramp = (share * look.sky[0] + (1 - share) * look.sky[1]).astype(np.uint8)
    canvas = cv2.resize(ramp, (_DRAWN, _DRAWN), interpolation=cv2.INTER_LINEAR)
    for _ in range(rng.randint(2, 6)):  # soft discs, as lights out of focus
        disc = canvas.copy()
        centre = tuple(int(v) for v in rng.randint(0, _DRAWN, 2))
        shade = np.clip(np.array(look.sky[0]) + rng.randint(-40, 41), 0, 255)
        cv2.circle(disc, centre, int(rng.randint(12, 50)), shade.tolist(), -1, cv2.LINE_AA)
        canvas = cv2.addWeighted(canvas, 0.6, disc, 0.4, 0)
    return canvas


def _place(points: np.ndarray, place: tuple[float, float, np.ndarray]) -> np.ndarray:
    x, y, matrix = place
    return ((points @ matrix.T + (x, y)) * (1 << _SHIFT)).round().astype(np.int32)


def _mask(points: np.ndarray) -> np.ndarray:
    mask = np.zeros((_DRAWN, _DRAWN), np.uint8)
    return cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, _SHIFT)


def _fill(canvas: np.ndarray, points: np.ndarray, picture: np.ndarray) -> None:
    cv2.copyTo(picture, _mask(points), canvas)
    edge = tuple(int(v * 0.45) for v in picture[0, 0])
    cv2.polylines(canvas, [points], True, edge, 2, cv2.LINE_AA, _SHIFT)


def _shadow(canvas: np.ndarray, parts: list[tuple[np.ndarray, int]]) -> None:
    mask = np.zeros((_DRAWN, _DRAWN), np.uint8)
    offset = 5 << _SHIFT
    for points, _ in parts:
        cv2.fillPoly(mask, [points + offset], 90, cv2.LINE_AA, _SHIFT)
    shade = cv2.cvtColor(cv2.blur(mask, (13, 13)), cv2.COLOR_GRAY2BGR)
    cv2.multiply(canvas, 255 - shade, canvas, 1 / 255)


# --- nouns: polygons in [-1, 1] x [-1, 1], y downwards, each with its role ----------------------


def _points(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, np.float64)


def _oval(x: float, y: float, width: float, height: float) -> np.ndarray:
    turn = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    return np.stack([x + width * np.cos(turn), y + height * np.sin(turn)], axis=1)


def _box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return _points((left, top), (right, top), (right, bottom), (left, bottom))


def _star() -> np.ndarray:
    turn = np.arange(10) * math.pi / 5 - math.pi / 2
    radius = np.where(np.arange(10) % 2, 0.42, 1.05)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * math.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y], axis=1) / 16.5


def _moon() -> np.ndarray:
    outer = np.linspace(0.28 * math.pi, 1.72 * math.pi, 40)
    inner = outer[::-1]
    edge = np.stack([np.cos(outer), np.sin(outer)], axis=1)
    # The inner arc shares the horns with the outer one and bends less.
    hollow = np.stack(
        [0.62 * np.cos(inner) + (1 - 0.62) * math.cos(outer[0]), np.sin(inner) * 0.86], axis=1
    )
    hollow[0], hollow[-1] = edge[-1], edge[0]
    return np.add(np.concatenate([edge, hollow]), (0.2, 0))


def _mouth() -> np.ndarray:
    smile = np.linspace(0.1 * math.pi, 0.9 * math.pi, 24)
    lip = np.stack([0.6 * np.cos(smile), 0.1 + 0.55 * np.sin(smile)], axis=1)
    return np.concatenate([lip, lip[::-1] * (1, 0.75)])


_SHAPES: dict[str, list[tuple[np.ndarray, int]]] = {
    "star": [(_star(), 0)],
    "heart": [(_heart(), 0)],
    "moon": [(_moon(), 0)],
    "house": [
        (_box(-0.72, -0.15, 0.72, 0.95), 0),
        (_points((-1.0, -0.12), (0, -1.0), (1.0, -0.12)), 1),
        (_box(-0.18, 0.35, 0.2, 0.95), 2),
        (_box(-0.55, 0.1, -0.28, 0.36), 2),
        (_box(0.33, 0.1, 0.58, 0.36), 2),
    ],
    "tree": [
        (_box(-0.14, 0.5, 0.14, 1.0), 2),
        *(
            (_points((0, top - 0.05), (width, top + 0.62), (-width, top + 0.62)), 0)
            for top, width in ((0.0, 0.8), (-0.5, 0.64), (-1.0, 0.46))
        ),
    ],
    "boat": [
        (_box(-0.04, -1.0, 0.04, 0.45), 2),
        (_points((0.1, -0.95), (0.1, 0.3), (0.85, 0.3)), 1),
        (_points((-0.1, -0.7), (-0.1, 0.3), (-0.65, 0.3)), 1),
        (_points((-1.0, 0.42), (1.0, 0.42), (0.62, 0.95), (-0.62, 0.95)), 0),
    ],
    "fish": [
        (_points((0.45, 0), (1.05, -0.5), (1.05, 0.5)), 1),
        (_points((-0.25, -0.4), (0.25, -0.85), (0.35, -0.3)), 1),
        (_oval(-0.2, 0, 0.8, 0.48), 0),
        (_oval(-0.62, -0.12, 0.08, 0.08), 2),
    ],
    "face": [
        (_oval(0, 0, 0.95, 0.95), 0),
        (_oval(-0.35, -0.25, 0.12, 0.18), 2),
        (_oval(0.35, -0.25, 0.12, 0.18), 2),
        (_mouth(), 2),
    ],
    "loss": [  # a falling curve, as bars
        (_box(-0.95, -0.95, -0.87, 0.95), 2),
        (_box(-0.95, 0.87, 0.95, 0.95), 2),
        *(
            (_box(left, 0.85 - height, left + 0.3, 0.85), 0)
            for left, height in ((-0.75, 1.5), (-0.3, 1.0), (0.15, 0.7), (0.6, 0.25))
        ),
    ],
}
