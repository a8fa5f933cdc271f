"""Every network of the paper: how it is built, where its weights are, and how the authors fed it.

All of them see what the authors' evaluation shows: the shortest side resized to 256 pixels (bilinear), the central
224 x 224 pixels, mean and standard deviation of ImageNet (section 3.1; the released ``evaluate.py``). ViT and TnT get
0.5 for both instead. Several networks score a little lower this way than with the preprocessing they were published
with (``paper:deit_base`` 81.7 instead of 81.8 %); ask timm for a network under its own name to get that one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ipvit.core.digests import stated_hash
from ipvit.core.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, View
from ipvit.errors import InputError, did_you_mean
from ipvit.models.names import ModelName

VIEW = View((224, 224), 0.875, "bilinear")
"""Resize 256, crop 224, for every network."""

IMAGENET = Preprocessing(VIEW, IMAGENET_MEAN, IMAGENET_STD)
HALF = Preprocessing(VIEW, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

AUTHORS = "https://github.com/Muzammal-Naseer/Intriguing-Properties-of-Vision-Transformers/releases/download/v0"
DEIT = "https://dl.fbaipublicfiles.com/deit"
DINO = "https://dl.fbaipublicfiles.com/dino"
T2T = "https://github.com/yitu-opensource/T2T-ViT/releases/download/main"
TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download"
SWIN = "https://github.com/SwinTransformer/storage/releases/download/v1.0.0"
TORCHVISION = "https://download.pytorch.org/models"
SHAPE = "https://bitbucket.org/robert_geirhos/texture-vs-shape-pretrained-models/raw"


@dataclasses.dataclass(frozen=True)
class PaperNetwork:
    """One network of the paper.

    Attributes:
        name: as in ``paper:NAME``.
        title: as the paper prints it.
        family: as the paper groups it.
        constructor: ``timm:NAME``, ``torchvision:NAME``, ``t2t:NAME`` or ``vit_small_2020``.
        parameters: number of parameters, as built here.
        where: figures and tables with results of it.
        weights: URL of the published file, or None where it cannot be downloaded directly.
        key: where the weights are in that file, or None for the file itself.
        options: arguments of the constructor.
        preprocessing: how the authors fed it.
        prefix_tokens: names of the tokens before the patches.
        page: where a person gets the weights when there is no URL of the file.
        notes: what one must know of it.
    """

    name: str
    title: str
    family: str
    constructor: str
    parameters: int
    where: str
    weights: str | None = None
    key: str | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    preprocessing: Preprocessing = IMAGENET
    prefix_tokens: tuple[str, ...] = ()
    page: str | None = None
    notes: str = ""

    @property
    def sha256(self) -> str | None:
        """First hex digits of the file's SHA-256, where its name states them."""
        return stated_hash(self.weights) if self.weights else None


