"""The costs of a net: parameters, multiply-adds and memory, by layer and block."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import prod
from typing import Any

from netgen import paper
from netgen.blocks import cached_maps
from netgen.catalog import Entry
from netgen.measure import Measured, measure
from netgen.net import Net
from netgen.options import Options

FLOAT = 4  # bytes


def costs(entry: Entry, options: Options) -> dict[str, Any]:
    """The costs of a net and the shapes of its layers; see `Network.params`."""
    net, layers = measured(entry, options)
    return {
        "net": entry.name,
        "task": options.task,
        "total": _params(layers.values()),
        "inference_total": _inference_params(entry, options),
        "macs": _macs(layers.values()),
        "paper_millions": _in_paper(entry, options),
        "batch": options.batch,
        "training_memory": training_memory(entry, options),
        "blocks": [
            {"name": title, "params": _params(members), "macs": _macs(members)}
            for title, members in _blocks(net, layers)
        ],
        "layers": [
            {
                "name": layer.name,
                "type": layer.kind,
                "blobs": layer.blobs,
                "params": layer.params,
                "tops": layer.tops,
                "macs": layer.macs,
            }
            for layer in layers.values()
        ],
    }


def as_table(entry: Entry, options: Options) -> str:
    """The costs as text: blocks and their layers, then the totals beside Table 2's."""
    net, layers = measured(entry, options)
    width = max(len(layer.name) for layer in layers.values()) + 2
    lines = [f"{'block, layer':{width}} {'parameters':>12} {'multiply-adds':>14}  output, weights"]
    for title, members in _blocks(net, layers):
        if _macs(members):
            lines.append(_row(title.split(":")[0], width, _params(members), _macs(members)))
        for layer in members:
            if layer.blobs or layer.macs:
                shapes = [layer.tops[0][1:], *layer.blobs]
                shown = "  ".join("x".join(map(str, shape)) for shape in shapes)
                lines.append(_row("  " + layer.name, width, layer.params, layer.macs, shown))
    total = _params(layers.values())
    lines.append(_row("total, one image", width, total, _macs(layers.values())))
    inference = _inference_params(entry, options)
    if inference != total:
        lines.append(f"{'without auxiliary heads':{width}} {inference:>12,}")
    in_paper = _in_paper(entry, options)
    beside = "" if in_paper is None else f"; the paper's Table 2: {in_paper:.2f}"
    if entry.trained:
        memory = training_memory(entry, options) / 2**30
        lines.append(
            f"training at batch {options.batch} takes about {memory:.1f} GiB, "
            "besides Caffe's own libraries"
        )
    lines.append(f"{total / 1e6:.2f} million parameters{beside}")
    return "\n".join(lines) + "\n"


def training_memory(entry: Entry, options: Options) -> int:
    """The memory in bytes that Caffe allocates to train the net with batches of `options.batch`.

    This counts weights, gradients and momentum; each blob and its gradient; the gradients of the
    copies that Caffe makes of a blob with several readers; and buffers within layers: BatchNorm's
    input, output and copy of the gradient, the input of an in-place Scale, pooling's indices,
    and a convolution's patches of one image. It does not count cuDNN's workspaces.
    """
    net, layers = measured(entry, options, options.batch)
    proto = net.proto()
    values = 3 * _params(layers.values())
    sizes: dict[str, int] = {}
    readers: Counter[str] = Counter()
    for layer in proto.layer:
        if layer.name not in layers:
            continue
        found = layers[layer.name]
        in_place = bool(layer.top) and list(layer.top[:1]) == list(layer.bottom[:1])
        size = prod(found.tops[0]) if found.tops else 0
        if not in_place:
            sizes.update((top, prod(shape)) for top, shape in zip(layer.top, found.tops))
            readers.update(layer.bottom)
        if layer.type == "BatchNorm":
            values += (3 if in_place else 2) * size
        elif layer.type in ("Pooling", "Dropout") or (layer.type == "Scale" and in_place):
            values += size
        elif layer.type == "LRN":
            values += 2 * size
        elif layer.type == "Convolution":
            out, weights = found.tops[0], found.blobs[0]
            if weights[-1] > 1:
                values += prod(weights[1:]) * layer.convolution_param.group * prod(out[2:])
    values += 2 * sum(sizes.values())
    values += sum(count * sizes[blob] for blob, count in readers.items() if count > 1)
    return FLOAT * values


def measured(
    entry: Entry, options: Options, batch: int = 1, deploy: bool = False
) -> tuple[Net, dict[str, Measured]]:
    """The train/test net or the inference net, and its layers by name, for batches of `batch`."""
    tasks = options.tasks
    shape = cached_maps(options) or (3, options.input_size, options.input_size)
    label = ("label", len(tasks)) if len(tasks) > 1 else (f"label_{tasks[0].name}", 1)
    inputs = {"data": (batch, *shape), label[0]: (batch, label[1], 1, 1)}
    net = entry.build(replace(options, deploy=deploy or not entry.trained))
    return net, {layer.name: layer for layer in measure(net.proto(), inputs)}


def _in_paper(entry: Entry, options: Options) -> float | None:
    """Table 2's millions of parameters; None for a net that begins at a later block."""
    return None if options.from_block else paper.params(entry.name, options.task)


def _inference_params(entry: Entry, options: Options) -> int:
    """The parameters of the inference net, which lacks auxiliary heads."""
    return _params(measured(entry, options, deploy=True)[1].values())


def _blocks(net: Net, layers: dict[str, Measured]) -> list[tuple[str, list[Measured]]]:
    return [
        (title, [layers[layer.name] for layer in members if layer.name in layers])
        for title, members in net.groups
    ]


def _params(layers: Any) -> int:
    return sum(layer.params for layer in layers)


def _macs(layers: Any) -> int:
    return sum(layer.macs for layer in layers)


def _row(name: str, width: int, params: int, macs: int, shapes: str = "") -> str:
    return f"{name:{width}} {params:>12,} {macs:>14,}  {shapes}".rstrip()
