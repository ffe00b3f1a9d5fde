"""A full-size torchvision ResNet-50 (v1.5) in PyTorch, and what real Caffe makes of its weights.

Random weights do: normalisations with something to say, one image of 224 x 224.
"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")

from torch import nn  # noqa: E402

from bench.torch_resnet import ResNet  # noqa: E402
from tests.netgen.test_weights_caffe import blobs, channels, error, init, photograph  # noqa: E402

pytestmark = [pytest.mark.caffe, pytest.mark.slow]

LIMIT = 1e-4


@pytest.fixture(scope="module")
def torch_net() -> ResNet:
    torch.manual_seed(0)
    net = ResNet().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 0.6)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return net


@pytest.mark.parametrize(
    ("container", "net", "last"),
    [("stream", ["resnet50", "--task", "noun"], "res5c"), ("zip", ["x0_resnet50"], "res5c_noun")],
)
def test_torch_and_caffe_agree(container, net, last, torch_net, caffe_tools, tmp_path):
    """Both of PyTorch's containers; the net itself, and a task of X0 behind the branching point."""
    path = tmp_path / "resnet50.pth"
    zipped = container == "zip"
    torch.save(torch_net.state_dict(), path, _use_new_zipfile_serialization=zipped)
    image = photograph(size=224)
    normal = (image / 255 - channels(0.485, 0.456, 0.406)) / channels(0.229, 0.224, 0.225)
    with torch.no_grad():
        expected = torch_net.features(torch.tensor(normal[None], dtype=torch.float32)).numpy()
    bgr = image[::-1] - channels(103.53, 116.28, 123.675)
    net = [*net, "--stride-in", "3x3", "--pool1", "padded"]
    weights = init(tmp_path / "w.caffemodel", net, path)
    found = blobs(caffe_tools, tmp_path, net, weights, bgr[None], last)[last]
    print(f"torch, {container}, {net[0]}: {error(found, expected):.1e}")
    assert error(found, expected) < LIMIT
