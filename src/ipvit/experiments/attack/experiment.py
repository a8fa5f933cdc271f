"""Attacks: FGSM, PGD and the universal adversarial patch (section 3.4, figures 12 and 13)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
import torch
from pydantic import Field, PrivateAttr, field_validator
from torch import Tensor

from ipvit.data import load_dataset
from ipvit.errors import InputError
from ipvit.experiments.attack import analysis as attack_tables
from ipvit.experiments.attack.patch_files import Look, Patch, load_patch
from ipvit.experiments.attack.patches import Order, Patches, Training, frozen, output_of, training_positions
from ipvit.experiments.base import (
    Batch,
    Bench,
    Condition,
    ExampleImage,
    Experiment,
    Records,
    Requirements,
    classify,
    judge,
)
from ipvit.experiments.grids import Grid, check_grid
from ipvit.models.model import Model
from ipvit.perturb.attack import Attacked, Clean, clean_pass, fgsm, is_right, pgd, random_starts
from ipvit.perturb.patch import Placement, Shape, noise_patch, paste, random_places
from ipvit.perturb.seeding import keys, random_words

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure
    from ipvit.data.dataset import Dataset

CLEAN, FGSM, PGD, PATCH, NOISE = "clean", "fgsm", "pgd", "patch", "noise"
"""What is done to the images; ``noise`` is the control of the patch: as large, at the same places, untrained."""

PAPER_GRID = "14x14"
"""Patches of the paper's transformers."""

OWN = "own"
"""The network that a patch was trained on is the one that is attacked."""

Epsilon = Annotated[float, Field(gt=0, le=255)]
Area = Annotated[float, Field(gt=0, le=0.5)]
Factor = Annotated[float, Field(gt=0)]


@dataclasses.dataclass(frozen=True)
class AttackCondition(Condition):
    """One attack; what does not concern it is 0 or empty.

    ``source`` says which network a patch was trained on (``own``, or 16 digits of its digest), ``training`` what else
    it depends on.
    """

    attack: str
    epsilon: float = 0.0
    steps: int = 0
    step_size: float = 0.0
    restarts: int = 0
    random_start: bool = False
    area: float = 0.0
    shape: str = ""
    placement: str = ""
    grid: str = ""
    scale: str = ""
    target: str = ""
    source: str = ""
    training: str = ""
    run: int = 0

    @property
    def order(self) -> Order:
        """The patch of this condition."""
        low, high = (float(factor) for factor in self.scale.split(","))
        look: dict[str, Any] = {"shape": self.shape, "area": self.area, "placement": self.placement, "grid": self.grid}
        return Order(Look(**look, scale=(low, high), target=self.target), self.run)


@dataclasses.dataclass
class _Shared:
    """What the copies of an experiment for several data sets have in common."""

    models: tuple[Model, ...] = ()
    patches: Patches = dataclasses.field(default_factory=Patches)
    files: list[Patch] | None = None
    data: Dataset | None = None


