"""The table of families in the documentation is what the adapters do."""

from __future__ import annotations

import re

import pytest

from helpers.adapter_networks import FACTORIES, hugging_face, make, small
from helpers.paths import REPOSITORY
from ipvit.models.adapters import Adapter, find_adapter

COLUMNS = {
    "tokens": "tokens",
    "attention": "attention",
    "feature drop": "feature_drop",
    "token removal": "token_removal",
}

FAMILIES: dict[str, list[str]] = {
    "timm ViT, DeiT, DINO, DINOv2, CLIP's towers": [name for name in FACTORIES if name.startswith("timm vit")],
    "timm EVA, EVA-02, DINOv3, ViT with rotary positions": [name for name in FACTORIES if name.startswith("timm eva")],
    "timm BEiT": [name for name in FACTORIES if name.startswith("timm beit")],
    "timm NaFlexViT": [name for name in FACTORIES if name.startswith("timm naflexvit")],
    "timm CaiT": ["timm cait"],
    "timm XCiT": ["timm xcit"],
    "timm TNT": ["timm tnt"],
    "T2T-ViT": ["t2t"],
    "timm Hiera": ["timm hiera"],
    "timm Swin, Swin v2": ["timm swin", "timm swin v2"],
    "timm MaxViT, CoAtNet": ["timm features: maxvit"],
    "timm MobileViT, MobileViT v2": ["timm features: mobilevit", "timm features: mobilevit v2"],
    "timm MambaOut": ["timm features: mambaout"],
    "timm ResNet, RegNet, EfficientNet, MobileNet, ConvNeXt": [
        "timm resnet",
        "timm resnet, deep stem",
        "timm regnet",
        "timm efficientnet",
        "timm mobilenet v3",
        "timm features: convnext",
    ],
    "timm EfficientViM": ["efficientvim_m1"],
    "timm, any other network with features by stage": ["timm features: mixer"],
    "torchvision ViT": ["torchvision vit"],
    "torchvision Swin": ["torchvision swin"],
    "torchvision ResNet, VGG, DenseNet, SqueezeNet, MobileNet, RegNet": [
        name
        for name in FACTORIES
        if name.startswith("torchvision") and name not in ("torchvision vit", "torchvision swin")
    ],
    "Hugging Face ViT, ViT-MSN, DeiT": ["hf vit", "hf vit-msn", "hf deit", "hf deit, distilled"],
    "Hugging Face CLIP, SigLIP, I-JEPA": ["hf clip", "hf siglip", "hf i-jepa"],
    "Hugging Face DINOv2, with and without registers": ["hf dinov2", "hf dinov2, registers"],
    "Hugging Face DINOv3": ["DINOv3ViTModel"],
    "Hugging Face BEiT, data2vec": [name for name in FACTORIES if name.startswith("hf beit")],
    "Hugging Face Swin, Swin v2": ["hf stages: swin", "hf stages: swin v2"],
    "Hugging Face ConvNeXt, ConvNeXt v2, ResNet": [
        "hf stages: convnext",
        "hf stages: convnext v2",
        "hf stages: resnet",
    ],
    "any other network": ["any module"],
}
"""The members that stand for a row."""


def adapter_of(name: str) -> Adapter:
    if name == "DINOv3ViTModel":
        return find_adapter(hugging_face(name, "DINOv3ViTConfig"))
    return make(name)[0] if name in FACTORIES else find_adapter(small(name))


def page() -> str:
    return (REPOSITORY / "docs" / "models.md").read_text("utf-8").partition("### Families")[2]


def rows() -> dict[str, list[str]]:
    lines = [line for line in page().partition("A test builds")[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["family", *COLUMNS]
    return {row[0]: row[1:] for row in cells[2:]}


def test_the_table_has_a_row_for_each_family_that_is_tried() -> None:
    assert list(rows()) == list(FAMILIES)
    tried = {name for names in FAMILIES.values() for name in names}
    assert FACTORIES.keys() - tried == {"timm tnt, legacy"}  # whose patches see their neighbours' pixels


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_says_what_the_members_of_the_family_can_do_and_why_they_cannot(family: str) -> None:
    said = dict(zip(COLUMNS.values(), rows()[family], strict=True))
    reasons = re.sub(r"\s+", " ", page().partition("Why not:")[2].partition("Attention maps are captured")[0])
    for name in FAMILIES[family]:
        adapter = adapter_of(name)
        assert {cell: "yes" if cell in adapter.capabilities else "no" for cell in said} == said, name
        for capability, answer in said.items():
            if answer == "no":
                assert f"{adapter.lacking(capability)}." in reasons, (name, capability)
