"""A second report reads no records again, unless anything that decides the numbers has changed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import ipvit
from helpers.tiny import tiny_model
from ipvit.analysis.records.reduction_file import decoded, encoded, same_reduction
from ipvit.analysis.reduction import Reduction
from ipvit.cli import main
from ipvit.data.known_files import files_read_anew
from ipvit.engine.folders import kept_reductions
from ipvit.engine.store import Store
from ipvit.experiments.occlusion.analysis import OcclusionAnalysis

STUDY = ipvit.Occlusion(grid="4x4", levels=(0, 0.5), runs=2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, in which small runs are kept like large ones."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("IPVIT_TRACEBACK", "1")
    monkeypatch.setattr(kept_reductions, "FEWEST_BYTES", 1)
    return tmp_path / "cache" / "ipvit" / "reductions"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models whose records are reduced."""
    names: list[str] = []
    plain = OcclusionAnalysis.reduce

    def reduce(self: OcclusionAnalysis, records: pl.DataFrame) -> Reduction:
        names.append(records["model"][0])
        return plain(self, records)

    monkeypatch.setattr(OcclusionAnalysis, "reduce", reduce)
    return names


def measured(out: Path, experiment: ipvit.Experiment = STUDY, **options: Any) -> ipvit.Run:
    networks = [tiny_model(seed=seed, name=f"net{seed}") for seed in (0, 1)]
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 16, 16), dtype=np.uint8)
    data = ipvit.MemoryDataset(pixels, np.arange(12) % 4, [f"c{number}" for number in range(4)])
    return ipvit.run(experiment, models=networks, data=data, out=out, workers=0, progress=False, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that tests copy: it is kept in no cache, as it is small."""
    return measured(tmp_path_factory.mktemp("finished") / "run").out


@pytest.fixture
def out(tmp_path: Path, finished: Path, made: list[str], cache: Path) -> Path:
    """A run whose tables nobody has looked at in this cache."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def looked_at(out: Path) -> dict[str, pl.DataFrame]:
    return dict(ipvit.Run(out).tables)


def test_a_second_look_makes_no_reduction_and_gives_the_same_tables(out, made):
    first = ipvit.Run(out)
    tables, differences, notes = first.tables, first.differences, first.notes
    assert made == ["net0", "net1"]
    second = ipvit.Run(out)
    for found, expected in ((second.tables, tables), (second.differences, differences)):
        assert found.keys() == expected.keys()
        for name, frame in found.items():
            assert_frame_equal(frame, expected[name], check_exact=True)
    assert second.notes == notes
    assert made == ["net0", "net1"]


def test_what_is_kept_is_not_used_without_the_cache(out, made):
    looked_at(out)
    with files_read_anew(True):
        looked_at(out)
    assert made == ["net0", "net1"] * 2


def test_the_option_of_the_command_line_reads_all_records_again(out, made):
    assert main(["report", str(out)]) == 0
    assert main(["report", str(out), "--no-cache"]) == 0
    assert made == ["net0", "net1"] * 2


def test_small_runs_are_not_kept(out, made, cache, monkeypatch):
    monkeypatch.setattr(kept_reductions, "FEWEST_BYTES", 2**20)
    looked_at(out)
    looked_at(out)
    assert made == ["net0", "net1"] * 2
    assert not cache.is_dir() or not list(cache.iterdir())


def test_a_changed_record_is_reduced_anew(out, made):
    before = looked_at(out)["occlusion"]
    held = Store(out)
    weights = held.folders("occlusion")[0]
    records = held.select("occlusion", {}, of=weights)[0]
    name = records["model"][0]
    for path in (out / "records" / "occlusion").glob(f"*-{weights}/part-*.parquet"):
        path.unlink()
    held.write(records.with_columns(~pl.col("correct")))
    made.clear()
    after = looked_at(out)["occlusion"]
    assert made == [name], "the other model's are as they were"
    of_it, of_others = pl.col("model") == name, pl.col("model") != name
    assert after.filter(of_it)["top1"].to_list() == pytest.approx((100 - before.filter(of_it)["top1"]).to_list())
    others = after.filter(of_others).select(before.columns)  # what is retained is a column where any model has it
    assert_frame_equal(others, before.filter(of_others), check_exact=True)


def test_another_setting_of_the_study_is_reduced_anew(out, made):
    assert looked_at(out)["occlusion"]["information_loss"].max() == 0.5
    made.clear()
    measured(out, ipvit.Occlusion(grid="4x4", levels=(0,), runs=2))
    assert looked_at(out)["occlusion"]["information_loss"].max() == 0.0
    assert set(made) == {"net0", "net1"}


@pytest.mark.parametrize("what", ["digest_of_source", "installed_version"])
def test_another_version_of_the_code_makes_anew(out, made, monkeypatch, what):
    looked_at(out)
    monkeypatch.setattr(kept_reductions, what, lambda *_: "another")
    looked_at(out)
    looked_at(out)
    assert made == ["net0", "net1"] * 2


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


def signed(content: bytes) -> bytes:
    return hashlib.sha256(content).digest() + content


@pytest.mark.parametrize(
    "broken",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
        lambda data: pickle.dumps(Trap()),
        lambda data: signed(pickle.dumps(Trap())),
        lambda data: signed((2).to_bytes(8, "little") + b"{}"),
        lambda data: signed((2).to_bytes(8, "little") + b"[]"),
        lambda data: signed(data[32:-40]),
    ],
    ids=["empty", "cut off", "a changed byte", "a pickle", "a signed pickle", "no fields", "a list", "a cut-off table"],
)
def test_a_broken_file_is_made_anew_and_nothing_in_it_is_executed(out, made, cache, broken, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = looked_at(out)["occlusion"]
    whole = {path: path.read_bytes() for path in cache.iterdir()}
    assert len(whole) == 2
    for path, data in whole.items():
        path.write_bytes(broken(data))
    made.clear()
    assert_frame_equal(looked_at(out)["occlusion"], before, check_exact=True)
    assert made == ["net0", "net1"]
    assert {path: path.read_bytes() for path in cache.iterdir()} == whole
    assert not Path("trapped").exists()


def test_a_damaged_part_is_told_of_at_the_second_look_too(out, made):
    looked_at(out)
    path = next((out / "records").rglob("part-*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    for _ in range(2):
        run = ipvit.Run(out)
        assert any("damaged part" in note for note in run.notes_of("occlusion"))
        assert run.tables["occlusion"]["model"].n_unique() == 1


def test_what_else_lies_among_the_records_is_told_at_the_second_look_too(out):
    measured(out, limit=4)
    told = [ipvit.Run(out).told for _ in range(2)]
    assert told[0] == told[1]
    assert any("8 further images" in sentence for sentence in told[0])


def test_the_analysis_of_anothers_code_is_not_kept(out, made, cache, monkeypatch):
    monkeypatch.setattr(OcclusionAnalysis, "__module__", "someones.analysis")
    looked_at(out)
    looked_at(out)
    assert made == ["net0", "net1"] * 2


def test_where_the_cache_cannot_be_written_tables_are_made_all_the_same(out, made, cache):
    cache.parent.mkdir(parents=True, exist_ok=True)
    if cache.is_dir():
        cache.rmdir()
    cache.write_text("a file in place of the folder")
    assert looked_at(out)["occlusion"].height
    assert made == ["net0", "net1"]


def test_what_was_not_used_for_longest_makes_room(out, cache, monkeypatch):
    looked_at(out)
    first = {path: path.stat().st_size for path in cache.iterdir()}
    for path in first:
        os.utime(path, (1, 1))
    monkeypatch.setattr(kept_reductions, "MOST_BYTES", sum(first.values()) + 10)
    monkeypatch.setattr(kept_reductions, "digest_of_source", lambda: "another")
    looked_at(out)
    left = set(cache.iterdir())
    assert len(left) == 2 and not left & first.keys()


def test_a_reduction_that_would_come_back_otherwise_is_told_from_it(out):
    (reduction, _) = ipvit.Run(out).reductions("occlusion")
    assert same_reduction(decoded(encoded(reduction)), reduction)
    values = reduction.values
    assert values is not None
    others = [
        {"n_answers": float(reduction.n_answers)},
        {"missing": {"correct": 1}},
        {"unlabelled": frozenset({"a"})},
        {"parts": {}},
        {"calibration": None},
        {"values": None},
        {"values": dataclasses.replace(values, means=np.asarray(values.means) + 1e-12)},
        {"values": dataclasses.replace(values, keys=(*values.keys[1:], values.keys[0]))},
        {"values": dataclasses.replace(values, span=2.0)},
        {"parts": {"occlusion": reduction.parts["occlusion"].with_columns(pl.col("top1").cast(pl.Float32))}},
    ]
    assert not any(same_reduction(dataclasses.replace(reduction, **other), reduction) for other in others)


def test_networks_share_the_images_that_they_are_compared_on(out):
    for _ in ("made", "kept"):
        first, second = ipvit.Run(out).reductions("occlusion")
        assert first.values is not None and second.values is not None
        assert first.values.images is second.values.images
