"""Our numbers beside a table that others published: what differs, and whether it may be the same number."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from ipvit.analysis.published_tables import (
    PublishedBasis,
    PublishedNetwork,
    PublishedNumber,
    PublishedTable,
    TablePlace,
    verdict,
)
from ipvit.analysis.sentences import is_missing
from ipvit.analysis.verdicts import OUTSIDE, UNCERTAIN, WITHIN, NotComparableError
from ipvit.core.manifest import UNSTATED, Manifest, UsedModel

Tables = Mapping[str, Mapping[str, pl.DataFrame]]
Images = Callable[[str, str], Iterable[str]]

SCHEMA = {
    "network": pl.String,
    "model": pl.String,
    "weights": pl.String,
    "what": pl.String,
    "ours": pl.Float64,
    "ours_low": pl.Float64,
    "ours_high": pl.Float64,
    "published": pl.Float64,
    "published_uncertainty": pl.Float64,
    "difference": pl.Float64,
    "verdict": pl.String,
    "n_images": pl.Int64,
    "n_published": pl.Int64,
    "corruption": pl.String,
    "severity": pl.Int64,
    "experiment": pl.String,
    "source": pl.String,
}
"""Columns of a comparison, numbers in percent. ``network``: as published; ``model``: in the run's tables; ``weights``:
``published``, or where else ours are from; ``published_uncertainty``: half the 95 % interval that follows from the
images it was measured on, 0 where ours are the same; ``verdict``: see
:func:`ipvit.analysis.published_tables.verdict`."""


@dataclasses.dataclass(frozen=True)
class PublishedComparison:
    """What of a run has a published counterpart.

    Attributes:
        table: one row a number, with the columns of :data:`SCHEMA`.
        refused: what was not compared, and why, in sentences.
        notes: what to bear in mind, in sentences.
    """

    table: pl.DataFrame
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def compare_published(
    published: PublishedTable, tables: Tables, manifest: Manifest, images: Images
) -> PublishedComparison:
    """Put the numbers of a run beside a published table.

    Args:
        published: the table.
        tables: of the run, by experiment and name.
        manifest: of the run.
        images: returns the ids of the images that a model was measured on, by experiment and name of the model.
    """
    empty = pl.DataFrame(schema=SCHEMA)
    try:
        published.check(manifest.data.name, tables)
    except NotComparableError as refusal:
        return PublishedComparison(empty, (str(refusal),))
    rows: list[dict[str, Any]] = []
    refused: list[str] = []
    names = [model.name for model in manifest.models]
    for model in manifest.models:
        try:
            if names.count(model.name) > 1:
                raise NotComparableError("two networks of the run are called so")
            found, others = _Side(published, published.network(model), model, tables, manifest, images).rows()
            rows += found
            refused += [f"{model.name}: {reason}" for reason in others]
        except NotComparableError as refusal:
            refused.append(f"{model.name}: {refusal}")
    table = pl.DataFrame(rows, schema=SCHEMA) if rows else empty
    refused += published.unknown(manifest, tables)
    return PublishedComparison(table, tuple(dict.fromkeys(refused)), tuple(_notes(published, table, manifest)))


def found_in(comparisons: Sequence[PublishedComparison]) -> PublishedComparison:
    """Join the comparisons of one run with several tables; those without any number count where none has any."""
    some = [comparison for comparison in comparisons if comparison.table.height]
    return joined(some or comparisons)


def joined(comparisons: Sequence[PublishedComparison]) -> PublishedComparison:
    """Join the comparisons of several runs."""
    return PublishedComparison(
        pl.concat([comparison.table for comparison in comparisons]),
        tuple(dict.fromkeys(line for comparison in comparisons for line in comparison.refused)),
        tuple(dict.fromkeys(line for comparison in comparisons for line in comparison.notes)),
    )


def summary(table: pl.DataFrame) -> str:
    """Return in one sentence how many of our numbers are within, outside, or too uncertain to tell."""
    counts = {name: int((table["verdict"] == name).sum()) for name in (WITHIN, OUTSIDE, UNCERTAIN)}
    told = table.height - counts[UNCERTAIN]
    if not told:
        return f"All {table.height} differences are too uncertain to tell."
    words = f"{counts[WITHIN]} of the {told} numbers that can tell are within, {counts[OUTSIDE]} outside"
    return f"{words}; {counts[UNCERTAIN]} are too uncertain to tell."


@dataclasses.dataclass(frozen=True)
class _Side:
    """One model of a run beside a published network."""

    published: PublishedTable
    network: PublishedNetwork
    model: UsedModel
    tables: Tables
    manifest: Manifest
    images: Images

    def rows(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Return a row for each number that was measured, and why others were not set beside theirs.

        Raises:
            NotComparableError: none was, or on other images.
        """
        found: list[dict[str, Any]] = []
        refused: list[str] = []
        same: dict[str, bool] = {}
        on_sets = {number.basis.data for number in self.network.numbers if number.basis is not None}
        for number in self.network.numbers:
            place, ours = self._ours(number)
            if place is None or ours is None or not self._concerns(number, place, on_sets):
                continue
            n_images = int(ours[place.n_images])
            if number.basis is not None:
                reason = self._other_basis(number.basis, place, ours)
                refused += [reason] if reason else []
                found += [] if reason else [self._row(number, place, ours, same=True)]
                continue
            key = f"{place.experiment} {n_images}"
            if key not in same:
                self._check_images(place.experiment)
                same[key] = self._same_images(place.experiment, n_images)
            found.append(self._row(number, place, ours, same=same[key]))
        if not found and not refused:
            raise NotComparableError("none of its published numbers was measured here")
        return found, refused

    def _concerns(self, number: PublishedNumber, place: TablePlace, on_sets: Collection[str]) -> bool:
        """Tell whether our counterpart is on the images that a number is on, or on others that its table has none of.

        The latter are refused with the reason.
        """
        if place.several:
            return True
        used = self.manifest.subject(place.experiment).published
        if number.basis is not None:
            return used == number.basis.data
        return used == self.published.data or used not in on_sets

    def _other_basis(self, basis: PublishedBasis, place: TablePlace, ours: Mapping[str, Any]) -> str:
        """Return why our number does not rest on what a published one does; empty where it does."""
        used = self.manifest.subject(place.experiment)
        n_images = int(ours[place.n_images])
        n_answers = int(ours.get("n_answers") or used.among.get(self.model.digest, (0, 0))[0])
        if n_answers != basis.n_answers:
            option = "data" if n_answers > basis.n_answers else "all"
            return (
                f"{basis.title}: answers were among {n_answers:,}, the published ones among {basis.n_answers:,} "
                f"(--answers {option})"
            )
        if n_images != basis.n_images:
            return (
                f"{basis.title}: {n_images:,} images were measured, and the published accuracy is that of all "
                f"{basis.n_images:,}"
            )
        return ""

    def _ours(self, number: PublishedNumber) -> tuple[TablePlace | None, Mapping[str, Any] | None]:
        for place in number.places:
            table = self.tables.get(place.experiment, {}).get(place.table)
            if table is None or place.measure not in table.columns:
                continue
            if place.of_data and place.of_data != self.manifest.data.published:
                continue
            if any(name not in table.columns for name in place.conditions if name not in place.implied):
                continue
            known = [pl.col(name) == value for name, value in place.conditions.items() if name in table.columns]
            rows = table.filter(pl.col("model") == self.model.name, *known, pl.col(place.measure).is_not_null())
            if rows.select(place.measure, place.n_images).n_unique() == 1:
                return place, rows.row(0, named=True)
        return None, None

    def _check_images(self, experiment: str) -> None:
        used = self.manifest.subject(experiment)
        name = used.name or self.manifest.data.name
        if used.published is None:
            raise NotComparableError(f"{UNSTATED} what images {name} are; the same command again adds it")
        if used.published not in ("", self.published.data):
            raise NotComparableError(f"{self.published.name} publishes nothing on {used.published}")
        if used.answers_of(self.model.digest) != "all":
            raise NotComparableError(f"answers were among the classes of {name}, the published ones among all outputs")
        if used.published != self.published.data:
            raise NotComparableError(
                f"the images of {name} are not called as those of ImageNet's validation set "
                "(n01440764/ILSVRC2012_val_00000293.JPEG): they are other data"
            )

    def _same_images(self, experiment: str, n_images: int) -> bool:
        return self.published.are_same_images(n_images, lambda: self.images(experiment, self.model.name))

    def _row(self, number: PublishedNumber, place: TablePlace, row: Mapping[str, Any], *, same: bool) -> dict[str, Any]:
        ours, low, high = _value(place, row)
        uncertainty = 0.0 if same else number.uncertainty
        difference = ours - number.value
        n_images = int(row[place.n_images])
        whole = n_images == self.manifest.subject(place.experiment).published_images
        ends = (None, None) if low is None or high is None else (low - number.value, high - number.value)
        if not same and not whole:
            ends = (None, None)  # what other images would give, no interval says
        corruption, severity = number.cell or (None, None)
        return {
            "network": self.network.name,
            "model": self.model.name,
            "weights": self.network.weights,
            "what": number.what,
            "ours": ours,
            "ours_low": low,
            "ours_high": high,
            "published": number.value,
            "published_uncertainty": uncertainty,
            "difference": difference,
            "verdict": verdict(difference, *ends, uncertainty, same=same),
            "n_images": n_images,
            "n_published": self.published.n_images if number.basis is None else number.basis.n_images,
            "corruption": corruption,
            "severity": severity,
            "experiment": place.experiment,
            "source": self.published.source,
        }


def _value(place: TablePlace, row: Mapping[str, Any]) -> tuple[float, float | None, float | None]:
    """Return our number and the ends of its interval."""
    ours = float(row[place.measure])
    low, high = (row.get(f"{place.measure}_{end}") for end in ("low", "high"))
    if is_missing(low):
        low = high = None
    if not place.complement:
        return ours, low, high
    return 100 - ours, None if high is None else 100 - high, None if low is None else 100 - low


def _notes(published: PublishedTable, table: pl.DataFrame, manifest: Manifest) -> list[str]:
    if table.is_empty():
        return []
    notes = []
    n_images = min(table["n_images"].to_list())
    used = manifest.subject(table["experiment"][0])
    whole = (table["n_images"] == table["n_published"]).all()
    if not whole and n_images < used.published_images and n_images != published.n_images:
        notes.append(
            f"This run used {n_images:,} of {used.published_images:,} images. Intervals say how far a sample of this "
            "size may be off, not what its images have in common: nothing is judged."
        )
    if others := [name for name in table["weights"].unique(maintain_order=True) if name != "published"]:
        notes.append(f"{', '.join(others)}: they need not be the published ones.")
    return [*notes, *published.remarks]
