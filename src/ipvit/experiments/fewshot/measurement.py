"""Measuring few-shot learning: episodes are drawn from features and answered by simple classifiers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ipvit.analysis.data_names import data_set
from ipvit.data.checks import check_one_label
from ipvit.data.dataset import Dataset
from ipvit.data.episodes import META_DATASET, Episode, EpisodeList, Sampler, episode_keys, rules
from ipvit.data.published.meta_dataset import drawn_from
from ipvit.data.subset import subset_indices
from ipvit.errors import InputError, did_you_mean
from ipvit.experiments.base import Batch, Measurement, PrepareContext, Records
from ipvit.experiments.fewshot.experiment import FewShot, FewShotCondition
from ipvit.features import episode_classifiers as classifiers
from ipvit.features.episode_classifiers import Floats, Labels
from ipvit.features.store import FEATURES, Features, FeatureStore, check_store
from ipvit.models.model import Model
from ipvit.models.readout import FeatureSpec, last_blocks, own_token

MEAN_PATCH = "mean_patch"

NAMED = 5
"""So many classes that are left out are named."""

Score = Callable[[Floats, Labels, Floats, int], Floats]


@dataclasses.dataclass(frozen=True)
class EpisodeFeatures:
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


class FewShotMeasurement(Measurement):
    """Few-shot learning in one run: what is measured one by one are episodes.

    Raises:
        InputError: the feature store cannot be written to.
    """

    def __init__(self, experiment: FewShot) -> None:
        self.experiment = experiment
        if experiment.store:
            check_store(experiment.store)

    def items(self, data: Dataset, limit: int | None) -> EpisodeList:
        """Return the episodes: their pool is the images of the study that have a class.

        Raises:
            InputError: a class in ``only`` is not there, or there are too few classes with enough images.
        """
        if data.classes is None:
            raise InputError(f"fewshot needs classes: {data.name} has no class folders")
        check_one_label(data)
        only = set(self._only(data.name, tuple(data.classes)))
        wanted = [place for place, name in enumerate(data.classes) if name in only]
        rows = subset_indices(data, limit)
        rows = rows[np.isin(data.labels[rows], wanted)]
        self._samplers(data.labels[rows], data.name)
        return EpisodeList(data, rows, self.experiment.count)

    def _only(self, name: str, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Return the classes that episodes are drawn from.

        Raises:
            InputError: one of them is not there.
        """
        only = self.experiment.only
        if only == (META_DATASET,):
            if not (found := drawn_from(name, classes)):
                raise InputError(f"fewshot: {name} has none of the classes that Meta-Dataset draws test episodes from")
            return found
        if unknown := [other for other in only if other not in classes]:
            close = did_you_mean(unknown[0], classes)
            raise InputError(f"fewshot: {name} has no class {unknown[0]!r} to draw from.{close}")
        return only or classes

    def conditions(self, model: Model) -> Sequence[FewShotCondition]:
        """Return kind x blocks x classifier; more blocks than a network has are all of its blocks."""
        blocks = dict.fromkeys(min(n, model.adapter.n_blocks) for n in self.experiment.blocks)
        patches = self.experiment.patches and own_token(model) == "class"
        return [
            FewShotCondition(
                kind=kind,
                class_queries=0 if kind == META_DATASET else self.experiment.queries,
                classifier=name,
                weight=self._weight(name),
                blocks=n,
                patches=patches,
                stored=self.experiment.features,
            )
            for kind in self.experiment.episodes
            for n in blocks
            for name in self.experiment.classifiers
        ]

    def prepare(self, model: Model, context: PrepareContext) -> EpisodeFeatures:
        """Extract the features of all images that episodes may be drawn from, once."""
        episodes = context.items
        assert isinstance(episodes, EpisodeList)  # from items()
        store = FeatureStore(self.experiment.store or context.folder / FEATURES, dtype=self.experiment.features)
        specs = dict.fromkeys(read for condition in self.conditions(model) for read in _specs(model, condition))
        features = store.extract(
            model,
            episodes.images,
            list(specs),
            precision=context.precision,
            positions=episodes.rows,
            batch_size=context.batch_size,
            workers=context.workers,
        )
        context.unreadable.update(features.unreadable)
        context.notes.extend(features.notes)
        samplers = self._samplers(features.labels, episodes.name)
        pool = episodes.ids[0].split("/")[0]
        return EpisodeFeatures(features, samplers, data_set(episodes.name), pool, tuple(episodes.images.classes or ()))

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Answer every episode of the batch with every classifier."""
        prepared: EpisodeFeatures = batch.prepared
        drawn = {
            kind: [prepared.samplers[kind].draw(key) for key in episode_keys(batch.ids, batch.seed, kind)]
            for kind in dict.fromkeys(condition.kind for condition in batch.conditions)
        }
        found: dict[FewShotCondition, list[float]] = {condition: [] for condition in batch.conditions}
        for kind, number in [(kind, number) for kind, episodes in drawn.items() for number in range(len(episodes))]:
            vectors: dict[tuple[FeatureSpec, ...], tuple[Floats, Floats]] = {}
            for condition in (condition for condition in batch.conditions if condition.kind == kind):
                specs, episode = _specs(model, condition), drawn[kind][number]
                if specs not in vectors:
                    vectors[specs] = _vectors(prepared.features, specs, episode)
                found[condition].append(_accuracy(_score(condition), *vectors[specs], episode))
        for condition, accuracies in found.items():
            about = _about(drawn[condition.kind], condition.kind, prepared)
            yield Records(condition, {"accuracy": np.array(accuracies)} | about)

    def _weight(self, classifier: str) -> float:
        return {"logistic": self.experiment.strength, "ridge": self.experiment.penalty}.get(classifier, 0.0)

    def _samplers(self, labels: Labels, name: str) -> dict[str, Sampler]:
        samplers: dict[str, Sampler] = {}
        for kind in self.experiment.episodes:
            try:
                samplers[kind] = Sampler(labels, rules(kind, self.experiment.queries))
            except ValueError as error:
                raise InputError(f"fewshot: {name} does not suffice for {kind} episodes: {error}") from None
        return samplers


def _specs(model: Model, condition: FewShotCondition) -> tuple[FeatureSpec, ...]:
    last = last_blocks(model, condition.blocks)
    return (*last, FeatureSpec(last[-1].block, MEAN_PATCH)) if condition.patches else last


def _vectors(features: Features, specs: tuple[FeatureSpec, ...], episode: Episode) -> tuple[Floats, Floats]:
    """Return the vectors of length one of support and query images."""
    rows = np.concatenate([episode.support, episode.query])
    vectors = classifiers.normalised(features.matrix(specs, rows))
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


def _about(episodes: list[Episode], kind: str, prepared: EpisodeFeatures) -> dict[str, np.ndarray]:
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
