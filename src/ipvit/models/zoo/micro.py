"""Two micro networks, a transformer and a convolutional one, small enough for a laptop's processor."""

from __future__ import annotations

from typing import Any

import timm
from timm.models.deit import VisionTransformerDistilled
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ipvit.errors import FOREIGN_ERRORS, InputError, did_you_mean, printable
from ipvit.models.names import refuse_sources


def deit_micro(
    num_classes: int = 10, img_size: int = 64, patch_size: int = 8, distilled: bool = False, **kwargs: Any
) -> VisionTransformer:
    """Return a DeiT in small: class token, learned positions, 6 blocks of width 96 with 3 heads (0.70 M weights).

    Args:
        num_classes: number of outputs.
        img_size: height and width of the input in pixels.
        patch_size: height and width of a patch in pixels.
        distilled: add a second token with a head of its own, as DeiT's distilled networks have.
        kwargs: passed to timm's ``VisionTransformer``, over the values above.
    """
    settings: dict[str, Any] = {"embed_dim": 96, "depth": 6, "num_heads": 3} | kwargs
    build = VisionTransformerDistilled if distilled else VisionTransformer
    return build(num_classes=num_classes, img_size=img_size, patch_size=patch_size, **settings)


def resnet_micro(num_classes: int = 10, **kwargs: Any) -> ResNet:
    """Return a ResNet in small: four stages of one basic block (0.52 M weights), any input size from 32 pixels.

    Args:
        num_classes: number of outputs.
        kwargs: passed to timm's ``ResNet``, over the values above.
    """
    settings: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (24, 48, 96, 144), "stem_width": 24} | kwargs
    block: Any = BasicBlock  # timm's annotation asks for an instance where it takes the class
    return ResNet(block=block, num_classes=num_classes, **settings)


MICRO_NETWORKS = {"deit_micro": deit_micro, "resnet_micro": resnet_micro}


def build_network(name: str, num_classes: int, **kwargs: Any) -> nn.Module:
    """Return a network with random weights.

    Args:
        name: ``deit_micro``, ``resnet_micro`` or any name timm knows.
        num_classes: number of outputs.
        kwargs: passed to the network's factory.

    Raises:
        InputError: if nothing has that name, or the network does not take these arguments.
    """
    if name not in MICRO_NETWORKS and not timm.is_model(name):
        hint = did_you_mean(name, [*MICRO_NETWORKS, *timm.list_models()])
        raise InputError(f"no network is named {name!r}: expected {', '.join(MICRO_NETWORKS)} or a timm name.{hint}")
    refuse_sources(kwargs, name)
    try:
        if name in MICRO_NETWORKS:
            return MICRO_NETWORKS[name](num_classes, **kwargs)
        return timm.create_model(name, pretrained=False, num_classes=num_classes, **kwargs)
    except FOREIGN_ERRORS as error:
        raise InputError(f"network {name!r} does not take these arguments: {printable(str(error))[:300]}") from error
