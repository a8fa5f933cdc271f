"""Rows of many parts are put in order and written a piece at a time: what a sort of all of them in memory gives."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ipvit.engine.folders import joining
from ipvit.engine.folders.joining import plain, rows_of
from ipvit.engine.folders.parts import together, write_part, write_pieces

KEY = ("experiment", "condition", "image")


def part(seed: int, rows: int = 200, **further: object) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "image": random.choice([f"image {i}" for i in range(40)], rows),
            "value": np.where(random.random(rows) < 0.2, -0.0, 0.0).astype(np.float32),
            "correct": random.random(rows) < 0.5,
            "condition": random.choice(["b", "c", "a"], rows),
            "experiment": "occlusion",
            "model": f"net {seed % 2}",
            "seed": 0,
            "fill": None,
        },
        schema_overrides={"fill": pl.String, "seed": pl.Int32},
    ).with_columns(pl.lit(value).alias(name) for name, value in further.items())


def as_read(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col(pl.String).cast(pl.Categorical))


def sorted_at_once(frames: list[pl.DataFrame]) -> pl.DataFrame:
    return together(frames).sort(KEY, maintain_order=True).unique(KEY, keep="first", maintain_order=True)


DIFFERENT = [
    part(0),
    part(1, seconds=1.5),
    part(2).drop("correct"),
    part(3).with_columns(pl.col("seed").cast(pl.Int64)),
]


@pytest.mark.parametrize("frames", [[part(0)], [part(0), part(2)], DIFFERENT, [part(0), part(0)], [part(0).head(1)]])
@pytest.mark.parametrize("piece", [7, 10_000])
def test_pieces_are_the_sorted_rows_each_once(frames, piece, monkeypatch):
    monkeypatch.setattr(joining, "PIECE_ROWS", piece)
    rows = rows_of([as_read(frame) for frame in frames]).each_once(KEY)
    pieces = list(rows.pieces())
    found, expected = pl.concat(pieces), sorted_at_once(frames)
    assert_frame_equal(found, expected)
    assert found["value"].to_numpy().tobytes() == expected["value"].to_numpy().tobytes(), "zeros keep their sign"
    assert all(frame.schema == rows.kinds and frame.height < 1.5 * piece + 1 for frame in pieces)


def test_of_each_kind_the_rows_in_their_order():
    rows = rows_of([as_read(part(0)), as_read(part(1)), as_read(part(2))]).each_once(KEY)
    found = dict(rows.by(["experiment", "model"]))
    whole = sorted_at_once([part(0), part(1), part(2)])
    assert list(found) == [("occlusion", name) for name in whole["model"].unique(maintain_order=True)]
    for (_, model), of_model in found.items():
        assert_frame_equal(pl.concat(of_model.pieces()), whole.filter(model=model))


def test_what_is_the_same_in_all_rows_is_held_once():
    frames = [as_read(part(seed)) for seed in (0, 2)]
    rows = rows_of(frames)
    assert set(rows.alike.columns) == {"experiment", "model", "seed", "fill"} and rows.alike.height == 1
    assert frames == [], "no column is there twice"


def test_a_part_of_pieces_has_the_bytes_of_one_that_is_written_at_once(monkeypatch):
    def written() -> bytes:
        rows, file = rows_of([as_read(part(0, 5000)), as_read(part(1, 5000))]).each_once(("image",)), io.BytesIO()
        write_pieces(file, rows.pieces(), rows.kinds, ["a GPU"])
        return file.getvalue()

    whole = pl.read_parquet(io.BytesIO(written()))
    assert written() == write_part(whole, ["a GPU"])
    monkeypatch.setattr(joining, "PIECE_ROWS", 10)
    assert_frame_equal(pl.read_parquet(io.BytesIO(written())), whole)


def test_rows_in_order_are_not_copied():
    frame = as_read(sorted_at_once([part(0)]))
    assert joining.each_once(frame, KEY) is frame
    assert_frame_equal(plain(joining.each_once(frame[::-1], KEY)), plain(frame))
    assert joining.each_once(frame.clear(), KEY).is_empty()


def test_equal_rows_that_hold_no_quantity_are_counted_and_kept_once():
    rows = rows_of([as_read(pl.DataFrame({"image": ["a"], "model": ["m"], "decision": [3]})) for _ in range(2)])
    assert len(rows.places) == 2
    (only,) = rows.each_once(("image", "model")).pieces()
    assert only.rows() == [("a", "m", 3)]
