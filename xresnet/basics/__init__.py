"""What all packages of this project share: error messages, atomic files, number ranges."""

import os

MOST_PIXELS = 1 << 26  # of an image; 64 megapixels (200 MB decoded) exceed any photo in VSO

# OpenCV's own limit of 2^30 pixels would let a crafted file of 100 KB allocate 3 GB. OpenCV reads
# the variable once, when it is loaded, so every package imports this one before any cv2.
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MOST_PIXELS)
