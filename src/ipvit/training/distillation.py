"""Learning from a teacher beside the labels; with a second token, the paper's shape distillation (section 3.2)."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from ipvit.core.files import write_atomic
from ipvit.core.preprocessing import View
from ipvit.data.dataset import Dataset, UnreadableImageError, fingerprint
from ipvit.data.decode import apply_view
from ipvit.data.workers import Loader, shared_memory_short
from ipvit.errors import InputError
from ipvit.models.label_mapping import outputs_for
from ipvit.models.model import Model
from ipvit.perturb.pixels import as_floats
from ipvit.training.augment import Augmentation
from ipvit.training.config import AugmentConfig, DistillationConfig
from ipvit.training.erasing import Erasing
from ipvit.training.objective import Labels, Objective, Trained

_JUDGED = 64
"""Unchanged pictures that a teacher judges at a time."""


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


class Distillation(Objective):
    """``(1 - alpha) labels + alpha teacher``.

    With two heads the labels teach the class token's alone and the teacher the other alone; with one head, both teach
    that one.

    Args:
        model: the student.
        labels: the loss of the labels.
        augment: changes to the images.
        part: kind of target, alpha, tau.
        teacher: what judges the images the student sees.
    """

    def __init__(
        self, model: Model, labels: Labels, augment: AugmentConfig, part: DistillationConfig, teacher: Teacher
    ) -> None:
        self.model = model
        self.module = Trained(model)
        self.pipeline = Augmentation(augment, model.preprocessing)
        self._labels, self._part, self._teacher = labels, part, teacher
        self._erase = Erasing(augment, model.preprocessing)
        model.distillation_token = part.token

    def setup(self, accelerator: Accelerator, epochs: int, steps: int) -> None:
        """Put the teacher where the training runs."""
        self._teacher.setup(accelerator)

    def change(self, views: list[Tensor], keys: np.ndarray) -> list[Tensor]:
        """Return the view with its rectangles erased: the teacher sees what the student sees."""
        return [self._erase(views[0], keys)]

    def loss(
        self, module: nn.Module, views: list[Tensor], labels: Tensor, indices: Tensor, key: int, epoch: int
    ) -> Tensor:
        """Return the mean loss of the batch."""
        part = self._part
        images, targets = self._labels.mix(views[0], labels, key)
        taught = self._teacher(images, indices)
        heads = module(images)
        of_labels = self._labels.loss(heads[0], targets)
        return (1 - part.alpha) * of_labels + part.alpha * distillation_loss(heads[-1], taught, part.target, part.tau)


class Teacher:
    """A network that judges training images, read out on the student's classes.

    Args:
        model: the network; it is never trained.
        data: the training images, whose classes are read out.
        part: input size, and whether each unchanged image is judged once and for all.
        folder: where those judgements are kept, so that an interrupted training need not repeat them.
        workers: loader processes for them.

    Raises:
        InputError: the network does not know the classes.
    """

    def __init__(self, model: Model, data: Dataset, part: DistillationConfig, folder: Path, workers: int = 0) -> None:
        assert data.classes is not None
        self._outputs = torch.from_numpy(outputs_for(data, model))
        self._model = model.eval().requires_grad_(False)
        self._data, self._once, self._folder, self._workers = data, part.sees == "original", folder, workers
        view = model.preprocessing.view
        self._view = view if part.size is None else dataclasses.replace(view, size=(part.size, part.size))
        self._judged: Tensor | None = None

    def setup(self, accelerator: Accelerator) -> None:
        """Move to the device; judge the unchanged images there if each is judged once."""
        self._model.to(accelerator.device)
        self._outputs = self._outputs.to(accelerator.device)
        if self._once:
            with accelerator.main_process_first():
                self._judged = self._all_judged(accelerator.device)

    @torch.no_grad()
    def __call__(self, images: Tensor, indices: Tensor) -> Tensor:
        """Return logits ``(B, classes)``, float32.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1] as the student sees them.
            indices: ``(B,)`` their positions in the training set.
        """
        if self._judged is not None:
            return self._judged[indices].to(images.device).float()
        size = self._view.size
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        return self._model(images)[:, self._outputs]

    def _all_judged(self, device: torch.device) -> Tensor:
        identity = fingerprint(self._model.digest, self._data.fingerprint, self._view)
        path = self._folder / f"teacher-{identity[:16]}.npy"
        if not path.exists():
            view = self._view.size
            lacking = shared_memory_short(_JUDGED * 3 * view[0] * view[1], self._workers)
            load = Loader(
                _Views(self._data, self._view), self._data.name, workers=self._workers, through_pipes=bool(lacking)
            )
            chunks = [range(i, min(i + _JUDGED, len(self._data))) for i in range(0, len(self._data), _JUDGED)]
            with torch.no_grad():
                parts = [
                    self._model(as_floats(pictures.pixels, device))[:, self._outputs].to(torch.float16).cpu()
                    for pictures in load(chunks)
                ]
            write_atomic(path, _npy(torch.cat(parts).numpy()))
        try:
            return torch.from_numpy(np.load(path, allow_pickle=False))
        except (ValueError, TypeError, EOFError):
            raise InputError(f"{str(path)!r} does not hold a teacher's answers; delete it to have them made") from None


@dataclasses.dataclass(frozen=True)
class _Pictures:
    pixels: Tensor

    def map_tensors(self, change: Callable[[Any], Any]) -> _Pictures:
        return _Pictures(change(self.pixels))


class _Views:
    """Reads unchanged pictures, ``(B, 3, H, W)`` uint8 of some positions."""

    def __init__(self, data: Dataset, view: View) -> None:
        self._data, self._view = data, view

    def __call__(self, indices: Sequence[int]) -> _Pictures:
        return _Pictures(torch.stack([self._read(index) for index in indices]))

    def _read(self, index: int) -> Tensor:
        try:
            return apply_view(self._data.read(index), self._view)
        except UnreadableImageError as error:
            raise InputError(f"{self._data.name}: cannot read {self._data.ids[index]}: {error}; remove it") from error


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()
