"""Generators of the paper's networks and solvers, as Caffe prototxt.

    python -m netgen xs_resnet50 > prototxt/xs.prototxt

and the same from Python:

    import netgen

    net = netgen.build("xs_resnet50", tasks=(netgen.Task("style", 25), netgen.Task("artist", 600)))
    print(net.prototxt(), net.solver(lr=0.01), net.params()["total"])

A net is one function on one screen (`resnet.py`, `classics.py`, `neighbours.py`), what joins two
tasks another (`joints.py`); `options.py` declares what can be chosen, `catalog.py` names them all.
"""

from netgen.network import Network, build
from netgen.tasks import Task

__all__ = ["Network", "Task", "build"]