def _convolutional() -> list[PaperNetwork]:
    def network(name: str, title: str, where: str, parameters: int, **more: Any) -> PaperNetwork:
        return PaperNetwork(
            name, title, "CNN", more.pop("constructor", f"torchvision:{name}"), parameters, where, **more
        )

    def regnety(size: str, title: str, parameters: int, url: str) -> PaperNetwork:
        notes = "the paper does not say which three RegNetY: these are the ones that DeiT's paper compares with"
        return PaperNetwork(
            f"regnety_{size}", title, "RegNetY", f"timm:regnety_{size}", parameters, "Fig 24", url, notes=notes
        )

    resnet = {"constructor": "torchvision:resnet50"}
    return [
        network("vgg19_bn", "VGG19_BN", "Fig 3", 143_678_248, weights=f"{TORCHVISION}/vgg19_bn-c79401a0.pth"),
        network(
            "resnet50",
            "ResNet50",
            "Fig 3, 5, 6, 10, 12, 13, 16; Tab 1, 4, 8; App C",
            25_557_032,
            weights=f"{TORCHVISION}/resnet50-0676ba61.pth",
            notes="torchvision's IMAGENET1K_V1, 76.1 %",
        ),
        network(
            "squeezenet",
            "SqueezeNet",
            "Fig 3",
            1_248_424,
            constructor="torchvision:squeezenet1_0",
            weights=f"{TORCHVISION}/squeezenet1_0-b66bff10.pth",
            notes="version 1.0, the one of the cited paper; the figure does not tell it from 1.1 (58.1 and 58.2 %)",
        ),
        network("densenet121", "DenseNet121", "Fig 3", 7_978_856, weights=f"{TORCHVISION}/densenet121-a639ec97.pth"),
        network(
            "resnet50_sin",
            "ResNet50-SIN",
            "Fig 6, 12, 13, 25; Tab 4",
            25_557_032,
            weights=f"{SHAPE}/6f41d2e86fc60566f78de64ecff35cc61eb6436f/resnet50_train_60_epochs-c8e5653e.pth.tar",
            key="state_dict",
            notes="Geirhos et al.'s model trained on Stylized ImageNet only",
            **resnet,
        ),
        network(
            "resnet50_augmix",
            "AugMix",
            "Tab 4",
            25_557_032,
            key="state_dict",
            page="https://drive.google.com/file/d/1z-1V3rdFiwqSECz7Wkmn4VJVefJGJGiF/view",
            notes="Hendrycks et al.'s model, mCE 65.3; its page hands the file to a person only",
            **resnet,
        ),
        regnety("040", "RegNetY-4GF", 20_646_656, f"{TIMM}/v0.1-regnet/regnety_040-f0d569f9.pth"),
        regnety("080", "RegNetY-8GF", 39_180_068, f"{TIMM}/v0.1-regnet/regnety_080-e7f3eb93.pth"),
        regnety("160", "RegNetY-16GF", 83_590_140, f"{DEIT}/regnety_160-a5fe301d.pth"),
    ]


def _swin() -> list[PaperNetwork]:
    def network(size: str, title: str, parameters: int, file: str, notes: str = "") -> PaperNetwork:
        constructor = f"timm:swin_{size}_patch4_window7_224"
        url = f"{SWIN}/{file}.pth"
        return PaperNetwork(
            f"swin_{size}", title, "Swin", constructor, parameters, "Fig 23", url, key="model", notes=notes
        )

    return [
        network("tiny", "Swin-T", 28_288_354, "swin_tiny_patch4_window7_224"),
        network("small", "Swin-S", 49_606_258, "swin_small_patch4_window7_224"),
        network(
            "base",
            "Swin-B",
            87_768_224,
            "swin_base_patch4_window7_224_22kto1k",
            "timm's weights of 2021, pre-trained on ImageNet-22k",
        ),
    ]


def _deit() -> list[PaperNetwork]:
    files = {"tiny": "a1311bcf", "small": "cd65a155", "base": "b5f2ef4d"}
    distilled = {"tiny": "b40b3cf7", "small": "649709d9", "base": "df68dfff"}
    parameters = {"tiny": 5_717_416, "small": 22_050_664, "base": 86_567_656}
    parameters_distilled = {"tiny": 5_910_800, "small": 22_436_432, "base": 87_338_192}
    where = {
        "tiny": "Fig 3, 6, 10-13, 15, 16, 26; Tab 4, 8",
        "small": "Fig 2, 3, 6, 10, 12, 13, 15, 16; Tab 4, 5, 8",
        "base": "Fig 3-6, 10, 12, 13, 15, 27; Tab 1, 4, 8; App C",
    }
    plain = [
        PaperNetwork(
            f"deit_{size}",
            f"DeiT-{size[0].upper()}",
            "DeiT",
            f"timm:deit_{size}_patch16_224",
            parameters[size],
            where[size],
            f"{DEIT}/deit_{size}_patch16_224-{digits}.pth",
            key="model",
            prefix_tokens=("class",),
        )
        for size, digits in files.items()
    ]
    with_token = [
        PaperNetwork(
            f"deit_{size}_distilled",
            f"DeiT-{size[0].upper()} distilled",
            "DeiT",
            f"timm:deit_{size}_distilled_patch16_224",
            parameters_distilled[size],
            "sec 3.2" if size != "base" else "-",
            f"{DEIT}/deit_{size}_distilled_patch16_224-{digits}.pth",
            key="model",
            prefix_tokens=("class", "distillation"),
            notes="logits are the mean of both heads",
        )
        for size, digits in distilled.items()
    ]
    return [*plain, *with_token]


