"""Decide which layer of a net is initialised from which layer of which file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from netgen.catalog import Entry
from netgen.names import norm_names, origin
from netgen.option import flag
from netgen.options import Options, Trunk
from netgen.report import measured
from netgen.weights import branch
from netgen.weights.source import Source
from xresnet.basics.cli import UserError
from xresnet.caffeproto.caffemodel import Layer, Shape, fits, shown

BRANCH_INITS = ("fold", "fresh")


@dataclass(frozen=True)
class Target:
    """A layer of the net with parameters.

    Attributes:
        name: its name.
        kind: its Caffe type.
        shapes: the shapes of its blobs.
        origins: the published names that it may be copied from, the best first.
        task: the task that it belongs to, if it is not shared.
    """

    name: str
    kind: str
    shapes: tuple[Shape, ...]
    origins: tuple[str, ...]
    task: str | None


@dataclass
class Report:
    """How each layer is initialised, by name."""

    copied: list[str] = field(default_factory=list)
    copied_to_several: dict[str, list[str]] = field(default_factory=dict)
    folded: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def initial(
    entry: Entry, options: Options, sources: dict[str | None, Source], branch_init: str = "fold"
) -> tuple[str, list[Layer], Report]:
    """The initial weights of a net.

    Args:
        entry: the net.
        options: its options.
        sources: files by task; that of None is for layers which the task's own does not have.
        branch_init: one of BRANCH_INITS.

    Returns:
        the net's name, its initialised layers in order, and the report. Other layers are
        initialised by their fillers.

    Raises:
        UserError: a shape differs, values are not finite, the options differ from those that a
            file needs, or no layer of the files fits.
    """
    for source in sources.values():
        _check_demands(source, options)
        if Trunk in entry.takes:
            _check_widths(source, options)
    net, wanted = _targets(entry, options)
    found = {target.name: hit for target in wanted if (hit := _find(target, sources))}
    made = {t.name: _copy(t, *found[t.name]) for t in wanted if t.name in found}
    if not made:
        files = " and ".join(dict.fromkeys(source.path for source in sources.values()))
        raise UserError(f"nothing in {files} has the name of a layer of {entry.name}")
    used = {(source.path, name) for source, name in found.values()}
    folded: dict[str, Layer] = {}
    if branch_init == "fold" and None in sources:
        folded = _fold(net.proto(), wanted, sources[None])
        norms = [norm for name in folded for norm in norm_names(name)]
        used.update((sources[None].path, norm) for norm in norms)
    _check_frozen(net.proto(), {*made, *folded})
    report = Report(
        folded=list(folded),
        fresh=[t.name for t in wanted if t.name not in made and t.name not in folded],
        ignored=_ignored(sources, used),
        advice=_advice(sources, options),
    )
    for name, (_, first) in found.items():
        if name == first:
            report.copied += [name] if name not in folded else []
        else:
            report.copied_to_several.setdefault(first, []).append(name)
    made.update(folded)
    return net.name, [made[t.name] for t in wanted if t.name in made], report


def _targets(entry: Entry, options: Options) -> tuple[Any, list[Target]]:
    net, layers = measured(entry, options)
    proto = net.proto()
    # A classifier is not copied from a published layer with a similar name: its classes differ.
    scored = {x.bottom[0] for x in proto.layer if x.type in ("SoftmaxWithLoss", "Softmax")}
    names = [task.name for task in options.tasks]
    found = []
    for layer in proto.layer:
        if layer.name not in layers or not layers[layer.name].blobs:
            continue
        first, task = origin(layer.name, names)
        classifies = layer.type == "InnerProduct" and layer.top[0] in scored
        origins = (layer.name,) if classifies or first == layer.name else (layer.name, first)
        shapes = tuple(layers[layer.name].blobs)
        found.append(Target(layer.name, layer.type, shapes, origins, task))
    return net, found


def _find(target: Target, sources: dict[str | None, Source]) -> tuple[Source, str] | None:
    """The source of a target and the layer's name in it; its task's own file comes first."""
    for owner in dict.fromkeys((target.task, None)):
        for name in target.origins if owner in sources else ():
            if name in sources[owner].layers:
                return sources[owner], name
    return None


def _fold(net: Any, wanted: list[Target], source: Source) -> dict[str, Layer]:
    """The layers of the branching points; the norms that the net lacks are checked as well."""
    unnormed = branch.unnormed(net)
    for target in wanted:
        if target.name in unnormed:
            channels = target.shapes[0][:1]
            shapes = ((channels, channels, (1,)), (channels, channels))
            for name, kind, shape in zip(norm_names(target.name), ("BatchNorm", "Scale"), shapes):
                if name in source.layers:
                    _copy(Target(name, kind, shape, (name,), None), source, name)
    return branch.fold(net, source.layers.get)


def _copy(target: Target, source: Source, name: str) -> Layer:
    """The source's layer with the target's name and shapes.

    Raises:
        UserError: its shapes do not fit, or its values are not finite.
    """
    layer = source.layers[name]
    also = f" (for {target.name!r})" if layer.name != target.name else ""
    where = f"{source.path}: layer {layer.name!r}{also}"
    if len(layer.blobs) != len(target.shapes):
        raise UserError(
            f"{where} has {_shapes(tuple(blob.shape for blob in layer.blobs))}, "
            f"the net wants {_shapes(target.shapes)}"
        )
    for i, (blob, shape) in enumerate(zip(layer.blobs, target.shapes)):
        if not fits(blob.shape, shape):
            raise UserError(
                f"{where} blob {i} is {shown(blob.shape)}, the net needs {shown(shape)}"
            )
        _check_finite(blob, f"{where} blob {i}")
    blobs = tuple(blob.reshape(shape) for blob, shape in zip(layer.blobs, target.shapes))
    return Layer(target.name, target.kind, blobs)


def _check_finite(blob: np.ndarray, where: str) -> None:
    bad = blob.size - int(np.count_nonzero(np.isfinite(blob)))
    if bad:
        raise UserError(f"{where}: {bad:,} of its {blob.size:,} values are NaN or infinite")


def _check_demands(source: Source, options: Options) -> None:
    missing = {o: v for o, v in source.demands.items() if getattr(options, o) != v}
    if missing:
        flags = " ".join(f"{flag(o)} {v}" for o, v in missing.items())
        raise UserError(
            f"{source.path}: {source.kind}'s ResNet differs from the published one: "
            f"make weights and net with {flags}"
        )


def _check_widths(source: Source, options: Options) -> None:
    """Raise a UserError, which names the options, if a ResNet's weights have another width."""
    first, conv1 = map(source.layers.get, ("res2a_branch2a", "conv1"))
    if not (first and first.blobs[0].ndim and conv1 and conv1.blobs[0].ndim):
        return
    width, stem = len(first.blobs[0]), len(conv1.blobs[0])
    if (width, stem) != (options.width, options.stem_width or options.width):
        flags = f"--width {width}" + (f" --stem-width {stem}" if stem != width else "")
        raise UserError(
            f"{source.path}: a ResNet of {stem} channels in conv1 and {width} in res2a_branch2a: "
            f"make weights and net with {flags}"
        )


