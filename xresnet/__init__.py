"""One command for all of the project, and the packages behind it.

basics      what has nothing to do with nets: files, numbers, command lines, OpenCV's limit
caffeproto  Caffe's file formats: prototxt, caffemodel, LMDB records
realcaffe   real BVLC Caffe on a machine that has none
reproduce   training, tests, tables and figures

netgen/, data_prep/ and torchcaffe/ lie beside this package.
"""

import xresnet.basics  # noqa: F401  # sets OpenCV's limit

__version__ = "0.1.0"
