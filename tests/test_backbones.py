"""Named sizes, and what becomes of settings: from scratch, from a folder, or one sentence that says what is wrong."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

import methods
import protocols
from benchmark.method import Method, build_config, replace_nested
from benchmark.run import Run
from benchmark.types import TrainingView
from methods.blocks import backbones
from methods.blocks.backbones import SIZES, LanguageModel, Seq2Seq, Size, build, check, check_again, presets
from methods.blocks.causal_lm import Causal, Prompt
from methods.blocks.t5 import T5, Shape
from tests import toys
from tests.backbone_world import LIMIT, ROWS, WORDS, save_causal, save_t5, save_tokenizer

# Parameters of the published weights without the table of tokens (rows x width), which is not part of a backbone.
PUBLISHED = {
    "gpt2": 124_439_808 - 50_257 * 768,
    "qwen2.5-1.5b": 1_543_714_304 - 151_936 * 1536,
    "qwen2.5-3b": 3_085_938_688 - 151_936 * 2048,
    "qwen2.5-7b": 7_615_616_512 - 2 * 152_064 * 3584,
    "qwen3-0.6b": 596_049_920 - 151_936 * 1024,
    "qwen3-1.7b": 1_720_574_976 - 151_936 * 2048,
    "qwen3-4b": 4_022_468_096 - 151_936 * 2560,
}


def from_folder(folder, **settings) -> Causal | Seq2Seq:
    return build(LanguageModel(weights=str(folder), **({"name": "qwen3-0.6b"} | settings)), max_length=LIMIT)


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_named_sizes_have_as_many_parameters_as_the_published_weights(name):
    with torch.device("meta"):
        model = build(LanguageModel(name=name, weights="random", tuning="full"), max_length=512)
    assert count(model) == PUBLISHED[name]


def test_t5_small_has_as_many_parameters_as_the_published_weights():
    with torch.device("meta"):
        model = T5(32_128, Shape(**SIZES["t5-small"].architecture))
    assert count(model) == 60_506_624


def test_sizes_from_scratch_are_as_large_as_they_say():
    def millions(name: str) -> float:
        return count(build(LanguageModel(name=name), max_length=64)) / 1e6

    assert millions("tiny") < 0.1 and millions("tiny-t5") < 0.1
    assert 0.3 < millions("scratch-xs") < 1.5
    assert 5 < millions("scratch-s") < 15 and 5 < millions("scratch-s-t5") < 15


@pytest.mark.parametrize("name", sorted(set(SIZES) - set(PUBLISHED)))
def test_sizes_without_weights_need_no_network(name, monkeypatch):
    def refused(spec: str) -> None:
        raise AssertionError(f"{spec} was looked for")

    monkeypatch.setattr(backbones, "weights_folder", refused)
    model = build(LanguageModel(name=name, weights="random"), max_length=70)
    assert model.tokenizer is None and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", ["tiny", "tiny-t5"])
def test_random_weights_come_from_the_global_generator(name):
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        model = build(LanguageModel(name=name), max_length=20)
        states.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_a_random_model_of_a_lora_size_is_a_frozen_half_precision_base(monkeypatch):
    small = {**SIZES["qwen3-4b"].architecture, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 16}
    monkeypatch.setattr(
        backbones, "SIZES", {"small": Size(kind="causal", hub="a/b", architecture=small, tuning="lora")}
    )
    lm = build(LanguageModel(name="small", weights="random"), max_length=512)
    assert {p.dtype for p in lm.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.dtype for p in lm.parameters() if p.requires_grad} == {torch.float32}
    assert isinstance(lm, Causal) and lm.max_length == 32_768


def test_presets_name_the_size_alone():
    assert presets("t5-small", "gpt2") == {
        "t5-small": {"language_model": {"name": "t5-small"}},
        "gpt2": {"language_model": {"name": "gpt2"}},
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "qwen3-4"}, "unknown language model 'qwen3-4'; did you mean 'qwen3-4b'?"),
        ({"name": "zzz"}, "unknown language model 'zzz'; known language models: gpt2, qwen2.5-1.5b, "),
        ({"name": "tiny", "tuning": "half"}, "unknown tuning 'half' of language model 'tiny'; use full or lora"),
        ({"name": "tiny-t5", "tuning": "lora"}, "LoRA is for decoder-only language models; train a T5 with tuning"),
        ({"name": "gpt2", "weights": "random"}, "a sequence of 1,025 vectors is beyond the language model's limit of"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with torch.device("meta"), pytest.raises(ValueError) as caught:
        build(LanguageModel(**settings), max_length=1025)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_a_folder_decides_the_architecture(tmp_path):
    theirs = save_causal(tmp_path, "gpt2")
    lm = from_folder(tmp_path, tuning="full").eval()
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(lm(x), theirs.transformer(inputs_embeds=x).last_hidden_state, rtol=1e-5, atol=1e-5)
    assert from_folder(tmp_path, name="gpt2").tokenizer is not None


def test_weights_in_several_files_are_all_read(tmp_path):
    save_causal(tmp_path / "one")
    save_causal(tmp_path / "many", max_shard_size="5KB")
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 1
    one, many = (from_folder(tmp_path / name, tuning="full") for name in ("one", "many"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), many.parameters(), strict=True))


def remove_shard(folder):
    save_causal(folder, max_shard_size="5KB")
    sorted(folder.glob("model-*.safetensors"))[-1].unlink()


def remove_weights(folder):
    save_causal(folder)
    (folder / "model.safetensors").unlink()


def cut_weights(folder):
    save_causal(folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def fewer_layers(folder):
    """The config asks for one more layer than there are weights of."""
    save_causal(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}
    (folder / "config.json").write_text(json.dumps(config))


def remove_tokenizer(folder):
    save_causal(folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()


def many_words(folder):
    save_causal(folder)
    save_tokenizer(folder, [f"word{i}" for i in range(ROWS)])


def encoder_decoder(folder):
    save_t5(folder)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (remove_shard, "model-000"),
        (remove_weights, "model.safetensors"),
        (cut_weights, ""),
        (fewer_layers, "of its weights are missing, layers.2."),
        (remove_tokenizer, "it has no tokenizer files (tokenizer.json)"),
        (many_words, f"its tokenizer has {ROWS + 2} tokens but its table only {ROWS} rows"),
        (encoder_decoder, "it is a 't5', not one of gpt2, qwen2, qwen3"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_unusable_folder_is_refused_in_a_sentence(spoil, said, tmp_path):
    spoil(tmp_path)
    with pytest.raises(ValueError) as caught:
        from_folder(tmp_path)
    sentence = str(caught.value)
    assert sentence.startswith(f"the language model in {tmp_path} could not be loaded (") and said in sentence
    assert sentence.endswith("or choose a size from scratch such as scratch-s") and "\n" not in sentence


def test_weights_that_are_not_at_hand_are_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    advice = "pass --language-models DIR, or choose a size from scratch such as scratch-s"
    for spec, reason in (("nobody/nothing", ""), (str(tmp_path / "none"), "there is no such folder")):
        with pytest.raises(ValueError) as caught:
            from_folder(spec)
        sentence = str(caught.value)
        assert sentence.startswith(f"the language model '{spec}' is not at hand (") and advice in sentence
        assert reason in sentence and "\n" not in sentence


# Folders of language models, and what is said of the weights


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder with gpt2 and Qwen3-0.6B as --language-models has them, on a machine without a network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "models"
    save_causal(folder / "gpt2", "gpt2", limit=300)
    save_causal(folder / "Qwen3-0.6B")
    save_t5(folder / "t5-small")
    return folder


def change(folder: Path) -> None:
    """One byte of the weights."""
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(("name", "kind"), [("gpt2", "GPT2Model"), ("qwen3-0.6b", "Qwen3Model"), ("t5-small", None)])
def test_a_size_is_read_from_the_folder_of_its_hub_name(name, kind, models):
    lm = build(LanguageModel(name=name, tuning="full"), max_length=LIMIT, models=models)
    assert lm.width == 16 and (type(lm.model).__name__ if isinstance(lm, Causal) else None) == kind
    with pytest.raises(ValueError, match="is not at hand"):
        build(LanguageModel(name=name, tuning="full"), max_length=LIMIT)


def test_what_is_not_in_the_folder_is_looked_for_as_without_it(models, tmp_path):
    with pytest.raises(ValueError, match="'Qwen/Qwen3-4B' is not at hand"):
        check(LanguageModel(name="qwen3-4b"), models)
    theirs = save_causal(tmp_path / "gpt2", "qwen3")  # a folder by its own path is that folder
    lm = build(LanguageModel(name="gpt2", weights=str(tmp_path / "gpt2")), max_length=LIMIT, models=models)
    assert type(lm.model) is type(theirs.model)
    assert check(LanguageModel(name="gpt2", weights=str(tmp_path / "gpt2")))["language_model"]["weights"] == "gpt2"


def test_weights_are_told_by_name_and_content_and_not_by_place(models, tmp_path):
    settings = LanguageModel(name="gpt2")
    told = check(settings, models)
    assert told == {"language_model": {"weights": "openai-community/gpt2", "sha256": told["language_model"]["sha256"]}}
    assert len(told["language_model"]["sha256"]) == 12
    shutil.copytree(models, tmp_path / "moved")
    (tmp_path / "moved/gpt2/README.md").write_text("read by nobody")
    assert check(settings, tmp_path / "moved") == told
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        other = tmp_path / file
        shutil.copytree(models, other)
        (other / "gpt2" / file).write_bytes((other / "gpt2" / file).read_bytes() + b" ")
        assert check(settings, other)["language_model"]["sha256"] != told["language_model"]["sha256"]


@pytest.mark.parametrize("settings", [{"name": "tiny"}, {"name": "tiny-t5"}, {"name": "gpt2", "weights": "random"}])
def test_nothing_is_said_of_weights_from_scratch(settings, models):
    assert check(LanguageModel(**settings), models) == {}


@pytest.mark.parametrize(
    ("name", "absent"), [("config.json", "config.json"), ("model.safetensors", "weights"), ("tokenizer.json", "token")]
)
def test_an_incomplete_folder_is_told_before_anything_is_trained(name, absent, models):
    (models / "gpt2" / name).unlink()
    with pytest.raises(ValueError, match=f"gpt2 could not be loaded .it has no {absent}.*--language-models"):
        check(LanguageModel(name="gpt2"), models)


def test_a_model_saved_before_weights_were_told_is_not_asked_for_them(tmp_path):
    check_again(LanguageModel(name="gpt2"), tmp_path / "none", {"curve": []})


@cache
def ring() -> TrainingView:
    """Users who walk over twelve items that stand in a ring."""
    histories = [(start + np.arange(6)) % 12 + 1 for start in range(24)]
    text = ["", *(f"wagon number {i}" for i in range(1, 13))]
    return protocols.load("loo").split(toys.dataset("ring", histories, text)).train


def quick(spec: str, run: Run) -> Method:
    entrant = methods.load(spec)
    changes: dict[str, Any] = {"training": {"epochs": 1}}
    if spec.startswith("setrec"):
        changes["collaborative"] = {"training": {"epochs": 1}}
    else:
        changes["tokenizer"] = {"codes": 16, "training": {"epochs": 1}}
    if spec.startswith("genplugin"):
        changes["language_model"] = {"name": "t5-small"}
    config = replace_nested(build_config(entrant.cls, entrant.preset, "smoke"), changes)
    return entrant.cls(config, argument=entrant.argument, run=run)


@pytest.mark.parametrize("spec", ["tiger@gpt2", "setrec@gpt2", "simgr@gpt2", "genplugin:tiger@no-rar"])
def test_a_saved_model_knows_its_weights_and_refuses_others(spec, models, tmp_path):
    run = Run(language_models=models, artifacts_dir=tmp_path / "artifacts")
    method = quick(spec, run).fit(ring())
    said = method.training_report()["language_model"]
    size = "t5-small" if spec.startswith("genplugin") else "gpt2"
    assert said == check(LanguageModel(name=size), models)["language_model"]
    method.save(tmp_path / "model")
    models.rename(tmp_path / "moved")
    moved = Run(language_models=tmp_path / "moved", artifacts_dir=run.artifacts_dir)
    assert quick(spec, moved).load(tmp_path / "model", ring()).training_report()["language_model"] == said
    change(tmp_path / "moved" / size)
    with pytest.raises(ValueError, match=rf"at hand \(\S+, \w{{12}}\) are not those .* \(\S+, {said['sha256']}\)"):
        quick(spec, moved).load(tmp_path / "model", ring())
    stages = set()
    moved.report = lambda stage, *_: stages.add(stage)
    again = quick(spec, moved).fit(ring()).training_report()["language_model"]
    assert again["sha256"] != said["sha256"] and "validate" in stages, "nothing of the first weights is used again"


@pytest.fixture
def t5(tmp_path):
    """Ours from a folder, and transformers' T5 that was saved there."""
    theirs = save_t5(tmp_path)
    ours = from_folder(tmp_path, name="t5-small")
    assert isinstance(ours, Seq2Seq)
    return ours.eval(), theirs


