"""High-norm patches and attention on prefix tokens: as by hand, with a planted outlier, and on a real network."""

import base64
import io
import json

import numpy as np
import polars as pl
import pytest
import timm
import torch
from PIL import Image

import ipvit
from helpers.plain_loops import measured, normalised, photos, pixels_of, quiet_vit
from ipvit.analysis.heatmaps import mosaic
from ipvit.metrics.attention import norm_ratios

PLACE = 6


def planted() -> ipvit.Model:
    """A network whose patch number 6 has a position so large that it stays an outlier in every block."""
    model = quiet_vit()
    with torch.no_grad():
        model.backbone.pos_embed[0, 1 + PLACE] = 60 * torch.sign(model.backbone.pos_embed[0, 1 + PLACE])
    model.name = "planted"
    return model


def run(model, tmp_path, n=4, **settings):
    return ipvit.run(
        ipvit.Attention(levels=(0.0,), **settings),
        models=model,
        data=photos(n),
        out=tmp_path,
        workers=0,
        progress=False,
    )


def test_norms_and_shares_are_those_written_by_hand(tmp_path):
    model, data = quiet_vit(reg_tokens=2, no_embed_class=True), photos(3)
    records = measured(ipvit.Attention(levels=(0.0,), blocks=(0, 2)), model, data, tmp_path)
    seen = {}
    for row in records.iter_rows(named=True):
        pixels = normalised(model, pixels_of(data, row["image"]))[None]
        with torch.no_grad():
            x = model.backbone._pos_embed(model.backbone.patch_embed(pixels))
            for block in list(model.backbone.blocks)[: row["block"]]:
                x = block(x)
            block = model.backbone.blocks[row["block"]]
            q, k, _ = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, 3, 8))[0].permute(1, 2, 0, 3)
            whole = (q[row["head"]] @ k[row["head"]].T / 8**0.5).softmax(dim=-1)
            patches = block(x)[0, 3:]
        assert row["prefix_share"] == pytest.approx(float(whole[3:, :3].sum(dim=1).mean()), rel=1e-4)
        norms = [float(sum(value**2 for value in patch.tolist()) ** 0.5) for patch in patches]
        ratios = np.array(norms) / np.median(norms)
        assert row["norm_ratio"] == pytest.approx(ratios.max(), rel=1e-4)
        assert row["high_patches"] == (ratios > 4).sum()
        if row["head"] == 0:
            assert np.allclose(np.frombuffer(row["norms"], np.float16), ratios, rtol=2e-3)
        seen[row["block"]] = ratios.max()
    assert seen.keys() == {0, 2}


def test_a_planted_outlier_is_found_in_every_block_and_marked_at_its_place(tmp_path):
    result = run(planted(), tmp_path, blocks=(0, 1, 2))
    table = result.tables["attention"]
    assert (table["norm_ratio"] > 10).all() and (table["high_patches"] == 1).all()
    for row in result.tables["attention-maps"].iter_rows(named=True):
        assert json.loads(row["high"]) == [float(place == PLACE) for place in range(16)]
    said = result.analyses["attention"].answer(result.tables_of("attention"))["planted"]
    assert "have outlying norms" in said and "1 an image exceed 4 times" in said


def test_without_one_no_patch_is_marked(tmp_path):
    result = run(quiet_vit(), tmp_path)
    table = result.tables["attention"]
    assert (table["norm_ratio"] < 4).all() and (table["high_patches"] == 0).all()
    assert all(not any(json.loads(cells)) for cells in result.tables["attention-maps"]["high"])
    said = result.analyses["attention"].answer(result.tables_of("attention"))["vit"]
    assert "No patch of vit has more than 4 times the median norm of its image" in said


def test_the_share_on_prefix_tokens_is_one_where_the_patches_look_at_nothing_else(tmp_path):
    model = quiet_vit(depth=1)
    block = model.backbone.blocks[0]
    with torch.no_grad():  # the class token's key fits every query, the others' are zero
        model.backbone.cls_token.zero_()
        model.backbone.pos_embed[0, 0] = 100 * torch.linspace(-1, 1, 24)
        block.attn.qkv.weight[:48] = 0
        block.attn.qkv.bias[:24] = 50
        block.attn.qkv.bias[24:48] = 0
        block.norm1.weight.zero_()
        block.norm1.bias.zero_()
    table = run(model, tmp_path).tables["attention"]
    assert table["prefix_share"].to_list() == pytest.approx([1 / 17], rel=1e-4)  # all keys alike: one token of 17


