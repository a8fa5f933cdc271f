"""Ranks, filters and groups of records are those of polars; they only copy less."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ipvit.analysis.records.frames import differing, groups, matching, ranks
from ipvit.metrics.numbering import distinct

WORDS = ["é.png", "b/2", "b/10", "a", "B/1", "", "z" * 40]


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical])
def test_ranks_are_those_of_the_sorted_texts(dtype):
    drawn = np.random.default_rng(0).choice(WORDS[:-1], 300)
    values = pl.Series(drawn, dtype=pl.String).cast(dtype)
    order = sorted(set(drawn), key=lambda word: word.encode())
    assert ranks(values).tolist() == [order.index(word) for word in drawn]


def test_ranks_of_nothing_are_nothing():
    assert ranks(pl.Series([], dtype=pl.Categorical)).tolist() == []


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(1).integers(0, 50, 400),
        np.array([3, 3, 0], dtype=np.uint32),
        np.array([10**9, 5, 10**9]),
        np.array([-1, 4, -1]),
        np.array([0.5, 0.25, 0.5]),
        np.array(["b", "a"]),
        np.array([], dtype=np.int64),
    ],
    ids=["dense", "unsigned", "sparse", "negative", "numbers", "texts", "none"],
)
def test_distinct_values_are_those_of_numpy(values):
    found, place = distinct(values)
    names, at = np.unique(values, return_inverse=True)
    assert (found.tolist(), place.tolist()) == (names.tolist(), at.tolist())


@pytest.fixture
def records() -> pl.DataFrame:
    random = np.random.default_rng(2)
    return pl.DataFrame({"mode": random.choice(["a", "b"], 60), "level": random.choice([0.5, 0.0, 1.0], 60)}).select(
        pl.lit("net").alias("model"),
        pl.col("mode").cast(pl.Categorical),
        pl.when(pl.col("level") < 1).then("level").alias("level"),
        pl.lit(None, dtype=pl.String).alias("fill"),
        pl.int_range(60).alias("number"),
    )


@pytest.mark.parametrize("by", [["model", "mode", "level", "fill"], ["level"], ["fill"], ["model", "fill"]])
def test_groups_are_those_of_polars_in_their_order(records, by):
    expected = [
        (key, group["number"].to_list())
        for key, group in records.with_columns(pl.col("fill")).group_by(by, maintain_order=True)
    ]
    found = [(key, group["number"].to_list()) for key, group in groups(records, by, ["number", "not there"])]
    assert found == expected
    assert {tuple(group.columns) for _, group in groups(records, by, ["number"])} == {("number",)}


def test_without_columns_to_tell_them_apart_all_records_are_one_group(records):
    ((key, group),) = groups(records, [], ["number"])
    assert key == () and group["number"].to_list() == list(range(60))


def test_no_records_have_no_groups(records):
    assert list(groups(records.clear(), ["model"], ["number"])) == []


def test_only_columns_of_several_values_tell_rows_apart(records):
    assert differing(records, ["model", "mode", "level", "fill"]) == ["mode", "level"]


def test_where_all_rows_fulfil_a_condition_they_are_not_copied(records):
    assert matching(records, [pl.col("number") >= 0, pl.col("model") == "net"]) is records
    assert matching(records, []) is records
    assert matching(records, [pl.col("level") >= 0]).height == records["level"].count() < 60, "unknown is not fulfilled"
