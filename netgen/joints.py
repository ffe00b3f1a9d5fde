"""Joints: the term Ws(j) x(j) of equation 2 (section 5.2.2), by which one task joins another.

A joint is a function with the arguments

    net                 the net so far, to which it may append layers
    x                   the blob of the source's shortcut, N x C x H x W
    block               the residual block, with its `name`, such as 5b, and `width`, C / 4
    source, target      the names of the two tasks
    options             all options of the net

that returns the blob of the term which `target` adds, of the same shape as `x`, or None if nothing
joins the two. The names of its layers contain `CROSS`. `own_scale` is called for each task and
itself, all others for two tasks. `--joint my_joints:half` uses a function of your own.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Optional

from netgen.blocks import Block
from netgen.layers import convolution, norm
from netgen.net import Net
from netgen.options import Options
from xresnet.basics.cli import UserError, near_miss

CROSS = "_cross_"  # in the name of each layer of a joint
Joint = Callable[[Net, str, Block, str, str, Options], Optional[str]]


def zero(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> None:
    """X0: Ws(j) = 0, a multitask net without cross-residuals."""


def identity(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> str:
    """XI: Ws(j) = I."""
    return x


def scale(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> str:
    """XS: a * x, a scaling with one learned weight per channel and no bias.

    Section 5.2 initialises the weights from a zero-mean Gaussian of std sqrt(2/n), where n is the
    mean of input and output units: Caffe's msra filler with AVERAGE, for which the C weights of a
    Scale have n = (1 + C) / 2. `cross_std` sets another std, `cross_start` one value for all.
    """
    filler: dict[str, Any] = {"type": "msra", "variance_norm": "AVERAGE"}
    if options.cross_std is not None:
        filler = {"type": "gaussian", "std": options.cross_std}
    elif options.cross_start is not None:
        filler = {"type": "constant", "value": options.cross_start}
    param = {"filler": filler, "bias_term": False}
    return net.layer("Scale", f"res{_pair(block, source, target)}", x, scale_param=param)


def own_scale(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> str:
    """XSelf, a control that is not in the paper: y = F + (1 + a) x, with a as in XS.

    Each task scales its own shortcut and nothing crosses, so what XS gains beyond it comes from
    the other tasks and not from the scaling.
    """
    return scale(net, x, block, source, target, options)


def projection(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> str:
    """XP: a 1x1 convolution to as many channels, then normalisation (named in section 5.2.3)."""
    pair = _pair(block, source, target)
    y = convolution(net, x, f"res{pair}", 4 * block.width, kernel=1)
    return norm(net, y, pair, options, new=True)


def gated(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> str:
    """XG: sigmoid(g) * x, a carry gate with one learned value g per channel.

    Section 3 compares cross-residual weights with the carry gates of highway networks. These gates
    do not depend on the input. They start at sigmoid(-3) = 0.047, about the std of XS's weights.
    Caffe learns g as the Scale of a blob of ones.
    """
    channels = {"shape": [{"dim": [4 * block.width]}]}
    ones = {**channels, "data_filler": [{"type": "constant", "value": 1}]}
    pair = f"res{_pair(block, source, target)}"
    one = net.layer("DummyData", f"{pair}_one", dummy_data_param=ones)
    start = {"axis": 0, "filler": {"type": "constant", "value": -3}}
    g = net.layer("Scale", f"{pair}_gate", one, scale_param=start)
    gate = net.layer("Sigmoid", f"{pair}_sigmoid", g, top=g)
    return net.layer("Scale", pair, x, gate, scale_param={"axis": 1})


def _pair(block: Block, source: str, target: str) -> str:
    """The name of a joint's layers, such as 5b_cross_adj-noun."""
    return f"{block.name}{CROSS}{source}-{target}"


# ---- A user's own joint ----------------------------------------------------------------

TAKES = ("net", "x", "block", "source", "target", "options")  # a joint's arguments


def short_name(joint: str) -> str:
    """The name of the function: `half` for `my_joints:half`."""
    return joint.rpartition(":")[2]


def load(joint: str) -> Callable[..., Any]:
    """The joint `MODULE:FUNCTION`, from the current folder or Python's path.

    The returned function raises a UserError if the user's raises an exception, or returns
    anything but a blob of the net or None.

    Raises:
        UserError: the module or the function does not exist, cannot be imported, or takes other
            arguments than a joint.
    """
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", joint):
        raise UserError(
            f"--joint: {joint!r} is not of the form MODULE:FUNCTION, such as my_joints:half"
        )
    module = _imported(joint.partition(":")[0])
    function = getattr(module, short_name(joint), None)
    if not callable(function):
        there = [one for one, value in vars(module).items() if inspect.isfunction(value)]
        raise UserError(
            f"--joint {joint}: {module.__name__} has no function {short_name(joint)!r}"
            f"{near_miss(short_name(joint), there)}"
        )
    signature = None
    try:
        signature = inspect.signature(function)
        signature.bind(*TAKES)
    except (TypeError, ValueError):  # ValueError: a built-in without a signature
        raise UserError(
            f"--joint {joint}: it takes {signature or 'other arguments'}; "
            f"a joint takes ({', '.join(TAKES)})"
        ) from None

    def checked(net: Any, *more: Any) -> Any:
        try:
            term = function(net, *more)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"--joint {joint}: {_described(error)}") from error
        blobs = {top for layer in net.layers() for top in layer.top}
        if term is not None and (not isinstance(term, str) or term not in blobs):
            raise UserError(
                f"--joint {joint}: it returns {term!r}: neither None nor the name of a blob"
            )
        return term

    return checked


def _imported(module: str) -> ModuleType:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise UserError(
                f"--joint: there is no module {error.name!r} in {here}, nor on Python's path"
            ) from None
        raise UserError(f"--joint: module {module}: {_described(error)}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"--joint: module {module}: {_described(error)}") from error
    finally:
        sys.path.remove(here)


def _described(error: BaseException) -> str:
    """`TypeError: unhashable type: 'list' (my_joints.py:7)`, on one line."""
    if isinstance(error, SyntaxError) and error.filename:
        file, line, said = error.filename, error.lineno, error.msg
    else:
        frames = traceback.extract_tb(error.__traceback__)
        users = [frame for frame in frames if Path(frame.filename).parent != Path(__file__).parent]
        last = (users or frames)[-1]
        file, line, said = last.filename, last.lineno, str(error)
    return f"{type(error).__name__}: {' '.join(said.split())} ({Path(file).name}:{line})"
