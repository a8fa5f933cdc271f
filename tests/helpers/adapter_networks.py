"""Tiny random networks, one or more of every family that has an adapter."""

from __future__ import annotations

import copy
import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision.models as zoo
from timm.models.convnext import ConvNeXt
from timm.models.deit import VisionTransformerDistilled
from timm.models.mlp_mixer import MlpMixer
from timm.models.regnet import RegNet, RegNetCfg
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ipvit.models.adapters import Adapter, find_adapter

CLASSES = 5
VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
SWIN: dict[str, Any] = {"embed_dim": 12, "depths": (1, 2, 1), "num_heads": (1, 2, 2), "window_size": 4}

HF_SWIN: dict[str, Any] = {
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 12,
    "depths": [1, 2, 1],
    "num_heads": [1, 2, 2],
    "window_size": 4,
}
HF_CNN: dict[str, Any] = {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1]}

REGNET: dict[str, Any] = {"depth": 5, "w0": 16, "wa": 16.0}
MOBILENET = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 2], [6, 64, 1, 2], [6, 96, 1, 1], [6, 160, 1, 2], [6, 320, 1, 1]]


def vit(**kwargs: Any) -> VisionTransformer:
    return VisionTransformer(**VIT | kwargs, num_classes=CLASSES)


def tnt(name: str) -> nn.Module:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "inner_dim": 8, "depth": 3}
    return timm.create_model(name, **sizes, num_heads_outer=3, num_heads_inner=2, num_classes=CLASSES)


def t2t() -> nn.Module:
    from ipvit.models.zoo.t2t import T2TViT

    return T2TViT(img_size=32, embed_dim=24, depth=3, num_heads=3, num_classes=CLASSES)


