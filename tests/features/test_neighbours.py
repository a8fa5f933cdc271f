"""Votes of the nearest images: as scikit-learn's, with gradients, and never of an image for itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ipvit
from helpers.command_line import complaint
from helpers.tiny import write_images
from ipvit.cli import main
from ipvit.errors import InputError
from ipvit.features import neighbours
from ipvit.features.neighbours import FLOOR, NeighbourHead, Neighbours, with_neighbours
from ipvit.models.names import split_neighbours


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def clouds(n: int, seed: int, classes: int = 7, width: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    labels = random.integers(0, classes, n)
    return torch.tensor(centres[labels] + 1.5 * random.normal(size=(n, width))).float(), torch.tensor(labels)


@pytest.mark.parametrize(("k", "temperature"), [(20, 0.07), (1, 0.07), (200, 0.5)])
def test_it_predicts_as_scikit_learns_neighbours(monkeypatch: pytest.MonkeyPatch, k: int, temperature: float) -> None:
    sklearn = pytest.importorskip("sklearn.neighbors")
    monkeypatch.setattr(neighbours, "BLOCK", 300)  # several blocks
    bank, labels = clouds(1100, 0)
    seen, _ = clouds(2500, 1)
    head = NeighbourHead(bank, labels, 7, k, temperature)
    shares = head(seen).exp() - FLOOR
    theirs = sklearn.KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / temperature)
    ).fit(bank.double().numpy(), labels.numpy())
    expected = theirs.predict_proba(seen.double().numpy())
    distances, _ = theirs.kneighbors(seen.double().numpy(), n_neighbors=k + 1)
    best = np.sort(expected, axis=1)
    tied = (distances[:, k] - distances[:, k - 1] < 1e-6) | (best[:, -1] - best[:, -2] < 1e-6)
    assert tied.sum() < len(seen) / 1000 or k == 1
    assert (shares.argmax(1).numpy()[~tied] == expected.argmax(1)[~tied]).all()
    np.testing.assert_allclose(shares.numpy()[~tied], expected[~tied], atol=2e-4)


def test_the_logit_is_the_logarithm_of_the_share_of_the_votes() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 2.0]])
    head = NeighbourHead(bank, torch.tensor([0, 1, 1]), 3, k=2, temperature=0.5)
    weights = np.exp(np.array([1.0, 0.8]) / 0.5)
    expected = np.log(np.array([*(weights / weights.sum()), 0.0]) + 1e-6)
    np.testing.assert_allclose(head(torch.tensor([[3.0, 0.0]]))[0].numpy(), expected, rtol=1e-5)


def test_gradients_flow_through_the_similarities_of_the_chosen() -> None:
    bank, labels = clouds(60, 0)
    head = NeighbourHead(bank, labels, 7, 5, 0.2)
    features = clouds(1, 2)[0].requires_grad_()
    (gradient,) = torch.autograd.grad(head(features)[0, int(labels[0])], features)
    unit = torch.nn.functional.normalize(bank.double(), dim=1)

    def by_hand(point: torch.Tensor) -> float:
        similar = unit @ (point / point.norm())
        chosen = similar.topk(5).indices
        weights = (similar[chosen] / 0.2).exp()
        share = weights[labels[chosen] == labels[0]].sum() / weights.sum()
        return float((share + 1e-6).log())

    for axis in range(12):
        step = torch.zeros(12, dtype=torch.float64)
        step[axis] = 1e-5
        point = features.detach()[0].double()
        slope = (by_hand(point + step) - by_hand(point - step)) / 2e-5
        assert float(gradient[0, axis]) == pytest.approx(slope, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", ["demo:deit_micro", "demo:resnet_micro"])
def test_a_network_answers_by_the_votes_of_a_plain_loop(name: str, tmp_path: Path) -> None:
    images = write_images(tmp_path / "bank", per_class=4, size=(64, 64))
    data = ipvit.load_dataset(images)
    backbone = ipvit.load_model(name)
    model = with_neighbours(backbone, data, Neighbours(k=3), tmp_path / "store", name="mine")
    assert model.classes == data.classes
    pixels = torch.rand(2, 3, *model.image_size, generator=torch.Generator().manual_seed(0))
    last = backbone.adapter.n_blocks - 1
    token = "class" if "class" in backbone.adapter.prefix_tokens else "pooled"

    def vector(one: torch.Tensor) -> np.ndarray:
        found = backbone.tokens(one, [last])[last].vector(token)[0].double().numpy()
        return found / np.linalg.norm(found)

    from ipvit.data.decode import apply_view

    bank = [vector(apply_view(data.read(i), model.preprocessing.view)[None].float() / 255) for i in range(len(data))]
    for row, one in enumerate(pixels):
        similar = np.array([vector(one[None]) @ other for other in bank])
        votes = np.zeros(4)
        for place in np.argsort(-similar)[:3]:
            votes[data.labels[place]] += np.exp(similar[place] / 0.07)
        with torch.no_grad():
            shares = model(pixels)[row].exp().numpy() - 1e-6
        np.testing.assert_allclose(shares, votes / votes.sum(), atol=1e-3)


def test_the_digest_is_of_data_k_temperature_and_features(tmp_path: Path) -> None:
    data = ipvit.load_dataset(write_images(tmp_path / "bank"))
    other = ipvit.load_dataset(write_images(tmp_path / "other", per_class=6))
    backbone = ipvit.load_model("demo:deit_micro")

    def digest(bank: Any = data, **how: Any) -> str:
        return with_neighbours(backbone, bank, Neighbours(**{"k": 3} | how), tmp_path / "store", name="x").digest

    digests = [
        digest(),
        digest(k=4),
        digest(temperature=0.1),
        digest(token="mean_patch"),
        digest(other),
        digest(limit=9),
    ]
    assert len(set(digests)) == 6
    assert digest() == digests[0]


def test_adapters_and_every_capability_go_on(tmp_path: Path) -> None:
    import ipvit.testing

    model = ipvit.load_model(f"demo:deit_micro@knn:{write_images(tmp_path / 'bank')}?k=3")
    assert {"logits", "gradients", "tokens", "attention", "feature_drop", "token_removal"} <= model.capabilities
    assert model.head_kinds == ("class",)
    model.backbone.float()
    keep = torch.ones(2, *model.adapter.patch_grid(model.image_size), dtype=torch.bool)
    pixels = torch.rand(2, 3, *model.image_size)
    torch.testing.assert_close(model.without_patches(pixels, keep), model(pixels), rtol=1e-3, atol=1e-3)


def test_votes_that_agree_on_any_picture_are_no_sign_of_a_collapsed_network(tmp_path: Path) -> None:
    data = ipvit.load_dataset(write_images(tmp_path / "bank"))
    rare = ipvit.MemoryDataset(torch.stack([data.read(0), *[data.read(1)] * 9]), [0] + [1] * 9, ("a", "b"), name="b")
    model = with_neighbours(ipvit.load_model("demo:deit_micro"), rare, Neighbours(k=1), tmp_path / "store", name="x")
    assert model.doubt == ""


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("resnet50@knn:photos/train", ("resnet50", "photos/train", {})),
        ("vit@w.pth@knn:photos?k=5&T=0.1", ("vit@w.pth", "photos", {"k": 5, "T": 0.1})),
        ("resnet50@knn:data.py:make?size=3", ("resnet50", "data.py:make?size=3", {})),
        ("resnet50@probe:head.safetensors", None),
    ],
)
def test_names_are_taken_apart(name: str, parts: object) -> None:
    assert split_neighbours(name) == parts


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("demo:deit_micro@knn:bank?k=0", "k is a number of images from 1"),
        ("demo:deit_micro@knn:bank?T=0", "T is a temperature from"),
        ("demo:deit_micro@knn:bank?neighbours=3", "take no 'neighbours'; they take k, T, limit, split, token"),
        ("demo:deit_micro@knn:bank?k=500", "500 neighbours vote, and bank has 20 labelled images of 4 classes"),
        ("demo:deit_micro@knn:bank?token=nose", "has no token 'nose'"),
        ("demo:deit_micro@knn:", "written NAME@knn:DATA"),
        ("demo:deit_micro@knn:flat", "has no class folders, so its images cannot vote"),
        ("net.py:make@knn:bank", "does not offer"),
    ],
)
def test_what_cannot_vote_is_refused(here: Path, name: str, said: str) -> None:
    write_images(here / "bank", per_class=5)
    (here / "flat").mkdir()
    shutil.copy(here / "bank" / "c0" / "000.jpg", here / "flat")
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        ipvit.load_model(name)


def test_the_command_line_measures_it_and_images_never_vote_for_themselves(here: Path, capsys) -> None:
    write_images(here / "bank", per_class=5)
    rng = np.random.default_rng(5)
    from PIL import Image

    for number in range(4):
        (here / "new" / f"c{number}").mkdir(parents=True)
        for one in range(3):
            picture = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
            picture.save(here / "new" / f"c{number}" / f"{one}.png")
    command = ["occlusion", "-m", "demo:deit_micro@knn:bank?k=3", "--workers", "0", "--levels", "0,0.5", "--runs", "1"]
    assert main([*command, "-d", "new", "--grid", "4x4", "--out", "run", "--quiet"]) == 0
    run = ipvit.Run("run")
    assert run.manifest.models[0].source.endswith("3 nearest of 20 images of bank, T = 0.07, by block-05-class")
    assert run.manifest.models[0].loaded_as == "demo:deit_micro@knn:bank?k=3"
    assert main(["run", "run/study.yaml", "--out", "run", "--workers", "0", "--quiet"]) == 0
    assert ipvit.Run("run").manifest.measured_in_this_call == 0
    shutil.copy(here / "bank" / "c1" / "001.png", here / "new" / "c1" / "copied.png")
    assert main([*command, "-d", "new", "--grid", "4x4", "--out", "other"]) == 2
    assert "1 images of new are among the 20 that vote" in complaint(capsys)
    assert not (here / "other").exists()
    assert main([*command, "-d", "bank", "--grid", "4x4"]) == 2


def test_a_network_without_classifier_is_told_both_ways_on(here: Path, capsys) -> None:
    assert main(["accuracy", "-m", "demo:dino_micro", "-d", "images", "--workers", "0"]) == 2
    said = complaint(capsys)
    assert "demo:dino_micro@probe:FILE" in said
    assert "demo:dino_micro@knn:DATA" in said


@pytest.mark.slow
def test_on_cifar_10_it_comes_near_the_linear_probe(real: Path, tmp_path: Path) -> None:
    """EfficientNet-Lite0 at its 224 pixels; a linear probe on the same features is fitted by scikit-learn."""
    linear = pytest.importorskip("sklearn.linear_model")
    name = f"tf_efficientnet_lite0@{real / 'efficientnet_lite0.safetensors'}"
    train = ipvit.load_dataset(str(real / "cifar10-train.tar"))
    test = ipvit.load_dataset(str(real / "cifar10-test.tar"))
    from ipvit.data.subset import Subset, subset_indices
    from ipvit.features.store import FeatureStore
    from ipvit.models.readout import FeatureSpec

    backbone = ipvit.load_model(name)
    model: Any = with_neighbours(backbone, train, Neighbours(limit=300), tmp_path, name="knn")
    spec = FeatureSpec(backbone.adapter.n_blocks - 1, "pooled")
    some = Subset(test, subset_indices(test, 150))
    seen = FeatureStore(tmp_path).extract(backbone, some, [spec])
    fitted = FeatureStore(tmp_path).extract(backbone, train, [spec], positions=subset_indices(train, 300))
    probe = linear.LogisticRegression(C=0.01, max_iter=2000).fit(fitted.matrix([spec]), fitted.labels)
    by_probe = float((probe.predict(seen.matrix([spec])) == seen.labels).mean())
    votes = model.backbone.head(torch.from_numpy(seen.matrix([spec]))).argmax(1).numpy()
    by_votes = float((votes == seen.labels).mean())
    assert by_votes > 0.4
    assert by_votes > by_probe - 0.15
