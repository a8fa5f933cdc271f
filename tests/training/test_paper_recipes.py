"""The recipes of the paper's networks, scaled down: they run to their end where a user would run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCALED_DOWN = """
import resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from ipvit.data.synthetic.trifeature import Trifeature
from ipvit.training.recipe import Recipe, load_recipe
from ipvit.training.start import assemble

small = {"img_size": 224, "patch_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2}


def run(name, workers, out):
    content = load_recipe(name).model_dump()
    if content["objective"]["kind"] == "dino":
        content["model"] = {"name": "deit_micro", "kwargs": small | {"dynamic_img_size": True}}
        content["objective"] |= {"out_dim": 32, "hidden_dim": 16, "bottleneck_dim": 8}
    else:
        content["model"] = {"name": "deit_micro", "kwargs": small | {"distilled": True}}
        content["objective"] |= {"teacher": "demo:resnet_micro_sin"}
    content["data"] |= {"workers": workers}
    content |= {"epochs": 1, "warmup_epochs": 0, "precision": "no", "lr_batch": None}
    recipe = Recipe.model_validate(content)
    train, val = Trifeature("natural", "train", 2 * recipe.batch_size, 32), Trifeature("natural", "val", 10, 32)
    assemble(recipe, train, val, out, device="cpu").run(progress=False)


for name in ("deit_t_shape", "dino_vits16"):
    for workers in (2, 8):
        run(name, workers, Path(sys.argv[1]) / f"{name}-{workers}")
"""


@pytest.mark.slow
def test_batches_of_the_papers_size_need_few_open_files(tmp_path: Path):
    """The recipes' policy, batch and views; images and network are small. Every tensor that crosses is an open file."""
    command = [sys.executable, "-c", SCALED_DOWN, str(tmp_path)]
    subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=600)
    for name in ("deit_t_shape", "dino_vits16"):
        for workers in (2, 8):
            rows = [
                json.loads(line) for line in (tmp_path / f"{name}-{workers}" / "log.jsonl").read_text().splitlines()
            ]
            assert [row["epoch"] for row in rows] == [1]
