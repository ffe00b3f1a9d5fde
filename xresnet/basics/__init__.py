"""Shared by all commands of this project: error messages, atomic files, number ranges."""

import os

MOST_PIXELS = 1 << 26  # of an image; 64 megapixels (200 MB decoded) are beyond any photo in VSO

# OpenCV's own limit of 2^30 would let one crafted file of 100 KB take 3 GB. It reads this once,
# when it is loaded, so it must stand before any module of ours imports cv2.
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MOST_PIXELS)
