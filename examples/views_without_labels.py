"""Measure several seeds of several recipes alike, and hold the differences against the spread over seeds.

    python examples/views_without_labels.py runs/dino_micro_natural-0 runs/dino_micro_sin-0 ...

takes the folders of trainings without labels, named RECIPE-SEED. Without any it measures the bundled network, on few
images. Whatever was measured before is not measured again. Networks of photos are measured on photos:

    ipvit stylize tinyimagenet50/val.tar --cue-conflict --size 64 --resize 64 --out conflict
    python examples/views_without_labels.py runs/tin50_dino_nano*-* --data tinyimagenet50/val.tar \
        --train tinyimagenet50/train.tar --conflict cue-conflict:conflict --masks masks:images,masks
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import polars as pl
import yaml

import ipvit
from ipvit.models.io.checkpoint import save_checkpoint
from ipvit.models.zoo.micro import build_network
from ipvit.training.loop import seeded
from ipvit.training.recipe import load_recipe

OUT = Path("runs/views")

parser = argparse.ArgumentParser()
parser.add_argument("folders", nargs="*", type=Path)
parser.add_argument("--data", default="demo:trifeature", help="images that are measured on")
parser.add_argument("--train", default="demo:trifeature/natural-train", help="images that heads are fitted on")
parser.add_argument("--conflict", default="demo:trifeature/cue-conflict", help="shape and texture of other classes")
parser.add_argument("--untrained", help="a recipe: its network with random weights of three seeds is measured too")
parser.add_argument("--masks", default="demo:trifeature", help="images with masks of their objects")
SETS = parser.parse_args()
IMAGES, FITTED_ON = (1000, 4000) if SETS.folders or SETS.untrained else (60, 200)
TOGETHER = "4"
"""Last blocks that a head reads together; of networks with fewer, all."""


def measured(experiment: ipvit.Experiment, model: str, network: str, data: str = SETS.data) -> ipvit.Run:
    """Run one experiment on one network."""
    return ipvit.run(experiment, models=[model], data=data, out=OUT / network / experiment.name, limit=IMAGES)


def row_of(network: str, weights: str) -> dict[str, object]:
    """Return what one network reaches, in per cent but for the shape bias."""
    probe = ipvit.Probe(
        train=SETS.train,
        train_limit=FITTED_ON,
        blocks=(-1,),
        last=(TOGETHER,),
        tokens=("class+patch",),
        heads=("lbfgs",),
    )
    run = measured(probe, weights, network)
    together = pl.col("blocks").str.contains("-")  # not the last one alone
    (linear,) = run.tables["probe"].filter(together).to_dicts()
    (head,) = run.tables["probe-heads"].filter(together).to_dicts()
    classifier = f"probe:{OUT / network / 'probe' / head['file']}"

    conflict = measured(ipvit.ShapeBias(), classifier, network, SETS.conflict)
    (bias,) = conflict.tables["shape-bias"].to_dicts()
    masks = measured(ipvit.Segment(), weights, network, SETS.masks).tables["segment"]
    jaccard = dict(masks.select("mask", "jaccard").iter_rows())
    occlusion = ipvit.Occlusion(levels=(0, 0.5), grid="8x8", runs=2)
    lost = measured(occlusion, classifier, network).tables["occlusion"]
    (half,) = lost.filter(pl.col("information_loss") == 0.5).to_dicts()
    neighbours = f"{weights}@knn:{SETS.train}?limit={FITTED_ON}"
    (votes,) = measured(ipvit.Accuracy(), neighbours, network).tables["accuracy"].to_dicts()
    return {
        "knn": votes["top1"],
        "linear": linear["top1"],
        "shape_bias": bias["shape_bias"],
        "shape": bias["shape"],
        "texture": bias["texture"],
        "jaccard": jaccard["chosen head"],
        "centre_box": jaccard["centre box"],
        "occluded": half["top1"],
        "retained": half.get("retained"),  # none where nothing is above chance
    }


def with_random_weights(recipe: str, seed: int) -> str:
    """Write the network that a training of this seed begins with, and return the file."""
    wanted = load_recipe(recipe, seed=seed)
    with seeded(seed, "weights"):
        network = build_network(wanted.model.name, 0, **wanted.model.kwargs)
    preprocessing = wanted.data.preprocessing
    about = {
        "architecture": {"name": wanted.model.name, "kwargs": wanted.model.kwargs},
        "classes": [],
        "preprocessing": dataclasses.asdict(preprocessing.view)
        | {"mean": list(preprocessing.mean), "std": list(preprocessing.std)},
    }
    file = OUT / f"untrained-{seed}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(file, network, about)
    return str(file)


def main() -> None:
    """Print, and write to ``runs/views/views.csv``, a row for each network."""
    rows = []
    for folder in SETS.folders:
        history = (folder / "log.jsonl").read_text("utf-8").splitlines()
        epochs = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))["epochs"]
        if len(history) < epochs:
            print(f"{folder}: {len(history)} of {epochs} epochs are done; left out", file=sys.stderr)
            continue
        recipe, _, seed = folder.name.rpartition("-")
        about = {"recipe": recipe, "seed": int(seed), "epochs": epochs}
        rows.append(about | row_of(folder.name, str(folder / "last.safetensors")))
    if SETS.untrained:
        for seed in range(3):
            about = {"recipe": "untrained", "seed": seed, "epochs": 0}
            rows.append(about | row_of(f"untrained-{seed}", with_random_weights(SETS.untrained, seed)))
    if not SETS.folders:
        rows.append({"recipe": "demo:dino_micro"} | row_of("bundled", "demo:dino_micro"))
    table = pl.DataFrame(rows)
    table.write_csv(OUT / "views.csv", float_precision=3)
    print(table)


if __name__ == "__main__":
    main()
