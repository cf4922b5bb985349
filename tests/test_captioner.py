"""Words for photographs: a small captioner with random weights in the place of the downloaded one."""

import json

import pytest
import torch

from iso3d_core.config import GenerateConfig
from iso3d_core.methods import guides
from iso3d_core.presets import with_method
from iso3d_core.priors.captioner import _load, caption
from iso3d_core.priors.words import ClipPair
from iso3d_core.types import InputError, Reference

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "mug", "house", "on", "the", "table"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ISO3D_HOME", str(tmp_path))
    _load.cache_clear()
    return tmp_path / "captioner" / "captioner"


@pytest.fixture
def captioner(home):
    """GIT, small and untrained, which says nothing but words."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 16}  # fmt: skip
    config = transformers.GitConfig(
        vision_config=vision, vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64, bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    model = transformers.GitForCausalLM(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(0, 0.5)
        model.output.bias[:5] = -50  # words only
    model.save_pretrained(home)
    (home / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    tokenizer = transformers.BertTokenizerFast(str(home / "vocab.txt"))
    tokenizer.save_pretrained(home)
    settings = {
        "image_processor_type": "CLIPImageProcessor", "processor_class": "GitProcessor", "do_resize": True,
        "size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32},
        "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3,
    }  # fmt: skip
    (home / "preprocessor_config.json").write_text(json.dumps(settings))
    return model


def reference(seed=0):
    rgba = torch.rand(4, 40, 40, generator=torch.Generator().manual_seed(seed))
    rgba[3] = 0
    rgba[3, 8:32, 8:32] = 1
    return Reference(rgba)


def test_without_weights_there_are_no_words(home):
    assert caption(reference()) is None


def test_the_captions_are_those_of_the_model_on_the_white_image(captioner):
    shown = reference()
    text = caption(shown)
    pixels = torch.nn.functional.interpolate(shown.on_white()[None], (32, 32), mode="bicubic", antialias=True)
    tokens = captioner.generate(pixel_values=(pixels.clamp(0, 1) - 0.5) / 0.5, max_length=40)
    wanted = " ".join(WORDS[i] for i in tokens[0].tolist() if i > 4)
    assert text is not None
    assert len(text.split()) > 20
    assert text.split()[:3] == wanted.split()[:3]
    # What is behind the object is not looked at.
    other = shown.rgba.clone()
    other[:3] = torch.where(other[3:] > 0.5, other[:3], 0.3)
    assert caption(Reference(other)) == text


def test_a_damaged_captioner_is_named(home):
    pytest.importorskip("transformers", reason="transformers is not installed")
    home.mkdir(parents=True)
    (home / "config.json").write_text("{}")
    with pytest.raises(InputError, match="models pull captioner"):
        caption(reference())


def test_whose_words_describe_an_image(monkeypatch):
    """The user's; else the captioner's, for towers that know the world; else what CLIP finds."""
    monkeypatch.setattr(guides, "caption", lambda _: "a teapot of porcelain")
    config = with_method(GenerateConfig(), "consistent123")
    found = ClipPair.load("tiny").describe(reference()).text
    assert guides.describe(config, reference())[0].text == found
    load = ClipPair.load

    def worldly(bundle):
        pair = load(bundle)
        monkeypatch.setattr(pair, "describe", lambda image, own=pair.describe(reference()): own)
        pair.words = None
        return pair

    monkeypatch.setattr(ClipPair, "load", staticmethod(worldly))
    assert guides.describe(config, reference())[0].text == "a teapot of porcelain"
    own = with_method(GenerateConfig(), "consistent123", "a blue teapot")
    assert guides.describe(own, reference())[0].text == "a blue teapot"
