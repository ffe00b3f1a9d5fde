"""Decode an image file exactly as convert_imageset does, or tell why it cannot be decoded."""

from __future__ import annotations

import os
import stat

import cv2
import numpy as np

from xresnet.basics import MOST_PIXELS

MOST_BYTES = 4 * MOST_PIXELS  # of a file: the most pixels without any compression
_EOI = b"\xff\xd9"

# The formats that real Caffe's OpenCV reads. Others that a newer OpenCV reads (GIF, AVIF, ...)
# would give records that convert_imageset leaves out.
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
    """The file gives no image; the message is the reason."""


def decode(path: str, flag: int = cv2.IMREAD_COLOR) -> tuple[np.ndarray, str]:
    """Decode an image file.

    Args:
        path: the file.
        flag: OpenCV's `cv2.IMREAD_COLOR` or `cv2.IMREAD_GRAYSCALE`.

    Returns:
        the pixels, uint8, (H, W, 3) blue-green-red or (H, W), rotated by a JPEG's EXIF data; and
        what is damaged in the file ("" for nothing).

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
    return os.open(path, flags | os.O_NONBLOCK)  # opening a pipe would wait forever


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable("not a file")
    if found.st_size > MOST_BYTES:  # a sparse file takes no disk space, but would fill memory
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
            # Of a truncated JPEG, imread fills the rest with grey, as convert_imageset does, and
            # imdecode does not. By the open file's name: one that is not UTF-8 crashes OpenCV.
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
    if pixels.shape[0] * pixels.shape[1] > MOST_PIXELS:  # if cv2 was loaded before our limit
        raise Unreadable(_TOO_MANY)
    # Scans contain no markers, so a JPEG whose last "end of image" precedes its last "start of
    # scan" was cut inside that scan.
    cut = jpeg and not data.endswith(_EOI) and data.rfind(_EOI) < data.rfind(b"\xff\xda")
    return pixels, "the JPEG ends early: its lower part is grey" if cut else ""


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize to size x size without keeping the aspect ratio, bilinearly, as convert_imageset."""
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)


def _what_instead(data: bytes) -> str:
    start = data[:256].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page, not an image"
    if start.startswith(b"gif8"):
        return "a GIF, which Caffe does not read"
    return f"not an image: it begins with {data[:8]!r}"
