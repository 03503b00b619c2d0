"""Classifiers made for small devices: depthwise convolutions, gates, shuffled channels; small and
untrained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 10


def conv_norm(
    width_in: int,
    width: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = None,
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(width_in, width, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(width),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class Gate(nn.Module):
    """Squeeze and excitation (Hu et al. 2018): each channel times a number between 0 and 1."""

    def __init__(self, width: int, inner: type[nn.Module], outer: type[nn.Module]) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(width, max(4, width // 4), 1)
        self.fc2 = nn.Conv2d(max(4, width // 4), width, 1)
        self.inner, self.outer = inner(), outer()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.outer(self.fc2(self.inner(self.fc1(self.avgpool(x)))))


class Inverted(nn.Module):
    """Wider, depthwise, narrower; added to its input where the shapes agree."""

    def __init__(
        self,
        width_in: int,
        width: int,
        stride: int,
        activation: type[nn.Module],
        *,
        expand: int = 4,
        kernel: int = 3,
        gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        wide = width_in * expand
        parts: list[nn.Module] = [
            conv_norm(width_in, wide, 1, activation=activation),
            conv_norm(wide, wide, kernel, stride, groups=wide, activation=activation),
        ]
        if gate is not None:
            parts.append(gate)
        self.conv = nn.Sequential(*parts, conv_norm(wide, width, 1))
        self.is_residual = stride == 1 and width_in == width

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.is_residual else self.conv(x)


class Pooled(nn.Module):
    """Features, their mean over all places, and a classifier."""

    def __init__(self, features: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.features, self.classifier = features, classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean([2, 3]))


def mobilenet_v2() -> nn.Module:
    """Sandler et al. 2018."""
    features = nn.Sequential(
        conv_norm(3, 16, 3, 2, activation=nn.ReLU6),
        Inverted(16, 16, 1, nn.ReLU6),
        Inverted(16, 24, 2, nn.ReLU6),
        Inverted(24, 24, 1, nn.ReLU6),
        Inverted(24, 32, 2, nn.ReLU6),
        Inverted(32, 32, 1, nn.ReLU6),
        Inverted(32, 64, 1, nn.ReLU6),
        Inverted(64, 64, 1, nn.ReLU6),
        conv_norm(64, 192, 1, activation=nn.ReLU6),
    )
    return Pooled(features, nn.Sequential(nn.Dropout(0.2), nn.Linear(192, CLASSES)))


def mobilenet_v3() -> nn.Module:
    """Howard et al. 2019."""

    def gate(width: int) -> nn.Module:
        return Gate(width, nn.ReLU, nn.Hardsigmoid)

    features = nn.Sequential(
        conv_norm(3, 16, 3, 2, activation=nn.Hardswish),
        Inverted(16, 16, 1, nn.ReLU, gate=gate(64)),
        Inverted(16, 24, 2, nn.Hardswish),
        Inverted(24, 24, 1, nn.Hardswish, kernel=5, gate=gate(96)),
        Inverted(24, 48, 2, nn.Hardswish, kernel=5, gate=gate(96)),
        Inverted(48, 48, 1, nn.Hardswish, kernel=5, gate=gate(192)),
        conv_norm(48, 192, 1, activation=nn.Hardswish),
    )
    head = nn.Sequential(
        nn.Linear(192, 64), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(64, CLASSES)
    )
    return Pooled(features, head)


def efficientnet() -> nn.Module:
    """Tan and Le 2019."""

    def gate(width: int) -> nn.Module:
        return Gate(width, nn.SiLU, nn.Sigmoid)

    features = nn.Sequential(
        conv_norm(3, 16, 3, 2, activation=nn.SiLU),
        Inverted(16, 24, 1, nn.SiLU, gate=gate(64)),
        Inverted(24, 24, 1, nn.SiLU, gate=gate(96)),
        Inverted(24, 40, 2, nn.SiLU, kernel=5, gate=gate(96)),
        Inverted(40, 40, 1, nn.SiLU, kernel=5, gate=gate(160)),
        conv_norm(40, 128, 1, activation=nn.SiLU),
    )
    return Pooled(features, nn.Sequential(nn.Dropout(0.2), nn.Linear(128, CLASSES)))


class Shuffled(nn.Module):
    """The unit of ShuffleNet V2 (Ma et al. 2018): half of the channels pass unchanged."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        half = width // 2
        self.stride = stride
        self.branch1 = nn.Sequential()
        if stride == 2:
            self.branch1 = nn.Sequential(
                conv_norm(width_in, width_in, 3, 2, groups=width_in),
                conv_norm(width_in, half, 1, activation=nn.ReLU),
            )
        self.branch2 = nn.Sequential(
            conv_norm(width_in if stride == 2 else half, half, 1, activation=nn.ReLU),
            conv_norm(half, half, 3, stride, groups=half),
            conv_norm(half, half, 1, activation=nn.ReLU),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            kept, changed = x.chunk(2, dim=1)
            out = torch.cat((kept, self.branch2(changed)), dim=1)
        else:
            out = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        return shuffle(out, 2)


def shuffle(x: Tensor, groups: int) -> Tensor:
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).contiguous().view(batch, channels, height, width)


def shufflenet() -> nn.Module:
    features = nn.Sequential(
        conv_norm(3, 32, 3, 1, activation=nn.ReLU),
        Shuffled(32, 64, 2),
        Shuffled(64, 64, 1),
        Shuffled(64, 128, 2),
        Shuffled(128, 128, 1),
        conv_norm(128, 256, 1, activation=nn.ReLU),
    )
    return Pooled(features, nn.Linear(256, CLASSES))
