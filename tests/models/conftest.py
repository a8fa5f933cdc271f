"""What tests of zero-shot models share: small random ones, and a cache of their texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.zero_shot import clip_folder, gemma_tokenizer, open_clip_folder, open_clip_siglip_folder, siglip_folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where texts are kept that were encoded: empty at first, and of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ipvit" / "texts"


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A model of every kind by its name; none of them changes."""
    root = tmp_path_factory.mktemp("models")
    return {
        "open_clip CLIP": f"open_clip:{open_clip_folder(root / 'a')}",
        "open_clip SigLIP": f"open_clip:{open_clip_siglip_folder(root / 'b')}",
        "transformers CLIP": f"transformers:{clip_folder(root / 'c')}",
        "transformers SigLIP": f"transformers:{siglip_folder(root / 'd')}",
        "transformers SigLIP 2": f"transformers:{siglip_folder(root / 'e', gemma_tokenizer)}",
    }
