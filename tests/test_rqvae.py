"""Tokenizers: the loss and its gradients by hand, codes by brute force, laws of Sinkhorn, resume to the bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from benchmark.run import Interrupted, Run
from methods.blocks.kmeans import code_report, kmeans, nearest, refuse_collapse, residual_codebooks, residual_codes
from methods.blocks.rqvae import RQVAE, Quantizer, _Fit, quantize, sinkhorn
from methods.blocks.training import Training

TRAINING = Training(epochs=4, batch_size=50, learning_rate=3e-3, patience=99)
SMALL = Quantizer(levels=3, codes=8, width=4, hidden=(16,), validate_every=2, training=TRAINING)


def blobs(n_items=120, n_blobs=6, dimensions=10, seed=0):
    """Vectors (N + 1, D) in clear groups, row 0 = 0, and the rows to fit on: all items."""
    rng = np.random.default_rng(seed)
    centres = 3 * rng.standard_normal((n_blobs, dimensions))
    vectors = centres[rng.integers(0, n_blobs, n_items + 1)] + rng.standard_normal((n_items + 1, dimensions))
    vectors[0] = 0
    return vectors.astype(np.float32), np.arange(n_items + 1) > 0


def fitted_model(config=SMALL, seed=0, run=None, **arguments):
    """A fit ready to train: codebooks initialised by k-means."""
    vectors, fit_on = blobs()
    torch.manual_seed(seed)
    items = torch.from_numpy(np.flatnonzero(fit_on))
    hooks = {"extra_loss": None, "after_epoch": None} | arguments
    fit = _Fit(torch.from_numpy(vectors[1:]), items, config, run or Run(), **hooks)
    fit._initialise()
    fit.model.train()
    return fit


def same(a, b):
    return np.array_equal(a.codes, b.codes) and a.codebook.tobytes() == b.codebook.tobytes()


def naive_codes(vectors, codebooks):
    """One item at a time, every code compared."""
    codes, residuals = [], []
    for residual in vectors.astype(np.float64):
        row, left = [], []
        for codebook in codebooks.astype(np.float64):
            left.append(residual)
            row.append(int(np.argmin([((residual - code) ** 2).sum() for code in codebook])))
            residual = residual - codebook[row[-1]]
        codes.append(row)
        residuals.append(left)
    return np.array(codes), np.array(residuals).transpose(1, 0, 2)


def naive_sinkhorn(distances, epsilon, iterations=50):
    """The formula as METHODS 0.3 prints it."""
    middle = (distances.max() + distances.min()) / 2
    q = np.exp(-(distances - middle) / (distances.max() - middle + 1e-5) / epsilon)
    for _ in range(iterations):
        q /= q.sum(1, keepdims=True) * q.shape[0]
        q /= q.sum(0, keepdims=True) * q.shape[1]
    return q


# ---------------------------------------------------------------- codes and k-means


def test_codes_are_the_nearest_ones_level_by_level():
    rng = np.random.default_rng(1)
    vectors, codebooks = rng.standard_normal((40, 5)), rng.standard_normal((3, 7, 5))
    codes, residuals = residual_codes(torch.from_numpy(vectors), torch.from_numpy(codebooks))
    expected_codes, expected_residuals = naive_codes(vectors, codebooks)
    assert np.array_equal(codes.numpy(), expected_codes)
    np.testing.assert_allclose(residuals.numpy(), expected_residuals, atol=1e-12)


def test_the_lower_of_equal_codes_is_taken():
    assert nearest(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])).tolist() == [1]


def test_kmeans_beats_random_codes_and_is_seeded():
    vectors = blobs()[0][1:]
    rng = np.random.default_rng(0)

    def error(centres):
        return ((vectors[:, None] - centres[None]) ** 2).sum(2).min(1).mean()

    centres = kmeans(vectors, 8, seed=3)
    assert error(centres) < 0.8 * min(error(vectors[rng.choice(120, 8, replace=False)]) for _ in range(20))
    assert centres.tobytes() == kmeans(vectors, 8, seed=3).tobytes()


def test_kmeans_leaves_its_input_alone():
    vectors = blobs()[0][1:]
    before = vectors.copy()
    kmeans(vectors, 8, seed=0)
    assert vectors.tobytes() == before.tobytes()


def test_fewer_vectors_than_codes_each_get_their_own():
    vectors = np.array([[0, 0], [4, 0], [0, 4], [4, 0]], np.float32)
    centres = kmeans(vectors, 16, seed=0)
    assert centres.shape == (16, 2) and np.isfinite(centres).all()
    assert nearest(torch.from_numpy(vectors), torch.from_numpy(centres)).unique().numel() == 3
    assert np.abs(centres[:, None] - vectors[None]).max(2).min(1).max() < 0.5  # spare codes stay near the data


def test_rq_kmeans_recovers_planted_levels():
    """4 far groups of 4 near groups: level 1 is the far group, level 2 the near one."""
    group = np.repeat(np.arange(16), 20)
    vectors = np.zeros((321, 8))
    vectors[1:] = np.c_[100 * np.eye(4)[group // 4], 10 * np.eye(4)[group % 4]]
    vectors[1:] += 0.1 * np.random.default_rng(0).standard_normal((320, 8))
    config = Quantizer(kind="rq-kmeans", levels=2, codes=4, scaling="none")
    result = quantize(vectors.astype(np.float32), np.arange(321) > 0, config, Run())
    codes = result.codes[1:]
    far, near = group // 4, group % 4
    assert len(set(zip(far.tolist(), codes[:, 0].tolist(), strict=True))) == 4 == len(np.unique(codes[:, 0]))
    assert len(set(zip(near.tolist(), codes[:, 1].tolist(), strict=True))) == 4 == len(np.unique(codes[:, 1]))
    assert result.report["reconstruction_error"] < 1e-3


# ---------------------------------------------------------------- Sinkhorn


@pytest.mark.parametrize("epsilon", [1.0, 0.05, 0.003])
@pytest.mark.parametrize(("shape", "iterations"), [((9, 4), 50), ((3, 16), 50), ((5, 5), 1), ((6, 3), 26), ((1, 4), 7)])
def test_sinkhorn_is_the_printed_formula(shape, epsilon, iterations):
    distances = np.random.default_rng(0).random(shape)
    plan = sinkhorn(torch.from_numpy(distances), epsilon, iterations)
    assert plan.dtype == torch.float64
    np.testing.assert_allclose(plan.numpy(), naive_sinkhorn(distances, epsilon, iterations), rtol=1e-7, atol=1e-200)


def test_sinkhorn_marginals_are_uniform():
    distances = torch.rand(64, 16, generator=torch.Generator().manual_seed(0))
    plan = sinkhorn(distances, 0.1)
    np.testing.assert_allclose(plan.sum(1) * 64, 1, atol=1e-6)
    np.testing.assert_allclose(plan.sum(0) * 16, 1, atol=1e-6)
    assert torch.bincount(plan.argmax(1), minlength=16).max() <= 8  # four each, were assignments hard


@pytest.mark.parametrize("epsilon", [1e-3, 1e-4, 1e-6])
def test_sinkhorn_survives_an_epsilon_that_underflows(epsilon):
    distances = torch.tensor([[0.0, 9.0, 9.0], [0.1, 9.0, 9.0], [0.2, 9.0, 9.0]])
    with np.errstate(all="ignore"):
        assert np.isnan(naive_sinkhorn(distances.double().numpy(), epsilon)).any()
    plan = sinkhorn(distances, epsilon)
    assert plan.isfinite().all()
    np.testing.assert_allclose(plan.sum(0) * 3, 1, atol=1e-9)
    assert plan.argmax(1)[0] == 0 or epsilon == 1e-6


def test_sinkhorn_spreads_what_nearest_neighbour_piles_up():
    """All rows prefer code 0; balanced, each of the four codes gets its quarter."""
    distances = torch.tensor([[0.0, 1.0, 1.1, 1.2]]).repeat(8, 1) + 0.2 * torch.rand(
        8, 4, generator=torch.Generator().manual_seed(2)
    )
    assert distances.argmin(1).tolist() == [0] * 8
    assert torch.bincount(sinkhorn(distances, 0.01, 2000).argmax(1), minlength=4).tolist() == [2, 2, 2, 2]


# ---------------------------------------------------------------- the loss


def hand_written_loss(fit, codes, stage):
    """METHODS 0.3 spelled out in numpy-like loops with double-precision autograd, item by item."""
    model, config = fit.model, fit.config
    total = {"reconstruction": 0.0, "codebook": 0.0, "commitment": 0.0}
    z_all = model.encoder(fit.x)
    for x, z, row in zip(fit.x, z_all, codes.tolist(), strict=True):
        subtracted = torch.zeros_like(z)
        for level, code in enumerate(row):
            e = model.codebooks[level, code]
            total["codebook"] += (z.detach() - subtracted - e).pow(2).mean() / len(row)
            total["commitment"] += (z - subtracted - e.detach()).pow(2).mean() / len(row)
            subtracted = subtracted + e.detach()
        straight_through = z + (subtracted - z).detach()
        total["reconstruction"] += (model.decoder(straight_through) - x).pow(2).mean()
    total = {name: value / len(fit.x) for name, value in total.items()}
    return (
        total["reconstruction"] + config.codebook_weight * (total["codebook"] + config.commitment * total["commitment"])
        if stage is None
        else total[stage]
    )


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_loss_and_gradients_are_the_printed_ones():
    fit = fitted_model(replace(SMALL, sinkhorn=0.0, commitment=0.4, codebook_weight=0.7))
    fit.model.double()
    fit.x = fit.x.double()
    loss, outputs = fit.model(fit.x, fit.items)
    expected = hand_written_loss(fit, outputs.codes, None)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    got, wanted = gradients(fit.model, loss), gradients(fit.model, expected)
    assert got.keys() == wanted.keys() == {name for name, _ in fit.model.named_parameters()}
    for name in got:
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-9, atol=1e-12)
        assert got[name].abs().max() > 0


def test_sinkhorn_rules_the_last_level_while_training_and_no_read_out():
    fit = fitted_model(replace(SMALL, sinkhorn=0.05))
    z = fit._latent(fit.x).detach()
    plain, residuals = residual_codes(z, fit.model.codebooks)
    balanced, _ = fit.model.assign(z)
    assert torch.equal(balanced[:, :-1], plain[:, :-1]) and not torch.equal(balanced[:, -1], plain[:, -1])
    squares = ((residuals[-1][:, None] - fit.model.codebooks[-1][None]) ** 2).sum(2)
    assert np.array_equal(balanced[:, -1].numpy(), naive_sinkhorn(squares.double().detach().numpy(), 0.05).argmax(1))
    fit.model.eval()
    assert torch.equal(fit.model.assign(z)[0], plain)


class Pull(nn.Module):
    """An extra loss with a parameter and a buffer of its own, drawing random numbers as LETTER's does."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.register_buffer("labels", torch.zeros(3, 8))
        self.epochs = []

    def forward(self, outputs):
        noise = torch.rand_like(outputs.z)
        return 0.1 * self.weight.square() * ((outputs.quantized - noise) ** 2).mean() + 0.01 * self.labels.mean()

    def recluster(self, epoch, codebooks):
        self.epochs.append(epoch)
        self.labels.copy_(codebooks.sum(2))


