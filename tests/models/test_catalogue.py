"""What ``ipvit models`` says, and that it is true."""

from __future__ import annotations

import json

import pytest
import torch

from ipvit.cli import main
from ipvit.errors import InputError
from ipvit.models.catalogue import (
    PAPER_CAPABILITIES,
    TIMM_CAPABILITIES,
    TORCHVISION_CAPABILITIES,
    capabilities_of,
    catalogue,
    describe,
    matching,
    publisher,
)
from ipvit.models.sources.paper import build_paper
from ipvit.models.zoo.paper import NETWORKS


def test_names_are_unique_and_come_from_all_sources() -> None:
    entries = catalogue()
    assert len({entry.name for entry in entries}) == len(entries)
    assert {entry.source for entry in entries} == {
        "demo",
        "tin50",
        "paper",
        "torchvision",
        "open_clip",
        "timm",
    }


def test_wildcards_fit_names_with_or_without_their_source() -> None:
    found = {entry.name for entry in matching("deit_*")}
    assert {"demo:deit_micro", "paper:deit_tiny", "deit_tiny_patch16_224"} <= found
    assert {entry.name for entry in matching("paper:t2t*")} == {f"paper:{name}" for name in NETWORKS if "t2t" in name}


def test_nothing_found_is_answered_with_close_names() -> None:
    with pytest.raises(InputError, match=r"no model matches 'paper:deit_tinny'\. Did you mean 'paper:deit_tiny'"):
        matching("paper:deit_tinny")


@pytest.fixture
def without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no weights: on the meta device they have no values, and timm takes most of the time to draw them."""
    monkeypatch.setattr("timm.layers.weight_init._trunc_normal_", lambda tensor, *_: tensor, raising=False)


@pytest.mark.usefixtures("without_weights")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_stated_capabilities_of_the_papers_networks_are_the_adapters(name: str) -> None:
    adapters = pytest.importorskip("ipvit.models.adapters")
    with torch.device("meta"):
        network = build_paper(NETWORKS[name])
    assert adapters.find_adapter(network).capabilities == capabilities_of(NETWORKS[name])


@pytest.mark.usefixtures("without_weights")
@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("deit_tiny_patch16_224", "deit"),
        ("vit_tiny_patch16_224", "vision_transformer"),
        ("resnet18", "resnet"),
        ("regnety_002", "regnet"),
        ("efficientnet_b0", "efficientnet"),
        ("mobilenetv3_small_050", "mobilenetv3"),
        ("convnext_atto", "convnext"),
        ("swin_tiny_patch4_window7_224", "swin_transformer"),
        ("swinv2_tiny_window8_256", "swin_transformer_v2"),
        ("eva02_tiny_patch14_336", "eva"),
        ("beit_base_patch16_224", "beit"),
        ("naflexvit_base_patch16_gap", "naflexvit"),
        ("cait_xxs24_224", "cait"),
        ("xcit_nano_12_p8_224", "xcit"),
        ("tnt_s_patch16_224", "tnt"),
        ("hiera_tiny_224", "hiera"),
        ("maxvit_pico_rw_256", "maxxvit"),
        ("mobilevit_xxs", "mobilevit"),
        ("mambaout_femto", "mambaout"),
        ("efficientvim_m1", "efficientvim"),
    ],
)
def test_the_stated_capabilities_of_timms_families_are_the_adapters(name: str, family: str) -> None:
    adapters = pytest.importorskip("ipvit.models.adapters")
    import timm

    assert matching(name)[-1].family == family
    with torch.device("meta"):
        network = timm.create_model(name)
    assert adapters.find_adapter(network).capabilities == TIMM_CAPABILITIES[family]


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("resnet18", "resnet"),
        ("vgg11", "vgg"),
        ("alexnet", "alexnet"),
        ("squeezenet1_1", "squeezenet"),
        ("densenet121", "densenet"),
        ("efficientnet_b0", "efficientnet"),
        ("mobilenet_v3_small", "mobilenetv3"),
        ("convnext_tiny", "convnext"),
        ("swin_t", "swin_transformer"),
        ("vit_b_16", "vision_transformer"),
    ],
)
def test_the_stated_capabilities_of_torchvisions_families_are_the_adapters(name: str, family: str) -> None:
    adapters = pytest.importorskip("ipvit.models.adapters")
    import torchvision.models as zoo

    assert matching(f"torchvision:{name}")[0].family == family
    with torch.device("meta"):
        network = zoo.get_model(name, weights=None)
    assert adapters.find_adapter(network).capabilities == TORCHVISION_CAPABILITIES[family]


def test_every_network_of_the_paper_has_a_family_with_capabilities_and_a_publisher() -> None:
    for network in NETWORKS.values():
        assert network.family in PAPER_CAPABILITIES
        assert publisher(network)
        json.dumps(describe(network))


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setenv("COLUMNS", "80")
    code = main(["models", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("arguments", [(), ("deit*",), ("--paper",), ("torchvision:*",)])
def test_the_listing_fits_eighty_columns(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run(capsys, monkeypatch, *arguments)
    assert code == 0
    assert max(len(line) for line in out.splitlines()) <= 80


def test_the_overview_names_families_and_a_pattern_names_networks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = run(capsys, monkeypatch)
    assert "DeiT-SIN: deit_t_sin, deit_t_sin_dist" in out
    assert "deit_base_patch16_384" not in out
    _, out, _ = run(capsys, monkeypatch, "deit_base*")
    assert "deit_base_patch16_384" in out
    assert "paper:deit_base" in out


def test_the_papers_listing_has_a_line_per_network(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = run(capsys, monkeypatch, "--paper")
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert NETWORKS.keys() <= lines.keys()
    assert lines["tnt_small"].split() == ["tnt_small", "Fig", "5,", "6;", "Tab", "1,", "4", "TnT", "23.8", "224"]
    _, out, _ = run(capsys, monkeypatch, "vit_*", "--paper")
    assert "vit_large" in out
    assert "deit_tiny" not in out


def test_json_is_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = run(capsys, monkeypatch, "--json", "paper:*")
    assert {row["name"] for row in json.loads(out)} == {f"paper:{name}" for name in NETWORKS}
    _, out, _ = run(capsys, monkeypatch, "--json", "--paper", "resnet50")
    (row,) = json.loads(out)
    assert row["parameters"] == 25557032
    assert row["weights"].endswith("resnet50-0676ba61.pth")


def test_a_pattern_that_fits_nothing_exits_with_two(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run(capsys, monkeypatch, "deit_smol*")
    assert (code, out) == (2, "")
    assert err.startswith("ipvit: no model matches 'deit_smol*'")
    code, _, err = run(capsys, monkeypatch, "convnext_atto", "--paper")
    assert code == 2
    assert "no network of the paper matches 'convnext_atto'" in err
