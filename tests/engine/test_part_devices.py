"""Each part of the records names what it was measured on, also where parts or shards are joined."""

from pathlib import Path

import polars as pl

import ipvit
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.engine import run as run_module
from ipvit.engine.merge import merge
from ipvit.engine.store import Store


def measure(out: Path, monkeypatch, device: str, **options) -> ipvit.Run:
    monkeypatch.setattr(run_module, "name_of", lambda _: device)
    settings = {"workers": 0, "progress": False, "batch_size": 4, "data": photos()} | options
    return ipvit.run(small_occlusion(), models=tiny_model(), out=out, **settings)


def named(out: Path) -> list[str]:
    return [pl.read_parquet_metadata(path).get("devices", "") for path in out.glob("records/*/*/part-*.parquet")]


def test_a_part_names_the_device_and_a_joined_part_all_of_them(tmp_path, monkeypatch):
    measure(tmp_path, monkeypatch, "Accelerator 1", limit=10)
    assert named(tmp_path) == ['["Accelerator 1"]']
    measure(tmp_path, monkeypatch, "Accelerator 2")
    assert named(tmp_path) == ['["Accelerator 1", "Accelerator 2"]']


def test_shards_that_are_joined_keep_the_names(tmp_path, monkeypatch):
    shards = [
        measure(tmp_path / "run", monkeypatch, f"Accelerator {number}", shard=f"{number}/2").out for number in (1, 2)
    ]
    merge(shards, tmp_path / "whole")
    assert named(tmp_path / "whole") == ['["Accelerator 1", "Accelerator 2"]']


def test_records_do_not_depend_on_the_name_and_parts_without_one_stay_readable(tmp_path, monkeypatch):
    measure(tmp_path / "a", monkeypatch, "Accelerator 1")
    measure(tmp_path / "b", monkeypatch, "")
    assert named(tmp_path / "b") == [""]
    assert Store(tmp_path / "a").records("occlusion").equals(Store(tmp_path / "b").records("occlusion"))
    again = measure(tmp_path / "b", monkeypatch, "Accelerator 1")
    assert again.manifest.measured_in_this_call == 0
