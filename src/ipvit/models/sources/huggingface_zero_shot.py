"""Zero-shot models of Hugging Face transformers: CLIP, SigLIP, and SigLIP 2 of a fixed resolution."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ipvit.core.manifest import UNTRAINED
from ipvit.errors import InputError
from ipvit.models.io.state_dict import load_strictly
from ipvit.models.io.weights_file import WeightsFile
from ipvit.models.model import Model
from ipvit.models.sources.image_processor import preprocessing_of
from ipvit.models.zero_shot.network import TextSide, ZeroShotNetwork, refuse_too_long

KINDS = {"clip": "CLIPModel", "siglip": "SiglipModel"}
"""The class of transformers for each ``model_type``; SigLIP 2's models of a fixed resolution are ``siglip``."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Tower(nn.Module):
    """An image tower that returns its pooled vector ``(B, F)`` for normalised images.

    Args:
        body: the vision model of transformers.
    """

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body
        self.config = body.config

    def forward(self, images: Tensor) -> Tensor:
        """Return what the model itself pools."""
        return self.body(pixel_values=images).pooler_output


def is_zero_shot(config: Any) -> bool:
    """Tell whether a configuration is that of a model of images and texts, and not of a classifier made of one."""
    named = getattr(config, "architectures", None) or ()
    kind = getattr(config, "model_type", "")
    return kind in (*KINDS, "siglip2") and not any(name.endswith("ForImageClassification") for name in named)


def refuse_naflex(config: Any, title: str) -> None:
    """Refuse SigLIP 2 of variable resolution.

    Raises:
        InputError: says which models there are instead.
    """
    if config.model_type == "siglip2":
        raise InputError(
            f"{title} is SigLIP 2 of variable resolution (NaFlex), whose number of patches follows each picture's "
            "shape; take one of a fixed resolution, such as transformers:google/siglip2-base-patch16-224"
        )


def build(network: Any, tokenizer: Any, processor: Any, title: str, file: WeightsFile | None, fetched: bool) -> Model:
    """Return the image tower of a model of transformers, with what reads texts.

    Args:
        network: a ``CLIPModel`` or ``SiglipModel``.
        tokenizer: of the same repository.
        processor: of pictures, likewise.
        title: what messages and tables call it.
        file: weights to be loaded into it.
        fetched: it has its published weights.
    """
    if file is not None:
        load_strictly(network, file.state_for(network), str(file.path))
    network = network.float().eval().requires_grad_(False)
    side = _text_side(network, tokenizer, title)
    projection = network.visual_projection if hasattr(network, "visual_projection") else nn.Identity()
    return Model(
        ZeroShotNetwork(Tower(network.vision_model), projection, side),
        name=title,
        preprocessing=preprocessing_of(processor, title),
        architecture=_architecture(network, network.config.vision_config),
        source=file.in_words if file else title if fetched else UNTRAINED,
        weights_sha256=file.sha256 if file else None,
    )


def _architecture(network: Any, part: Any) -> str:
    """Return what identifies the code of a tower beside its weights: the part of the configuration that builds it."""
    stated = part.to_dict()
    for changing in ("_name_or_path", "transformers_version", "dtype", "torch_dtype"):
        stated.pop(changing, None)
    return f"{type(network).__name__}\n{sorted(stated.items(), key=str)}"


def canonical(text: str) -> str:
    """Return a text as SigLIP's authors prepare it: lower case, without punctuation, single spaces.

    As ``canonicalize_text`` in big_vision's ``prompt_engineering.py``, which all their zero-shot numbers go through,
    those of SigLIP 2 too.

    >>> canonical("A photo of a {Saint_Bernard}.")
    'a photo of a saint bernard'
    """
    return re.sub(r"\s+", " ", text.replace("_", " ").translate(_PUNCTUATION).lower()).strip()


def _text_side(network: Any, tokenizer: Any, title: str) -> TextSide:
    """Return what reads texts: with CLIP's tokenizer as they are, for SigLIP as its authors prepare them.

    Both are padded to the length that the text tower was trained with and get no attention mask: CLIP's causal tower
    does not look past the end, and SigLIP's was trained to read the padding.
    """
    context = network.config.text_config.max_position_embeddings
    siglip = network.config.model_type == "siglip"
    prepare = canonical if siglip else str.strip

    def tokenize(texts: Sequence[str]) -> Tensor:
        prepared = [prepare(text) for text in texts]
        if empty := next((text for text, left in zip(texts, prepared, strict=True) if not left), ""):
            raise InputError(f"{title}: of the text {empty!r} nothing is left without its punctuation")
        refuse_too_long(texts, (len(one) for one in tokenizer(prepared, verbose=False)["input_ids"]), context, title)
        found = tokenizer(prepared, padding="max_length", max_length=context, truncation=True, return_tensors="pt")
        return found["input_ids"]

    def encode(tokens: Tensor) -> Tensor:
        found = network.get_text_features(input_ids=tokens)
        return found if isinstance(found, Tensor) else found.pooler_output  # a tensor until transformers 5

    with torch.no_grad():
        scale = float(network.logit_scale.exp())
        bias = float(network.logit_bias) if hasattr(network, "logit_bias") else 0.0
    how = "lower case, without punctuation, " if siglip else ""
    how += f"padded to {context} tokens, without attention mask"
    return TextSide(tokenize, encode, network, scale, bias, how, _architecture(network, network.config.text_config))