def _vit() -> list[PaperNetwork]:
    return [
        PaperNetwork(
            "vit_small",
            "ViT-S",
            "ViT",
            "vit_small_2020",
            48_754_408,
            "Fig 3, 6",
            f"{TIMM}/v0.1-weights/vit_small_p16_224-15ec54c9.pth",
            preprocessing=HALF,
            prefix_tokens=("class",),
            notes="timm's first ViT-S: width 768, 8 blocks, scores divided by sqrt(768); published with ImageNet's "
            "mean and standard deviation and 77.9 %, fed with 0.5 by the authors",
        ),
        PaperNetwork(
            "vit_base",
            "ViT-B",
            "ViT",
            "timm:vit_base_patch16_224",
            86_567_656,
            "Fig 3, 6",
            f"{TIMM}/v0.1-vitjx/jx_vit_base_p16_224-80ecf9dd.pth",
            preprocessing=HALF,
            prefix_tokens=("class",),
        ),
        PaperNetwork(
            "vit_large",
            "ViT-L",
            "ViT",
            "timm:vit_large_patch16_224",
            304_326_632,
            "Fig 3, 5, 6, 12; Tab 1; App C",
            f"{TIMM}/v0.1-vitjx/jx_vit_large_p16_224-4ee7a4dc.pth",
            preprocessing=HALF,
            prefix_tokens=("class",),
        ),
    ]


def _t2t() -> list[PaperNetwork]:
    def network(size: str, title: str, parameters: int, where: str, file: str) -> PaperNetwork:
        name = f"t2t_vit_{size}"
        return PaperNetwork(
            name,
            title,
            "T2T",
            f"t2t:{name}",
            parameters,
            where,
            f"{T2T}/{file}.pth.tar",
            key="state_dict_ema",
            prefix_tokens=("class",),
        )

    return [
        network("7", "T2T-7", 4_310_222, "Fig 3, 6", "71.7_T2T_ViT_7"),
        network("14", "T2T-14", 21_545_550, "Fig 3, 6", "81.5_T2T_ViT_14"),
        network("24", "T2T-24", 64_105_934, "Fig 3, 5, 6, 12; Tab 1, 4", "82.3_T2T_ViT_24"),
        network("t_14", "T2T-t-14", 21_541_070, "-", "81.7_T2T_ViTt_14"),
        network("t_19", "T2T-t-19", 39_172_942, "-", "82.4_T2T_ViTt_19"),
        network("t_24", "T2T-t-24", 64_101_454, "-", "82.6_T2T_ViTt_24"),
    ]


def _others() -> list[PaperNetwork]:
    dino: dict[str, Any] = {"prefix_tokens": ("class",), "options": {"num_classes": 0}}
    return [
        PaperNetwork(
            "tnt_small",
            "TnT-S",
            "TnT",
            "timm:tnt_s_legacy_patch16_224",
            23_755_336,
            "Fig 5, 6; Tab 1, 4",
            "https://github.com/contrastive/pytorch-image-models/releases/download/TNT/tnt_s_patch16_224.pth.tar",
            preprocessing=HALF,
            prefix_tokens=("class",),
        ),
        PaperNetwork(
            "dino_vits16",
            "DINO ViT-S/16",
            "DINO",
            "timm:vit_small_patch16_224",
            21_665_664,
            "Fig 3 (saliency)",
            f"{DINO}/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
            notes="no classifier; the authors take head 1 (of 0 to 5) of the last block as saliency",
            **dino,
        ),
        PaperNetwork(
            "dino_vits8",
            "DINO ViT-S/8",
            "DINO",
            "timm:vit_small_patch8_224",
            21_670_272,
            "-",
            f"{DINO}/dino_deitsmall8_300ep_pretrain/dino_deitsmall8_300ep_pretrain.pth",
            notes="no classifier; in the released code, in no figure",
            **dino,
        ),
    ]


