"""The mean image of a database, equal to that of Caffe's compute_image_mean."""

from __future__ import annotations

import cv2
import numpy as np

from xresnet.caffeproto import BlobProto


class Mean:
    """The mean of 3 x S x S images.

    As in compute_image_mean, the sum is kept in 32-bit floats and taken in the database's order:
    above 2^24 it is rounded, and only the same rounding gives the same bytes.
    """

    def __init__(self, size: int, sums: np.ndarray | None = None) -> None:
        self._size = size
        self.sums = np.zeros((3, size * size), np.float32) if sums is None else sums

    def add(self, planes: np.ndarray) -> None:
        """Add one image: 3 * S * S uint8, one channel after the other."""
        cv2.accumulate(planes.reshape(3, -1), self.sums)

    def blob(self, count: int) -> bytes:
        """The mean of `count` images as a serialised BlobProto, 1 x 3 x S x S."""
        mean = self.sums / np.float32(count)
        return BlobProto(
            num=1, channels=3, height=self._size, width=self._size, data=mean.ravel().tolist()
        ).SerializeToString()

    def values(self, count: int) -> list[float]:
        """The mean of each channel (blue, green, red), for Caffe's `mean_value`."""
        return [round(float(v), 4) for v in self.sums.mean(axis=1, dtype=np.float64) / count]
