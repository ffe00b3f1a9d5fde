"""Decode an image file exactly as convert_imageset does, or give the reason why not."""

from __future__ import annotations

import os
import stat

import cv2
import numpy as np

from xresnet.basics import MOST_PIXELS

MOST_BYTES = 4 * MOST_PIXELS  # of a file: what the most pixels take without any compression
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
_TOO_MANY = "too many pixels (over 64 million)"


class Unreadable(Exception):
    """This file gives no image; the text says why, for a person."""


def decode(path: str, flag: int = cv2.IMREAD_COLOR) -> tuple[np.ndarray, str]:
    """Read one image; `flag` is OpenCV's way to decode it, to colours or to greys.

    Returns:
        pixels (H, W, 3) uint8 blue-green-red, or (H, W), a JPEG's EXIF rotation applied; and
        what is wrong with the file although it can be read ("" for nothing).

    Raises:
        Unreadable: with the reason.
    """
    try:
        with open(path, "rb", buffering=0, opener=_opened) as file:
            _check(os.fstat(file.fileno()))
            data = file.read()
            return _decoded(data, file.fileno(), flag)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise Unreadable(getattr(error, "strerror", None) or str(error)) from error


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe of that name would make us wait for ever


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable("not a file")
    if found.st_size > MOST_BYTES:  # a sparse one costs its maker nothing, and us all memory
        raise Unreadable(f"{found.st_size:,} bytes, too large for an image ({MOST_BYTES:,})")


def _decoded(data: bytes, descriptor: int, flag: int) -> tuple[np.ndarray, str]:
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
            # do as convert_imageset does. By the open file's name, for a name that is not
            # UTF-8 kills OpenCV.
            os.lseek(descriptor, 0, os.SEEK_SET)
            pixels = cv2.imread(f"/dev/fd/{descriptor}", flag)
        else:
            if data.startswith((b"\x89PNG", b"RIFF")):  # only a newer OpenCV turns these
                flag |= cv2.IMREAD_IGNORE_ORIENTATION
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        text = str(error)
        if "CV_IO_MAX_IMAGE" in text:
            raise Unreadable(_TOO_MANY) from None
        raise Unreadable(f"OpenCV: {error.err or text}".strip()) from None
    if pixels is None:
        raise Unreadable("damaged: it begins like an image, but OpenCV cannot decode it")
    if pixels.shape[0] * pixels.shape[1] > MOST_PIXELS:  # cv2 was loaded before us, without limit
        raise Unreadable(_TOO_MANY)
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
