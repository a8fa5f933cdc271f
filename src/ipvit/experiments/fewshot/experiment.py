"""Few-shot learning on off-the-shelf tokens (section 3.5, figure 16)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import polars as pl
from pydantic import Field, field_validator

from ipvit.analysis.data_names import data_set
from ipvit.data.episodes import META_DATASET, Episode, EpisodeList, Sampler, episode_keys, rules
from ipvit.data.subset import subset_indices
from ipvit.errors import InputError, did_you_mean
from ipvit.experiments.base import Batch, Bench, Condition, Experiment, Records, Requirements
from ipvit.experiments.fewshot import analysis as fewshot_tables
from ipvit.experiments.fields import Several
from ipvit.features import episode_classifiers as classifiers
from ipvit.features.episode_classifiers import Classifier, Floats, Labels
from ipvit.features.store import Features, FeatureStore, StoredType
from ipvit.models.model import Model
from ipvit.models.reads import Read, last_blocks, own_token
from ipvit.preprocessing import View

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure
    from ipvit.data.dataset import Dataset

FEATURES = "features"
"""Folder of the feature store in the run folder."""

MEAN_PATCH = "mean_patch"

NAMED = 5
"""So many classes that are left out are named."""

Score = Callable[[Floats, Labels, Floats, int], Floats]


@dataclasses.dataclass(frozen=True)
class FewShotCondition(Condition):
    """One kind of episode, one classifier, one choice of tokens.

    Attributes:
        kind: ``meta-dataset``, or for example ``5-way-1-shot``.
        class_queries: queries of each class; 0 where the rules decide.
        classifier: ``logistic``, ``centroid`` or ``ridge``.
        weight: C of the logistic regression, or penalty of the ridge regression; 0 for centroids.
        blocks: so many of the last blocks, side by side.
        patches: with the mean patch token of the last block beside them.
        stored: how the features were stored.
    """

    kind: str
    class_queries: int
    classifier: str
    weight: float
    blocks: int
    patches: bool
    stored: str


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What episodes are drawn from and answered with.

    Attributes:
        features: of the images that could be read.
        samplers: per kind of episode, over the rows of ``features``.
        data_set: name of the data for tables.
        pool: digest of the images that episodes may be drawn from.
        classes: names of the data's classes.
    """

    features: Features
    samplers: dict[str, Sampler]
    data_set: str
    pool: str
    classes: tuple[str, ...]


