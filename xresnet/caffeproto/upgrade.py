"""Upgrade nets from older formats by Caffe's own rules, and complete solvers as Caffe does.

A net has one of three formats: nested layers, typed by lower-case words (V0, 2013); `layers {}`,
typed by an enum, with `blobs_lr` and `weight_decay` (V1, 2014); and `layer {}` (2015 and later).
Over time, transformations also moved out of the data layers' parameters, `input:` became a layer,
and BatchNorm's statistics lost their learning-rate multipliers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xresnet.basics.cli import UserError, near_miss
from xresnet.caffeproto import LayerParameter, NetParameter, SolverParameter, text

# Types of V1 whose later name is not the same in camel case.
_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "IM2COL": "Im2col",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}
_OLDEST = {  # V0's words that are not V1's in lower case
    "conv": "CONVOLUTION",
    "images": "IMAGE_DATA",
    "innerproduct": "INNER_PRODUCT",
    "pool": "POOLING",
}
_SINCE_V0 = (
    *("accuracy", "bnll", "concat", "data", "dropout", "euclidean_loss", "flatten", "hdf5_data"),
    *("hdf5_output", "im2col", "infogain_loss", "lrn", "multinomial_logistic_loss", "relu"),
    *("sigmoid", "softmax", "softmax_loss", "split", "tanh", "window_data"),
)

# Where a field of V0 is today: the message, by the layer's type in V0, and the field in it.
_WEIGHTED = {"conv": "convolution_param", "innerproduct": "inner_product_param"}
_WINDOWS = {"conv": "convolution_param", "pool": "pooling_param"}
_READING = {
    "data": "data_param",
    "hdf5_data": "hdf5_data_param",
    "images": "image_data_param",
    "window_data": "window_data_param",
}
_FIELDS: dict[str, tuple[dict[str, str], str]] = {
    "num_output": (_WEIGHTED, "num_output"),
    "biasterm": (_WEIGHTED, "bias_term"),
    "weight_filler": (_WEIGHTED, "weight_filler"),
    "bias_filler": (_WEIGHTED, "bias_filler"),
    "pad": (_WINDOWS, "pad"),
    "kernelsize": (_WINDOWS, "kernel_size"),
    "stride": (_WINDOWS, "stride"),
    "group": ({"conv": "convolution_param"}, "group"),
    "pool": ({"pool": "pooling_param"}, "pool"),
    "dropout_ratio": ({"dropout": "dropout_param"}, "dropout_ratio"),
    **{name: ({"lrn": "lrn_param"}, name) for name in ("local_size", "alpha", "beta", "k")},
    "source": ({**_READING, "infogain_loss": "infogain_loss_param"}, "source"),
    "batchsize": (_READING, "batch_size"),
    "rand_skip": ({"data": "data_param", "images": "image_data_param"}, "rand_skip"),
    "shuffle_images": ({"images": "image_data_param"}, "shuffle"),
    "new_height": ({"images": "image_data_param"}, "new_height"),
    "new_width": ({"images": "image_data_param"}, "new_width"),
    "concat_dim": ({"concat": "concat_param"}, "concat_dim"),
    "det_fg_threshold": ({"window_data": "window_data_param"}, "fg_threshold"),
    "det_bg_threshold": ({"window_data": "window_data_param"}, "bg_threshold"),
    "det_fg_fraction": ({"window_data": "window_data_param"}, "fg_fraction"),
    "det_context_pad": ({"window_data": "window_data_param"}, "context_pad"),
    "det_crop_mode": ({"window_data": "window_data_param"}, "crop_mode"),
}
_TRANSFORMS = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size"}
_TRANSFORMED = ("scale", "mean_file", "crop_size", "mirror")


def upgraded(net: Any) -> Any:
    """The net in the newest format: `net` itself if it is, else a new message.

    Raises:
        UserError: Caffe refuses to upgrade a layer, or the net has both `layers` and `layer`.
    """
    norms = [one for one in net.layer if one.type == "BatchNorm" and len(one.param) == 3]
    learning = any(param.lr_mult or param.decay_mult for one in norms for param in one.param)
    if not (net.layers or net.input or learning):
        return net
    if net.layers and net.layer:
        raise UserError(
            f"net {net.name!r} has both `layers` and `layer`: Caffe would ignore the latter; "
            "write all in one format"
        )
    new = NetParameter()
    new.CopyFrom(net)
    for field in ("layers", "layer", "input", "input_dim", "input_shape"):
        new.ClearField(field)
    new.layer.extend([*_inputs(net), *net.layer])
    new.layer.extend(map(_from_v1, _without_padding(net.layers)))
    for layer in new.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:  # statistics are not learned
            for param in layer.param:
                param.lr_mult = param.decay_mult = 0
    return new


def load_solver(path: Path | str) -> Any:
    """Read a solver, with its snapshot_prefix completed as by Caffe.

    Without a prefix, or with a folder, snapshots are named after the solver's file.

    Raises:
        UserError: the file cannot be read, or is invalid; names file, line and column.
    """
    path = Path(path)
    solver = text.load(path, SolverParameter)
    if not solver.HasField("snapshot_prefix"):
        solver.snapshot_prefix = str(path.with_suffix(""))
    elif solver.snapshot_prefix and Path(solver.snapshot_prefix).is_dir():
        solver.snapshot_prefix = str(Path(solver.snapshot_prefix) / path.stem)
    return solver


def _inputs(net: Any) -> list[Any]:
    """The Input layer in place of a deploy net's `input: "data" input_dim: 1 ...`."""
    if not net.input:
        return []
    shapes = [list(shape.dim) for shape in net.input_shape]
    if not shapes:
        dims = list(net.input_dim)
        shapes = [dims[i : i + 4] for i in range(0, len(dims), 4)]
    if len(shapes) != len(net.input):
        raise UserError(f"net {net.name!r}: {len(net.input)} inputs with {len(shapes)} shapes")
    shape = [{"dim": dims} for dims in shapes]
    return [LayerParameter(name="input", type="Input", top=net.input, input_param={"shape": shape})]


