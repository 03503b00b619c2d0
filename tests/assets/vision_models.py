"""Small vision networks, each with a way of wiring channels that pruning must understand."""

import torch
from torch import nn
from torch.nn.functional import gelu, pad, relu


class PaddedBlock(nn.Module):
    """A residual block of the CIFAR ResNets (He et al. 2016), with the shortcut of option A."""

    def __init__(self, inside, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride = stride
        self.padding = (width - inside) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        if self.padding:
            strided = x[:, :, :: self.stride, :: self.stride]
            x = pad(strided, (0, 0, 0, 0, self.padding, self.padding))
        return relu(x + y)


class CifarResNet(nn.Module):
    """ResNet-20, 56... for 3x32x32 images, its layers named as those of the published weights."""

    def __init__(self, depth=20, width=16):
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(blocks, width, width, 1)
        self.layer2 = self._stage(blocks, width, 2 * width, 2)
        self.layer3 = self._stage(blocks, 2 * width, 4 * width, 2)
        self.linear = nn.Linear(4 * width, 10)

    def _stage(self, blocks, inside, width, stride):
        first = PaddedBlock(inside, width, stride)
        return nn.Sequential(first, *(PaddedBlock(width, width, 1) for _ in range(blocks - 1)))

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


class Bottleneck(nn.Module):
    """A stem, two bottleneck blocks with grouped convolutions and a projection; 3x8x8 images."""

    def __init__(self, groups=1):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.project = nn.Conv2d(16, 32, 1)
        self.first = _bottleneck(16, 8, 32, groups)
        self.second = _bottleneck(32, 8, 32, groups)
        self.linear = nn.Linear(32, 5)

    def forward(self, x):
        x = relu(self.stem(x))
        x = relu(self.project(x) + self.first(x))
        x = relu(x + self.second(x))
        return self.linear(x.mean((2, 3)))


def _bottleneck(inside, width, outside, groups):
    return nn.Sequential(
        nn.Conv2d(inside, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, groups=groups, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, outside, 1, bias=False),
        nn.BatchNorm2d(outside),
    )


class SqueezeExcite(nn.Module):
    """MobileNetV3's block: expand, depthwise, squeeze and excite, project; 3x8x8 images."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.expand = nn.Conv2d(8, 32, 1)
        self.norm = nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.squeeze = nn.Conv2d(32, 8, 1)
        self.excite = nn.Conv2d(8, 32, 1)
        self.project = nn.Conv2d(32, 8, 1)
        self.linear = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        y = nn.functional.hardswish(self.depthwise(relu(self.norm(self.expand(x)))))
        gate = self.excite(relu(self.squeeze(y.mean((2, 3), keepdim=True))))
        x = x + self.project(y * nn.functional.hardsigmoid(gate))
        return self.linear(x.mean((2, 3)))


class Dense(nn.Module):
    """DenseNet: every layer reads all that came before, concatenated; 3x8x8 images."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i) for i in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.linear = nn.Linear(20, 5)

    def forward(self, x):
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = torch.cat([x, conv(relu(norm(x)))], 1)
        return self.linear(relu(self.norms[3](x)).mean((2, 3)))


class Shuffle(nn.Module):
    """ShuffleNetV2's unit: half of the channels go through, then all are shuffled; 3x8x8."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first = nn.Conv2d(8, 12, 1)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.last = nn.Conv2d(12, 8, 1)
        self.head = nn.Conv2d(16, 24, 1)
        self.linear = nn.Linear(24, 5)

    def forward(self, x):
        passed, x = self.stem(x).chunk(2, 1)
        x = relu(self.last(self.depthwise(relu(self.first(x)))))
        x = torch.cat([passed, x], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.linear(relu(self.head(x)).mean((2, 3)))


class ConvNeXt(nn.Module):
    """A stem and two blocks with LayerNorm over channels and a learned scale; 3x8x8 images."""

    def __init__(self, width=12):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 2, 2)
        self.blocks = nn.Sequential(ConvNeXtBlock(width), ConvNeXtBlock(width))
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, 5)

    def forward(self, x):
        return self.linear(self.norm(self.blocks(self.stem(x)).mean((2, 3))))


class ConvNeXtBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.project = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.project(gelu(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)


class ViT(nn.Module):
    """A vision transformer with class token, position embedding and fused q, k, v; 3x8x8."""

    def __init__(self, width=16, heads=2):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 5, width))
        self.blocks = nn.Sequential(ViTBlock(width, heads), ViTBlock(width, heads))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class ViTBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        x = x + self.proj(self._attention(self.norm1(x)))
        return x + self.fc2(gelu(self.fc1(self.norm2(x))))

    def _attention(self, x):
        n, tokens, width = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return y.transpose(1, 2).reshape(n, tokens, width)


class UNet(nn.Module):
    """Down, up by a transposed convolution, and the skipped features beside; 3x8x8 images."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, padding=1)
        self.bottom = nn.Conv2d(8, 16, 3, 2, 1)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.join = nn.Conv2d(16, 8, 3, padding=1)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        skipped = relu(self.down(x))
        x = relu(self.up(relu(self.bottom(skipped))))
        return self.out(relu(self.join(torch.cat([skipped, x], 1))))


class Gated(nn.Module):
    """Half of the channels gate the other half; 3x8x8 images."""

    def __init__(self):
        super().__init__()
        self.both = nn.Conv2d(3, 16, 3)
        self.linear = nn.Linear(8, 5)

    def forward(self, x):
        x, gate = self.both(x).chunk(2, 1)
        return self.linear((x * gate.sigmoid()).mean((2, 3)))


class Heads(nn.Module):
    """Attention whose code takes any width of a head; 3x8x8 images."""

    def __init__(self, width=12):
        super().__init__()
        self.num_heads = 3
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))
        self.linear = nn.Linear(width, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        q, k, v = (self._split(layer(x)) for layer in (self.q, self.k, self.v))
        y = (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v
        x = x + self.proj(y.transpose(1, 2).flatten(2))
        return self.linear(x.mean(1))

    def _split(self, x):
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
