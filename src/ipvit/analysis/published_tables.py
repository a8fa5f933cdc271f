"""Tables that others publish, and what must hold for a number of ours to be set beside one of theirs.

An experiment says in a module of its own, in classes derived from :class:`PublishedTable`, which published numbers it
measures; see :func:`ipvit.experiments.registry.published_table`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from ipvit.analysis.verdicts import OUTSIDE, UNCERTAIN, WITHIN, NotComparableError, Verdict, judged
from ipvit.core.manifest import UNSTATED, Manifest, UsedModel
from ipvit.metrics.intervals import wilson
from ipvit.models.names import ModelName

MARGIN = 1.0
"""Points by which the same network may differ on the same images: other decoders, resizing, versions and devices."""


@dataclasses.dataclass(frozen=True)
class TablePlace:
    """Where our counterpart of a number stands.

    Attributes:
        experiment: whose table.
        table: its name.
        measure: column.
        conditions: values of other columns in its row.
        complement: the number is 100 less the column: an error where the table has the accuracy.
        implied: conditions that hold where the table lacks their column.
        n_images: column with the number of images that the measure rests on.
        several: the experiment measures several sets, each in rows of its own that ``conditions`` find.
        of_data: published set that the data of the run must be, where that does not follow from ``conditions``.
    """

    experiment: str
    table: str
    measure: str
    conditions: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    complement: bool = False
    implied: tuple[str, ...] = ()
    n_images: str = "n_images"
    several: bool = False
    of_data: str = ""


@dataclasses.dataclass(frozen=True)
class PublishedBasis:
    """On what a published number rests that is shown only beside one of ours on the same.

    Attributes:
        data: the published set, see :func:`ipvit.data.recognition.published_set`.
        title: what the set is called in a sentence.
        n_images: labelled images, all of which must have been measured.
        n_answers: how many answers there were to choose from.
    """

    data: str
    title: str
    n_images: int
    n_answers: int


@dataclasses.dataclass(frozen=True)
class PublishedNumber:
    """A published number.

    Attributes:
        what: it measures, with its unit.
        value: in percent.
        uncertainty: half the 95 % interval that follows from the number of images it was measured on, where ours are
            others; 0 where it was measured on all that there are.
        places: where ours stands; the first that there is counts.
        cell: row and column, where many numbers are shown as a grid.
        basis: on what it rests, where that is not what the table as a whole rests on.
    """

    what: str
    value: float
    uncertainty: float
    places: tuple[TablePlace, ...]
    cell: tuple[str, int] | None = None
    basis: PublishedBasis | None = None


@dataclasses.dataclass(frozen=True)
class PublishedNetwork:
    """A published network that a model of ours is, or whose architecture it has.

    Attributes:
        name: as published.
        numbers: what is published of it.
        weights: ``published``, or where else ours are from.
    """

    name: str
    numbers: tuple[PublishedNumber, ...]
    weights: str = "published"


class PublishedTable(abc.ABC):
    """A published table.

    Attributes:
        name: as in ``ipvit compare --with NAME``.
        experiment: whose numbers it has, where a publication has tables of several.
        source: who published it, and when.
        data: the published set that it is on, see :func:`ipvit.data.recognition.published_set`.
        n_images: on how many of its images the numbers rest.
        remarks: what to bear in mind, in sentences.
    """

    name: ClassVar[str]
    experiment: ClassVar[str] = ""
    source: ClassVar[str]
    data: ClassVar[str]
    n_images: ClassVar[int]
    remarks: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def check(self, data: str, tables: Mapping[str, Any]) -> None:
        """Refuse a run that measured something else.

        Args:
            data: name of its data.
            tables: by experiment and name.

        Raises:
            NotComparableError: says what it measured, and what would be right.
        """

    @abc.abstractmethod
    def network(self, model: UsedModel) -> PublishedNetwork:
        """Return the published network that a model is.

        Raises:
            NotComparableError: it is none of them; says why.
        """

    def unknown(self, manifest: Manifest, tables: Mapping[str, Any]) -> list[str]:
        """Say of what a run measured nothing is published, in sentences; nothing by default."""
        return []

    def are_same_images(self, n_images: int, images: Callable[[], Iterable[str]]) -> bool:
        """Tell whether images of the published set are those that the numbers rest on; by default by their number.

        Args:
            n_images: how many of ours there are.
            images: returns their ids.
        """
        return n_images == self.n_images


def trained(model: UsedModel) -> ModelName:
    """Return the name that a model was loaded by.

    Raises:
        NotComparableError: it has random weights, or nothing says what it was loaded as.
    """
    if model.untrained:
        raise NotComparableError("random weights; the published ones are trained")
    if model.loaded_as is None:
        raise NotComparableError(f"{UNSTATED} what it was loaded as")
    if not model.loaded_as:
        raise NotComparableError("it was made in Python, not loaded by a name")
    return ModelName.parse(model.loaded_as)


def half_interval(share: float, n: int) -> float:
    """Return half of Wilson's 95 % interval of a share of n images, in points.

    >>> round(half_interval(0.5, 5000), 2)
    1.39
    """
    low, high = wilson(round(share * n), n)
    return 50 * (high - low)


def verdict(difference: float, low: float | None, high: float | None, uncertainty: float, *, same: bool) -> Verdict:
    """Judge a difference of ours to a published number, in points.

    *Within*: it is at most :data:`MARGIN` on the same images; on others, its whole interval is within the margin and
    the uncertainty of the published number. *Outside*: it is more, or its interval excludes zero by more than that
    uncertainty.

    Args:
        difference: ours less the published number.
        low: end of its 95 % interval, None without one.
        high: the other end.
        uncertainty: of the published number.
        same: both rest on the same images.

    >>> verdict(0.4, -2.0, 2.8, 0.0, same=True), verdict(0.4, -2.0, 2.8, 0.0, same=False)
    ('within', 'too uncertain')
    """
    if same:
        return WITHIN if abs(difference) <= MARGIN else OUTSIDE
    return judged(low, high, MARGIN + uncertainty, uncertainty) or UNCERTAIN