def _shape_and_position() -> list[PaperNetwork]:
    sizes = {"t": ("tiny", 5_717_416, 5_910_800), "s": ("small", 22_050_664, 22_436_432)}
    found = []
    for letter, (size, parameters, parameters_distilled) in sizes.items():
        title = f"DeiT-{letter.upper()}-SIN"
        url = f"{AUTHORS}/deit_{letter}_sin"
        found += [
            PaperNetwork(
                f"deit_{letter}_sin",
                title,
                "DeiT-SIN",
                f"timm:deit_{size}_patch16_224",
                parameters,
                "Fig 6, 12, 13, 25; Tab 3, 4",
                f"{url}.pth",
                key="model",
                prefix_tokens=("class",),
                notes="trained on Stylized ImageNet",
            ),
            PaperNetwork(
                f"deit_{letter}_sin_dist",
                f"{title} distilled",
                "DeiT-SIN",
                f"timm:deit_{size}_distilled_patch16_224",
                parameters_distilled,
                "Tab 3, 4",
                f"{url}_dist.pth",
                key="model",
                prefix_tokens=("class", "shape"),
                notes="trained on ImageNet, its shape token by ResNet50-SIN; logits are the mean of both heads, while "
                "table 3 reads each head alone",
            ),
        ]
    patches = {22: (100, 5_830_312), 28: (64, 5_996_200), 32: (49, 6_131_560), 38: (25, 6_368_872)}
    found += [
        PaperNetwork(
            "no_pos_deit_t",
            "DeiT-T no-pos",
            "DeiT-T variants",
            "timm:deit_tiny_patch16_224",
            5_679_592,
            "Fig 10",
            f"{AUTHORS}/no_pos_deit_t.pth",
            key="model",
            options={"pos_embed": "none"},
            prefix_tokens=("class",),
            notes="trained without positions, 68.3 %",
        )
    ]
    return found + [
        PaperNetwork(
            f"patch_{patch}_deit_t",
            f"DeiT-T patch {patch}",
            "DeiT-T variants",
            "timm:deit_tiny_patch16_224",
            parameters,
            "Fig 11",
            f"{AUTHORS}/patch_{patch}_deit_t.pth",
            key="model",
            options={"patch_size": patch},
            prefix_tokens=("class",),
            notes=f"{tokens} tokens"
            + (
                ""
                if 224 % patch == 0
                else f"; sees only the upper left {224 // patch * patch} x {224 // patch * patch}"
            ),
        )
        for patch, (tokens, parameters) in patches.items()
    ]


NETWORKS: Mapping[str, PaperNetwork] = MappingProxyType(
    {
        network.name: network
        for group in (_convolutional, _swin, _deit, _vit, _t2t, _others, _shape_and_position)
        for network in group()
    }
)
"""The networks by name, in the order of the groups."""

ALIASES = {
    "ResNet-50": "resnet50",
    "ResNet-50-SIN": "resnet50_sin",
    "ResNet50-AugMix": "resnet50_augmix",
    "SqueezeNet1.0": "squeezenet",
    "T2T-ViT-7": "t2t_vit_7",
    "T2T-ViT-14": "t2t_vit_14",
    "T2T-ViT-24": "t2t_vit_24",
    "T2T-ViT_t-14": "t2t_vit_t_14",
    "T2T-ViT_t-19": "t2t_vit_t_19",
    "T2T-ViT_t-24": "t2t_vit_t_24",
    "DeiT-T without positional encoding": "no_pos_deit_t",
    "DINO": "dino_vits16",
}
"""Further ways in which the networks are written; their titles and names are known anyway."""


