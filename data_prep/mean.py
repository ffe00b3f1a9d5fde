"""The mean image of a database, as real compute_image_mean makes it."""

from __future__ import annotations

import cv2
import numpy as np

from xresnet.caffeproto import BlobProto


class Mean:
    """Sums 3 x S x S images and divides.

    The sum is kept in 32-bit floats and in the database's order because
    compute_image_mean does so: past 2^24 its sums are rounded, and only the
    same roundings give the same bytes.
    """

    def __init__(self, size: int, sums: np.ndarray | None = None) -> None:
        self._size = size
        self.sums = np.zeros((3, size * size), np.float32) if sums is None else sums

    def add(self, planes: np.ndarray) -> None:
        """Add one image: 3 S S uint8, one channel after the other."""
        cv2.accumulate(planes.reshape(3, -1), self.sums)

    def blob(self, count: int) -> bytes:
        """The mean of `count` images as a serialised BlobProto of 1 x 3 x S x S."""
        mean = self.sums / np.float32(count)
        return BlobProto(
            num=1, channels=3, height=self._size, width=self._size, data=mean.ravel().tolist()
        ).SerializeToString()

    def values(self, count: int) -> list[float]:
        """The mean of each channel, blue, green, red: Caffe's `mean_value`s."""
        return [round(float(v), 4) for v in self.sums.mean(axis=1, dtype=np.float64) / count]
