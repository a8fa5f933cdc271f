"""The chart of an experiment that draws none of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from ipvit.analysis.base import Analysis
    from ipvit.analysis.charts import Figure
