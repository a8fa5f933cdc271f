"""``load_model``: from a name to a network with its weights and preprocessing."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlparse

import torch
from torch import nn

from ipvit.errors import InputError, did_you_mean
from ipvit.models.checkpoint import read_metadata
from ipvit.models.labels import classes_of_timm, imagenet_classes
from ipvit.models.micro import build_network
from ipvit.models.model import Model
from ipvit.models.weights import load_strictly, read_state_dict, resolve, sha256
from ipvit.preprocessing import Preprocessing, View

RANDOM_SEED = 0
"""Networks without pretrained weights are initialised from this seed, so that their digest is always the same."""

DEMO_WEIGHTS = Path(__file__).parent / "weights"


@dataclasses.dataclass(frozen=True)
class ModelName:
    """A model name taken apart: ``[SCHEME:]NAME[?KEY=VALUE&...][@WEIGHTS]``."""

    scheme: str
    name: str
    options: dict[str, Any]
    weights: str | None

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Take a name apart; the first ``@`` begins the weights."""
        text, _, weights = text.partition("@")
        text, _, query = text.partition("?")
        scheme = ""
        if ".py:" in text:
            scheme = "file"
        elif ":" in text:
            scheme, _, text = text.partition(":")
        options = {key: _value(value) for key, value in parse_qsl(query, keep_blank_values=True)}
        return cls(scheme, text, options, weights or None)


def load_model(name: str, *, pretrained: bool = True, label: str | None = None) -> Model:
    """Load a network by name.

    Args:
        name: ``deit_small_patch16_224`` (timm), ``torchvision:resnet50``, ``hf-hub:owner/name``, ``demo:deit_micro``
            (bundled) or ``path/to/file.py:factory``; after ``?`` further options of the constructor
            (``?img_size=512&num_classes=50``); after ``@`` a local safetensors or PyTorch file, or its URL.
        pretrained: without weights after ``@``, fetch the published ones; otherwise start from a fixed random seed.
        label: name in tables; the name itself by default.

    Returns:
        The model in evaluation mode, on the CPU, in float32.

    Raises:
        InputError: unknown name (with close matches), weights that do not fit, or nothing to download from.
    """
    parsed = ModelName.parse(name)
    loaders: dict[str, Callable[[ModelName, bool], Model]] = {
        "": _load_timm,
        "timm": _load_timm,
        "hf-hub": _load_hub,
        "torchvision": _load_torchvision,
        "demo": _load_demo,
        "file": _load_file,
    }
    if parsed.scheme not in loaders:
        known = ", ".join(f"{scheme}:" for scheme in loaders if scheme not in ("", "file"))
        raise InputError(
            f"unknown kind of model {parsed.scheme + ':'!r} in {name!r}; known: {known} a timm name, FILE.py:FACTORY"
        )
    model = loaders[parsed.scheme](parsed, pretrained)
    model.name = label or _short_name(name)
    return model.eval().requires_grad_(False)


def demo_models() -> list[str]:
    """Return the names of the bundled networks."""
    return sorted(f"demo:{path.stem}" for path in DEMO_WEIGHTS.glob("*.safetensors"))


def _load_timm(parsed: ModelName, pretrained: bool) -> Model:
    import timm

    known = timm.list_models()
    if parsed.name.split(".")[0] not in known:
        close = did_you_mean(parsed.name, [*known, *demo_models()])
        raise InputError(f"timm knows no model {parsed.name!r}.{close}")
    return _timm_model(parsed, pretrained)


def _load_hub(parsed: ModelName, pretrained: bool) -> Model:
    return _timm_model(dataclasses.replace(parsed, name=f"hf-hub:{parsed.name}"), pretrained)


