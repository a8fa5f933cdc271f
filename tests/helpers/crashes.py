"""A study to interrupt, and waiting for what a process writes."""

import time

STUDY = """\
import sys, time, torch, ipvit
from torch import nn

torch.set_num_threads(1)

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 4))

    def forward(self, x):
        time.sleep(float(sys.argv[3]))
        return self.net(x)

if __name__ == "__main__":
    model = ipvit.wrap(Slow(), size=16, crop_pct=1.0, classes=["c0", "c1", "c2", "c3"])
    experiment = ipvit.Occlusion(grid="4x4", runs=3, levels=(0, 0.25, 0.5, 0.75))
    ipvit.run(experiment, models=model, data=sys.argv[1], out=sys.argv[2], batch_size=3, workers=1, flush_seconds=0.05)
"""


def wait_for(condition, process, seconds=240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            return
        time.sleep(0.01)
