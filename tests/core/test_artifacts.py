"""Artifacts beside the records: found again whoever wrote them, and never used once they are damaged.

``kept/artifacts`` holds some of what a run of ``whole_study`` made when metadata had no digest of themselves yet.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import ipvit
from helpers import whole_study
from helpers.paths import KEPT
from ipvit.core.artifacts import Kind, Metadata, artifact_path, first_whole
from ipvit.data.synthetic.trifeature import Trifeature
from ipvit.engine.examples import read_examples, save_examples
from ipvit.errors import InputError
from ipvit.experiments.attack.patch_files import load_patch, save_patch
from ipvit.experiments.base import ExampleImage
from ipvit.experiments.registry import make_experiment
from ipvit.features.store import FeatureStore
from ipvit.models.io.probe_head import read_probe, save_probe
from ipvit.models.readout import FeatureSpec

EARLIER = KEPT / "artifacts"
PATCH = EARLIER / "patches" / "deit-6da750ab" / "20pct-circle-free-run0-a731bbb44432.json"
PROBE = EARLIER / "probes" / "deit-6da750ab" / "0-class-lbfgs-bff5220c.safetensors"
READ = FeatureSpec(0, "class")


class ToolMetadata(Metadata):
    name: str
    sizes: tuple[float, ...] = ()


TOOL = Kind("tool", ToolMetadata, content="picture", place=".json file", hint="a tool is a .json", format=2)


# --- metadata ---


def test_a_card_comes_back_however_its_json_is_laid_out(tmp_path):
    card = ToolMetadata(key="ab", name="säge", sizes=(0.5, float("inf")))
    path = artifact_path(tmp_path, "saw", "ab", ".json")
    TOOL.write(path, card)
    assert path.name == "saw-ab.json" and TOOL.read(path) == card
    content = json.loads(path.read_text("utf-8"))
    assert content["format"] == 2 and content["key"] == "ab"
    path.write_text(json.dumps(dict(reversed(content.items())), indent=7))
    assert TOOL.read(path) == card


def test_a_changed_card_is_refused_and_one_without_a_digest_is_read(tmp_path):
    path = tmp_path / "saw.json"
    TOOL.write(path, ToolMetadata(name="saw", sizes=(0.5,)))
    content = json.loads(path.read_text()) | {"sizes": [0.6]}
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"saw\.json' does not describe a tool: it was changed after it was written$"):
        TOOL.read(path)
    del content["card_sha256"]
    path.write_text(json.dumps(content))
    assert TOOL.read(path).sizes == (0.6,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not describe a tool: it is not JSON"),
        ("[" * 100_000, "does not describe a tool: it is not JSON"),
        ("[1]", "does not describe a tool: it is not a JSON object"),
        ('{"format": 3, "name": "saw"}', "is a tool file of format 3; this version reads 2"),
        ('{"name": "saw"}', "is a tool file of format None"),
        ('{"format": 2}', "does not describe a tool: name is missing"),
        ('{"format": 2, "name": "saw", "card_sha256": [1]}', "changed after it was written"),
        ("1" * 2_000_000, "larger than a tool can be"),
        (None, "cannot read the tool file .* No such file or directory; a tool is a .json"),
    ],
)
def test_what_is_no_card_is_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "saw.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=words) as error:
        TOOL.read(path)
    assert "\n" not in str(error.value)


def test_the_first_whole_one_of_several_is_found(tmp_path):
    paths = [tmp_path / f"{name}.json" for name in ("lost", "damaged", "whole")]
    paths[1].write_text("{")
    assert first_whole(paths[:1], TOOL.read) == (None, "")
    found, damage = first_whole(paths, TOOL.read)
    assert found is None and "damaged.json" in damage
    TOOL.write(paths[2], ToolMetadata(name="saw"))
    assert first_whole(paths, TOOL.read) == (ToolMetadata(name="saw"), "")


# --- what earlier versions wrote ---


@pytest.fixture
def earlier(tmp_path) -> Path:
    """A folder with what a run of an earlier version made beside its records."""
    return Path(shutil.copytree(EARLIER, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    kinds = ("features", "patches", "probes", "examples")
    return {str(path): path.read_bytes() for kind in kinds for path in folder.glob(f"{kind}/*/*") if path.is_file()}


def forbidden(*_: Any, **__: Any) -> Any:
    raise AssertionError("what is on the disk must not be made again")


def deit() -> ipvit.Model:
    return ipvit.load_model("demo:deit_micro_shape", label="deit")


def probing() -> ipvit.Experiment:
    settings = whole_study.SETTINGS["probe"] | {"heads": ("lbfgs",), "tokens": ("class",)}
    train = Trifeature("natural", "train", n=40)
    return make_experiment("probe", settings | {"blocks": (0, 5), "last": ("1",), "train": train})


def attacking() -> ipvit.Experiment:
    return make_experiment("attack", whole_study.SETTINGS["attack"] | {"attacks": ("patch",)})


def test_patches_of_an_earlier_version_are_found_again(earlier, monkeypatch):
    monkeypatch.setattr("ipvit.experiments.attack.patches.train_patch", forbidden)
    before = contents(earlier)
    result = whole_study.run(earlier, experiments=[attacking()], models=[deit()])
    assert not result.manifest.failures and not result.manifest.notes
    assert {path: data for path, data in contents(earlier).items() if "/patches/" in path} == {
        path: data for path, data in before.items() if "/patches/" in path
    }


def heads(folder: Path) -> set[Path]:
    return {path for path in folder.glob("probes/*/*.safetensors") if path.name != "best.safetensors"}


def test_heads_that_ended_by_the_earlier_rule_are_fitted_again_beside_them_from_the_features_that_are_there(
    earlier, monkeypatch
):
    monkeypatch.setattr("ipvit.features.store._forward", forbidden)
    before, old = contents(earlier), heads(earlier)
    result = whole_study.run(earlier, experiments=[probing()], models=[deit()])
    assert not result.manifest.failures and not result.manifest.notes
    assert all(contents(earlier)[path] == data for path, data in before.items())
    made = heads(earlier) - old
    assert len(made) == len(old) and all(read_probe(path).key == path.stem.rpartition("-")[2] for path in made)


def test_heads_are_found_again(earlier, monkeypatch):
    whole_study.run(earlier, experiments=[probing()], models=[deit()])
    monkeypatch.setattr("ipvit.experiments.probe.fit.fit_logistic", forbidden)
    result = whole_study.run(earlier, experiments=[probing()], models=[deit()])
    assert not result.manifest.failures and not result.manifest.notes


POSITION = SimpleNamespace(
    name="position",
    version=1,
    model_dump_json=lambda: (
        '{"corners":["top-right","top-left","bottom-right","bottom-left"],"scale":0.5714285714285714}'
    ),
)
"""What the pictures of an experiment depend on, as it was for the earlier run."""


def position(examples: Any) -> Any:
    measurement = SimpleNamespace(examples=examples)
    return SimpleNamespace(
        experiment=POSITION,
        measurement=measurement,
        conditions=(),
        model=SimpleNamespace(name="deit", digest="6da750ab" + 24 * "0"),
    )


def grey(*_: Any) -> list[ExampleImage]:
    return [ExampleImage("grey", torch.full((3, 8, 8), 0.5)), ExampleImage("black", torch.zeros(3, 8, 8))]


def test_pictures_of_an_earlier_version_are_found_again(earlier):
    (pictures,) = read_examples(earlier, "position").values()
    assert len(pictures) == 5 and all(picture.path.is_file() for picture in pictures)
    assert not save_examples(earlier, position(forbidden), None)  # pyright: ignore[reportArgumentType]


# --- damage ---


def damaged_examples(out: Path) -> list[str]:
    return save_examples(out, position(grey), None)  # pyright: ignore[reportArgumentType]


def test_a_damaged_picture_is_not_shown_and_made_again(tmp_path):
    assert damaged_examples(tmp_path) == [] and len(read_examples(tmp_path, "position")["deit"]) == 2
    before = contents(tmp_path)
    (first, second) = tmp_path.glob("examples/position/*.png")
    flipped = bytearray(first.read_bytes())
    flipped[20] ^= 1
    first.write_bytes(flipped)
    assert [picture.path for picture in read_examples(tmp_path, "position")["deit"]] == [second]
    (note,) = damaged_examples(tmp_path)
    assert first.name in note and note.endswith("is missing or damaged; it was made again")
    assert contents(tmp_path) == before and damaged_examples(tmp_path) == []


def test_a_damaged_listing_is_made_again(tmp_path):
    damaged_examples(tmp_path)
    (listing,) = tmp_path.glob("examples/position/*/captions.json")
    before = listing.read_text()
    listing.write_text(before.replace('"grey"', '"gray"'))
    assert read_examples(tmp_path, "position") == {}
    (note,) = damaged_examples(tmp_path)
    assert note.endswith("does not describe a listing: it was changed after it was written; it was made again")
    assert listing.read_text() == before


def test_a_changed_digit_beside_a_patch_is_noticed(tmp_path):
    path = save_patch(tmp_path / "patch", load_patch(PATCH))
    text = path.with_suffix(".json").read_text()
    path.with_suffix(".json").write_text(text.replace('"area": 0.2', '"area": 0.3'))
    with pytest.raises(InputError, match=r"patch\.json' does not describe a patch: it was changed after"):
        load_patch(path)
    settings = whole_study.SETTINGS["attack"] | {"attacks": ("patch",), "patch_files": (str(path),)}
    with pytest.raises(InputError, match="it was changed after it was written"):
        whole_study.run(tmp_path / "run", experiments=[make_experiment("attack", settings)], models=[deit()])


def test_whatever_byte_of_a_probe_file_is_changed_no_other_head_comes_out_of_it(tmp_path):
    head, path = read_probe(PROBE), tmp_path / "p.safetensors"
    save_probe(path, head)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.choice(len(whole), 200, replace=False):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            found = read_probe(path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
        else:  # blanks of the header
            assert torch.equal(found.weight, head.weight) and torch.equal(found.bias, head.bias)
            assert (found.specs, found.classes, found.fit) == (head.specs, head.classes, head.fit)
    assert refused > 190


def test_a_damaged_or_foreign_head_of_a_run_is_fitted_again_and_the_run_says_so(earlier):
    old = heads(earlier)
    whole_study.run(earlier, experiments=[probing()], models=[deit()])
    shutil.rmtree(earlier / "records" / "probe")  # measured again, so that the heads are asked for
    first, second = sorted(heads(earlier) - old)
    sound, specs = read_probe(first).weight.clone(), read_probe(second).specs
    first.write_bytes(first.read_bytes()[:-100])
    shutil.copy(PROBE, second)
    result = whole_study.run(earlier, experiments=[probing()], models=[deit()])
    one, other = result.manifest.notes
    assert not result.manifest.failures
    assert first.name in one and "is not a whole probe file" in one and one.endswith("; it was fitted again")
    assert other.endswith(f"{second.name}' describes another probe than its name says; it was fitted again")
    assert torch.equal(read_probe(first).weight, sound) and read_probe(second).specs == specs


def test_a_damaged_description_of_features_is_written_again_and_the_features_stay(earlier, monkeypatch):
    monkeypatch.setattr("ipvit.features.store._forward", forbidden)
    card = next(earlier.glob("features/*/about.json"))
    data = Trifeature("natural", "train", n=40)
    store = FeatureStore(earlier / "features")
    before = store.extract(deit(), data, [READ])
    assert before.notes == ()
    card.write_text(card.read_text()[:-20])
    found = store.extract(deit(), data, [READ])
    assert np.array_equal(found.matrix([READ]), before.matrix([READ]))
    (note,) = found.notes
    assert note == f"{str(card)!r} does not describe a set of features: it is not JSON; it was written again"
    about = json.loads(card.read_text())
    assert about["key"] == card.parent.name and about["images"] == 40
    assert store.extract(deit(), data, [READ]).notes == ()