def hugging_face(kind: str, config: str, **kwargs: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
    settings = sizes | {"intermediate_size": 48, "num_labels": CLASSES} | kwargs
    if not hasattr(transformers, kind):
        pytest.skip(f"this release of transformers has no {kind}")
    return getattr(transformers, kind)(getattr(transformers, config)(**settings))


def compute_eagerly(network: Any) -> None:
    """Let a network of transformers compute its attention in plain steps, so that it can return its maps."""
    if hasattr(network, "set_attn_implementation"):
        network.set_attn_implementation("eager")
        return
    for module in network.modules():  # of earlier releases
        if hasattr(module, "config"):
            module.config._attn_implementation = "eager"


def hugging_face_tower(kind: str, config: str) -> nn.Module:
    """A classifier on the image tower of a network of images and texts."""
    transformers = pytest.importorskip("transformers")
    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
    settings = getattr(transformers, config)(vision_config=sizes | {"intermediate_size": 48}, num_labels=CLASSES)
    return getattr(transformers, kind)(settings)


def hugging_face_stages(family: str, **kwargs: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{family}Config")(num_labels=CLASSES, **kwargs)
    return getattr(transformers, f"{family}ForImageClassification")(config)


def naflex(**kwargs: Any) -> nn.Module:
    sizes = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "pos_embed_grid_size": (4, 4)}
    return timm.create_model("naflexvit_base_patch16_gap", **sizes, num_classes=CLASSES, **kwargs)


def small(name: str, **kwargs: Any) -> nn.Module:
    return timm.create_model(name, num_classes=CLASSES, **kwargs)


def regnet() -> nn.Module:
    blocks = zoo.regnet.BlockParams.from_init_params(depth=5, w_0=16, w_a=16.0, w_m=1.5, group_width=8)
    return zoo.RegNet(blocks, num_classes=CLASSES)


def vgg() -> nn.Module:
    with torch.device("meta"):  # the published classifier's 120 million weights are not wanted
        network = zoo.vgg.VGG(nn.Identity(), init_weights=False)
    network.features = zoo.vgg.make_layers([8, "M", 8, 16, "M", 16, "M"], batch_norm=True)
    network.classifier = nn.Sequential(nn.Linear(16 * 49, 12), nn.ReLU(True), nn.Dropout(), nn.Linear(12, CLASSES))
    return network


FACTORIES: dict[str, tuple[int, Callable[[], nn.Module]]] = {
    "timm vit": (32, vit),
    "timm vit, distilled": (32, lambda: VisionTransformerDistilled(**VIT, num_classes=CLASSES)),
    "timm vit, registers": (32, lambda: vit(reg_tokens=2, no_embed_class=True)),
    "timm vit, no class token": (32, lambda: vit(class_token=False, global_pool="avg")),
    "timm vit, average pooling": (32, lambda: vit(global_pool="avg")),
    "timm vit, pre-norm, attention pooling": (32, lambda: vit(pre_norm=True, global_pool="map")),
    "timm vit, norm after pooling": (32, lambda: vit(fc_norm=True)),
    "timm vit, no positions": (32, lambda: vit(pos_embed="none")),
    "timm vit, layer scale, any size": (40, lambda: vit(init_values=0.5, dynamic_img_size=True, qk_norm=True)),
    "timm eva": (32, lambda: timm.create_model("vit_small_patch16_dinov3", **VIT, num_classes=CLASSES)),
    "timm beit": (32, lambda: timm.create_model("beit_base_patch16_224", **VIT, num_classes=CLASSES)),
    "timm eva-02": (32, lambda: small("eva02_tiny_patch14_224", **VIT)),
    "timm eva, rotations of each block": (32, lambda: small("vit_small_patch16_rope_mixed_224", **VIT)),
    "timm beit, one bias for all": (
        32,
        lambda: small("beit_base_patch16_224", **VIT, use_rel_pos_bias=False, use_shared_rel_pos_bias=True),
    ),
    "timm naflexvit": (32, lambda: naflex(reg_tokens=0)),
    "timm naflexvit, class token, rotations": (
        32,
        lambda: naflex(class_token=True, reg_tokens=2, global_pool="token", rope_type="axial"),
    ),
    "timm cait": (
        32,
        lambda: small("cait_xxs24_224", img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3),
    ),
    "timm xcit": (32, lambda: small("xcit_nano_12_p8_224", img_size=32, embed_dim=24, depth=3, num_heads=3)),
    "timm tnt": (32, lambda: tnt("tnt_s_patch16_224")),
    "timm tnt, legacy": (32, lambda: tnt("tnt_s_legacy_patch16_224")),
    "t2t": (32, t2t),
    "torchvision vit": (32, lambda: zoo.VisionTransformer(32, 8, 3, 3, 24, 48, num_classes=CLASSES)),
    "hf vit": (32, lambda: hugging_face("ViTForImageClassification", "ViTConfig")),
    "hf deit": (32, lambda: hugging_face("DeiTForImageClassification", "DeiTConfig")),
    "hf deit, distilled": (32, lambda: hugging_face("DeiTForImageClassificationWithTeacher", "DeiTConfig")),
    "hf dinov2": (32, lambda: hugging_face("Dinov2ForImageClassification", "Dinov2Config")),
    "hf dinov2, registers": (
        32,
        lambda: hugging_face("Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig"),
    ),
    "hf vit-msn": (32, lambda: hugging_face("ViTMSNForImageClassification", "ViTMSNConfig")),
    "hf i-jepa": (32, lambda: hugging_face("IJepaForImageClassification", "IJepaConfig")),
    "hf clip": (32, lambda: hugging_face_tower("CLIPForImageClassification", "CLIPConfig")),
    "hf siglip": (32, lambda: hugging_face_tower("SiglipForImageClassification", "SiglipConfig")),
    "hf beit": (32, lambda: hugging_face("BeitForImageClassification", "BeitConfig", use_relative_position_bias=True)),
    "hf beit, class token, one bias for all": (
        32,
        lambda: hugging_face(
            "BeitForImageClassification",
            "BeitConfig",
            use_shared_relative_position_bias=True,
            use_absolute_position_embeddings=True,
            use_mean_pooling=False,
        ),
    ),
    "timm hiera": (64, lambda: small("hiera_tiny_224", img_size=64, stages=(1, 1, 1, 1), embed_dim=12)),
    "timm swin": (64, lambda: SwinTransformer(img_size=64, num_classes=CLASSES, **SWIN)),
    "timm swin v2": (64, lambda: SwinTransformerV2(img_size=64, num_classes=CLASSES, **SWIN)),
    "torchvision swin": (
        64,
        lambda: zoo.SwinTransformer([4, 4], 12, [1, 2, 1], [1, 2, 2], [4, 4], num_classes=CLASSES),
    ),
    "timm resnet": (64, lambda: ResNet(BasicBlock, (1, 1, 1, 1), CLASSES, channels=(8, 12, 16, 24), stem_width=8)),
    "timm resnet, deep stem": (
        64,
        lambda: ResNet(Bottleneck, (1, 1, 1, 1), CLASSES, channels=(8, 8, 8, 8), stem_type="deep", avg_down=True),
    ),
    "timm regnet": (64, lambda: RegNet(RegNetCfg(**REGNET, wm=1.5, group_size=8, se_ratio=0.25), num_classes=CLASSES)),
    "timm efficientnet": (64, lambda: timm.create_model("mobilenetv2_035", num_classes=CLASSES)),
    "timm mobilenet v3": (64, lambda: timm.create_model("mobilenetv3_small_050", num_classes=CLASSES)),
    "timm features: convnext": (
        64,
        lambda: ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 12, 16, 24), num_classes=CLASSES),
    ),
    "timm features: mixer": (
        32,
        lambda: MlpMixer(img_size=32, patch_size=8, num_blocks=2, embed_dim=24, num_classes=CLASSES),
    ),
    "timm features: mambaout": (
        64,
        lambda: small("mambaout_femto", depths=(1, 1, 1, 1), dims=(8, 12, 16, 24)),
    ),
    "timm features: mobilevit": (64, lambda: small("mobilevit_xxs")),
    "timm features: mobilevit v2": (64, lambda: small("mobilevitv2_050")),
    "timm features: maxvit": (64, lambda: small("maxvit_pico_rw_256", img_size=64)),
    "hf stages: swin": (64, lambda: hugging_face_stages("Swin", **HF_SWIN)),
    "hf stages: swin v2": (64, lambda: hugging_face_stages("Swinv2", **HF_SWIN)),
    "hf stages: convnext": (64, lambda: hugging_face_stages("ConvNext", **HF_CNN)),
    "hf stages: convnext v2": (64, lambda: hugging_face_stages("ConvNextV2", **HF_CNN)),
    "hf stages: resnet": (
        64,
        lambda: hugging_face_stages("ResNet", embedding_size=8, layer_type="basic", **HF_CNN),
    ),
    "torchvision resnet": (64, lambda: zoo.ResNet(zoo.resnet.BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)),
    "torchvision vgg": (64, vgg),
    "torchvision densenet": (64, lambda: zoo.DenseNet(8, (2, 2), 16, num_classes=CLASSES)),
    "torchvision squeezenet": (64, lambda: zoo.squeezenet1_1(num_classes=CLASSES)),
    "torchvision mobilenet v2": (64, lambda: zoo.MobileNetV2(CLASSES, 0.25, inverted_residual_setting=MOBILENET)),
    "torchvision mobilenet v3": (64, lambda: zoo.mobilenet_v3_small(width_mult=0.5, num_classes=CLASSES)),
    "torchvision regnet": (64, regnet),
    "any module": (32, lambda: nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, CLASSES))),
}


