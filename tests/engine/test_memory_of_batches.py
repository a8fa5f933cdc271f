"""A batch size that does not fit into the memory is tried once, and told."""

import torch
from torch import Tensor, nn

import ipvit
from helpers.small_runs import CLASSES, photos, small_occlusion
from helpers.tiny import PatchNet


class Hungry(nn.Module):
    """Runs out of memory on more than three images."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = PatchNet()
        self.refused: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 3:
            self.refused.append(len(x))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(x)


def test_what_did_not_fit_once_is_not_tried_again_and_the_size_that_fits_is_told(tmp_path):
    network = Hungry()
    model = ipvit.wrap(network, size=16, crop_pct=1.0, classes=CLASSES, name="hungry")
    run = ipvit.run(
        small_occlusion(),
        models=[model],
        data=photos(30),
        out=tmp_path,
        batch_size=8,
        workers=0,
        device="cpu",
        progress=False,
    )
    assert run.manifest.status == "done"
    assert network.refused == [8, 4]
    note = next(note for note in run.manifest.notes if "fit into the memory" in note)
    assert note.startswith("occlusion on hungry: 8 at a time did not fit into the memory, 2 at most were measured")
