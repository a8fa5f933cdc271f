"""Building the paper's networks and loading their weights."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ipvit.core.manifest import UNTRAINED
from ipvit.core.preprocessing import Preprocessing
from ipvit.errors import FOREIGN_ERRORS, DownloadError, InputError
from ipvit.models.io.state_dict import StateDict, load_strictly
from ipvit.models.io.weights_file import WeightsFile
from ipvit.models.label_spaces import imagenet_classes
from ipvit.models.model import Model
from ipvit.models.names import ModelName, refuse_sources
from ipvit.models.sources.building import fitted, seeded
from ipvit.models.sources.torchvision import undotted
from ipvit.models.zoo.paper import NETWORKS, PaperNetwork, paper_name


def load_paper(name: str, pretrained: bool = True, weights: str | None = None) -> Model:
    """Load a network of the paper, fed as the authors fed it.

    Args:
        name: ``deit_small``, ``DeiT-S``, ...: see :func:`~ipvit.models.zoo.paper.paper_name`.
        pretrained: fetch the published weights if none are given; otherwise start from a fixed random seed.
        weights: a local file or a URL to use instead.

    Raises:
        InputError: the paper has no such network, or its weights cannot be had or do not fit.
    """
    return load_paper_name(ModelName("paper", name, {}, weights), pretrained)


def load_paper_name(parsed: ModelName, pretrained: bool) -> Model:
    """Load a network by a name that was taken apart; its options change the constructor's."""
    entry = NETWORKS[paper_name(parsed.name)]
    options = {**entry.options, **parsed.options}
    location = parsed.weights or (entry.weights if pretrained else None)
    if location is None and pretrained:
        raise DownloadError(
            f"the weights of paper:{entry.name} cannot be downloaded without a person: get them from {entry.page} and "
            f"give paper:{entry.name}@FILE"
        )
    network = build_paper(entry, options)
    digest = None
    if location is not None:
        file = WeightsFile.read(location)
        if not file.key and entry.key is not None and isinstance(file.content.get(entry.key), Mapping):
            file.key = entry.key
        load_strictly(network, fitted(_resampled(file.state_for(network, undotted), network), network), location)
        digest = file.sha256
    outputs = getattr(network, "num_classes", options.get("num_classes", 1000))
    model = Model(
        network,
        name=f"paper:{entry.name}",
        preprocessing=_preprocessing(entry, options),
        classes=imagenet_classes() if outputs == 1000 else None,
        architecture=f"paper:{entry.constructor}{sorted(options.items())}",
        source=location or UNTRAINED,
        weights_sha256=digest,
    )
    if len(entry.prefix_tokens) > 1:
        model.distillation_token = entry.prefix_tokens[1]
    return model


def _resampled(state: StateDict, network: nn.Module) -> StateDict:
    """Return the weights with position embeddings for the network's input, enlarged as the authors enlarge them.

    Their kernel is torch's plain bicubic one (a = -0.75). timm's, which smooths (``antialias``), has a = -0.5 also
    where it enlarges, and the Jaccard index of one image may differ by 0.06 between them.
    """
    own, given = getattr(network, "pos_embed", None), state.get("pos_embed")
    first = getattr(network, "num_prefix_tokens", 1)
    sides = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    if not isinstance(own, Tensor) or given is None or sides is None or given.shape == own.shape:
        return state
    if own.shape[1] != first + math.prod(sides) or given.shape[::2] != own.shape[::2]:
        return state
    before = math.isqrt(given.shape[1] - first)
    if before**2 != given.shape[1] - first or before > min(sides):  # for smaller inputs the authors say nothing
        return state
    grid = given[:, first:].float().reshape(1, before, before, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=tuple(sides), mode="bicubic", align_corners=False)
    patches = grid.permute(0, 2, 3, 1).flatten(1, 2).to(given.dtype)
    return {**state, "pos_embed": torch.cat([given[:, :first], patches], dim=1)}


def build_paper(entry: PaperNetwork, options: dict[str, Any] | None = None) -> nn.Module:
    """Build a network of the paper with random weights.

    Args:
        entry: which one.
        options: arguments of its constructor; those of the entry by default.

    Raises:
        InputError: the constructor does not take the options.
    """
    options = dict(entry.options) if options is None else options
    refuse_sources(options, f"paper:{entry.name}")
    source, _, name = entry.constructor.partition(":")
    try:
        with seeded():
            return CONSTRUCTORS[source](name, options).eval()
    except FOREIGN_ERRORS as error:
        raise InputError(f"paper:{entry.name} does not take {options}: {error}") from None


def _timm(name: str, options: dict[str, Any]) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, **options)


def _torchvision(name: str, options: dict[str, Any]) -> nn.Module:
    import torchvision.models as zoo

    return zoo.get_model(name, weights=None, **options)


def _t2t(name: str, options: dict[str, Any]) -> nn.Module:
    from ipvit.models.zoo.t2t import VARIANTS, T2TViT

    return T2TViT(**{**VARIANTS[name], **options})


def _vit_small_2020(_name: str, options: dict[str, Any]) -> nn.Module:
    """Build the ViT-S that timm had before the AugReg weights: its scores are divided by sqrt(width), not by head."""
    from timm.models.vision_transformer import VisionTransformer

    sizes: dict[str, Any] = {"embed_dim": 768, "depth": 8, "num_heads": 8, "mlp_ratio": 3.0, "qkv_bias": False}
    norm = functools.partial(nn.LayerNorm, eps=1e-5)
    network: Any = VisionTransformer(**{**sizes, "norm_layer": norm, **options})
    for block in network.blocks:
        block.attn.scale = 768**-0.5
        block.attn.fused_attn = False  # the fused kernel would not look at the scale
    return network


CONSTRUCTORS = {"timm": _timm, "torchvision": _torchvision, "t2t": _t2t, "vit_small_2020": _vit_small_2020}
"""What builds a network, by the first part of ``PaperNetwork.constructor``."""


def _preprocessing(entry: PaperNetwork, options: dict[str, Any]) -> Preprocessing:
    wanted = options.get("img_size")
    if wanted is None:
        return entry.preprocessing

    size = (wanted, wanted) if isinstance(wanted, int) else wanted
    return dataclasses.replace(entry.preprocessing, view=dataclasses.replace(entry.preprocessing.view, size=size))
