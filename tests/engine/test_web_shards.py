"""Web data sets in several processes: each decodes its own images alone, and the results are those of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import ipvit
from helpers.shards import web_shards
from helpers.tiny import tiny_model
from ipvit.data.formats import shards
from ipvit.engine.merge import merge


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The files that are decoded."""
    files: list[bytes] = []
    plain = shards.decode

    def decode(data: bytes, *rest: Any) -> Any:
        files.append(data)
        return plain(data, *rest)

    monkeypatch.setattr(shards, "decode", decode)
    return files


def measured(root: Path, split: str, out: Path, shard: str | None = None) -> ipvit.Run:
    classes = root / "classes.txt"
    classes.write_text("c0\nc1\nc2\nc3\n")
    data = ipvit.load_dataset("wds/grey", root=str(root / "shards"), split=split, classes=str(classes))
    return ipvit.run(
        ipvit.Accuracy(), models=tiny_model(), data=data, out=out, shard=shard, workers=0, batch_size=2, progress=False
    )


def test_no_process_decodes_what_another_measures(tmp_path, decoded):
    pytest.importorskip("webdataset")
    split = web_shards(tmp_path / "shards", images=12)
    alone = measured(tmp_path, split, tmp_path / "alone").records("accuracy")
    every = sorted(decoded)
    parts: list[bytes] = []
    for number in (3, 2, 1):  # the last first: nothing before its part is needed
        decoded.clear()
        part = measured(tmp_path, split, tmp_path / "parts", f"{number}/3").records("accuracy")
        assert len(decoded) == len(part["image"].unique()) == 4
        parts += decoded
    assert sorted(parts) == every and len(set(every)) == 12
    merge([tmp_path / "parts"], tmp_path / "parts")
    joined = ipvit.Run(tmp_path / "parts").records("accuracy")
    texts = pl.col(pl.Categorical).cast(pl.String)
    assert_frame_equal(
        joined.with_columns(texts).sort("image", "condition"),
        alone.with_columns(texts).sort("image", "condition"),
        check_exact=True,
        check_column_order=False,
    )
    assert set(alone["image"].cast(pl.String)) == {f"{number:04d}" for number in range(12)}, "ids are keys"
