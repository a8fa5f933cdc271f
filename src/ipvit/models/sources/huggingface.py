"""Image classifiers of Hugging Face: timm's on the hub, and those of the package transformers."""

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
    """Load an image classifier of transformers from the hub or a local folder.

    Label names come from ``config.id2label``, preprocessing from the image processor's configuration, which is held
    against the processor itself on made-up pictures. No code of the repository is run.

    Raises:
        InputError: transformers is not installed, there is no such classifier, or its preprocessing is of a kind
            that :class:`~ipvit.core.preprocessing.View` does not describe.
    """
    if importlib.util.find_spec("transformers") is None:
        raise InputError(f"{parsed.name} needs the package transformers: pip install 'transformers>=4.45'")
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification

    title = f"transformers:{parsed.name}"
    refuse_sources(parsed.options, title)
    fetch = pretrained and parsed.weights is None
    try:
        with seeded(), contextlib.nullcontext() if Path(parsed.name).is_dir() else quick_refusal_when_offline():
            config = AutoConfig.from_pretrained(parsed.name, trust_remote_code=False, **parsed.options)
            processor = AutoImageProcessor.from_pretrained(parsed.name, trust_remote_code=False)
            builder = AutoModel if config.model_type in _BACKBONES else AutoModelForImageClassification
            if fetch:
                network, report = builder.from_pretrained(parsed.name, config=config, output_loading_info=True)
                _refuse_made_up(report["missing_keys"], title)
            else:
                network = builder.from_config(config)
    except InputError:
        raise
    except (OSError, pickle.UnpicklingError, *FOREIGN_ERRORS) as error:
        if Path(parsed.name).is_dir() and (kind := refused_type(error)) is not None:
            raise InputError(f"the weights in {parsed.name!r} are not weights alone: {said_of(kind)}") from None
        if Path(parsed.name).is_dir() or not fetch:
            raise InputError(
                f"{title} is no image classifier that transformers can build: {error_line(error)}"
            ) from None
        raise cannot_fetch(title, error) from None
    file = WeightsFile.read(parsed.weights) if parsed.weights else None
    if file is not None:
        load_strictly(network, file.state_for(network), str(file.path))
    labels = {} if builder is AutoModel else getattr(config, "id2label", None) or {}
    return Model(
        network.float(),  # its output object's .logits are what Model returns
        name=title,
        preprocessing=preprocessing_of(processor, title),
        classes=tuple(str(labels[index]) for index in sorted(labels)) or None,
        architecture=f"{type(network).__name__}\n{_identity(config)}",
        source=file.in_words if file else title if fetch else UNTRAINED,
        weights_sha256=file.sha256 if file else None,
    )


def _refuse_made_up(missing: Iterable[str], title: str) -> None:
    """Refuse a checkpoint without a classifier: transformers would make one up at random."""
    names = sorted(missing)
    if names:
        raise InputError(
            f"{title} holds no weights for {', '.join(names[:3])}: it is no trained image classifier; its backbone "
            f"alone is {title}?num_labels=0"
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
