"""Convolutions in bfloat16 as products of matrices: the numbers of PyTorch's own convolution."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")

import torch.nn.functional as F  # noqa: E402

from torchcaffe.layers import make, weighted  # noqa: E402
from xresnet.caffeproto import NetParameter, text  # noqa: E402

CASES = [  # channels, convolution
    (6, "kernel_size: 1"),
    (6, "kernel_size: 1 stride: 2 bias_term: false"),
    (512, "kernel_size: 3 pad: 1 bias_term: false"),
    (512, "kernel_size: 3 stride: 2 pad: 1"),
    (512, "kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 2"),
    (512, "kernel_size: 2 dilation: 2 pad: 1"),
]


def convolution(channels: int, words: str, size: tuple[int, int] = (7, 6)):
    proto = text.loads(
        f"layer {{ name: 'c' type: 'Convolution' bottom: 'x' top: 'y' convolution_param {{ "
        f"num_output: 5 {words} weight_filler {{ type: 'gaussian' std: 0.1 }} "
        f"bias_filler {{ type: 'gaussian' std: 1 }} }} }}",
        NetParameter,
    )
    made = make(proto.layer[0], True, [(4, channels, *size)])
    return made.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(("channels", "words"), CASES)
def test_the_top_and_all_gradients_are_those_of_a_convolution(channels, words, monkeypatch):
    torch.manual_seed(1)
    made = convolution(channels, words)
    blobs = [blob.requires_grad_() for blob in made.blobs]
    x = torch.randn(4, channels, 7, 6).to(memory_format=torch.channels_last).requires_grad_()
    taken = []
    product = weighted.product
    monkeypatch.setattr(weighted, "product", lambda *a: taken.append(1) or product(*a))
    with torch.autocast("cpu", torch.bfloat16):
        y = made(x)
    assert taken and y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)

    def exact(z):  # what bfloat16 keeps, in more digits than it has
        return z.detach().bfloat16().double()

    wide = [exact(z).requires_grad_() for z in (x, *blobs)]
    settings = (made.stride, made.pad, made.dilation)
    bias = wide[2] if len(wide) > 2 else None
    expected = F.conv2d(wide[0], wide[1], bias, *settings)
    assert y.shape == expected.shape
    torch.testing.assert_close(y.double(), expected, rtol=1e-2, atol=2e-2)
    gradient = torch.randn_like(y)
    found = torch.autograd.grad(y, (x, *blobs), gradient)
    right = torch.autograd.grad(expected, wide, exact(gradient))
    for mine, theirs, like in zip(found, right, (x, *blobs)):
        assert mine.dtype == torch.float32 and mine.shape == like.shape
        scale = float(theirs.abs().max())
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-2, atol=1e-2 * scale)
    if made.kernel != (1, 1):  # a step of the solver walks weights and gradients alike
        assert found[1].stride() == blobs[0].stride()


@pytest.mark.parametrize(
    ("channels", "words", "precise", "last"),
    [
        (6, "kernel_size: 1", True, True),
        (6, "kernel_size: 1", False, False),
        (6, "kernel_size: 3", False, True),
        (512, "kernel_size: 3 group: 1", True, True),
    ],
)
def test_others_stay_convolutions(channels, words, precise, last, monkeypatch):
    """In float32, with channels first, and of windows over few channels."""
    monkeypatch.setattr(weighted, "product", lambda *_: pytest.fail("taken"))
    made = convolution(channels, words)
    x = torch.randn(4, channels, 7, 6)
    x = x.to(memory_format=torch.channels_last) if last else x
    with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
        assert made(x).shape[1] == 5
