"""What models are compared by takes few bytes, and comes back in every bit."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ipvit.analysis.records.packed import PackedRows
from ipvit.analysis.reduction import Values, values_of

RANDOM = np.random.default_rng(0)
N = 2000
FEW = RANDOM.integers(0, 6, N) / 5
SOME_MISSING = np.where(RANDOM.random(N) < 0.1, np.nan, FEW)
ZEROS = np.where(RANDOM.random(N) < 0.5, 0.0, -0.0)
MEASURED = RANDOM.random(N, dtype=np.float32).astype(np.float64)
MEANS = MEASURED / 3
LARGE = np.full(N, 1e300) * RANDOM.random(N)


@pytest.mark.parametrize(
    ("row", "bytes_each"),
    [(FEW, 1), (SOME_MISSING, 1), (ZEROS, 1), (MEASURED, 4), (MEANS, 8), (LARGE, 8), (np.append(FEW, MEANS), 8)],
)
def test_rows_come_back_in_every_bit(row, bytes_each):
    packed = PackedRows([row, row[::-1]])
    assert packed[0].tobytes() == row.tobytes() and packed[0].dtype == np.float64
    assert packed[[1, 0]].tobytes() == np.array([row[::-1], row]).tobytes()
    assert np.asarray(packed).tobytes() == np.array([*packed]).tobytes()
    assert packed.shape == (2, len(row)) and packed.nbytes < 2 * (bytes_each * len(row) + 100)


def test_few_and_no_images():
    assert PackedRows([[0.5], [np.nan]])[0].tolist() == [0.5]
    assert PackedRows([np.zeros(0)])[[0]].shape == (1, 0) and PackedRows([]).shape == (0, 0)


def test_a_network_is_held_in_a_byte_for_each_image_and_condition():
    levels, runs = 10, 5
    records = pl.DataFrame({"image": [f"image {i}" for i in range(N)]})
    records = records.join(pl.DataFrame({"level": range(levels)}), how="cross")
    records = records.join(pl.DataFrame({"run": range(runs)}), how="cross")
    records = records.with_columns(pl.Series("correct", RANDOM.random(records.height) < 0.3))
    found = values_of(records, ["level"], "correct", proportions=True)
    assert found is not None and isinstance(found.means, PackedRows)
    assert found.means.nbytes <= levels * (N + 8 * (runs + 1)) < 0.3 * records.height
    means = records.group_by("image", "level").agg(pl.col("correct").cast(pl.Float64).mean()).sort("level", "image")
    assert np.asarray(found.means).tobytes() == means["correct"].to_numpy().tobytes()


def values(images: list[str], cluster: np.ndarray | None) -> Values:
    means = PackedRows([np.arange(len(images)) % 2])
    return Values(pl.Series(images), ("level",), ((0,),), means, (frozenset({0}),), (cluster,), proportions=True)


def test_models_share_images_and_masks_that_are_equal():
    first, second = values(["a", "b"], np.array([1, 2])), values(["a", "b"], np.array([1, 2]))
    shared = second.sharing(first)
    assert shared.images is first.images and shared.clusters[0] is first.clusters[0]
    for other in (values(["a", "c"], np.array([1, 2])), values(["a", "b"], None), values(["a", "b"], np.array([1, 3]))):
        kept = other.sharing(first)
        assert kept.images.equals(other.images)
        assert kept.clusters[0] is other.clusters[0]
