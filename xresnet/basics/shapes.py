"""Check JSON files of this project against a shape, as anything may have changed them.

A shape is a type (`float` takes integers too), None, a tuple of shapes any of which will do,
`[shape]` for a list of such, `{str: shape}` for an object of such under any names, or
`{"name": shape, "other?": shape}` for one that has these names, the second of them perhaps.
"""

from __future__ import annotations

import json
from typing import Any

from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike, read_text

_WORDS = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
_WORDS |= {dict: "an object", list: "a list", type(None): "null"}


def read(path: PathLike, shape: Any) -> Any:
    """The JSON of a file, in that shape.

    Raises:
        UserError: it cannot be read, is not JSON (or is cut short), or has another shape:
            the file, and the place in it.
    """
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON, or cut short ({error.msg})") from error
    except RecursionError:
        raise UserError(f"{path}: nested too deep") from None
    return hold(value, shape, str(path))


def hold(value: Any, shape: Any, where: str) -> Any:
    """`value`, which stands at `where`, if it has the shape.

    Raises:
        UserError: it has not: where, and what was expected.
    """
    if isinstance(shape, tuple):
        if not any(_holds(value, one) for one in shape):
            words = " or ".join(_words(one) for one in shape)
            raise UserError(f"{where}: expected {words}, not {_shown(value)}")
    elif isinstance(shape, list):
        _hold_type(value, list, where)
        for i, item in enumerate(value):
            hold(item, shape[0], f"{where}[{i}]")
    elif isinstance(shape, dict):
        _hold_type(value, dict, where)
        for name, inner in shape.items():
            if name is str:
                for key, item in value.items():
                    hold(item, inner, f"{where}: {key}")
                continue
            key, optional = name.rstrip("?"), name.endswith("?")
            if key in value:
                hold(value[key], inner, f"{where}: {key}")
            elif not optional:
                raise UserError(f"{where}: {key!r} is missing")
    else:
        _hold_type(value, shape, where)
    return value


def _holds(value: Any, shape: Any) -> bool:
    try:
        hold(value, shape, "")
    except UserError:
        return False
    return True


def _hold_type(value: Any, kind: type | None, where: str) -> None:
    kind = kind or type(None)
    kinds = (int, float) if kind is float else kind
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{where}: expected {_words(kind)}, not {_shown(value)}")


def _words(shape: Any) -> str:
    if isinstance(shape, (dict, list)):
        shape = type(shape)
    return _WORDS[shape or type(None)]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