def _timm_model(parsed: ModelName, pretrained: bool) -> Model:
    import timm

    path = resolve(parsed.weights) if parsed.weights else None
    stated = (read_metadata(path) if path is not None else None) or {}
    options = dict(stated.get("architecture", {}).get("kwargs", {})) | parsed.options
    if "classes" in stated:
        options.setdefault("num_classes", len(stated["classes"]))
    fetch = pretrained and path is None
    try:
        with _seeded(), _quick_refusal_when_offline() if fetch else contextlib.nullcontext():
            network = timm.create_model(parsed.name, pretrained=fetch, **options)
    except TypeError as error:
        raise InputError(f"{parsed.name} does not take {options}: {error}") from None
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        if fetch:
            raise InputError(_cannot_fetch(parsed.name, error)) from None
        raise InputError(f"timm cannot build {parsed.name} with {options}: {error}") from None
    source = f"timm {timm.__version__}, {'pretrained' if fetch else 'random initialisation'}"
    digest = None
    if path is not None:
        load_strictly(network, _fitted(read_state_dict(path), network), str(path))
        source, digest = str(parsed.weights), sha256(path)
    preprocessing = _timm_preprocessing(network, parsed.options)
    classes = classes_of_timm(network, dict(network.pretrained_cfg))
    if stated:
        preprocessing, classes = _stated_preprocessing(stated), tuple(stated["classes"])
    return Model(
        network,
        name=parsed.name,
        preprocessing=preprocessing,
        classes=classes,
        architecture=f"timm:{parsed.name}{sorted(options.items())}",
        source=source,
        weights_sha256=digest,
    )


def _timm_preprocessing(network: nn.Module, options: dict[str, Any]) -> Preprocessing:
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(network)
    height, width = config["input_size"][-2:]
    if "img_size" in options:
        wanted = options["img_size"]
        height, width = (wanted, wanted) if isinstance(wanted, int) else wanted
    view = View((height, width), config["crop_pct"], config["interpolation"], config["crop_mode"])
    return Preprocessing(view, tuple(config["mean"]), tuple(config["std"]))


