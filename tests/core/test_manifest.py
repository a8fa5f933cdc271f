"""The manifest: one model, written and read; what an earlier version wrote is read too."""

import copy
import json
from typing import Any

import pytest

from ipvit.core import manifest as parts
from ipvit.core.manifest import ExperimentData, Failure, Manifest
from ipvit.engine.manifest import MANIFEST, read_manifest, write_manifest

WRITTEN = {
    "format": 1,
    "left_out": ["attention needs the capability attention, which plain does not offer"],
    "status": "failed",
    "finished": "2025-05-02T10:00:00+00:00",
    "seconds": 0.9,
    "experiments": ["accuracy", "fewshot"],
    "models": [
        {
            "name": "demo:deit_micro",
            "digest": "2d14873e6629a754b9dcdf168a922457",
            "source": "timm 1.0.20, random initialisation",
            "weights_sha256": None,
            "parameters": 697066,
            "preprocessing": {
                "size": [64, 48],
                "crop_pct": 1.0,
                "interpolation": "bicubic",
                "crop_mode": "center",
                "mean": [0.5, 0.5, 0.5],
                "std": [0.25, 0.25, 0.25],
            },
        }
    ],
    "data": {"name": "demo:trifeature", "fingerprint": "f20d", "images": 1000, "classes": 10},
    "selected": 5,
    "images_used": 4,
    "limited": True,
    "limit": 5,
    "skipped": [{"image": "c0/000.jpg", "reason": "cut short"}],
    "failures": [{"experiment": "accuracy", "model": "m", "condition": "", "error": "E: no", "details": "Traceback"}],
    "measured_in_this_call": 24,
    "notes": ["a note"],
    "shard": "2/8",
    "batch_size": 32,
    "seed": -3,
    "precision": "bf16",
    "backend": "openvino",
    "device": "cpu",
    "versions": {"python": "3.11.7", "torch": "2.6.0", "openvino": None},
    "hardware": {"machine": "x86_64", "system": "Linux", "cores": 2},
    "subjects": {"fewshot": {"name": "episodes", "fingerprint": "e815", "precision": "bf16"}},
    "damaged": ["records/accuracy/m/part-1.parquet"],
    "processes": 2,
    "rests_on": ["/runs/whole"],
}
"""As version 0.1.0 wrote it, which had ``merged`` in the manifests of joined shards only."""

OPTIONAL = {
    "format": 1,
    "left_out": [],
    "selected": 0,
    "measured_in_this_call": 0,
    "notes": [],
    "shard": None,
    "batch_size": None,
    "backend": "torch",
    "subjects": {},
    "damaged": [],
    "processes": 1,
    "rests_on": [],
}
"""What a manifest may lack, and what that means."""


def read(tmp_path, content: dict) -> Manifest | None:
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    return read_manifest(tmp_path)


LATER = {
    "merged": [],
    "loaded_as": None,
    "published": None,
    "published_images": 0,
    "fingerprints": {},
    "answers": "all",
    "answer_space": None,
    "labelling": None,
    "asked": {},
    "measured_before": "",
    "n_classes": 0,
    "among": {},
    "labels": {},
    "answered": {},
    "sets": {},
    "doubt": "",
    "texts": None,
}
"""Keys that the version of the manifest in this file did not have, and what they are where it wrote it."""


def without_later_keys(content: Any) -> Any:
    if isinstance(content, list):
        return [without_later_keys(part) for part in content]
    if not isinstance(content, dict):
        return content
    for key in LATER.keys() & content.keys():
        assert content[key] == LATER[key]
    return {key: without_later_keys(value) for key, value in content.items() if key not in LATER}


def test_what_an_earlier_version_wrote_is_read_and_written_again_unchanged(tmp_path):
    found = read(tmp_path, WRITTEN)
    assert without_later_keys(found.model_dump(mode="json", by_alias=True)) == WRITTEN
    write_manifest(tmp_path, found)
    assert without_later_keys(json.loads((tmp_path / MANIFEST).read_text())) == WRITTEN
    assert read_manifest(tmp_path) == found


def test_what_a_manifest_lacks_has_a_stated_default(tmp_path):
    found = read(tmp_path, {key: value for key, value in WRITTEN.items() if key not in OPTIONAL})
    assert without_later_keys(found.model_dump(mode="json", by_alias=True)) == WRITTEN | OPTIONAL


@pytest.mark.parametrize("key", sorted(WRITTEN.keys() - OPTIONAL.keys()))
def test_a_manifest_without_what_a_run_always_writes_is_damaged(tmp_path, key):
    assert read(tmp_path, {name: value for name, value in WRITTEN.items() if name != key}) is None


def test_keys_that_are_not_known_are_not_read(tmp_path):
    content = copy.deepcopy(WRITTEN) | {"of_a_later_version": 1}
    content["data"]["more"] = {}
    assert read(tmp_path, content) == read(tmp_path, WRITTEN)


def test_an_experiment_was_measured_on_what_the_manifest_says_or_on_the_runs_data(tmp_path):
    found = read(tmp_path, WRITTEN)
    assert found.subject("fewshot") == ExperimentData(name="episodes", fingerprint="e815", precision="bf16")
    assert found.subject("accuracy") == ExperimentData(name="demo:trifeature", fingerprint="f20d", precision="bf16")
    without = read(tmp_path, WRITTEN | {"subjects": {"fewshot": {"fingerprint": "e815"}}})
    assert without.subject("fewshot").precision == "bf16"


def test_random_weights_are_known_by_their_source(tmp_path):
    (model,) = read(tmp_path, WRITTEN).models
    assert model.untrained and not model.model_copy(update={"source": "net.pth"}).untrained


def test_an_error_with_halves_of_characters_can_be_written(tmp_path):
    broken = Failure(experiment="accuracy", model="m", error="E: no file \udcff", details="\ud800 in line 1")
    write_manifest(tmp_path, read(tmp_path, WRITTEN).model_copy(update={"failures": (broken,)}))
    assert read_manifest(tmp_path).failures == (broken,) and broken.error == r"E: no file \udcff"


def test_every_key_is_described_and_none_can_be_changed():
    kinds = [kind for kind in vars(parts).values() if isinstance(kind, type) and issubclass(kind, parts._Part)]
    assert Manifest in kinds and len(kinds) > 8
    for kind in kinds:
        assert kind.model_config["frozen"]
        assert [name for name, field in kind.model_fields.items() if not field.description] == []
