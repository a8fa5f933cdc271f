"""Patches of a study: trained once per network, kept in the run folder, found again by what determines them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ipvit.core.artifacts import artifact_path, first_whole, made_again
from ipvit.core.digests import digest_of_json
from ipvit.core.files import path_component
from ipvit.data.loader import read_batches
from ipvit.errors import InputError
from ipvit.experiments.attack.patch_files import PATCH, Patch, PatchMetadata, PatchSpec, load_patch, save_patch
from ipvit.experiments.base import PrepareContext
from ipvit.models.label_mapping import outputs_for
from ipvit.models.model import Model
from ipvit.perturb.patch import train_patch
from ipvit.perturb.seeding import keys
from ipvit.perturb.tensors import from_numpy

if TYPE_CHECKING:
    from ipvit.core.preprocessing import View
    from ipvit.data.dataset import Dataset

FOLDER = "patches"
KEY_DIGITS = 12
"""Hex digits of a patch's key, in file names, and of how it was trained."""
VERSION = 1
"""Raised whenever the same training would give another patch."""


@dataclasses.dataclass(frozen=True)
class PatchJob:
    """A patch that is asked for: how it is put on images, and which of several runs."""

    look: PatchSpec
    run: int


@dataclasses.dataclass(frozen=True)
class Training:
    """How patches are trained.

    Attributes:
        data: the images; those of the study, or others.
        own: the data are the study's own: what a patch was trained on is not measured.
        images: how many of them at most; of the study's own at most half.
        steps: gradient steps.
        batch: images per step.
        rate: step size of Adam.
    """

    data: Dataset
    own: bool
    images: int
    steps: int
    batch: int
    rate: float

    def positions(self) -> np.ndarray:
        """Return the positions of the training images."""
        most = len(self.data) // 2 if self.own else len(self.data)
        return training_positions(self.data.ids, min(self.images, most))

    def digest(self, model: Model) -> str:
        """Digest (12 hex digits) of all that a network's patches depend on, beside the network and the order."""
        classes = self.classes(model).tolist()
        parts = [VERSION, self.data.fingerprint, classes, len(self.positions()), self.steps, self.batch, self.rate]
        if model.answer_space is not None:
            parts.append(model.answer_space.digest)
        return digest_of_json(parts, KEY_DIGITS)

    def classes(self, model: Model) -> np.ndarray:
        """Return the network's output for each class of the data."""
        if self.data.classes is None:
            raise InputError(f"attack: patches are trained on labels, and {self.data.name} has no class folders")
        return outputs_for(self.data, model)


