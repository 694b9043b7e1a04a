"""GenPlugin: its losses against hand-computed values, what each part may change, and any generator as its base."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods
import protocols
from benchmark.method import Method, build_config, replace_nested
from benchmark.run import Interrupted, Run
from benchmark.types import Sequences, Split
from methods.blocks import training
from methods.blocks.generator import Generator, GeneratorConfig
from methods.blocks.semantic_ids import SemanticIds
from methods.blocks.t5 import Shape
from methods.genplugin import GenPlugin, language
from methods.genplugin.language import LanguageEncoder, Substitution
from tests import toys

FEW = {"training": {"epochs": 2}}


@cache
def world() -> Split:
    return protocols.load("loo").split(toys.lonely())


def build(spec: str, run: Run | None = None, **overrides: object) -> Generator:
    entrant = methods.load(spec)
    config = replace_nested(build_config(entrant.cls, entrant.preset, "smoke"), FEW | overrides)
    method = entrant.cls(config, argument=entrant.argument, run=run or Run(seed=0))
    assert isinstance(method, Generator)
    return method


# Losses


def test_contrast_is_both_directions_of_an_in_batch_softmax() -> None:
    one, other = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 3.0]])
    scores = [[1 / 0.5, 0.0], [2 / 0.5, 6 / 0.5]]  # inner products over the temperature
    rows = -math.log(math.exp(2) / (math.exp(2) + 1)) - math.log(math.exp(12) / (math.exp(4) + math.exp(12)))
    columns = -math.log(math.exp(2) / (math.exp(2) + math.exp(4))) - math.log(math.exp(12) / (1 + math.exp(12)))
    assert scores[1][0] == 4
    assert language.contrast(one, other, 0.5).item() == pytest.approx((rows + columns) / 2, rel=1e-5)


def test_divergence_is_kl_both_ways_at_the_temperature() -> None:
    p, q = torch.randn(2, 3, 4, 7, generator=torch.Generator().manual_seed(0)).unbind()
    log_p, log_q = (p / 0.85).log_softmax(-1), (q / 0.85).log_softmax(-1)
    both = F.kl_div(log_q, log_p, log_target=True, reduction="sum") + F.kl_div(
        log_p, log_q, log_target=True, reduction="sum"
    )
    assert language.divergence(p, q, 0.85).item() == pytest.approx(both.item() / 12, rel=1e-5)
    assert language.divergence(p, p, 0.85).item() == 0


def test_item_states_are_sums_over_an_items_codes_and_leave_a_first_token_out() -> None:
    memory = torch.arange(2 * 7 * 2, dtype=torch.float).view(2, 7, 2)
    found = language.item_states(memory, 2, 3)
    torch.testing.assert_close(found[:, 0], memory[:, 1] + memory[:, 2] + memory[:, 3])
    torch.testing.assert_close(found[:, 1], memory[:, 4] + memory[:, 5] + memory[:, 6])


@pytest.mark.parametrize("rule", ["softmax", "share"])
def test_soft_codes_mix_the_likeliest(rule: str) -> None:
    logits, embedding = torch.tensor([[[1.0, 3.0, 2.0, -9.0]]]), torch.eye(4)
    weights = torch.tensor([3.0, 2.0]).softmax(0) if rule == "softmax" else torch.tensor([0.6, 0.4])
    found = language.soft_codes(logits, embedding, Substitution(fusion=2, fusion_rule=rule))[0, 0]
    torch.testing.assert_close(found, torch.tensor([0.0, weights[0], weights[1], 0.0]))


def test_an_unknown_fusion_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown fusion rule 'max'; use softmax or share"):
        language.soft_codes(torch.zeros(1, 1, 3), torch.eye(3), Substitution(fusion_rule="max"))


def test_start_and_first_code_are_never_replaced_and_the_rest_by_the_prediction_for_its_own_place() -> None:
    x, logits = torch.zeros(2, 4, 5), torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1))
    settings = Substitution(probability=1.0, fusion=1)
    found = language.substituted(x, logits, torch.eye(5), settings)
    assert (found[:, :2] == 0).all()
    for place in (2, 3):  # holds code number `place`, which the logits one place earlier predict
        assert torch.equal(found[:, place].argmax(-1), logits[:, place - 1].argmax(-1))
    assert torch.equal(language.substituted(x, logits, torch.eye(5), replace(settings, probability=0.0)), x)


def test_the_share_of_replaced_codes_is_the_one_asked_for() -> None:
    torch.manual_seed(0)
    x, logits = torch.zeros(1, 4, 3), torch.ones(1, 4, 3)
    settings = Substitution(probability=0.4)
    replaced = [(language.substituted(x, logits, torch.ones(3, 3), settings)[0, 2:, 0] > 0) for _ in range(2000)]
    assert torch.stack(replaced).float().mean(0).tolist() == pytest.approx([0.4, 0.4], abs=0.04)


def test_substitution_teaches_the_language_branch() -> None:
    logits = torch.randn(1, 4, 5, requires_grad=True)
    settings = Substitution(probability=1.0)
    language.substituted(torch.zeros(1, 4, 6), logits, torch.randn(5, 6), settings).sum().backward()
    assert logits.grad is not None and (logits.grad[:, 1:3] != 0).any() and (logits.grad[:, 3] == 0).all()


def test_language_states_have_one_place_an_item_and_one_for_the_end() -> None:
    encoder = LanguageEncoder(9, 5, Shape(width=8, heads=2, head_width=4, feed=16), 1).eval()
    vectors = torch.randn(3, 4, 9)
    states = encoder(vectors)
    assert states.shape == (3, 5, 8)
    moved = encoder(torch.cat([vectors[:, :3], 2 * vectors[:, 3:]], 1))
    assert not torch.allclose(states[:, 0], moved[:, 0]), "the encoder reads both ways"


# Rows


def test_without_its_parts_the_plugin_is_its_base() -> None:
    plain = build("tiger").fit(world().train)
    bare = build("genplugin:tiger@no-dsa", plugin={"align": False, "retrieve": False}).fit(world().train)
    cases = world().test.cases
    np.testing.assert_array_equal(bare.recommend(cases, 10).items, plain.recommend(cases, 10).items)
    np.testing.assert_array_equal(bare.recommend(cases, 10).scores, plain.recommend(cases, 10).scores)
    assert bare.report.curve == plain.report.curve


@pytest.mark.parametrize("preset", ["dsa", "no-item-alignment", "no-user-alignment", "replace-0.4", "fusion-1"])
def test_every_part_of_pretraining_changes_the_weights(preset: str) -> None:
    plugin = {"retrieve": False, "substitution": {"first_epoch": 0, "batch_probability": 1.0}}
    whole = _weights(build("genplugin:tiger", plugin=plugin).fit(world().train))
    entrant = methods.load(f"genplugin:tiger@{preset}")
    overrides = replace_nested(build_config(entrant.cls, preset, "smoke"), FEW)
    overrides = replace_nested(overrides, {"plugin": plugin})
    other = _weights(entrant.cls(overrides, argument="tiger", run=Run(seed=0)).fit(world().train))
    assert any(not torch.equal(whole[name], other[name]) for name in whole)


def _weights(method: Method) -> dict[str, Tensor]:
    assert isinstance(method, Generator)
    return method.model.state_dict()


def test_substitution_waits_for_its_epoch() -> None:
    late = build("genplugin:tiger", plugin={"retrieve": False, "substitution": {"first_epoch": 2}})
    never = build("genplugin:tiger", plugin={"retrieve": False, "substitution": {"batch_probability": 0.0}})
    for method in (late, never):
        method.fit(world().train)
    assert late.report.curve[0] == never.report.curve[0]
    assert int(late.model.language.epochs) == late.report.best_epoch


def test_rows_that_differ_in_retrieval_alone_share_their_pretraining(tmp_path: Path) -> None:
    run = Run(seed=0, artifacts_dir=tmp_path)
    first = build("genplugin:tiger@no-rar", run).fit(world().train)
    again = Run(seed=0, artifacts_dir=tmp_path)
    second = build("genplugin:tiger", again).fit(world().train)
    assert "train" not in again.peak_memory and "tune" in again.peak_memory
    assert again.timings["train"] > second.pretraining_seconds == first.pretraining_seconds
    fresh = build("genplugin:tiger").fit(world().train)
    cases = world().test.cases
    np.testing.assert_array_equal(second.recommend(cases, 5).scores, fresh.recommend(cases, 5).scores)
    assert first.report == second.report


def test_retrieval_teaches_the_decoder_alone() -> None:
    before = _weights(build("genplugin:tiger@no-rar").fit(world().train))
    after = _weights(build("genplugin:tiger").fit(world().train))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith("decoder.") for name in moved)


def test_interrupted_tuning_continues_to_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    cases = world().test.cases
    whole = build("genplugin:tiger").fit(world().train).recommend(cases, 5)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += "tune" in stages
        return asked == 3

    stages: set[str] = set()
    folders = {"work_dir": tmp_path / "work", "artifacts_dir": tmp_path / "artifacts"}
    watched = Run(seed=0, report=lambda stage, *_: stages.add(stage), should_stop=stop, **folders)
    monkeypatch.setattr(training, "REPORT_SECONDS", 0.0)
    with pytest.raises(Interrupted):
        build("genplugin:tiger", watched).fit(world().train)
    resumed = build("genplugin:tiger", Run(seed=0, **folders)).fit(world().train).recommend(cases, 5)
    np.testing.assert_array_equal(resumed.items, whole.items)
    np.testing.assert_array_equal(resumed.scores, whole.scores)


# Leaks


def test_training_never_reads_validation_histories_or_test_answers() -> None:
    """Neighbours come from training items, and nobody is his own neighbour."""
    method = build("genplugin:tiger").fit(world().train)
    near, view = method.near, world().train
    rows = near.of_cases(world().test.cases, method._pooled(world().test.cases).numpy())
    own = np.searchsorted(view.users, world().test.cases.users)
    assert (rows >= 0).all(1).any() and not (rows == own[:, None]).any()
    for asked in ("train", "valid", "test"):
        assert near.corpora[asked].windows.items.tolist() == view.sequences.tail(20).items.tolist()


def test_changed_test_answers_change_nothing() -> None:
    plain = build("genplugin:tiger").fit(world().train)
    dataset = toys.lonely()
    items = dataset.items.copy()
    last = dataset.chronological[np.cumsum(np.bincount(dataset.users)[1:]) - 1]
    items[last] = items[last][::-1]
    other = build("genplugin:tiger").fit(protocols.load("loo").split(replace(dataset, items=items)).train)
    first, second = _weights(plain), _weights(other)
    assert (items != dataset.items).any() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_models_of_tokenizer_and_neighbours_do_not_meet_in_one_folder(tmp_path: Path) -> None:
    run = Run(seed=0, work_dir=tmp_path / "work", artifacts_dir=tmp_path / "artifacts")
    method = build("genplugin:letter", run).fit(world().train)
    assert {"collaborative", "user_model"} <= method.training_report().keys()


def test_without_neighbours_the_decoder_is_tuned_all_the_same() -> None:
    method = build("genplugin:tiger@no-neighbours", plugin={"retrieval": {"neighbours": 0}}).fit(world().train)
    assert method.tuning.steps > 0
    assert (method.recommend(world().test.cases, 5).items > 0).all()


def test_neighbours_are_what_the_decoder_sees() -> None:
    """Without any neighbour the answers change; with the mask on, an absent neighbour weighs nothing."""
    method = build("genplugin:tiger").fit(world().train)
    cases = world().test.cases.take(np.arange(4))
    memory, mask = Generator.memory(method, cases)
    none = torch.full((4, 3), -1)
    joined, joined_mask = method._with_neighbours(memory, mask, none)
    tokens = torch.zeros(4, 1, dtype=torch.long)
    with torch.no_grad():
        torch.testing.assert_close(
            method.model.decode(tokens, joined, joined_mask), method.model.decode(tokens, memory, mask)
        )
        with_some = method.model.decode(tokens, *method._with_neighbours(memory, mask, torch.zeros(4, 3).long()))
    assert not torch.allclose(with_some, method.model.decode(tokens, memory, mask))


# Any generator


class Plain(nn.Module):
    """An encoder-decoder that is no T5: torch's own Transformer layers, learned positions."""

    def __init__(self, vocab_size: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.places = nn.Parameter(torch.randn(128, width))
        self.encoder = nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, batch_first=True)
        self.decoder = nn.TransformerDecoderLayer(width, 2, 2 * width, 0.0, batch_first=True)

    def encode(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.embedding(tokens) + self.places[: tokens.shape[1]]
        return self.encoder(x, src_key_padding_mask=None if mask is None else ~mask)

    def decode(self, tokens: Tensor, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
        return self.decode_embedded(self.embedding(tokens), memory, memory_mask)

    def decode_embedded(self, x: Tensor, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
        x = x + self.places[: x.shape[1]]
        causal = torch.ones(x.shape[1], x.shape[1]).triu(1).bool()
        mask = None if memory_mask is None else ~memory_mask
        return self.decoder(x, memory, causal, memory_key_padding_mask=mask) @ self.embedding.weight.T

    def decoding(self, memory: Tensor, memory_mask: Tensor | None = None) -> Search:
        return Search(self, memory, memory_mask)


class Search:
    """Its step function, which reads the whole prefix anew at every step."""

    def __init__(self, model: Plain, memory: Tensor, mask: Tensor | None):
        self.model, self.memory, self.mask = model, memory, mask
        self.prefix: Tensor | None = None

    def __call__(self, tokens: Tensor, parents: Tensor | None = None) -> Tensor:
        if self.prefix is None or parents is None:
            self.prefix = tokens[..., None]
        else:
            kept = self.prefix.gather(1, parents[..., None].expand(-1, -1, self.prefix.shape[2]))
            self.prefix = torch.cat([kept, tokens[..., None]], 2)  # (B, W, T)
        beams = self.prefix.shape[1]
        mask = None if self.mask is None else self.mask.repeat_interleave(beams, 0)
        memory = self.memory.repeat_interleave(beams, 0)
        return self.model.decode(self.prefix.flatten(0, 1), memory, mask)[:, -1].unflatten(0, (-1, beams))


class Foreign(Generator):
    """A third party's generator: own identifiers, own network."""

    @dataclass(frozen=True, kw_only=True)
    class Config(GeneratorConfig):
        pass

    def semantic_ids(self, view):
        items = np.arange(view.n_items)
        codes = np.stack([items // 4, items % 4], 1)
        return SemanticIds(np.concatenate([[[-1, -1]], codes]), [view.n_items // 4 + 1, 4]), {}

    def network(self):
        return Plain(self.ids.vocab_size, self.config.backbone.width)


def test_any_generator_can_be_the_base() -> None:
    cls = GenPlugin.around(Foreign)
    config = replace_nested(
        build_config(cls, None, "smoke"),
        {"backbone": {"width": 16, "heads": 2, "head_width": 8, "feed": 32, "encoder_layers": 1, "decoder_layers": 1}},
    )
    config = replace_nested(config, {"validation_users": 50, "training": {"epochs": 2, "batch_size": 64}})
    method = cls(config, argument="foreign", run=Run(seed=0)).fit(world().train)
    ranking = method.recommend(world().test.cases, 5)
    assert (ranking.items > 0).all() and method.near is not None
    assert ranking.spend.forward_passes == 2


def test_a_base_from_a_file_outside_the_suite(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from methods.tiger import TIGER\n\nclass Mine(TIGER):\n    pass\n\nMETHOD = Mine\n")
    entrant = methods.load(f"genplugin:{path}@no-rar")
    assert entrant.name == "genplugin:mine@no-rar" and entrant.source == str(path)
    assert issubclass(entrant.cls, GenPlugin) and entrant.cls.__mro__[2].__name__ == "Mine"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("genplugin:sasrec", "genplugin cannot build on sasrec, which is no Generator"),
        ("genplugin", "genplugin builds on another method; write one of .*genplugin:tiger"),
        ("genplugin:genplugin", "genplugin builds on another method"),
        ("genplugin:tigre", "unknown method 'tigre'; .*tiger"),
        ("genplugin:tiger@no-sgs", "unknown preset '@no-sgs'.*no-ssg"),
    ],
)
def test_what_cannot_be_a_base_is_told(spec: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        methods.load(spec)


def test_the_base_is_trained_with_the_same_optimiser_budget() -> None:
    for size in ("smoke", "small", "full"):
        ours = build_config(methods.load("genplugin:tiger").cls, None, size)
        base = build_config(methods.load("tiger").cls, None, size)
        assert replace(ours.training, max_minutes=base.training.max_minutes) == base.training
        assert ours.backbone == base.backbone and ours.tokenizer == base.tokenizer


def test_an_empty_history_gets_an_answer() -> None:
    method = build("genplugin:tiger").fit(world().train)
    cases = world().test.cases.take(np.arange(2))
    empty = replace(cases, histories=Sequences.from_rows([[], [1]]), users=cases.users)
    assert (method.recommend(empty, 5).items > 0).all()
