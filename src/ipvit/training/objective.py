"""What a training minimises, apart from the data it sees and the loop that steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from timm.data.mixup import Mixup
from timm.loss.binary_cross_entropy import BinaryCrossEntropy
from torch import Tensor, nn

from ipvit.models.model import Model
from ipvit.perturb.pixels import as_floats
from ipvit.training.augment import Augmentation
from ipvit.training.config import AugmentConfig, LossKind, MixupConfig
from ipvit.training.erasing import Erasing
from ipvit.training.policies import global_seeds
from ipvit.training.reading import ImageBatch, Pipeline

Batches = Callable[[], Iterable[ImageBatch]]
"""Gives the batches of a data set, unchanged, that fall to this process."""


class Objective(ABC):
    """One loss. The loop calls it at each step and knows nothing else about it.

    Attributes:
        model: what is measured and saved.
        module: what is optimised, ``model`` included; the loop may wrap it for several processes.
        pipeline: how a training image becomes the views that :meth:`loss` is given.
        score_name: name of what :meth:`scores` says first, by which the best epoch is chosen.
    """

    model: Model
    module: nn.Module
    pipeline: Pipeline
    score_name: str = "top-1"

    def setup(self, accelerator: Accelerator, epochs: int, steps: int) -> None:  # noqa: B027 - most need none
        """Learn where the training runs and how long: ``steps`` updates in each of ``epochs``."""

    def begin(self) -> None:  # noqa: B027
        """Do what takes long before the first step and may be kept in the training's folder, which is begun by then."""

    def change(self, views: list[Tensor], keys: np.ndarray) -> list[Tensor]:
        """Return the views, ``(B, 3, h, w)`` each in [0, 1] on the device, with what is changed there.

        Args:
            views: as the pipeline made them.
            keys: ``(B,)`` one for each image's sighting.
        """
        return views

    @abstractmethod
    def loss(
        self, module: nn.Module, views: list[Tensor], labels: Tensor, indices: Tensor, key: int, epoch: int
    ) -> Tensor:
        """Return the mean loss of one batch.

        Args:
            module: :attr:`module` or its wrapper; every forward with gradients goes through it.
            views: ``(B, 3, h, w)`` each, in [0, 1], on the model's device.
            labels: ``(B,)`` int64, likewise.
            indices: ``(B,)`` positions of the images in the training set, on the CPU.
            key: everything random about this step must follow from it.
            epoch: from 0.
        """

    def before_update(self, epoch: int) -> None:  # noqa: B027
        """Change gradients before the optimiser's step."""

    def after_update(self, step: int) -> None:  # noqa: B027
        """Follow the weights after the optimiser's step."""

    def scores(self, model: Model, val: Batches, accelerator: Accelerator) -> dict[str, float]:
        """Return what is logged after each epoch, in per cent; the first value chooses the best epoch."""
        return accuracies(model, val, accelerator)

    def state_dict(self) -> dict[str, Any]:
        """Return what continuing needs beside the module's own weights: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take back what :meth:`state_dict` returned."""