def test_a_loaded_t5_reads_vectors_as_transformers_does(t5):
    ours, theirs = t5
    ids, x = torch.randint(0, ROWS, (2, 6)), torch.randn(2, 3, 16)
    memory = theirs.encoder(input_ids=ids).last_hidden_state
    found = ours.encoder(ours.vocabulary.table[ids])
    torch.testing.assert_close(found, memory, rtol=1e-5, atol=1e-5)
    expected = theirs.decoder(inputs_embeds=x, encoder_hidden_states=memory).last_hidden_state
    torch.testing.assert_close(ours.decoder(x, memory=found), expected, rtol=1e-5, atol=1e-5)


def test_a_loaded_t5_has_words_and_no_table(t5):
    ours, theirs = t5
    assert ours.text("word1 word0").tolist() == [3, 2] and ours.width == 16
    assert torch.equal(Prompt(ours, "word1 word0", 5)(), theirs.shared.weight[[3, 2]])
    assert not any(ROWS in value.shape for value in ours.state_dict().values())


def test_new_rows_of_a_t5_are_as_large_as_its_old_ones(t5):
    ours, _ = t5
    table: Tensor = ours.vocabulary.table
    with torch.no_grad():
        table.mul_(torch.linspace(1, 20, 16)).add_(3)
    rows = ours.new_rows(20_000)
    torch.testing.assert_close(rows.std(0), table.std(0), rtol=0.05, atol=0)
    torch.testing.assert_close(rows.mean(0), table.mean(0), rtol=0, atol=0.05 * table.std().item())
    rows = build(LanguageModel(name="tiny-t5"), max_length=9).new_rows(4000)
    assert abs(rows.mean().item()) < 0.02 and 0.97 < rows.std().item() < 1.03


