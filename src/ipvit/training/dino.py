"""DINO: a student that agrees with its own moving average across views (Caron et al. 2021).

With ``global_views_of: stylized`` it answers what the paper's section 4 leaves open: what self-supervised attention
learns where shape is all that the global views show.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ipvit.data.subset import select
from ipvit.errors import InputError
from ipvit.models.model import Model
from ipvit.perturb.pixels import as_floats
from ipvit.training.config import DinoConfig
from ipvit.training.images import TrainingImages
from ipvit.training.multicrop import MultiCrop
from ipvit.training.objective import Batches, Objective, undecayed
from ipvit.training.optimization import cosine
from ipvit.training.recipe import Recipe

_NEIGHBOURS, _TEMPERATURE = 20, 0.07
"""Of the nearest-neighbour classifier that scores an epoch, as in DINO's evaluation."""

_MOST_REFERENCES = 10_000
"""Training images it looks at: that many, chosen by their ids."""


class Head(nn.Module):
    """Projection: three layers, unit length, a last layer with rows of unit length.

    Args:
        width: of the features.
        part: widths and number of outputs.
    """

    def __init__(self, width: int, part: DinoConfig) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, part.hidden_dim),
            nn.GELU(),
            nn.Linear(part.hidden_dim, part.hidden_dim),
            nn.GELU(),
            nn.Linear(part.hidden_dim, part.bottleneck_dim),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last = weight_norm(nn.Linear(part.bottleneck_dim, part.out_dim, bias=False))
        normed: Any = self.last.parametrizations
        lengths = normed.weight.original0
        lengths.data.fill_(1)
        lengths.requires_grad = not part.norm_last_layer

    def forward(self, features: Tensor) -> Tensor:
        """Return ``(B, out_dim)`` for features ``(B, width)``."""
        return self.last(F.normalize(self.mlp(features), dim=-1))


class DinoNetwork(nn.Module):
    """Backbone and projection; one forward for all views of one size.

    Args:
        model: the backbone, without a classifier.
        head: the projection.
        decay_tokens: whether class token and positions shrink.
    """

    def __init__(self, model: Model, head: Head, decay_tokens: bool = True) -> None:
        super().__init__()
        self.model, self.head, self._decay_tokens = model, head, decay_tokens

    def forward(self, views: list[Tensor]) -> list[Tensor]:
        """Return ``(B, out_dim)`` in float32 for each view ``(B, 3, h, w)`` in [0, 1]."""
        groups: dict[torch.Size, list[int]] = {}
        for number, view in enumerate(views):
            groups.setdefault(view.shape[-2:], []).append(number)
        out: dict[int, Tensor] = {}
        for numbers in groups.values():
            features = self.model.backbone(self.model.normalize(torch.cat([views[n] for n in numbers])))
            out |= zip(numbers, self.head(features).float().chunk(len(numbers)), strict=True)
        return [out[number] for number in range(len(views))]

    def no_weight_decay(self) -> set[str]:
        """Return the weights that are not to shrink beside biases and norms."""
        return set() if self._decay_tokens else undecayed(self.model, "model.")


def dino_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], center: Tensor, student_temp: float, teacher_temp: float
) -> Tensor:
    """Return the mean cross-entropy of the student on each view with the teacher on every other global view.

    Args:
        student: ``(B, K)`` for each view, global ones first.
        teacher: ``(B, K)`` for each global view.
        center: ``(K,)``, subtracted from the teacher's outputs.
        student_temp: temperature of the student.
        teacher_temp: temperature of the teacher.
    """
    targets = [F.softmax((out - center) / teacher_temp, dim=-1).detach() for out in teacher]
    said = [F.log_softmax(out / student_temp, dim=-1) for out in student]
    terms = [
        -(target * answer).sum(dim=-1).mean()
        for one, target in enumerate(targets)
        for other, answer in enumerate(said)
        if one != other
    ]
    return torch.stack(terms).mean()


