"""Figures as files: SVG, PNG or PDF from the same specification as the page's, without a browser or a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vl_convert

from ipvit.files import write_atomic


def save_figure(chart: Any, stem: Path, formats: Sequence[str] = ("svg",)) -> list[Path]:
    """Write a chart as ``STEM.svg`` and so on; return the paths.

    Args:
        chart: an altair chart.
        stem: path without suffix.
        formats: any of ``svg``, ``png`` (two pixels per point), ``pdf``.
    """
    specification = chart.to_json()
    converters = {
        "svg": lambda: _number_clips(vl_convert.vegalite_to_svg(specification)).encode(),
        "png": lambda: vl_convert.vegalite_to_png(specification, scale=2),
        "pdf": lambda: vl_convert.vegalite_to_pdf(specification),
    }
    unknown = set(formats) - set(converters)
    if unknown:
        raise ValueError(f"unknown figure format {unknown.pop()!r}; known: {', '.join(converters)}")
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in formats]
    for path, kind in zip(paths, formats, strict=True):
        write_atomic(path, converters[kind]())
    return paths


def _number_clips(svg: str) -> str:
    """Count the clip paths from 0 in every file; Vega counts them over the life of the process."""
    numbers: dict[str, int] = {}
    return re.sub(r'(id="|url\(#)clip(\d+)', lambda m: f"{m[1]}clip{numbers.setdefault(m[2], len(numbers))}", svg)


def file_name(name: str) -> str:
    """Return a name of a table or figure as a file name."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.") or "figure"