def test_extra_loss_sees_the_batch_and_its_gradient_arrives():
    fit = fitted_model(replace(SMALL, sinkhorn=0.0))
    _, outputs = fit.model(fit.x, fit.items)
    codes = outputs.codes
    for level in range(3):
        assert torch.equal(outputs.chosen[level], fit.model.codebooks[level][codes[:, level]])
    torch.testing.assert_close(outputs.quantized, outputs.chosen.sum(0))
    through = gradients(fit.model, outputs.quantized.sum())
    assert through["encoder.0.weight"].abs().max() > 0 and "codebooks" not in through
    _, outputs = fit.model(fit.x, fit.items)
    reached = gradients(fit.model, outputs.chosen.sum())["codebooks"]
    assert torch.equal(reached[0, :, 0], torch.bincount(codes[:, 0], minlength=8).float())
    items = []
    vectors, _ = blobs()
    fit_on = np.arange(121) % 2 == 1
    quantize(vectors, fit_on, SMALL, Run(), extra_loss=lambda o: items.extend(o.items.tolist()) or o.z.sum() * 0)
    assert sorted(items) == sorted(np.flatnonzero(fit_on).tolist() * TRAINING.epochs)


def test_extra_loss_and_the_epoch_callback_change_the_fit():
    vectors, fit_on = blobs()
    pull = Pull()
    with_pull = quantize(vectors, fit_on, SMALL, Run(), extra_loss=pull, after_epoch=pull.recluster)
    assert pull.epochs == [0, 1, 2, 3, 4]
    assert pull.weight.item() != 1.0
    assert not same(with_pull, quantize(vectors, fit_on, SMALL, Run()))


