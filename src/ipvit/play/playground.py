"""What the page can ask for: photos, which cells are dropped, and what a network makes of what is left."""

from __future__ import annotations

import base64
import functools
import io
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ipvit.engine.device import numerics
from ipvit.errors import InputError
from ipvit.models.model import Model
from ipvit.perturb.attack import fgsm, pgd
from ipvit.perturb.cells import cell_size, check_cells, nearest_dividing, stands_for
from ipvit.perturb.corruptions import CORRUPTIONS, EXTRA, corrupt
from ipvit.perturb.patchdrop import fill_content, n_dropped, patchdrop, random_keep
from ipvit.perturb.pixels import as_bytes
from ipvit.perturb.salience import non_salient_keep, salient_keep
from ipvit.perturb.seeding import keys
from ipvit.perturb.shuffle import shuffle, shuffle_order
from ipvit.play import reading
from ipvit.play.debounce import Debouncer
from ipvit.play.photos import MAX_UPLOAD, Photo, Shelf
from ipvit.play.settings import MOST_CELLS_A_SIDE, MOST_EPSILON, CellsRequest, Inside, PerturbedRequest, PhotoRequest

PAGE = 12
"""Photos at a time."""

THUMBNAIL = 96
"""Side of a thumbnail in pixels."""

PGD_STEPS = 5
"""As in the paper's figure 13."""


