"""Recurrent layers: bottoms are T x N x ..., with T x N marks of where sequences continue."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from torchcaffe.layers.base import Layer, Shape, count, layer


class _Recurrent(Layer):
    """x, the marks (0 where a sequence begins), and perhaps a third bottom that every step sees.

    The state at the end of a pass is where the next one begins, as far as marks let it.
    """

    bottoms = (2, 3)
    gates = 1  # arrays of D that the inputs make

    def setup(self, shapes: list[Shape]) -> None:
        p = self.param.recurrent_param
        if p.expose_hidden:
            raise self.mistake("expose_hidden is not supported")
        if len(shapes[0]) < 2 or shapes[1] != shapes[0][:2]:
            raise self.mistake(f"needs T x N x ... and T x N, not {shapes[0]} and {shapes[1]}")
        if not p.num_output:
            raise self.mistake("no num_output")
        self.hidden, self.static = p.num_output, len(shapes) > 2
        size = self.gates * self.hidden
        self.add_blob((size, count(shapes[0], 2)), p.weight_filler)
        self.add_blob((size,), p.bias_filler)
        if self.static:
            self.add_blob((size, count(shapes[2], 1)), p.weight_filler)
        self.add_blob((size, self.hidden), p.weight_filler)
        self.state: tuple[Tensor, ...] = ()

    def shapes_of_tops(self, shapes: list[Shape]) -> list[Shape]:
        return [(*shapes[0][:2], self.hidden)]

    def forward(self, x: Tensor, marks: Tensor, constant: Tensor | None = None) -> Tensor:
        weights = list(self.blobs)
        given = F.linear(x.flatten(2), weights[0], weights[1])
        if constant is not None:
            given = given + F.linear(constant.flatten(1), weights[2])
        weights = weights[3 if self.static else 2 :]
        begin = torch.zeros(x.shape[1], self.hidden, dtype=given.dtype, device=given.device)
        same = len(self.state) and self.state[0].shape == begin.shape
        state: Sequence[Tensor] = self.state if same else (begin, begin)
        tops = []
        for now, mark in zip(given, marks.detach()):
            top, *state = self.step(now, mark[:, None].to(now.dtype), state, weights)
            tops.append(top)
        self.state = tuple(one.detach() for one in state)
        return torch.stack(tops)

    def step(
        self, given: Tensor, mark: Tensor, state: Sequence[Tensor], weights: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """The top of one step, and the state after it."""
        raise NotImplementedError


@layer("LSTM")
class LSTM(_Recurrent):
    """Gates in, forget, out and new, in Caffe's order."""

    gates = 4

    def step(
        self, given: Tensor, mark: Tensor, state: Sequence[Tensor], weights: list[Tensor]
    ) -> tuple[Tensor, ...]:
        h, c = state
        enter, forget, leave, new = (given + F.linear(mark * h, weights[0])).chunk(4, 1)
        c = mark * forget.sigmoid() * c + enter.sigmoid() * new.tanh()
        h = leave.sigmoid() * c.tanh()
        return h, h, c


@layer("RNN")
class RNN(_Recurrent):
    """tanh, and an output of its own: tanh again."""

    def setup(self, shapes: list[Shape]) -> None:
        super().setup(shapes)
        p = self.param.recurrent_param
        self.add_blob((self.hidden, self.hidden), p.weight_filler)
        self.add_blob((self.hidden,), p.bias_filler)

    def step(
        self, given: Tensor, mark: Tensor, state: Sequence[Tensor], weights: list[Tensor]
    ) -> tuple[Tensor, ...]:
        h, unused = state
        h = (given + F.linear(mark * h, weights[0])).tanh()
        return F.linear(h, weights[1], weights[2]).tanh(), h, unused
