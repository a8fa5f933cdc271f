"""Training recipes: typed YAML files in which an unknown key is an error."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from ipvit.core.text.validation_messages import fault_text
from ipvit.core.yaml_files import read_mapping
from ipvit.errors import InputError, did_you_mean, printable, shown
from ipvit.training.bundled import RECIPES, recipe_names
from ipvit.training.config import (
    AugmentConfig,
    ConfigSection,
    DataConfig,
    DinoConfig,
    DistillationConfig,
    EmaConfig,
    LossKind,
    MixupConfig,
    ModelConfig,
    ObjectivePart,
    SupervisedConfig,
)

FALLING = ("cosine", "dino", "tanh", "poly")
"""Schedules that fall to ``min_lr``."""


class Recipe(ConfigSection):
    """One training."""

    model: ModelConfig
    """The network."""
    data: DataConfig
    """Training and validation images."""
    objective: ObjectivePart = SupervisedConfig(kind="supervised")
    """What is minimised: ``{kind: supervised}``, ``{kind: distillation, teacher: ...}`` or ``{kind: dino}``."""
    epochs: int = Field(ge=1)
    """Passes over the training set."""
    batch_size: int = Field(default=128, ge=2)
    """Images a step and process; the last incomplete batch of an epoch is dropped."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are averaged before each update."""
    optimizer: str = "adamw"
    """Any name ``timm.optim.create_optimizer_v2`` knows."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    lr_batch: int | None = Field(default=None, ge=1)
    """Images an update that ``lr`` is stated for; it is scaled to the images an update really has (batch_size x
    accumulate x processes), ``warmup_lr`` and ``min_lr`` are not, as in DeiT. ``null``: taken as it is."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Weight decay; biases, norms, class tokens and positions have none."""
    weight_decay_end: float | None = Field(default=None, ge=0)
    """Weight decay at the end, reached on a cosine; ``null``: constant."""
    clip_grad: float | None = Field(default=1.0, gt=0)
    """Largest gradient norm; ``null`` for none."""
    clip_mode: Literal["norm", "parameter", "value", "agc"] = "norm"
    """``norm``: one norm over all weights that move; ``parameter``: each weight has its own, as DINO; ``value``: no
    number is larger; ``agc``: in proportion to the weights (timm)."""
    scheduler: Literal["cosine", "dino", "tanh", "step", "multistep", "poly", "constant"] = "cosine"
    """``timm.scheduler.create_scheduler_v2``, stepped at each update; ``cosine`` and ``tanh`` count from the start,
    warm-up included. ``dino`` is DINO's: half a cosine over the updates after the warm-up."""
    min_lr: float = Field(default=1e-5, ge=0)
    """Learning rate at the end (cosine, dino, tanh, poly)."""
    decay_epochs: float | None = Field(default=None, gt=0)
    """``step``: epochs after which the rate falls, each time."""
    decay_milestones: tuple[int, ...] | None = None
    """``multistep``: epochs at which the rate falls."""
    decay_rate: float | None = Field(default=None, gt=0)
    """``step``, ``multistep``: what the rate is multiplied by (0.1); ``poly``: the power (1, a straight line)."""
    warmup_lr: float | None = Field(default=None, ge=0)
    """Learning rate at the start of the warm-up; ``null``: a hundredth of ``lr``."""
    warmup_epochs: int = Field(default=0, ge=0)
    """Epochs in which the learning rate rises from near zero to ``lr``."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes."""
    loss: LossKind = "cross_entropy"
    """Of the labels; ``bce`` is timm's binary cross-entropy, each class for itself, as DeiT III."""
    bce_threshold: float | None = Field(default=None, ge=0, lt=1)
    """Of ``bce``: targets above it count as 1, the others as 0 (timm's ``bce_target_thresh``); ``null`` leaves them."""
    mixup: MixupConfig | None = None
    """Mixup and CutMix; off by default."""
    ema: EmaConfig | None = None
    """Moving average of the weights; off by default."""
    augment: AugmentConfig = AugmentConfig()
    """Random crop and flips; off by default."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision; ``no`` is float32 throughout."""
    compile: bool = False
    """Run the network through torch.compile: slow to begin, then faster; the last bits differ."""
    tracker: Literal["tensorboard", "wandb"] | None = None
    """Log to TensorBoard (into the folder) or Weights & Biases beside ``log.jsonl``."""
    seed: int = Field(default=0, ge=0)
    """Everything random follows from it."""

    @model_validator(mode="after")
    def _fitting(self) -> Recipe:
        """Refuse sections that contradict each other."""
        objective, stylize = self.objective, self.data.stylize
        if isinstance(objective, DinoConfig):
            styled = "stylized" in (objective.global_views_of, objective.local_views_of)
            if styled != (stylize is not None):
                raise ValueError(
                    "a dino objective with views of stylized images needs data.stylize"
                    if styled
                    else "data.stylize needs objective.global_views_of or local_views_of: stylized"
                )
            if self.augment != AugmentConfig() or self.mixup or self.label_smoothing or self.ema or self.loss == "bce":
                raise ValueError(
                    "a dino objective makes its own views and average: no augment, mixup, smoothing, ema or loss"
                )
        if isinstance(objective, DistillationConfig) and objective.sees == "original" and self.mixup is not None:
            raise ValueError("mixup needs a teacher that sees the mixed images: objective.sees: augmented")
        if isinstance(objective, DistillationConfig) and objective.attention:
            if objective.sees == "original" and (moves := self.augment.moves):
                raise ValueError(
                    f"augment.{moves[0]} moves what the teacher saw elsewhere; with objective.attention leave it out, "
                    "or use objective.sees: augmented"
                )
            if self.compile:
                raise ValueError("objective.attention reads inside the network, which compile: true does not allow")
        return self

    @model_validator(mode="after")
    def _scheduled(self) -> Recipe:
        """Refuse a learning rate that would not do what the recipe says."""
        falls = {"step": "decay_epochs", "multistep": "decay_milestones"}
        for scheduler, name in falls.items():
            value = getattr(self, name)
            if (value is not None) != (self.scheduler == scheduler):
                raise ValueError(
                    f"scheduler: {scheduler} needs {name}" if value is None else f"{name} is for scheduler: {scheduler}"
                )
        if self.decay_rate is not None and self.scheduler not in ("step", "multistep", "poly"):
            raise ValueError("decay_rate is for scheduler: step, multistep or poly")
        if self.decay_rate is not None and self.scheduler != "poly" and self.decay_rate >= 1:
            raise ValueError(f"decay_rate {self.decay_rate:g} does not lower the rate; below 1 it does")
        late = [
            epoch for epoch in (self.decay_epochs, *(self.decay_milestones or ())) if epoch and epoch >= self.epochs
        ]
        if late or self.decay_milestones == ():
            raise ValueError(
                f"{falls[self.scheduler]} must lie within the {self.epochs} epochs, or the rate never falls"
            )
        if self.decay_milestones and list(self.decay_milestones) != sorted(set(self.decay_milestones)):
            raise ValueError("decay_milestones must rise")
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) are more than epochs ({self.epochs})")
        if self.scheduler in FALLING and self.min_lr > self.lr:
            raise ValueError(f"min_lr ({self.min_lr:g}) is above lr ({self.lr:g}), the peak")
        if self.weight_decay_end is not None and not self.weight_decay:
            raise ValueError("weight_decay_end needs a weight_decay above 0 to start from")
        if self.clip_mode != "norm" and self.clip_grad is None:
            raise ValueError(f"clip_mode: {self.clip_mode} needs clip_grad")
        return self

    @model_validator(mode="after")
    def _mixable(self) -> Recipe:
        if self.bce_threshold is not None and self.loss != "bce":
            raise ValueError("bce_threshold is for loss: bce")
        if self.mixup is None:
            return self
        if self.batch_size % 2:
            raise ValueError("mixup needs an even batch_size")
        if not (self.mixup.mixup_alpha or self.mixup.cutmix_alpha):
            raise ValueError("mixup needs mixup_alpha or cutmix_alpha above 0")
        return self


