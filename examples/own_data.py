"""Images that are already in memory: an array, labels, and names for the classes."""

import numpy as np

import ipvit

source = ipvit.load_dataset("demo:trifeature")
images = np.stack([source.read(index).numpy() for index in range(40)])  # (N, 3, H, W) uint8
data = ipvit.MemoryDataset(images, source.labels[:40], source.classes, name="my images")

run = ipvit.run(ipvit.Position(), models="demo:deit_micro", data=data, out="runs/own-data")
print(run.tables["position"].select("model", "place", "top1", "top1_low", "top1_high"))
