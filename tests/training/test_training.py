"""Checkpoints and supervised training: mistakes are named, and an interrupted run ends like any other."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data.mixup import Mixup

import ipvit
from helpers.forks import Python, python
from helpers.training import die_at, tiny_recipe
from ipvit.core.lock import FolderLock
from ipvit.data.synthetic.trifeature import Trifeature
from ipvit.errors import InputError
from ipvit.models.io.checkpoint import read_metadata, save_checkpoint
from ipvit.models.loading import load_checkpoint, load_model
from ipvit.models.zoo.micro import build_network
from ipvit.training.config import MixupConfig
from ipvit.training.images import validation_batches
from ipvit.training.loop import Loop
from ipvit.training.objective import Labels
from ipvit.training.policies import global_seeds
from ipvit.training.recipe import Recipe, dump_recipe, load_recipe
from ipvit.training.start import train

WEIGHTS = Path(ipvit.__file__).parent / "models" / "zoo" / "weights"
BUNDLED = ("deit_micro", "resnet_micro")


def logged(out: Path) -> list[dict]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows]


@pytest.mark.parametrize("mixup", [None, {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}], ids=["plain", "mixup"])
@pytest.mark.parametrize("network", ["transformer", "convolutional"])
def test_a_resumed_training_ends_bit_for_bit_like_an_uninterrupted_one(
    tmp_path, monkeypatch, small_sets, mixup, network
):
    changes = {"mixup": mixup}
    if network == "convolutional":
        changes["model"] = {"name": "resnet_micro", "kwargs": {"drop_rate": 0.2}}
    recipe = tiny_recipe(**changes)
    train(recipe, tmp_path / "whole", device="cpu", progress=False)
    for epoch in (0, 1, 2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            die_at(epoch, 3, patch)
            train(recipe, tmp_path / "parts", device="cpu", progress=False)
        torch.manual_seed(epoch)
        np.random.seed(epoch)
    best = train(recipe, tmp_path / "parts", device="cpu", progress=False)
    assert best == tmp_path / "parts" / "best.safetensors"
    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")
    for name in ("last.safetensors", "best.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_training_leaves_the_callers_random_generators_alone(tmp_path, small_sets):
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)
    train(tiny_recipe(epochs=1, mixup={}), tmp_path, device="cpu", progress=False)
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])


def test_another_seed_trains_other_weights(tmp_path, small_sets):
    for seed in (0, 1):
        train(tiny_recipe(epochs=1, seed=seed), tmp_path / str(seed), device="cpu", progress=False)
    first, second = (load_file(tmp_path / seed / "last.safetensors")["head.weight"] for seed in ("0", "1"))
    assert not torch.equal(first, second)


def test_reading_in_every_epoch_gives_the_same_weights_as_holding_the_images_in_memory(tmp_path, small_sets):
    data = tiny_recipe().data.model_dump()
    for memory in (0, 1):
        train(tiny_recipe(data=data | {"memory": memory}), tmp_path / str(memory), device="cpu", progress=False)
    held, read = (load_file(tmp_path / memory / "last.safetensors") for memory in ("1", "0"))
    assert all(torch.equal(held[key], read[key]) for key in held)


def test_best_is_the_first_epoch_with_the_highest_validation_accuracy(tmp_path, small_sets):
    train(tiny_recipe(epochs=4), tmp_path, device="cpu", progress=False)
    accuracies = [row["val_top1"] for row in logged(tmp_path)]
    measured = (read_metadata(tmp_path / "best.safetensors") or {})["measured"]
    assert measured["epoch"] == 1 + accuracies.index(max(accuracies))
    assert measured["top1"] == pytest.approx(max(accuracies), abs=1e-3)
    assert (measured["data"], measured["n"]) == ("demo:trifeature", 30)


def test_a_few_steps_lower_the_loss_and_the_schedule_ends_at_the_minimum(tmp_path, small_sets):
    model = {"name": "resnet_micro"}
    recipe = tiny_recipe(model=model, epochs=8, ema=None, augment={}, min_lr=1e-4, lr=2e-3)
    train(recipe, tmp_path, device="cpu", progress=False)
    rows = logged(tmp_path)
    assert rows[-1]["loss"] < 0.85 * rows[0]["loss"]
    assert rows[-1]["lr"] == pytest.approx(1e-4, rel=0.2)


KILLED = """
import sys, time
import torch
torch.set_num_threads(1)
from ipvit.data.synthetic.trifeature import Trifeature
from ipvit.training import loop, start
from ipvit.training.recipe import load_recipe
start.open_data = lambda name, size, part: Trifeature("natural", "train" if name.endswith("train") else "val", 64, size)
update = loop.Loop._update
def slow(self, batches, epoch, step):
    time.sleep(float(sys.argv[3]))
    return update(self, batches, epoch, step)
