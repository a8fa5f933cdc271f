"""Learning from a teacher beside the labels; with a second token, the paper's shape distillation (section 3.2)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from ipvit.errors import InputError
from ipvit.models.model import Model
from ipvit.training.augment import Augmentation
from ipvit.training.config import AugmentConfig, DistillationConfig
from ipvit.training.erasing import Erasing
from ipvit.training.objective import Labels, Objective, Trained
from ipvit.training.teacher import AnswersTeacher, AttentionTeacher, class_attention


def distillation_loss(student: Tensor, teacher: Tensor, target: str, tau: float = 1.0) -> Tensor:
    """Return how far a student is from its teacher, a scalar.

    ``hard`` is the cross-entropy with the teacher's decision; ``soft`` is ``tau^2 KL(teacher || student)`` of both
    distributions at temperature ``tau``, averaged over images (DeiT's code divides by the number of classes as well).

    Args:
        student: logits ``(B, C)``.
        teacher: logits ``(B, C)``.
        target: ``hard`` or ``soft``.
        tau: temperature; counts only for ``soft``.
    """
    if target == "hard":
        return F.cross_entropy(student, teacher.argmax(1))
    said, true = F.log_softmax(student / tau, dim=1), F.log_softmax(teacher / tau, dim=1)
    return tau**2 * F.kl_div(said, true, reduction="batchmean", log_target=True)


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return how far a student's attention is from its teacher's, a scalar.

    ``KL(teacher || student)`` of the shares of the patches, averaged over images and the student's heads.

    Args:
        student: ``(B, heads, patches)``, rows that sum to one.
        teacher: ``(B, patches)``, likewise.
    """
    said = student.clamp_min(torch.finfo(student.dtype).tiny).log()
    return F.kl_div(said, teacher[:, None].expand_as(said), reduction="sum") / (said.shape[0] * said.shape[1])


class Distillation(Objective):
    """``(1 - alpha) labels + alpha teacher + attention teacher's attention``.

    With two heads the labels teach the class token's alone and the teacher the other alone; with one head, both teach
    that one.

    Args:
        model: the student.
        labels: the loss of the labels.
        augment: changes to the images.
        part: kind of target, alpha, tau, weight of the attention.
        answers: what judges the images the student sees; None where only its attention teaches.
        attention: what says where to look, or None.

    Raises:
        InputError: nothing would teach the student's second token.
    """

    def __init__(
        self,
        model: Model,
        labels: Labels,
        augment: AugmentConfig,
        part: DistillationConfig,
        answers: AnswersTeacher | None,
        attention: AttentionTeacher | None = None,
    ) -> None:
        self.model = model
        self.module = Trained(model) if attention is None else TrainedWithAttention(model)
        self.pipeline = Augmentation(augment, model.preprocessing)
        self._labels, self._part, self._teacher, self._attention = labels, part, answers, attention
        self._teachers = [teacher for teacher in (answers, attention) if teacher is not None]
        self._erase = Erasing(augment, model.preprocessing)
        if answers is None and model.can("token_heads"):
            raise InputError("objective.alpha: 0 leaves the second token without a teacher; give it a weight")
        model.distillation_token = part.token

    def setup(self, accelerator: Accelerator, epochs: int, steps: int) -> None:
        """Put the teachers where the training runs."""
        for teacher in self._teachers:
            teacher.setup(accelerator)

    def begin(self) -> None:
        """Let the teachers judge unchanged images."""
        for teacher in self._teachers:
            teacher.judge()

    def change(self, views: list[Tensor], keys: np.ndarray) -> list[Tensor]:
        """Return the view with its rectangles erased: the teacher sees what the student sees."""
        return [self._erase(views[0], keys)]

    def loss(
        self, module: nn.Module, views: list[Tensor], labels: Tensor, indices: Tensor, key: int, epoch: int
    ) -> Tensor:
        """Return the mean loss of the batch."""
        part = self._part
        images, targets = self._labels.mix(views[0], labels, key)
        said = module(images)
        heads = said if self._attention is None else said[:-1]
        loss = (1 - part.alpha) * self._labels.loss(heads[0], targets)
        if self._teacher is not None:
            taught = self._teacher(images, indices)
            loss = loss + part.alpha * distillation_loss(heads[-1], taught, part.target, part.tau)
        if self._attention is not None:
            loss = loss + part.attention * attention_loss(said[-1], self._attention(images, indices))
        return loss


class TrainedWithAttention(Trained):
    """A model as the loop sees it, which says beside its logits where the class token of its last block looks."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return ``(B, num_classes)`` for each head, and last ``(B, heads, patches)``, rows that sum to one."""
        adapter, answer = self.model.adapter, super().forward
        logits, maps = adapter.with_attention(adapter.n_blocks - 1, lambda: answer(images))
        return (*logits, class_attention(self.model, maps))
