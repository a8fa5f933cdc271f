"""Draw figure 11 in small (docs/images/patch-sizes.svg): patches of three sizes, in shuffled images.

    python docs/figures/patch_sizes.py [TABLE]

takes the table ``shuffle.csv`` of ``ipvit shuffle`` on networks labelled ``patch4``, ``patch8``, ``patch16`` and
``patch16_long``, by default the copy beside this file, and prints the lines of the page's table.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from ipvit.analysis import charts
from ipvit.report.figures import save_figure

HERE = Path(__file__)
NAMES = {
    "patch4": "4 pixels, 4 epochs",
    "patch8": "8 pixels, 4 epochs",
    "patch16": "16 pixels, 4 epochs",
    "patch16_long": "16 pixels, 16 epochs",
}


def main() -> None:
    """Write the figure, and print a line for each network."""
    shuffled = pl.read_csv(sys.argv[1] if len(sys.argv) > 1 else HERE.with_name("patch_sizes.csv"))
    table = shuffled.with_columns(
        network=pl.col("model").replace_strict(NAMES),
        place=pl.col("cells").cast(pl.String),
        rank=pl.col("model").replace_strict({name: rank for rank, name in enumerate(NAMES)}),
    ).sort("rank", "cells")
    figure = charts.curve(
        table,
        charts.Encoding(
            x="place",
            y="top1",
            series="network",
            x_title="Cells that change places (1: the image as it is)",
            y_title="Top-1 accuracy (%)",
            y_domain=(0, 100),
            x_scale="ordinal",
        ),
        title="Patches of three sizes, shuffled images",
    )
    save_figure(figure, HERE.parents[1] / "images" / "patch-sizes", ("svg",))
    for (network,), part in table.group_by("network", maintain_order=True):
        said = (f"{row['top1']:.1f} [{row['top1_low']:.1f}, {row['top1_high']:.1f}]" for row in part.to_dicts())
        sys.stdout.write(f"| {network} | {' | '.join(said)} |\n")


if __name__ == "__main__":
    main()
