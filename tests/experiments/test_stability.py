"""How far representations move, without labels: against a plain loop, and on two real networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import ipvit
from helpers.command_line import complaint
from ipvit.cli import main
from ipvit.data.corruption import Corruption
from ipvit.data.decode import apply_view
from ipvit.errors import InputError
from ipvit.experiments.stability.measurement import CleanFeatures
from ipvit.perturb import keys, patchdrop, random_keep, shrink_into, shuffle, shuffle_order

FEW: dict[str, Any] = {
    "grid": "4x4",
    "levels": (0.5,),
    "grids": ("2x2",),
    "corners": ("top-left",),
    "corruptions": ("contrast", "shot_noise"),
}


@pytest.fixture
def flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures without classes."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    (tmp_path / "flat").mkdir()
    for number in range(6):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        coarse.resize((70, 66), Image.Resampling.BICUBIC).save(tmp_path / "flat" / f"{number}.png")
    return tmp_path / "flat"


def measured(data: Any, out: str, name: str = "demo:deit_micro", **settings: Any) -> pl.DataFrame:
    run = ipvit.run(ipvit.Stability(**(FEW | settings)), models=name, data=data, out=out, workers=0, progress=False)
    return run.records("stability")


@pytest.mark.parametrize("name", ["demo:deit_micro", "demo:resnet_micro"])
def test_a_plain_loop_finds_the_same(flat: Path, name: str) -> None:
    records = measured("flat", "run", name)
    data, model = ipvit.load_dataset("flat"), ipvit.load_model(name)
    token = "class" if name.startswith("demo:deit") else "pooled"
    last = model.adapter.n_blocks - 1

    def vector(pixels: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            found = model.tokens(pixels[None], [last])[last].vector(token)[0].double().numpy()
        return found / np.linalg.norm(found)

    view = model.preprocessing.view
    raw = [apply_view(data.read(index), view) for index in range(6)]
    clean = [vector(one.float() / 255) for one in raw]
    side = model.image_size[0]
    for place, one in enumerate(data.ids):
        pixels, image = raw[place].float() / 255, [one]
        small = (round(side * 128 / 224),) * 2
        perturbed = {
            ("occlusion", "50 %"): patchdrop(
                pixels[None], random_keep(keys(image, 0, "occlusion", "random", "4x4", 0, 0.5), (4, 4), 8)
            )[0],
            ("shuffle", "2x2"): shuffle(
                pixels[None], shuffle_order(keys(image, 0, "shuffle", "2x2", 0), (2, 2)), (2, 2)
            )[0],
            ("position", "top-left"): shrink_into(pixels[None], small, "top-left")[0],
            ("corruption", "contrast 3"): Corruption("contrast", 3, jpeg=True)(raw[place], one, 0).float() / 255,
            ("corruption", "shot_noise 3"): Corruption("shot_noise", 3, jpeg=True)(raw[place], one, 0).float() / 255,
        }
        for (kind, setting), changed in perturbed.items():
            similar = [float(vector(changed) @ other) for other in clean]
            others = [value for number, value in enumerate(similar) if number != place]
            (row,) = records.filter(
                (pl.col("image") == one) & (pl.col("perturbation") == kind) & (pl.col("setting") == setting)
            ).to_dicts()
            assert row["cosine"] == pytest.approx(similar[place], abs=1e-4)
            gaps = [value - similar[place] for value in others]
            if min(map(abs, gaps)) > 1e-4:
                assert row["rank"] == 1 + sum(gap > 0 for gap in gaps)
            floor = np.mean([clean[place] @ other for n, other in enumerate(clean) if n != place])
            assert row["floor"] == pytest.approx(floor, abs=1e-4)


def test_masks_of_a_level_that_tables_round_are_those_of_occlusion(flat: Path) -> None:
    records = measured("flat", "run", perturbations=("occlusion",), levels=(1 / 3,))
    data, model = ipvit.load_dataset("flat"), ipvit.load_model("demo:deit_micro")
    assert records["setting"].unique().to_list() == ["33.3333 %"]
    for place, one in enumerate(data.ids):
        pixels = apply_view(data.read(place), model.preprocessing.view)[None].float() / 255
        keep = random_keep(keys([one], 0, "occlusion", "random", "4x4", 0, 1 / 3), (4, 4), 5)
        last = model.adapter.n_blocks - 1
        with torch.no_grad():
            clean, changed = (
                model.tokens(images, [last])[last].vector("class") for images in (pixels, patchdrop(pixels, keep))
            )
        (cosine,) = records.filter(pl.col("image") == one)["cosine"]
        assert cosine == pytest.approx(float(torch.cosine_similarity(clean, changed)), abs=1e-4)


def test_rank_and_floor_of_vectors_whose_angles_are_known() -> None:
    unit = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    features = CleanFeatures(unit, {"a": 0, "b": 1, "c": 2}, lambda _: unit[:0])
    found = features.compared(
        ["a", "b", "new"], torch.stack([unit[0], unit[1], unit[0]]), torch.tensor([[1.0, 3], [0, 9], [-2, 0]])
    )
    assert found["rank"].tolist() == [2, 1, 2]  # a new image is ranked in place of the last: of three, as all are
    assert found["cosine"].tolist() == pytest.approx([10**-0.5, 1, -1])
    assert found["floor"].tolist() == pytest.approx([-0.5, 0, 0.5])


def test_ranks_are_told_in_float32_where_the_network_computes_in_bfloat16() -> None:
    """Clean images a degree apart: in bfloat16 all of them would be as near as the own one, or nearer."""
    angles = torch.deg2rad(torch.arange(40.0))
    unit = torch.stack([angles.cos(), angles.sin()], dim=1)
    features = CleanFeatures(unit, {str(number): number for number in range(40)}, lambda _: unit[:0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = features.compared([str(number) for number in range(40)], unit, unit)
    assert found["rank"].tolist() == [1.0] * 40
    similar = (angles[:, None] - angles).double().cos()
    assert found["floor"].tolist() == pytest.approx(((similar.sum(1) - 1) / 39).tolist(), abs=1e-6)


def test_an_image_beyond_those_that_are_ranked_is_compared_alike(flat: Path) -> None:
    whole, part = measured("flat", "whole"), measured("flat", "part", among=3)
    joined = whole.join(part, on=["image", "perturbation", "setting"], suffix="_part")
    assert joined.height == whole.height
    np.testing.assert_allclose(joined["cosine"].to_numpy(), joined["cosine_part"].to_numpy(), atol=1e-5)
    assert part["among"].unique().to_list() == [3]
    assert part["rank"].max() <= 3


def test_a_limit_changes_nothing_of_what_is_measured(flat: Path) -> None:
    whole = measured("flat", "whole")
    run: Any = ipvit.run(
        ipvit.Stability(**FEW), models="demo:deit_micro", data="flat", out="few", limit=3, workers=0, progress=False
    )
    few = run.records("stability").join(whole, on=["image", "perturbation", "setting"], suffix="_whole")
    assert few.height == 15
    np.testing.assert_allclose(few["rank"].to_numpy(), few["rank_whole"].to_numpy())


def test_the_command_line_needs_no_labels_and_names_what_is_left_out(flat: Path, capsys) -> None:
    command = ["stability", "-m", "demo:deit_micro", "-m", "demo:resnet_micro", "-d", "flat", "--workers", "0"]
    few = ["--grid", "4x4", "--grids", "2x2,5x5", "--corruptions", "contrast", "--out", "run"]
    assert main([*command, *few]) == 0
    told = capsys.readouterr()
    assert "5x5 cells are left out for demo:deit_micro: they do not divide its input of 64x64 pixels" in told.err
    assert "salient occlusion, attacks, styles and cue conflicts are left out" in told.err
    table = ipvit.Run("run").tables["stability"]
    kinds = table.filter(pl.col("model") == "demo:deit_micro")["perturbation"].to_list()
    assert kinds == ["occlusion"] * 3 + ["shuffle"] + ["position"] * 4 + ["corruption"]
    assert table["setting"].to_list()[:3] == ["25 %", "50 %", "75 %"]
    assert "different images have" in " ".join(told.out.split())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--feature", "distillation"], "has no distillation token"),
        (["--perturbations", "shuffle", "--grids", "5x5"], "no grid of 5x5 divides"),
        (["--corruptions", "rain"], "rain"),
        (["--perturbations", "style"], "style"),
    ],
)
def test_what_does_not_fit_is_refused(flat: Path, capsys, more: list[str], said: str) -> None:
    assert main(["stability", "-m", "demo:deit_micro", "-d", "flat", "--grid", "4x4", *more]) == 2
    assert said in complaint(capsys)


def test_one_image_has_no_others(flat: Path) -> None:
    for number in range(1, 6):
        (flat / f"{number}.png").unlink()
    with pytest.raises(InputError, match="ranked among others, and flat has 1"):
        measured("flat", "run")


@pytest.mark.slow
def test_it_orders_two_real_networks_as_correlation_does(real: Path, tmp_path: Path) -> None:
    models = [
        ipvit.load_model(f"tf_efficientnet_lite0@{real / 'efficientnet_lite0.safetensors'}", label="lite0"),
        ipvit.load_model(
            "vit_small_patch14_dinov2?img_size=224&num_classes=0@" + str(real / "dinov2_vits14_saliency.safetensors"),
            label="vit",
        ),
    ]
    run = ipvit.run(
        [ipvit.Stability(perturbations=("occlusion",), among=16), ipvit.Correlation()],
        models=models,
        data=real / "imagenet-sample",
        out=tmp_path / "run",
        limit=16,
        workers=0,
        progress=False,
    )
    cosine, correlation = run.tables["stability"], run.tables["correlation"]
    for level in (25, 50, 75):
        near = dict(cosine.filter(pl.col("setting") == f"{level} %").select("model", "cosine").iter_rows())
        at = correlation.filter((pl.col("information_loss") - level / 100).abs() < 1e-9)
        alike = dict(at.select("model", "correlation").iter_rows())
        assert near["vit"] > near["lite0"] + 0.1
        assert alike["vit"] > alike["lite0"] + 0.1
