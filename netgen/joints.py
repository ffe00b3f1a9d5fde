"""What joins two tasks, the term Ws(j) x(j) of equation 2 (section 5.2.2): the nets' and your own.

A joint is a function. It gets

    net                 the net so far, to which it may append layers
    x                   the blob of the source's shortcut, N x C x H x W
    block               the residual block: its `name`, as 5b, and `width`, C / 4
    source, target      the names of the two tasks
    options             all choices

and returns the blob of the term that `target` adds, of the same shape, or None where nothing
joins the two. Its layers carry `CROSS` in their names. `own_scale` is asked for a task and itself,
all others for two tasks. `--joint my_joints:half` takes one from a module of your own.
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

CROSS = "_cross_"  # stands in the name of every layer that makes a term Ws(j) x(j)
Joint = Callable[[Net, str, Block, str, str, Options], Optional[str]]


def zero(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> None:
    """X0: Ws(j) = 0, a standard multitask net."""


def identity(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> str:
    """XI: Ws(j) = I."""
    return x


def scale(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> str:
    """XS: a channelwise scaling a * x, one learned weight a channel and no bias.

    Section 5.2 starts a as a zero-mean Gaussian of std sqrt(2/n), n the mean of
    input and output units: Caffe's msra filler with AVERAGE, which for a
    Scale's C weights takes n = (1 + C) / 2. `cross_std` sets the std outright,
    `cross_start` one value for all.
    """
    filler: dict[str, Any] = {"type": "msra", "variance_norm": "AVERAGE"}
    if options.cross_std is not None:
        filler = {"type": "gaussian", "std": options.cross_std}
    elif options.cross_start is not None:
        filler = {"type": "constant", "value": options.cross_start}
    name = f"res{block.name}{CROSS}{source}-{target}"
    return net.layer("Scale", name, x, scale_param={"filler": filler, "bias_term": False})


def own_scale(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> str:
    """XSelf, a control of ours: y = F + (1 + a) x, each task's own shortcut scaled.

    Its weights start and learn as XS's, but nothing crosses: what XS has beyond it comes
    from the other tasks, not from a gain by channel.
    """
    return scale(net, x, block, source, target, options)


def projection(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> str:
    """XP: a 1x1 convolution of all channels, then normalisation.

    Section 5.2.3 names it as what a larger budget could buy.
    """
    pair = f"{block.name}{CROSS}{source}-{target}"
    y = convolution(net, x, f"res{pair}", 4 * block.width, kernel=1)
    return norm(net, y, pair, options, new=True)


def gated(net: Net, x: str, block: Block, source: str, target: str, options: Options) -> str:
    """XG: sigmoid(g) * x, a carry gate with one learned value a channel.

    Section 3 likens cross-residual weights to the carry gates of highway
    networks; these depend on no input. The gates start as wide as XS's weights,
    sigmoid(-3) = 0.047. Caffe learns g as the Scale of a blob of ones.
    """
    channels = {"shape": [{"dim": [4 * block.width]}]}
    ones = {**channels, "data_filler": [{"type": "constant", "value": 1}]}
    pair = f"res{block.name}{CROSS}{source}-{target}"
    one = net.layer("DummyData", f"{pair}_one", dummy_data_param=ones)
    start = {"axis": 0, "filler": {"type": "constant", "value": -3}}
    g = net.layer("Scale", f"{pair}_gate", one, scale_param=start)
    gate = net.layer("Sigmoid", f"{pair}_sigmoid", g, top=g)
    return net.layer("Scale", pair, x, gate, scale_param={"axis": 1})


# ---- One of your own -----------------------------------------------------------------

TAKES = ("net", "x", "block", "source", "target", "options")  # a joint's arguments


def short_name(joint: str) -> str:
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
                f"--joint: there is no module {error.name!r} in {here}, nor on Python's path"
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