# ---------------------------------------------------------------- training


def test_training_starts_from_kmeans_of_all_training_latents():
    fit = fitted_model()
    expected = residual_codebooks(fit._latent(fit.x).detach(), 3, 8, seed=0)
    assert torch.equal(fit.model.codebooks, expected)
    z = fit._latent(fit.x).detach()
    left = (z - fit.model.look_up(residual_codes(z, expected)[0]).sum(0)).square().mean()
    random = z[torch.randperm(len(z), generator=torch.Generator().manual_seed(0))[:24]].reshape(3, 8, -1)
    random_codes, residuals = residual_codes(z, random)
    assert left < 0.5 * (residuals[-1] - random[-1][random_codes[:, -1]]).square().mean()


def test_dead_codes_are_revived_where_items_are():
    fit = fitted_model(replace(SMALL, sinkhorn=0.0))
    with torch.no_grad():
        fit.model.codebooks[:, 5:] = 1e4
    fit.model.record(fit.model.assign(fit._latent(fit.x).detach())[0])
    kept = fit.model.codebooks[:, :5].detach().clone()
    used = fit.model.used[:, :5].clone()
    _, residuals = residual_codes(fit._latent(fit.x).detach(), fit.model.codebooks)
    fit._close_epoch(1)
    codebooks = fit.model.codebooks.detach()
    assert torch.equal(codebooks[:, :5][used], kept[used])
    for level in range(3):  # each revived code is the residual of some training item at that level
        gaps = (codebooks[level, 5:, None] - residuals[level][None]).abs().amax(2).amin(1)
        assert gaps.max() < 1e-5
    assert not fit.model.used.any() and fit.model.seen == 0
    used_now = [len(set(level.tolist())) for level in fit.model.assign(fit._latent(fit.x).detach())[0].T]
    assert used_now[0] > 5


