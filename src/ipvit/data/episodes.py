"""Few-shot episodes: small classification tasks drawn from a data set, each with images to learn from and to be asked.

Two ways to draw one: a fixed number of ways and shots, and Meta-Dataset's rules (Triantafillou et al., ICLR 2020,
section 3 and appendix) with as many ways and shots as chance has it and classes of unequal size. Of Meta-Dataset's two
hierarchies, ImageNet's and Omniglot's, none is used: every class is as likely as any other.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ipvit.core.digests import digest_of
from ipvit.data.dataset import Dataset
from ipvit.data.published.meta_dataset import META_DATASET
from ipvit.perturb.seeding import generator, keys

Rows = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Episode:
    """One task.

    Attributes:
        classes: ``(W,)`` labels of the classes; the task numbers them 0 .. W-1 in this order.
        support: ``(S,)`` rows of the images to learn from, class by class.
        support_labels: ``(S,)`` their classes in the task.
        query: ``(Q,)`` rows of the images to be classified, class by class, equally many of each.
        query_labels: ``(Q,)`` their classes in the task.
    """

    classes: Rows
    support: Rows
    support_labels: Rows
    query: Rows
    query_labels: Rows


@dataclasses.dataclass(frozen=True)
class FixedShots:
    """So many ways, shots and queries in every episode."""

    ways: int
    shots: int
    queries: int = 15

    def least(self) -> tuple[int, int]:
        """Return how many classes are needed, and how many images of each."""
        return self.ways, self.shots + self.queries

    def sizes(self, counts: Rows, rng: np.random.Generator) -> tuple[Rows, Rows, int]:
        """Draw the classes, the support images of each and the queries per class; see :class:`Sampler`."""
        chosen = rng.choice(len(counts), self.ways, replace=False)
        return chosen, np.full(self.ways, self.shots), self.queries


@dataclasses.dataclass(frozen=True)
class MetaDataset:
    """Meta-Dataset's rules.

    Ways: uniform in ``min_ways`` .. ``max_ways`` or the number of classes. Queries: equally many of each class, at most
    ``max_query`` and half of the smallest class. Support: a common factor, uniform in (0, 1], of each class's remaining
    images (those above ``max_contribution`` do not count), rounded up and added up, is the total, at most
    ``max_support``; it is shared out in proportion to the sizes of the classes, each multiplied by
    ``exp(U(log 0.5, log 2))``, with at least one image of each.
    """

    min_ways: int = 5
    max_ways: int = 50
    max_query: int = 10
    max_support: int = 500
    max_contribution: int = 100
    spread: float = 2.0

    def least(self) -> tuple[int, int]:
        """Return how many classes are needed, and how many images of each."""
        return self.min_ways, 2

    def sizes(self, counts: Rows, rng: np.random.Generator) -> tuple[Rows, Rows, int]:
        """Draw the classes, the support images of each and the queries per class; see :class:`Sampler`."""
        ways = int(rng.integers(self.min_ways, min(self.max_ways, len(counts)) + 1))
        chosen = rng.choice(len(counts), ways, replace=False)
        images = counts[chosen]
        queries = int(min(self.max_query, (images // 2).min()))
        remaining = images - queries
        share = rng.uniform()
        total = min(np.floor(share * np.minimum(self.max_contribution, remaining) + 1).sum(), self.max_support)
        weights = images * np.exp(rng.uniform(-np.log(self.spread), np.log(self.spread), size=ways))
        wanted = np.floor(weights / weights.sum() * (total - ways)).astype(np.int64) + 1
        return chosen, np.minimum(wanted, remaining), queries


Rules = FixedShots | MetaDataset


def rules(name: str, queries: int = 15) -> Rules:
    """Return the rules of that name: ``meta-dataset``, or for example ``5-way-1-shot``.

    Args:
        name: of the rules.
        queries: per class, for fixed ways and shots.

    Raises:
        ValueError: for any other name.

    >>> rules("5-way-1-shot")
    FixedShots(ways=5, shots=1, queries=15)
    """
    if name == META_DATASET:
        return MetaDataset()
    match = re.fullmatch(r"([1-9]\d*)-way-([1-9]\d*)-shot", name)
    if match is None or int(match[1]) < 2:
        raise ValueError(f"{name!r} is no kind of episode; there are {META_DATASET} and for example 5-way-1-shot")
    return FixedShots(int(match[1]), int(match[2]), queries)


def pools(labels: Rows) -> list[Rows]:
    """Return the rows of each class, in the order of the labels; rows without label (-1) are in none.

    >>> [rows.tolist() for rows in pools(np.array([2, 0, -1, 2]))]
    [[1], [0, 3]]
    """
    return [np.flatnonzero(labels == label) for label in np.unique(labels[labels >= 0])]


class Sampler:
    """Draws episodes.

    Args:
        labels: ``(N,)`` the class of each row; -1 for rows that take no part.
        how: the rules.

    Attributes:
        classes: labels of the classes that are drawn from.
        left_out: labels of the classes that have too few images for these rules, and are never drawn.

    Raises:
        ValueError: there are too few classes with enough images.
    """

    def __init__(self, labels: Rows, how: Rules) -> None:
        ways, least = how.least()
        self._how = how
        self._labels = labels
        found = pools(labels)
        self._pools = [rows for rows in found if len(rows) >= least]
        self.classes = [int(labels[rows[0]]) for rows in self._pools]
        self.left_out = [int(labels[rows[0]]) for rows in found if len(rows) < least]
        self._counts = np.array([len(rows) for rows in self._pools], dtype=np.int64)
        if len(self._pools) < ways:
            raise ValueError(f"{ways} classes of at least {least} images are needed; there are {len(self._pools)}")

    def draw(self, key: np.uint64 | int) -> Episode:
        """Draw one episode.

        Args:
            key: decides everything random, see :func:`episode_keys`.
        """
        rng = generator(key)
        chosen, shots, queries = self._how.sizes(self._counts, rng)
        drawn = [
            rng.choice(self._pools[place], shot + queries, replace=False)
            for place, shot in zip(chosen.tolist(), shots.tolist(), strict=True)
        ]
        task = np.arange(len(drawn))
        return Episode(
            classes=self._labels[[rows[0] for rows in drawn]],
            support=np.concatenate([rows[queries:] for rows in drawn]),
            support_labels=np.repeat(task, shots),
            query=np.concatenate([rows[:queries] for rows in drawn]),
            query_labels=np.repeat(task, queries),
        )


class EpisodeList:
    """Numbered episodes of a data set, as :class:`ipvit.data.dataset.Items`: measured one by one, without pixels.

    An episode's id holds a digest of the images that it may be drawn from; its fingerprint is that of the data set.

    Args:
        images: the data set.
        rows: positions of the images that episodes are drawn from.
        count: number of episodes.

    Attributes:
        images: the data set.
        rows: as given.
    """

    classes: tuple[str, ...] | None = None
    aliases: tuple[str, ...] | None = None
    fields: Mapping[str, np.ndarray] = types.MappingProxyType({})

    def __init__(self, images: Dataset, rows: Rows, count: int) -> None:
        self.images = images
        self.rows = rows
        self.name = images.name
        content = "\0".join(str(images.ids[row]) for row in rows.tolist())
        digest = digest_of(content.encode("utf-8", "surrogatepass"), 12)
        self.ids: Sequence[str] = [f"{digest}/{number:05d}" for number in range(count)]
        self.labels = np.full(count, -1, np.int64)
        self.fingerprint = images.fingerprint

    def __len__(self) -> int:
        return len(self.ids)


def episode_keys(ids: Sequence[str], seed: int, kind: str) -> NDArray[np.uint64]:
    """Return what everything random about each episode follows from.

    Args:
        ids: of the episodes, see :class:`EpisodeList`.
        seed: of the study.
        kind: name of the rules.
    """
    return keys(ids, "episode", seed, kind)
