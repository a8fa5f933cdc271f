"""Heads on the shape token, beside the class token."""

import pytest
import torch

import ipvit
from helpers.plain_loops import coloured, heads_in, probed
from helpers.plain_loops import quiet_vit as vit
from ipvit.data.decode import apply_view
from ipvit.errors import InputError
from ipvit.models.io.probe_head import read_probe, with_probe


@pytest.fixture(scope="module")
def two_tokens() -> ipvit.Model:
    return ipvit.load_model("demo:deit_micro_shape")


def test_the_shape_token_is_read_as_a_plain_forward_gives_it(two_tokens, tmp_path):
    model, data = two_tokens, coloured(10, 1, 64)
    run = probed(
        tmp_path,
        model,
        data,
        train=coloured(24, 0, 64),
        heads=("lbfgs",),
        blocks=(-1,),
        last=("2",),
        tokens=("class", "shape", "class+shape"),
    )
    images = torch.stack([apply_view(data.read(i), model.preprocessing.view) for i in range(10)]).float() / 255
    with torch.no_grad():
        found = model.backbone.forward_intermediates(
            model.normalize(images),
            indices=[4, 5],
            return_prefix_tokens=True,
            output_fmt="NLC",
            intermediates_only=True,
            norm=True,
        )
    (_, fourth), (_, fifth) = found
    wanted = {
        ("5", "class"): fifth[:, 0],
        ("5", "shape"): fifth[:, 1],
        ("5", "class+shape"): fifth[:, :2].flatten(1),
        ("4-5", "shape"): torch.cat([fourth[:, 1], fifth[:, 1]], dim=1),
        ("4-5", "class"): torch.cat([fourth[:, 0], fifth[:, 0]], dim=1),
        ("4-5", "class+shape"): torch.cat([fourth[:, 0], fifth[:, 0], fourth[:, 1], fifth[:, 1]], dim=1),
    }
    assert set(run.tables["probe"].select("blocks", "tokens").rows()) == set(wanted)
    for (blocks, tokens), vectors in wanted.items():
        head = read_probe(heads_in(tmp_path)[f"{blocks}-{tokens}-lbfgs"])
        records = run.records("probe").filter(blocks=blocks, tokens=tokens).sort("image")
        assert records["prediction"].to_list() == (vectors @ head.weight.T + head.bias).argmax(1).tolist()
        probed_model = with_probe(model, head)
        assert torch.allclose(probed_model(images), vectors @ head.weight.T + head.bias, atol=1e-4)


def test_networks_without_a_shape_token_are_measured_on_the_tokens_they_have(tmp_path):
    run = probed(tmp_path / "a", heads=("lbfgs",), last=(), tokens=("class", "shape"))
    assert set(run.tables["probe"]["tokens"]) == {"class"}
    with pytest.raises(InputError, match="vit has no shape token"):
        probed(tmp_path / "b", vit(), heads=("lbfgs",), tokens=("shape",))
