"""``ipvit bundle``: a run as one file to hand on."""

from __future__ import annotations

from pathlib import Path

from ipvit.core.terminal import Terminal


def bundle(folder: Path, /, *, out: Path | None = None) -> int:
    """Make one zip file of a run: report, tables, figures, manifest, and what was decided of every image.

    It holds no images and no code. report, compare, diff, profile and calibration open it as they open a run folder.

    Parameters
    ----------
    folder
        A run folder.
    out
        The file. [default: the folder's name with .zip, in the working folder]
    """
    from ipvit.verdicts.bundle import bundle as write

    path = write(folder, out)
    size = path.stat().st_size / 1e6
    Terminal().print(f"bundle: {path} ({size:,.1f} MB)", soft_wrap=True, highlight=False)
    return 0
