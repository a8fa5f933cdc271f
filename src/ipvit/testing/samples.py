"""Tiny networks and a tiny data set that experiments and attacks are tried on: random weights from fixed seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ipvit.data.dataset import MemoryDataset
from ipvit.models.model import Model, wrap

CLASSES = ("red", "green", "blue", "yellow")
SIZE = 32
"""Pixels of a side of the images."""

_COLOURS = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200], [200, 200, 30]])


def sample_images(count: int, seed: int = 0) -> Tensor:
    """Return smooth random images, ``(count, 3, 32, 32)`` uint8, without a black pixel; every fourth has one colour."""
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.normal(0, 60, (count, 3, 4, 4)))
    smooth = nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear").numpy()
    colours = _COLOURS[np.arange(count) % len(CLASSES)][:, :, None, None]
    fine = random.normal(0, 8, (count, 3, SIZE, SIZE))
    return torch.from_numpy((colours + smooth + fine).clip(1, 255).astype(np.uint8))


def sample_data(count: int = 12) -> MemoryDataset:
    """Return images whose class is their colour, with a mask of an object, a shape and a texture each."""
    random = np.random.default_rng(1)
    masks = np.zeros((count, SIZE, SIZE), np.uint8)
    for mask in masks:
        top, left = random.integers(0, SIZE // 2, 2)
        mask[top : top + 12, left : left + 16] = 1
    labels = np.arange(count) % len(CLASSES)
    names = np.array(CLASSES)
    return MemoryDataset(
        sample_images(count),
        labels,
        CLASSES,
        masks=masks,
        ids=[f"{CLASSES[label]}/{number:03d}" for number, label in enumerate(labels)],
        fields={"shape": names[labels], "texture": names[(labels + np.arange(count) // 2) % len(CLASSES)]},
        name="sample",
    )


def sample_models() -> list[Model]:
    """Return a transformer with a class and a distillation token, and a convolutional network, of 32 pixels."""
    return [sample_vit(), sample_cnn()]


def sample_vit(seed: int = 0) -> Model:
    """Return a transformer of three blocks with 4 x 4 patches, a class and a distillation token."""
    from timm.models.deit import VisionTransformerDistilled

    sizes: dict[str, Any] = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Any = VisionTransformerDistilled(**sizes, num_classes=len(CLASSES)).eval()
        with torch.no_grad():  # attention and answers are to differ from place to place
            for weight in network.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
            for block in network.blocks:
                block.attn.qkv.weight.mul_(3)
            for head in (network.head, network.head_dist):
                head.weight.mul_(4)
    named = "sample ViT", ("yellow", "green", "red", "blue")
    return _wrapped(network, *(("another sample ViT", ("blue", "green", "yellow", "red")) if seed else named))


def sample_cnn() -> Model:
    """Return a residual network of four stages."""
    from timm.models.resnet import BasicBlock, ResNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block: Any = BasicBlock
        network: Any = ResNet(block, (1, 1, 1, 1), len(CLASSES), channels=(8, 12, 16, 24), stem_width=8).eval()
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:  # with the statistics of images, or the answers depend on nothing
            norm.momentum = 1.0
            norm.train()
        with torch.no_grad():
            network(sample_images(16, seed=2).float() / 255 * 4 - 2)
            network.fc.weight.mul_(4)
        network.eval()
    return _wrapped(network, "sample CNN", ("yellow", "blue", "red", "green"))


def plain_model(classes: Sequence[str]) -> Model:
    """Return a network of which nothing is known but its logits and their gradients, for some classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(180)  # right about most of the sample images: one that is not cannot be attacked
        network = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, len(classes)))
    return _wrapped(network, "plain network", classes)


class _OneByOne(nn.Module):
    """Computes every image by itself: what is said of one cannot depend on the others, to the last bit."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.inner(image[None]) for image in images])


def attacked_model() -> Model:
    """Return a smooth network whose logits for an image are the same in every batch, to the last bit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 5, stride=3), nn.GELU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 4)]
        return _wrapped(_OneByOne(nn.Sequential(*layers)), "sample network")


def _wrapped(network: nn.Module, name: str, classes: Sequence[str] = CLASSES) -> Model:
    """Return a model whose outputs are named so that it is right about many of the images, though not about all."""
    return wrap(network, size=SIZE, crop_pct=1.0, mean=(0.5,) * 3, std=(0.25,) * 3, classes=classes, name=name)
