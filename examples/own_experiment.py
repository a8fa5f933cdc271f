"""A new experiment in one file: take the colour out of the image and watch the accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import polars as pl

from ipvit.experiments.base import Batch, Condition, Experiment, Records, classify
from ipvit.models.model import Model


@dataclasses.dataclass(frozen=True)
class GreyCondition(Condition):
    """How much colour is lost."""

    amount: float


class Grey(Experiment):
    """Take the colour out of the image and watch the accuracy."""

    name = "grey"
    title = "Loss of colour"
    question = "How much does a network rely on colour?"

    amounts: tuple[float, ...] = (0.0, 0.5, 1.0)
    """Share of the colour that is lost."""

    def conditions(self, model: Model) -> Sequence[GreyCondition]:
        """Return one condition for each amount."""
        return [GreyCondition(amount) for amount in self.amounts]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify each image with less colour."""
        grey = batch.images.mean(dim=1, keepdim=True)
        for condition in batch.conditions:
            images = batch.images.lerp(grey.expand_as(batch.images), condition.amount)
            yield Records(condition, classify(model, images, batch.labels))

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return the accuracy at each amount."""
        by = ["model", "amount"]
        return {"grey": records.group_by(by).agg(top1=100 * pl.col("correct").mean()).sort(by)}


if __name__ == "__main__":
    import ipvit

    run = ipvit.run(Grey(), models="demo:deit_micro", data="demo:trifeature", out="runs/own-experiment", limit=60)
    print(run.tables["grey"])
