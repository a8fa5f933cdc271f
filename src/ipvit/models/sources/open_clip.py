"""Zero-shot models of open_clip, by architecture and pretrained weights, or from a folder."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import pickle
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ipvit.core.manifest import UNTRAINED
from ipvit.core.preprocessing import Preprocessing, View
from ipvit.errors import FOREIGN_ERRORS, InputError, did_you_mean, error_line
from ipvit.models.io.state_dict import load_strictly
from ipvit.models.io.weights_file import WeightsFile
from ipvit.models.model import Model
from ipvit.models.names import ModelName
from ipvit.models.sources.building import cannot_fetch, quick_refusal_when_offline, seeded
from ipvit.models.sources.image_processor import held_against
from ipvit.models.zero_shot.network import TextSide, ZeroShotNetwork, refuse_too_long
from ipvit.models.zero_shot.texts import NEEDS_OPEN_CLIP

HUB, FOLDER = "hf-hub:", "local-dir:"
"""What stands before the name of a repository, or a folder, in open_clip's own names."""


def load_open_clip(parsed: ModelName, pretrained: bool) -> Model:
    """Load the image tower of ``ARCH/PRETRAINED``, ``hf-hub:OWNER/NAME`` or a folder, with what reads texts.

    Raises:
        InputError: open_clip is not installed or does not know the name, or the weights cannot be fetched.
    """
    title = f"open_clip:{parsed.name}"
    if importlib.util.find_spec("open_clip") is None:
        raise InputError(f"{title} needs {NEEDS_OPEN_CLIP}")
    import open_clip

    if strange := parsed.options.keys() - {"img_size"}:
        raise InputError(f"{title} takes no {min(strange)!r}; it takes img_size")
    file = WeightsFile.read(parsed.weights) if parsed.weights else None
    fetch = pretrained and file is None
    architecture, tag = _divided(parsed.name, needs_tag=fetch)
    stated = _stated(architecture, tag, strict=file is not None)
    options: dict[str, Any] = {} if stated is None else {"force_preprocess_cfg": stated}
    if size := parsed.options.get("img_size"):
        options["force_image_size"] = size
    try:
        with seeded(), quick_refusal_when_offline(), _quietly():
            network: Any = open_clip.create_model(
                architecture,
                pretrained=tag if fetch else None,
                load_weights=fetch,
                pretrained_text=False,
                force_quick_gelu=_quick_gelu(architecture, tag),
                **options,
            )
            tokenizer = open_clip.get_tokenizer(architecture)
    except InputError:
        raise
    except (OSError, pickle.UnpicklingError, *FOREIGN_ERRORS) as error:
        if architecture.startswith(FOLDER) or not fetch:
            raise InputError(f"open_clip cannot build {title}: {error_line(error)}") from None
        raise cannot_fetch(title, error) from None
    if file is not None:
        load_strictly(network, file.state_for(network), str(file.path))
    source = file.in_words if file else f"open_clip {open_clip.__version__}, {title}" if fetch else UNTRAINED
    model = _tower(network.float().eval().requires_grad_(False), tokenizer, title, architecture, source)
    model.weights_sha256 = file.sha256 if file else None
    return model


def _divided(name: str, *, needs_tag: bool) -> tuple[str, str | None]:
    """Return open_clip's name of an architecture, and which weights of it, for a name as a user gives it."""
    import open_clip

    if name.startswith((HUB, FOLDER)):
        return name, None
    if Path(name).is_dir():
        return f"{FOLDER}{name}", None
    known = open_clip.list_models()
    whole, (architecture, _, tag) = name.replace("/", "-"), name.rpartition("/")
    if whole in known:
        architecture, tag = whole, ""
    architecture = architecture.replace("/", "-")
    if architecture not in known:
        listed = [f"{arch}/{one}" for arch, one in open_clip.list_pretrained()]
        raise InputError(
            f"open_clip knows no architecture {(architecture or tag)!r}; a name is open_clip:ARCH/PRETRAINED, such as "
            f"open_clip:ViT-B-32/laion2b_s34b_b79k.{did_you_mean(name, [*listed, *known])}"
        )
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag and tag not in tags:
        raise InputError(
            f"open_clip knows no weights {tag!r} of {architecture}; it knows {', '.join(tags) or 'none'}."
            f"{did_you_mean(tag, tags)}"
        )
    if needs_tag and not tag:
        raise InputError(
            f"which weights of open_clip:{architecture}? open_clip:{architecture}/PRETRAINED, with one of "
            f"{', '.join(tags) or 'none'}; or open_clip:{architecture}@FILE"
        )
    return architecture, tag or None