class Patches:
    """The patches of a study, on disk and in memory.

    One object serves all networks, so that each can be attacked with the patches of the others.
    """

    def __init__(self) -> None:
        self._found: dict[str, Tensor] = {}
        self._reasons: dict[str, str] = {}
        self._images: tuple[tuple[str, View], Tensor, Tensor] | None = None

    def train(self, model: Model, orders: Sequence[PatchJob], training: Training, context: PrepareContext) -> None:
        """Make sure that there are a network's own patches; what cannot be trained is told by :meth:`get`.

        One that is damaged is trained again, which the context notes.
        """
        for order in orders:
            key = self._key(model.digest, order, training.digest(model), context)
            if key in self._found or self._stored(model.digest, order, key, context) is not None:
                continue
            damaged = self._reasons.pop(key, "")
            try:
                patch = self._trained(model, order, key, training, context)
            except (ValueError, torch.OutOfMemoryError) as error:
                self._reasons[key] = str(error)
                continue
            save_patch(_place(model, order, key, context.folder), patch)
            if damaged:
                context.notes.append(made_again(damaged, "it was trained"))
        self._images = None

    def get(self, digest: str, order: PatchJob, training: str, context: PrepareContext) -> Tensor:
        """Return the pixels ``(3, S, S)`` of the patch trained on the network of that digest.

        Raises:
            ValueError: there is none, with the reason.
        """
        key = self._key(digest, order, training, context)
        if key not in self._found:
            pixels = self._stored(digest, order, key, context)
            if pixels is None:
                raise ValueError(self._reasons.get(key, f"no patch of the network {digest[:8]} is in the run folder"))
            self._found[key] = pixels
        return self._found[key]

    def _key(self, digest: str, order: PatchJob, training: str, context: PrepareContext) -> str:
        look = order.look.model_dump(mode="json")
        return digest_of_json([digest, look, order.run, training, context.seed, context.precision], KEY_DIGITS)

    def _stored(self, digest: str, order: PatchJob, key: str, context: PrepareContext) -> Tensor | None:
        """Return the pixels of a patch in the run folder; None where there is none, or a damaged one, with a reason."""

        def read(path: Path) -> Tensor:
            patch = load_patch(path)
            about = patch.metadata
            if about.key not in ("", key) or (about.weights, about.look, about.run) != (digest, order.look, order.run):
                raise PATCH.another(path)
            return patch.pixels

        name = artifact_path(Path(f"*-{digest[:8]}"), _name(order), key, ".json")  # written last
        pixels, damage = first_whole(sorted((context.folder / FOLDER).glob(str(name))), read)
        if damage:
            self._reasons[key] = damage
        return pixels

    def _trained(self, model: Model, order: PatchJob, key: str, training: Training, context: PrepareContext) -> Patch:
        images, labels = self._read(model, training, context)
        (number,) = keys([model.digest], context.seed, "adversarial patch", order.look.model_dump_json(), order.run)
        with frozen_parameters(model):
            pixels = train_patch(
                model,
                images,
                labels,
                order.look.form(model.image_size),
                number,
                target=output_of(model, order.look.target),
                steps=training.steps,
                batch=training.batch,
                rate=training.rate,
                device=context.device,
            )
        metadata = PatchMetadata(
            key=key,
            look=order.look,
            run=order.run,
            trained_on=model.name,
            weights=model.digest,
            data=training.data.fingerprint,
            data_name=training.data.name,
            images=len(training.positions()),
            steps=training.steps,
            batch=training.batch,
            rate=training.rate,
            seed=context.seed,
            precision=context.precision,
        )
        return Patch(pixels, metadata)

    def _read(self, model: Model, training: Training, context: PrepareContext) -> tuple[Tensor, Tensor]:
        """Read the training images as the network sees them; kept while one network's patches are trained."""
        data, view = training.data, model.preprocessing.view
        name = (data.fingerprint, view)
        if self._images is None or self._images[0] != name:
            positions = training.positions()
            batches = [positions[start : start + 64] for start in range(0, len(positions), 64)]
            pixels: list[Tensor] = []
            answers: list[Tensor] = []
            for batch in read_batches(data, batches, [view], workers=context.workers, decoder=data.decoder):
                context.unreadable.update({data.ids[place]: reason for place, reason in batch.unreadable})
                if len(batch.indices):
                    pixels.append(batch.pixels[view])
                    answers.append(from_numpy(batch.labels))
            if not pixels:
                raise InputError(f"attack: none of the training images of {data.name} could be read")
            self._images = name, torch.cat(pixels), torch.cat(answers)
        labels = self._images[2]
        outputs = from_numpy(training.classes(model))
        return self._images[1], torch.where(labels < 0, -1, outputs[labels.clamp(min=0)])


@contextlib.contextmanager
def frozen_parameters(model: Model) -> Generator[None]:
    """Let a network's weights ask for no gradients for a while: only the images' are wanted."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def training_positions(ids: Sequence[str], count: int) -> np.ndarray:
    """Return the positions of ``count`` images to train on: a random but fixed choice that depends on the ids alone."""
    rank = np.argsort(keys(ids, "adversarial patch training"), kind="stable")
    return np.sort(rank[:count])


def output_of(model: Model, target: str) -> int | None:
    """Return which output of a network a class is, given by its name there or by its number; None for no class.

    Raises:
        InputError: the network has no such class.
    """
    if not target:
        return None
    if model.classes is not None and target in model.classes:
        return model.classes.index(target)
    if target.isdecimal() and (model.classes is None or int(target) < len(model.classes)):
        return int(target)
    known = "whose class names are unknown: give a number" if model.classes is None else _listed(model.classes)
    raise InputError(f"attack: there is no class {target!r} in {model.name}, {known}")


def _listed(classes: Sequence[str]) -> str:
    return f"whose {len(classes)} classes are {', '.join(classes[:3])}, ..."


def _place(model: Model, order: PatchJob, key: str, folder: Path) -> Path:
    return artifact_path(folder / FOLDER / path_component(model.name, mark=model.digest[:8]), _name(order), key)


def _name(order: PatchJob) -> str:
    look = order.look
    return f"{100 * look.area:g}pct-{look.shape}-{look.placement}-run{order.run}"
