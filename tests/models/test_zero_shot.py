"""Zero-shot models of open_clip and transformers: their answers are the libraries' own, and traps are sprung here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import ipvit
import ipvit.testing
from helpers.zero_shot import ALL, PROMPTS, WORDS, loaded, pictures, place
from ipvit.errors import InputError
from ipvit.models.sources.huggingface_zero_shot import canonical
from ipvit.models.sources.timm import zero_shot_of
from ipvit.models.zero_shot.texts import OPENAI80

open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("cache")


# open_clip ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["open_clip CLIP", "open_clip SigLIP"])
def test_logits_are_those_of_open_clips_own_zero_shot_classifier(folders: dict[str, str], kind: str) -> None:
    model = loaded(folders[kind], prompts=PROMPTS, class_names=list(WORDS))
    own = open_clip.create_model(f"local-dir:{place(folders[kind])}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{place(folders[kind])}")
    classifier = open_clip.build_zero_shot_classifier(own, tokenizer, WORDS, PROMPTS)
    images = pictures()
    with torch.no_grad():
        features = own.encode_image(model.normalize(images), normalize=True)
        logits = own.logit_scale.exp() * features @ classifier
        logits = logits if own.logit_bias is None else logits + own.logit_bias
        torch.testing.assert_close(model(images), logits, rtol=1e-4, atol=1e-5)
    assert model.classes == WORDS


def test_the_preprocessing_is_that_of_the_models_own_configuration(folders: dict[str, str]) -> None:
    clip, siglip = (loaded(folders[kind]).preprocessing for kind in ALL[:2])
    assert (clip.mean, clip.view.crop_mode, clip.view.crop_pct) == ((0.48, 0.46, 0.41), "center", 1.0)
    assert (siglip.mean, siglip.view.crop_mode) == ((0.5, 0.5, 0.5), "squash")


def test_published_weights_bring_their_own_preprocessing_and_gelu() -> None:
    from ipvit.models.sources.open_clip import _quick_gelu, _stated

    stated = _stated("ViT-B-16-SigLIP2", None, strict=True)
    assert stated is not None
    assert (stated["mean"], stated["resize_mode"]) == ((0.5, 0.5, 0.5), "squash")
    assert _quick_gelu("ViT-B-32", "openai")  # the architecture alone says no
    assert not _quick_gelu("ViT-B-32", "laion2b_s34b_b79k")
    with pytest.raises(InputError, match="give open_clip:ViT-B-32/laion2b_s34b_b79k"):
        _quick_gelu("ViT-B-32-quickgelu", "laion2b_s34b_b79k")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("open_clip:ViT-B-32", r"which weights of open_clip:ViT-B-32\?.*laion2b_s34b_b79k"),
        ("open_clip:ViT-B-32/laion2b", r"knows no weights 'laion2b' of ViT-B-32"),
        ("open_clip:ViT-B-33/openai", r"knows no architecture 'ViT-B-33'.*Did you mean.*ViT-B-32/openai"),
        ("open_clip:ViT-B-32/openai?trust=1", "takes no 'trust'"),
        ("open_clip:ViT-B-32/openai", "cannot (fetch|download)|could not be"),
    ],
)
def test_names_that_cannot_be_loaded_say_what_would_be_right(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        loaded(name)


# transformers ---------------------------------------------------------------------------------------------------------


def own_logits(name: str, texts: list[str], images: torch.Tensor, **more: Any) -> torch.Tensor:
    """The model's own ``logits_per_image``, its texts padded to the length that it was trained with."""
    own = transformers.AutoModel.from_pretrained(place(name)).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place(name))
    length = own.config.text_config.max_position_embeddings
    tokens = tokenizer(texts, **({"padding": "max_length", "max_length": length} | more), return_tensors="pt")
    with torch.no_grad():
        return own(input_ids=tokens["input_ids"], pixel_values=images).logits_per_image