loop.Loop._update = slow
start.train(load_recipe(sys.argv[1]), sys.argv[2], device="cpu", progress=False)
"""


@pytest.mark.slow
def test_a_training_killed_in_the_middle_of_an_epoch_goes_on_where_it_was(tmp_path):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "killed"
    recipe.write_text(dump_recipe(tiny_recipe()))

    def command(folder: Path, delay: float) -> list[object]:
        return ["-c", KILLED, recipe, folder, delay]

    process = Python(command(out, 0.1))
    deadline = time.monotonic() + 120
    while not (out / "log.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.25)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 1 <= len(logged(out)) < 3
    assert python(command(out, 0)).returncode == python(command(tmp_path / "whole", 0)).returncode == 0
    assert logged(out) == logged(tmp_path / "whole")
    for name in ("last.safetensors", "best.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


# --- what is the user's mistake --------------------------------------------------------------------------------------


def test_class_folders_are_trained_on_and_broken_pictures_named(tmp_path):
    data = Trifeature(n=40, size=48)
    for index in range(40):
        folder = tmp_path / ("pictures" if index < 30 else "others") / SHAPE[data.labels[index]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.read(index).permute(1, 2, 0).numpy()).save(folder / f"{index}.png")
    sets = {"train": str(tmp_path / "pictures"), "val": str(tmp_path / "others"), "size": 32}
    best = train(tiny_recipe(data=sets, epochs=1), tmp_path / "out", device="cpu", progress=False)
    assert (read_metadata(best) or {})["classes"] == sorted(SHAPE)
    (tmp_path / "pictures" / "disc" / "broken.png").write_bytes(b"\x89PNG")
    for workers in (0, 1):
        with pytest.raises(InputError, match=r"^\S*pictures: cannot read disc/broken.png: .*remove it$") as caught:
            recipe = tiny_recipe(data=sets | {"workers": workers}, epochs=1)
            train(recipe, tmp_path / f"out{workers}", device="cpu", progress=False)
        assert "\n" not in str(caught.value)


SHAPE = Trifeature(n=1).classes or ()


# --- the parts -------------------------------------------------------------------------------------------------------


def test_the_supervised_loss_is_smoothed_cross_entropy():
    logits = torch.randn(6, 4, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    loss = Labels(4, label_smoothing=0.2).loss(logits, labels)
    target = 0.8 * torch.eye(4, dtype=torch.float64)[labels] + 0.2 / 4
    assert loss.item() == pytest.approx(-(target * logits.log_softmax(1)).sum(1).mean().item())


@pytest.mark.parametrize("threshold", [None, 0.3])
def test_binary_cross_entropy_asks_of_each_class_for_itself(threshold):
    logits, labels = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    target = 0.8 * torch.eye(4, dtype=torch.float64)[labels] + 0.2 / 4
    for given in (labels, target):  # a mixed target is smoothed already
        loss = Labels(4, 0.2, kind="bce", threshold=threshold).loss(logits, given)
        wanted = target if threshold is None else (target > threshold).double()
        by_hand = -(wanted * logits.sigmoid().log() + (1 - wanted) * (-logits).sigmoid().log()).mean()
        assert loss.item() == pytest.approx(by_hand.item())


def test_a_recipe_of_deit_iiis_kind_trains(tmp_path, small_sets):
    recipe = tiny_recipe(
        epochs=1,
        loss="bce",
        augment={"simple_crop": True, "hflip": 0.5, "auto": "3a", "color_jitter": 0.3},
        mixup={"mixup_alpha": 0.8, "cutmix_alpha": 1.0},
        optimizer="lamb",
    )
    train(recipe, tmp_path, device="cpu", progress=False)
    assert logged(tmp_path)[0]["loss"] < 1


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_mixtures_are_timms(mode):
    part = MixupConfig(mode=mode, cutmix_minmax=(0.2, 0.8) if mode == "elem" else None)
    images, labels = torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 3, 0, 1])
    ours = Labels(4, 0.1, part).mix(images, labels, 5)
    theirs = Mixup(0.8, 1.0, part.cutmix_minmax, mode=mode, label_smoothing=0.1, num_classes=4)
    with global_seeds(5):
        expected = theirs(images.clone(), labels)
    assert all(torch.equal(one, other) for one, other in zip(ours, expected, strict=True))


def test_mixup_follows_from_the_steps_key():
    mixing = Labels(4, mixup=MixupConfig())
    images, labels = torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 3, 0, 1])

    def loss(key: int) -> float:
        mixed, targets = mixing.mix(images, labels, key)
        return mixing.loss(mixed.mean((2, 3)) @ torch.ones(3, 4).cumsum(1), targets).item()

    kept = images.clone()
    losses = [loss(key) for key in range(5)]
    assert losses == [loss(key) for key in range(5)] and len(set(losses)) == 5
    assert torch.equal(images, kept)


def test_any_timm_network_can_be_built_and_micro_networks_are_timms_own_classes():
    assert isinstance(build_network("deit_micro", 7), timm.models.VisionTransformer)
    assert isinstance(build_network("resnet_micro", 7), timm.models.ResNet)
    for name in (*BUNDLED, "test_vit"):
        network = build_network(name, 7).eval()
        size = 160 if name == "test_vit" else 64
        assert network(torch.zeros(1, 3, size, size)).shape == (1, 7)


def test_a_checkpoint_gives_the_network_and_its_description_back(tmp_path):
    network = build_network("resnet_micro", 3, channels=(8, 8, 8, 8)).eval()
    metadata = {
        "architecture": {"name": "resnet_micro", "kwargs": {"channels": [8, 8, 8, 8]}},
        "classes": ["a", "b", "c"],
        "preprocessing": {"size": [64, 64], "crop_pct": 1.0, "interpolation": "bicubic", "crop_mode": "center"}
        | {"mean": [0.5] * 3, "std": [0.25] * 3},
    }
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, network, metadata)
    assert read_metadata(path) == {"format": 1, **metadata}
    images = torch.rand(2, 3, 64, 64)
    model = load_checkpoint(path).eval()
    assert model.classes == ("a", "b", "c") and model.image_size == (64, 64)
    assert torch.equal(model(images), network((images - 0.5) / 0.25))
    save_checkpoint(path, network, metadata, dtype=torch.float16)
    halves = load_file(path)
    assert halves["fc.weight"].dtype == torch.float16 and halves["bn1.num_batches_tracked"].dtype == torch.int64
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]


def test_what_training_wrote_is_a_model_by_its_path_alone(tmp_path, small_sets):
    best = train(tiny_recipe(epochs=1), tmp_path / "mine", device="cpu", progress=False)
    model = load_model(str(best))
    assert model.name == "mine/best" and model.classes == Trifeature(n=1).classes and not model.training
    with pytest.raises(InputError, match=r"there is no file '.*other.safetensors'"):
        load_model(str(tmp_path / "other.safetensors"))


def test_a_file_without_a_description_or_not_safetensors_is_told_apart(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    assert read_metadata(tmp_path / "plain.safetensors") is None
    with pytest.raises(InputError, match="does not state its architecture"):
        load_checkpoint(tmp_path / "plain.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_metadata(tmp_path / "text.safetensors")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_metadata(tmp_path / "absent.safetensors")


# --- the bundled networks --------------------------------------------------------------------------------------------


CLASSIFIERS = sorted(
    path.stem for path in WEIGHTS.glob("*.safetensors") if "top1" in (read_metadata(path) or {})["measured"]
)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_bundled_network_is_as_accurate_as_it_says(name):
    path = WEIGHTS / f"{name}.safetensors"
    model, metadata = load_model(f"demo:{name}"), read_metadata(path) or {}
    stated = metadata["measured"]
    assert path.stat().st_size < 3_000_000
    assert stated["data"] == "demo:trifeature" and stated["n"] == 1000
    assert stated["top1"] >= (95 if name in BUNDLED else 30)
    assert Recipe.model_validate(metadata["recipe"]) == load_recipe(name)
    assert sum(file.stat().st_size for file in WEIGHTS.glob("*.safetensors")) < 15_000_000
    data = Trifeature()
    assert model.classes == data.classes
    right = 0
    with torch.no_grad():
        for batch in validation_batches(len(data), 250):
            images = torch.stack([data.read(index) for index in batch[:, 0].tolist()]).float() / 255
            right += int((model(images).argmax(1).numpy() == data.labels[batch[:, 0]]).sum())
    assert 100 * right / len(data) == pytest.approx(stated["top1"], abs=0.5)


@pytest.mark.slow
def test_a_bundled_network_trained_again_by_its_recipe_is_as_accurate_as_it_says(tmp_path):
    train(load_recipe("resnet_micro"), tmp_path / "again", device="cpu", progress=False)
    stated = read_metadata(WEIGHTS / "resnet_micro.safetensors")["measured"]["top1"]
    last = json.loads((tmp_path / "again" / "log.jsonl").read_text().splitlines()[-1])
    assert last["val_top1"] == pytest.approx(stated, abs=1.0)  # three seeds lie within 0.5


def test_a_training_holds_its_folder_and_leaves_other_folders_alone(tmp_path, small_sets):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "best.safetensors").write_text("mine")
    with pytest.raises(InputError, match="holds 'best.safetensors' and is not the folder of a training"):
        train(tiny_recipe(epochs=1), tmp_path / "mine", device="cpu", progress=False)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["best.safetensors"]
    (tmp_path / "held").mkdir()
    with FolderLock(tmp_path / "held"), pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
        train(tiny_recipe(epochs=1), tmp_path / "held", device="cpu", progress=False)
    assert [path.name for path in (tmp_path / "held").iterdir()] == [".lock"]


def test_a_training_whose_folder_is_taken_away_stops_at_the_end_of_the_epoch(tmp_path, small_sets, monkeypatch):
    scores = Loop._scores

    def taken(self):
        shutil.rmtree(tmp_path / "out")
        return scores(self)

    monkeypatch.setattr(Loop, "_scores", taken)
    with pytest.raises(OSError, match="was deleted or replaced"):
        train(tiny_recipe(), tmp_path / "out", device="cpu", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_full_disk_names_the_file_and_the_way_on(tmp_path, small_sets):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
    try:
        with pytest.raises(OSError, match="the same command goes on from there") as raised:
            train(tiny_recipe(), tmp_path, device="cpu", progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename == str(tmp_path / "last.safetensors")
    assert train(tiny_recipe(), tmp_path, device="cpu", progress=False).exists()


def test_too_little_memory_for_a_state_says_nothing_against_the_state(tmp_path, small_sets, monkeypatch):
    train(tiny_recipe(epochs=1), tmp_path, device="cpu", progress=False)

    def full(*_args, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(torch.OutOfMemoryError):
        train(tiny_recipe(epochs=2), tmp_path, device="cpu", progress=False)


@pytest.mark.parametrize("damage", ["cut off", "no format", "a list", "other weights"])
def test_a_state_that_is_damaged_or_holds_something_else_is_one_line(tmp_path, small_sets, damage):
    train(tiny_recipe(epochs=1), tmp_path, device="cpu", progress=False)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    if damage == "no format":
        del state["format"]
    elif damage == "other weights":
        state["module"] = {"w": torch.zeros(1)}
    torch.save([1] if damage == "a list" else state, tmp_path / "state.pt")
    if damage == "cut off":
        (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:1000])
    with pytest.raises(
        InputError, match=r"state.pt: not a readable training state .*; delete it to start over"
    ) as error:
        train(tiny_recipe(epochs=1), tmp_path, device="cpu", progress=False)
    assert "\n" not in str(error.value)