def _fitted(state: dict[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """Let timm's own converter rename foreign keys and resample positions, where plain loading would not do."""
    own = network.state_dict()
    if all(key in state and state[key].shape == value.shape for key, value in own.items()):
        return state
    module = importlib.import_module(type(network).__module__)
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        converted = convert(dict(state), network)
    except (KeyError, RuntimeError, ValueError, AttributeError, IndexError, TypeError):
        return state  # not a checkpoint of this family: the strict comparison says which keys are wrong
    return converted if isinstance(converted, dict) else state


def _load_torchvision(parsed: ModelName, pretrained: bool) -> Model:
    import torchvision.models as zoo

    known = zoo.list_models(module=zoo)
    if parsed.name not in known:
        raise InputError(f"torchvision knows no classification model {parsed.name!r}.{did_you_mean(parsed.name, known)}")
    options = dict(parsed.options)
    published = zoo.get_model_weights(parsed.name)
    wanted = options.pop("weights", None)
    if wanted is not None and wanted not in published.__members__:
        raise InputError(f"torchvision:{parsed.name} has no weights {wanted!r}; known: {', '.join(published.__members__)}")
    entry = published[wanted] if wanted else published.DEFAULT if pretrained else next(iter(published))
    path = resolve(parsed.weights) if parsed.weights else None
    fetch = pretrained and path is None
    try:
        with _seeded():
            network = zoo.get_model(parsed.name, weights=entry if fetch else None, **options)
    except TypeError as error:
        raise InputError(f"torchvision:{parsed.name} does not take {options}: {error}") from None
    except OSError as error:
        raise InputError(_cannot_fetch(f"torchvision:{parsed.name}", error)) from None
    if path is not None:
        load_strictly(network, read_state_dict(path), str(path))
    preset = (entry if wanted or fetch else next(iter(published))).transforms()
    size = int(preset.crop_size[0])
    resized = int(preset.resize_size[0])
    view = View((size, size), size / resized, preset.interpolation.value)
    outputs = options.get("num_classes", 1000)
    return Model(
        network,
        name=f"torchvision:{parsed.name}",
        preprocessing=Preprocessing(view, tuple(preset.mean), tuple(preset.std)),
        classes=imagenet_classes() if outputs == 1000 else None,
        architecture=f"torchvision:{parsed.name}{sorted(options.items())}",
        source=str(parsed.weights) if path else f"torchvision {entry.name}" if fetch else "random initialisation",
        weights_sha256=sha256(path) if path else None,
    )


def _load_demo(parsed: ModelName, pretrained: bool) -> Model:
    path = DEMO_WEIGHTS / f"{parsed.name}.safetensors"
    if not path.is_file():
        names = [name.removeprefix("demo:") for name in demo_models()]
        raise InputError(
            f"there is no bundled model 'demo:{parsed.name}'; there are: "
            + ", ".join(f"demo:{name}" for name in names)
            + f".{did_you_mean(parsed.name, names)}"
        )
    if parsed.weights:
        path = resolve(parsed.weights)
    return load_checkpoint(path, options=parsed.options, pretrained=pretrained)


def load_checkpoint(path: Path, *, options: dict[str, Any] | None = None, pretrained: bool = True) -> Model:
    """Load a network saved by ``ipvit train``: the file itself states architecture, classes and preprocessing.

    Raises:
        InputError: the file was not written by ``ipvit train`` or does not fit.
    """
    stated = read_metadata(path)
    if stated is None:
        raise InputError(f"{str(path)!r} does not state its architecture; give NAME@FILE with the network's name")
    architecture = stated["architecture"]
    kwargs = {**architecture.get("kwargs", {}), **(options or {})}
    with _seeded():
        network = build_network(architecture["name"], num_classes=len(stated["classes"]), **kwargs)
    if pretrained:
        load_strictly(network, read_state_dict(path), str(path))
    return Model(
        network,
        name=path.stem,
        preprocessing=_stated_preprocessing(stated),
        classes=tuple(stated["classes"]),
        architecture=f"{architecture['name']}{sorted(kwargs.items())}",
        source=str(path.name) if pretrained else "random initialisation",
        weights_sha256=sha256(path) if pretrained else None,
    )


def _stated_preprocessing(stated: dict[str, Any]) -> Preprocessing:
    values = stated["preprocessing"]
    height, width = values["size"]
    view = View((height, width), values["crop_pct"], values["interpolation"], values.get("crop_mode", "center"))
    return Preprocessing(view, tuple(values["mean"]), tuple(values["std"]))


def _load_file(parsed: ModelName, pretrained: bool) -> Model:
    location, _, attribute = parsed.name.rpartition(":")
    factory = getattr(import_file(location), attribute, None)
    if not callable(factory):
        raise InputError(f"{location} has no function {attribute!r}")
    with _seeded():
        made = factory(**parsed.options)
    if isinstance(made, Model):
        model = made
    elif isinstance(made, nn.Module) and hasattr(made, "pretrained_cfg"):
        model = Model(made.eval(), name=attribute, preprocessing=_timm_preprocessing(made, {}))
        model.classes = classes_of_timm(made, dict(getattr(made, "pretrained_cfg", {})))
    else:
        raise InputError(
            f"{parsed.name} returned {type(made).__name__}; it must return ipvit.wrap(module, mean=..., std=..., size=...)"
        )
    if parsed.weights:
        path = resolve(parsed.weights)
        load_strictly(model.backbone, read_state_dict(path), str(path))
        model.weights_sha256 = sha256(path)
    source = hashlib.sha256(Path(location).expanduser().read_bytes()).hexdigest()[:16]
    model.architecture = f"{attribute}{sorted(parsed.options.items())} of {source}\n{model.architecture}"
    model.source = parsed.weights or parsed.name
    return model


def import_file(location: str) -> Any:
    """Import the user's own Python file.

    Raises:
        InputError: there is no such file.
    """
    path = Path(location).expanduser()
    if not path.is_file():
        raise InputError(f"there is no file {location!r}")
    spec = importlib.util.spec_from_file_location(f"ipvit_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Initialise from a fixed seed and leave the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        yield


@contextlib.contextmanager
def _quick_refusal_when_offline() -> Iterator[None]:
    """Without a network, let the hub client look into its cache only, instead of retrying for most of a minute."""
    from huggingface_hub import constants

    behind_proxy = any(key.lower() in ("https_proxy", "all_proxy") and value for key, value in os.environ.items())
    if behind_proxy or _resolves(urlparse(constants.ENDPOINT).hostname):
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _resolves(host: str | None) -> bool:
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def _cannot_fetch(name: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    return (
        f"cannot download the weights of {name} ({text[:160]}); give a local file as {name}@FILE, or --no-pretrained for "
        "random weights"
    )


def _short_name(name: str) -> str:
    text, _, weights = name.partition("@")
    if ".py:" in text:
        text = Path(text.split(".py:")[0]).name + ":" + text.rpartition(":")[2]
    return f"{text}@{Path(urlparse(weights).path).stem}" if weights else text


def _value(text: str) -> Any:
    lowered = text.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    for convert in (int, float):
        with contextlib.suppress(ValueError):
            return convert(text)
    return text
