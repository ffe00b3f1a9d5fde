"""Prototxt, Caffe's text format: written to be read by people; errors name line and column."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

from google.protobuf import text_encoding, text_format

from xresnet.basics.cli import UserError, near_miss
from xresnet.basics.files import read_text

ONE_LINE = 80  # characters; a message of scalars that fits is written on one line


def dump(message: Any, indent: str = "") -> str:
    """The message as prototxt, indented by two spaces, with fields in the order of their numbers.

    A short message of scalars is one line: `weight_filler { type: "msra" }`.
    """
    return "".join(f"{indent}{line}\n" for line in _lines(message))


def load(path: str | Path, kind: Any) -> Any:
    """Read a prototxt file as a message of class `kind`.

    Raises:
        UserError: it cannot be read, or is invalid; names file, line and column.
    """
    return loads(read_text(path), kind, str(path))


def loads(text: str, kind: Any, where: str = "prototxt") -> Any:
    """Read prototxt from a string; `where` names its origin in errors."""
    message = kind()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        reason = re.sub(r"^\d+:\d+\s*:\s*", "", str(error))
        place = ":".join(str(n) for n in (error.GetLine(), error.GetColumn()) if n is not None)
        raise UserError(f"{where}:{place}: {reason}{_hint(reason, kind)}") from error
    return message


def _lines(message: Any) -> list[str]:
    lines = []
    for field, value in message.ListFields():
        for item in value if _repeated(field) else [value]:
            if field.message_type is None:
                lines.append(f"{field.name}: {_scalar(field, item)}")
                continue
            inner = _lines(item)
            one = f"{field.name} {{ {' '.join(inner)} }}" if inner else f"{field.name} {{ }}"
            if len(one) <= ONE_LINE and not any(line.endswith(("{", "}")) for line in inner):
                lines.append(one)
            else:
                lines += [f"{field.name} {{", *(f"  {line}" for line in inner), "}"]
    return lines


def _repeated(field: Any) -> bool:
    # `label` is deprecated in favour of `is_repeated`, which old releases of protobuf lack.
    repeated = getattr(field, "is_repeated", None)
    return field.label == field.LABEL_REPEATED if repeated is None else repeated


def _scalar(field: Any, value: Any) -> str:
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    if field.type == field.TYPE_BOOL:
        return "true" if value else "false"
    if field.type == field.TYPE_STRING:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if field.type == field.TYPE_BYTES:
        return '"' + text_encoding.CEscape(value, as_utf8=False) + '"'
    if field.type == field.TYPE_FLOAT:
        return _shortest(value)
    return repr(value)


def _shortest(value: float) -> str:
    """The shortest decimal that is the same 32-bit float: 0.0001, not 9.99999975e-05."""
    for digits in range(6, 10):
        short = f"{value:.{digits}g}"
        if struct.pack("f", float(short)) == struct.pack("f", value):
            break
    return short


def _hint(reason: str, kind: Any) -> str:
    """A suggestion for an unknown field, from the names that its message has."""
    unknown = re.search(r'Message type "caffe\.([\w.]+)" has no field named "(\w+)"', reason)
    if not unknown:
        return ""
    message = kind.DESCRIPTOR.file.message_types_by_name.get(unknown.group(1))
    return near_miss(unknown.group(2), message.fields_by_name) if message else ""
