"""Our schema against real pycaffe's, and prototxt in and out."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given
from hypothesis import strategies as st

from xresnet import caffeproto
from xresnet.basics.cli import UserError
from xresnet.caffeproto import Datum, LayerParameter, NetParameter, text

# Run by pycaffe: its own descriptors, serialised, and ours loaded beside them.
DUMP_DESCRIPTORS = """
import sys
sys.path.insert(0, sys.argv[1])
import caffe
from caffe.proto import caffe_pb2
from xresnet import caffeproto
assert caffeproto.NetParameter is not caffe_pb2.NetParameter
net = caffeproto.NetParameter(name="both in one process")
assert caffe_pb2.NetParameter.FromString(net.SerializeToString()).name == net.name
sys.stdout.write(caffe_pb2.DESCRIPTOR.serialized_pb.hex())
"""


def fields(message) -> dict:
    """Name to (number, type, label, default, packed) of a DescriptorProto's fields."""
    return {
        f.name: (
            f.number,
            f.type,
            f.label,
            f.type_name,
            # repr of a default may differ (1e-05, 9.99e-06): compare the numbers
            _number(f.default_value),
            f.options.packed,
        )
        for f in message.field
    }


def _number(default: str):
    try:
        return float(default)
    except ValueError:
        return default


def enums(owner) -> dict:
    return {e.name: {v.name: v.number for v in e.value} for e in owner.enum_type}


@pytest.mark.caffe
def test_every_field_is_real_caffes(caffe_tools, root):
    dumped = subprocess.run(
        [caffe_tools["pycaffe"], "-c", DUMP_DESCRIPTORS, root],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    real = descriptor_pb2.FileDescriptorProto.FromString(bytes.fromhex(dumped))
    ours = descriptor_pb2.FileDescriptorSet.FromString(caffeproto.DESCRIPTOR.read_bytes()).file[0]
    real_messages = {m.name: m for m in real.message_type}
    assert len(ours.message_type) > 50
    for message in ours.message_type:
        real_fields = fields(real_messages[message.name])
        for name, facts in fields(message).items():
            own = message.name in ("SolverParameter", "SolverState")
            if own and facts[0] > 1000:  # torchcaffe's own, and said so in the schema
                assert name not in real_fields
                continue
            assert facts == real_fields[name], f"{message.name}.{name}"
        real_enums = enums(real_messages[message.name])
        for name, values in enums(message).items():
            assert values == real_enums[name], f"{message.name}.{name}"
    assert enums(ours) == enums(real)


def test_descriptor_is_what_protoc_makes_of_the_schema(tmp_path):
    made = tmp_path / "caffe.desc"
    folder = caffeproto.SCHEMA.parent
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", folder]
    subprocess.run([*command, "--descriptor_set_out", made, "caffe.proto"], check=True)
    committed, fresh = (
        descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
        for path in (caffeproto.DESCRIPTOR, made)
    )
    assert committed == fresh, "run: make schema"


def test_short_messages_take_one_line():
    layer = LayerParameter(
        name='a "quoted" name',
        convolution_param={"num_output": 3, "weight_filler": {"type": "msra"}},
        param=[{"lr_mult": 0.0001, "decay_mult": 0}],
    )
    assert text.dump(layer) == (
        'name: "a \\"quoted\\" name"\n'
        "param { lr_mult: 0.0001 decay_mult: 0 }\n"
        "convolution_param {\n"
        "  num_output: 3\n"
        '  weight_filler { type: "msra" }\n'
        "}\n"
    )


@given(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
)
def test_dump_and_load_round_trip(number, string, data):
    net = NetParameter(name=string, layer=[{"loss_weight": [number], "type": string}])
    assert text.loads(text.dump(net), NetParameter) == net
    datum = Datum(data=data, float_data=[number])
    assert text.loads(text.dump(datum), Datum) == datum


def test_a_mistake_is_named_with_file_line_and_near_miss(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('name: "x"\nlayer {\n  nmae: "conv1"\n}\n')
    with pytest.raises(UserError, match=r"net\.prototxt:3.*nmae.*did you mean 'name'"):
        text.load(path, NetParameter)
    with pytest.raises(UserError, match=r"cannot read .*missing\.prototxt"):
        text.load(tmp_path / "missing.prototxt", NetParameter)


def test_importing_ours_leaves_protobufs_default_pool_alone():
    script = (
        "import json; from xresnet import caffeproto\n"
        "from google.protobuf import descriptor_pool as d\n"
        "try: d.Default().FindMessageTypeByName('caffe.NetParameter'); print('true')\n"
        "except KeyError: print('false')"
    )
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert json.loads(out.stdout) is False
