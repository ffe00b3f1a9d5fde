"""Nets that nobody means: whatever a prototxt says, it runs or ends in one clear line."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")

from torchcaffe.layers.base import LAYERS  # noqa: E402
from torchcaffe.net import Net  # noqa: E402
from xresnet.basics.cli import UserError  # noqa: E402
from xresnet.caffeproto import TEST, TRAIN, NetParameter, text  # noqa: E402

# A little of everything; each layer reads blobs that fit it.
NET = """
name: "n"
layer { name: "x" type: "Input" top: "x" top: "t"
        input_param { shape { dim: [2, 4, 6, 6] } shape { dim: [2, 1] } } }
layer { name: "c" type: "Convolution" bottom: "x" top: "c"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "b" type: "BatchNorm" bottom: "c" top: "c" }
layer { name: "s" type: "Scale" bottom: "c" top: "c" scale_param { bias_term: true } }
layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "e" type: "Eltwise" bottom: "x" bottom: "c" top: "e" }
layer { name: "j" type: "Concat" bottom: "e" bottom: "c" top: "j" }
layer { name: "l" type: "Slice" bottom: "j" top: "l1" top: "l2" slice_param { slice_point: 4 } }
layer { name: "n" type: "LRN" bottom: "l1" top: "n" }
layer { name: "h" type: "Reshape" bottom: "l2" top: "h" reshape_param { shape { dim: [0, -1] } } }
layer { name: "d" type: "Deconvolution" bottom: "p" top: "d"
        convolution_param { num_output: 2 kernel_size: 2 stride: 2 } }
layer { name: "k" type: "Crop" bottom: "x" bottom: "p" top: "k" crop_param { axis: 2 } }
layer { name: "i" type: "Tile" bottom: "h" top: "i" tile_param { tiles: 2 } }
layer { name: "a" type: "Reduction" bottom: "i" top: "a" }
layer { name: "o" type: "Flatten" bottom: "n" top: "o" }
layer { name: "f" type: "InnerProduct" bottom: "p" top: "f" inner_product_param { num_output: 3 } }
layer { name: "v" type: "Embed" bottom: "t" top: "v" embed_param { input_dim: 3 num_output: 2 } }
layer { name: "z" type: "DummyData" top: "z" dummy_data_param { shape { dim: [2, 3] } } }
layer { name: "w" type: "SoftmaxWithLoss" bottom: "f" bottom: "t" top: "w" }
layer { name: "u" type: "Accuracy" bottom: "f" bottom: "t" top: "u" }
layer { name: "g" type: "ArgMax" bottom: "f" top: "g" }
"""
NUMBERS = st.sampled_from([0, 1, 2, 3, 7, -1, -2, -9, 2**31 - 1, 2**32 - 1])
NAMES = st.sampled_from(
    [
        "",
        "x",
        "c",
        "f",
        "a²",
        "ﬁ",
        "fi",
        "\0",
        "a.b",
        "layer",
        "F",
        "torch",
        "del",
        "None",
        "'",
        "1",
    ]
) | st.text(max_size=3)


def put(field, message, draw) -> None:
    """A drawn value into one field of `message`, if the schema takes it."""
    if field.message_type is not None:
        inner = getattr(message, field.name)
        inner = inner.add() if field.is_repeated else inner
        if field.message_type.fields:
            put(draw(st.sampled_from(list(field.message_type.fields))), inner, draw)
        return
    kinds = {
        field.CPPTYPE_STRING: NAMES,
        field.CPPTYPE_BOOL: st.booleans(),
        field.CPPTYPE_FLOAT: st.sampled_from([0.0, 1.0, -1.0, float("nan"), float("inf"), 1e30]),
    }
    if field.cpp_type == field.CPPTYPE_ENUM:
        value = draw(st.sampled_from(list(field.enum_type.values_by_number)))
    else:
        value = draw(kinds.get(field.cpp_type, NUMBERS))
    try:
        if not field.is_repeated:
            setattr(message, field.name, value)
        elif field.name == "dim" and draw(st.booleans()):
            getattr(message, field.name).extend([value] * draw(st.sampled_from([1, 2, 33, 65])))
        else:
            getattr(message, field.name)[:] = [value] * draw(st.integers(0, 3))
    except (ValueError, TypeError):  # too large for the field
        return


def spoil(net, draw) -> None:
    """One change to one layer: its type, its blobs, or a field of what its type reads."""
    layer = draw(st.sampled_from(list(net.layer)))
    what = draw(st.sampled_from(["param", "param", "param", "type", "blobs", "field", "net"]))
    if what == "type":
        layer.type = draw(st.sampled_from(sorted(LAYERS)))
    elif what == "blobs":
        blobs = draw(st.sampled_from([layer.bottom, layer.top]))
        blobs[:] = draw(st.lists(st.sampled_from(["x", "t", "c", "f", "new", "ﬁ"]), max_size=3))
    elif what == "net":
        net.name = draw(NAMES)
    else:
        fields = [
            f
            for f in layer.DESCRIPTOR.fields
            if (f.name in (one.name for one, _ in layer.ListFields()) or what == "field")
            and (f.name.endswith("_param") == (what == "param") or f.name == "param")
            and f.name not in ("blobs", "phase", "include", "exclude")
        ]
        if fields:
            put(draw(st.sampled_from(fields)), layer, draw)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_spoilt_net_runs_or_ends_in_one_clear_line(data):
    proto = text.loads(NET, NetParameter)
    for _ in range(data.draw(st.integers(1, 3))):
        spoil(proto, data.draw)
    phase = data.draw(st.sampled_from([TRAIN, TEST]))
    try:
        net = Net(proto, phase)
    except UserError as error:
        assert "\n" not in str(error).strip()
        return
    if sum(map(prod, net.shapes.values())) > 100_000:
        return
    fed = {name: torch.zeros(shape) for name, shape in net.inputs.items()}
    tops = net(**fed)
    assert set(tops) == {*net.outputs, *net.losses}
    for name, top in tops.items():
        assert tuple(top.shape) == net.shapes[name], name