class Attack(Experiment):
    """Change images, or a part of them, so that a network that was right is wrong."""

    name: ClassVar[str] = "attack"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Adversarial attacks"
    reproduces: ClassVar[str] = "Figures 12 and 13"
    question: ClassVar[str] = "How little must an attacker who knows the network change to fool it?"
    compare_by: ClassVar[tuple[str, ...]] = (
        "attack", "epsilon", "area", *attack_tables.PIXEL_SETTINGS, *attack_tables.PATCH_SETTINGS,
    )  # fmt: skip

    reads: ClassVar[tuple[str, ...] | None] = (
        *compare_by, "run", "source", "training", "correct", "flat", "covered", "hit", "of_target", "trained_on",
    )  # fmt: skip

    attacks: tuple[Literal["fgsm", "pgd", "patch"], ...] = ("fgsm", "pgd")
    """fgsm and pgd change every pixel a little; patch replaces a part of the image, and must be trained: takes long."""
    epsilons: tuple[Epsilon, ...] = (2.0, 4.0, 8.0)
    """The most that fgsm and pgd change a pixel, in 255ths of the pixel range."""
    steps: Annotated[int, Field(ge=1)] = 5
    """Gradient steps of pgd."""
    step_size: Annotated[float, Field(gt=0, le=2)] = 0.5
    """Length of a step of pgd as a share of epsilon."""
    restarts: Annotated[int, Field(ge=1)] = 1
    """How often pgd starts anew on images that are still right."""
    random_start: bool = True
    """Start pgd at a random place within epsilon, not at the image."""
    patch_areas: tuple[Area, ...] = (0.05, 0.15, 0.25)
    """Shares of the image that the patch covers."""
    patch_shape: Shape = "circle"
    """circle (any rotation) or square (quarter turns)."""
    patch_placements: tuple[Placement, ...] = ("free",)
    """Where: free (anywhere), grid (squares on whole cells of the patch grid), off_grid (half a cell off it)."""
    patch_grid: Grid | Literal[""] = ""
    """Rows and columns of that grid; empty: the patches of the study's transformer, 14x14 where they differ or there
    is none."""
    patch_scale: tuple[Factor, Factor] = (1.0, 1.0)
    """Smallest and largest random factor on the patch's height and width."""
    patch_target: str = ""
    """The class (name or number) that the patch should show; empty: any wrong one."""
    patch_data: str = ""
    """Images to train the patch on; empty: a part of the data, which is then left out of the patch's results."""
    patch_images: Annotated[int, Field(ge=1)] = 2000
    """Images to train on, at most half of the data where they are a part of it."""
    patch_steps: Annotated[int, Field(ge=1)] = 1250
    """Gradient steps of a patch's training."""
    patch_batch: Annotated[int, Field(ge=1)] = 32
    """Images per step."""
    patch_rate: Annotated[float, Field(gt=0)] = 0.05
    """Step size (Adam, falling to zero)."""
    patch_files: tuple[str, ...] = ()
    """Use these saved patches (.png) instead of training."""
    transfer: bool = True
    """Also attack every network with the patches of the study's other networks."""
    runs: Annotated[int, Field(ge=1)] = 5
    """Patches per network and size, each from another start."""

    _shared: _Shared = PrivateAttr(default_factory=_Shared)
    _data: Any = PrivateAttr(default=None)

    @field_validator("attacks", "epsilons", "patch_areas", "patch_placements", "patch_files")
    @classmethod
    def _once(cls, value: tuple[object, ...], info: Any) -> tuple[object, ...]:
        if not value and info.field_name != "patch_files":
            raise ValueError("at least one is needed")
        return tuple(dict.fromkeys(value))

    @property
    def needs(self) -> Requirements:
        """Logits, and gradients with respect to the images."""
        return Requirements(frozenset({"logits", "gradients"}))

    def check_all(self, models: Sequence[Model]) -> None:
        """Remember the networks, whose patches attack each other, and check what does not depend on one of them."""
        if self.restarts > 1 and not self.random_start:
            raise InputError("attack: restarts without a random start would all be the same; set random_start")
        able = [model for model in models if self.needs.capabilities <= model.capabilities]
        self._shared.models, self._shared.patches = tuple(able), Patches()
        self._shared.files = [load_patch(path) for path in self.patch_files] if PATCH in self.attacks else []

    def on(self, data: Dataset) -> Attack:
        """Return the experiment that trains patches for this data.

        Raises:
            InputError: there are too few images to train and to measure on, or the training images are the data.
        """
        if PATCH not in self.attacks:
            return self
        if self.patch_data and self._shared.data is None:
            self._shared.data = load_dataset(self.patch_data)
        if self._shared.data is not None and self._shared.data.fingerprint == data.fingerprint:
            raise InputError(
                f"attack: the patch would be trained on the very images it is measured on, {data.name}; leave out "
                "patch_data to keep a part of them for training"
            )
        found = self.model_copy()
        found._data = data
        if not found._measured_with_patches(data).any():
            raise InputError(f"attack: of the {len(data)} images of {data.name} none is left that no patch has seen")
        return found

    def check(self, model: Model) -> None:
        """Raise InputError when a patch does not fit the network's input, or it has no such class."""
        if PATCH not in self.attacks:
            return
        sides: dict[tuple[str, float], float] = {}
        for look in dict.fromkeys(order.look for order in self._orders()):
            if look.grid and look.shape == "square":
                check_grid(look.grid, model)
            try:
                side = look.form(model.image_size).side
            except ValueError as error:
                raise InputError(f"attack: {model.name}: {error}") from None
            if sides.setdefault((look.placement, side), look.area) != look.area:
                raise InputError(
                    f"attack: {model.name}: patches of {sides[look.placement, side]:g} and {look.area:g} of the image "
                    f"are both {side:g} pixels wide on the grid {look.grid}; leave one of them out of patch_areas"
                )
            output_of(model, look.target)
        if self._training is not None:
            self._training.digest(model)

    def covers(self, condition: Condition, data: Dataset) -> np.ndarray | None:
        """Return the images that no patch was trained on, for patches and their control; all for other attacks."""
        assert isinstance(condition, AttackCondition)
        return self._measured_with_patches(data) if condition.attack in (PATCH, NOISE) else None

    def conditions(self, model: Model) -> Sequence[AttackCondition]:
        """Return the clean image, FGSM and PGD x epsilon, and patches and noise x look x run x trained-on network."""
        found = [AttackCondition(CLEAN)]
        for epsilon in sorted(self.epsilons):
            if FGSM in self.attacks:
                found.append(AttackCondition(FGSM, epsilon))
            if PGD in self.attacks:
                found.append(
                    AttackCondition(PGD, epsilon, self.steps, self.step_size, self.restarts, self.random_start)
                )
        if PATCH in self.attacks:
            found += [_of(NOISE, order) for order in self._orders()]
            found += self._from_files(model) if self.patch_files else self._from_networks(model)
        return sorted(
            dict.fromkeys(found), key=lambda condition: (CLEAN, FGSM, PGD, NOISE, PATCH).index(condition.attack)
        )

    def prepare(self, model: Model, bench: Bench) -> Bench:
        """Train the network's own patches that are not in the run folder yet."""
        if PATCH in self.attacks and self._training is not None:
            self._shared.patches.train(model, self._orders(), self._training, bench)
        return bench

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Attack the batch in every way; FGSM and PGD of all epsilons share the clean pass."""
        with frozen(model):
            pixel = [condition for condition in batch.conditions if condition.attack in (CLEAN, FGSM, PGD)]
            for condition, found in self._attacked(model, batch, pixel):
                yield Records(condition, judge(found.logits, batch.labels) | {"flat": found.flat})
            with torch.no_grad():
                for condition in batch.conditions:
                    if condition.attack in (PATCH, NOISE):
                        yield Records(condition, self._with_patch(model, batch, condition))

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return accuracy by attack and epsilon, by patch and size with the control, and the transfer of patches."""
        return attack_tables.tables(records)

    def comparable(self, records: pl.DataFrame) -> pl.DataFrame:
        """Compare networks under attacks made for each; transferred patches and noise have tables of their own."""
        return records.filter(pl.col("source").is_in(["", OWN]) & (pl.col("attack") != NOISE))

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return accuracy over epsilon (figure 13), over the patch's size (figure 12), and the transfer matrix."""
        return attack_tables.figures(tables)

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say what each attack leaves of the accuracy."""
        sentences = attack_tables.summary(tables)
        if PATCH in self.attacks and attack_tables.PATCHES not in tables:
            sentences.append(
                "No image was left to measure patches on: all were for training. Measure on more images, or train on "
                "others (patch_data) or fewer (patch_images)."
            )
        return sentences

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield an image that the network gets right under every attack, and the patches themselves."""
        with torch.inference_mode(False), torch.no_grad():
            logits = model(batch.images)
            rows = torch.where(is_right(logits, batch.labels))[0]
            row = int(rows[0]) if len(rows) else 0
            one = batch.part(row, row + 1)
            yield ExampleImage("the image as it is", one.images[0])
            pixel = [c for c in self.conditions(model) if c.attack in (FGSM, PGD)]
            for condition, found in self._attacked(model, one, pixel):
                words = f"{condition.attack.upper()}, ε = {condition.epsilon:g}/255: {_named(model, found.logits)}"
                yield ExampleImage(words, found.images[0])
                if condition.epsilon == max(self.epsilons):
                    change = (found.images[0] - one.images[0]) / (2 * condition.epsilon / 255) + 0.5
                    yield ExampleImage(f"what {condition.attack.upper()} changes at ε = {condition.epsilon:g}", change)
            yield from self._example_patches(model, one)

    def _example_patches(self, model: Model, one: Batch) -> Iterator[ExampleImage]:
        conditions = [c for c in self.conditions(model) if c.attack in (PATCH, NOISE) and c.run == 0]
        for condition in conditions:
            try:
                pixels, whose = self._pixels(model, condition, one)
            except ValueError:  # could not be trained: the failure is recorded where it is measured
                continue
            images, _ = _paste(model, one, condition, pixels)
            words = "noise" if condition.attack == NOISE else f"patch trained on {whose}"
            words += f", {condition.area:.0%}{_aside(condition)}"
            yield ExampleImage(f"{words}: {_named(model, model(images))}", images[0])
            if condition.source == OWN:
                yield ExampleImage(f"the {words}", pixels)

    @property
    def _training(self) -> Training | None:
        """How patches are trained; None where they are read from files, or no data are known yet."""
        data = self._shared.data or self._data
        if data is None or self.patch_files:
            return None
        own = self._shared.data is None
        return Training(data, own, self.patch_images, self.patch_steps, self.patch_batch, self.patch_rate)

    def _orders(self) -> list[Order]:
        if self.patch_files:
            return list(dict.fromkeys(Order(patch.card.look, patch.card.run) for patch in self._files))
        looks = [
            Look(
                shape=self.patch_shape, area=area, placement=placement, scale=self.patch_scale,
                grid=self._grid if placement != "free" else "", target=self.patch_target,
            )
            for placement in self.patch_placements for area in sorted(self.patch_areas)
        ]  # fmt: skip
        return [Order(look, run) for look in looks for run in range(self.runs)]

    @property
    def _grid(self) -> str:
        """The grid of patches that are placed on one: the same for all networks, as they are shown to each other."""
        own = {
            f"{rows}x{columns}"
            for model in self._shared.models
            if "attention" in model.capabilities
            for rows, columns in [model.adapter.patch_grid(model.image_size)]
        }
        return self.patch_grid or (own.pop() if len(own) == 1 else PAPER_GRID)

    @property
    def _files(self) -> list[Patch]:
        if self._shared.files is None:
            self._shared.files = [load_patch(path) for path in self.patch_files]
        return self._shared.files

    def _from_networks(self, model: Model) -> list[AttackCondition]:
        others = [other for other in self._shared.models if other.digest != model.digest] if self.transfer else []
        digests = {
            source: "" if self._training is None else self._training.digest(source) for source in (model, *others)
        }
        return [
            _of(PATCH, order, OWN if source is model else source.digest[:16], digest)
            for source, digest in digests.items()
            for order in self._orders()
        ]

    def _from_files(self, model: Model) -> list[AttackCondition]:
        return [
            _of(
                PATCH, Order(patch.card.look, patch.card.run),
                OWN if patch.card.weights == model.digest else patch.card.weights[:16],
                f"{patch.card.training}{attack_tables.CONTENT}{patch.card.sha256[:12]}",
            )
            for patch in self._files
        ]  # fmt: skip

    def _measured_with_patches(self, data: Dataset) -> np.ndarray:
        """Return which images no patch was trained on."""
        unseen = np.ones(len(data), dtype=bool)
        if self._training is not None and self._training.own:
            unseen[self._training.positions()] = False
        for patch in self._files if self.patch_files else ():
            if patch.card.data == data.fingerprint:
                unseen[training_positions(data.ids, patch.card.images)] = False
        return unseen

    def _attacked(
        self, model: Model, batch: Batch, conditions: Sequence[AttackCondition]
    ) -> Iterator[tuple[AttackCondition, Attacked]]:
        if not conditions:
            return
        images, labels = batch.images, batch.labels
        gradient = any(c.attack == FGSM or (c.attack == PGD and not c.random_start) for c in conditions)
        clean = clean_pass(model, images, labels, gradient=gradient)
        starts = _starts(batch)
        for condition in conditions:
            yield condition, _attack(model, images, labels, condition, clean, starts)

    def _pixels(self, model: Model, condition: AttackCondition, batch: Batch) -> tuple[Tensor, str]:
        """Return a patch and the name of the network it was trained on."""
        order = condition.order
        if condition.attack == NOISE:
            (key,) = keys(["noise"], batch.seed, "adversarial patch", condition.run)
            return noise_patch(key, order.look.form(model.image_size).resolution), ""
        if self.patch_files:
            content = condition.training.partition(attack_tables.CONTENT)[2]
            patch = next(patch for patch in self._files if patch.card.sha256.startswith(content))
            return patch.pixels, patch.card.trained_on
        source = model
        if condition.source != OWN:
            source = next(other for other in self._shared.models if other.digest.startswith(condition.source))
        return self._shared.patches.get(source.digest, order, condition.training, batch.prepared), source.name

    def _with_patch(self, model: Model, batch: Batch, condition: AttackCondition) -> dict[str, Any]:
        pixels, whose = self._pixels(model, condition, batch)
        images, inside = _paste(model, batch, condition, pixels)
        columns = classify(model, images, batch.labels)
        target = output_of(model, condition.target)
        hit = ~columns["correct"] if target is None else columns["prediction"] == target
        return columns | {
            "covered": inside.float().mean(dim=(1, 2)),
            "hit": hit,
            "of_target": batch.labels == (-2 if target is None else target),
            "trained_on": np.full(len(batch), whose),
        }


