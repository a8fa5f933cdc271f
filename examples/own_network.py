"""Measure a network of your own: it needs its normalisation, its input size and the names of its outputs."""

import torch
from torch import nn

import ipvit

data = ipvit.load_dataset("demo:trifeature")


class MeanColour(nn.Module):
    """Classifies by the mean colour of the image; it cannot be any good, and it does not care about shuffling."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits for normalised images."""
        return self.head(images.mean(dim=(2, 3)))


torch.manual_seed(0)
model = ipvit.wrap(
    MeanColour(len(data.classes or ())),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    size=64,
    crop_pct=1.0,
    classes=data.classes,
    name="mean colour",
)
run = ipvit.run(
    ipvit.Shuffle(grids=("2x2", "8x8")), models=[model, "demo:deit_micro"], data=data, out="runs/own-network", limit=60
)
print(run.tables["shuffle"].select("model", "grid", "top1", "top1_low", "top1_high"))