def test_a_t5_from_scratch_starts_as_the_house_t5_does():
    torch.manual_seed(0)
    ours = build(LanguageModel(name="scratch-s-t5"), max_length=9)
    torch.manual_seed(1)
    whole = dict(T5(3, ours.shape).named_parameters())
    for name, value in ours.named_parameters():
        assert value.shape == whole[name].shape
        torch.testing.assert_close(value.std(), whole[name].std(), rtol=0.15, atol=1e-7)


def test_a_t5_with_checkpointing_has_the_same_gradients_from_two_passes(monkeypatch):
    gradients, calls = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = build(LanguageModel(name="tiny-t5", checkpointing=checkpointing), max_length=9).train()
        ran: list[int] = []
        for layer in (*model.encoder.layers, *model.decoder.layers):
            layer.feed.register_forward_hook(lambda *_, ran=ran: ran.append(1))
        torch.manual_seed(1)  # of the dropout, which must be the same in both passes
        x = torch.randn(2, 5, 32)
        (model.decoder(x, memory=model.encoder(x)) * torch.linspace(-1, 1, 32)).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
        calls.append(len(ran))
    assert calls == [4, 8]
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain)


def test_a_saved_tokenizer_has_no_pad_token(tmp_path):
    """As GPT-2's: nothing here pads texts."""
    save_tokenizer(tmp_path)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).pad_token is None and len(WORDS) == 20


@pytest.mark.parametrize("room", ["tiger", "letter", "simgr", "setrec"])
def test_rooms_tell_of_missing_weights_before_anything_is_trained(room, tmp_path):
    cls = methods.load(room).cls
    missing = {"language_model": {"name": "gpt2", "weights": str(tmp_path / "none")}}
    per_prefix = {"one_pass": False} if room in ("simgr", "setrec") else {}
    config = replace_nested(build_config(cls, None, "smoke"), missing | per_prefix)
    run = Run()
    with pytest.raises(ValueError, match="is not at hand"):
        cls(config, run=run).fit(toys.four_users())
    assert not run.timings, "no vectors were made, no tokenizer and no collaborative model trained"