def paper_name(text: str) -> str:
    """Return the name of a network of the paper, however it is written.

    >>> paper_name("DeiT-S"), paper_name("ResNet50-SIN"), paper_name("paper:vit_large")
    ('deit_small', 'resnet50_sin', 'vit_large')

    Raises:
        InputError: the paper has no such network.
    """
    found = _SPELLINGS.get(_plain(text.removeprefix("paper:")))
    if found is None:
        known = [*NETWORKS, *(network.title for network in NETWORKS.values())]
        raise InputError(f"the paper has no network {text!r}.{did_you_mean(text, known)} See ipvit models --paper")
    return found


_TIMM = {f"deit_{size}_patch16_224": f"deit_{size}" for size in ("tiny", "small", "base")}
"""timm's names of networks of the paper; the weights are the same."""

_FIRST_WEIGHTS = "IMAGENET1K_V1"
"""torchvision's name of the weights that the paper's convolutional networks have."""

REFERENCES = ("alexnet", "vgg16")
"""Networks of torchvision beside the paper's: what mean corruption errors and shape biases are compared with."""


def loaded_network(name: str) -> tuple[str | None, str]:
    """Return the network of the paper that a name loads, and why it is none.

    Args:
        name: as :func:`~ipvit.models.loading.load_model` takes it, never a label.

    Returns:
        The paper's name, ``torchvision:alexnet`` or ``torchvision:vgg16`` for the two references, and an empty text; or
        None and the reason, empty where the name has nothing to do with the paper.

    >>> loaded_network("deit_small_patch16_224.fb_in1k")[0], loaded_network("paper:resnet50@mine.pth")[0]
    ('deit_small', 'resnet50')
    >>> loaded_network("torchvision:resnet50")
    (None, 'torchvision:resnet50 has other weights than the paper, which torchvision calls IMAGENET1K_V1')
    """
    parsed = ModelName.parse(name)
    if "@probe:" in name or "@knn:" in name:
        return None, f"{name} has a head of its own"
    weights = parsed.options.pop("weights", None)
    known = _known(parsed)
    if known is None:
        return None, ""
    if parsed.scheme == "torchvision" and not parsed.weights:
        only = known.startswith("torchvision:")  # torchvision has one set of weights of it
        if weights != _FIRST_WEIGHTS and not (only and weights is None):
            return None, f"{name} has other weights than the paper, which torchvision calls {_FIRST_WEIGHTS}"
    if options := [key for key in parsed.options if key != "img_size"]:
        return None, f"{name} is built in another way: {', '.join(options)}"
    return known, ""


def _known(parsed: ModelName) -> str | None:
    if parsed.scheme == "paper":
        return _SPELLINGS.get(_plain(parsed.name))
    if parsed.scheme == "torchvision":
        if parsed.name in REFERENCES:
            return f"torchvision:{parsed.name}"
        constructor = f"torchvision:{parsed.name}"
        theirs = [
            n for n in NETWORKS.values() if n.constructor == constructor and (n.weights or "").startswith(TORCHVISION)
        ]
        return theirs[0].name if theirs else None
    plain = parsed.name.removeprefix("timm/") if parsed.scheme == "hf-hub" else parsed.name
    architecture, _, tag = plain.partition(".")
    return _TIMM.get(architecture) if parsed.scheme in ("", "timm", "hf-hub") and tag in ("", "fb_in1k") else None


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


_SPELLINGS = {
    **{_plain(title): name for title, name in ALIASES.items()},
    **{_plain(network.title): network.name for network in NETWORKS.values()},
    **{_plain(name): name for name in NETWORKS},
}
