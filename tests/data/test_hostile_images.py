"""Images, names and networks that are not what they should be, all the way to the tables and the report."""

import io
import json
import os
import resource
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ipvit
from helpers.command_line import NETWORK
from helpers.hostile import answer
from helpers.tiny import PatchNet, write_images
from ipvit.core.preprocessing import View
from ipvit.data import load_dataset
from ipvit.data.dataset import MemoryDataset, UnreadableImageError
from ipvit.data.decode import MAX_PIXELS, apply_view, decode
from ipvit.errors import InputError
from ipvit.report.tables.files import to_markdown
from ipvit.report.tables.latex import to_latex
from ipvit.results import Run


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(size=(40, 30)) -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def turned() -> bytes:
    tags = Image.Exif()
    tags[0x0112] = 6
    return encoded(photo(), "JPEG", exif=tags)


def bomb() -> bytes:
    """A PNG of 200,000 x 200,000 pixels in a few bytes: its header is all there is."""
    data = bytearray(encoded(photo((8, 8)), "PNG"))
    data[16:24] = (200_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


GOOD = {
    "plain.jpg": lambda: encoded(photo(), "JPEG"),
    "four inks.jpg": lambda: encoded(photo().convert("CMYK"), "JPEG"),
    "sixteen bits.png": lambda: encoded(Image.fromarray(np.full((20, 20), 40_000, np.uint16)), "PNG"),
    "moving.gif": lambda: encoded(photo().convert("P"), "GIF", save_all=True, append_images=[Image.new("P", (40, 30))]),
    "moving.webp": lambda: encoded(photo(), "WEBP", save_all=True, append_images=[Image.new("RGB", (40, 30))]),
    "turned.jpg": turned,
    "see-through.png": lambda: encoded(photo().convert("RGBA"), "PNG"),
    "one pixel.png": lambda: encoded(Image.new("RGB", (1, 1)), "PNG"),
    "20,000 wide.png": lambda: encoded(Image.new("RGB", (20_000, 1), (9, 99, 9)), "PNG"),
    "20,000 high.png": lambda: encoded(Image.new("RGB", (1, 20_000), (9, 99, 9)), "PNG"),
    "another kind.jpg": lambda: encoded(photo(), "BMP"),
    'it\'s "<img src=x onerror=alert(1)>" 😀 & $5_%.png': lambda: encoded(photo(), "PNG"),
    "a\nline\x1b[31m.png": lambda: encoded(photo(), "PNG"),
    os.fsdecode(b"caf\xe9.png"): lambda: encoded(photo(), "PNG"),
}

BAD = {
    "empty.jpg": (lambda: b"", "the file is empty"),
    "half.jpg": (lambda: encoded(photo((400, 300)), "JPEG")[:2000], "truncated"),
    "half.png": (lambda: encoded(photo((400, 300)), "PNG")[:2000], "truncated"),
    "text.jpg": (lambda: b"this is text", "not an image"),
    "page <b>.jpg": (lambda: b"<!DOCTYPE html><script>alert(1)</script>", "a web page saved under that name"),
    "bomb.png": (bomb, "pixels"),
    "large.png": (lambda: encoded(Image.new("1", (20_000, 20_000)), "PNG"), "pixels"),
}


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory):
    """A run over all of them; what it printed."""
    here = tmp_path_factory.mktemp("hostile images")
    for number, (name, make) in enumerate(GOOD.items()):
        folder = here / "images" / f"c{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(make())
    for name, (make, _) in BAD.items():
        (here / "images" / "c1" / name).write_bytes(make())
    (here / "images" / "c2" / "nowhere.png").symlink_to("there is no such file")
    (here / "images" / "c2" / "again").symlink_to("..", target_is_directory=True)
    (here / "images" / "c2" / "itself.png").symlink_to("itself.png")
    (here / "net.py").write_text(NETWORK)
    before = Path.cwd()
    os.chdir(here)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("IPVIT_TRACEBACK", "1")
            options = ["--grid", "4x4", "--levels", "0", "0.5", "--runs", "1", "--modes", "random", "--workers", "0"]
            code, said = answer(
                ["occlusion", "--model", "net.py:make", "--data", "images", "--out", "out", *options], (0, 1)
            )
    finally:
        os.chdir(before)
    return here, code, said