def make(name: str) -> tuple[Adapter, torch.Tensor]:
    """Return the adapter of a network in evaluation mode, through which images get, and two images for it."""
    if name.startswith("hf") and importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    network, images, chance = _built(name)
    adapter = find_adapter(copy.deepcopy(network))
    torch.set_rng_state(chance)
    return adapter, images.clone()


@functools.cache
def _built(name: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Return a network, which many tests copy, two images, and the state in which they left torch's generator."""
    size, factory = FACTORIES[name]
    torch.manual_seed(0)
    network = factory().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        calibrate(network, torch.randn(8, 3, size, size))
    find_adapter(copy.deepcopy(network))
    return network, torch.randn(2, 3, size, size), torch.get_rng_state()


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    """Hold two tensors to be alike but for the order in which 32-bit numbers were added."""
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def calibrate(network: nn.Module, images: torch.Tensor) -> None:
    """Give batch norms the statistics of images: otherwise what a deep random network says depends on nothing."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    if norms:
        network(images)
    network.eval()


def make_all_with(capability: str) -> list[str]:
    """Return the names of the networks that claim a capability, as tests are collected."""
    stages = ("timm features", "hf stages", "swin", "net", "vgg")
    claimed = {
        "attention": lambda name: name not in ("any module", "timm hiera") and not any(part in name for part in stages),
        "token_removal": lambda name: name in ("timm hiera", *patches_come_alone),
        "token_heads": lambda name: "distilled" in name,
        "tokens": lambda name: name != "any module",
        "feature_drop": lambda name: name != "any module",
        "logits": lambda name: True,
        "gradients": lambda name: True,
    }
    patches_come_alone = [
        name
        for name in FACTORIES
        if claimed["attention"](name) and name not in ("t2t", "timm tnt, legacy", "timm xcit")
    ]
    return [name for name in FACTORIES if claimed[capability](name)]
