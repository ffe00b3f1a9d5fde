"""Build a NetParameter by calls that append a layer to given bottoms and return its top."""

from __future__ import annotations

from typing import Any

from xresnet.basics.cli import UserError, near_miss
from xresnet.caffeproto import LayerParameter, NetParameter, text


class Net:
    """A net under construction: titled groups of layers, in the order of the calls.

    Blobs are strings, as in Caffe. A layer's top has the layer's name unless `top` is given; with
    `top` equal to the bottom the layer works in place.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.groups: list[tuple[str, list[Any]]] = []
        self._names: set[tuple[str, str | None]] = set()

    def group(self, title: str) -> None:
        """Start a group of layers; `title` becomes the comment above them."""
        self.groups.append((title, []))

    def layer(
        self,
        kind: str,
        name: str,
        *bottoms: str,
        top: str | list[str] | None = None,
        phase: str | None = None,
        **fields: Any,
    ) -> Any:
        """Append a layer.

        Args:
            kind: its Caffe type.
            name: its name.
            bottoms: the blobs that it reads.
            top: the blob or blobs that it produces; by default one with the layer's name.
            phase: "TRAIN" or "TEST", where it takes part in one only.
            fields: other fields of LayerParameter, with messages as dicts:
                `convolution_param={"num_output": 64, "kernel_size": [7]}`.

        Returns:
            its top; with a list as `top`, that list.

        Raises:
            ValueError: a field is not in Caffe's schema; with a suggestion.
            UserError: a layer of the phase has the same name, as with tasks `a` and `relu_a`.
        """
        if (name, phase) in self._names:
            raise UserError(f"two layers would have the name {name!r}: give a task another name")
        self._names.add((name, phase))
        tops = [name] if top is None else [top] if isinstance(top, str) else top
        if phase:
            fields["include"] = [{"phase": phase}]
        try:
            layer = LayerParameter(name=name, type=kind, bottom=bottoms, top=tops, **fields)
        except (ValueError, TypeError) as error:
            raise ValueError(f"layer {name!r} ({kind}): {_complaint(fields) or error}") from error
        self.groups[-1][1].append(layer)
        return tops if isinstance(top, list) else tops[0] if tops else None

    def layers(self) -> list[Any]:
        """All layers so far, as LayerParameter messages."""
        return [layer for _, group in self.groups for layer in group]

    def proto(self) -> Any:
        """The net as a NetParameter message."""
        return NetParameter(name=self.name, layer=self.layers())

    def prototxt(self, header: str = "") -> str:
        """The net as prototxt: the header as a comment, then each group below its title."""
        parts = [comment(header), f'name: "{self.name}"\n']
        for title, layers in self.groups:
            parts.append(f"\n# {f'---- {title} '.ljust(76, '-')}\n")
            parts += [f"\nlayer {{\n{text.dump(layer, '  ')}}}\n" for layer in layers]
        return "".join(parts)


def comment(header: str) -> str:
    """The lines of `header` as prototxt comments and a blank line; "" if there are none."""
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    return "\n".join([*lines, "", ""]) if lines else ""


def _complaint(fields: dict[str, Any], message: Any = LayerParameter.DESCRIPTOR) -> str:
    """What is wrong with the first field that `message` lacks, with a suggestion; or ""."""
    for name, value in fields.items():
        field = message.fields_by_name.get(name)
        if field is None:
            return f"{message.name} has no field {name!r}{near_miss(name, message.fields_by_name)}"
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and (inner := _complaint(item, field.message_type)):
                return inner
    return ""
