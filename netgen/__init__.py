"""Generators of the paper's networks and solvers, as Caffe prototxt.

    python -m netgen xs_resnet50 > prototxt/xs.prototxt

A net is one function on one screen (`resnet.py`); `catalog.py` names them all.
"""
