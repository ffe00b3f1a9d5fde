"""A joint of a user's own, from a module that Python finds: `--joint my_joints:half`."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

from xresnet.basics.cli import UserError, near_miss

TAKES = ("net", "x", "block", "source", "target", "options")  # as netgen.resnet.Joint


def name(joint: str) -> str:
    """The function's name: `half` of `my_joints:half`."""
    return joint.rpartition(":")[2]


def load(joint: str) -> Callable[..., Any]:
    """The function that `MODULE:FUNCTION` names, held to what a joint is.

    The module is looked for in the present folder, then where Python looks.

    Raises:
        UserError: no such module or function, one that cannot be imported, or that takes other
            arguments. Called, the function raises it for what goes wrong inside, and where it
            returns what is no blob of the net.
    """
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", joint):
        raise UserError(f"--joint: {joint!r} is not MODULE:FUNCTION, as in my_joints:half")
    module = _imported(joint.partition(":")[0])
    function = getattr(module, name(joint), None)
    if not callable(function):
        there = [one for one, value in vars(module).items() if inspect.isfunction(value)]
        raise UserError(
            f"--joint {joint}: {module.__name__} has no function {name(joint)!r}"
            f"{near_miss(name(joint), there)}"
        )
    try:
        signature = inspect.signature(function)
        signature.bind(*TAKES)
    except TypeError:
        taken = f"({', '.join(TAKES)})"
        raise UserError(f"--joint {joint}: it takes {signature}; a joint takes {taken}") from None

    def joined(net: Any, *more: Any) -> Any:
        try:
            term = function(net, *more)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"--joint {joint}: {_told(error)}") from error
        blobs = {top for _, layers in net.groups for layer in layers for top in layer.top}
        if term is not None and (not isinstance(term, str) or term not in blobs):
            raise UserError(
                f"--joint {joint}: it returns {term!r}: neither None nor the name of a blob"
            )
        return term

    return joined


def _imported(module: str) -> ModuleType:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise UserError(
                f"--joint: there is no module {error.name!r} in {here}, nor where Python looks"
            ) from None
        raise UserError(f"--joint: module {module}: {_told(error)}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"--joint: module {module}: {_told(error)}") from error
    finally:
        sys.path.remove(here)


def _told(error: BaseException) -> str:
    """`TypeError: unhashable type: 'list' (my_joints.py:7)`, on one line."""
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno
        said = error.msg
    else:
        last = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in last if Path(frame.filename).parent != Path(__file__).parent]
        file, line = (own or last)[-1].filename, (own or last)[-1].lineno
        said = str(error)
    said = " ".join(said.split())
    return f"{type(error).__name__}: {said} ({Path(file).name}:{line})"
