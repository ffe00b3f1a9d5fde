"""Real Caffe as the oracle: many small nets through one pycaffe process, and ours beside it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xresnet.caffeproto import TRAIN, NetParameter, text

# Run by pycaffe: forward and backward of each net named; arrays in and out as .npz.
ORACLE = """
import sys, numpy as np, caffe
for stem in sys.argv[1:]:
    given = np.load(stem + ".in.npz")
    net = caffe.Net(stem + ".prototxt", int(given["phase"]))
    for name in given.files:
        kind, _, rest = name.partition(" ")
        if kind == "blob":
            layer, i = rest.rsplit(" ", 1)
            net.params[layer][int(i)].data[...] = given[name]
        elif kind == "bottom":
            net.blobs[rest].reshape(*given[name].shape)
            net.blobs[rest].data[...] = given[name]
    found = {}
    out = net.forward()
    for name, blob in net.blobs.items():
        found["top " + name] = blob.data.copy()
    if given["backward"]:
        for blobs in net.params.values():
            for blob in blobs:
                blob.diff[...] = 0
        for name in given.files:
            if name.startswith("diff "):
                net.blobs[name[5:]].diff[...] = given[name]
        net.backward()
        for name, blob in net.blobs.items():
            found["bottomdiff " + name] = blob.diff.copy()
        for layer, blobs in net.params.items():
            for i, blob in enumerate(blobs):
                found["grad %s %d" % (layer, i)] = blob.diff.copy()
    for layer, blobs in net.params.items():
        for i, blob in enumerate(blobs):
            found["after %s %d" % (layer, i)] = blob.data.copy()
    np.savez(stem + ".out.npz", **found)
    del net
"""


# Small nets only lose by threads, most of all on a machine that does other things too.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass
class Case:
    """One net with its numbers."""

    net: object  # a NetParameter
    bottoms: dict[str, np.ndarray]
    blobs: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    diffs: dict[str, np.ndarray] = field(default_factory=dict)  # of tops that are no loss
    phase: int = TRAIN
    backward: bool = True

    @property
    def told(self) -> str:
        return text.dump(self.net)


def ask_caffe(
    cases: list[Case], folder: Path, tools: dict[str, Path]
) -> list[dict[str, np.ndarray]]:
    """What real Caffe makes of the cases: `top NAME`, `bottomdiff NAME`, `grad LAYER I`."""
    stems = []
    for i, case in enumerate(cases):
        stem = folder / f"case{i}"
        stems.append(str(stem))
        Path(f"{stem}.prototxt").write_text(case.told)
        arrays = {"phase": np.array(case.phase), "backward": np.array(case.backward)}
        arrays.update((f"bottom {name}", array) for name, array in case.bottoms.items())
        arrays.update((f"blob {name} {n}", array) for (name, n), array in case.blobs.items())
        arrays.update((f"diff {name}", array) for name, array in case.diffs.items())
        np.savez(f"{stem}.in.npz", **arrays)
    command = [tools["pycaffe"], "-c", ORACLE, *stems]
    quiet = {**ONE_THREAD, "GLOG_minloglevel": "2"}
    ran = subprocess.run(command, capture_output=True, text=True, env=quiet)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return [dict(np.load(f"{stem}.out.npz")) for stem in stems]


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference over the largest magnitude wanted."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    if not wanted.size:
        return 0.0
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-6))


# Caffe refuses a gradient to an Embed's indices, say, and gives the others none either.
UNFORCED = ("Embed", "InfogainLoss", "BatchReindex")


def one_layer(layer: dict, inputs: dict[str, tuple[int, ...]]) -> object:
    """A net of one layer on Input layers, gradients forced to all of them."""
    net = NetParameter(name="one", force_backward=layer["type"] not in UNFORCED)
    for name, shape in inputs.items():
        net.layer.add(name=name, type="Input", top=[name], input_param={"shape": [{"dim": shape}]})
    net.layer.add(bottom=list(inputs), **layer)
    return net