def pixels_in(chart, row):
    """The picture that a chart holds for a map."""
    text = json.dumps(chart.to_dict())
    urls = [part.split('"')[0] for part in text.split("data:image/png;base64,")[1:]]
    return np.array(Image.open(io.BytesIO(base64.b64decode(urls[row]))).convert("RGB")).astype(int)


def test_marks_are_blue_where_a_patch_is_an_outlier_and_nowhere_else():
    marks = np.zeros((4, 4))
    marks[1, 2] = 1.0
    maps = [("block 0", "0", np.full((4, 4), 0.5))]
    names = {"title": "maps", "row_title": "", "column_title": "head", "mark_title": "outliers"}
    plain, marked = mosaic(maps, **names), mosaic(maps, marks=[marks], **names)
    differs = (pixels_in(plain, 0) != pixels_in(marked, 0)).any(axis=2)
    side = differs.shape[0] // 4
    assert differs[side : 2 * side, 2 * side : 3 * side].any()
    differs[side : 2 * side, 2 * side : 3 * side] = False
    assert not differs.any()
    middle = pixels_in(marked, 0)[side + side // 2, 2 * side + side // 2]
    assert middle[2] > middle[0] + 50
    assert "blue: outliers" in json.dumps(marked.to_dict()) and "blue" not in json.dumps(plain.to_dict())


def test_the_median_of_an_even_number_of_patches_is_between_the_two_in_the_middle():
    patches = torch.diag_embed(torch.tensor([[1.0, 3.0, 5.0, 40.0]]))
    assert norm_ratios(patches).tolist() == [[0.25, 0.75, 1.25, 10.0]]
    assert norm_ratios(patches[:, :3]).tolist() == [[pytest.approx(1 / 3), 1.0, pytest.approx(5 / 3)]]


def test_parts_of_an_earlier_version_are_read_without_norms():
    analysis = ipvit.Attention().analysis()
    record = {
        "image": "a",
        "information_loss": 0.0,
        "block": 0,
        "head": 0,
        "rows": 1,
        "distance": 3.0,
        "model": "old",
        "weights": "w",
    }
    records = pl.DataFrame([record | {"map": np.array([0.5, 0.5], np.float16).tobytes()}])
    tables = analysis.tables([analysis.reduce(records)])
    assert tables["attention"]["distance"].to_list() == [3.0]
    for table in tables.values():
        assert not any("norm" in name or name.startswith(("high", "prefix")) for name in table.columns)
    assert all("norm" not in said for _, said in analysis.sentences(tables)) and analysis.figures(tables)


@pytest.mark.slow
def test_a_real_vit_s_without_registers_has_no_outliers(real, tmp_path):
    """DINOv2's ViT-S is known to have none, unlike its larger networks; 96 photos."""
    weights = real / "dinov2_vits14_saliency.safetensors"
    if not weights.is_file():
        pytest.skip(f"no {weights.name} in the folder that IPVIT_REAL names")
    model = ipvit.load_model(f"vit_small_patch14_dinov2?img_size=224&num_classes=0@{weights}")
    result = ipvit.run(
        ipvit.Attention(levels=(0.0,), blocks=tuple(range(12))),
        models=model,
        data=str(real / "imagenet-sample"),
        out=tmp_path,
        limit=96,
        workers=0,
        progress=False,
    )
    table = result.tables["attention"]
    assert len(table) == 12 and (table["n_images"] == 96).all()
    assert (table["norm_ratio"] > 1.1).all() and (table["norm_ratio"] < 1.6).all()
    assert (table["high_patches"] == 0).all()


def test_patches_that_attend_to_nothing_but_themselves_have_no_distance(tmp_path):
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 4}
    network = timm.create_model("cait_xxs24_224", **sizes).eval()  # its class token looks at patches in two last blocks
    model = ipvit.wrap(network, mean=(0.5,) * 3, std=(0.5,) * 3, size=32, name="cait")
    found = run(model, tmp_path)
    assert not found.faults
    assert "nan" not in found.lead_of("attention") + " ".join(found.answers_of("attention").values())
    records = found.records("attention")
    assert records.height and records["distance"].is_nan().all() and records["prefix_share"].is_nan().all()
    assert records["norm_ratio"].is_finite().all()
