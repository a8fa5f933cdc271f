"""Measure several seeds of several recipes alike, and hold the differences against the spread over seeds.

    python examples/views_without_labels.py runs/dino_micro-0 runs/dino_micro-1 runs/dino_micro_sin-0 ...

takes the folders of trainings without labels, named RECIPE-SEED. Without any it measures the bundled network, on few
images. Whatever was measured before is not measured again.
"""

import json
import sys
from pathlib import Path

import polars as pl
import yaml

import ipvit

OUT = Path("runs/views")
FOLDERS = [Path(name) for name in sys.argv[1:]]
IMAGES, FITTED_ON = (1000, 4000) if FOLDERS else (60, 200)


def measured(experiment: ipvit.Experiment, model: str, network: str, data: str = "demo:trifeature") -> ipvit.Run:
    """Run one experiment on one network."""
    return ipvit.run(experiment, models=[model], data=data, out=OUT / network / experiment.name, limit=IMAGES)


def row_of(network: str, weights: str) -> dict[str, object]:
    """Return what one network reaches, in per cent but for the shape bias."""
    probe = ipvit.Probe(
        train="demo:trifeature/natural-train",
        train_limit=FITTED_ON,
        blocks=(-1,),
        last=("4",),
        tokens=("class+patch",),
        heads=("lbfgs",),
    )
    run = measured(probe, weights, network)
    together = pl.col("blocks") != "5"  # the last four blocks, 2 to 5, and not the last one alone
    (linear,) = run.tables["probe"].filter(together).to_dicts()
    (head,) = run.tables["probe-heads"].filter(together).to_dicts()
    classifier = f"probe:{OUT / network / 'probe' / head['file']}"

    conflict = measured(ipvit.ShapeBias(), classifier, network, "demo:trifeature/cue-conflict")
    (bias,) = conflict.tables["shape-bias"].to_dicts()
    masks = measured(ipvit.Segment(), weights, network).tables["segment"]
    jaccard = dict(masks.select("mask", "jaccard").iter_rows())
    occlusion = ipvit.Occlusion(levels=(0, 0.5), grid="8x8", runs=2)
    lost = measured(occlusion, classifier, network).tables["occlusion"]
    (half,) = lost.filter(pl.col("information_loss") == 0.5).to_dicts()
    return {
        "linear": linear["top1"],
        "shape_bias": bias["shape_bias"],
        "shape": bias["shape"],
        "texture": bias["texture"],
        "jaccard": jaccard["chosen head"],
        "centre_box": jaccard["centre box"],
        "occluded": half["top1"],
        "retained": half["retained"],
    }


def main() -> None:
    """Print, and write to ``runs/views/views.csv``, a row for each network."""
    rows = []
    for folder in FOLDERS:
        history = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
        epochs = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))["epochs"]
        if len(history) < epochs:
            print(f"{folder}: {len(history)} of {epochs} epochs are done; left out", file=sys.stderr)
            continue
        recipe, _, seed = folder.name.rpartition("-")
        about = {"recipe": recipe, "seed": int(seed), "epochs": epochs, "knn": history[-1]["val_knn_top1"]}
        rows.append(about | row_of(folder.name, str(folder / "last.safetensors")))
    if not FOLDERS:
        rows.append({"recipe": "demo:dino_micro"} | row_of("bundled", "demo:dino_micro"))
    table = pl.DataFrame(rows)
    table.write_csv(OUT / "views.csv", float_precision=3)
    print(table)


if __name__ == "__main__":
    main()