class Playground:
    """Networks, photos, and everything that can be done to them.

    Args:
        models: at least one; the page shows two at a time.
        shelf: the photos.
        salience: whose attention says what is salient, the mean of the heads of its last block; None for nobody's.
        device: where the networks run.
    """

    def __init__(
        self,
        models: Sequence[Model],
        shelf: Shelf,
        *,
        salience: Model | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.models = [model.to(self.device) for model in models]
        self.shelf = shelf
        self.salience = None if salience is None else salience.to(self.device)
        self._turn = Debouncer()
        self._clean = functools.lru_cache(64)(self._clean_logits)
        self._salient = functools.lru_cache(64)(self._salience)

    def start(self) -> dict[str, Any]:
        """Return all that the page must know before anything is chosen."""
        return {
            "models": [_described(model) for model in self.models],
            "photos": len(self.shelf),
            "corruptions": [*CORRUPTIONS, *EXTRA],
            "salience": None if self.salience is None else self.salience.name,
            "limits": {"upload": MAX_UPLOAD, "cells": MOST_CELLS_A_SIDE, "epsilon": MOST_EPSILON},
        }

    def photos(self, first: int) -> dict[str, Any]:
        """Return the next photos on the shelf, and where the ones after them begin."""
        with_pixels = self._turn.alone(lambda: self.shelf.page(first, PAGE))
        following = first + PAGE
        return {
            "photos": [_shown(photo, pixels) for photo, pixels in with_pixels],
            "next": following if following < len(self.shelf) else None,
        }

    def upload(self, data: bytes) -> dict[str, Any]:
        """Take a file and return it as a photo; see :meth:`Shelf.add`."""
        return _shown(*self.shelf.add(data))  # nobody waits while it is decoded

    def view(self, asked: PhotoRequest) -> dict[str, Any]:
        """Return a photo as a network gets it, untouched."""
        model = self._model(asked.model)
        self._decode(asked.photo, model)
        square = self._turn.alone(lambda: self.shelf.square(asked.photo, model.preprocessing.view))
        return {"image": _png(square)}

    def cells(self, asked: CellsRequest) -> dict[str, Any]:
        """Return which cells of the grid are dropped, counted row by row."""
        side = (asked.grid, asked.grid)
        if asked.mode == "random":
            key = keys([asked.photo], asked.seed, "play", "cells")
            keep = torch.from_numpy(random_keep(key, side, n_dropped(asked.loss, asked.grid**2)))
        else:
            if self.salience is not None:
                self._decode(asked.photo, self.salience)
            fine = self._turn.newest("cells", lambda: self._salient(asked.photo))
            choose = salient_keep if asked.mode == "salient" else non_salient_keep
            keep = choose(F.interpolate(fine, size=side, mode="area")[:, 0], asked.loss)
        return {"dropped": torch.where(~keep.flatten())[0].tolist()}

    def look(self, asked: PerturbedRequest) -> dict[str, Any]:
        """Return what a network sees, its likeliest classes, and where it looks."""
        self._decode(asked.photo, self._model(asked.model))
        return self._turn.newest(f"look {asked.panel}", lambda: self._look(asked))

    def _decode(self, photo: str, model: Model) -> None:
        """Decode an uploaded photo before it is this request's turn: the shelf remembers it, and nobody waits."""
        if self.shelf.is_upload(photo):
            self.shelf.square(photo, model.preprocessing.view)

    def _look(self, asked: PerturbedRequest) -> dict[str, Any]:
        began = time.perf_counter()
        model, photo = self._model(asked.model), self.shelf.photo(asked.photo)
        with numerics(self.device, "fp32"):
            images = self._changed(asked, model)
            with torch.inference_mode():
                answer = self._answer(asked, model, photo, images)
                inside = self._inside(asked, asked.inside, model, images)
        spent = round(1000 * (time.perf_counter() - began))
        square = as_bytes(images[0]).cpu()
        shuffled = list(_shuffle_grid(asked, model)) if asked.shuffle > 1 else None
        return {"image": _png(square), "shuffled": shuffled, **answer, "inside": inside, "milliseconds": spent}

    def _changed(self, asked: PerturbedRequest, model: Model) -> Tensor:
        """Return what the network sees, ``(1, 3, H, W)``: corrupted, then dropped, then shuffled, then attacked."""
        square = self.shelf.square(asked.photo, model.preprocessing.view)
        if asked.severity:
            key = keys([asked.photo], asked.seed, "play")[0]
            pixels = np.ascontiguousarray(square.permute(1, 2, 0).numpy())
            square = torch.from_numpy(corrupt(pixels, asked.corruption, asked.severity, key)).permute(2, 0, 1)
        images = square.to(self.device).float().div(255).unsqueeze(0)
        self._check_grids(asked, model)
        if asked.dropped:
            keep = torch.ones(asked.grid**2, dtype=torch.bool)
            keep[asked.dropped] = False
            fill = fill_content(images, asked.fill, keys([asked.photo], asked.seed, "play", "fill"))
            images = patchdrop(images, keep.view(asked.grid, asked.grid), fill)
        if asked.shuffle > 1:
            grid = _shuffle_grid(asked, model)
            images = shuffle(images, shuffle_order(keys([asked.photo], asked.seed, "play", "order"), grid), grid)
        return self._attacked(asked, model, images) if asked.epsilon else images

    def _check_grids(self, asked: PerturbedRequest, model: Model) -> None:
        wanted = "drop patches"
        try:
            check_cells(model.image_size, (asked.grid, asked.grid))
            wanted = "shuffle"
            _shuffle_grid(asked, model)
        except ValueError as error:
            raise InputError(f"{wanted}: {error}") from None

    def _attacked(self, asked: PerturbedRequest, model: Model, images: Tensor) -> Tensor:
        """Return the image moved away from the network's own answer.

        Raises:
            InputError: the network does not classify, or its gradient is zero everywhere, so that the attack is blind.
        """
        if not model.can("logits"):
            raise InputError(f"{model.name} has no classifier, so there is no answer to attack")
        with torch.no_grad():
            labels = model(images).argmax(dim=1)
        if asked.attack == "fgsm":
            found = fgsm(model, images, labels, asked.epsilon)
        else:
            found = pgd(model, images, labels, asked.epsilon, steps=PGD_STEPS)
        if bool(found.zero_gradient.any()):
            raise InputError(f"the gradient of {model.name} is zero everywhere on this picture: the attack is blind")
        return found.images

    def _answer(self, asked: PerturbedRequest, model: Model, photo: Photo, images: Tensor) -> dict[str, Any]:
        if not model.can("logits"):
            return {"top": [], "before": None}
        before = self._clean(asked.photo, asked.model)
        logits = model(images)[0]
        right = self.shelf.right(photo.id, model)
        best = reading.top(before, before, model, right)[0]
        return {"top": reading.top(logits, before, model, right), "before": best}

    def _inside(
        self, asked: PerturbedRequest, where: Inside | None, model: Model, images: Tensor
    ) -> dict[str, Any] | None:
        if where is None or not reading.tokens(model):
            return None
        found = reading.attend(model, images, where.block, where.head, where.token, where.threshold)
        moved = asked.shuffle > 1  # then the object is no longer where its mask is
        truth = None if moved else self.shelf.mask(asked.photo, model.preprocessing.view)
        rows, columns = found.weights.shape
        peak = found.weights.max().clamp(min=torch.finfo(torch.float64).tiny)
        return {
            "rows": rows,
            "columns": columns,
            "weights": [round(x, 4) for x in (found.weights / peak).flatten().tolist()],
            "mask": found.mask.flatten().int().tolist(),
            "heads": found.heads,
            "overlap": found.overlap(truth),
        }

    def _clean_logits(self, photo_id: str, number: int) -> Tensor:
        model = self._model(number)
        square = self.shelf.square(photo_id, model.preprocessing.view)
        return model(square.to(self.device).float().div(255).unsqueeze(0))[0]

    def _salience(self, photo_id: str) -> Tensor:
        """Return what is salient in a photo, ``(1, 1, rows, columns)``, float64."""
        model = self.salience
        if model is None:
            raise InputError("none of the networks has attention that could say what is salient")
        square = self.shelf.square(photo_id, model.preprocessing.view)
        images = square.to(self.device).float().div(255).unsqueeze(0)
        with torch.no_grad():
            block = model.adapter.n_blocks - 1
            heads = reading.attention_to_patches(model, images, block, reading.tokens(model)[0])
        return heads.mean(dim=1, keepdim=True)

    def _model(self, number: int) -> Model:
        if number >= len(self.models):
            raise InputError(f"there are networks 0 to {len(self.models) - 1}, no {number}")
        return self.models[number]


def salience_model(models: Sequence[Model]) -> Model | None:
    """Return the first network with attention that can say what is salient, or None."""
    return next((model for model in models if reading.tokens(model)), None)


def _shuffle_grid(asked: PerturbedRequest, model: Model) -> tuple[int, int]:
    """Return the grid whose cells change places: the nearest to the one asked for that divides a network's input.

    Raises:
        ValueError: none is near.
    """
    wanted = (asked.shuffle, asked.shuffle)
    found = nearest_dividing(model.image_size, wanted)
    if not stands_for(found, wanted):
        cell_size(model.image_size, wanted)  # says which grid would do
    return found


def _described(model: Model) -> dict[str, Any]:
    size, able = model.image_size, reading.tokens(model)
    return {
        "name": model.name,
        "size": list(size),
        "patches": list(model.adapter.patch_grid(size)) if able else None,
        "blocks": model.adapter.n_blocks if able else 0,
        "tokens": able,
        "classifies": model.can("logits"),
    }


def _shown(photo: Photo, pixels: Tensor) -> dict[str, Any]:
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    side = min(picture.size)
    left, upper = (picture.width - side) // 2, (picture.height - side) // 2
    small = picture.crop((left, upper, left + side, upper + side)).resize((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return {"id": photo.id, "caption": photo.caption, "thumbnail": _data_url(buffer, "jpeg")}


def _png(square: Tensor) -> str:
    """Return ``(3, H, W)`` uint8 as the address of an image that holds its own bytes; lossless, as pixels matter."""
    buffer = io.BytesIO()
    Image.fromarray(square.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG", compress_level=1)
    return _data_url(buffer, "png")


def _data_url(buffer: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