def test_every_epoch_revives_codes_on_items_of_its_own_draw():
    revived = []
    for epoch in (1, 2, 1):
        fit = fitted_model(replace(SMALL, sinkhorn=0.0))
        fit.model.record(torch.zeros(120, 3, dtype=torch.long))
        fit._close_epoch(epoch)
        revived.append(fit.model.codebooks.detach())
    assert torch.equal(revived[0], revived[2]) and not torch.equal(revived[0], revived[1])


def test_nothing_is_dead_after_half_an_epoch_or_under_sinkhorn():
    half = fitted_model(replace(SMALL, sinkhorn=0.0))
    half.model.record(torch.zeros(60, 3, dtype=torch.long))
    before = half.model.codebooks.detach().clone()
    half._close_epoch(1)
    assert torch.equal(half.model.codebooks, before)
    balanced = fitted_model(replace(SMALL, sinkhorn=0.003))
    balanced.model.record(torch.zeros(120, 3, dtype=torch.long))
    before = balanced.model.codebooks.detach().clone()
    balanced._close_epoch(1)
    changed = (balanced.model.codebooks != before).any(2)
    assert changed[:2, 1:].all() and not changed[:, 0].any() and not changed[2].any()


def test_training_lowers_the_error_and_reports_it():
    vectors, fit_on = blobs()
    config = replace(SMALL, training=replace(TRAINING, epochs=1, learning_rate=1e-9))
    long = replace(SMALL, training=replace(TRAINING, epochs=60, learning_rate=1e-2))
    untrained, trained = quantize(vectors, fit_on, config, Run()), quantize(vectors, fit_on, long, Run())
    assert trained.report["reconstruction_error"] < 0.6 < untrained.report["reconstruction_error"]
    assert trained.report["epochs"] == 60 and trained.report["stopped_by"] == "limit"


@pytest.mark.parametrize("kind", ["rq-vae", "rq-kmeans"])
def test_same_seed_same_codes_other_seed_others(kind):
    vectors, fit_on = blobs()
    config = replace(SMALL, kind=kind)
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(results))  # what ran before must not matter
        results.append(quantize(vectors, fit_on, config, Run(seed=seed)))
    assert same(results[0], results[1]) and not same(results[0], results[2])


def test_quantize_leaves_torchs_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    quantize(*blobs(), SMALL, Run())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("stop_at", [1, 2, 3, 4, 8, 11])
def test_a_stopped_tokenizer_continues_to_the_same_bits(tmp_path, stop_at):
    """3 batches an epoch, 4 epochs; random extra loss, own parameters, clusters of the epoch, revived codes."""
    vectors, fit_on = blobs()
    config = replace(SMALL, codes=32, sinkhorn=0.0)

    def attempt(run):
        pull = Pull()
        pull.labels = torch.zeros(3, 32)
        steps = []
        run.should_stop = lambda: len(steps) == stop_at and run.work_dir is not None
        extra = pull.register_forward_hook(lambda *_: steps.append(1))
        result = quantize(vectors, fit_on, config, run, extra_loss=pull, after_epoch=pull.recluster)
        extra.remove()
        return result

    expected = attempt(Run())
    with pytest.raises(Interrupted):
        attempt(Run(work_dir=tmp_path))
    stop_at = -1
    resumed = attempt(Run(work_dir=tmp_path))
    assert same(resumed, expected)
    assert resumed.residuals.tobytes() == expected.residuals.tobytes()


