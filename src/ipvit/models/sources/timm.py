"""Networks of timm, by name or from the Hugging Face hub."""

from __future__ import annotations

import contextlib
import importlib.util
import pickle
import re
from typing import Any

from torch import nn

from ipvit.core.manifest import UNTRAINED
from ipvit.core.preprocessing import Preprocessing, View
from ipvit.errors import FOREIGN_ERRORS, InputError, did_you_mean, error_line, printable, shown
from ipvit.models.io.checkpoint import read_metadata
from ipvit.models.io.state_dict import is_safetensors, load_strictly
from ipvit.models.io.weights_file import WeightsFile
from ipvit.models.label_spaces import classes_of_timm
from ipvit.models.model import Model
from ipvit.models.names import ModelName, check_outputs, refuse_sources
from ipvit.models.sources.building import (
    cannot_fetch,
    fitted,
    quick_refusal_when_offline,
    seeded,
)
from ipvit.models.sources.files import stated_preprocessing
from ipvit.models.zoo.bundled import demo_models


def load_timm(parsed: ModelName, pretrained: bool) -> Model:
    """Load a network that timm knows.

    Raises:
        InputError: timm does not know the name, or :func:`build_timm` refuses.
    """
    import timm

    known = timm.list_models()
    if parsed.name.split(".")[0] not in known:
        close = did_you_mean(parsed.name, [*known, *demo_models()])
        raise InputError(f"timm knows no model {parsed.name!r}.{close}")
    return build_timm(parsed, pretrained)


def build_timm(parsed: ModelName, pretrained: bool) -> Model:
    """Build a network by a name that ``timm.create_model`` takes, ``hf-hub:owner/name`` among them.

    Raises:
        InputError: it does not take the options, its weights do not fit or cannot be fetched.
    """
    import timm

    file = WeightsFile.read(parsed.weights) if parsed.weights else None  # first: it says what is wrong with a file
    stated = (read_metadata(file.path) if file and file.path.is_file() and is_safetensors(file.path) else None) or {}
    options = dict(stated.get("architecture", {}).get("kwargs", {})) | parsed.options
    if "classes" in stated:
        options.setdefault("num_classes", len(stated["classes"]))
    refuse_sources(options, parsed.name)
    check_outputs(options, parsed.name)
    tower_of = "" if "num_classes" in options else zero_shot_of(parsed.name)
    if tower_of:  # timm's outputs of such a network are an embedding, and no classes
        options["num_classes"] = 0
    fetch = pretrained and file is None
    asks_hub = fetch or parsed.name.startswith(("hf-hub:", "hf_hub:"))  # there even the shape of the network is fetched
    try:
        with seeded(), quick_refusal_when_offline() if asks_hub else contextlib.nullcontext():
            network: Any = timm.create_model(parsed.name, pretrained=fetch, **options)
    except TypeError as error:
        raise InputError(f"{parsed.name} does not take {shown(options)}: {printable(str(error))[:300]}") from None
    except (OSError, pickle.UnpicklingError, *FOREIGN_ERRORS) as error:
        if fetch:
            raise cannot_fetch(parsed.name, error) from None
        if asks_hub and isinstance(error, OSError):
            raise InputError(
                f"cannot fetch the configuration of {parsed.name}, which says how the network is built "
                f"({error_line(error, 160)}); without the hub give timm's own name of it"
            ) from None
        text = printable(str(error))[:300]
        raise InputError(f"timm cannot build {parsed.name} with {shown(options)}: {text}") from None
    source = f"timm {timm.__version__}, {'pretrained' if fetch else UNTRAINED}"
    digest = None
    if file is not None:
        load_strictly(network, fitted(file.state_for(network), network), str(file.path))
        source, digest = file.in_words, file.sha256
    preprocessing = timm_preprocessing(network, parsed.options)
    classes = classes_of_timm(network, dict(network.pretrained_cfg))
    if stated:
        preprocessing, classes = stated_preprocessing(stated), tuple(stated["classes"])
    model = Model(
        network,
        name=parsed.name,
        preprocessing=preprocessing,
        classes=classes,
        architecture=f"timm:{parsed.name}{sorted(options.items())}",
        source=source,
        weights_sha256=digest,
    )
    model.tower_of = tower_of
    return model


def zero_shot_of(name: str) -> str:
    """Say of which model of images and texts a network of timm's is the image tower, and how to ask for the whole.

    Args:
        name: with its tag, as timm takes it.

    Returns:
        Empty where it is none: it is fine-tuned to classes, for example.
    """
    from timm.models import get_pretrained_cfg, is_model

    architecture, _, tag = name.partition(".")
    config = get_pretrained_cfg(name, allow_unregistered=True) if is_model(architecture) else None
    if config is None:
        return ""
    whole = f"{architecture}.{config.tag or tag}"
    if not _TOWERS.search(whole) or "ft_in" in whole or config.num_classes in (1000, 11821, 21841, 21843):
        return ""
    found = [f"open_clip:{one}" for one in _in_open_clip(architecture, config)] or ["open_clip:ARCH/PRETRAINED"]
    found = [*found[:3], "..."] if len(found) > 4 else found
    kind = "SigLIP" if "siglip" in whole else "CLIP"
    return (
        f"the image tower of a {kind} model, without its text tower: for zero-shot answers write {' or '.join(found)}"
    )


_TOWERS = re.compile(r"clip|siglip")


def _in_open_clip(architecture: str, config: Any) -> list[str]:
    """Return the names in open_clip of the models that a network of timm's is the tower of, by its repository."""
    if importlib.util.find_spec("open_clip") is None:
        return []
    import open_clip

    names = open_clip.list_pretrained()
    hub = f"{config.hf_hub_id or ''}/"
    same = [
        f"{arch}/{tag}" for arch, tag in names if (open_clip.get_pretrained_cfg(arch, tag) or {}).get("hf_hub") == hub
    ]
    if same:
        return [one for one in same if "quickgelu" not in one] or same
    second = "v2" in (config.tag or "")
    return [
        f"{arch}/{tag}"
        for arch, tag in names
        if ((open_clip.get_model_config(arch) or {}).get("vision_cfg") or {}).get("timm_model_name") == architecture
        and ("SigLIP2" in arch) == second
    ]


def timm_preprocessing(network: nn.Module, options: dict[str, Any]) -> Preprocessing:
    """Return what a timm network states of its input; an ``img_size`` that was asked for replaces the size."""
    from timm.data import resolve_model_data_config  # pyright: ignore[reportPrivateImportUsage]

    config = resolve_model_data_config(network)
    height, width = config["input_size"][-2:]
    if "img_size" in options:
        wanted = options["img_size"]
        height, width = (wanted, wanted) if isinstance(wanted, int) else wanted
    view = View((height, width), config["crop_pct"], config["interpolation"], config["crop_mode"])
    return Preprocessing(view, tuple(config["mean"]), tuple(config["std"]))
