"""Clean accuracy: of a plain network, and of each head of a distilled one."""

import numpy as np
import torch

import ipvit
from helpers.small_runs import photos
from helpers.tiny import tiny_model

QUIET = {"workers": 0, "progress": False}


def test_it_is_the_share_of_images_that_a_plain_loop_gets_right(tmp_path):
    model, data = tiny_model(), photos()
    run = ipvit.run(ipvit.Accuracy(), models=model, data=data, out=tmp_path, **QUIET)
    right = []
    for index in range(len(data)):
        with torch.no_grad():
            logits = model(data.read(index)[None].float() / 255)
        right.append(int(logits.argmax()) == data.labels[index])
    row = run.tables["accuracy"].row(0, named=True)
    assert row["top1"] == 100 * np.mean(right) and row["n_images"] == 30 and "token" not in row
    assert row["top1_low"] < row["top1"] < row["top1_high"]


def test_a_distilled_network_is_read_at_each_head_and_compared_by_their_mean(tmp_path):
    name = "deit_tiny_distilled_patch16_224?img_size=32&depth=1"
    model = ipvit.load_model(name, pretrained=False, label="distilled")
    plain = ipvit.load_model("deit_tiny_patch16_224?img_size=32&depth=1", pretrained=False, label="plain")
    pixels = torch.randint(0, 256, (6, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    classes = list(model.classes[:3])
    with torch.no_grad():
        by_token = model.logits_by_token(pixels.float() / 255)
    labels = by_token["class"][:, :3].argmax(dim=1)  # so that some are right
    data = ipvit.MemoryDataset(pixels, labels.numpy(), classes)
    run = ipvit.run(ipvit.Accuracy(), models=[model, plain], data=data, out=tmp_path, **QUIET)
    found = {(row["model"], row["token"]): row["top1"] for row in run.tables["accuracy"].to_dicts()}
    for token in ("class", "distillation", "mean"):
        expected = (by_token[token].argmax(dim=1) == labels).float().mean().item()
        assert abs(found["distilled (random weights)", token] - 100 * expected) < 1e-4
    assert ("plain (random weights)", "output") in found
    (row,) = run.differences["accuracy"].to_dicts()
    assert (
        abs(
            row["difference"]
            - (found["distilled (random weights)", "mean"] - found["plain (random weights)", "output"])
        )
        < 1e-4
    )
    assert any("head of the distillation token" in text for text in run.analyses["accuracy"].summary(run.tables))
