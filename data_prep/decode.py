"""An image file to pixels, exactly as convert_imageset would have them, or the reason why not."""

from __future__ import annotations

import os

# 64 megapixels (200 MB decoded) is beyond any photo in VSO; OpenCV's own limit of 2^30
# would let one crafted file take 3 GB. OpenCV reads this once, when it is loaded.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 26))

import cv2
import numpy as np

_EOI = b"\xff\xd9"

# What real Caffe's OpenCV can read. The others that a newer OpenCV knows (GIF, AVIF, ...)
# would put records in our databases that convert_imageset leaves out.
_SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"BM",  # BMP
    b"RIFF",  # WebP
    b"II*\0",  # TIFF, little endian
    b"MM\0*",  # TIFF, big endian
)


class Unreadable(Exception):
    """This file gives no image; the text says why, for a person."""


def decode(path: str) -> tuple[np.ndarray, str]:
    """Read one image.

    Returns:
        pixels (H, W, 3) uint8 blue-green-red, EXIF rotation applied; and what
        is wrong with the file although it can be read ("" for nothing).

    Raises:
        Unreadable: with the reason.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error
    if not data:
        raise Unreadable("empty file")
    if not data.startswith(_SIGNATURES):
        raise Unreadable(_what_instead(data))
    if data[12:16] == b"VP8X" and len(data) > 20 and data[20] & 2:
        raise Unreadable("an animated WebP, which Caffe does not read")
    jpeg = data.startswith(_SIGNATURES[0])
    try:
        if jpeg and not data.endswith(_EOI):
            # Where a JPEG ends early, imread fills up with grey and imdecode does not:
            # do as convert_imageset does.
            pixels = cv2.imread(path, cv2.IMREAD_COLOR)
        else:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        text = str(error)
        if "CV_IO_MAX_IMAGE" in text:
            raise Unreadable("too many pixels (over 64 million)") from None
        raise Unreadable(f"OpenCV: {error.err or text}".strip()) from None
    if pixels is None:
        raise Unreadable("damaged: it begins like an image, but OpenCV cannot decode it")
    # Scans hold no bare marker, so a JPEG whose last "end of image" lies before its
    # last "start of scan" was cut inside that scan.
    cut = jpeg and not data.endswith(_EOI) and data.rfind(_EOI) < data.rfind(b"\xff\xda")
    return pixels, "the JPEG ends early: its lower part is grey" if cut else ""


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """To size x size, aspect ratio given up, bilinear: convert_imageset's resize."""
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)


def _what_instead(data: bytes) -> str:
    start = data[:256].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page, not an image"
    if start.startswith((b"gif8",)):
        return "a GIF, which Caffe does not read"
    return f"not an image: it begins with {data[:8]!r}"