def test_the_good_images_are_measured_and_the_bad_ones_named_with_a_reason(hostile_run):
    here, code, said = hostile_run
    manifest = json.loads((here / "out" / "manifest.json").read_text())
    skipped = {entry["image"].partition("/")[2]: entry["reason"] for entry in manifest["skipped"]}
    assert code == 0 and manifest["status"] == "done"
    assert skipped.keys() == {*BAD, "nowhere.png", "itself.png"}
    for name, (_, words) in BAD.items():
        assert words in skipped[name], name
    assert "No such file" in skipped["nowhere.png"] and "symbolic links" in skipped["itself.png"]
    assert manifest["images_used"] == len(GOOD) and manifest["selected"] == len(GOOD) + len(skipped)
    assert f"{len(skipped)} unreadable images left out" in said
    records = Run(here / "out").records("occlusion")
    assert records.height == 2 * len(GOOD) and set(records["prediction"]) <= {0, 1, 2, 3}


def test_a_name_that_is_no_utf8_is_spelled_out(hostile_run):
    here, *_ = hostile_run
    assert "c1/caf\\xe9.png" in set(Run(here / "out").records("occlusion")["image"])


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        self.text += data


def test_hostile_file_names_are_text_in_the_report(hostile_run):
    here, *_ = hostile_run
    page = Tags((here / "out" / "report.html").read_text("utf-8"))
    assert "page <b>.jpg" in page.text and page.tags.count("script") == 1 and "b" not in page.tags


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000), (30_000, 2)])
@pytest.mark.parametrize("decoder", ["fast", "pil"])
def test_a_thin_picture_takes_little_memory_and_shows_its_middle(size, decoder):
    picture = Image.new("RGB", size, (10, 20, 30))
    picture.paste(
        (200, 100, 50),
        (size[0] // 2 - 20, 0, size[0] // 2 + 20, size[1])
        if size[0] > 9
        else (0, size[1] // 2 - 20, size[0], size[1] // 2 + 20),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    view = apply_view(decode(encoded(picture, "PNG")), View((64, 64)), decoder)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert view.shape == (3, 64, 64) and grown < 300
    assert (view[:, 32, 32] == torch.tensor([200, 100, 50])).all()


@pytest.mark.parametrize("size", [(400, 3), (3, 400), (101, 37)])
@pytest.mark.parametrize("view", [View((16, 16)), View((16, 24), 0.9), View((16, 16), 1.0, "bilinear")])
def test_resizing_only_the_middle_gives_what_resizing_everything_gives(monkeypatch, size, view):
    pixels = torch.from_numpy(np.array(photo(size))).permute(2, 0, 1)
    whole = apply_view(pixels, view)
    monkeypatch.setattr("ipvit.data.decode.MOST_RESIZED", 0)
    middle = apply_view(pixels, view)
    assert (middle.int() - whole.int()).abs().float().mean() < 10, "at most a pixel beside it"


def test_more_pixels_than_allowed_are_refused_without_a_warning(recwarn):
    side = int(MAX_PIXELS**0.5) + 100
    with pytest.raises(UnreadableImageError, match="pixels"):
        decode(encoded(Image.new("1", (side, side)), "PNG"))
    assert not recwarn.list


def test_whatever_a_decoder_raises_makes_one_image_unreadable(monkeypatch):
    for error in (RuntimeError("avif"), KeyError("x"), ZeroDivisionError(), AssertionError(), AttributeError("y")):

        def fail(*_, error=error, **__):
            raise error

        data = encoded(photo(), "PNG")
        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "convert", fail)
            with pytest.raises(UnreadableImageError):
                decode(data)
        with monkeypatch.context() as patch:
            patch.setattr(Image, "open", fail)
            with pytest.raises(UnreadableImageError):
                decode(data)


def test_links_that_lead_in_circles_end(tmp_path):
    root = write_images(tmp_path / "images", per_class=1, classes=2)
    for name, target in (("c0/up", ".."), ("c0/other", "../c1"), ("c1/other", "../c0"), ("c1/out", "../..")):
        (root / name).symlink_to(target, target_is_directory=True)
    assert sorted(load_dataset(root).ids) == ["c0/000.jpg", "c0/other/000.jpg", "c1/000.jpg", "c1/other/000.jpg"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    root = write_images(tmp_path / "images", per_class=1, classes=2)
    plain = os.open

    def refusing(path, *rest, **options):
        if Path(path).name == "c1":
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path, *rest, **options)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(InputError, match=r"cannot read the folder '.*c1': Permission denied"):
        load_dataset(root)


# --- names -----------------------------------------------------------------------------------------------------------

NAMES = [
    "a b",
    'it\'s "q"',
    "<img src=x onerror=alert(1)>",
    "😀",
    "a\nb|c",
    "x\x1b[31mred",
    "[/bold][red]",
    "$1_{2}%&#~^\\",
]


def named(name: str, seed: int) -> ipvit.Model:
    torch.manual_seed(seed)
    return ipvit.wrap(PatchNet(4), size=16, crop_pct=1.0, classes=["<b>0", "c\n1", "\x1b[31m2", "😀"], name=name)


@pytest.fixture(scope="module")
def named_run(tmp_path_factory) -> Run:
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    data = MemoryDataset(
        images, [0, 1, 2, 3] * 2, ["<b>0", "c\n1", "\x1b[31m2", "😀"], name="<script>d\x1b[1m</script>"
    )
    run = ipvit.run(
        ipvit.Occlusion(grid="4x4", levels=(0, 0.5), runs=1, modes=("random",)),
        models=[named(name, seed) for seed, name in enumerate(NAMES)],
        data=data,
        out=tmp_path_factory.mktemp("names"),
        workers=0,
        progress=False,
    )
    run.report()
    return run


def test_hostile_model_names_come_through_to_every_table(named_run):
    table = named_run.tables["occlusion"]
    assert set(table["model"]) == set(NAMES)
    rows = json.loads((named_run.out / "tables" / "occlusion.json").read_text("utf-8"))
    assert {row["model"] for row in rows} == set(NAMES)
    lines = to_markdown(table).splitlines()
    assert len(lines) == 2 + table.height and "<img" not in "".join(lines)
    assert all(line.replace("\\|", "").count("|") == lines[0].count("|") for line in lines)
    columns = named_run.analyses["occlusion"].columns
    text = to_latex(table, columns)
    rows = [line for line in text.partition("\\midrule")[2].splitlines() if line.endswith(r"\\")]
    assert len(rows) == len(NAMES) and not any(ord(c) < 32 for c in "".join(rows))


def test_hostile_model_names_are_text_in_report_and_drawings(named_run):
    text = (named_run.out / "report.html").read_text("utf-8")
    page = Tags(text)
    assert "<img src=x onerror=alert(1)>" in page.text and "script" in page.tags and page.tags.count("script") == 1
    assert "\x1b" not in text
    for drawing in (named_run.out / "figures").glob("*.svg"):
        svg = drawing.read_text("utf-8")
        assert "<img" not in svg and "\x1b" not in svg
        __import__("xml.dom.minidom").dom.minidom.parseString(svg)


def test_escapes_and_markup_in_names_do_not_reach_the_terminal(named_run, monkeypatch):
    monkeypatch.setenv("IPVIT_TRACEBACK", "1")
    monkeypatch.setenv("FORCE_COLOR", "")
    monkeypatch.setattr(Run, "report", lambda self: "report.html")
    code, _ = answer(["report", str(named_run.out)])
    assert code == 0


# --- numbers that are not finite -------------------------------------------------------------------------------------


class Broken(nn.Module):
    """A network whose answer on dark images is not a number, and on bright ones infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = PatchNet(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits, light = self.inner(x), x.mean((1, 2, 3))
        logits = torch.where((light < -0.9)[:, None], torch.nan, logits)
        return torch.where((light > 0.9)[:, None], torch.inf, logits)


def lit(n: int = 4) -> MemoryDataset:
    """Dark, bright and ordinary images, as many of each."""
    light = torch.cat([torch.zeros(n), torch.ones(n), torch.full((n,), 0.5)])
    images = light.view(-1, 1, 1, 1).expand(-1, 3, 16, 16).contiguous()
    return MemoryDataset(images, [i % 4 for i in range(3 * n)], [f"c{i}" for i in range(4)])


def broken() -> ipvit.Model:
    torch.manual_seed(0)
    half = (0.5, 0.5, 0.5)
    return ipvit.wrap(
        Broken(), size=16, crop_pct=1.0, mean=half, std=half, classes=[f"c{i}" for i in range(4)], name="b"
    )


@pytest.mark.parametrize(
    "experiment",
    [
        ipvit.Occlusion(grid="4x4", levels=(0,), runs=1, modes=("random",)),
        ipvit.Shuffle(grids=("1x1",), runs=1),
        ipvit.Attack(attacks=("fgsm",), epsilons=(2,)),
        ipvit.Accuracy(),
    ],
)
def test_logits_that_are_not_finite_count_as_wrong_and_are_told_of(tmp_path, experiment):
    run = ipvit.run(experiment, models=broken(), data=lit(), out=tmp_path, workers=0, progress=False)
    records = run.records(experiment.name)
    bad = records.filter(records["prediction"] == -1)
    assert bad["image"].n_unique() == 8 and not bad["correct"].any() and bad["confidence"].is_nan().all()
    (note,) = [note for note in run.notes[experiment.name] if "not finite" in note]
    assert f": {bad.height:,} predictions were not finite numbers" in note
    assert note in Tags(run.report().read_text("utf-8")).text
    (run.out / "report.html").unlink()


def transformer() -> ipvit.Model:
    """A small transformer that loses its head on dark images."""
    model = ipvit.load_model("demo:deit_micro")

    def darken(_, inputs, tokens):
        return torch.where((inputs[0].mean((1, 2, 3)) < -1)[:, None, None], torch.nan, tokens)

    model.backbone.patch_embed.register_forward_hook(darken)
    return model


def pictures() -> MemoryDataset:
    images = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    images[:2] = 0
    masks = torch.zeros(6, 64, 64)
    masks[:, 16:48, 16:48] = 1
    return MemoryDataset(images, [0, 1, 2, 3, 4, 5], ipvit.load_model("demo:deit_micro").classes[:6], masks=masks)


@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        (ipvit.Correlation(grid="8x8", levels=(0.5,), runs=1), "values of correlation were not finite"),
        (ipvit.Attention(levels=(0,)), "values of distance are left out of the means"),
        (ipvit.Segment(thresholds=(0.9,)), "results rest on attention that was not finite"),
    ],
)
def test_features_and_attention_that_are_not_finite_are_left_out_and_told_of(tmp_path, experiment, words):
    run = ipvit.run(experiment, models=transformer(), data=pictures(), out=tmp_path, workers=0, progress=False)
    assert run.manifest.status == "done" and any(words in note for note in run.notes[experiment.name])
    table = run.tables[experiment.name]
    counted = table if "mask" not in table.columns else table.filter(table["model"] != "no network")
    assert set(counted["n_images"]) <= {3, 4}, "occlusion may darken one more"
    measured = run.tables[experiment.name].select("^(correlation|distance|jaccard)$").to_series()
    assert measured.is_finite().all()


def test_features_that_are_not_finite_are_not_stored_and_the_images_are_named(tmp_path):
    from ipvit.features.store import FeatureStore
    from ipvit.models.readout import FeatureSpec

    found = FeatureStore(tmp_path).extract(transformer(), pictures(), [FeatureSpec(5, "class")])
    assert list(found.unreadable) == ["00000000", "00000001"] and len(found) == 4
    assert set(found.unreadable.values()) == {"what the network makes of it is not finite"}
    assert np.isfinite(found.matrix([FeatureSpec(5, "class")])).all()