def load_recipe(path_or_name: str | Path, **changes: object) -> Recipe:
    """Read a recipe.

    Args:
        path_or_name: a YAML file, or the name of a recipe that comes with the package (``deit_micro``).
        **changes: keys with other values than the file's, for example ``seed=1``.

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
    content = read_mapping(path, "recipe", f"the keys {', '.join(Recipe.model_fields)}")
    try:
        return Recipe.model_validate(content | changes)
    except ValidationError as error:
        raise InputError(f"{path}: {_explain(error)}") from None


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML, every key written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def flat(recipe: Recipe) -> dict[str, object]:
    """Return every key of a recipe in full (``data.workers``) with its value.

    >>> flat(load_recipe("deit_micro"))["data.size"]
    64
    """
    found: dict[str, object] = {}
    open_ = [("", recipe.model_dump(mode="json"))]
    while open_:
        prefix, part = open_.pop()
        for key, value in part.items():
            if isinstance(value, dict) and value:
                open_.append((f"{prefix}{key}.", value))
            else:
                found[prefix + key] = value
    return found


def _explain(error: ValidationError) -> str:
    """Say the first problem in one line: where, what, what would be right."""
    problems = error.errors()
    # a data set is a name or a mapping: of a mapping, what is wrong in it is told, and not that it is no name
    problem = next(
        (one for one in problems if not ("str" in one["loc"] and isinstance(one["input"], dict))), problems[0]
    )
    if not problem["loc"]:
        return fault_text(problem)
    place = [part for part in problem["loc"] if part not in _OBJECTIVES and part not in _SETS]
    where = printable(".".join(str(part) for part in place))
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        said = problem["input"].get("kind") if isinstance(problem["input"], dict) else None
        hint = did_you_mean(str(said), _OBJECTIVES)
        return f"{where}.kind must be one of {', '.join(_OBJECTIVES)}" + (f", not {shown(said)}.{hint}" if said else "")
    if problem["type"] == "extra_forbidden":
        known = _fields_at(problem["loc"][:-1])
        return f"unknown key {where!r}; known here: {', '.join(known)}.{did_you_mean(str(place[-1]), known)}"
    if problem["type"] == "missing":
        return f"key {where!r} is missing"
    return f"{where}: {fault_text(problem)}"


_SETS = ("str", "SetConfig")
"""What pydantic calls the two ways to name a data set."""

_OBJECTIVES: dict[str, type[BaseModel]] = {
    "supervised": SupervisedConfig,
    "distillation": DistillationConfig,
    "dino": DinoConfig,
}


def _fields_at(parents: tuple[int | str, ...]) -> list[str]:
    part: type[BaseModel] = Recipe
    for name in parents:
        if name == "objective" or name in _SETS:
            continue  # its kind comes next, or it was the kind
        if name in _OBJECTIVES:
            part = _OBJECTIVES[str(name)]
            continue
        annotation = part.model_fields[str(name)].annotation
        options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        part = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    return list(part.model_fields)
