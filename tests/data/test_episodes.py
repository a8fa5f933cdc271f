"""Few-shot episodes against the rules they are drawn by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ipvit
from ipvit.data.dataset import has_pictures
from ipvit.data.episodes import EpisodeList, FixedShots, MetaDataset, Sampler, episode_keys, pools, rules

COUNTS = st.lists(st.integers(0, 250), min_size=5, max_size=70).filter(lambda sizes: sum(n >= 2 for n in sizes) >= 5)


def labels_of(sizes: list[int], seed: int = 0) -> np.ndarray:
    """Return labels of classes of these sizes, and some rows without label, in a random order."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(seed).permutation(np.concatenate([labels, np.full(7, -1)]))


def check_consistent(episode, labels: np.ndarray) -> None:
    rows = np.concatenate([episode.support, episode.query])
    assert len(np.unique(rows)) == len(rows), "no image twice, and none both to learn from and to be asked"
    assert len(np.unique(episode.classes)) == len(episode.classes) and episode.classes.min() >= 0
    assert np.array_equal(labels[episode.support], episode.classes[episode.support_labels])
    assert np.array_equal(labels[episode.query], episode.classes[episode.query_labels])


@given(sizes=COUNTS, key=st.integers(0, 2**64 - 1))
@settings(max_examples=100, deadline=None)
def test_meta_dataset_episodes_keep_its_rules(sizes, key):
    labels = labels_of(sizes)
    episode = Sampler(labels, MetaDataset()).draw(key)
    check_consistent(episode, labels)
    usable = sum(n >= 2 for n in sizes)
    ways = len(episode.classes)
    assert 5 <= ways <= min(50, usable)
    images = np.array([sizes[label] for label in episode.classes])
    queries = np.bincount(episode.query_labels, minlength=ways)
    assert set(queries.tolist()) == {min(10, int((images // 2).min()))}
    shots = np.bincount(episode.support_labels, minlength=ways)
    remaining = images - queries
    assert (shots >= 1).all() and (shots <= remaining).all()
    assert ways <= shots.sum() <= min(500, np.minimum(100, remaining).sum())


@given(
    sizes=st.lists(st.integers(0, 60), min_size=8, max_size=30),
    ways=st.integers(2, 8),
    shots=st.integers(1, 10),
    queries=st.integers(1, 15),
    key=st.integers(0, 2**64 - 1),
)
@settings(max_examples=100, deadline=None)
def test_fixed_episodes_have_their_ways_shots_and_queries_or_say_what_is_lacking(sizes, ways, shots, queries, key):
    labels, how = labels_of(sizes), FixedShots(ways, shots, queries)
    if sum(n >= shots + queries for n in sizes) < ways:
        with pytest.raises(ValueError, match=f"{ways} classes of at least {shots + queries} images are needed"):
            Sampler(labels, how)
        return
    episode = Sampler(labels, how).draw(key)
    check_consistent(episode, labels)
    assert np.bincount(episode.support_labels).tolist() == [shots] * ways
    assert np.bincount(episode.query_labels).tolist() == [queries] * ways


def test_the_number_of_ways_is_uniform():
    sampler = Sampler(labels_of([20] * 12), MetaDataset())
    keys = episode_keys([f"{i}" for i in range(4000)], 0, "m")
    ways = np.bincount([len(sampler.draw(key).classes) for key in keys], minlength=13)[5:]
    assert ways.sum() == 4000 and len(ways) == 8
    assert (np.abs(ways - 500) < 5 * np.sqrt(500 * 7 / 8)).all()


def test_the_size_of_the_support_set_has_the_mean_of_the_rules():
    """Of large classes 100 images count: E floor(100 U + 1) = 50.5 of each, less what rounding takes."""
    sampler = Sampler(labels_of([1000] * 5), MetaDataset())
    sizes = [len(sampler.draw(key).support) for key in episode_keys([f"{i}" for i in range(3000)], 0, "m")]
    spread = 5 * 100 / np.sqrt(12) / np.sqrt(3000)
    assert 5 * 50.5 - 2.5 - 4 * spread < np.mean(sizes) < 5 * 50.5 - 2.5 + 4 * spread


def test_large_sets_are_cut_at_five_hundred_and_large_classes_get_more():
    sampler = Sampler(labels_of([1000] * 25 + [50] * 25), MetaDataset())
    drawn = [sampler.draw(key) for key in episode_keys([f"{i}" for i in range(300)], 0, "m")]
    assert max(len(episode.support) for episode in drawn) <= 500
    assert sum(len(episode.support) > 450 for episode in drawn) > 100
    large, small = ([], [])
    for episode in drawn:
        for label, shots in zip(episode.classes, np.bincount(episode.support_labels), strict=True):
            (large if label < 25 else small).append(shots)
    assert np.mean(large) > 4 * np.mean(small)
    one_size = Sampler(labels_of([400] * 6), MetaDataset())
    for key in episode_keys([f"{i}" for i in range(100)], 0, "m"):
        shots = np.bincount(one_size.draw(key).support_labels)
        assert shots.max() <= 4 * shots.min() + 4, "weights of equal classes lie between a half and two"


def test_every_class_and_image_comes_up_equally_often():
    labels = labels_of([12] * 10)
    sampler = Sampler(labels, rules("5-way-1-shot", queries=3))
    drawn = [sampler.draw(key) for key in episode_keys([f"{i}" for i in range(3000)], 1, "5-way-1-shot")]
    classes = np.bincount(np.concatenate([episode.classes for episode in drawn]))
    assert (np.abs(classes - 1500) < 5 * np.sqrt(3000 / 4)).all()
    asked = np.bincount(np.concatenate([episode.query for episode in drawn]), minlength=len(labels))
    assert (asked[labels < 0] == 0).all()
    assert (np.abs(asked[labels >= 0] - 3000 * 15 / 120) < 6 * np.sqrt(3000 * 15 / 120)).all()


def test_an_episode_follows_from_its_key_alone():
    labels = labels_of([30] * 9)
    keys = episode_keys(["p/00000", "p/00001"], 0, "meta-dataset")
    first, again = (Sampler(labels, MetaDataset()).draw(keys[1]) for _ in range(2))
    assert np.array_equal(first.support, again.support) and np.array_equal(first.query, again.query)
    assert keys.tolist() == episode_keys(["p/00000", "p/00001", "p/00002"], 0, "meta-dataset")[:2].tolist()
    others = [episode_keys(["p/00001"], 1, "meta-dataset"), episode_keys(["p/00001"], 0, "5-way-1-shot")]
    assert all(key[0] != keys[1] for key in others)


def test_pools_leave_out_what_has_no_label():
    assert [rows.tolist() for rows in pools(np.array([3, -1, 0, 3]))] == [[2], [0, 3]]


@pytest.mark.parametrize("name", ["5way1shot", "1-way-1-shot", "5-way-0-shot", "metadataset"])
def test_an_unknown_kind_of_episode_is_refused(name):
    with pytest.raises(ValueError, match="5-way-1-shot"):
        rules(name)


def test_episodes_are_named_after_the_images_they_may_be_drawn_from():
    data = ipvit.MemoryDataset(np.zeros((6, 3, 2, 2), np.uint8), [0, 0, 1, 1, 2, 2])
    whole, part = EpisodeList(data, np.arange(6), 3), EpisodeList(data, np.arange(5), 3)
    assert len(whole) == 3 and not set(whole.ids) & set(part.ids)
    assert list(EpisodeList(data, np.arange(6), 5).ids)[:3] == list(whole.ids)
    assert whole.fingerprint == data.fingerprint and not has_pictures(whole) and has_pictures(data)
