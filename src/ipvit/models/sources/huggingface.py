"""Networks of Hugging Face: timm's on the hub, image classifiers and zero-shot models of the package transformers."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ipvit.core.manifest import UNTRAINED
from ipvit.errors import FOREIGN_ERRORS, InputError, error_line
from ipvit.models.io.pickles import refused_type, said_of
from ipvit.models.io.state_dict import load_strictly
from ipvit.models.io.weights_file import WeightsFile
from ipvit.models.model import Model
from ipvit.models.names import ModelName, refuse_sources
from ipvit.models.sources.building import cannot_fetch, quick_refusal_when_offline, seeded
from ipvit.models.sources.huggingface_zero_shot import KINDS, build, is_zero_shot, refuse_naflex
from ipvit.models.sources.image_processor import preprocessing_of
from ipvit.models.sources.timm import build_timm

_BACKBONES = ("dinov3_vit",)
"""Kinds of networks that transformers has no classifier for, whose backbone an adapter of ours reads."""


def load_hub(parsed: ModelName, pretrained: bool) -> Model:
    """Load ``owner/name`` from the hub: with transformers where its ``config.json`` is of transformers, else with timm.

    Raises:
        InputError: it cannot be fetched or built.
    """
    if _is_of_transformers(parsed.name):
        return load_transformers(parsed, pretrained)
    return build_timm(dataclasses.replace(parsed, name=f"hf-hub:{parsed.name}"), pretrained)


def load_transformers(parsed: ModelName, pretrained: bool) -> Model:
    """Load an image classifier, or the tower of a zero-shot model, of transformers from the hub or a local folder.

    Label names come from ``config.id2label``, preprocessing from the image processor's configuration, which is held
    against the processor itself on made-up pictures. No code of the repository is run.

    Raises:
        InputError: transformers is not installed, there is no such model, or its preprocessing is of a kind
            that :class:`~ipvit.core.preprocessing.View` does not describe.
    """
    if importlib.util.find_spec("transformers") is None:
        raise InputError(f"{parsed.name} needs the package transformers: pip install 'ipvit[transformers]'")
    title = f"transformers:{parsed.name}"
    refuse_sources(parsed.options, title)
    fetch = pretrained and parsed.weights is None
    try:
        with seeded(), contextlib.nullcontext() if Path(parsed.name).is_dir() else quick_refusal_when_offline():
            network, config, processor, tokenizer = _built(parsed, title, fetch)
    except InputError:
        raise
    except (OSError, pickle.UnpicklingError, *FOREIGN_ERRORS) as error:
        if Path(parsed.name).is_dir() and (kind := refused_type(error)) is not None:
            raise InputError(f"the weights in {parsed.name!r} are not weights alone: {said_of(kind)}") from None
        if Path(parsed.name).is_dir() or not fetch:
            raise InputError(
                f"{title} is no image classifier, and no CLIP or SigLIP model, that transformers can build: "
                f"{error_line(error)}"
            ) from None
        raise cannot_fetch(title, error) from None
    file = WeightsFile.read(parsed.weights) if parsed.weights else None
    if tokenizer is not None:
        return build(network, tokenizer, processor, title, file, fetch)
    if file is not None:
        load_strictly(network, file.state_for(network), str(file.path))
    labels = {} if config.model_type in _BACKBONES else getattr(config, "id2label", None) or {}
    return Model(
        network.float(),  # its output object's .logits are what Model returns
        name=title,
        preprocessing=preprocessing_of(processor, title),
        classes=tuple(str(labels[index]) for index in sorted(labels)) or None,
        architecture=f"{type(network).__name__}\n{_identity(config)}",
        source=file.in_words if file else title if fetch else UNTRAINED,
        weights_sha256=file.sha256 if file else None,
    )


def _built(parsed: ModelName, title: str, fetch: bool) -> tuple[Any, Any, Any, Any]:
    """Return a network, its configuration, what prepares its pictures, and of a zero-shot model its tokenizer."""
    import transformers
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoTokenizer

    config = AutoConfig.from_pretrained(parsed.name, trust_remote_code=False, **parsed.options)
    kind: Any = AutoModel if config.model_type in _BACKBONES else AutoModelForImageClassification
    tokenizer = None
    if is_zero_shot(config):
        refuse_naflex(config, title)
        kind = getattr(transformers, KINDS[config.model_type])
        tokenizer = AutoTokenizer.from_pretrained(parsed.name, trust_remote_code=False)
    processor = AutoImageProcessor.from_pretrained(parsed.name, trust_remote_code=False)
    if fetch:
        network, report = kind.from_pretrained(parsed.name, config=config, output_loading_info=True)
        _refuse_made_up(report["missing_keys"], title, classifier=tokenizer is None)
    else:
        network = kind.from_config(config) if tokenizer is None else kind(config)
    return network, config, processor, tokenizer


def _refuse_made_up(missing: Iterable[str], title: str, *, classifier: bool) -> None:
    """Refuse a checkpoint without a classifier: transformers would make one up at random."""
    names = sorted(missing)
    if names:
        backbone = f"; its backbone alone is {title}?num_labels=0" if classifier else ""
        raise InputError(
            f"{title} holds no weights for {', '.join(names[:3])}: it is no trained model of this kind{backbone}"
        )


def _is_of_transformers(name: str) -> bool:
    """Tell by the repository's ``config.json``; when it cannot be read, timm's loader says why."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        with quick_refusal_when_offline():
            path = hf_hub_download(name.partition("@")[0], "config.json")
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, EntryNotFoundError):
        return False
    return "model_type" in config and "architecture" not in config


def _identity(config: Any) -> str:
    """Return the configuration without what does not change the outputs."""
    values = {
        key: value for key, value in config.to_dict().items() if key not in ("_name_or_path", "transformers_version")
    }
    return json.dumps(values, sort_keys=True, default=str)
