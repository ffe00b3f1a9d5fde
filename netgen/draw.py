"""Draw a net in the style of Figure 4 with Graphviz.

Consecutive layers are one box, and sums are circles. The line of a shortcut shows its kind:
identities are solid, projections dotted, cross-residuals dashed. Each task has its own colour.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from netgen.catalog import Entry
from netgen.joints import CROSS
from netgen.names import origin
from netgen.options import Options
from xresnet.basics import files
from xresnet.basics.cli import UserError

FORMATS = ("svg", "png", "pdf", "dot")
COLOURS = ("#c2410c", "#6d28d9", "#0f766e", "#1d4ed8", "#a16207", "#be185d", "#4d7c0f", "#475569")
SHARED = "#374151"
STYLES = {"flow": "solid", "identity": "solid", "projection": "dotted", "cross": "dashed"}
LEGEND = {"identity": "identity", "projection": "projection", "cross": "cross-residual"}
# Layers that are not drawn: in place, or without effect on the shape.
QUIET = {"BatchNorm", "Scale", "ReLU", "Dropout", "LRN", "DummyData", "Sigmoid", "Split"}


@dataclass
class Node:
    """A box with lines of text, or the circle of a sum; `task` is "" if it is shared."""

    name: str
    task: str
    lines: list[str] = field(default_factory=list)
    shape: str = "box"


@dataclass(frozen=True)
class Wire:
    """Where a blob comes from: a node, by the line of `style`."""

    node: str
    style: str = "flow"


Edges = Counter[tuple[str, str, str]]  # the number of lines by source, target and style


def draw(entry: Entry, options: Options, path: str | Path) -> None:
    """Draw the net to a file, in the format of its extension.

    Raises:
        UserError: the file has another extension, or Graphviz is not installed.
    """
    path = Path(path)
    kind = path.suffix.lstrip(".")
    if kind not in FORMATS:
        raise UserError(
            f"--draw {path}: the name must end in {', '.join('.' + f for f in FORMATS)}"
        )
    files.write(path, render(source(entry, options), kind))


def source(entry: Entry, options: Options, branch: bool = False) -> str:
    """The picture of the inference net in Graphviz's language.

    With `branch`, the residual blocks that all tasks share are one box.
    """
    net = entry.build(replace(options, deploy=True)).proto()
    return dot(net, [task.name for task in options.tasks], branch)


def dot(net: Any, tasks: list[str], branch: bool = False) -> str:
    """The picture of a NetParameter in Graphviz's language."""
    nodes, edges = _graph(net, tasks)
    if branch:
        nodes, edges = _branch(nodes, edges)
    there = {style for _, _, style in edges}
    words = [f"{STYLES[style]}: {word}" for style, word in LEGEND.items() if style in there]
    legend = "\\n" + "   ".join(words) if words else ""
    lines = [
        f'digraph "{net.name}" {{',
        f'  label="{net.name}{legend}" labelloc=t fontsize=11 fontname="Helvetica" nodesep=0.3',
        "  ranksep=0.2 bgcolor=white",
        '  node [fontname="Helvetica" fontsize=10 height=0.2 margin="0.1,0.04" style="rounded"]',
        '  edge [arrowsize=0.5 penwidth=1.1 fontname="Helvetica" fontsize=9]',
    ]
    for node in nodes.values():
        colour = _colour(node.task, tasks)
        if node.shape == "circle":
            look = 'shape=circle label="+" width=0.2 fixedsize=true style=solid fontsize=12'
        else:
            look = f'shape={node.shape} label="{_escape(node.lines)}"'
        tower = f' group="{node.task}"' * bool(node.task)  # which Graphviz aligns vertically
        lines.append(f'  "{node.name}" [{look} color="{colour}" fontcolor="{colour}"{tower}]')
    for (source, target, style), count in edges.items():
        colour = _colour(nodes[source].task, tasks)
        across = nodes[source].task != nodes[target].task
        # Lines between towers must not pull them out of the vertical.
        more = " constraint=false" if style == "cross" and across else ""
        more += " weight=8" * (style == "flow")
        more += f' label="x{count}"' * (count > 1)
        lines.append(f'  "{source}" -> "{target}" [style={STYLES[style]} color="{colour}"{more}]')
    return "\n".join([*lines, "}", ""])