class Labels:
    """The loss of the labels, smoothed and mixed on request: timm's own losses and mixtures.

    Args:
        num_classes: number of outputs.
        label_smoothing: share of the target spread over all classes.
        mixup: Mixup and CutMix, or None.
        kind: ``cross_entropy``, or ``bce`` (each class for itself, as DeiT III).
        threshold: for ``bce``, targets above it count as 1 and the others as 0; None leaves them.
    """

    def __init__(
        self,
        num_classes: int,
        label_smoothing: float = 0.0,
        mixup: MixupConfig | None = None,
        kind: LossKind = "cross_entropy",
        threshold: float | None = None,
    ) -> None:
        self._smoothing = label_smoothing
        self._bce = BinaryCrossEntropy(label_smoothing, threshold) if kind == "bce" else None
        self._mixup = mixup and Mixup(**mixup.model_dump(), label_smoothing=label_smoothing, num_classes=num_classes)

    def mix(self, images: Tensor, labels: Tensor, key: int) -> tuple[Tensor, Tensor]:
        """Return the mixed images and their targets, ``(B, num_classes)``; or the images and their labels, ``(B,)``."""
        if self._mixup is None:
            return images, labels
        with global_seeds(key):
            return self._mixup(images.clone(), labels)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss; mixed targets are smoothed already."""
        if self._bce is not None:
            return self._bce(logits, targets)
        return F.cross_entropy(logits, targets, label_smoothing=self._smoothing if targets.ndim == 1 else 0.0)


class Supervised(Objective):
    """Cross-entropy with the labels.

    Args:
        model: what is trained.
        labels: the loss.
        augment: changes to the images.
    """

    def __init__(self, model: Model, labels: Labels, augment: AugmentConfig) -> None:
        self.model = model
        self.module = Trained(model)
        self.pipeline = Augmentation(augment, model.preprocessing)
        self._labels, self._erase = labels, Erasing(augment, model.preprocessing)

    def change(self, views: list[Tensor], keys: np.ndarray) -> list[Tensor]:
        """Return the view with its rectangles erased."""
        return [self._erase(views[0], keys)]

    def loss(
        self, module: nn.Module, views: list[Tensor], labels: Tensor, indices: Tensor, key: int, epoch: int
    ) -> Tensor:
        """Return the mean cross-entropy of the batch; that of two heads is averaged."""
        images, targets = self._labels.mix(views[0], labels, key)
        heads = module(images)
        return torch.stack([self._labels.loss(head, targets) for head in heads]).mean()


class Trained(nn.Module):
    """A model as the loop sees it: images in [0, 1] to the logits of each head."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        both: Any = getattr(model.backbone, "set_distilled_training", None)
        if both is not None:
            both(True)  # in training mode it then returns both heads' logits

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return one ``(B, num_classes)`` in float32 for each head: the class token's, then the second token's."""
        out = self.model.backbone(self.model.normalize(images))
        return tuple(head.float() for head in (out if isinstance(out, tuple) else (out,)))

    def no_weight_decay(self) -> set[str]:
        """Return the weights that are not to shrink beside biases and norms, as the network states them."""
        return undecayed(self.model, "model.")


def undecayed(model: Model, prefix: str) -> set[str]:
    """Return what the backbone asks not to be decayed (class token, positions), by its names below ``prefix``."""
    stated = getattr(model.backbone, "no_weight_decay", set)
    return {f"{prefix}backbone.{name}" for name in stated()}


@torch.no_grad()
def accuracies(model: Model, batches: Batches, accelerator: Accelerator) -> dict[str, float]:
    """Return top-1 in per cent of the model, and of each token's head where it has two.

    Args:
        model: in evaluation mode.
        batches: validation images of this process.
        accelerator: adds up over processes.
    """
    right: dict[str, Tensor] = {}
    count = torch.zeros((), device=accelerator.device)
    heads = model.can("token_heads")
    for batch in batches():
        images, labels = as_floats(batch.views[0], accelerator.device), batch.labels.to(accelerator.device)
        by_token = model.logits_by_token(images) if heads else {}
        answers = {"top1": by_token["mean"] if heads else model(images)}
        answers |= {f"top1_{token}": logits for token, logits in by_token.items() if token != "mean"}
        for name, logits in answers.items():
            hits = (logits.argmax(1) == labels) & logits.isfinite().all(dim=1)  # of NaN, argmax is 0
            right[name] = right.get(name, torch.zeros_like(count)) + hits.sum()
        count += len(labels)
    names = ["top1", *(f"top1_{token}" for token in ("class", model.distillation_token) if heads)]
    numbers = torch.stack([*(right.get(name, torch.zeros_like(count)) for name in names), count])
    *totals, n = accelerator.reduce(numbers, "sum").tolist()  # pyright: ignore[reportAttributeAccessIssue]
    return {name: 100 * total / n for name, total in zip(names, totals, strict=True)}
