"""Teachers: networks that judge training images, each image once or as the student sees it."""

from __future__ import annotations

import dataclasses
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from ipvit.core.files import write_atomic
from ipvit.core.preprocessing import View
from ipvit.data.dataset import Dataset, UnreadableImageError, fingerprint
from ipvit.data.decode import apply_view
from ipvit.data.workers import Loader, shared_memory_short
from ipvit.errors import InputError
from ipvit.models.label_mapping import outputs_for
from ipvit.models.model import Model
from ipvit.perturb.pixels import as_floats
from ipvit.training.config import DistillationConfig

_JUDGED = 64
"""Unchanged pictures that a teacher judges at a time."""


class Teacher(ABC):
    """A network that judges training images.

    Args:
        model: the network; it is never trained.
        data: the training images.
        part: input size, and whether each unchanged image is judged once and for all.
        folder: where those judgements are kept, so that an interrupted training need not repeat them.
        workers: loader processes for them.
        view: what the teacher sees of an unchanged image; its own way to look at images by default.
    """

    kept_as: ClassVar[str]
    """Begin of the names of the files that keep what it says."""

    def __init__(
        self,
        model: Model,
        data: Dataset,
        part: DistillationConfig,
        folder: Path,
        *,
        workers: int = 0,
        view: View | None = None,
    ) -> None:
        self._model = model.eval().requires_grad_(False)
        self._data, self._once, self._folder, self._workers = data, part.sees == "original", folder, workers
        own = model.preprocessing.view
        size = own.size if part.size is None else (part.size, part.size)
        self._view = dataclasses.replace(own if view is None else view, size=size)
        self._judged: Tensor | None = None

    @abstractmethod
    def _says(self, images: Tensor) -> Tensor:
        """Return what the network says of images ``(B, 3, H, W)`` in [0, 1], one row for each."""

    def _identity(self) -> str:
        """Return the digest of all that decides what it says of the training images."""
        return fingerprint(self._model.digest, self._data.fingerprint, self._view)

    def setup(self, accelerator: Accelerator) -> None:
        """Move to the device."""
        self._accelerator = accelerator
        self._model.to(accelerator.device)

    def judge(self) -> None:
        """Judge the unchanged images if each is judged once, or read what is kept of that."""
        if self._once and self._judged is None:
            with self._accelerator.main_process_first():
                self._judged = self._all_judged(self._accelerator.device)

    @torch.no_grad()
    def __call__(self, images: Tensor, indices: Tensor) -> Tensor:
        """Return what it says of each image, ``(B, ...)``, float32.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1] as the student sees them.
            indices: ``(B,)`` their positions in the training set.
        """
        self.judge()
        if self._judged is not None:
            return self._judged[indices].to(images.device).float()
        size = self._view.size
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        return self._says(images)

    def _all_judged(self, device: torch.device) -> Tensor:
        path = self._folder / f"{self.kept_as}-{self._identity()[:16]}.npy"
        if not path.exists():
            view = self._view.size
            lacking = shared_memory_short(_JUDGED * 3 * view[0] * view[1], self._workers)
            load = Loader(
                _Views(self._data, self._view), self._data.name, workers=self._workers, through_pipes=bool(lacking)
            )
            chunks = [range(i, min(i + _JUDGED, len(self._data))) for i in range(0, len(self._data), _JUDGED)]
            with torch.no_grad():
                parts = [
                    self._says(as_floats(pictures.pixels, device)).to(torch.float16).cpu() for pictures in load(chunks)
                ]
            write_atomic(path, _npy(torch.cat(parts).numpy()))
        try:
            return torch.from_numpy(np.load(path, allow_pickle=False))
        except (ValueError, TypeError, EOFError):
            raise InputError(f"{str(path)!r} does not hold what a teacher said; delete it to have it made") from None


class AnswersTeacher(Teacher):
    """Says logits ``(B, classes)``, read out on the student's classes.

    Raises:
        InputError: the network does not know the classes.
    """

    kept_as = "teacher"

    def __init__(self, model: Model, data: Dataset, part: DistillationConfig, folder: Path, *, workers: int) -> None:
        super().__init__(model, data, part, folder, workers=workers)
        self._outputs = torch.from_numpy(outputs_for(data, model))

    def setup(self, accelerator: Accelerator) -> None:
        """See :class:`Teacher`."""
        self._outputs = self._outputs.to(accelerator.device)
        super().setup(accelerator)

    def _says(self, images: Tensor) -> Tensor:
        return self._model(images)[:, self._outputs]


class AttentionTeacher(Teacher):
    """Says to which patches the class token of the last block looks: ``(B, patches)``, rows that sum to one.

    Of an unchanged image it sees what the student sees: the same part, at its own size.

    Args:
        model: the network.
        data: the training images.
        part: which head, or the mean of all.
        folder: where the maps are kept.
        workers: loader processes for them.
        student: whose patches must be as many as the teacher's.

    Raises:
        InputError: a network has no class token or cannot say its attention, or there is no such head, or the grids of
            patches differ.
    """

    kept_as = "attention"

    def __init__(
        self, model: Model, data: Dataset, part: DistillationConfig, folder: Path, *, workers: int, student: Model
    ) -> None:
        super().__init__(model, data, part, folder, workers=workers, view=student.preprocessing.view)
        for network in (model, student):
            if not network.can("attention") or "class" not in network.adapter.prefix_tokens:
                raise InputError(f"objective.attention: {network.name} has no attention of a class token to learn from")
        grids = [
            network.adapter.patch_grid(size)
            for network, size in ((model, self._view.size), (student, student.image_size))
        ]
        if grids[0] != grids[1]:
            raise InputError(
                "objective.attention: {} has {}x{} patches and {} {}x{}; they must be as many".format(
                    model.name, *grids[0], student.name, *grids[1]
                )
            )
        heads = model.n_heads(model.adapter.n_blocks - 1)
        if part.attention_head is not None and part.attention_head >= heads:
            raise InputError(f"objective.attention_head: {model.name} has heads 0 to {heads - 1}")
        self._head = part.attention_head

    def _identity(self) -> str:
        return fingerprint(super()._identity(), "attention", self._head)

    def _says(self, images: Tensor) -> Tensor:
        shares = class_attention(self._model, self._model.prefix_attention(images, self._model.adapter.n_blocks - 1))
        return shares.mean(dim=1) if self._head is None else shares[:, self._head]


def class_attention(model: Model, maps: Tensor) -> Tensor:
    """Return the share of each patch in what the class token looks at, of all that it gives to patches.

    Args:
        model: whose attention it is.
        maps: ``(B, heads, rows, T)``, where the first rows are those of the prefix tokens.

    Returns:
        ``(B, heads, patches)`` in float32; rows sum to one.
    """
    prefix = model.adapter.prefix_tokens
    to_patches = maps[:, :, prefix.index("class"), len(prefix) :].float()
    return to_patches / to_patches.sum(dim=-1, keepdim=True)


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
