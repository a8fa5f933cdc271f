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

from ipvit.core.digests import digest_of_file
from ipvit.core.manifest import UNTRAINED
from ipvit.core.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, View
from ipvit.errors import FOREIGN_ERRORS, InputError, error_line
from ipvit.models.io.pickles import refused_type, said_of
from ipvit.models.io.state_dict import load_strictly, read_state_dict, resolve
from ipvit.models.model import Model
from ipvit.models.names import ModelName, refuse_sources
from ipvit.models.sources.building import cannot_fetch, quick_refusal_when_offline, seeded
from ipvit.models.sources.timm import build_timm

RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers in an image processor's ``resample``."""


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

    Label names come from ``config.id2label``, preprocessing from the image processor's configuration. No code of the
    repository is run.

    Raises:
        InputError: transformers is not installed, there is no such classifier, or its preprocessing is of a kind
            that :class:`~ipvit.core.preprocessing.View` does not describe.
    """
    if importlib.util.find_spec("transformers") is None:
        raise InputError(f"{parsed.name} needs the package transformers: pip install 'transformers>=4.45'")
    from transformers import AutoConfig, AutoModelForImageClassification
    from transformers.image_processing_utils import BaseImageProcessor

    title = f"transformers:{parsed.name}"
    refuse_sources(parsed.options, title)
    fetch = pretrained and parsed.weights is None
    try:
        with seeded(), contextlib.nullcontext() if Path(parsed.name).is_dir() else quick_refusal_when_offline():
            config = AutoConfig.from_pretrained(parsed.name, **parsed.options)
            processor, _ = BaseImageProcessor.get_image_processor_dict(parsed.name)
            if fetch:
                network, report = AutoModelForImageClassification.from_pretrained(
                    parsed.name, config=config, output_loading_info=True
                )
                _refuse_made_up(report["missing_keys"], title)
            else:
                network = AutoModelForImageClassification.from_config(config)
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
    path = resolve(parsed.weights) if parsed.weights else None
    if path is not None:
        load_strictly(network, read_state_dict(path), str(path))
    labels = getattr(config, "id2label", None) or {}
    return Model(
        network.float(),  # its output object's .logits are what Model returns
        name=title,
        preprocessing=processor_preprocessing(processor, title),
        classes=tuple(str(labels[index]) for index in sorted(labels)) or None,
        architecture=f"{type(network).__name__}\n{_identity(config)}",
        source=str(parsed.weights) if path else title if fetch else UNTRAINED,
        weights_sha256=digest_of_file(path) if path else None,
    )


def processor_preprocessing(processor: dict[str, Any], title: str) -> Preprocessing:
    """Return the preprocessing that an image processor's configuration states.

    Raises:
        InputError: it states something that a view cannot express.
    """
    interpolation = RESAMPLING.get(processor.get("resample", 2))
    if interpolation is None:
        raise InputError(f"{title} resizes by Pillow's method {processor['resample']}; known: {RESAMPLING}")
    factor = processor.get("rescale_factor", 1 / 255)
    if processor.get("do_rescale", True) and abs(factor * 255 - 1) > 1e-6:
        raise InputError(f"{title} scales pixels by {factor:g}, not by 1/255; wrap it in a FILE.py:FACTORY")
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if not processor.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    elif "image_mean" in processor:
        mean, std = tuple(processor["image_mean"]), tuple(processor["image_std"])
    return Preprocessing(_view(processor, interpolation, title), mean, std)


def _refuse_made_up(missing: Iterable[str], title: str) -> None:
    """Refuse a checkpoint without a classifier: transformers would make one up at random."""
    names = sorted(missing)
    if names:
        raise InputError(f"{title} holds no weights for {', '.join(names[:3])}: it is no trained image classifier")


def _view(processor: dict[str, Any], interpolation: str, title: str) -> View:
    size, crop = processor.get("size"), processor.get("crop_size")
    edge = size.get("shortest_edge") if isinstance(size, dict) else None
    resized = (edge, edge) if edge else _sides(size)
    cropped = _sides(crop) if processor.get("do_center_crop") else None
    if resized is None:
        raise InputError(f"{title} states no input size in its image processor; wrap it in a FILE.py:FACTORY")
    if cropped is not None:
        return View(cropped, cropped[0] / resized[0], interpolation, "center" if edge else "squash")
    if "crop_pct" in processor and edge:  # ConvNeXt's: resize a little larger, then crop to the size; squash from 384
        share = processor["crop_pct"] if edge < 384 else 1.0
        return View(resized, share, interpolation, "center" if edge < 384 else "squash")
    return View(resized, 1.0, interpolation, "center" if edge else "squash")


def _sides(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int):
        return (size, size)
    if isinstance(size, dict) and "height" in size:
        return (size["height"], size["width"])
    return None


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