@pytest.mark.parametrize("kind", ALL[2:])
def test_logits_are_the_models_own_logits_per_image(folders: dict[str, str], kind: str) -> None:
    names = [words.lower() for words in WORDS]
    model = loaded(folders[kind], class_names=names)
    images = pictures()
    own = own_logits(folders[kind], [f"a photo of a {words}" for words in names], model.normalize(images))
    torch.testing.assert_close(model(images), own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["transformers SigLIP", "transformers SigLIP 2"])
def test_siglip_reads_lower_case_without_punctuation(folders: dict[str, str], kind: str) -> None:
    """Gemma's tokenizer tells letters of either case apart, and CLIP's prompts end in full stops."""
    plain = loaded(folders[kind], prompts="a photo of a {}", class_names=["saint bernard", "school bus"])
    loud = loaded(folders[kind], prompts="A photo of a {}.", class_names=["Saint_Bernard", "School-bus!"])
    same = loaded(folders[kind], prompts="A photo of a {}.", class_names=["Saint_Bernard", "School bus!"])
    torch.testing.assert_close(same(pictures()), plain(pictures()))
    assert not torch.allclose(loud(pictures())[:, 1], plain(pictures())[:, 1])  # big_vision makes one word of it
    assert canonical("A photo of a School-bus!") == "a photo of a schoolbus"


def test_canonical_texts_are_those_of_the_published_code() -> None:
    from open_clip.tokenizer import canonicalize_text  # a port of big_vision's

    for text in ("A photo of a {Saint_Bernard}.", "  Jack-o'-lantern,  \t(many)!", "café ÉTÉ", "plain"):
        assert canonical(text) == canonicalize_text(text)


@pytest.mark.parametrize("kind", ["transformers SigLIP", "transformers SigLIP 2"])
def test_siglip_is_padded_to_its_full_length_and_sees_no_mask(folders: dict[str, str], kind: str) -> None:
    """What leaves the padding out, or masks it, answers something else: the text tower was trained to read it."""
    names = ["school bus", "tabby cat"]
    model = loaded(folders[kind], class_names=names)
    texts, images = [f"a photo of a {words}" for words in names], model.normalize(pictures())
    assert not torch.allclose(model(pictures()), own_logits(folders[kind], texts, images, padding="longest"))
    own = transformers.AutoModel.from_pretrained(place(folders[kind])).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place(folders[kind]))
    tokens = tokenizer(texts, padding="max_length", max_length=64, return_tensors="pt")
    mask = (tokens["input_ids"] != tokenizer.pad_token_id).long()
    with torch.no_grad():
        masked = own(input_ids=tokens["input_ids"], attention_mask=mask, pixel_values=images).logits_per_image
    assert not torch.allclose(model(pictures()), masked)


