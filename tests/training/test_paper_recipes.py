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

name, workers, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
content = load_recipe(name).model_dump()
small = {"img_size": 224, "patch_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2}
if content["objective"]["kind"] == "dino":
    content["model"] = {"name": "deit_micro", "kwargs": small | {"dynamic_img_size": True}}
    content["objective"] |= {"out_dim": 32, "hidden_dim": 16, "bottleneck_dim": 8}
else:
    content["model"] = {"name": "deit_micro", "kwargs": small | {"distilled": True}}
    content["objective"] |= {"teacher": "demo:resnet_micro_sin"}
content["data"] |= {"workers": workers}
content |= {"epochs": 2, "warmup_epochs": 1, "precision": "no", "lr_batch": None}
recipe = Recipe.model_validate(content)
train, val = Trifeature("natural", "train", recipe.batch_size + 8, 64), Trifeature("natural", "val", 10, 64)
assemble(recipe, train, val, out, device="cpu").run(progress=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 8])
@pytest.mark.parametrize("name", ["deit_t_shape", "dino_vits16"])
def test_batches_of_the_papers_size_need_few_open_files(tmp_path: Path, name, workers):
    """The recipe's policy, batch and views; images and network are small. Every tensor that crosses is an open file."""
    command = [sys.executable, "-c", SCALED_DOWN, name, str(workers), str(tmp_path)]
    subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=300)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
