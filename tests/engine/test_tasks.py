"""What a run has to measure: results that are applicable, this process's, not on disk and not given up."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ipvit
from helpers.small_runs import CLASSES, photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.api import bind_context
from ipvit.core.run_config import RunConfig
from ipvit.data.dataset import Dataset, has_pictures
from ipvit.engine.distributed import ProcessGroup
from ipvit.engine.preparation import assign_shard, checked, mark_finished, plan_sweeps, uncompiled
from ipvit.engine.store import Store
from ipvit.engine.types import Selected, SweepPlan, Task
from ipvit.experiments.base import Condition, Experiment, Records, Requirements
from ipvit.experiments.registry import make_experiment

QUIET: dict[str, Any] = {"workers": 0, "progress": False}


def planned(experiment: Experiment, data: Dataset, **options: Any) -> tuple[Task, SweepPlan]:
    config, group = RunConfig(device="cpu", batch_size=4, **options), ProcessGroup()
    device, (task,), _ = checked([Selected(experiment)], [tiny_model()], data, config, group, bind_context())
    (*_, plan) = plan_sweeps([task], data, config, device, group)
    return task, plan


# --- four things apart ---------------------------------------------------------------------------------------------


def test_what_is_missing_follows_from_four_arrays_and_changes_none_of_them():
    task, plan = planned(small_occlusion(levels=(0, 0.5)), photos(6))
    rng = np.random.default_rng(0)
    shape = len(task.items), len(task.conditions)
    assert shape == (6, 3) and task.missing(plan.positions).all()
    for shapes in ([shape] * 4, [(1, 1), (6, 1), shape, (1, 3)]):
        arrays = [rng.random(size) < 0.5 for size in shapes]
        task.applicable, task.mine, task.on_disk, task.failed = (array.copy() for array in arrays)
        applicable, mine, on_disk, failed = (np.broadcast_to(array, shape) for array in arrays)
        for positions in (np.arange(6), np.array([4, 1]), np.array([], dtype=int)):
            expected = [
                [bool(applicable[i, c] and mine[i, c] and not on_disk[i, c] and not failed[i, c]) for c in range(3)]
                for i in positions
            ]
            assert task.missing(positions).tolist() == expected
        assert all(map(np.array_equal, (task.applicable, task.mine, task.on_disk, task.failed), arrays))


def test_conditions_that_failed_are_given_up_on_all_images_and_the_others_are_not():
    task, plan = planned(small_occlusion(levels=(0, 0.5)), photos(6))
    task.give_up([1])
    assert task.missing(plan.positions).tolist() == [[True, False, True]] * 6
    task.give_up(range(3))
    assert not task.missing(plan.positions).any() and plan.count_missing() == 0
    assert not task.on_disk.any() and task.mine.all(), "given up is neither measured nor another process's"


def test_what_is_missing_does_not_depend_on_whether_the_disk_or_the_shard_is_looked_at_first(tmp_path):
    ipvit.run(small_occlusion(), models=tiny_model(), data=photos(), out=tmp_path, limit=10, batch_size=4, **QUIET)
    found = []
    for steps in ((mark, share), (share, mark), (mark, share, mark)):
        task, plan = planned(small_occlusion(), photos(), shard="1/2")
        for step in steps:
            step(task, plan, tmp_path)
        found.append(task.missing(np.arange(30)))
        assert plan.count_missing() == found[-1].sum()
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    assert 0 < found[0].sum() < 16 * 7


def mark(task: Task, _: SweepPlan, out: Path) -> None:
    assert mark_finished([task], Store(out))


def share(_: Task, plan: SweepPlan, __: Path) -> None:
    assert assign_shard(plan, ProcessGroup()).selected == 16


@pytest.mark.parametrize("compiled", [True, False])
def test_a_note_says_what_gains_nothing_from_compiling(compiled):
    config = RunConfig(device="cpu", compile=compiled)
    selected = [Selected(make_experiment(name, {})) for name in ("occlusion", "feature-drop", "correlation")]
    data, models = ipvit.load_dataset("demo:trifeature"), [ipvit.load_model("demo:deit_micro")]
    _, tasks, _ = checked(selected, models, data, config, ProcessGroup(), bind_context())
    notes = uncompiled(tasks, config)
    assert [note.partition(":")[0] for note in notes] == (["feature-drop, correlation"] if compiled else [])


class Chosen(ipvit.MemoryDataset):
    """Photos that note how often the images of a limited run are asked for."""

    asked = 0

    def choose(self, limit: int) -> np.ndarray:
        self.asked += 1
        return np.arange(limit)


def test_the_images_of_a_limited_run_are_chosen_once(tmp_path):
    data = Chosen(torch.zeros(8, 3, 16, 16, dtype=torch.uint8), np.arange(8) % 4, CLASSES)
    experiments = [small_occlusion(levels=(0,)), ipvit.Accuracy()]
    run = ipvit.run(experiments, models=[tiny_model()], data=data, out=tmp_path, limit=5, **QUIET)
    assert data.asked == 1 and run.manifest.selected == 5


# --- items that are no pictures ------------------------------------------------------------------------------------


class Couples:
    """Couples of neighbouring images, which share a class."""

    aliases = None

    def __init__(self, images: Dataset) -> None:
        self.name, self.fingerprint, self.classes = images.name, images.fingerprint, images.classes
        self.ids = [f"{first}+{second}" for first, second in zip(images.ids[::2], images.ids[1::2], strict=True)]
        self.labels = np.asarray(images.labels)[::2]
        self.fields = {"first": np.arange(0, len(images), 2)}

    def __len__(self) -> int:
        return len(self.ids)


@dataclasses.dataclass(frozen=True)
class CoupleCondition(Condition):
    offset: int = 0


class Coupled(Experiment):
    name = "coupled"
    title = reproduces = question = "Coupled"
    looks: bool = False
    donors: int = 0
    masks: bool = False
    transforms: bool = False

    @property
    def requirements(self) -> Requirements:
        return Requirements(donors=self.donors, masks=self.masks)

    def items(self, data, limit):
        return Couples(data)

    def conditions(self, model):
        return [CoupleCondition(offset) for offset in (0, 1)]

    def image_transform(self, condition):
        return torch.flip if self.transforms else None

    def measure(self, model, batch):
        assert batch.images.shape == (len(batch), 0, 0, 0) and batch.masks is None and not batch.donor_ids
        for condition in batch.conditions:
            if self.looks and condition.offset:
                model(batch.images)
            yield Records(condition, {"second": batch.fields["first"] + 1 + condition.offset})


class Unreadable(ipvit.MemoryDataset):
    """Photos that nobody may read."""

    def read(self, index: int) -> torch.Tensor:
        raise AssertionError(f"image {index} was read")


def unreadable() -> Unreadable:
    return Unreadable(torch.zeros(12, 3, 16, 16, dtype=torch.uint8), np.repeat(np.arange(6) % 4, 2), CLASSES)


def coupled(out: Path, **options: Any) -> ipvit.Run:
    fields = {name: options.pop(name) for name in Coupled.model_fields if name in options}
    settings = {"models": tiny_model(), "data": unreadable(), "batch_size": 4} | QUIET | options
    return ipvit.run(Coupled(**fields), out=out, **settings)


def test_items_that_are_no_pictures_are_measured_stored_and_resumed_without_reading_any(tmp_path, monkeypatch):
    monkeypatch.setattr("ipvit.data.workers.DataLoader", None)  # no worker is started either
    assert not has_pictures(Couples(unreadable())) and has_pictures(unreadable())
    run = coupled(tmp_path, workers=2)
    assert not run.manifest.failures and run.manifest.measured_in_this_call == 2 * 6
    rows = run.records("coupled").sort("image", "offset").rows(named=True)
    assert [row["image"] for row in rows[::2]] == list(Couples(unreadable()).ids)
    assert [row["label"] for row in rows[::2]] == [0, 1, 2, 3, 0, 1]
    assert [(row["first"], row["second"]) for row in rows] == [(i, i + 1 + k) for i in range(0, 12, 2) for k in (0, 1)]
    assert coupled(tmp_path).manifest.measured_in_this_call == 0


def test_items_that_are_no_pictures_are_measured_in_shards(tmp_path):
    from ipvit.engine.merge import merge

    coupled(tmp_path / "whole")
    for number in (1, 2):
        assert coupled(tmp_path / "parts", shard=f"{number}/2").manifest.measured_in_this_call in (4, 8)
    merge([tmp_path / "parts"], tmp_path / "parts")
    whole = Store(tmp_path / "whole").records("coupled")
    assert Store(tmp_path / "parts").records("coupled").equals(whole)


def test_a_network_that_is_given_what_has_no_pixels_fails_and_says_so(tmp_path):
    run = coupled(tmp_path, looks=True)
    (failure,) = run.manifest.failures
    assert failure.condition == "offset=1" and "size of tensor a (0) must match" in failure.error
    assert run.records("coupled")["offset"].unique().to_list() == [0]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"donors": 2}, "coupled asks for donors, but its items on memory are no pictures"),
        ({"transforms": True}, "coupled asks for image transforms, but its items on memory are no pictures"),
        ({"masks": True}, "coupled needs foreground masks, which memory does not have"),
    ],
)
def test_what_needs_pixels_is_refused_on_items_without_any(tmp_path, option, words):
    with pytest.raises(ipvit.InputError, match=words):
        coupled(tmp_path / "out", **option)
    assert not (tmp_path / "out").exists()