class FewShot(Experiment):
    """Learn classes from a handful of feature vectors each, in hundreds of small tasks."""

    name: ClassVar[str] = "fewshot"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Few-shot learning"
    reproduces: ClassVar[str] = "Figure 16, right"
    question: ClassVar[str] = "How well do the tokens tell new classes apart after a few examples of each?"
    compare_by: ClassVar[tuple[str, ...]] = ("kind", "classifier", "blocks", "patches")
    compare: ClassVar[str] = "accuracy"

    episodes: Several[str] = (META_DATASET, "5-way-1-shot", "5-way-5-shot")
    """Kinds of episodes: meta-dataset (its rules for ways and shots), or N-way-K-shot."""
    count: Annotated[int, Field(ge=2)] = 600
    """Episodes of each kind."""
    queries: Annotated[int, Field(ge=1)] = 15
    """Images of each class to be classified in an N-way-K-shot episode."""
    classifiers: Several[Classifier] = ("logistic", "centroid", "ridge")
    """What is fitted on an episode's support images; the paper: logistic regression."""
    blocks: Several[Annotated[int, Field(ge=1)]] = (1, 4)
    """How many of the last blocks (or stages) lend their token; the paper's ensemble: 4."""
    patches: bool = False
    """Put the mean patch token of the last block beside them, for networks with a class token."""
    strength: Annotated[float, Field(gt=0)] = 1.0
    """C of the logistic regression."""
    penalty: Annotated[float, Field(gt=0)] = 1.0
    """Penalty of the ridge regression."""
    only: tuple[str, ...] = ()
    """Draw from these classes only, for example Meta-Dataset's test classes."""
    features: StoredType = "fp32"
    """Type of the stored features: fp32 or fp16."""
    store: str | None = None
    """Folder of the feature store, which several runs may share; by default in the run folder."""

    @field_validator("episodes")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for kind in value:
            rules(kind)
        return value

    @property
    def needs(self) -> Requirements:
        """Tokens; the classes of the data need not be the model's."""
        return Requirements(frozenset({"tokens"}), labels=False)

    def view(self, model: Model) -> View:
        """Return a single pixel: what the sweep reads are episodes; :meth:`prepare` reads the images."""
        return View((1, 1), 1.0)

    def subject(self, data: Dataset, limit: int | None) -> Dataset:
        """Return the episodes: their pool is the images of the study that have a class.

        Raises:
            InputError: a class in ``only`` is not there, or there are too few classes with enough images.
        """
        if data.classes is None:
            raise InputError(f"fewshot needs classes: {data.name} has no class folders")
        if unknown := [name for name in self.only if name not in data.classes]:
            close = did_you_mean(unknown[0], data.classes)
            raise InputError(f"fewshot: {data.name} has no class {unknown[0]!r} to draw from.{close}")
        wanted = [place for place, name in enumerate(data.classes) if not self.only or name in self.only]
        rows = subset_indices(data, limit)
        rows = rows[np.isin(data.labels[rows], wanted)]
        self._samplers(data.labels[rows], data.name)
        return EpisodeList(data, rows, self.count)

    def conditions(self, model: Model) -> Sequence[FewShotCondition]:
        """Return kind x blocks x classifier; more blocks than a network has are all of its blocks."""
        blocks = dict.fromkeys(min(n, model.adapter.n_blocks) for n in self.blocks)
        patches = self.patches and own_token(model) == "class"
        return [
            FewShotCondition(
                kind, 0 if kind == META_DATASET else self.queries, name, self._weight(name), n, patches, self.features
            )
            for kind in self.episodes
            for n in blocks
            for name in self.classifiers
        ]

    def prepare(self, model: Model, bench: Bench) -> Prepared:
        """Extract the features of all images that episodes may be drawn from, once."""
        episodes = bench.data
        assert isinstance(episodes, EpisodeList)  # from subject()
        store = FeatureStore(self.store or bench.folder / FEATURES, dtype=self.features)
        reads = dict.fromkeys(read for condition in self.conditions(model) for read in _reads(model, condition))
        features = store.extract(
            model, episodes.images, list(reads), precision=bench.precision, positions=episodes.rows,
            batch_size=bench.batch_size, workers=bench.workers,
        )  # fmt: skip
        bench.unreadable.update(features.unreadable)
        bench.notes.extend(features.notes)
        samplers = self._samplers(features.labels, episodes.name)
        pool = episodes.ids[0].split("/")[0]
        return Prepared(features, samplers, data_set(episodes.name), pool, tuple(episodes.images.classes or ()))

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Answer every episode of the batch with every classifier."""
        prepared: Prepared = batch.prepared
        drawn = {
            kind: [prepared.samplers[kind].draw(key) for key in episode_keys(batch.ids, batch.seed, kind)]
            for kind in dict.fromkeys(condition.kind for condition in batch.conditions)
        }
        found: dict[FewShotCondition, list[float]] = {condition: [] for condition in batch.conditions}
        for kind, number in [(kind, number) for kind, episodes in drawn.items() for number in range(len(episodes))]:
            vectors: dict[tuple[Read, ...], tuple[Floats, Floats]] = {}
            for condition in (condition for condition in batch.conditions if condition.kind == kind):
                reads, episode = _reads(model, condition), drawn[kind][number]
                if reads not in vectors:
                    vectors[reads] = _vectors(prepared.features, reads, episode)
                found[condition].append(_accuracy(_score(condition), *vectors[reads], episode))
        for condition, accuracies in found.items():
            about = _about(drawn[condition.kind], condition.kind, prepared)
            yield Records(condition, {"accuracy": np.array(accuracies)} | about)

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return the mean accuracy over episodes per model, kind of episode, classifier and choice of tokens."""
        return fewshot_tables.tables(records)

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return bars per model for every kind of episode and classifier (figure 16)."""
        return fewshot_tables.figures(tables)

    def figures_across(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return bars over the sources of episodes (figure 16)."""
        return fewshot_tables.sources(tables)

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say which network tells new classes apart best, and by what."""
        return fewshot_tables.summary(tables)

    def _weight(self, classifier: str) -> float:
        return {"logistic": self.strength, "ridge": self.penalty}.get(classifier, 0.0)

    def _samplers(self, labels: Labels, name: str) -> dict[str, Sampler]:
        samplers = {}
        for kind in self.episodes:
            try:
                samplers[kind] = Sampler(labels, rules(kind, self.queries))
            except ValueError as error:
                raise InputError(f"fewshot: {name} does not suffice for {kind} episodes: {error}") from None
        return samplers


def _reads(model: Model, condition: FewShotCondition) -> tuple[Read, ...]:
    last = last_blocks(model, condition.blocks)
    return (*last, Read(last[-1].block, MEAN_PATCH)) if condition.patches else last


def _vectors(features: Features, reads: tuple[Read, ...], episode: Episode) -> tuple[Floats, Floats]:
    """Return the vectors of length one of support and query images."""
    rows = np.concatenate([episode.support, episode.query])
    vectors = classifiers.normalised(features.matrix(reads, rows))
    return vectors[: len(episode.support)], vectors[len(episode.support) :]


def _score(condition: FewShotCondition) -> Score:
    if condition.classifier == "centroid":
        return classifiers.centroid
    solve = classifiers.logistic if condition.classifier == "logistic" else classifiers.ridge
    return lambda support, labels, query, ways: solve(support, labels, query, ways, condition.weight)


def _accuracy(score: Score, support: Floats, query: Floats, episode: Episode) -> float:
    """Return the share of queries that are right, in percent."""
    scores = score(support, episode.support_labels, query, len(episode.classes))
    return 100 * float((scores.argmax(axis=1) == episode.query_labels).mean())


def _about(episodes: list[Episode], kind: str, prepared: Prepared) -> dict[str, np.ndarray]:
    """Return columns that say what the episodes were."""
    n = len(episodes)
    sampler = prepared.samplers[kind]
    lost = [prepared.classes[label] for label in sampler.left_out]
    return {
        "ways": np.array([len(episode.classes) for episode in episodes], dtype=np.int32),
        "support": np.array([len(episode.support) for episode in episodes], dtype=np.int32),
        "queries": np.array([len(episode.query) for episode in episodes], dtype=np.int32),
        "data_set": np.full(n, prepared.data_set),
        "pool": np.full(n, prepared.pool),
        "pool_images": np.full(n, len(prepared.features), dtype=np.int32),
        "classes": np.full(n, len(sampler.classes), dtype=np.int32),
        "classes_left_out": np.full(n, len(lost), dtype=np.int32),
        "left_out": np.full(n, ", ".join(lost[:NAMED]) + (", ..." if len(lost) > NAMED else "")),
    }
