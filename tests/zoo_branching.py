"""Networks whose branches are concatenated, one with an image as its output; small, untrained."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from zoo_mobile import CLASSES, Pooled, conv_norm


class Dense(nn.Module):
    """Some channels more, made from all those before (Huang et al. 2017)."""

    def __init__(self, width_in: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(relu(self.norm1(x)))
        return torch.cat([x, self.conv2(relu(self.norm2(out)))], 1)


def densenet() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False)]
    width = 32
    for last in (False, True):
        for _ in range(3):
            layers.append(Dense(width, 16))
            width += 16
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        if not last:
            layers += [nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)]
            width //= 2
    return Pooled(nn.Sequential(*layers), nn.Linear(width, CLASSES))


class Inception(nn.Module):
    """Four branches of different reach (Szegedy et al. 2015)."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch1 = conv_norm(width_in, width, 1, activation=nn.ReLU)
        self.branch2 = nn.Sequential(
            conv_norm(width_in, half, 1, activation=nn.ReLU),
            conv_norm(half, width, 3, activation=nn.ReLU),
        )
        self.branch3 = nn.Sequential(
            conv_norm(width_in, half, 1, activation=nn.ReLU),
            conv_norm(half, width, 5, activation=nn.ReLU),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, 1, 1), conv_norm(width_in, width, 1, activation=nn.ReLU)
        )

    def forward(self, x: Tensor) -> Tensor:
        branches = self.branch1, self.branch2, self.branch3, self.branch4
        return torch.cat([branch(x) for branch in branches], 1)


def inception() -> nn.Module:
    features = nn.Sequential(
        conv_norm(3, 32, 3, 2, activation=nn.ReLU),
        Inception(32, 32),
        nn.MaxPool2d(2),
        Inception(128, 48),
    )
    return Pooled(features, nn.Linear(192, CLASSES))


class Fire(nn.Module):
    """Squeeze, then expand in two ways (Iandola et al. 2016)."""

    def __init__(self, width_in: int, squeezed: int, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width_in, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, width, 1)
        self.expand3x3 = nn.Conv2d(squeezed, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.squeeze(x))
        return torch.cat([relu(self.expand1x1(x)), relu(self.expand3x3(x))], 1)


def squeezenet() -> nn.Module:
    """Its output layer is a convolution, before the pooling."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(32, 24, 64),
        Fire(128, 32, 96),
        nn.Dropout(0.5),
        nn.Conv2d(192, CLASSES, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class Double(nn.Sequential):
    def __init__(self, width_in: int, width: int) -> None:
        super().__init__(
            conv_norm(width_in, width, 3, activation=nn.ReLU),
            conv_norm(width, width, 3, activation=nn.ReLU),
        )


class UNet(nn.Module):
    """Ronneberger et al. 2015: three classes for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = Double(3, 16), Double(16, 32), Double(32, 64)
        self.pool = nn.MaxPool2d(2)
        self.up2 = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.merge2 = Double(64, 32)
        self.up1 = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.merge1 = Double(32, 16)
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(self.pool(first))
        x = self.bottom(self.pool(second))
        x = self.merge2(torch.cat([second, self.up2(x)], 1))
        x = self.merge1(torch.cat([first, self.up1(x)], 1))
        return self.head(x)
