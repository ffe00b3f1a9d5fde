"""A net for inference: norms are part of the convolutions, and a small one runs as in `direct`."""

from __future__ import annotations

from threading import get_ident
from typing import Any, Callable

import torch
from torch import Tensor

from torchcaffe import order
from torchcaffe.direct import Plan
from torchcaffe.layers.weighted import BatchNorm
from torchcaffe.net import Net
from xresnet.caffeproto import TEST, NetParameter

MOST = 8  # plans that are kept, of as many shapes of inputs


class Folded(Net):
    """`net` with every Convolution, BatchNorm and Scale in a row made one Convolution.

    Images are laid out channels last. On a CPU, where nothing needs a gradient and no hook, trace
    or autocast asks for the layers, a small net runs by a `Plan` for each shape of its inputs.
    A plan knows where the arrays lie: change their numbers as you like, but replace or move them
    by methods of the net as a whole only (`load_state_dict`, `to` and the like).
    """

    @torch.no_grad()
    def __init__(self, net: Net) -> None:
        proto, arrays = _fold(net)
        super().__init__(proto, TEST)
        for name in self._keys:
            source = arrays.get(name) or list(net.layer_named(name).blobs)
            for mine, theirs in zip(self.layer_named(name).blobs, source):
                mine.copy_(theirs)
        self.requires_grad_(False)
        order.arrange(self, True)  # images follow, half as fast again on a CPU

    def forward(self, *first: Tensor, **fed: Tensor) -> dict[str, Tensor]:
        """As a Net's."""
        given = self.named(first, fed)
        found = self.planned(given)
        return super().forward(**given) if found is None else found

    def planned(self, fed: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """What `forward` returns, by a plan; None where there is none for these inputs."""
        plan = self._plan(fed)
        if plan is None:
            return None
        with order.one_thread(), torch.inference_mode():
            found = plan.forward(**fed)
        return {name: x.clone() for name, x in found.items()}

    def share(self, other: Net) -> None:
        super().share(other)
        self._forget()

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._forget()
        return super().load_state_dict(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Folded:
        self._forget()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # PyTorch's

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plans": {}}  # a copy has arrays of its own

    def _forget(self) -> None:
        """Make plans anew: arrays may lie elsewhere. The hooks are noted, to be looked at often."""
        self._plans: dict[tuple[Any, ...], Plan | None] = {}
        self._hooks = [hooks for made in self.layers()
                       for hooks in (made._forward_hooks, made._forward_pre_hooks)]  # fmt: skip

    def _plan(self, fed: dict[str, Tensor]) -> Plan | None:
        if any(self._hooks) or _watched():
            return None
        if torch.is_grad_enabled() and any(
            x.requires_grad for x in (*fed.values(), *self.parameters())
        ):
            return None
        if not all(map(_plain, fed.values())):
            return None
        # A plan's memory is its thread's alone.
        key = (get_ident(), *((name, x.shape) for name, x in fed.items()))
        if key not in self._plans:
            if len(self._plans) == MOST:
                self._plans = {}
            self._plans[key] = self._made({name: tuple(x.shape) for name, x in fed.items()})
        return self._plans[key]

    @torch.inference_mode()
    def _made(self, shapes: dict[str, tuple[int, ...]]) -> Plan | None:
        """A plan for inputs of these shapes, where the net is then a small one."""
        if not all(map(_plain, self.state_dict().values())):
            return None
        net = Net(self.proto, self.phase, feed_shapes=shapes)
        net.share(self)
        order.arrange(net, True)
        return Plan(net, learn=False) if order.small(net) else None


def _plain(x: Tensor) -> bool:
    """Whether a plan can compute with it: a CPU's float32, with memory (none while PyTorch
    transforms the net)."""
    try:
        x.data_ptr()
    except RuntimeError:
        return False
    return x.dtype == torch.float32 and x.is_cpu


def _watched() -> bool:
    """Whether PyTorch compiles or traces the net, or chooses another precision."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # is public
    return tracing or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")


def _fold(net: Net) -> tuple[Any, dict[str, list[Tensor]]]:
    """The NetParameter of the folded net, and the arrays of the layers that change."""
    kept = NetParameter(name=net.proto.name)
    arrays: dict[str, list[Tensor]] = {}
    dropped: set[int] = set()
    for step in net.steps:
        if id(step) in dropped:
            continue
        layer = kept.layer.add()
        layer.CopyFrom(step.param)
        norm = net.reader(step) if step.param.type == "Convolution" else None
        made = norm and net.layer_named(norm.param.name)
        if norm is None or not isinstance(made, BatchNorm) or not made.frozen:
            continue
        factor, term, last = net.affine(norm)
        weight, *bias = net.layer_named(step.param.name).blobs
        term = term + bias[0] * factor if bias else term
        arrays[step.param.name] = [weight * factor.view(-1, *[1] * (weight.dim() - 1)), term]
        layer.top[0] = last.tops[0].name
        layer.convolution_param.bias_term = True
        del layer.param[:]
        dropped.update(map(id, (norm, last)))
    return kept, arrays
