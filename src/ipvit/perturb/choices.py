"""What the perturbations can be asked for, by name."""

from __future__ import annotations

from typing import Literal

Fill = Literal["black", "mean", "noise", "blur"]
"""What dropped pixels become."""

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right", "centre"]
"""Where a shrunk image goes on a black canvas."""

Shape = Literal["square", "circle"]
"""Of an adversarial patch."""

Placement = Literal["free", "grid", "off_grid"]
"""Where an adversarial patch may lie; see :class:`ipvit.perturb.patch.PatchGeometry`."""
