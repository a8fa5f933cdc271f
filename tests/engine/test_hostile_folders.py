"""Damaged run folders: refused in one clear line, or read without what is damaged."""

import copy
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st

import ipvit
from helpers.hostile import (
    JSON_JUNK,
    answer,
    at_length,
    damaged,
    fuzz,
    mutated,
    offline_folder,
    places,
)
from helpers.tiny import tiny_model, write_images
from ipvit.core.manifest import Manifest
from ipvit.data import MemoryDataset
from ipvit.engine.manifest import read_manifest
from ipvit.experiments.occlusion.analysis import OcclusionAnalysis
from ipvit.results import Run


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    return offline_folder(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A small run of one experiment, with its pictures, and below it the two shards of another."""
    out = tmp_path_factory.mktemp("finished") / "run"
    for shard in (None, "1/2", "2/2"):
        small_run(out / "shards-of-another" if shard else out, shard)
    (out / "shards-of-another" / "shards").rename(out / "shards")
    (out / "shards-of-another").rmdir()
    return out


def small_run(out: Path, shard: str | None = None) -> None:
    data = MemoryDataset(torch.linspace(0, 1, 4 * 3 * 256).view(4, 3, 16, 16), [0, 1, 2, 3], ["c0", "c1", "c2", "c3"])
    ipvit.run(
        ipvit.Occlusion(grid="4x4", levels=(0.5,), runs=1, modes=("random",)),
        models=tiny_model(),
        data=data,
        out=out,
        workers=0,
        batch_size=2,
        shard=shard,
        progress=False,
    )


@pytest.fixture
def at_once(monkeypatch) -> None:
    """Figures take seconds and no input: leave them out."""
    monkeypatch.setattr(OcclusionAnalysis, "figures", lambda self, tables: {})


def manifest_of(folder: Path) -> dict:
    """Return the manifest of a run as any machine and day would write it: what is drawn from it is the same then."""
    found = json.loads((folder / "manifest.json").read_text())
    return found | {
        "finished": "2021-01-01T00:00:00+00:00",
        "seconds": 1.5,
        "versions": {"python": "3.11.0", "torch": "2.0.0", "opencv-python-headless": None},
        "hardware": {"machine": "x86_64", "system": "Linux", "cores": 2},
        "skipped": [{"image": "a", "reason": "cut short"}],
        "failures": [{"experiment": "occlusion", "model": "m", "condition": "c", "error": "e", "details": "d"}],
        "notes": ["a note"],
        "left_out": ["a sentence"],
        "damaged": ["records/a"],
    }


def content(manifest: Manifest) -> dict:
    """Return what a manifest holds, key by key, as JSON has it."""
    return manifest.model_dump(mode="json", by_alias=True)


def test_every_key_that_a_run_writes_into_its_manifest_is_known_to_its_reader(here, finished):
    for folder in (finished, finished / "shards" / "1-of-2"):
        assert content(read_manifest(folder)) == json.loads((folder / "manifest.json").read_text())
    answer(["merge", str(finished / "shards" / "1-of-2"), str(finished / "shards" / "2-of-2"), "--out", "whole"])
    assert content(read_manifest(Path("whole"))) == json.loads(Path("whole/manifest.json").read_text())


NOT_WANTED = [
    None,
    True,
    -1,
    1.5,
    2**63,
    -(2**64),
    10**400,
    1e308,
    float("nan"),
    float("-inf"),
    "",
    "a\x1b[1m",
    "\ud800",
    "1/0",
    "3/2",
    "1/999999",
    "9" * 400,
    [],
    [[]],
    [None],
    {},
    {"": {}},
    {"fingerprint": {}},
]
"""What a key of a manifest may be found to have."""

MANIFEST_JUNK = st.one_of(JSON_JUNK, st.sampled_from(NOT_WANTED).map(copy.deepcopy))


def test_no_value_of_a_manifest_reaches_anybody_as_another_kind(here, finished):
    manifest = manifest_of(finished)
    Path("run").mkdir()
    for way in places(manifest):
        for value in NOT_WANTED:
            Path("run/manifest.json").write_text(json.dumps(replaced(manifest, way, value)))
            found = read_manifest(Path("run"))
            if found is not None:
                assert_of_one_kind(content(found), manifest)


def replaced(content: dict, way: tuple, value: object) -> dict:
    found = copy.deepcopy(content)
    parent = found
    for step in way[:-1]:
        parent = parent[step]
    parent[way[-1]] = value
    return found


def assert_of_one_kind(found: object, original: object) -> None:
    """Check that what was read has the kinds of the original, and that numbers are such as a table can hold."""
    if isinstance(original, dict):
        assert isinstance(found, dict)
        for key in found.keys() & original.keys():
            assert_of_one_kind(found[key], original[key])
    elif isinstance(original, list):
        assert isinstance(found, list)
        for inner in found:
            assert_of_one_kind(inner, original[0] if original else "")
    elif isinstance(original, int | float):
        assert found is None or type(found) is type(original)
        assert found is None or isinstance(found, float) or -(2**63) <= found < 2**63
        assert found is None or math.isfinite(found)
    elif original is None:
        assert not isinstance(found, dict | list | bool)
    else:
        assert found is None or type(found) is type(original)


@at_length(25, 500)
def test_a_damaged_manifest_is_refused_or_read(here, finished, examples, at_once):
    commands = {
        "report run": "run",
        "compare run": "run",
        "merge run --out whole": "run",
        "merge run --out whole --partial": "run/shards/1-of-2",
        "merge run/shards/1-of-2 run/shards/2-of-2 --out whole": "run/shards/2-of-2",
        "report run/shards": "run/shards/2-of-2",
        "compare run/shards": "run/shards/1-of-2",
    }
    manifests = {folder: manifest_of(finished / folder.partition("/")[2]) for folder in set(commands.values())}

    @fuzz(examples, data=st.data(), command=st.sampled_from(sorted(commands)))
    def _(data, command):
        manifest = manifests[commands[command]]
        content = st.one_of(
            mutated(manifest, MANIFEST_JUNK).map(lambda f: json.dumps(f).encode()),
            damaged(json.dumps(manifest).encode()),
            st.binary(max_size=9),
        )
        for left in ("run", "whole"):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(finished, "run")
        (Path(commands[command]) / "manifest.json").write_bytes(data.draw(content))
        answer([*command.split(), "--json"], allowed=(0, 1, 2))


@at_length(6, 100)
def test_a_run_goes_on_where_the_manifest_is_damaged(here, finished, examples, at_once):
    manifest = manifest_of(finished)

    @fuzz(examples, found=mutated(manifest, MANIFEST_JUNK))
    def _(found):
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree(finished, "run")
        Path("run/manifest.json").write_text(json.dumps(found))
        small_run(Path("run"))
        assert read_manifest(Path("run")).measured_in_this_call == 0


@at_length(15, 300)
def test_damaged_files_of_a_run_folder_are_left_out_or_refused(here, finished, examples, at_once):
    files = sorted(path.relative_to(finished) for path in finished.rglob("*") if path.is_file())
    files = [path for path in files if path.parts[0] not in ("tables", "figures") and path.name != ".lock"]

    @fuzz(examples, data=st.data(), name=st.sampled_from(files))
    def _(data, name):
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree(finished, "run")
        (Path("run") / name).write_bytes(data.draw(damaged((finished / name).read_bytes())))
        answer(["report", "run", "--json"], allowed=(0, 1, 2))


def test_a_listing_of_pictures_reaches_no_file_elsewhere(here, finished):
    shutil.copytree(finished, "run")
    (listing,) = Path("run").glob("examples/*/*/captions.json")
    write_images(here / "secret", per_class=1, classes=1)
    content = json.loads(listing.read_text())
    content["pictures"][0]["file"] = "../../../secret/c0/000.jpg"
    listing.write_text(json.dumps(content))
    assert Run("run").pictures("occlusion") == {}