def _of(attack: str, order: Order, source: str = "", training: str = "") -> AttackCondition:
    look = order.look
    return AttackCondition(
        attack, area=look.area, shape=look.shape, placement=look.placement, grid=look.grid,
        scale=f"{look.scale[0]:g},{look.scale[1]:g}", target=look.target, source=source, training=training,
        run=order.run,
    )  # fmt: skip


def _attack(
    model: Model, images: Tensor, labels: Tensor, condition: AttackCondition, clean: Clean,
    starts: Callable[[int], Tensor],
) -> Attacked:  # fmt: skip
    if condition.attack == CLEAN:
        return Attacked(images, clean.logits, torch.zeros_like(labels, dtype=torch.bool))
    if condition.attack == FGSM:
        return fgsm(model, images, labels, condition.epsilon, clean=clean)
    return pgd(
        model, images, labels, condition.epsilon, steps=condition.steps, step_size=condition.step_size,
        restarts=condition.restarts, starts=starts if condition.random_start else None, clean=clean,
    )  # fmt: skip


def _starts(batch: Batch) -> Callable[[int], Tensor]:
    @functools.lru_cache(maxsize=1)  # with a single restart all epsilons share it
    def start(restart: int) -> Tensor:
        key = keys(batch.ids, batch.seed, "attack", "start", restart)
        return random_starts(key, tuple(batch.images.shape[1:])).to(batch.images.device)

    return start


def _paste(model: Model, batch: Batch, condition: AttackCondition, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Paste a patch on every image, at places that are the same for all patches, sizes and networks."""
    look = condition.order.look
    words = random_words(keys(batch.ids, batch.seed, "attack", "place", condition.run), 4)
    draws = (words >> np.uint64(11)) / 2.0**53  # in [0, 1): the quotient of all 64 bits can round to 1
    places = random_places(look.form(model.image_size), draws)
    return paste(batch.images, pixels.to(batch.images.device), places, look.shape)


def _named(model: Model, logits: Tensor) -> str:
    best = int(logits[0].argmax())
    return f"taken for {model.classes[best] if model.classes else f'class {best}'}"


def _aside(condition: AttackCondition) -> str:
    return "" if condition.placement == "free" else f", {condition.placement.replace('_', ' ')}"
