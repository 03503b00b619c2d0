"""Convolutional classifiers of one branch or with residual connections, small and untrained."""

from __future__ import annotations

import torch
from assets.vision_models import PaddedBlock
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

CLASSES = 10


class Plain(nn.Module):
    """Convolutions with biases, poolings, and two linear layers on flattened features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.fc1 = nn.Linear(32 * 4 * 4, 64)
        self.fc2 = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2, self.conv3):
            x = max_pool2d(relu(conv(x)), 2)
        return self.fc2(self.dropout(relu(self.fc1(x.flatten(1)))))


def vgg() -> nn.Module:
    """Simonyan and Zisserman 2015, with BatchNorm."""
    layers: list[nn.Module] = []
    width = 3
    for wider in (16, 16, 0, 32, 32, 0, 64, 64, 0):
        if wider == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(width, wider, 3, padding=1), nn.BatchNorm2d(wider), nn.ReLU(True)]
        width = wider
    head = [nn.Linear(64 * 4, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, CLASSES)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), *head)


class Basic(nn.Module):
    """The basic block of He et al. 2016, with a projection where the shape changes."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or width_in != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    """The bottleneck of He et al. 2016; with groups that of ResNeXt (Xie et al. 2017)."""

    expansion = 4

    def __init__(self, width_in: int, width: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        wide = width * self.expansion
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or width_in != wide:
            self.downsample = nn.Sequential(
                nn.Conv2d(width_in, wide, 1, stride, bias=False), nn.BatchNorm2d(wide)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + identity)


class ResNet(nn.Module):
    """A stem, three stages of two blocks, and a linear layer.

    Args:
        widths: What the blocks of each stage are made with.
        ends: How wide their outputs are.
    """

    def __init__(self, block: type[nn.Module], widths: list[int], ends: list[int], **options):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        before, stages = widths[0], []
        for number, (width, end) in enumerate(zip(widths, ends, strict=True)):
            first = block(before, width, 1 if number == 0 else 2, **options)
            stages.append(nn.Sequential(first, block(end, width, 1, **options)))
            before = end
        self.layer1, self.layer2, self.layer3 = stages
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(before, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet_basic() -> nn.Module:
    return ResNet(Basic, [16, 32, 64], [16, 32, 64])


def resnet_bottleneck() -> nn.Module:
    return ResNet(Bottleneck, [8, 16, 32], [32, 64, 128])


def resnet_padded() -> nn.Module:
    return ResNet(PaddedBlock, [16, 32, 64], [16, 32, 64])


def resnext() -> nn.Module:
    return ResNet(Bottleneck, [16, 32, 64], [64, 128, 256], groups=4)
