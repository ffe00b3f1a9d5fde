"""A NetParameter under construction: a layer call takes bottoms and returns its top."""

from __future__ import annotations

from typing import Any

from xresnet.basics.cli import UserError, near_miss
from xresnet.caffeproto import LayerParameter, NetParameter, text


class Net:
    """A net as a list of titled groups of layers, in the order of the calls.

    Blobs are named by strings, as in Caffe. A layer's top has the layer's own
    name unless `top` says otherwise; `top` equal to the bottom works in place.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.groups: list[tuple[str, list[Any]]] = []
        self._names: set[tuple[str, str | None]] = set()

    def group(self, title: str) -> None:
        """Start a group: `title` becomes the comment above its layers."""
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
        """Append a layer of Caffe type `kind` and return its top, or its list of tops.

        `fields` are LayerParameter's own, messages as dicts:
        `convolution_param={"num_output": 64, "kernel_size": [7]}`.

        Raises:
            ValueError: a field that the schema does not know, naming layer, field and near miss.
            UserError: another layer of the phase has the name, as tasks `a` and `relu_a` make it.
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

    def proto(self) -> Any:
        """The net as a NetParameter message."""
        layers = [layer for _, group in self.groups for layer in group]
        return NetParameter(name=self.name, layer=layers)

    def prototxt(self, header: str = "") -> str:
        """The net as text: header comment, then each group under its title."""
        parts = [comment(header), f'name: "{self.name}"\n']
        for title, layers in self.groups:
            parts.append(f"\n# {f'---- {title} '.ljust(76, '-')}\n")
            parts += [f"\nlayer {{\n{text.dump(layer, '  ')}}}\n" for layer in layers]
        return "".join(parts)


def comment(header: str) -> str:
    """The lines of `header` as prototxt comments and a blank line; nothing for nothing."""
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    return "\n".join([*lines, "", ""]) if lines else ""


def _complaint(fields: dict[str, Any], message: Any = LayerParameter.DESCRIPTOR) -> str:
    """The first field in `fields` that `message` does not know, with its near miss."""
    for name, value in fields.items():
        field = message.fields_by_name.get(name)
        if field is None:
            return f"{message.name} has no field {name!r}{near_miss(name, message.fields_by_name)}"
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and (inner := _complaint(item, field.message_type)):
                return inner
    return ""