def test_a_resumed_tokenizer_does_not_start_over(tmp_path):
    vectors, fit_on = blobs()
    calls = []
    run = Run(work_dir=tmp_path)
    quantize(vectors, fit_on, SMALL, run, after_epoch=lambda epoch, _: calls.append(epoch))
    quantize(vectors, fit_on, SMALL, Run(work_dir=tmp_path), after_epoch=lambda epoch, _: calls.append(epoch))
    assert calls == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["rq-vae", "rq-kmeans"])
def test_unseen_items_are_encoded_but_change_nothing(kind):
    vectors, _ = blobs()
    fit_on = (np.arange(121) > 0) & (np.arange(121) <= 100)
    config = replace(SMALL, kind=kind)
    moved = vectors.copy()
    moved[101:] = 50 * moved[101:][::-1] + 7
    one, other = quantize(vectors, fit_on, config, Run()), quantize(moved, fit_on, config, Run())
    assert one.codebook.tobytes() == other.codebook.tobytes()
    assert np.array_equal(one.codes[:101], other.codes[:101])
    assert np.array_equal(one.residuals[:101], other.residuals[:101])
    assert not np.array_equal(one.codes[101:], other.codes[101:])
    assert (one.codes[101:] >= 0).all()


# ---------------------------------------------------------------- the result


@pytest.mark.parametrize("kind", ["rq-vae", "rq-kmeans"])
def test_the_result_is_ready_for_collision_repair(kind):
    vectors, fit_on = blobs()
    result = quantize(vectors, fit_on, replace(SMALL, kind=kind), Run())
    width = 4 if kind == "rq-vae" else 10
    assert result.codes.shape == (121, 3) and result.codes.dtype == np.int64 and (result.codes[0] == -1).all()
    assert result.residuals.shape == (121, width) and result.residuals.dtype == np.float32
    assert not result.residuals[0].any()
    assert result.codebook.shape == (8, width) and result.codebook.dtype == np.float32
    last = ((result.residuals[1:, None] - result.codebook[None]) ** 2).sum(2).argmin(1)
    assert np.array_equal(last, result.codes[1:, -1])


def test_report_by_hand():
    codes = np.array([[0, 1], [0, 1], [0, 2], [3, 1], [3, 1], [3, 1], [0, 3], [2, 0]])
    report = code_report(codes, 4)
    assert report["usage"] == [0.75, 1.0]
    # Level 1: 4, 1, 3 of 8 -> entropy 0.5 ln 2 + 1/8 ln 8 + 3/8 ln(8/3)
    assert report["perplexity"][0] == pytest.approx(2**0.5 * 8**0.125 * (8 / 3) ** 0.375, abs=0.005)
    assert report["largest_bucket"] == 0.5
    assert report["distinct_codes"] == 5
    assert report["collision_rate"] == 0.625  # (0, 1) twice and (3, 1) three times


def test_items_with_equal_vectors_share_their_code():
    vectors, fit_on = blobs()
    vectors[2] = vectors[1]
    for kind in ("rq-vae", "rq-kmeans"):
        codes = quantize(vectors, fit_on, replace(SMALL, kind=kind), Run()).codes
        assert np.array_equal(codes[1], codes[2])


def test_scaling_makes_a_giant_dimension_harmless():
    vectors, fit_on = blobs()
    giant = vectors.copy()
    giant[1:, 3] = 1000 * giant[1:, 3] + 10_000
    config = replace(SMALL, kind="rq-kmeans")
    agree = [
        (quantize(vectors, fit_on, c, Run()).codes[1:, 0] == quantize(giant, fit_on, c, Run()).codes[1:, 0]).mean()
        for c in (config, replace(config, scaling="none"))
    ]
    assert agree[0] > 0.99 > agree[1]


def test_uniform_scaling_keeps_proportions():
    vectors, fit_on = blobs()
    config = replace(SMALL, kind="rq-kmeans", scaling="uniform")
    plain = quantize(vectors, fit_on, config, Run())
    moved = quantize(8 * vectors + 2, fit_on, config, Run())
    assert (plain.codes[1:] == moved.codes[1:]).mean() > 0.95
    assert plain.report["reconstruction_error"] == pytest.approx(moved.report["reconstruction_error"], rel=0.05)


