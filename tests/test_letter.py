"""LETTER's own story: both guidances by hand, what their gradients reach, ids that differ from TIGER's by them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import protocols
from benchmark.method import Method, build_config, replace_nested
from benchmark.run import Interrupted, Run
from benchmark.types import Budget, Sequences, Split, TrainingView
from methods.blocks import guidance, tokenizer
from methods.blocks.collaborative import CollaborativeModel
from methods.blocks.guidance import Alignment, Clusters, Diversity, alignment_loss, diversity_loss, mates_of
from methods.blocks.rqvae import RQVAE, Outputs, Quantizer
from methods.letter import LETTER
from methods.tiger import TIGER
from tests import toys

BUDGET = Budget(beam_size=20, list_length=20)
FEW = {"tokenizer": {"training": {"epochs": 4, "batch_size": 10}}, "collaborative": {"training": {"epochs": 1}}}
"""Just enough training for the plumbing."""


def split(dataset: Any) -> Split:
    return protocols.load("loo").split(dataset)


@cache
def view() -> TrainingView:
    return split(toys.conveyor(n_items=40, n_users=60, length=6)).train


def config(preset: str | None = None, cls: type[Method] = LETTER, **overrides: Any) -> Any:
    few = FEW if cls is LETTER else {"tokenizer": FEW["tokenizer"]}
    return replace_nested(replace_nested(build_config(cls, preset, "smoke"), few), overrides)


def codes_of(settings: Any, run: Run | None = None, cls: type[Any] = LETTER, of: TrainingView | None = None) -> Any:
    return cls(settings, run=run or Run()).semantic_ids(of or view())[0].codes


@cache
def usual_codes() -> np.ndarray:
    return codes_of(config())


# Alignment


def test_alignment_by_hand() -> None:
    quantized = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    scores = [[1, 0, 3], [0, 2, 0], [1, 1, 3]]  # inner products, every code against all vectors
    expected = [-row[i] + math.log(sum(map(math.exp, row))) for i, row in enumerate(scores)]
    assert alignment_loss(quantized, vectors).item() == pytest.approx(sum(expected) / 3)


def test_each_item_is_aligned_with_its_own_vector() -> None:
    vectors = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    items = torch.tensor([7, 2, 5])
    one = Alignment(0.5, vectors)
    outputs = outputs_of(items=items, quantized=3 * torch.from_numpy(vectors)[items])
    expected = alignment_loss(3 * torch.from_numpy(vectors[[7, 2, 5]]), torch.from_numpy(vectors[[7, 2, 5]]))
    assert one(outputs).item() == pytest.approx(0.5 * expected.item())
    assert not list(one.parameters()) and not one.state_dict()  # frozen, and not carried along in checkpoints


def outputs_of(**known: Tensor) -> Outputs:
    return Outputs(**{name: known.get(name, torch.zeros(())) for name in Outputs._fields})


# Diversity


def test_diversity_by_hand() -> None:
    books = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [-1.0, 1.0]], [[0.0, 1.0]] * 4])
    codes, partners = torch.tensor([[0, 1], [2, 3], [3, 0]]), torch.tensor([[1, 2], [3, -1], [2, 1]])
    # Level 1: products of code 0 with 1, 2, 3; of 2 with 0, 1, 3; of 3 with 0, 1, 2. Level 2: all alike.
    first = [(2, (2, 0, -1)), (1, (0, 0, 1)), (1, (-1, -2, 1))]
    losses = [-named + math.log(sum(map(math.exp, others))) for named, others in first]
    losses += [math.log(3), 0.0, math.log(3)]  # the second has no partner
    assert diversity_loss(books, codes, partners).item() == pytest.approx(sum(losses) / 6)


def test_diversity_equals_the_released_form_item_by_item() -> None:
    """One item and level at a time: the chosen vector against its codebook, its own place pushed down by 1e12."""
    torch.manual_seed(0)
    books = torch.randn(3, 8, 5, requires_grad=True)
    codes = torch.randint(8, (20, 3))
    partners = (codes + torch.randint(1, 8, (20, 3))) % 8
    ours = diversity_loss(books, codes, partners)
    rows = []
    for item, level in np.ndindex(20, 3):
        scores = books[level, codes[item, level]] @ books[level].T
        scores = scores - 1e12 * F.one_hot(codes[item, level], 8)
        rows.append(F.cross_entropy(scores[None], partners[item, level][None]))
    theirs = torch.stack(rows).mean()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    mine, expected = (torch.autograd.grad(loss, books, retain_graph=True)[0] for loss in (ours, theirs))
    torch.testing.assert_close(mine, expected)


def test_a_code_without_mates_adds_nothing_and_no_nan() -> None:
    books = torch.randn(1, 4, 3, requires_grad=True)
    loss = diversity_loss(books, torch.tensor([[0], [3]]), torch.tensor([[-1], [-1]]))
    loss.backward()
    assert loss.item() == 0 and books.grad is not None and (books.grad == 0).all()


def test_partners_are_all_the_others_of_the_cluster_and_equally_often() -> None:
    torch.manual_seed(1)
    one = Diversity(1.0, Clusters(count=3, smallest=1, largest=4), Quantizer(levels=1, codes=6, width=2), seed=0)
    labels = np.array([0, 1, 0, 0, 2, 1])
    mates, n_mates = mates_of(labels, 3)
    assert [set(row[:n]) for row, n in zip(mates.tolist(), n_mates, strict=True)] == [
        {2, 3}, {5}, {0, 3}, {0, 2}, set(), {1}
    ]  # fmt: skip
    one.mates[0], one.n_mates[0] = torch.from_numpy(mates), torch.from_numpy(n_mates)
    drawn = one.partners(torch.arange(6).repeat(3000)[:, None]).reshape(3000, 6)
    assert (drawn[:, 4] == -1).all() and (drawn[:, 1] == 5).all() and (drawn[:, 5] == 1).all()
    for code, others in {0: (2, 3), 2: (0, 3), 3: (0, 2)}.items():
        share = (drawn[:, code] == others[0]).float().mean().item()
        assert share == pytest.approx(0.5, abs=0.05) and set(drawn[:, code].tolist()) == set(others)


def clustered(restarts: int = 0) -> tuple[Diversity, Tensor]:
    torch.manual_seed(0)
    books = torch.randn(2, 24, 4)
    clusters = Clusters(count=4, smallest=3, largest=9, restarts=restarts, rounds=99)
    one = Diversity(1.0, clusters, Quantizer(levels=2, codes=24, width=4), seed=3)
    one.recluster(0, books)
    return one, books


def test_clusters_keep_to_their_limits_and_hold_near_codes() -> None:
    one, books = clustered()
    assert ((one.n_mates >= 2) & (one.n_mates <= 8)).all()
    for level in range(2):
        apart = torch.cdist(books[level], books[level])
        together = torch.stack([apart[k, one.mates[level, k, : one.n_mates[level, k]]].mean() for k in range(24)])
        assert together.mean() < 0.8 * apart.mean()


def test_clusters_follow_the_codebooks_epoch_by_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    for restarts, starts, n_init in [(0, True, 10), (7, False, 7)]:
        one, books = clustered(restarts)
        before = one.centres.clone()
        asked: list[tuple[bool, int, int]] = []
        plain = guidance.balanced_kmeans

        def watched(*arguments: Any, plain: Any = plain, asked: list[Any] = asked, **named: Any) -> Any:
            asked.append((named["start"] is not None, named["n_init"], named["seed"]))
            return plain(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(guidance, "balanced_kmeans", watched)
            one.recluster(1, books + 0.001)
            one.recluster(2, books + 0.002)
        assert [call[:2] for call in asked] == [(starts, n_init)] * 4
        assert len({call[2] for call in asked}) == 4  # every level and epoch has its own seed
        if starts:
            torch.testing.assert_close(one.centres, before + 0.002)  # they moved as a whole


# Gradients


def model_and_outputs() -> tuple[RQVAE, Outputs]:
    torch.manual_seed(0)
    x = torch.randn(24, 6)
    model = RQVAE(x, Quantizer(levels=2, codes=8, width=4, hidden=(5,)))
    torch.nn.init.normal_(model.codebooks)
    _, outputs = model(x, torch.arange(1, 25))
    return model, outputs


def reached(model: RQVAE, loss: Tensor) -> set[str]:
    grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    names = [name.split(".")[0] for name, _ in model.named_parameters()]
    return {name for name, grad in zip(names, grads, strict=True) if grad is not None and grad.abs().max() > 0}


def test_alignment_reaches_the_encoder_and_diversity_the_codebooks_only() -> None:
    model, outputs = model_and_outputs()
    vectors = np.random.default_rng(0).standard_normal((25, 4)).astype(np.float32)
    assert reached(model, Alignment(1.0, vectors)(outputs)) == {"encoder"}
    one = Diversity(1.0, Clusters(count=2, smallest=2, largest=6), Quantizer(levels=2, codes=8, width=4), seed=0)
    one.recluster(0, model.codebooks.detach())
    assert reached(model, one(outputs)) == {"codebooks"}


def test_a_step_of_alignment_aligns_and_a_step_of_diversity_draws_partners_together() -> None:
    torch.manual_seed(2)
    vectors, quantized = torch.randn(16, 4), torch.randn(16, 4, requires_grad=True)
    loss = alignment_loss(quantized, vectors)
    (slope,) = torch.autograd.grad(loss, quantized)
    assert alignment_loss(quantized - 0.1 * slope, vectors) < loss
    books = torch.randn(1, 6, 4, requires_grad=True)
    codes, partners = torch.tensor([[0]]), torch.tensor([[1]])
    (slope,) = torch.autograd.grad(diversity_loss(books, codes, partners), books)
    moved = (books - 0.1 * slope).detach()
    gain = (moved[0, 0] @ moved[0].T - books[0, 0] @ books[0].T).detach()
    assert gain[1] > max(gain[2:])


# The generator's loss


def test_the_temperature_divides_logits_in_training_only() -> None:
    torch.manual_seed(0)
    logits, codes = torch.randn(3, 4, 30), torch.randint(30, (3, 4))
    plain, sharp = (LETTER(config(temperature=t)) for t in (1.0, 0.7))
    expected = [-(logits[b, c] / 0.7).log_softmax(0)[codes[b, c]].item() for b, c in np.ndindex(3, 4)]
    assert sharp.token_loss(logits, codes).item() == pytest.approx(np.mean(expected), rel=1e-5)
    assert plain.token_loss(logits, codes).item() == TIGER().token_loss(logits, codes).item()


def test_the_same_weights_decode_the_same_whatever_the_temperature(tmp_path: Path) -> None:
    world = split(toys.twins())
    sharp = LETTER(config(training={"epochs": 1})).fit(world.train)
    sharp.save(tmp_path / "model.ckpt")
    plain = LETTER(config("no-temperature", training={"epochs": 1})).load(tmp_path / "model.ckpt", world.train)
    one, other = (m.recommend(world.test.cases, 5, budget=BUDGET) for m in (sharp, plain))
    np.testing.assert_array_equal(one.items, other.items)
    np.testing.assert_array_equal(one.scores, other.scores)
    losses = [m._loss(torch.tensor([1]), torch.tensor([[3, 4]]), torch.tensor([5])).item() for m in (sharp, plain)]
    assert losses[0] != losses[1]


# Identifiers


def test_without_guidance_the_ids_are_tigers_to_the_bit_and_share_their_cache(tmp_path: Path) -> None:
    run = Run(artifacts_dir=tmp_path)
    theirs = codes_of(config(cls=TIGER), run, TIGER)
    settings = config(alignment=0.0, diversity=0.0, codebooks="k-means")
    assert np.array_equal(codes_of(settings), theirs)
    assert np.array_equal(codes_of(settings, run), theirs)
    assert len(list(tmp_path.glob("semantic-ids-*.npz"))) == 1 and not list(tmp_path.glob("collaborative-*"))
    assert not np.array_equal(usual_codes(), theirs)


def test_guidance_that_weighs_nothing_leaves_the_bits_alone() -> None:
    """The hooks themselves move nothing: guided with weight 1e-30 from plain k-means, the ids are TIGER's."""
    settings = config(alignment=1e-30, diversity=1e-30, codebooks="k-means")
    assert np.array_equal(codes_of(settings), codes_of(config(cls=TIGER), cls=TIGER))


