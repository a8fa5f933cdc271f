"""Some forty architectures of timm, torchvision and transformers with random weights, as small as they go."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

import ipvit
from helpers.adapter_networks import calibrate, hugging_face

SIDE = 64

CLASS_ATTENTION = (
    "vit_tiny_patch16_224?img_size=64&depth=3",
    "deit_tiny_distilled_patch16_224?img_size=64&depth=2",
    "deit3_small_patch16_224?img_size=64&depth=2",
    "vit_small_patch14_dinov2?img_size=56&depth=2&num_classes=10",
    "vit_small_patch16_dinov3?img_size=64&depth=2&num_classes=10",
    "beit_base_patch16_224?img_size=64&depth=2&embed_dim=48&num_heads=3",
    "eva02_tiny_patch14_224?img_size=56&depth=2&num_classes=10",
    "tnt_s_patch16_224?img_size=64&depth=2",
    "torchvision:vit_b_32?image_size=64",
)
"""Those with a class token that looks at every patch in one softmax."""

BY_NAME = (
    *CLASS_ATTENTION,
    "vit_tiny_patch16_224?img_size=64&depth=2&class_token=false&global_pool=avg",
    "cait_xxs24_224?img_size=64&depth=2",
    "xcit_nano_12_p16_224?img_size=64&depth=2",
    "pit_ti_224?img_size=64",
    "levit_128s",
    "crossvit_tiny_240",
    "efficientformer_l1",
    "coat_tiny?img_size=64",
    "volo_d1_224?img_size=64",
    "convit_tiny?img_size=64&depth=2",
    "hiera_tiny_224?img_size=64&stages=1,1,1,1",
    "pvt_v2_b0",
    "poolformer_s12",
    "mobilevit_xxs",
    "edgenext_xx_small",
    "convnext_atto?depths=1,1,1,1",
    "mixer_s32_224?img_size=64",
    "swin_tiny_patch4_window7_224?img_size=64&window_size=2&depths=1,1,1,1",
    "visformer_tiny?img_size=64",
    "ghostnet_050",
    "mnasnet_small",
    "resnet10t",
    "regnetx_002",
    "mobilenetv3_small_050",
    "torchvision:swin_t",
    "torchvision:resnet18",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:squeezenet1_1",
    "torchvision:mobilenet_v3_small",
)

IN_TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "hf vit": ("ViTForImageClassification", "ViTConfig", {}),
    "hf dinov2": ("Dinov2ForImageClassification", "Dinov2Config", {}),
    "hf resnet": ("ResNetForImageClassification", "ResNetConfig", {"hidden_sizes": [16] * 4, "depths": [1] * 4}),
    "hf convnext": (
        "ConvNextForImageClassification",
        "ConvNextConfig",
        {"hidden_sizes": [16] * 4, "depths": [1] * 4, "patch_size": 4},
    ),
}

ARCHITECTURES = (*BY_NAME, *IN_TRANSFORMERS)

_FIXED = ("levit", "crossvit", "efficientformer", "pvt")
"""Networks with positions of one size."""


def load(name: str) -> ipvit.Model:
    """Return a network with random weights that takes small pictures as they are, with names for its outputs."""
    if name in IN_TRANSFORMERS:
        pytest.importorskip("transformers")
        kind, config, sizes = IN_TRANSFORMERS[name]
        torch.manual_seed(0)
        network = hugging_face(kind, config, **{"image_size": SIDE, "patch_size": 16, **sizes})
        names = [f"c{i}" for i in range(5)]
        return ipvit.wrap(_lively(network, SIDE), size=SIDE, crop_pct=1.0, classes=names, name=name)
    model = ipvit.load_model(name, pretrained=False)
    view = dataclasses.replace(model.preprocessing.view, crop_pct=1.0)
    if not any(word in name for word in ("img_size", "image_size")) and not name.startswith(_FIXED):
        view = dataclasses.replace(view, size=(SIDE, SIDE))
    model.preprocessing = dataclasses.replace(model.preprocessing, view=view)
    model.classes = tuple(f"c{i}" for i in range(model.n_outputs))
    _lively(model.backbone, view.size[0])
    return model


def _lively(network: nn.Module, side: int) -> nn.Module:
    """Let every part have a say, as it has after training: scales and heads often begin at zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
        calibrate(network.eval(), torch.randn(4, 3, side, side))
    return network