def _without_padding(layers: Any) -> list[Any]:
    """The layers, V0's as V1's; a padding layer of V0 is merged into the layer that reads it."""
    padding = {
        layer.top[0]: layer
        for layer in layers
        if layer.HasField("layer") and layer.layer.type == "padding" and layer.top
    }
    made = []
    for layer in layers:
        if not layer.HasField("layer"):
            made.append(layer)
            continue
        if layer.layer.type == "padding":
            continue
        one = type(layer)()
        one.CopyFrom(layer)
        for i, bottom in enumerate(one.bottom):
            if bottom in padding:
                if one.layer.type not in _WINDOWS:
                    raise UserError(
                        f"layer {one.layer.name!r} ({one.layer.type}): padding goes before "
                        "conv and pool only"
                    )
                one.layer.pad = padding[bottom].layer.pad
                one.bottom[i] = padding[bottom].bottom[0]
        made.append(_from_v0(one))
    return made


def _from_v0(layer: Any) -> Any:
    """A layer of V0 as one of V1."""
    old, kind = layer.layer, layer.layer.type
    if kind not in _OLDEST and kind not in _SINCE_V0:
        hint = near_miss(kind, [*_OLDEST, *_SINCE_V0])
        raise UserError(f"layer {old.name!r}: unknown layer type {kind!r}{hint}")
    new = type(layer)(name=old.name, bottom=layer.bottom, top=layer.top)
    types = new.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_name
    new.type = types[_OLDEST.get(kind, kind.upper())].number
    for several in ("blobs", "blobs_lr", "weight_decay"):
        getattr(new, several).extend(getattr(old, several))
    for field, value in old.ListFields():
        name = field.name
        if name in _TRANSFORMS or name == "mirror":
            setattr(new.transform_param, _TRANSFORMS.get(name, name), value)
        elif name == "hdf5_output_param":
            new.hdf5_output_param.CopyFrom(value)
        elif name in _FIELDS:
            homes, there = _FIELDS[name]
            if kind not in homes:
                raise UserError(f"layer {old.name!r} ({kind}): this type has no field {name}")
            _put(getattr(new, homes[kind]), there, value)
        elif name not in ("name", "type", "blobs", "blobs_lr", "weight_decay"):
            raise UserError(f"layer {old.name!r} ({kind}): {name} is no longer supported")
    return new


def _from_v1(layer: Any) -> Any:
    """A layer of V1 in the newest format."""
    new = LayerParameter(name=layer.name, bottom=layer.bottom, top=layer.top)
    word = layer.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[layer.type].name
    new.type = _TYPES.get(word, word.title().replace("_", ""))
    for several in ("include", "exclude", "blobs", "loss_weight"):
        getattr(new, several).extend(getattr(layer, several))
    lists = (layer.param, layer.blob_share_mode, layer.blobs_lr, layer.weight_decay)
    for values, field in zip(lists, ("name", "share_mode", "lr_mult", "decay_mult")):
        for i, value in enumerate(values):
            while len(new.param) <= i:
                new.param.add()
            setattr(new.param[i], field, value)
    for field, value in layer.ListFields():
        if field.name.endswith("_param"):
            getattr(new, field.name).CopyFrom(value)
    for reader in ("data_param", "image_data_param", "window_data_param"):
        if new.HasField(reader):
            _move_transformation(new, getattr(new, reader))
    return new


def _move_transformation(layer: Any, reader: Any) -> None:
    """Move the image transformations of a data layer to its transform_param."""
    for name in _TRANSFORMED:
        if reader.HasField(name):
            setattr(layer.transform_param, name, getattr(reader, name))
            reader.ClearField(name)


def _put(message: Any, name: str, value: Any) -> None:
    """Set a field to a value or a message, or a repeated field to one value."""
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.message_type is not None:
        getattr(message, name).CopyFrom(value)
    elif hasattr(getattr(message, name), "append"):
        getattr(message, name).append(value)
    else:
        setattr(message, name, value)
