"""Occlude images for a transformer and a CNN, and ask whether the difference is more than chance."""

import ipvit

run = ipvit.run(
    ipvit.Occlusion(levels=(0, 0.25, 0.5), grid="8x8", runs=2),
    models=["demo:deit_micro", "demo:resnet_micro"],
    data="demo:trifeature",
    out="runs/two-networks",
    limit=60,
)
table = run.tables["occlusion"]
print(table.select("model", "information_loss", "top1", "top1_low", "top1_high"))

# Both networks saw the same images under the same masks, so they can be compared image by image.
print(run.differences["occlusion"])
print("the page:", run.report())
