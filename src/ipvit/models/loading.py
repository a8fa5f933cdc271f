"""``load_model``: from a name to a network with its weights and preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ipvit.core.files import user_path
from ipvit.errors import InputError, shown
from ipvit.models.io.probe_head import MARK, load_probed, read_probe
from ipvit.models.mistaken import refuse_mistaken, refuse_several
from ipvit.models.model import Model
from ipvit.models.names import ModelName, short_name, split_neighbours, split_weights
from ipvit.models.openvino_model import with_backend
from ipvit.models.sources.building import RANDOM_SEED
from ipvit.models.sources.files import load_bundled, load_checkpoint, load_file
from ipvit.models.sources.huggingface import load_hub, load_transformers
from ipvit.models.sources.open_clip import load_open_clip
from ipvit.models.sources.paper import load_paper, load_paper_name
from ipvit.models.sources.timm import load_timm
from ipvit.models.sources.torchvision import load_torchvision
from ipvit.models.zero_shot.network import ZeroShotNetwork, is_tower, with_texts, without_texts
from ipvit.models.zero_shot.texts import ClassNames, Prompts, Texts, names_of, names_of_data, prompts_of
from ipvit.models.zoo.bundled import DEMO_WEIGHTS, bundled_models, demo_models

if TYPE_CHECKING:
    from ipvit.data.dataset import Items

GivenPrompts: TypeAlias = "str | Sequence[str] | Prompts"
"""One set of prompts: a sentence with ``{}``, ``openai80``, a file, or several sentences."""

GivenNames: TypeAlias = "str | Sequence[str] | ClassNames | Items"
"""Class names: ``imagenet``, a file, the names themselves, or data whose classes are meant."""

__all__ = [
    "DEMO_WEIGHTS",
    "RANDOM_SEED",
    "ModelName",
    "bundled_models",
    "demo_models",
    "load_checkpoint",
    "load_model",
    "load_models",
    "load_paper",
]

LOADERS: dict[str, Callable[[ModelName, bool], Model]] = {
    "": load_timm,
    "timm": load_timm,
    "hf-hub": load_hub,
    "transformers": load_transformers,
    "open_clip": load_open_clip,
    "torchvision": load_torchvision,
    "paper": load_paper_name,
    "demo": load_bundled,
    "tin50": load_bundled,
    "file": load_file,
}
"""Who loads what stands before the colon of a name."""


def load_model(
    name: str,
    *,
    pretrained: bool = True,
    label: str | None = None,
    backend: str = "torch",
    precision: str = "fp32",
    prompts: GivenPrompts | None = None,
    class_names: GivenNames | None = None,
) -> Model:
    """Load a network by name.

    Args:
        name: ``deit_small_patch16_224`` (timm), ``torchvision:resnet50``, ``hf-hub:owner/name``,
            ``transformers:FOLDER``, ``open_clip:ViT-B-32/laion2b_s34b_b79k``, ``paper:deit_s_sin_dist`` (every network
            of the paper), ``demo:deit_micro`` (bundled), a checkpoint of ``ipvit train`` (``.../best.safetensors``) or
            ``path/to/file.py:factory``; after ``?`` further options of the constructor
            (``?img_size=512&num_classes=50``); after ``@`` a local safetensors or PyTorch file, or its URL; after
            ``@probe:`` a linear head that ``ipvit probe`` fitted on that network; after ``@knn:`` labelled images
            whose nearest vote.
        pretrained: without weights after ``@``, fetch the published ones; otherwise start from a fixed random seed.
        label: name in tables; the name itself by default.
        backend: what computes it: ``torch``, or ``openvino`` with fewer capabilities; see
            :func:`ipvit.models.backend.with_backend`.
        precision: of that backend, ``fp32`` or ``bf16``; torch computes in the precision of the run.
        prompts: of a zero-shot model: a sentence with ``{}`` where the class name stands, ``openai80``, a file with one
            sentence a line, or several sentences; ``a photo of a {}`` by default.
        class_names: of a zero-shot model: the names, a file with one a line, ``imagenet``, or data whose classes are
            meant. Without any it is an image tower without classifier.

    Returns:
        The model in evaluation mode, on the CPU, in float32.

    Raises:
        InputError: unknown name (with close matches), weights that do not fit, or nothing to download from; or prompts
            or class names for a network that reads none.
    """
    if not isinstance(name, str):
        raise InputError(f"load_model takes a name, not {shown(name)}; ipvit.wrap makes a model of a network")
    sets = () if prompts is None else (prompts,)
    (model,) = load_models(name, pretrained=pretrained, label=label, prompts=sets, class_names=class_names)
    if prompts is not None and is_tower(model):
        raise InputError(f"{name} is given prompts, but no class_names to stand in them")
    check_texts_used([model], prompts, class_names)
    return with_backend(model, backend, precision)


def load_models(
    name: str,
    *,
    pretrained: bool = True,
    label: str | None = None,
    prompts: Sequence[GivenPrompts] = (),
    class_names: GivenNames | None = None,
) -> list[Model]:
    """Load a network by name, a zero-shot model once for each set of prompts; they share the image tower.

    Args:
        name: see :func:`load_model`, likewise the next two.
        pretrained: likewise.
        label: likewise; where there are several sets of prompts these follow it.
        prompts: the sets; for other networks they do not count.
        class_names: likewise.
    """
    model = _load(name, pretrained, label)
    network = model.backbone
    if not isinstance(network, ZeroShotNetwork) or network.text_side is None:
        return [model]
    names = class_names
    if names is not None and not isinstance(names, str | ClassNames | Sequence):
        names = names_of_data(names)
    if names is None:
        return [without_texts(model)]
    names = names_of(names)
    made: list[Model] = []
    for given in prompts or (None,):
        texts = Texts(prompts_of(given), names)
        ours = f" [{_brief(texts.prompts)}]" if given is not None and (len(prompts) > 1 or label is None) else ""
        one = with_texts(model, texts, f"{model.name}{ours}")
        one.origin = model.origin
        made.append(_bound(one))
    without_texts(model)
    return made


def check_texts_used(models: Sequence[Model], prompts: object, class_names: object) -> None:
    """Refuse prompts and class names that none of some models reads.

    Raises:
        InputError: says what is given.
    """
    given = [what for what, value in (("prompts", prompts), ("class names", class_names)) if value is not None]
    if not given or any(model.texts is not None for model in models):
        return
    names = ", ".join(model.name for model in models)
    if any(is_tower(model) for model in models):
        raise InputError(f"{names} is given prompts, but the data has no classes: give --class-names FILE, or imagenet")
    raise InputError(
        f"{' and '.join(given)} are for zero-shot models, open_clip:ARCH/PRETRAINED or transformers:OWNER/NAME of CLIP "
        f"or SigLIP; {names} reads none"
    )


def _brief(prompts: Prompts) -> str:
    return prompts.given if isinstance(prompts.given, str) else prompts.told


def _load(name: str, pretrained: bool, label: str | None) -> Model:
    if split_neighbours(name) is not None:
        raise InputError(f"{name}: images that vote are opened by ipvit.load_model, not by ipvit.models.load_model")
    if MARK in name or name.startswith(MARK[1:]):
        return _load_probed(name, pretrained, label)
    if name.endswith(".safetensors") and not split_weights(name)[1]:
        return _load_trained(name, pretrained, label)
    parsed = ModelName.parse(name)
    if parsed.scheme in ("", "timm", "http", "https"):
        refuse_mistaken(split_weights(name)[0].removeprefix("timm:"))
    elif parsed.scheme in ("demo", "tin50", "torchvision", "paper"):  # whose names have no commas
        refuse_several(split_weights(name)[0])
    if parsed.scheme not in LOADERS:
        known = ", ".join(f"{scheme}:" for scheme in LOADERS if scheme not in ("", "file"))
        raise InputError(
            f"unknown kind of model {parsed.scheme + ':'!r} in {name!r}; known: {known} a timm name, FILE.py:FACTORY"
        )
    model = LOADERS[parsed.scheme](parsed, pretrained)
    model.name = label or short_name(name)
    model.origin = name, pretrained
    return _bound(model)


def _bound(model: Model) -> Model:
    """Return a network ready to be measured: what it returns has been looked at."""
    model.eval().requires_grad_(False)
    model.dry_pass()
    return model


def _load_trained(name: str, pretrained: bool, label: str | None) -> Model:
    """Load what ``ipvit train`` wrote, by its path alone."""
    path = user_path(name)
    if not path.is_file():
        raise InputError(f"there is no file {name!r}")
    model = load_checkpoint(path, pretrained=pretrained)
    # every training calls its files best and last: its folder's name says more
    model.name = label or (f"{path.parent.name}/{path.stem}" if path.stem in ("best", "last") else path.stem)
    model.origin = name, pretrained
    return _bound(model)


def _load_probed(name: str, pretrained: bool, label: str | None) -> Model:
    """Load ``NAME[@WEIGHTS]@probe:PATH`` or ``probe:PATH``; weights that are not given are those the file names."""
    given, _, place = name.rpartition(MARK) if MARK in name else ("", "", name.removeprefix(MARK[1:]))
    path = user_path(place)
    probe = read_probe(path)
    plain, weights = split_weights(probe.backbone)
    if not given and not probe.backbone:
        raise InputError(
            f"the probe {place!r} belongs to a network made in Python; use ipvit.models.io.probe_head.with_probe"
        )
    if given in ("", plain):
        elsewhere = weights.startswith(("http:", "https:", "file:", MARK[1:]))
        if weights and not elsewhere and not Path(weights).is_file():
            raise InputError(
                f"the weights {weights!r} that {place!r} names are gone; give {plain}@WEIGHTS{MARK}{place}"
            )
        given, pretrained = probe.backbone, probe.pretrained
    model = load_probed(path, load_model(given, pretrained=pretrained))
    model.name = label or f"{short_name(given)}+{path.stem}"
    model.origin = name, pretrained
    return _bound(model)
