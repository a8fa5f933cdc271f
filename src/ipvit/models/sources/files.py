"""Networks of files: bundled or trained checkpoints, and factories in the user's own Python files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ipvit.core.digests import digest_of, digest_of_file
from ipvit.core.files import user_path
from ipvit.core.manifest import UNTRAINED
from ipvit.core.plugins import import_own, users_code
from ipvit.core.preprocessing import Preprocessing, View
from ipvit.errors import InputError
from ipvit.models.io.checkpoint import read_metadata
from ipvit.models.io.state_dict import is_safetensors, load_strictly, read_state_dict, resolve
from ipvit.models.io.weights_file import WeightsFile
from ipvit.models.label_spaces import classes_of_timm
from ipvit.models.model import Model
from ipvit.models.names import ModelName
from ipvit.models.sources.building import seeded
from ipvit.models.zoo.bundled import bundled_weights
from ipvit.models.zoo.micro import build_network


def load_bundled(parsed: ModelName, pretrained: bool) -> Model:
    """Load a bundled network.

    Raises:
        InputError: there is none of that name.
    """
    path = bundled_weights(parsed.scheme, parsed.name)
    if parsed.weights:
        path = resolve(parsed.weights)
    return load_checkpoint(path, options=parsed.options, pretrained=pretrained)


def load_checkpoint(path: Path, *, options: dict[str, Any] | None = None, pretrained: bool = True) -> Model:
    """Load a network saved by ``ipvit train``: the file itself states architecture, classes and preprocessing.

    Raises:
        InputError: the file was not written by ``ipvit train`` or does not fit.
    """
    stated = read_metadata(path) if is_safetensors(path) else None
    if stated is None:
        raise InputError(f"{str(path)!r} does not state its architecture; give NAME@FILE with the network's name")
    architecture = stated["architecture"]
    kwargs = {**architecture.get("kwargs", {}), **(options or {})}
    with seeded():
        network = build_network(architecture["name"], num_classes=len(stated["classes"]), **kwargs)
    if pretrained:
        load_strictly(network, read_state_dict(path), str(path))
    model = Model(
        network,
        name=path.stem,
        preprocessing=stated_preprocessing(stated),
        classes=tuple(stated["classes"]) or None,
        architecture=f"{architecture['name']}{sorted(kwargs.items())}",
        source=str(path.name) if pretrained else UNTRAINED,
        weights_sha256=digest_of_file(path) if pretrained else None,
    )
    model.distillation_token = stated.get("distillation_token", model.distillation_token)
    return model


def stated_preprocessing(stated: dict[str, Any]) -> Preprocessing:
    """Return the preprocessing in a checkpoint's description."""
    values = stated["preprocessing"]
    height, width = values["size"]
    view = View((height, width), values["crop_pct"], values["interpolation"], values.get("crop_mode", "center"))
    return Preprocessing(view, tuple(values["mean"]), tuple(values["std"]))


def load_file(parsed: ModelName, _pretrained: bool) -> Model:
    """Call a factory in a Python file; what it returns is a model, or a network that states its input as timm's do.

    Raises:
        InputError: there is no such file or function, or it returns something else.
    """
    from ipvit.models.sources.timm import timm_preprocessing

    location, _, attribute = parsed.name.rpartition(":")
    factory = import_own(parsed.name)
    with seeded(), users_code(parsed.name):
        made = factory(**parsed.options)
    if isinstance(made, Model):
        model = made
    elif isinstance(made, nn.Module) and hasattr(made, "pretrained_cfg"):
        model = Model(made.eval(), name=attribute, preprocessing=timm_preprocessing(made, {}))
        model.classes = classes_of_timm(made, dict(getattr(made, "pretrained_cfg", {})))
    else:
        raise InputError(
            f"{parsed.name} returned {type(made).__name__}; "
            "it must return ipvit.wrap(module, mean=..., std=..., size=...)"
        )
    if parsed.weights:
        file = WeightsFile.read(parsed.weights)
        load_strictly(model.backbone, file.state_for(model.backbone), str(file.path))
        model.weights_sha256 = file.sha256
        model.forget_digest()
    source = digest_of(user_path(location).read_bytes(), 16)
    model.architecture = f"{attribute}{sorted(parsed.options.items())} of {source}\n{model.architecture}"
    model.source = parsed.weights or parsed.name
    return model
