"""Feature drop: lose features inside the network instead of pixels before it (appendix C, tables 6 and 7)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import polars as pl
import torch
from pydantic import Field
from torch import Tensor

from ipvit.analysis import charts
from ipvit.analysis.aggregate import accuracy_table, varying, with_paper
from ipvit.errors import InputError
from ipvit.experiments.base import SHARED_MASK, Batch, Condition, Experiment, Records, Requirements, judge
from ipvit.experiments.fields import Several
from ipvit.models.adapters.base import FeatureState
from ipvit.models.model import Model
from ipvit.perturb.patchdrop import n_dropped, random_keep
from ipvit.perturb.seeding import keys

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

CLEAN = -1
"""Block number of the condition without any drop."""


@dataclasses.dataclass(frozen=True)
class FeatureDropCondition(Condition):
    """One rate before one block; block -1 is the network as it is."""

    block: int
    rate: float
    run: int
    mask_scope: str


class FeatureDrop(Experiment):
    """Zero a share of the patch tokens, or of the spatial positions of a CNN, before one block."""

    name: ClassVar[str] = "feature-drop"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Feature drop"
    reproduces: ClassVar[str] = "Tables 6 and 7"
    question: ClassVar[str] = "Does a network survive the loss of features deep inside as well as the loss of pixels?"
    compare_by: ClassVar[tuple[str, ...]] = ("block", "rate", "mask_scope")
    reads: ClassVar[tuple[str, ...] | None] = ("block", "rate", "run", "mask_scope", "correct", "correct5", SHARED_MASK)

    blocks: tuple[int, ...] = ()
    """Before which blocks or stages, from 0; by default every other block of a transformer (the paper: 0, 2, .. 10) and
    every stage of a CNN with the input of its pooling as the last."""
    rates: Several[Annotated[float, Field(gt=0, le=1)]] = (0.25, 0.5, 0.75)
    """Share of the patch tokens or positions that are lost; the class token is spared."""
    runs: Annotated[int, Field(ge=1)] = 1
    """Random masks per image, block and rate."""
    protocol: Literal["ours", "authors"] = "ours"
    """authors: one mask for every 256 images."""

    @property
    def needs(self) -> Requirements:
        """A network that can be stopped before a block and resumed."""
        return Requirements(frozenset({"logits", "feature_drop"}))

    def check(self, model: Model) -> None:
        """Raise InputError when there is no such block."""
        count = model.adapter.n_blocks
        wrong = [block for block in self.blocks if not 0 <= block < count]
        if wrong:
            raise InputError(f"feature-drop: {model.name} has blocks 0 to {count - 1}, not {wrong[0]}")

    def conditions(self, model: Model) -> Sequence[FeatureDropCondition]:
        """Return the clean network, then block x rate x run."""
        scope = "batch" if self.protocol == "authors" else "image"
        return [
            FeatureDropCondition(CLEAN, 0.0, 0, ""),
            *(
                FeatureDropCondition(block, rate, run, scope)
                for block in self._blocks(model)
                for rate in sorted(self.rates)
                for run in range(self.runs)
            ),
        ]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify with features lost; one pass gives what enters every block, for all rates and runs."""
        blocks = sorted({condition.block for condition in batch.conditions} - {CLEAN})
        states = model.until_each(batch.images, blocks) if blocks else {}
        for condition in batch.conditions:
            if condition.block == CLEAN:  # the pass goes on from the last block that was read
                logits = model.resume(states[blocks[-1]]) if blocks else model(batch.images)
            else:
                logits = self._with_loss(model, batch, states[condition.block], condition)
            shared = batch.mask_columns(shared=condition.mask_scope == "batch")
            yield Records(condition, judge(logits, batch.labels) | shared)

    def _with_loss(self, model: Model, batch: Batch, state: FeatureState, condition: FeatureDropCondition) -> Tensor:
        owners = batch.mask_owners(shared=condition.mask_scope == "batch")
        key = keys(owners, batch.seed, self.name, condition.block, condition.rate, condition.run)
        rows, columns = state.grid
        keep = random_keep(key, (rows, columns), n_dropped(condition.rate, rows * columns))
        return model.resume(model.drop(state, torch.from_numpy(keep).to(batch.images.device)))

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return accuracy per model, block and rate; block -1 is the network as it is."""
        settings = varying(records.filter(pl.col("block") != CLEAN), ["mask_scope"])
        by = ["model", "block", "rate", *settings]
        return {"feature-drop": accuracy_table(records, by).sort(by, maintain_order=True)}

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return a curve per model over the blocks, one panel per rate."""
        dropped = tables["feature-drop"].filter(pl.col("block") != CLEAN)
        table = with_paper(dropped, tables, self.name).sort("block", "rate")
        if "mask_scope" in table.columns:  # measured with a mask per image and with shared ones: a curve for each
            words = [pl.col("model"), pl.format("mask per {}", "mask_scope")]
            table = table.with_columns(pl.concat_str(words, separator=", ", ignore_nulls=True).alias("model"))
        return {
            "feature-drop": charts.curve(
                table.with_columns(pl.format("{} % lost", (pl.col("rate") * 100).round().cast(pl.Int64)).alias("lost")),
                charts.Encoding(
                    x="block",
                    y="top1",
                    facet="lost",
                    x_title="Before block or stage (from 0)",
                    y_title="Top-1 accuracy (%)",
                    y_domain=(0, 100),
                    x_scale="ordinal",
                ),
                title="Feature drop",
            )
        }

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say where each model is most vulnerable at the highest rate."""
        sentences = []
        for (model,), frame in tables["feature-drop"].group_by(["model"], maintain_order=True):
            dropped = frame.filter(pl.col("block") != CLEAN)
            clean = frame.filter(pl.col("block") == CLEAN)["top1"]
            if dropped.height and len(clean):
                hardest = dropped.filter(pl.col("rate") == dropped["rate"].max()).sort("top1").row(0, named=True)
                sentences.append(
                    f"{model} falls from {clean[0]:.1f} % to {hardest['top1']:.1f} % top-1 when {hardest['rate']:.0%} "
                    f"of the features before block {hardest['block']} are lost, its weakest place at that rate."
                )
        return sentences

    def _blocks(self, model: Model) -> list[int]:
        if self.blocks:
            return sorted(set(self.blocks))
        transformer = "attention" in model.capabilities or bool(model.adapter.prefix)
        return list(range(0, model.adapter.n_blocks, 2 if transformer else 1))