@pytest.mark.parametrize("preset", ["no-alignment", "no-diversity", "kmeans-init", "alignment-0.1"])
def test_every_part_of_the_guidance_moves_the_ids(preset: str) -> None:
    settings = config(preset)
    if preset == "no-diversity":  # of 1e-4, four epochs show nothing
        settings, usual = replace(settings, diversity=0.0), codes_of(config(diversity=0.5))
    else:
        usual = usual_codes()
    assert not np.array_equal(codes_of(settings), usual)


def test_presets_of_the_generator_leave_the_ids_alone() -> None:
    assert np.array_equal(codes_of(config("no-temperature")), usual_codes())


def test_the_same_seed_makes_the_same_ids_and_another_others(tmp_path: Path) -> None:
    run = Run(artifacts_dir=tmp_path)
    first, cached = codes_of(config(), run), codes_of(config(), run)
    assert first.tobytes() == usual_codes().tobytes() == cached.tobytes()
    assert not np.array_equal(codes_of(config(), Run(seed=1)), first)


def test_whatever_the_guidance_depends_on_makes_other_ids(tmp_path: Path) -> None:
    run = Run(artifacts_dir=tmp_path)
    backwards = replace(view(), sequences=Sequences.from_rows([row[::-1] for row in view().sequences]))
    asked: list[tuple[Any, TrainingView]] = [
        (config(), view()),
        (config("no-alignment"), view()),
        (config("no-diversity"), view()),
        (config("restarts"), view()),
        (config("kmeans-init"), view()),
        (config(collaborative={"dropout": 0.3}), view()),
        (config(), backwards),  # the same texts, other neighbours
    ]
    for n, (settings, data) in enumerate(asked, start=1):
        codes_of(settings, run, of=data)
        assert len(list(tmp_path.glob("semantic-ids-*.npz"))) == n
    codes_of(config("no-alignment"), run, of=backwards)  # reads no neighbours
    codes_of(config("no-temperature", clusters={"rounds": 10}), run)
    assert len(list(tmp_path.glob("semantic-ids-*.npz"))) == len(asked)


