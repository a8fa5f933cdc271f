"""Draw what plain, stylised and mixed views taught without labels (docs/images/views-without-labels*.svg).

    python docs/figures/views_without_labels.py [NUMBERS...]

takes files as ``examples/views_without_labels.py`` writes them, by default those beside this file, makes a picture
with the name of each, and prints means and ranges over seeds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import altair as alt
import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.looks import COLOURS
from ipvit.report.figures import save_figure

HERE = Path(__file__)
IMAGES = HERE.parents[1] / "images"

VIEWS = ("plain", "stylised", "mixed", "untrained")
PANELS = {
    "knn": "k-NN accuracy (%)",
    "linear": "Linear accuracy (%)",
    "shape_bias": "Shape bias",
    "jaccard": "Jaccard, chosen head (%)",
    "retained": "Retained, half of the patches lost (%)",
}


def views_of(recipe: str) -> str:
    """Return which views a recipe's network was taught by."""
    endings = {"_sin": "stylised", "_shape_global": "mixed", "untrained": "untrained"}
    return next((views for ending, views in endings.items() if recipe.endswith(ending)), "plain")


def panel(table: pl.DataFrame, column: str) -> charts.Figure:
    """Return one measure: a point for each seed, a bar for their mean, a dashed line where a box in the centre is."""
    rows = table.select("views", "seed", value=pl.col(column)).to_dicts()
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("views:N", sort=list(VIEWS), title=None, axis=alt.Axis(labelAngle=0)),
        color=alt.Color("views:N", legend=None, scale=alt.Scale(domain=list(VIEWS), range=list(COLOURS[:4]))),
    )
    value = alt.Y("value:Q", title=PANELS[column], scale=alt.Scale(zero=True))
    points = base.mark_point(filled=True, size=44, opacity=0.85).encode(y=value)
    mean = base.mark_tick(thickness=2, width=26).encode(y=alt.Y("mean(value):Q", title=PANELS[column]))
    layers = [points, mean]
    if column == "jaccard":
        box = alt.Chart(alt.Data(values=[{"value": table["centre_box"].mean()}]))
        layers.append(box.mark_rule(strokeDash=[4, 3], color="#57606a").encode(y="value:Q"))
    return alt.layer(*layers).properties(width=210, height=190)


def told(numbers: pl.Series, digits: int) -> str:
    """Return the mean over seeds, and from where to where they go."""
    mean, low, high = (f"{number:.{digits}f}" for number in (numbers.mean(), numbers.min(), numbers.max()))
    return mean if len(numbers) == 1 else f"{mean} [{low}, {high}]"


def main() -> None:
    """Write the figures, and print a line for each recipe."""
    for file in [Path(name) for name in sys.argv[1:]] or sorted(HERE.parent.glob(f"{HERE.stem}*.csv")):
        table = pl.read_csv(file)
        table = table.with_columns(views=pl.col("recipe").map_elements(views_of, return_dtype=pl.String))
        figure = alt.concat(*(panel(table, column) for column in PANELS), columns=3)
        save_figure(figure.configure(**charts.theme()), IMAGES / file.stem.replace("_", "-"), ("svg",))
        sys.stdout.write(f"{file.name}\n")
        for views in VIEWS:
            part = table.filter(pl.col("views") == views)
            if part.is_empty():
                continue
            said = (told(part[column], 3 if column == "shape_bias" else 1) for column in PANELS)
            sys.stdout.write(f"| {views} | {part.height} | {' | '.join(said)} |\n")


if __name__ == "__main__":
    main()
