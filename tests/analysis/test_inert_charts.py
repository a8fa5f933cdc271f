"""Of what is kept of a run, charts are drawn that load and evaluate nothing, and tables come back as they were."""

from __future__ import annotations

import polars as pl
import pytest

from helpers.analysis import BAR
from ipvit.analysis.inert_charts import inert_chart
from ipvit.analysis.last_run import LastRun

PICTURE = BAR | {"mark": "image", "encoding": {"url": {"field": "u"}}}


@pytest.mark.parametrize(
    "chart",
    [
        BAR | {"data": {"url": "https://example.org/x.csv"}},
        BAR | {"data": {"sequence": {"start": 0, "stop": 10}}},
        BAR | {"data": {"values": "a\nb"}},
        BAR | {"datasets": {"x": "https://example.org"}},
        BAR | {"transform": [{"calculate": "1 + 1", "as": "c"}]},
        BAR | {"transform": [{"filter": "datum.a == 1"}]},
        BAR | {"transform": [{"lookup": "a", "from": {"data": {"url": "x.csv"}, "key": "a"}}]},
        BAR | {"mark": {"type": "bar", "color": {"expr": "1"}}},
        BAR | {"mark": {"type": "bar", "href": "x", "url": "x"}},
        BAR | {"encoding": {"color": {"condition": {"test": "true", "value": "red"}, "value": "blue"}}},
        BAR | {"encoding": {"x": {"field": "a", "axis": {"labelExpr": "datum.label"}}}},
        BAR | {"encoding": {"x": {"field": "a", "axis": {"values": {"signal": "[1]"}}}}},
        BAR | {"config": {"signals": [{"name": "s", "update": "1"}]}},
        BAR | {"title": {"text": {"expr": "1"}}},
        BAR | {"layer": [{"mark": {"type": "image", "url": "file:///etc/passwd"}}]},
        PICTURE | {"data": {"values": [{"u": "https://example.org/x.png"}]}},
        PICTURE | {"encoding": {"url": {"field": "u.v"}}, "data": {"values": [{"u": {"v": "x.png"}}]}},
        PICTURE | {"encoding": {"url": {"value": "x.png"}}},
    ],
)
def test_a_chart_that_would_load_or_evaluate_something_is_not_drawn(chart):
    with pytest.raises(ValueError, match=r"^(it|its) "):
        inert_chart(chart)


def test_a_chart_of_somebodys_is_drawn_without_what_reacts_to_clicks():
    condition = {"condition": {"param": "shown", "value": 1}, "value": 0}
    live = BAR | {"params": [{"name": "shown", "select": "point", "bind": "legend"}], "usermeta": {"a": "b"}}
    live["encoding"] = BAR["encoding"] | {"opacity": condition, "href": {"field": "a"}}
    assert inert_chart(live) == BAR | {"encoding": BAR["encoding"] | {"opacity": {"value": 1}}}


def test_a_table_that_is_kept_comes_back_as_it_was():
    frame = pl.DataFrame(
        {
            "model": pl.Series(["a", None], dtype=pl.Categorical),
            "x": [float("nan"), float("-inf")],
            "y": pl.Series([1, None], dtype=pl.UInt8),
            "right": [True, None],
            "many": [[1], [2]],
        }
    )
    kept = LastRun.of("own", "", {"own": frame}, None, {}, notes=[], summary=[], answers={})
    again = LastRun.model_validate_json(kept.model_dump_json()).tables["own"].frame()
    types = {"model": pl.String, "x": pl.Float64, "y": pl.Int64, "right": pl.Boolean}
    assert dict(again.schema) == types
    assert again.equals(frame.select(pl.col(name).cast(dtype) for name, dtype in types.items()))