def test_alignment_brings_together_who_is_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts say nothing here; the collaborative vectors know two groups, and under guidance so do first codes."""
    rng = np.random.default_rng(0)
    texts = rng.standard_normal((41, 16)).astype(np.float32)
    groups = np.arange(41) % 2
    told = np.where(groups[:, None] == 0, 1.0, -1.0) * np.ones((41, 16))
    model = CollaborativeModel(told.astype(np.float32), {}, None, Run())  # type: ignore[arg-type]
    monkeypatch.setattr("methods.letter.collaborative_model", lambda *_: model)
    monkeypatch.setattr(tokenizer, "encode_texts", lambda *_: texts)
    few_codes = {"codes": 8, "levels": 2, "training": {"epochs": 60}}
    purity = []
    for weight in (0.0, 3.0):
        settings = config(alignment=weight, diversity=0.0, tokenizer=few_codes)
        first = codes_of(settings)[1:, 0]
        shares = [np.bincount(groups[1:][first == code], minlength=2) for code in np.unique(first)]
        purity.append(sum(share.max() for share in shares) / 40)
    assert purity[1] > 0.85 > 0.8 > purity[0]


def test_texts_that_are_all_alike_or_missing_are_refused_or_a_reason_not_to_run() -> None:
    def world_of(texts: list[str]) -> TrainingView:
        histories = [[(start + step) % len(texts) + 1 for step in range(5)] for start in range(8)]
        return split(toys.dataset("odd", histories, ["", *texts])).train

    with pytest.raises(ValueError, match="texts of all 9 training items are alike"):
        codes_of(config(), of=world_of(["hat"] * 9))
    assert LETTER.unsuited(world_of(["", "", ""])) == "no item has any text to make semantic IDs from"
    assert LETTER.unsuited(view()) is None
    alone = replace(view(), sequences=Sequences.from_rows([[1], [2]]))
    assert "no user has two training items" in str(LETTER.unsuited(alone))


@pytest.mark.parametrize("n_items", [1, 2, 5, 33])
def test_few_items_get_ids(n_items: int) -> None:
    histories = [[(start + step) % n_items + 1 for step in range(5)] for start in range(max(8, n_items))]
    odd = split(toys.dataset("odd", histories, ["", *(f"hat of colour {i}" for i in range(n_items))]))
    codes = codes_of(config(), of=odd.train)
    assert len(np.unique(codes[1:], axis=0)) == n_items


def test_a_damaged_collaborative_model_is_named_and_a_missing_one_made_again(tmp_path: Path) -> None:
    run = Run(artifacts_dir=tmp_path)
    codes = codes_of(config(), run)
    (made,) = tmp_path.glob("collaborative-*.npz")
    for path in tmp_path.glob("semantic-ids-*.npz"):
        path.unlink()
    made.write_bytes(made.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{made.name} is damaged .* delete it and run again"):
        codes_of(config(), run)
    made.unlink()
    assert np.array_equal(codes_of(config(), run), codes)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"tokenizer": {"kind": "rq-kmeans"}}, "guides the training of an RQ-VAE"),
        ({"codebooks": "random"}, "unknown start of the codebooks 'random'; use balanced or k-means"),
        ({"collaborative": {"width": 8}}, "codes of width 16 cannot be aligned with .* width 8"),
        ({"tokenizer": {"codes": 8}}, "8 codes a level do not make 4 clusters of 3 to 19"),
        ({"temperature": 0.0}, "temperature must be above 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(overrides: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        codes_of(config(**overrides))


# Sizes


@pytest.mark.parametrize("profile", ["smoke", "small", "full"])
def test_only_what_letter_is_about_differs_from_tiger(profile: str) -> None:
    letter, tiger = build_config(LETTER, None, profile), build_config(TIGER, None, profile)
    shared = ["tokenizer", "collisions", "backbone", "rule", "validation_users", "decode_batch", "embedding_rate"]
    assert all(getattr(letter, name) == getattr(tiger, name) for name in [*shared, "training"])
    assert letter.collaborative.width == letter.tokenizer.width
    n, how = letter.tokenizer.codes, letter.clusters
    mean = n / how.count
    assert 0.3 < how.smallest / mean < 0.45 and 2.2 < how.largest / mean < 2.5  # 10 and 60 of 25.6 at full size


def test_the_paper_track_has_the_released_sizes() -> None:
    original = build_config(LETTER, None, "full", "paper")
    assert original.tokenizer.hidden == (2048, 1024, 512, 256, 128, 64)
    assert (original.tokenizer.levels, original.tokenizer.codes, original.tokenizer.width) == (4, 256, 32)
    assert (original.tokenizer.training.epochs, original.tokenizer.training.schedule) == (20_000, "constant")
    assert (original.alignment, original.diversity, original.collaborative.width) == (0.01, 1e-4, 32)
    assert original.clusters == Clusters(count=10, smallest=10, largest=60, restarts=10, rounds=10)
    assert original.backbone.width == 128 and original.training.batch_size == 1024


# Stopping and continuing


@pytest.mark.parametrize("stop_at", [1, 2, 7, 14])
def test_a_stopped_tokenizer_continues_to_the_same_bits(tmp_path: Path, stop_at: int) -> None:
    """Four batches an epoch: in the first and the second epoch and at the end of one, with drawn partners and clusters
    of the epoch; the weights are so large that a lost cluster would show."""
    settings = config(alignment=0.5, diversity=0.5, clusters={"restarts": 0})
    expected = quantized(settings, Run())
    steps: list[str] = []
    stopping = Run(
        work_dir=tmp_path,
        report=lambda name, *_: None,
        should_stop=lambda: len(steps) >= stop_at,
    )
    with pytest.raises(Interrupted):
        quantized(settings, stopping, lambda: steps.append(""))
    resumed = quantized(settings, Run(work_dir=tmp_path))
    for mine, theirs in zip(resumed, expected, strict=True):
        assert mine.tobytes() == theirs.tobytes()


def quantized(settings: LETTER.Config, run: Run, each_step: Callable[[], None] = lambda: None) -> list[np.ndarray]:
    """Codes, residuals and last codebook of the guided tokenizer; calls ``each_step`` at every batch."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((41, 12)).astype(np.float32)
    told = rng.standard_normal((41, 16)).astype(np.float32)
    guide = LETTER(settings, run=run)._guidance(CollaborativeModel(told, {}, None, run))  # type: ignore[arg-type]
    assert isinstance(guide.loss, torch.nn.Module)
    guide.loss.register_forward_hook(lambda *_: each_step())
    hooks: dict[str, Any] = {"after_epoch": guide.after_epoch, "initialise": guide.initialise}
    fit_on = np.arange(41) > 0
    found = tokenizer.quantize(vectors, fit_on, settings.tokenizer, run, extra_loss=guide.loss, **hooks)
    return [found.codes, found.residuals, found.codebook]


def test_the_report_tells_of_all_three_stages_and_a_cap_in_any() -> None:
    method = LETTER(config(training={"epochs": 1})).fit(split(toys.twins()).train)
    report = json.loads(json.dumps(dict(method.training_report()), allow_nan=False))
    assert report["stopped_by"] == "limit" and report["tokenizer"]["usage"] and report["semantic_ids"]["levels"]
    assert report["collaborative"]["epochs"] == 1
    method.tokenizer_report["collaborative"]["stopped_by"] = "cap"
    assert method.training_report()["stopped_by"] == "cap"
