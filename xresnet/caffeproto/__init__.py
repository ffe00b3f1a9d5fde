"""Caffe's file formats, read and written without Caffe.

    text        prototxt
    upgrade     nets of older formats -> the newest
    wire        protobuf's wire format, with arrays as views
    caffemodel  weight files and mean images
    datum       the records of databases
    databases   LMDBs, opened for reading

`caffe.proto` is the schema, `caffe.desc` the same compiled (`make schema`). The messages live in
a descriptor pool of their own, because protobuf's default pool holds only one package named
`caffe`, and pycaffe in the same process needs it.

    from xresnet.caffeproto import NetParameter, text
    net = text.load("prototxt/xs.prototxt", NetParameter)
    net.layer[0].data_param.source
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SCHEMA = Path(__file__).with_name("caffe.proto")
DESCRIPTOR = Path(__file__).with_name("caffe.desc")


def _messages() -> dict[str, Any]:
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    (file,) = files.file
    pool.AddSerializedFile(file.SerializeToString())
    if hasattr(message_factory, "GetMessageClass"):
        message_class = message_factory.GetMessageClass
    else:  # protobuf before 4.22, such as the one beside bullseye's pycaffe
        message_class = message_factory.MessageFactory(pool).GetPrototype  # type: ignore[attr-defined]
    return {
        message.name: message_class(pool.FindMessageTypeByName(f"{file.package}.{message.name}"))
        for message in file.message_type
    }


_MESSAGES = _messages()

# The messages that the project names; the others are reached through their fields.
BlobProto = _MESSAGES["BlobProto"]
Datum = _MESSAGES["Datum"]
LayerParameter = _MESSAGES["LayerParameter"]
NetParameter = _MESSAGES["NetParameter"]
NetState = _MESSAGES["NetState"]
SolverParameter = _MESSAGES["SolverParameter"]
SolverState = _MESSAGES["SolverState"]

TRAIN, TEST = 0, 1  # enum Phase
