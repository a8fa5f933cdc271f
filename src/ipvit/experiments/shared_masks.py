"""Masks that images share, in records of protocol ``authors``."""

from __future__ import annotations

import polars as pl

from ipvit.analysis.columns import SHARED_MASK

_SHARED = ("batch", "batch (authors)")
"""Scopes of masks that images share."""


def with_shared_masks(records: pl.DataFrame) -> pl.DataFrame:
    """Return records that say which images share a mask: -1 where older records do not say which one."""
    if "mask_scope" not in records.columns or not records["mask_scope"].is_in(_SHARED).any():
        return records
    number = pl.col(SHARED_MASK) if SHARED_MASK in records.columns else pl.lit(None, dtype=pl.Int32)
    shared = pl.when(pl.col("mask_scope").is_in(_SHARED)).then(number.fill_null(-1))
    return records.with_columns(shared.alias(SHARED_MASK))
