"""Full-size torchvision ResNet-50 (v1.5) in PyTorch, and what real Caffe makes of its weights.

The net is written out here: torchvision itself has no build for every machine.
Random weights do: normalisations with something to say, one image of 224 x 224.
"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")

from torch import nn  # noqa: E402

from tests.test_weights_caffe import blobs, channels, error, init, photograph  # noqa: E402

pytestmark = [pytest.mark.caffe, pytest.mark.slow]

LIMIT = 1e-4


class Bottleneck(nn.Module):
    """1x1, 3x3 (which strides), 1x1 to four times the width; names as in a state dict."""

    def __init__(self, inputs: int, width: int, stride: int, projects: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if projects:
            projection = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(4 * width))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + (self.downsample(x) if self.downsample else x))


class ResNet50(nn.Module):
    """Up to the last block: what the average pooling sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for stage, count in enumerate((3, 4, 6, 3)):
            width, made = 64 << stage, []
            for i in range(count):
                made.append(Bottleneck(inputs, width, 2 if stage and not i else 1, not i))
                inputs = 4 * width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*made))
        self.fc = nn.Linear(inputs, 1000)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


@pytest.fixture(scope="module")
def torch_net() -> ResNet50:
    torch.manual_seed(0)
    net = ResNet50().eval()
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
        expected = torch_net(torch.tensor(normal[None], dtype=torch.float32)).numpy()
    bgr = image[::-1] - channels(103.53, 116.28, 123.675)
    net = [*net, "--stride-in", "3x3", "--pool1", "padded"]
    weights = init(tmp_path / "w.caffemodel", net, path)
    found = blobs(caffe_tools, tmp_path, net, weights, bgr[None], last)[last]
    print(f"torch, {container}, {net[0]}: {error(found, expected):.1e}")
    assert error(found, expected) < LIMIT