def test_the_length_is_the_text_towers_where_the_tokenizer_states_none(folders: dict[str, str]) -> None:
    """SigLIP 2's tokenizer states no length, so ``padding="max_length"`` alone pads nothing."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(place(folders["transformers SigLIP 2"]))
    assert tokenizer.model_max_length > 1e20
    assert "padded to 64 tokens" in loaded(folders[ALL[4]], class_names=["a", "b"]).texts.prepared


def test_siglips_logits_have_its_scale_and_its_bias(folders: dict[str, str]) -> None:
    """Their sigmoids are small, for every class: that is the bias, and no fault."""
    model = loaded(folders["transformers SigLIP"], class_names=list(WORDS))
    own = transformers.AutoModel.from_pretrained(place(folders["transformers SigLIP"]))
    with torch.no_grad():
        scale, bias = float(own.logit_scale.exp()), float(own.logit_bias)
    cosines = (model(pictures()) - bias) / scale
    assert cosines.abs().max() <= 1
    assert cosines.std() > 1e-4
    assert model(pictures()).sigmoid().max() < 0.99


def test_siglip_2_of_variable_resolution_is_refused_by_name(tmp_path: Path) -> None:
    config = transformers.Siglip2Config(architectures=["Siglip2Model"])
    config.save_pretrained(tmp_path / "naflex")
    with pytest.raises(InputError, match=r"variable resolution \(NaFlex\).*siglip2-base-patch16-224"):
        loaded(f"transformers:{tmp_path / 'naflex'}")


def test_a_classifier_made_of_a_clip_is_no_zero_shot_model(folders: dict[str, str], tmp_path: Path) -> None:
    config = transformers.CLIPConfig.from_pretrained(place(folders["transformers CLIP"]), num_labels=3)
    transformers.CLIPForImageClassification(config).save_pretrained(tmp_path / "classifier")
    preprocessor = Path(place(folders["transformers CLIP"])) / "preprocessor_config.json"
    (tmp_path / "classifier" / "preprocessor_config.json").write_text(preprocessor.read_text())
    model = loaded(f"transformers:{tmp_path / 'classifier'}")
    assert (model.n_outputs, model.texts) == (3, None)
    with pytest.raises(InputError, match="prompts are for zero-shot models"):
        loaded(f"transformers:{tmp_path / 'classifier'}", prompts=OPENAI80)


# towers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_the_tower_keeps_what_adapters_promise(folders: dict[str, str], kind: str) -> None:
    model = loaded(folders[kind], class_names=list(WORDS))
    ipvit.testing.check_adapter(model)
    assert {"logits", "gradients", "tokens", "attention", "feature_drop", "token_removal"} <= model.capabilities
    images = model.normalize(pictures())
    logits, maps = model.adapter.with_attention(1, lambda: model.backbone(images))  # in one pass
    torch.testing.assert_close(maps, model.adapter.attention(images, [1])[1])
    torch.testing.assert_close(logits, model.backbone(images), rtol=1e-4, atol=1e-5)


def by_hand(name: str, pixels: torch.Tensor, block: int) -> torch.Tensor:
    """The attention map of a block of a Hugging Face tower, from its own weights."""
    own = transformers.AutoModel.from_pretrained(place(name), attn_implementation="eager").eval()
    with torch.no_grad():
        return own.vision_model(pixel_values=pixels, output_attentions=True).attentions[block]


@pytest.mark.parametrize("kind", ["transformers CLIP", "transformers SigLIP"])
def test_attention_is_what_transformers_itself_returns(folders: dict[str, str], kind: str) -> None:
    model = loaded(folders[kind])
    for block in (0, 2):
        own = by_hand(folders[kind], model.normalize(pictures()), block)
        torch.testing.assert_close(model.attention(pictures(), [block])[block], own, rtol=1e-4, atol=1e-6)


def test_attention_of_open_clips_tower_is_that_of_its_weights(folders: dict[str, str]) -> None:
    model = loaded(folders["open_clip CLIP"])
    tower = model.backbone.trunk
    with torch.no_grad():
        tokens = tower._embeds(model.normalize(pictures()))
        block = tower.transformer.resblocks[0]
        weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
        queries, keys, _ = torch.nn.functional.linear(block.ln_1(tokens), weight, bias).chunk(3, dim=-1)
        split = [part.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for part in (queries, keys)]
        expected = (split[0] @ split[1].transpose(-2, -1) / split[0].shape[-1] ** 0.5).softmax(-1)
    torch.testing.assert_close(model.attention(pictures(), [0])[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_the_gradient_that_attacks_follow_is_that_of_finite_differences(folders: dict[str, str], kind: str) -> None:
    model = loaded(folders[kind], class_names=list(WORDS))
    model.backbone.double()
    model.backbone.weight, model.backbone.bias = model.backbone.weight.float(), model.backbone.bias.float()

    def loss(images: torch.Tensor) -> torch.Tensor:  # in double: differences of float32 are noise
        network = model.backbone
        embedding = network.projection(network.trunk((images - model._mean.double()) / model._std.double()))
        logits = torch.nn.functional.normalize(embedding, dim=1) @ network.weight.double().T + network.bias
        return torch.nn.functional.cross_entropy(logits, torch.tensor([1]))

    image = pictures(1).double().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(image), image)
    steps = [
        torch.randn(image.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for seed in range(3)
    ]
    with torch.no_grad():
        slopes = [float(loss(image + 1e-5 * step) - loss(image - 1e-5 * step)) / 2e-5 for step in steps]
    model.backbone.float()
    ours = pictures(1).requires_grad_()
    (attacked,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(ours), torch.tensor([1])), ours)
    for step, slope in zip(steps, slopes, strict=True):
        assert float((gradient * step).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-8)
        assert float((attacked.double() * step).sum()) == pytest.approx(slope, rel=1e-2, abs=1e-4)


def test_without_class_names_it_is_an_image_tower_that_says_what_is_lacking(folders: dict[str, str]) -> None:
    tower = loaded(folders["open_clip CLIP"])
    assert tower.n_outputs == 0
    assert "tokens" in tower.capabilities
    assert "logits" not in tower.capabilities
    with pytest.raises(InputError, match="no class_names to stand in them"):
        loaded(folders["open_clip CLIP"], prompts=OPENAI80)


def test_timms_name_of_a_tower_says_whose_tower_it_is(tmp_path: Path) -> None:
    assert "CLIP model, without its text tower: for zero-shot answers write open_clip:ViT-B-16/openai" in zero_shot_of(
        "vit_base_patch16_clip_224.openai"
    )
    assert "open_clip:ViT-B-16-SigLIP2/webli" in zero_shot_of("vit_base_patch16_siglip_224.v2_webli")
    for name in ("vit_base_patch16_clip_224.openai_ft_in1k", "resnet50", "hf-hub:owner/name", "no_such_network"):
        assert zero_shot_of(name) == ""


@pytest.mark.slow
def test_timms_tower_is_no_classifier_of_512_classes() -> None:
    model = loaded("vit_base_patch32_clip_224.openai", pretrained=False)
    assert model.n_outputs == 0
    assert "open_clip:ViT-B-32/openai" in model.tower_of


def test_a_head_that_was_fitted_on_one_set_of_prompts_is_for_the_tower(folders: dict[str, str], tmp_path: Path) -> None:
    from ipvit.models.io.probe_head import ProbeHead, save_probe
    from ipvit.models.readout import FeatureSpec

    name = folders["open_clip CLIP"]
    fitted = loaded(name, prompts="the {}", class_names=["cat", "dog"])
    spec = FeatureSpec(2, "class")
    weight = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    view = fitted.preprocessing.view
    head = ProbeHead(weight, torch.zeros(3), (spec,), True, ("a", "b", "c"), view, name, True, fitted.tower_digest)
    save_probe(tmp_path / "head.safetensors", head)
    model = loaded(f"{name}@probe:{tmp_path / 'head.safetensors'}")
    tokens = fitted.tokens(pictures(), [2])[2].vector("class")
    torch.testing.assert_close(model(pictures()), tokens @ weight.T, rtol=1e-4, atol=1e-5)


def test_a_folder_says_what_it_is_in_the_configuration_that_the_digest_knows(
    folders: dict[str, str], tmp_path: Path
) -> None:
    """The activation is in no weight: a tower with the quick GELU is another one."""
    source = Path(place(folders["open_clip CLIP"]))
    other = tmp_path / "quick"
    other.mkdir()
    config = json.loads((source / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = True
    (other / "open_clip_config.json").write_text(json.dumps(config))
    (other / "open_clip_pytorch_model.bin").write_bytes((source / "open_clip_pytorch_model.bin").read_bytes())
    models = [loaded(name) for name in (folders["open_clip CLIP"], f"open_clip:{other}")]
    assert models[0].digest != models[1].digest
    assert not torch.allclose(models[0].backbone(pictures()), models[1].backbone(pictures()))
