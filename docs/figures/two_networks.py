"""Draw how two probed networks fare when patches of photos are lost (docs/images/two-networks.svg).

    python docs/figures/two_networks.py RUN

takes the run folder of ``ipvit occlusion`` on both.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

import ipvit
from ipvit.analysis import charts
from ipvit.report.figures import save_figure

NAMES = {"vit": "ViT-S/14 (saliency)", "tf": "EfficientNet-Lite0"}


def main() -> None:
    """Write the figure."""
    table = (
        ipvit.Run(sys.argv[1])
        .tables["occlusion"]
        .with_columns(
            network=pl.col("model").str.extract(r"^([a-z]+)_").replace_strict(NAMES),
            mode=pl.col("mode").str.replace("_", "-"),
        )
    )
    figure = charts.curve(
        table,
        charts.Encoding(
            x="dropped",
            y="top1",
            series="network",
            facet="mode",
            x_title="Share of the image lost",
            y_title="Top-1 accuracy (%)",
            x_format="%",
            y_domain=(0, 100),
        ),
        title="Patches lost from photos of 50 classes",
    )
    save_figure(figure, Path(__file__).parents[1] / "images" / "two-networks", ("svg",))


if __name__ == "__main__":
    main()