# ---------------------------------------------------------------- bad and small input


def test_collapsed_codes_are_refused():
    vectors = blobs()[0][1:]
    rng = np.random.default_rng(0)
    healthy = rng.integers(0, 8, (120, 2))
    refuse_collapse(healthy, vectors, 8)
    with pytest.raises(ValueError, match="70 of 120 different items share their first code"):
        refuse_collapse(np.c_[np.where(np.arange(120) < 70, 0, 1 + np.arange(120) % 7), healthy[:, 1]], vectors, 8)
    few = np.c_[np.arange(120) % 3, healthy[:, 1]]
    with pytest.raises(ValueError, match="level 1 uses 3 of 64 possible codes"):
        refuse_collapse(few, vectors, 64)
    with pytest.raises(ValueError, match="level 2 uses 1 of 8 possible codes"):
        refuse_collapse(np.c_[healthy[:, 0], np.zeros(120, int)], vectors, 8)


def test_a_level_with_nothing_left_to_separate_may_be_idle():
    vectors = np.eye(12, dtype=np.float32)
    refuse_collapse(np.c_[np.arange(12), np.zeros(12, int), np.zeros(12, int)], vectors, 256)


def test_repeated_vectors_do_not_count_as_collapse():
    """90 items with one text, 30 with texts of their own."""
    vectors = np.concatenate([np.ones((90, 4)), np.random.default_rng(0).standard_normal((30, 4))])
    codes = np.concatenate([np.zeros(90, int), np.arange(30) % 16])
    refuse_collapse(np.c_[codes, np.arange(120) % 16], vectors, 16)


def test_a_network_that_maps_everything_to_one_point_is_refused(monkeypatch):
    monkeypatch.setattr(RQVAE, "__init__", _constant_encoder(RQVAE.__init__))
    with pytest.raises(ValueError, match="collapsed: 120 of 120 different items"):
        quantize(*blobs(), replace(SMALL, training=replace(TRAINING, epochs=1, learning_rate=0.0)), Run())


def _constant_encoder(initialise):
    def spoiled(self, *arguments):
        initialise(self, *arguments)
        for p in self.encoder.parameters():
            nn.init.zeros_(p)

    return spoiled


@pytest.mark.parametrize("kind", ["rq-vae", "rq-kmeans"])
def test_bad_vectors_are_refused_with_a_sentence(kind):
    config = replace(SMALL, kind=kind)
    vectors, fit_on = blobs()
    alike = np.repeat(vectors[1:2], 121, 0) + 1e-7 * np.random.default_rng(0).standard_normal((121, 10))
    with pytest.raises(ValueError, match="texts of all 120 training items are alike"):
        quantize(alike.astype(np.float32), fit_on, config, Run())
    with pytest.raises(ValueError, match="no item occurs in training"):
        quantize(vectors, np.zeros(121, bool), config, Run())
    vectors[7, 2] = np.nan
    with pytest.raises(ValueError, match=r"vectors of 1 items \(the first is item 7\)"):
        quantize(vectors, fit_on, config, Run())


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("kind", "rq", "use rq-vae or rq-kmeans"),
        ("levels", 0, "at least 1 x 2"),
        ("codes", 1, "at least 1 x 2"),
        ("scaling", "zscore", "use standardize, uniform or none"),
    ],
)
def test_bad_settings_are_refused_with_a_sentence(field, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        quantize(*blobs(), replace(SMALL, **{field: value}), Run())


@pytest.mark.parametrize("kind", ["rq-vae", "rq-kmeans"])
@pytest.mark.parametrize("scaling", ["standardize", "uniform", "none"])
@pytest.mark.parametrize("n_items", [1, 2, 3, 12, 25])
def test_tiny_catalogues_get_codes(kind, scaling, n_items):
    vectors, fit_on = blobs(n_items)
    config = replace(SMALL, kind=kind, scaling=scaling, codes=64, levels=4)
    result = quantize(vectors, fit_on, config, Run())
    assert np.isfinite(result.codebook).all()
    assert result.report["distinct_codes"] == n_items


def test_a_stop_between_kmeans_levels_is_obeyed():
    run = Run(should_stop=lambda: True)
    with pytest.raises(Interrupted):
        quantize(*blobs(), replace(SMALL, kind="rq-kmeans"), run)
