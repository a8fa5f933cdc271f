"""Occlusion: PatchDrop (Naseer et al. 2021, section 3.1, figure 3; appendices A and B)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import polars as pl
import torch
from pydantic import BeforeValidator, Field, PrivateAttr
from torch import Tensor

from ipvit.analysis import charts
from ipvit.analysis.aggregate import SHARED_MASK, accuracy_table, varying, with_paper
from ipvit.errors import InputError
from ipvit.experiments.base import (
    Batch,
    Condition,
    ExampleImage,
    Experiment,
    Records,
    Requirements,
    classify,
    judge,
)
from ipvit.experiments.fields import Several
from ipvit.experiments.grids import Grid, check_grid
from ipvit.experiments.occlusion.occluders import (
    ON_A_GRID,
    RANDOM,
    Mode,
    donated,
    kept_cells,
    kept_pixels,
    with_one_left,
)
from ipvit.experiments.occlusion.salience import MASKS, Salience
from ipvit.models.model import Model
from ipvit.perturb.patchdrop import fill_content, pixel_mask, replace, shift
from ipvit.perturb.seeding import keys

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

Level = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(ge=0)]

DONORS = 64
"""Images of the data set whose pixels occlude others, with the fill ``other``."""

_TITLES = {
    "random": "Random PatchDrop",
    "salient": "Salient PatchDrop",
    "non_salient": "Non-salient PatchDrop",
    "block": "One contiguous block",
    "object": "The object's bounding box",
}


@dataclasses.dataclass(frozen=True)
class OcclusionCondition(Condition):
    """One level of one run."""

    mode: str
    information_loss: float
    run: int
    grid: str
    offset: str
    fill: str
    removal: str
    nested: bool
    mask_scope: str
    salience: str


SETTINGS = ("grid", "offset", "fill", "removal", "nested", "mask_scope", "salience")


class Occlusion(Experiment):
    """Drop a share of the image's patches and watch the accuracy fall."""

    name: ClassVar[str] = "occlusion"
    version: ClassVar[int] = 3
    title: ClassVar[str] = "Occlusion: PatchDrop"
    reproduces: ClassVar[str] = "Figure 3"
    question: ClassVar[str] = "How much of the image can a network lose before it no longer recognises the object?"
    compare_by: ClassVar[tuple[str, ...]] = ("mode", *SETTINGS, "information_loss")
    reads: ClassVar[tuple[str, ...] | None] = (
        "mode", "information_loss", "run", *SETTINGS, "correct", "correct5", "dropped", SHARED_MASK,
    )  # fmt: skip

    modes: Several[Mode] = ("random",)
    """Which patches: random; salient or non_salient (the ones that hold the most or least foreground); block (one
    contiguous block); object (its bounding box)."""
    levels: Several[Level] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Information loss: the share of patches dropped; of the foreground's mass for salient and non_salient."""
    runs: Annotated[int, Field(ge=1)] = 5
    """Random masks per image and level."""
    grid: Grid = "14x14"
    """Rows and columns of the patch grid; it must divide the image. 224x224 drops single pixels of 224."""
    offset: tuple[Pixels, Pixels] = (0, 0)
    """Move the grid down and right by so many pixels."""
    fill: Literal["black", "mean", "noise", "blur", "other"] = "black"
    """What dropped pixels become: black (the paper), the image's mean colour, noise, a blurred copy, another image."""
    removal: Literal["pixels", "tokens"] = "pixels"
    """Replace pixels, or take the patches' tokens out of the transformer (the grid must be the network's own)."""
    nested: bool = False
    """Let the patches dropped at a level be among those dropped at every higher level of the same run."""
    mask_scope: Literal["image", "batch"] = "image"
    """One random mask per image, or one for every 256 images as in the authors' code."""
    salience: str = "paper:dino_vits16"
    """Where the foreground is: a network with attention from a class token, or masks (the data's own)."""
    salience_block: int = -1
    """Whose attention counts; -1 is the last block."""
    salience_head: Annotated[str, BeforeValidator(str)] = "1"
    """A head's number from 0 (the paper: 1), mean, or rollout."""
    protocol: Literal["ours", "authors"] = "ours"
    """authors: one mask per 256 images, and the salience network fed with the evaluated network's normalisation."""
    _source: Salience = PrivateAttr()

    def model_post_init(self, context: object) -> None:
        """Set up the source of salience; nothing is loaded yet."""
        self._source = Salience(self.salience, self.salience_block, self.salience_head, self.protocol == "authors")

    @property
    def needs(self) -> Requirements:
        """Logits, or token removal; masks where they say what is hidden; other images where they fill."""
        wanted = {"logits", "token_removal"} if self.removal == "tokens" else {"logits"}
        masks = "object" in self.modes or (self._uses_salience and self.salience == MASKS)
        return Requirements(frozenset(wanted), masks=masks, donors=DONORS if self.fill == "other" else 0)

    @property
    def _uses_salience(self) -> bool:
        return "salient" in self.modes or "non_salient" in self.modes

    def check(self, model: Model) -> None:
        """Raise InputError when the grid does not fit the model, or there is no salience to be had."""
        if self.removal == "tokens":
            self._check_tokens(model)
        elif any(mode in ON_A_GRID for mode in self.modes):
            check_grid(self.grid, model)
        if any(pixels >= side for pixels, side in zip(self.offset, model.image_size, strict=True)):
            raise InputError(f"an offset of {max(self.offset)} pixels leaves {model.name}'s input")
        if self._uses_salience:
            self._source.prepare()

    def _check_tokens(self, model: Model) -> None:
        own = "x".join(map(str, model.adapter.patch_grid(model.image_size)))
        wrong = [mode for mode in self.modes if mode not in ON_A_GRID]
        if wrong:
            raise InputError(f"tokens can be removed in the modes {', '.join(ON_A_GRID)}, not {wrong[0]}")
        if own != self.grid or any(self.offset):
            raise InputError(f"tokens are removed on the network's own grid, {own} for {model.name}, without offset")
        if max(self.levels) >= 1:
            raise InputError("with tokens removed, the information loss must stay below 1: something must be left")

    def conditions(self, model: Model) -> Sequence[OcclusionCondition]:
        """Return mode x level x run; where nothing is random, and at level 0, there is a single run."""
        return [
            self._condition(mode, level, run)
            for mode in self.modes
            for level in sorted(self.levels)
            for run in range(self.runs if level > 0 and mode in RANDOM else 1)
        ]

    def _condition(self, mode: Mode, level: float, run: int) -> OcclusionCondition:
        on_grid = mode in ON_A_GRID
        shared = self.mask_scope == "batch" or self.protocol == "authors"
        return OcclusionCondition(
            mode=mode,
            information_loss=level,
            run=run,
            grid=self.grid if on_grid else "",
            offset=f"{self.offset[0]},{self.offset[1]}" if on_grid else "0,0",
            fill=self.fill if self.removal == "pixels" else "",
            removal=self.removal,
            nested=self.nested and mode in RANDOM,
            mask_scope="batch" if mode in RANDOM and shared else "image",
            salience=self._source.identity if mode in ("salient", "non_salient") else "",
        )

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify the batch under every condition."""
        for condition in batch.conditions:
            columns, dropped = (
                self._without_tokens(model, batch, condition)
                if condition.removal == "tokens"
                else self._without_pixels(model, batch, condition)
            )
            shared = batch.mask_columns(shared=condition.mask_scope == "batch")
            yield Records(condition, columns | {"dropped": dropped} | shared)

    def _without_pixels(self, model: Model, batch: Batch, condition: OcclusionCondition) -> tuple[dict, Tensor]:
        images, dropped = self._occlude(model, batch, condition)
        return classify(model, images, batch.labels), dropped

    def _without_tokens(self, model: Model, batch: Batch, condition: OcclusionCondition) -> tuple[dict, Tensor]:
        """Classify without the dropped tokens; images that keep equally many go through the network together."""
        # an empty sequence has no answer
        keep = with_one_left(self._cells(model, batch, condition), batch, condition.grid, self._source)
        left = keep.flatten(1).sum(dim=1)
        logits = None
        for count in left.unique().tolist():
            rows = torch.where(left == count)[0]
            part = model.without_patches(batch.images[rows], keep[rows])
            logits = part.new_empty(len(batch), part.shape[1]) if logits is None else logits
            logits[rows] = part
        assert logits is not None
        return judge(logits, batch.labels), (~keep).float().mean(dim=(1, 2))

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return accuracy per model, mode and information loss, with the share of pixels really dropped."""
        settings = varying(records, SETTINGS, within=("mode",))
        by = ["model", "mode", *settings, "information_loss"]
        table = accuracy_table(records, by)
        dropped = records.group_by(by).agg(pl.col("dropped").cast(pl.Float64).mean())
        table = table.join(dropped, on=by, how="left", nulls_equal=True, maintain_order="left")
        return {"occlusion": table.sort("mode", *settings, "model", "information_loss", maintain_order=True)}

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return one curve per model for every mode, over the share really dropped, as in figure 3."""
        measured = set(tables["occlusion"]["mode"])
        table = with_paper(tables["occlusion"], tables, self.name)
        return {
            f"occlusion-{str(mode).replace('_', '-')}": charts.curve(
                _with_series(frame),
                charts.Encoding(
                    x="dropped",
                    y="top1",
                    series="series",
                    x_title="Information loss (share of the image dropped)",
                    y_title="Top-1 accuracy (%)",
                    x_format=".0%",
                    y_domain=(0, 100),
                ),
                title=_TITLES[str(mode)],
            )
            for (mode,), frame in table.group_by(["mode"], maintain_order=True)
            if mode in measured
        }

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield the first image at every level of every mode."""
        if self.removal == "tokens":
            return
        first = batch.part(0, 1)
        for condition in self.conditions(model):
            if condition.run == 0:
                images, dropped = self._occlude(model, first, condition)
                yield ExampleImage(f"{condition.mode.replace('_', '-')}, {float(dropped[0]):.0%} dropped", images[0])

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say what is left of each model's accuracy at the level nearest to half of the patches."""
        sentences = []
        table = _with_series(tables["occlusion"])
        for (mode, model), frame in table.group_by(["mode", "series"], maintain_order=True):
            rows = {row["information_loss"]: row for row in frame.to_dicts()}
            half = min(rows, key=lambda level: abs(level - 0.5))
            if 0.0 in rows and half > 0 and rows[0.0]["top1"] > 0:
                clean, left = rows[0.0]["top1"], rows[half]["top1"]
                sentences.append(
                    f"{_TITLES[str(mode)]}: with {rows[half]['dropped']:.0%} of the image dropped, {model} keeps "
                    f"{left:.1f} % top-1 of its {clean:.1f} % ({left / clean:.0%})."
                )
        return sentences

    def _key(self, batch: Batch, condition: OcclusionCondition, *, shared: bool) -> np.ndarray:
        owners = batch.mask_owners(shared=shared)
        level = None if condition.nested else condition.information_loss
        return keys(owners, batch.seed, self.name, condition.mode, condition.grid, condition.run, level)

    def _cells(self, model: Model, batch: Batch, condition: OcclusionCondition) -> Tensor:
        self._source.evaluated = model
        key = self._key(batch, condition, shared=condition.mask_scope == "batch")
        return kept_cells(batch, condition.mode, condition.information_loss, condition.grid, key, self._source)

    def _occlude(self, model: Model, batch: Batch, condition: OcclusionCondition) -> tuple[Tensor, Tensor]:
        """Return the occluded images and the share of pixels dropped in each."""
        if condition.mode in ON_A_GRID:
            cells = self._cells(model, batch, condition)
            mask = pixel_mask(cells, (batch.images.shape[-2], batch.images.shape[-1]))
            if condition.offset != "0,0":
                mask = shift(mask, self.offset)
        else:
            key = self._key(batch, condition, shared=condition.mask_scope == "batch")
            mask = kept_pixels(batch, condition.mode, condition.information_loss, key)
        dropped = (~mask).float().mean(dim=(1, 2, 3))
        if condition.information_loss == 0 and bool(mask.all()):
            return batch.images, dropped
        if condition.fill == "other":
            return replace(batch.images, mask, donated(batch, batch.seed, condition.run)), dropped
        own = self._key(batch, condition, shared=False)
        return replace(batch.images, mask, fill_content(batch.images, condition.fill, own)), dropped  # pyright: ignore[reportArgumentType]


def _with_series(table: pl.DataFrame) -> pl.DataFrame:
    """Name a curve after its model and whatever else tells it from the others."""
    others = [name for name in SETTINGS if name in table.columns]
    words = [pl.col(name).cast(pl.String) for name in others]
    series = pl.concat_str([pl.col("model"), *words], separator=", ", ignore_nulls=True) if words else pl.col("model")
    return table.with_columns(series.alias("series"))
