"""Training recipes: typed YAML files in which an unknown key is an error."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ipvit.errors import InputError, did_you_mean
from ipvit.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, View

RECIPES = Path(__file__).parent.parent / "recipes"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ModelPart(_Part):
    """The network."""

    name: str
    """``deit_micro``, ``resnet_micro`` or any timm name; always from random weights."""
    kwargs: dict[str, Any] = {}
    """Arguments of the network's factory, for example ``{drop_path_rate: 0.1}``."""


class DataPart(_Part):
    """Where images come from and how they become the network's input."""

    train: str
    """Data set the weights are fitted to: ``demo:trifeature/natural-train``, a folder of class folders, ..."""
    val: str
    """Data set that accuracy is measured on after each epoch and the best epoch is chosen by."""
    size: int = Field(default=224, ge=8)
    """Height and width of the input in pixels."""
    crop_pct: float = Field(default=1.0, gt=0, le=1)
    """Share of the resized shortest side that is cropped."""
    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    """How pictures of another size are resized."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Per-channel mean the network subtracts, for images in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Per-channel standard deviation the network divides by."""
    workers: int = Field(default=0, ge=0)
    """Loader processes; 0 reads in the training process."""
    memory: float = Field(default=2.0, ge=0)
    """A set is kept decoded in memory when it takes at most this many GB; larger ones are read in every epoch."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What the network expects of its input."""
        view = View((self.size, self.size), self.crop_pct, self.interpolation)
        return Preprocessing(view, self.mean, self.std)


class AugmentPart(_Part):
    """Light changes to each training image, a function of (seed, epoch, image)."""

    pad: int = Field(default=0, ge=0)
    """Zero-pad by this many pixels on each side and cut a random window of the original size."""
    hflip: float = Field(default=0.0, ge=0, le=1)
    """Probability of a mirror image, left to right."""
    vflip: float = Field(default=0.0, ge=0, le=1)
    """Probability of a mirror image, top to bottom."""


class MixupPart(_Part):
    """Mixup and CutMix, as ``timm.data.Mixup`` (one mixture for a whole batch)."""

    mixup_alpha: float = Field(default=0.8, ge=0)
    """Mixup's beta distribution; 0 turns it off."""
    cutmix_alpha: float = Field(default=1.0, ge=0)
    """CutMix's beta distribution; 0 turns it off."""
    prob: float = Field(default=1.0, ge=0, le=1)
    """Probability that a batch is mixed at all."""
    switch_prob: float = Field(default=0.5, ge=0, le=1)
    """Probability of CutMix where both are on."""


class EmaPart(_Part):
    """A moving average of the weights, which is then what is measured and saved."""

    decay: float = Field(default=0.999, gt=0, lt=1)
    """Share of the average that is kept at each step."""
    warmup: bool = True
    """Let the decay grow towards its value, so that a short training forgets its random start."""


class Recipe(_Part):
    """One supervised training."""

    model: ModelPart
    """The network."""
    data: DataPart
    """Training and validation images."""
    epochs: int = Field(ge=1)
    """Passes over the training set."""
    batch_size: int = Field(default=128, ge=2)
    """Images a step and process; the last incomplete batch of an epoch is dropped."""
    optimizer: str = "adamw"
    """Any name ``timm.optim.create_optimizer_v2`` knows."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Weight decay; biases and norms have none."""
    clip_grad: float | None = Field(default=1.0, gt=0)
    """Largest gradient norm; ``null`` for none."""
    scheduler: Literal["cosine", "tanh", "step", "multistep", "poly"] = "cosine"
    """``timm.scheduler.create_scheduler_v2``, stepped at each update."""
    min_lr: float = Field(default=1e-5, ge=0)
    """Learning rate at the end."""
    warmup_epochs: int = Field(default=0, ge=0)
    """Epochs in which the learning rate rises from near zero to ``lr``."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes."""
    mixup: MixupPart | None = None
    """Mixup and CutMix; off by default."""
    ema: EmaPart | None = None
    """Moving average of the weights; off by default."""
    augment: AugmentPart = AugmentPart()
    """Random crop and flips; off by default."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision; ``no`` is float32 throughout."""
    seed: int = Field(default=0, ge=0)
    """Everything random follows from it."""

    @model_validator(mode="after")
    def _mixable(self) -> Recipe:
        if self.mixup is None:
            return self
        if self.batch_size % 2:
            raise ValueError("mixup needs an even batch_size")
        if not (self.mixup.mixup_alpha or self.mixup.cutmix_alpha):
            raise ValueError("mixup needs mixup_alpha or cutmix_alpha above 0")
        return self


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(path_or_name: str | Path) -> Recipe:
    """Read a recipe.

    Args:
        path_or_name: a YAML file, or the name of a recipe that comes with the package (``deit_micro``).

    Raises:
        InputError: if there is no such recipe, or a key or value in it is wrong; names the file and the key.
    """
    path = Path(path_or_name)
    if str(path_or_name) in recipe_names():
        path = RECIPES / f"{path_or_name}.yaml"
    elif not path.is_file():
        hint = did_you_mean(str(path_or_name), recipe_names())
        raise InputError(
            f"no recipe {str(path_or_name)!r}: neither a file nor one of {', '.join(recipe_names())}.{hint}"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {_explain(error)}") from error


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML, every key written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def _explain(error: ValidationError) -> str:
    """Say the first problem in one line: where, what, what would be right."""
    problem = error.errors()[0]
    if not problem["loc"]:
        return problem["msg"]
    *parents, key = problem["loc"]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _fields_at(parents)
        return f"unknown key {where!r}; known here: {', '.join(known)}.{did_you_mean(str(key), known)}"
    if problem["type"] == "missing":
        return f"key {where!r} is missing"
    return f"{where}: {problem['msg']}, not {problem['input']!r}"


def _fields_at(parents: list[int | str]) -> list[str]:
    part: type[BaseModel] = Recipe
    for name in parents:
        annotation = part.model_fields[str(name)].annotation
        options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        part = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    return list(part.model_fields)