def _check_frozen(net: Any, started: set[str]) -> None:
    """Raise a UserError if a frozen norm would have no statistics."""
    for layer in net.layer:
        frozen = layer.type == "BatchNorm" and layer.batch_norm_param.use_global_stats
        if frozen and layer.name not in started:
            raise UserError(
                f"{layer.name} is frozen, but would start without statistics: use "
                "--branch-init fold, or files that contain it"
            )


def _advice(sources: dict[str | None, Source], options: Options) -> list[str]:
    found = []
    for source in sources.values():
        if source.mean and tuple(options.mean) != source.mean and not options.mean_file:
            mean = ",".join(f"{value:g}" for value in source.mean)
            found.append(f"{source.path} needs its own mean: make the net with --mean {mean}")
        if source.advice and options.pool1 == "published":
            found.append(source.advice)
    return list(dict.fromkeys(found))


def _ignored(sources: dict[str | None, Source], used: set[tuple[str, str]]) -> list[str]:
    found: dict[str, None] = {}
    for source in sources.values():
        names = [n for n in source.layers if (source.path, n) not in used] + source.ignored
        several = len({other.path for other in sources.values()}) > 1
        found.update(dict.fromkeys(f"{source.path}: {n}" if several else n for n in names))
    return list(found)


def _shapes(shapes: tuple[Shape, ...]) -> str:
    many = f"{len(shapes)} blob{'s' * (len(shapes) != 1)}"
    return f"{many} ({', '.join(map(shown, shapes))})"
