"""Check the project's JSON files against a shape, since anything may have changed them.

A shape is a type (`float` accepts integers too), None, a tuple of alternative shapes, `[shape]`
for a list, `{str: shape}` for an object with any names, or `{"name": shape, "other?": shape}`
for an object with these names, of which those with a question mark are optional.
"""

from __future__ import annotations

import json
from typing import Any

from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike, read_text

_WORDS = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
_WORDS |= {dict: "an object", list: "a list", type(None): "null"}


def read(path: PathLike, shape: Any) -> Any:
    """Read a JSON file and check its shape.

    Raises:
        UserError: it cannot be read, is not JSON or is cut short, or has another shape; names
            the file and the place in it.
    """
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON, or cut short ({error.msg})") from error
    except RecursionError:
        raise UserError(f"{path}: nested too deep") from None
    return check(value, shape, str(path))


def check(value: Any, shape: Any, where: str) -> Any:
    """Return `value` if it has the shape.

    Args:
        value: what `json.loads` returned, or a part of it.
        shape: as described above.
        where: the place of `value`, for errors.

    Raises:
        UserError: it has another shape; names the place and what was expected.
    """
    if isinstance(shape, tuple):
        if not any(_has(value, one) for one in shape):
            words = " or ".join(_words(one) for one in shape)
            raise UserError(f"{where}: expected {words}, not {_shown(value)}")
    elif isinstance(shape, list):
        _check_type(value, list, where)
        for i, item in enumerate(value):
            check(item, shape[0], f"{where}[{i}]")
    elif isinstance(shape, dict):
        _check_type(value, dict, where)
        for name, inner in shape.items():
            if name is str:
                for key, item in value.items():
                    check(item, inner, f"{where}: {key}")
                continue
            key, optional = name.rstrip("?"), name.endswith("?")
            if key in value:
                check(value[key], inner, f"{where}: {key}")
            elif not optional:
                raise UserError(f"{where}: {key!r} is missing")
    else:
        _check_type(value, shape, where)
    return value


def _has(value: Any, shape: Any) -> bool:
    try:
        check(value, shape, "")
    except UserError:
        return False
    return True


def _check_type(value: Any, kind: type | None, where: str) -> None:
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