def _stated(architecture: str, tag: str | None, *, strict: bool) -> dict[str, Any] | None:
    """Return the preprocessing of published weights; without any that of all weights of the architecture.

    Args:
        architecture: in open_clip's own name; of a repository or folder the configuration there states it.
        tag: of the weights.
        strict: refuse an architecture whose weights have several.

    Raises:
        InputError: nobody knows which is meant.
    """
    import open_clip

    if architecture.startswith((HUB, FOLDER)):
        return None
    tags = [tag] if tag else open_clip.list_pretrained_tags_by_model(architecture)
    keys = ("mean", "std", "interpolation", "resize_mode")
    found = [{key: open_clip.get_pretrained_cfg(architecture, one).get(key) for key in keys} for one in tags]
    if strict and any(one != found[0] for one in found):
        raise InputError(
            f"published weights of {architecture} were trained with several kinds of preprocessing; say whose it is, "
            f"open_clip:{architecture}/PRETRAINED@FILE, with one of {', '.join(tags)}"
        )
    return found[0] if found else None


def _quick_gelu(architecture: str, tag: str | None) -> bool:
    """Tell whether weights were trained with the approximate GELU of OpenAI; the architecture alone does not say.

    Raises:
        InputError: the architecture has it and the weights were trained without.
    """
    import open_clip

    if tag is None:
        return False
    trained = bool(open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu", False))
    if not trained and (open_clip.get_model_config(architecture) or {}).get("quick_gelu", False):
        plain = architecture.removesuffix("-quickgelu")
        raise InputError(
            f"the weights {tag} were trained without the quick GELU of {architecture}: give open_clip:{plain}/{tag}"
        )
    return trained


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep open_clip's log, of warnings that weights are not loaded where none were asked for, to itself."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logging.disable(before)


def _tower(network: Any, tokenizer: Any, title: str, architecture: str, source: str) -> Model:
    import open_clip

    visual = network.visual
    split = hasattr(visual, "trunk")  # a network of timm, and what comes after it
    config = open_clip.get_model_config(architecture) or {}
    described = {"vision": config.get("vision_cfg"), "embedding": config.get("embed_dim")}
    whole = f"open_clip:{json.dumps(config, sort_keys=True, default=str)} {_activation(network)}"
    trunk, projection = (visual.trunk, visual.head) if split else (visual, nn.Identity())
    return Model(
        ZeroShotNetwork(trunk, projection, _text_side(network, tokenizer, title, whole)),
        name=title,
        preprocessing=_preprocessing(network, title),
        architecture=f"open_clip:{sorted(described.items())} {_activation(visual)}",
        source=source,
    )


def _activation(network: nn.Module) -> str:
    """Return which GELU a network has, which no weight tells."""
    return "quick GELU" if any(type(part).__name__ == "QuickGELU" for part in network.modules()) else "GELU"


def _preprocessing(network: Any, title: str) -> Preprocessing:
    """Return the preprocessing of a model's configuration, held against open_clip's own on made-up pictures.

    Raises:
        InputError: no view does the same.
    """
    from open_clip.transform import PreprocessCfg, image_transform_v2

    stated = PreprocessCfg(**network.visual.preprocess_cfg)
    size = stated.size if isinstance(stated.size, int) else tuple(stated.size)
    height, width = (size, size) if isinstance(size, int) else size
    if stated.resize_mode == "longest":
        raise InputError(f"{title} pads pictures to a square, which no view here does; wrap it in a FILE.py:FACTORY")
    mode = "squash" if stated.resize_mode == "squash" else "center"
    possible = Preprocessing(
        View((height, width), 1.0, stated.interpolation, mode), tuple(stated.mean), tuple(stated.std)
    )
    transform: Any = image_transform_v2(stated, is_train=False)
    return held_against([possible], transform, title, "open_clip's transform")


def _text_side(network: Any, tokenizer: Any, title: str, architecture: str) -> TextSide:
    """Return what reads texts, with the tokenizer that belongs to the architecture.

    Its configuration says how texts are cleaned: SigLIP's in lower case and without punctuation.

    Args:
        network: the whole model.
        tokenizer: what makes token numbers of texts.
        title: what messages call the model.
        architecture: what identifies the code of the network beside its weights.
    """
    context = int(getattr(network, "context_length", 0) or network.text.context_length)

    def lengths(texts: Sequence[str]) -> Iterator[int]:
        for text in texts:
            if hasattr(tokenizer, "tokenizer"):  # of Hugging Face
                yield len(tokenizer.tokenizer(tokenizer.clean_fn(text), verbose=False).input_ids)
            else:
                yield len(tokenizer.encode(text)) + 2

    def tokenize(texts: Sequence[str]) -> Tensor:
        refuse_too_long(texts, lengths(texts), context, title)
        return tokenizer(list(texts), context_length=context)

    with torch.no_grad():
        scale = float(network.logit_scale.exp())
        bias = 0.0 if getattr(network, "logit_bias", None) is None else float(network.logit_bias)
    clean = getattr(getattr(tokenizer, "clean_fn", None), "__name__", "").removeprefix("_clean_")
    how = {"canonicalize": "lower case, without punctuation, ", "lower": "lower case, "}.get(clean, "")
    how += f"padded to {context} tokens"
    return TextSide(tokenize, network.encode_text, network, scale, bias, how, architecture)
