"""A net that runs: the layers of one phase as a readable function over a module of layers."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchcaffe import blobs, graph
from torchcaffe.graph import Step, Value
from torchcaffe.layers import Layer, make, top_shapes
from torchcaffe.layers.base import Shape
from torchcaffe.layers.pointwise import Eltwise, ReLU
from torchcaffe.layers.weighted import BatchNorm, Convolution, Deconvolution, InnerProduct, Scale
from xresnet.basics.cli import UserError
from xresnet.caffeproto import TEST, TRAIN, NetParameter


@dataclass
class Learned:
    """One learned array as the solver sees it: Caffe's order, multipliers of its first owner."""

    name: str  # of its layer
    index: int
    blob: Tensor  # a parameter, or of a layer that keeps statistics a buffer
    lr_mult: float
    decay_mult: float


class Net(nn.Module):
    """The layers that a NetParameter has in one phase, as an nn.Module.

    Calling it takes the input blobs, in order or by name, and returns a dict of the output blobs
    and of all tops that carry a loss weight. `source_code()` returns the function that runs.

    Args:
        proto: the NetParameter.
        phase: TRAIN or TEST of `xresnet.caffeproto`.
        level, stages: the rest of the net's state, which include and exclude rules are held to.
        fuse: compute layers together where the result is exactly the same.
        feed_shapes: shapes of input blobs by name, instead of those that the prototxt gives.
        more: names of blobs to return beside the outputs.

    Attributes:
        inputs: the shapes of the input blobs, by name. The first axis may differ at each call.
        outputs: the names of the blobs that no layer reads, in order, then those of `more`.
        losses: the loss weight of each top that has one, by name.
        shapes: the shapes of all blobs, by name.
        readers: the steps that read each value, once for each bottom.
        kept: the values that are outputs or losses.
        learned: all learned arrays, in Caffe's order.
        feeds: the LayerParameters of the layers that are fed from outside.

    Raises (on construction):
        UserError: an unknown layer type, a bottom that no layer produces, or shapes that do not
            fit each other.
    """

    def __init__(
        self,
        proto: Any,
        phase: int = TEST,
        level: int = 0,
        stages: Sequence[str] = (),
        fuse: bool = True,
        feed_shapes: dict[str, Shape] | None = None,
        more: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.proto = graph.filtered(proto, graph.state(phase, level, stages))
        self.name = self.proto.name
        self.phase = phase
        self.layer = nn.ModuleDict()
        self.steps: list[Step] = graph.steps(self.proto)
        self.inputs: dict[str, Shape] = {}
        self.shapes: dict[str, Shape] = {}
        self.losses: dict[str, float] = {}
        self.learned: list[Learned] = []
        self.feeds: list[Any] = []
        self._keys: dict[str, str] = {}
        self._owners: dict[str, Learned] = {}
        for step in self.steps:
            self._add(step, feed_shapes or {})
        self.readers: dict[Value, list[Step]] = {}
        for step in self.steps:
            for value in step.bottoms:
                self.readers.setdefault(value, []).append(step)
        made = [value for step in self.steps for value in step.tops]
        self.outputs = [value.name for value in made if value not in self.readers]
        self.outputs += [name for name in more if name not in self.outputs]
        last = {value.name: value for value in made}
        self.kept = {last[name] for name in self.outputs}
        self.kept.update(value for value in made if value.name in self.losses)
        self.requires_data = bool(self.inputs)
        self._source = _Writer(self, fuse).text()
        scope: dict[str, Any] = {"torch": torch, "F": F}
        exec(compile(self._source, f"<net {self.name!r}>", "exec"), scope)
        self._run = scope["forward"]

    # ---- running ------------------------------------------------------------

    def forward(self, *first: Tensor, **fed: Tensor) -> dict[str, Tensor]:
        """Computes the outputs and every top with a loss weight.

        Args:
            first: the input blobs in the order of `inputs`.
            fed: the input blobs by name.

        Returns:
            The blobs by name.

        Raises:
            UserError: an input is missing, or there are more than the net takes.
        """
        return self._run(self.layer, *self.named(first, fed).values())

    def named(self, first: Sequence[Tensor], fed: dict[str, Tensor]) -> dict[str, Tensor]:
        """The arguments of `forward` by name, in the order of `inputs`; it raises the same."""
        if len(first) > len(self.inputs):
            raise UserError(f"net {self.name!r} takes {', '.join(self.inputs)}, and no more")
        given = {**dict(zip(self.inputs, first)), **fed}
        missing = self.inputs.keys() - given.keys()
        if missing:
            raise UserError(f"net {self.name!r} was not fed {', '.join(sorted(missing))}")
        return {name: given[name] for name in self.inputs}

    def loss(self, tops: dict[str, Tensor]) -> Tensor | None:
        """The weighted sum of the losses among `tops`, as `forward` returns them.

        None where the net has no loss.
        """
        terms = [w * tops[name].sum() for name, w in self.losses.items()]
        return sum(terms[1:], terms[0]) if terms else None

    def all_blobs(self, **fed: Tensor) -> dict[str, Tensor]:
        """Runs layer by layer, without fusing any, and returns every blob by name.

        Of a blob that layers change in place, this is the last state.
        """
        values: dict[Value, Tensor] = {}
        for step, made in self.run_steps(values, fed):
            values.update(zip(step.tops, made))
        return {value.name: tensor for value, tensor in values.items()}

    def run_steps(
        self, values: dict[Value, Tensor], fed: dict[str, Tensor]
    ) -> Iterator[tuple[Step, list[Tensor]]]:
        """Yields each step with its tops, computed from `values`, which the caller keeps up."""
        for step in self.steps:
            if step.param.type in graph.FED:
                yield step, [fed[value.name] for value in step.tops]
                continue
            bottoms = [
                values[v].detach() if stopped else values[v]
                for v, stopped in zip(step.bottoms, graph.stopped(step))
            ]
            tops = self.layer_named(step.param.name)(*bottoms)
            yield step, list(tops) if isinstance(tops, tuple) else [tops]

    def source_code(self) -> str:
        """The function that `forward` runs, as Python source."""
        return self._source

    def layer_named(self, name: str) -> Layer:
        """The layer called `name` in the prototxt."""
        return cast(Layer, self.layer[self._keys[name]])

    def layers(self) -> Iterator[Layer]:
        """All layers in order, except those that are fed from outside."""
        return cast(Iterator[Layer], iter(self.layer.values()))

    # ---- neighbours ---------------------------------------------------------

    def reader(self, step: Step) -> Step | None:
        """The layer that alone reads the one top of `step`, which is not kept."""
        if len(step.tops) != 1 or step.tops[0] in self.kept:
            return None
        readers = self.readers.get(step.tops[0], [])
        return readers[0] if len(readers) == 1 else None

    def scale_behind(self, step: Step) -> Step | None:
        """The Scale by channel that alone reads `step`, and reads nothing else."""
        found = self._behind(step)
        made = found and self.layer_named(found.param.name)
        return found if isinstance(made, Scale) and made.channelwise else None

    def relu_behind(self, step: Step) -> Step | None:
        """The plain ReLU that alone reads `step`."""
        found = self._behind(step)
        made = found and self.layer_named(found.param.name)
        return found if isinstance(made, ReLU) and made.plain else None

    def affine(self, norm: Step) -> tuple[Tensor, Tensor, Step]:
        """A BatchNorm by its running statistics, the Scale behind it included.

        Returns:
            The factor and the term of each channel, and the last of the steps.
        """
        scale = self.scale_behind(norm)
        factor, term = cast(BatchNorm, self.layer_named(norm.param.name)).affine()
        if scale is not None:
            gamma, *beta = self.layer_named(scale.param.name).blobs
            factor, term = factor * gamma, term * gamma
            term = term + beta[0] if beta else term
        return factor, term, scale or norm

    def _behind(self, step: Step) -> Step | None:
        found = self.reader(step)
        if found is None or len(found.bottoms) != 1 or any(graph.stopped(found)):
            return None
        return found

    # ---- weights ------------------------------------------------------------

    @torch.no_grad()
    def copy_from(self, weights: Any, where: str = "weights") -> list[str]:
        """Copies the blobs of the layers that have the same name, as Caffe does.

        Args:
            weights: a NetParameter with blobs.
            where: the file it came from, for messages.

        Returns:
            The names of the layers that got blobs.

        Raises:
            UserError: a layer has another number of blobs, or blobs of other shapes.
        """
        got = []
        oldest = [one.layer if one.HasField("layer") else one for one in weights.layers]
        for source in [*oldest, *weights.layer]:
            if not source.blobs or source.name not in self._keys:
                continue
            target = self.layer_named(source.name).blobs
            if len(target) != len(source.blobs):
                raise UserError(
                    f"{where}: layer {source.name!r} has {len(source.blobs)} blobs, "
                    f"the net's has {len(target)}"
                )
            for i, (blob, mine) in enumerate(zip(source.blobs, target)):
                if not blobs.fits(blob, tuple(mine.shape)):
                    told = "x".join(map(str, blobs.shape_of(blob)))
                    raise UserError(
                        f"{where}: layer {source.name!r}, blob {i} is {told}, "
                        f"the net's {'x'.join(map(str, mine.shape))}; "
                        "rename the layer to start it afresh"
                    )
                try:
                    array = blobs.from_proto(blob).reshape(mine.shape)
                except UserError as error:
                    raise UserError(f"{where}: layer {source.name!r}, blob {i}: {error}") from error
                mine.copy_(torch.from_numpy(array))
            got.append(source.name)
        return got

    def to_proto(self) -> Any:
        """The NetParameter with all blobs, which is the content of a .caffemodel."""
        out = NetParameter(name=self.name)
        for step in self.steps:
            layer = out.layer.add()
            layer.CopyFrom(step.param)
            layer.ClearField("blobs")
            if step.param.name in self._keys:
                layer.blobs.extend(map(blobs.to_proto, self.layer_named(step.param.name).blobs))
        return out

    def share(self, other: Net) -> None:
        """Shares the blobs of `other` for the layers of the same name, from now on.

        Raises:
            UserError: the blobs of a layer differ in shape.
        """
        for name in self._keys:
            if name not in other._keys:
                continue
            mine, theirs = self.layer_named(name), other.layer_named(name)
            if [b.shape for b in mine.blobs] != [b.shape for b in theirs.blobs]:
                raise UserError(f"layer {name!r}: its blobs differ in shape between the nets")
            mine.blobs = theirs.blobs

    # ---- building -----------------------------------------------------------

    def _add(self, step: Step, feed_shapes: dict[str, Shape]) -> None:
        param = step.param
        if param.type in graph.FED:
            self.feeds.append(param)
            shapes = fed_shapes(param, feed_shapes)
            self.inputs.update(zip(param.top, shapes))
        else:
            bottoms = [self.shapes[value.name] for value in step.bottoms]
            made = make(param, self.phase == TRAIN, bottoms)
            shapes = top_shapes(made, bottoms)
            key = _key(param.name, self.layer)
            self._keys[param.name] = key
            self.layer[key] = made
            self._register(param, made)
            self._weigh(param, made)
        self.shapes.update(zip(param.top, shapes))

    def _register(self, param: Any, made: Layer) -> None:
        """Note the layer's blobs as learned; one that is named is shared with its namesakes."""
        for i, blob in enumerate(made.blobs):
            spec = param.param[i] if i < len(param.param) else None
            owner = self._owners.get(spec.name) if spec is not None and spec.name else None
            if spec is None or owner is None:
                lr = spec.lr_mult if spec is not None else 1.0
                decay = spec.decay_mult if spec is not None else 1.0
                learned = Learned(param.name, i, blob, lr if made.learns else 0.0, decay)
                self.learned.append(learned)
                if spec is not None and spec.name:
                    self._owners[spec.name] = learned
                continue
            permissive = spec.share_mode == spec.PERMISSIVE
            same = owner.blob.numel() == blob.numel() and (
                permissive or owner.blob.shape == blob.shape
            )
            if not same:
                raise made.mistake(f"shares {spec.name!r} with {owner.name!r} in another shape")
            if owner.blob.shape != blob.shape:
                raise made.mistake(f"PERMISSIVE sharing of {spec.name!r} needs equal shapes here")
            made.blobs[i] = owner.blob

    def _weigh(self, param: Any, made: Layer) -> None:
        weights = list(param.loss_weight)
        if weights and len(weights) != len(param.top):
            raise made.mistake(f"{len(weights)} loss_weight for {len(param.top)} tops")
        if not weights and made.loss:
            weights = [1.0]
        self.losses.update((top, w) for top, w in zip(param.top, weights) if w)


class _Writer:
    """Writes a net's forward pass as Python: one line a layer, exact neighbours on one line."""

    def __init__(self, net: Net, fuse: bool) -> None:
        self.net = net
        self.fuse = fuse
        self.names = _identifiers([v.name for step in net.steps for v in step.tops])

    def text(self) -> str:
        net, names = self.net, self.names
        lines = [f"def forward({', '.join(['layer', *(names[n] for n in net.inputs)])}):"]
        body = self._body()
        wanted = list(dict.fromkeys([*net.outputs, *net.losses]))
        keep = {names[name] for name in wanted}
        lines += _with_deletes(body, keep)
        made = ", ".join(f"{name!r}: {names[name]}" for name in wanted)
        return "\n".join(["", *lines, f"    return {{{made}}}", ""]).lstrip("\n")

    def _body(self) -> list[tuple[list[str], list[str], str]]:
        """(names written, names read, line) of each line."""
        body = []
        done: set[int] = set()
        for step in self.net.steps:
            if id(step) in done or step.param.type in graph.FED:
                continue
            chain, call = self._line(step)
            done.update(map(id, chain))
            tops = [self.names[v.name] for v in chain[-1].tops]
            bottoms = [self.names[v.name] for v in step.bottoms]
            left = f"{', '.join(tops)} = " if tops else ""
            body.append((tops, bottoms, f"    {left}{call}"))
        return body

    def _call(self, step: Step, more: str = "") -> str:
        arguments = [
            self.names[v.name] + (".detach()" if stopped else "")
            for v, stopped in zip(step.bottoms, graph.stopped(step))
        ]
        key = self.net._keys[step.param.name]
        return f"layer[{key!r}]({', '.join(arguments)}{more})"

    def _line(self, step: Step) -> tuple[list[Step], str]:
        """The layers that one line computes, beginning with `step`, and its call.

        They are joined where that is exact.
        """
        chain, call = [step], self._call(step)
        if not self.fuse:
            return chain, call
        made = self.net.layer_named(step.param.name)
        scale = self.net.scale_behind(step) if isinstance(made, BatchNorm) else None
        if scale is not None:
            chain.append(scale)
            key = self.net._keys[scale.param.name]
            call = self._call(step, f", *layer[{key!r}].blobs")
        # In place is safe where the backward pass of what comes before needs no output of its own.
        safe = scale is not None or isinstance(made, (Convolution, Deconvolution, InnerProduct))
        safe = safe or (isinstance(made, Eltwise) and made.adds)
        relu = self.net.relu_behind(chain[-1]) if safe else None
        if relu is not None:
            chain.append(relu)
            call = f"F.relu_({call})"
        return chain, call


def _with_deletes(body: list[tuple[list[str], list[str], str]], keep: set[str]) -> list[str]:
    """The lines, each followed by the freeing of what nobody reads from there on."""
    lines, alive = [], set(keep)
    for tops, bottoms, line in reversed(body):
        dead = sorted({*tops, *bottoms} - alive)
        if dead:
            lines.append(f"    del {', '.join(dead)}")
        lines.append(line)
        alive = (alive - set(tops)) | set(bottoms)
    return lines[::-1]


def fed_shapes(param: Any, given: dict[str, Shape]) -> list[Shape]:
    """The shapes of the tops of a layer that is fed from outside.

    They are those of `given`, else those in the prototxt, else those of the first record.

    Raises:
        UserError: a shape that no blob can have, or another number of shapes than of tops.
    """
    shapes = _said_shapes(param, given)
    if len(shapes) != len(param.top):
        raise UserError(f"layer {param.name!r}: {len(shapes)} shapes for {len(param.top)} tops")
    for shape in shapes:
        blobs.sound(shape, lambda what: UserError(f"layer {param.name!r}: {what}"))
    return shapes


def _said_shapes(param: Any, given: dict[str, Shape]) -> list[Shape]:
    if param.bottom:
        raise UserError(f"layer {param.name!r} ({param.type}): takes no bottoms")
    if all(top in given for top in param.top):
        return [tuple(given[top]) for top in param.top]
    if param.type == "Input":
        shapes = [tuple(shape.dim) for shape in param.input_param.shape]
        return shapes * (len(param.top) if len(shapes) == 1 else 1)
    if param.type == "MemoryData":
        p = param.memory_data_param
        return [(p.batch_size, p.channels, p.height, p.width), (p.batch_size,)][: len(param.top)]
    from torchcaffe import data

    return data.shapes(param)


def _key(name: str, taken: nn.ModuleDict) -> str:
    """A name that a module may have, as near to the layer's as can be."""
    key = name.replace(".", "_") or "_"
    while hasattr(taken, key) or key in taken:
        key += "_"
    return key


def _identifiers(names: list[str]) -> dict[str, str]:
    """A Python variable for each blob name."""
    out: dict[str, str] = {}
    used = {"layer", "F", "torch"}
    for name in dict.fromkeys(names):
        word = re.sub(r"\W", "_", name, flags=re.ASCII)  # Python takes ﬁ and fi for one name
        word = f"_{word}" if not word or word[0].isdigit() or keyword.iskeyword(word) else word
        while word in used:
            word += "_"
        used.add(word)
        out[name] = word
    return out