def _graph(net: Any, tasks: list[str]) -> tuple[dict[str, Node], Edges]:
    """The nodes by name, and the lines between them."""
    readers = Counter(
        bottom for layer in net.layer for bottom in layer.bottom if bottom not in layer.top
    )
    nodes: dict[str, Node] = {}
    wires: dict[str, Wire] = {}
    edges: Edges = Counter()

    def join(bottom: str, target: str) -> None:
        edges[wires[bottom].node, target, wires[bottom].style] += 1

    for layer in net.layer:
        if layer.type in QUIET and (not layer.bottom or layer.bottom[0] in layer.top):
            continue
        task = origin(layer.name, tasks)[1] or ""
        bottoms = [bottom for bottom in layer.bottom if bottom in wires]
        shortcut = _shortcut(layer)
        if shortcut:
            for top in layer.top if bottoms else ():  # without bottoms: a part of a gate
                wires[top] = Wire(wires[bottoms[0]].node, shortcut)
            continue
        if layer.type in ("Eltwise", "Concat"):
            joins = "circle" if layer.type == "Eltwise" else "box"
            node = nodes[layer.name] = Node(layer.name, task, ["concat"], joins)
            for bottom in bottoms:
                source = nodes[wires[bottom].node]
                # Only the sum reads its residual branch; a blob with other readers is a shortcut.
                if wires[bottom].style == "flow" and readers[bottom] > 1:
                    style = "identity" if source.task in (task, "") else "cross"
                    edges[source.name, layer.name, style] += 1
                else:
                    join(bottom, layer.name)
        else:
            line = _line(layer)
            before = nodes[wires[bottoms[0]].node] if bottoms else None
            alone = bottoms and readers[bottoms[0]] == 1 and wires[bottoms[0]].style == "flow"
            if before and alone and before.shape == "box" and before.task in (task, ""):
                node = before
                node.lines.append(line)
            else:
                node = nodes[layer.name] = Node(layer.name, task, [line])
                for bottom in bottoms:
                    join(bottom, layer.name)
        for top in layer.top:
            wires[top] = Wire(node.name)
    return nodes, edges


def _branch(nodes: dict[str, Node], edges: Edges) -> tuple[dict[str, Node], Edges]:
    """The same with everything up to the last sum before the first task as one box."""
    names = list(nodes)
    first = next((i for i, name in enumerate(names) if nodes[name].task), 0)
    sums = [i for i in range(first) if nodes[names[i]].shape == "circle"]
    if not sums:
        return nodes, edges
    shared = names[: sums[-1] + 1]
    blocks = f"{names[sums[0]]} to {names[sums[-1]]}: {len(sums)} blocks"
    trunk = Node("trunk", "", [nodes[names[0]].lines[0], "the shared trunk,", blocks])
    kept: Edges = Counter()
    for (source, target, style), count in edges.items():
        if target not in shared:
            kept["trunk" if source in shared else source, target, style] += count
    return {"trunk": trunk, **{name: nodes[name] for name in names[sums[-1] + 1 :]}}, kept


def _shortcut(layer: Any) -> str:
    """The style of a layer that is drawn as a line; "" for others."""
    if CROSS in layer.name or (layer.name.startswith("stitch") and layer.type == "Scale"):
        return "cross"
    return "projection" if "_branch1" in layer.name else ""


def _line(layer: Any) -> str:
    """A layer's line in a box: `3x3, 512 /2`."""
    if layer.type == "Convolution":
        p = layer.convolution_param
        stride = f" /{p.stride[0]}" if p.stride and p.stride[0] > 1 else ""
        return f"{p.kernel_size[0]}×{p.kernel_size[0]}, {p.num_output}{stride}"
    if layer.type == "Pooling":
        p = layer.pooling_param
        kind = "max" if p.pool == 0 else "average"
        return f"{kind} pool" + (f" /{p.stride}" if p.stride > 1 else "")
    if layer.type == "InnerProduct":
        return f"fc, {layer.inner_product_param.num_output}"
    if layer.type == "Input":
        shape = layer.input_param.shape[0].dim
        what = "image" if shape[1] == 3 else f"{shape[1]} maps"
        return f"{what}, {shape[2]}×{shape[3]}"
    if layer.type == "Softmax":
        return layer.name.replace("prob_", "softmax: ")
    return {"BatchNorm": "norm, ReLU"}.get(layer.type, layer.type)


def _escape(lines: list[str]) -> str:
    return "\\n".join(line.replace('"', '\\"') for line in lines)


def _colour(task: str, tasks: list[str]) -> str:
    return COLOURS[tasks.index(task) % len(COLOURS)] if task else SHARED


def render(source: str, kind: str) -> bytes:
    """Render a picture as svg, png or pdf; dot is the source itself.

    Raises:
        UserError: Graphviz is not installed.
    """
    if kind == "dot":
        return source.encode()
    arguments = ["-Gdpi=150"] if kind == "png" else []
    program = shutil.which("dot")
    if program:
        command = [program, f"-T{kind}", *arguments]
        ran = subprocess.run(command, input=source.encode(), capture_output=True)
        if ran.returncode == 0:
            return ran.stdout
    try:
        import pygraphviz  # its wheels bring Graphviz along
    except ImportError:
        raise UserError(
            "--draw needs Graphviz: `pip install pygraphviz` (Python 3.10 or later), or your "
            "system's package `graphviz`; or write a .dot file"
        ) from None
    with _quiet():
        graph = pygraphviz.AGraph(string=source)
        return graph.draw(format=kind, prog="dot", args=" ".join(arguments))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence stderr, to which the wheel's fontconfig writes warnings about the system's files."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
