"""The few-shot experiment and its classifiers, against plain ones."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import scipy.optimize
import torch

import ipvit
from helpers.comparison import printed
from helpers.tiny import write_images
from ipvit.cli import main
from ipvit.data.decode import apply_view
from ipvit.data.episodes import Sampler, episode_keys, rules
from ipvit.features.episode_classifiers import centroid, logistic, normalised, ridge
from ipvit.metrics import wilson

RNG = np.random.default_rng(0)


def task(ways: int, shots: list[int], width: int, queries: int = 20, seed: int = 0):
    """Return support vectors and labels, and queries, of overlapping classes."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(ways), shots)
    means = rng.normal(size=(ways, width)) + 1
    support = normalised(means[labels] + rng.normal(size=(len(labels), width)))
    return support, labels, normalised(means[rng.integers(ways, size=queries)] + rng.normal(size=(queries, width)))


SHAPES = {
    "5-way 1-shot, wide": (5, [1] * 5, 384),
    "uneven, wide": (6, [3, 1, 9, 2, 4, 30], 60),
    "more images than features": (4, [20, 5, 30, 10], 12),
    "two classes": (2, [5, 5], 8),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("strength", [0.1, 1.0, 30.0])
def test_logistic_regression_finds_the_minimum_that_scipy_finds(shape, strength):
    ways, shots, width = shape
    support, labels, query = task(ways, shots, width)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.tensor(flat.reshape(width + 1, ways), requires_grad=True)
        logits = torch.tensor(support) @ parameters[:width] + parameters[width]
        entropy = torch.nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="sum")
        value = strength * entropy + parameters[:width].square().sum() / 2
        value.backward()
        assert parameters.grad is not None
        return value.item(), parameters.grad.numpy().ravel()

    start = np.zeros((width + 1) * ways)
    solved = scipy.optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-8, "ftol": 1e-15, "maxiter": 10_000}
    )
    weights = solved.x.reshape(width + 1, ways)
    expected = query @ weights[:width] + weights[width]
    found = logistic(support, labels, query, ways, strength)
    centred = [scores - scores.mean(axis=1, keepdims=True) for scores in (expected, found)]
    assert np.abs(centred[0] - centred[1]).max() < 2e-3 * max(1, np.abs(centred[0]).max())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_ridge_regression_solves_the_least_squares_with_a_free_intercept(shape):
    ways, shots, width = shape
    support, labels, query = task(ways, shots, width)
    columns = np.hstack([support, np.ones((len(support), 1))])
    penalty = np.vstack([columns, np.diag([np.sqrt(0.7)] * width + [0.0])])
    targets = np.vstack([np.eye(ways)[labels], np.zeros((width + 1, ways))])
    weights = np.linalg.lstsq(penalty, targets, rcond=None)[0]
    expected = np.hstack([query, np.ones((len(query), 1))]) @ weights
    assert np.allclose(ridge(support, labels, query, ways, 0.7), expected, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_nearest_centroid_is_the_one_at_the_least_distance(shape):
    ways, shots, width = shape
    support, labels, query = task(ways, shots, width)
    expected = [
        min(range(ways), key=lambda c: float(np.linalg.norm(q - support[labels == c].mean(axis=0)))) for q in query
    ]
    assert centroid(support, labels, query, ways).argmax(axis=1).tolist() == expected


@pytest.mark.parametrize("classifier", [logistic, ridge, centroid])
def test_separable_classes_are_learned_and_shuffled_labels_are_not(classifier):
    features = normalised(np.eye(40)[np.repeat(np.arange(20), 40)] + 0.01 * RNG.normal(size=(800, 40)))
    for labels, low, high in (
        (np.repeat(np.arange(20), 40), 1.0, 1.0),
        (RNG.permutation(np.repeat(np.arange(20), 40)), 0.16, 0.24),
    ):
        sampler = Sampler(labels, rules("5-way-5-shot"))
        right = []
        for key in episode_keys([f"{i}" for i in range(60)], 0, "x"):
            e = sampler.draw(key)
            scores = classifier(features[e.support], e.support_labels, features[e.query], 5)
            right.append((scores.argmax(axis=1) == e.query_labels).mean())
        assert low <= np.mean(right) <= high


def test_vectors_of_zeros_and_equal_vectors_do_no_harm():
    support, labels = normalised(np.zeros((4, 6))), np.array([0, 0, 1, 1])
    same = normalised(np.ones((4, 6)))
    for vectors in (support, same):
        for classifier in (logistic, ridge, centroid):
            assert np.isfinite(classifier(vectors, labels, vectors, 2)).all()


def pictures(per_class: int = 20, classes: int = 6) -> ipvit.MemoryDataset:
    """Return noisy pictures whose colour and place tell six classes apart, more or less."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(classes), per_class)
    images = rng.integers(60, 190, (len(labels), 3, 32, 32), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[label % 3, 8 * (label // 3) : 8 * (label // 3) + 12, 4:20] = 250
    return ipvit.MemoryDataset(images, labels, [f"colour {i}" for i in range(classes)], name="colours")


@pytest.fixture(scope="module")
def network() -> ipvit.Model:
    return ipvit.load_model("demo:deit_micro")


@pytest.fixture(scope="module")
def run(network, tmp_path_factory):
    return ipvit.run(
        ipvit.FewShot(count=12),
        models=network,
        data=pictures(),
        out=tmp_path_factory.mktemp("fewshot"),
        workers=0,
        progress=False,
    )


def test_every_episode_is_answered_as_a_plain_loop_answers_it(run, network):
    data = pictures()
    records = run.records("fewshot").filter(kind="5-way-5-shot", blocks=4, classifier="centroid").sort("image")
    images = torch.stack([apply_view(data.read(i), network.preprocessing.view) for i in range(len(data))]).float() / 255
    with torch.inference_mode():
        n = network.adapter.n_blocks
        tokens = network.tokens(images, list(range(n - 4, n)))
        features = (
            torch.cat([tokens[block].prefix_tokens["class"] for block in range(n - 4, n)], dim=1).double().numpy()
        )
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    sampler = Sampler(data.labels, rules("5-way-5-shot"))
    ids = [str(image) for image in records["image"]]
    for row, key in zip(records.to_dicts(), episode_keys(ids, 0, "5-way-5-shot"), strict=True):
        e = sampler.draw(key)
        means = np.stack([features[e.support][e.support_labels == c].mean(axis=0) for c in range(5)])
        nearest = np.linalg.norm(features[e.query][:, None] - means[None], axis=2).argmin(axis=1)
        assert row["accuracy"] == pytest.approx(100 * (nearest == e.query_labels).mean(), abs=1.4), "one tie at most"
        assert (row["ways"], row["support"], row["queries"]) == (5, 25, 75)


def test_the_tables_give_means_over_episodes_with_students_t(run):
    table = run.tables["fewshot"]
    assert table.columns[:5] == ["model", "data_set", "kind", "classifier", "blocks"]
    assert table.height == 3 * 3 * 2 and set(table["data_set"]) == {"colours"}
    records = run.records("fewshot")
    row = table.filter(kind="meta-dataset", classifier="ridge", blocks=1).row(0, named=True)
    values = records.filter(kind="meta-dataset", classifier="ridge", blocks=1)["accuracy"].to_numpy()
    queries = records.filter(kind="meta-dataset", classifier="ridge", blocks=1)["queries"]
    low, high = scipy.stats.t.interval(0.95, 11, values.mean(), scipy.stats.sem(values))
    least = wilson(values.sum() / 100 * queries.mean(), queries.sum())  # as sure as independent queries, not surer
    low, high = min(low, 100 * least[0]), max(high, 100 * least[1])
    assert row["accuracy"] == pytest.approx(values.mean(), rel=1e-5) and row["n_episodes"] == 12
    assert row["accuracy_low"] == pytest.approx(low, rel=1e-4) and row["accuracy_high"] == pytest.approx(high, rel=1e-4)
    episodes = run.tables["fewshot-episodes"]
    one = episodes.filter(kind="5-way-1-shot").row(0, named=True)
    assert (one["ways"], one["shots"], one["chance"], one["n_images"]) == (5, 1, 20, 120)
    assert (one["classes"], one["classes_left_out"], one["left_out"]) == (6, 0, "")
    assert table.filter(classifier="logistic")["weight"].unique().to_list() == [1.0]


def test_a_lone_network_is_not_called_best_of_all(run):
    (sentence,) = (line for line in run.summary_of("fewshot") if "meta-dataset" in line)
    assert "demo:deit_micro reaches" in sentence and "the best of 6 ways" in sentence and "is best" not in sentence


def test_the_interval_of_an_accuracy_ends_at_a_hundred_percent():
    from ipvit.experiments.fewshot.analysis import _accuracy

    row = _accuracy(pl.DataFrame({"accuracy": [100.0, 100.0, 60.0], "queries": [5, 5, 5]}))
    _, high = scipy.stats.t.interval(0.95, 2, 260 / 3, scipy.stats.sem([100, 100, 60]))
    assert high > 100 and 0 < row["accuracy_low"] < 260 / 3 < row["accuracy_high"] <= 100


def test_classes_with_too_few_images_are_counted_and_named(network, tmp_path):
    data = pictures(20)
    kept = [i for i, label in enumerate(data.labels) if label != 4 or i % 20 < 5]  # five images of colour 4
    few = ipvit.MemoryDataset(data._images[kept], data.labels[kept], data.classes, name="few")
    experiment = ipvit.FewShot(
        count=3, episodes=("5-way-1-shot", "meta-dataset"), blocks=(1,), classifiers=("centroid",)
    )
    run = ipvit.run(experiment, models=network, data=few, out=tmp_path, workers=0, progress=False)
    rows = {row["kind"]: row for row in run.tables["fewshot-episodes"].to_dicts()}
    assert (rows["5-way-1-shot"]["classes"], rows["5-way-1-shot"]["left_out"]) == (5, "colour 4")
    assert (rows["meta-dataset"]["classes"], rows["meta-dataset"]["classes_left_out"]) == (6, 0)
    said = run.summary_of("fewshot")
    assert "few, 5-way-1-shot: 1 of 6 classes have too few images and are never drawn (colour 4)." in said


def test_all_models_and_classifiers_get_the_same_episodes(run, network, tmp_path):
    other = ipvit.load_model("demo:resnet_micro")
    both = ipvit.run(
        ipvit.FewShot(count=12, episodes=("meta-dataset",), classifiers=("ridge",)),
        models=[other, network],
        data=pictures(),
        out=tmp_path,
        workers=0,
        batch_size=5,
        progress=False,
    )
    columns = ["image", "ways", "support", "queries"]
    frames = [
        part.sort("image").select(columns) for part in both.records("fewshot").filter(blocks=1).partition_by("model")
    ]
    assert frames[0].equals(frames[1])
    before = run.records("fewshot").filter(kind="meta-dataset", classifier="ridge").sort("blocks", "image")
    after = both.records("fewshot").filter(model=network.name).sort("blocks", "image")
    assert np.array_equal(before["accuracy"], after["accuracy"]), "whatever the batch size"
    compared = both.report().read_text("utf-8")
    assert "difference" in compared, "the models are compared episode by episode"


def test_more_episodes_classifiers_or_kinds_add_only_themselves(network, tmp_path, monkeypatch):
    def measured(**parameters) -> int:
        experiment = ipvit.FewShot(**{"count": 4, "episodes": ("5-way-1-shot",), "blocks": (1,), **parameters})
        result = ipvit.run(experiment, models=network, data=pictures(), out=tmp_path, workers=0, progress=False)
        return result.manifest.measured_in_this_call

    assert measured() == 4 * 3
    assert measured() == 0
    assert measured(count=6) == 2 * 3
    calls = []
    monkeypatch.setattr(type(network), "forward", lambda *args: calls.append(1))
    monkeypatch.setattr(type(network), "tokens", lambda *args, **more: calls.append(1))
    assert measured(episodes=("5-way-1-shot", "meta-dataset")) == 4 * 3
    assert not calls, "features that are stored are not computed again"


def called(name: str, data: ipvit.MemoryDataset) -> ipvit.MemoryDataset:
    data.name = name
    return data


def test_a_limit_and_a_choice_of_classes_make_other_episodes(network, tmp_path):
    parameters = {"count": 3, "episodes": ("5-way-1-shot",), "blocks": (1,), "classifiers": ("centroid",), "queries": 5}
    for limit, only in ((None, ()), (100, ()), (None, tuple(f"colour {i}" for i in range(5)))):
        result = ipvit.run(
            ipvit.FewShot(**parameters, only=only),
            models=network,
            data=pictures(),
            out=tmp_path,
            limit=limit,
            workers=0,
            progress=False,
            everything=True,
        )
        assert result.manifest.measured_in_this_call == 3
    episodes = result.tables["fewshot-episodes"]
    assert sorted(episodes["n_images"].to_list()) == [100, 100, 120] and episodes["n_episodes"].to_list() == [3, 3, 3]
    assert result.tables["fewshot"]["pool_images"].to_list() == [100, 100, 120]


def test_meta_dataset_draws_from_its_test_classes_and_of_other_sets_from_all(network, tmp_path):
    names = ("banded", "bumpy", "blotchy", "knitted", "lined", "woven", "sprinkled", "stratified")
    few = ipvit.FewShot(count=2, only=("meta-dataset",), blocks=(1,), classifiers=("centroid",), queries=2)
    for name, classes in (("dtd:images/all", 6), ("mnist:images", 8)):
        images = np.random.default_rng(0).integers(0, 256, (80, 3, 8, 8), dtype=np.uint8)
        data = called(name, ipvit.MemoryDataset(images, np.repeat(np.arange(8), 10), classes=names))
        result = ipvit.run(few, models=network, data=data, out=tmp_path / name[:3], workers=0, progress=False)
        assert set(result.records("fewshot")["pool_images"]) == {10 * classes}


def test_episodes_and_images_are_measured_in_one_study(network, tmp_path):
    few = ipvit.FewShot(count=3, episodes=("5-way-1-shot",), queries=2, blocks=(1,), classifiers=("ridge",))
    result = ipvit.run(
        [ipvit.Shuffle(grids=("2x2",)), few],
        models=network,
        data="demo:trifeature",
        out=tmp_path,
        limit=90,
        workers=0,
        progress=False,
    )
    assert result.manifest.measured_in_this_call == 90 * 2 + 3 and result.manifest.images_used == 90
    assert set(result.tables) >= {"shuffle", "fewshot"} and result.report().exists()


def test_an_image_that_cannot_be_read_is_left_out_and_named(network, tmp_path):
    root = write_images(tmp_path / "images", per_class=6, classes=5)
    (root / "c1" / "002.jpg").write_bytes(b"not a picture")
    few = ipvit.FewShot(count=3, episodes=("5-way-1-shot",), queries=4, blocks=(1,), classifiers=("ridge",))
    result = ipvit.run(few, models=network, data=root, out=tmp_path / "run", workers=0, progress=False)
    assert [entry.image for entry in result.manifest.skipped] == ["c1/002.jpg"]
    assert result.tables["fewshot-episodes"]["n_images"].to_list() == [29]


def test_what_does_not_suffice_is_said_in_one_line(network, tmp_path):
    def fails(words: str, data=None, **parameters) -> None:
        with pytest.raises(ipvit.InputError, match=words):
            ipvit.run(
                ipvit.FewShot(**parameters), models=network, data=data or pictures(), out=tmp_path, progress=False
            )

    fails(
        "colours does not suffice for 7-way-1-shot episodes: 7 classes of at least 16 images",
        episodes=("7-way-1-shot",),
    )
    fails("no class 'colour 9' to draw from. Did you mean 'colour", only=("colour 9",))
    fails(
        "has none of the classes that Meta-Dataset", data=called("dtd:images/all", pictures()), only=("meta-dataset",)
    )
    fails("needs classes", data=ipvit.MemoryDataset(np.zeros((4, 3, 8, 8), np.uint8)))
    with pytest.raises(ValueError, match="5-way-1-shot"):
        ipvit.FewShot(episodes=("5way",))


def test_the_papers_numbers_stand_beside_its_networks_on_its_data():
    paper = printed("fewshot", "deit_small")
    assert set(paper["model"]) == {"DeiT-S (paper)"}
    assert paper.filter(data_set="CIFAR-10", blocks=4)["accuracy"].to_list() == [64.2]
    row = {
        "model": "deit_small_patch16_224",
        "data_set": "CIFAR-10",
        "kind": "meta-dataset",
        "classifier": "logistic",
        "blocks": 1,
        "accuracy": 60.0,
        "accuracy_low": 59.0,
        "accuracy_high": 61.0,
        "n_episodes": 600,
    }
    tables = {"fewshot": pl.DataFrame([row]), "fewshot-paper": paper}
    chart = ipvit.FewShot().analysis().figures(tables)["fewshot"].to_json()
    assert "DeiT-S (paper), last 4 blocks" in chart and "64.2" in chart and "37.8" not in chart, (
        "Omniglot is another set"
    )


def test_the_command_runs_from_start_to_end(tmp_path, capsys):
    arguments = ["--model", "demo:deit_micro", "--model", "demo:resnet_micro", "--data", "demo:trifeature"]
    arguments += ["--limit", "200", "--count", "5", "--episodes", "5-way-1-shot", "meta-dataset", "--workers", "0"]
    assert main(["fewshot", *arguments, "--out", str(tmp_path), "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)["tables"]
    assert len(tables["fewshot"]) == 2 * 2 * 3 * 2
    assert min(row["accuracy"] for row in tables["fewshot"]) > 60
    assert (tmp_path / "figures" / "fewshot.svg").exists() and (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_a_real_network_learns_five_real_classes_from_five_images_each(real, tmp_path):
    few = ipvit.FewShot(count=60, episodes=("5-way-5-shot",), blocks=(1,), classifiers=("logistic", "ridge"))
    result = ipvit.run(
        few,
        models=f"tf_efficientnet_lite0@{real / 'efficientnet_lite0.safetensors'}",
        data=str(real / "cifar10-test.tar"),
        out=tmp_path,
        limit=300,
        workers=0,
        progress=False,
    )
    assert result.tables["fewshot"]["accuracy"].is_between(60, 75).all()
