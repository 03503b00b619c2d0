"""Vision architectures with random weights, and a task around any of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import zoo_branching as branching
import zoo_mobile as mobile
import zoo_plain as plain
import zoo_transformers as transformers
from torch import Tensor, nn
from torch.nn.functional import interpolate

from compressors.base import Task
from compressors.training import reestimate_batch_norm, seeded

# All take (batch, 3, 32, 32) and give (batch, classes), or (batch, classes, 32, 32).
MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain CNN": plain.Plain,
    "VGG": plain.vgg,
    "ResNet, basic": plain.resnet_basic,
    "ResNet, bottleneck": plain.resnet_bottleneck,
    "ResNet, option A": plain.resnet_padded,
    "ResNeXt (groups)": plain.resnext,
    "MobileNetV2": mobile.mobilenet_v2,
    "MobileNetV3 (SE, hardswish)": mobile.mobilenet_v3,
    "EfficientNet (SE, SiLU)": mobile.efficientnet,
    "ShuffleNetV2": mobile.shufflenet,
    "DenseNet": branching.densenet,
    "Inception": branching.inception,
    "SqueezeNet": branching.squeezenet,
    "U-Net (dense output)": branching.UNet,
    "ConvNeXt": transformers.ConvNeXt,
    "ViT (MultiheadAttention)": transformers.vit,
    "ViT (fused qkv)": transformers.vit_fused,
    "MLP-Mixer": transformers.Mixer,
}

BATCH = 16
SPREAD = 0.5  # of the outputs' standard deviation, made so by the last layer's weights


def build(name: str) -> nn.Module:
    """A model of the zoo, in eval mode and with activations of ordinary size.

    The weights are the same on every call. They are normally distributed, and scales and shifts of
    the norms differ from channel to channel, as those of trained models do.
    """
    with seeded(0):
        model = MODELS[name]().eval()
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
        images = pictures(64, 0)
        reestimate_batch_norm(model, [images], lambda batch: batch, limit=1)
        with torch.no_grad():
            last = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
            outputs = model(images)
            scale = SPREAD / (outputs - outputs.mean(0)).std()
            last.weight *= scale
            last.bias -= scale * outputs.transpose(0, 1).flatten(1).mean(1)  # no class is favoured
    return model


def pictures(count: int, seed: int) -> Tensor:
    """Coloured clouds with a little noise, (count, 3, 32, 32): unlike noise alone, they differ in
    what is left when a network has taken means over all places."""
    generator = torch.Generator().manual_seed(seed)
    brightness, clouds, noise = (
        torch.randn(count, 3, size, size, generator=generator) for size in (1, 4, 32)
    )
    return 0.5 * brightness + interpolate(clouds, size=32, mode="bilinear") + 0.3 * noise


class Zoo(Task):
    """Tells the classes that the model itself sees in pictures, so that its accuracy is 1.

    Args:
        model: A name of MODELS.
    """

    def __init__(self, model: str) -> None:
        super().__init__()
        self._model = build(model)
        self._images = pictures(8 * BATCH, 1).split(BATCH)
        with torch.no_grad():
            self._labels = [self._model(images).argmax(1) for images in self._images]

    def model(self) -> nn.Module:
        return self._model

    def train_batches(self) -> list[tuple[Tensor, Tensor]]:
        return self._batches(0, 4)

    def calibration_batches(self) -> list[tuple[Tensor, Tensor]]:
        return self._batches(2, 4)

    def eval_batches(self) -> list[tuple[Tensor, Tensor]]:
        return self._batches(4, 8)

    def records(self, outputs: np.ndarray, batch: tuple[Tensor, Tensor]) -> np.ndarray:
        """The share of a sample's places whose class is right; a classifier has one place."""
        right = outputs.argmax(1) == batch[1].numpy()
        return right.reshape(len(right), -1).mean(1)

    def _batches(self, first: int, end: int) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self._images[first:end], self._labels[first:end], strict=True))