class Dino(Objective):
    """Self-distillation without labels.

    Args:
        model: the student's backbone, without a classifier; what is saved is its moving average.
        part: the objective's values.
        recipe: for sizes and length.
        references: training images, unchanged, that the nearest-neighbour score looks at.

    Raises:
        InputError: the network does not take the local views' size.
    """

    score_name = "k-NN top-1"

    def __init__(self, model: Model, part: DinoConfig, recipe: Recipe, references: TrainingImages) -> None:
        width = getattr(model.backbone, "num_features", None)
        if not isinstance(width, int):
            raise InputError(f"objective dino: {recipe.model.name} does not state the width of its features")
        embed = getattr(model.backbone, "patch_embed", None)
        dynamic = embed is None or getattr(model.backbone, "dynamic_img_size", False)
        if part.local_views and part.local_size != recipe.data.size and not dynamic:
            raise InputError(
                f"objective dino: {recipe.model.name} must take views of {part.local_size} pixels as well; "
                "set model.kwargs.dynamic_img_size to true"
            )
        self.module = DinoNetwork(model, Head(width, part), part.decay_tokens)
        self._teacher = copy.deepcopy(self.module).requires_grad_(False)
        for layer in self._teacher.modules():
            if isinstance(layer, DropPath):
                layer.drop_prob = 0.0  # stochastic depth is the student's alone
        self.model = self._teacher.model
        self.pipeline = MultiCrop(part, recipe.data.preprocessing.view)
        self._part, self._references = part, references
        self._center = torch.zeros(part.out_dim)
        self._steps = self._per_epoch = 1

    def setup(self, accelerator: Accelerator, epochs: int, steps: int) -> None:
        """Learn the length of the schedules and where the training runs."""
        self._accelerator = accelerator
        self._teacher.to(accelerator.device)
        self._center = self._center.to(accelerator.device)
        self._steps, self._per_epoch = epochs * steps, steps

    def loss(
        self, module: nn.Module, views: list[Tensor], labels: Tensor, indices: Tensor, key: int, epoch: int
    ) -> Tensor:
        """Return the mean loss of the batch and move the centre."""
        self._teacher.train()  # as the authors: batch normalisation sees the batch
        with torch.no_grad():
            targets = self._teacher(views[:2])
        loss = dino_loss(module(views), targets, self._center, self._part.student_temp, self._temperature(epoch))
        mean = cast(Tensor, self._accelerator.reduce(torch.cat(targets).mean(dim=0), "mean"))
        self._center = self._center.lerp(mean, 1 - self._part.center_momentum)
        return loss

    def _temperature(self, epoch: int) -> float:
        part = self._part
        if epoch >= part.warmup_teacher_temp_epochs:
            return part.teacher_temp
        share = epoch / max(part.warmup_teacher_temp_epochs - 1, 1)
        return part.warmup_teacher_temp + share * (part.teacher_temp - part.warmup_teacher_temp)

    def before_update(self, epoch: int) -> None:
        """Hold the projection's last layer still in the first epochs."""
        if epoch < self._part.freeze_last_layer:
            for weight in self.module.head.last.parameters():  # pyright: ignore[reportAttributeAccessIssue]
                weight.grad = None

    @torch.no_grad()
    def after_update(self, step: int) -> None:
        """Move the teacher towards the student; its momentum rises to 1 along half a cosine."""
        momentum = cosine(self._part.momentum, 1.0, step, self._steps)
        for mine, new in zip(self._teacher.parameters(), self.module.parameters(), strict=True):
            mine.lerp_(new, 1 - momentum)

    def scores(self, model: Model, val: Batches, accelerator: Accelerator) -> dict[str, float]:
        """Return the top-1 of a nearest-neighbour classifier on the features of some training images, in per cent."""
        device = accelerator.device
        # class folders are sorted: the first images would be of a few classes
        chosen = select(self._references.data.ids, _MOST_REFERENCES)
        sightings = np.stack([chosen, np.zeros_like(chosen)], axis=1)
        known, labels = [], []
        for batch in self._references.batches(np.split(sightings, range(250, len(sightings), 250))):
            known.append(_features(model, batch.views[0], device))
            labels.append(batch.labels.to(device))
        bank, bank_labels = torch.cat(known), torch.cat(labels)
        right = torch.zeros((), device=device)
        n = torch.zeros((), device=device)
        for batch in val():
            votes = neighbours(_features(model, batch.views[0], device), bank, bank_labels)
            right += (votes.argmax(1) == batch.labels.to(device)).sum()
            n += len(batch.labels)
        total, n = accelerator.reduce(torch.stack([right, n]), "sum").tolist()  # pyright: ignore[reportAttributeAccessIssue]
        return {"knn_top1": 100 * total / n}

    def state_dict(self) -> dict[str, Any]:
        """Return the moving average and the centre."""
        return {"teacher": self._teacher.state_dict(), "center": self._center}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self._teacher.load_state_dict(state["teacher"])
        self._center = state["center"].to(self._center.device)


def neighbours(features: Tensor, bank: Tensor, labels: Tensor, k: int = _NEIGHBOURS) -> Tensor:
    """Return the weighted votes of the nearest neighbours, ``(B, classes)`` (Wu et al. 2018).

    Args:
        features: ``(B, D)`` of unit length.
        bank: ``(N, D)``, likewise.
        labels: ``(N,)`` int64.
        k: number of neighbours; all of them where there are fewer.
    """
    closeness, nearest = (features @ bank.T).topk(min(k, len(bank)), dim=1)
    votes = features.new_zeros(len(features), int(labels.max()) + 1)
    return votes.scatter_add_(1, labels[nearest], (closeness / _TEMPERATURE).exp())


@torch.no_grad()
def _features(model: Model, images: Tensor, device: torch.device) -> Tensor:
    return F.normalize(model.backbone(model.normalize(as_floats(images, device))).float(), dim=1)
