"""Quantizers without a learned table: their arithmetic, their entropies, and the packages of the field."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import vector_quantize_pytorch as field
from hypothesis import given, settings, strategies as st
from torch import Tensor

import lexel
from lexel.metrics import MOST_COUNTED, mean_perplexity, perplexity, usage_counts
from lexel.quantizers._radix import from_digits, to_digits

LEVELS = st.lists(st.integers(2, 9), min_size=1, max_size=5)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class TestIndices:
    @given(levels=st.lists(st.integers(2, 4000), min_size=1, max_size=5), seed=st.integers(0, 2**31))
    def test_mixed_radix_is_one_to_one(self, levels: list[int], seed: int) -> None:
        digits = torch.stack([torch.randint(level, (50,), generator=torch.manual_seed(seed)) for level in levels], 1)
        indices = from_digits(digits, levels)
        assert indices.max() < math.prod(levels)
        assert torch.equal(to_digits(indices, levels), digits)

    @settings(max_examples=20)
    @given(levels=LEVELS)
    def test_every_finite_scalar_code_is_reachable_and_comes_back(self, levels: list[int]) -> None:
        fsq = lexel.FiniteScalarQuantizer(levels)
        digits = torch.cartesian_prod(*(torch.arange(level) for level in levels[:4])).reshape(-1, len(levels[:4]))
        digits = F.pad(digits, (0, len(levels) - digits.shape[1]))
        codes = fsq.lookup(from_digits(digits, levels))
        assert len(codes.unique(dim=0)) == len(digits)
        assert codes.min() >= -1
        assert codes.max() <= 1
        # The bounding function goes through each code, so its inverse there is an input that must choose that code.
        half_width = torch.tensor([level // 2 for level in levels])
        half = torch.tensor([(level - 1) * 0.999 / 2 for level in levels])
        offset = torch.tensor([0.5 * (level % 2 == 0) for level in levels])
        scaled = ((codes * half_width + offset) / half).clamp(-0.9999, 0.9999)
        z = torch.atanh(scaled) - torch.tan(offset / half)
        assert torch.equal(fsq(z).indices, from_digits(digits, levels))

    @pytest.mark.parametrize(
        ("level", "bound"),
        [
            *((level, "tan") for level in (2, 3, 8, 500, 501, 1000, 4097)),
            *((level, "artanh") for level in (3, 4, 1000)),
            *itertools.product((2, 3, 8, 500, 501), ("symmetric", "clamp", "sigmoid", "normal")),
        ],
    )
    def test_no_input_leaves_the_levels_and_none_is_out_of_reach(self, level: int, bound: str) -> None:
        z = torch.cat([torch.tensor([-1e30, 1e30]), torch.atanh(torch.linspace(-1, 1, 40 * level)[1:-1])])
        indices = lexel.FiniteScalarQuantizer([level], bound=bound)(z.unsqueeze(1)).indices
        assert indices.min() == 0
        assert indices.max() == level - 1
        assert len(indices.unique()) == level

    @pytest.mark.parametrize("level", [1 << 24, (1 << 24) + 1, 1 << 26, (1 << 40) - 1])
    @pytest.mark.parametrize("bound", ["tan", "symmetric", "clamp", "sigmoid", "normal"])
    def test_far_inputs_have_a_code_whatever_float32_rounds(self, level: int, bound: str) -> None:
        fsq = lexel.FiniteScalarQuantizer([level, 3], bound=bound)
        output = fsq(torch.tensor([[1e30, 0.0], [-1e30, 0.0]]))
        digits = output.indices % level
        assert (output.indices // level == 1).all(), "the digit of the other channel"
        assert digits[0] >= level * 0.999
        assert digits[1] <= level * 0.001
        assert torch.equal(fsq.eval().lookup(output.indices), output.quantized)

    @pytest.mark.parametrize(
        "quantizer",
        [
            lexel.FiniteScalarQuantizer([4] * 31),
            lexel.LookupFreeQuantizer(62),
            lexel.BinarySphericalQuantizer(62),
            lexel.LatentQuantizer([16] * 15 + [4]),
        ],
        ids=lambda quantizer: type(quantizer).__name__,
    )
    def test_two_to_the_62_codes_fit(self, quantizer: lexel.Quantizer, device: str) -> None:
        assert quantizer.num_embeddings == 2**62
        assert quantizer.bits == 62
        output = quantizer.to(device).eval()(2 * torch.randn(40, quantizer.embedding_dim))
        assert output.indices.max() > 2**60
        assert torch.equal(quantizer.lookup(output.indices), output.quantized)
        torch.testing.assert_close(output.perplexity, torch.tensor(40.0))

    def test_more_codes_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"at most 2\^62"):
            lexel.FiniteScalarQuantizer([2] * 63)
        with pytest.raises(ValueError, match=r"embedding_dim must be in \[1, 62\]"):
            lexel.LookupFreeQuantizer(63)

    @pytest.mark.parametrize("family", [lexel.FiniteScalarQuantizer, lexel.LatentQuantizer])
    def test_levels_that_are_none(self, family: type[lexel.FiniteScalarQuantizer]) -> None:
        for levels in (8, "85", [8.0, 5]):
            with pytest.raises(TypeError, match=r"levels(\[0\])? must be (an|a sequence of) int, got"):
                family(levels)
        for wrong in ([], [8, 1]):
            with pytest.raises(ValueError, match="levels must hold"):
                family(wrong)

    def test_bounds_that_are_none(self) -> None:
        with pytest.raises(ValueError, match=r"bound must be 'tan', .* or 'normal', got 'tanh'"):
            lexel.FiniteScalarQuantizer([5], bound="tanh")
        with pytest.raises(ValueError, match=r"noise must be in \[0, 1\], got 1.5"):
            lexel.FiniteScalarQuantizer([5], noise=1.5)
        for level in (2, 1001):
            with pytest.raises(
                ValueError, match=rf"levels must be in \[3, 1000\] with bound='artanh', got \[{level}\]"
            ):
                lexel.FiniteScalarQuantizer([level], bound="artanh")

    def test_finite_scalar_codes_of_the_whole_grid_are_used_alike(self) -> None:
        """Uniform bounded inputs use every code, which the paper reports as its main gain over a learned table."""
        fsq = lexel.FiniteScalarQuantizer([5, 5, 5])
        output = fsq(torch.atanh(2 * torch.rand(20_000, 3) - 1))
        assert len(output.indices.unique()) == 125
        assert output.perplexity > 0.85 * 125  # the outer levels are half as wide


class TestBoundsOfFiniteScalars:
    @pytest.mark.parametrize(
        ("bound", "squashed"),
        [
            ("symmetric", torch.tanh),
            ("clamp", lambda z: z.clamp(-1, 1)),
            ("sigmoid", lambda z: 2 * torch.sigmoid(1.6 * z) - 1),
        ],
    )
    def test_levels_from_minus_one_to_one(self, bound: str, squashed: Callable[[Tensor], Tensor]) -> None:
        z = torch.randn(5000, 3, dtype=torch.float64, requires_grad=True)
        output = lexel.FiniteScalarQuantizer([2, 5, 8], bound=bound)(z)
        g, steps = squashed(z), torch.tensor([1.0, 4.0, 7.0], dtype=torch.float64)
        torch.testing.assert_close(
            output.quantized, 2 * (steps * (g + 1) / 2 + 0.5).floor() / steps - 1, rtol=0, atol=1e-6
        )
        weights = torch.randn_like(z)
        torch.testing.assert_close(*(torch.autograd.grad((y * weights).sum(), z)[0] for y in (output.quantized, g)))

    def test_middles_of_bins_of_a_normal_distribution(self) -> None:
        """Every code as often as any other for normal inputs, and in the middle of what is rounded to it."""
        levels = torch.tensor([2, 5, 8])
        fsp = lexel.FiniteScalarQuantizer(levels.tolist(), bound="normal")
        z = torch.randn(40_000, 3, dtype=torch.float64, requires_grad=True)
        output, spread = fsp(z), torch.special.ndtr(z)
        torch.testing.assert_close(
            output.quantized, 2 * ((levels * spread).floor() + 0.5) / levels - 1, rtol=0, atol=1e-6
        )
        assert output.perplexity > 0.99 * fsp.num_embeddings
        torch.testing.assert_close(
            (2 * spread - 1 - output.quantized).mean(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=0.01
        )
        slope = torch.autograd.grad(output.quantized.sum(), z)[0]
        torch.testing.assert_close(slope, (-z.square() / 2).exp() * math.sqrt(2 / math.pi))

    @pytest.mark.parametrize("bound", ["tan", "artanh", "symmetric", "clamp", "sigmoid", "normal"])
    def test_noise_is_uniform_as_wide_as_a_step_and_for_training_alone(self, bound: str) -> None:
        levels, z = [4, 7], torch.randn(20_000, 2).requires_grad_()
        plain, noisy = (lexel.FiniteScalarQuantizer(levels, bound=bound, noise=share) for share in (0.0, 0.4))
        rounded, output = plain(z), noisy(z)
        assert torch.equal(output.indices, rounded.indices)
        gradients = [torch.autograd.grad(one.quantized.sum(), z)[0] for one in (output, rounded)]
        assert torch.equal(*gradients)

        hit = output.quantized != rounded.quantized
        torch.testing.assert_close(hit.float().mean(0), torch.full((2,), 0.4), rtol=0, atol=0.02)
        lowest, highest = plain.lookup(torch.tensor([0, 27]))
        step = (highest - lowest) / torch.tensor([3, 6])
        lowest_bounded = torch.tensor([-2, -3]) if bound in ("tan", "artanh") else 0
        unrounded = lowest + (plain.bounded(z) - lowest_bounded).detach() * step
        noise = (output.quantized - unrounded).detach() / step
        assert noise[hit].abs().max() < 0.5001
        assert ((output.quantized - lowest + step / 2) > -1e-4).all()
        assert ((output.quantized - highest - step / 2) < 1e-4).all()
        # Further out some noise would leave the bins, and is left out.
        free = hit & (unrounded > lowest) & (unrounded < highest)
        torch.testing.assert_close(noise[free].mean(), torch.tensor(0.0), rtol=0, atol=0.02)
        torch.testing.assert_close(noise[free].square().mean(), torch.tensor(1 / 12), rtol=0, atol=0.005)

        noisy.eval()
        assert torch.equal(noisy(z).quantized, rounded.quantized)
        assert torch.equal(noisy(z).quantized, noisy.lookup(rounded.indices))


class TestPerplexityOfAnyNumberOfCodes:
    @settings(max_examples=30)
    @given(indices=st.lists(st.integers(-1, 6), max_size=40), start=st.integers(0, 2**61))
    def test_sorting_gives_what_counting_gives(self, indices: list[int], start: int) -> None:
        few = torch.tensor(indices, dtype=torch.int64)
        spread = torch.where(few < 0, -1, few * 12_345_678_901 + start)
        expected = perplexity(usage_counts(few, 7))
        torch.testing.assert_close(mean_perplexity([(spread, 2**62, 1)]), expected)
        torch.testing.assert_close(mean_perplexity([(few, 7, 1)]), expected)
        torch.testing.assert_close(mean_perplexity([(few, MOST_COUNTED + 1, 1)]), expected)


def brute_force_entropies(z: Tensor, magnitude: float, temperature: float) -> tuple[Tensor, Tensor]:
    """E[H(p)] and H(E[p]) with p over the table of all 2^d codes."""
    codes = magnitude * torch.tensor(list(itertools.product([-1.0, 1.0], repeat=z.shape[1])), dtype=z.dtype)
    p = torch.softmax(-torch.cdist(z, codes).square() / temperature, 1)
    return torch.special.entr(p).sum(1).mean(), torch.special.entr(p.mean(0)).sum()


@pytest.mark.parametrize("family", [lexel.LookupFreeQuantizer, lexel.BinarySphericalQuantizer])
class TestEntropies:
    @pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
    def test_against_the_table(self, family: type[lexel.LookupFreeQuantizer], temperature: float) -> None:
        quantizer, z = family(5, temperature=temperature), torch.randn(200, 5, dtype=torch.float64)
        z = z @ torch.randn(5, 5, dtype=torch.float64)  # bits that depend on each other
        output = quantizer(z)
        seen = F.normalize(z, dim=1) if family is lexel.BinarySphericalQuantizer else z
        entropy, diversity = brute_force_entropies(seen, quantizer.magnitude, temperature)
        torch.testing.assert_close(output.terms["entropy"], entropy)
        assert diversity <= output.terms["diversity"] <= 5 * math.log(2) + 1e-9
        torch.testing.assert_close(
            output.loss, 0.1 * (entropy - output.terms["diversity"]) + 0.25 * output.terms["commitment"]
        )

    def test_the_bound_is_met_by_independent_bits(self, family: type[lexel.LookupFreeQuantizer]) -> None:
        signs = torch.tensor(list(itertools.product([-0.3, 0.3], repeat=4)), dtype=torch.float64)
        output, quantizer = family(4)(signs), family(4)
        seen = F.normalize(signs, dim=1) if family is lexel.BinarySphericalQuantizer else signs
        _, diversity = brute_force_entropies(seen, quantizer.magnitude, quantizer.temperature)
        torch.testing.assert_close(output.terms["diversity"], diversity)

    @pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
    def test_gradients_are_finite_for_any_input(self, family: type[lexel.LookupFreeQuantizer], scale: float) -> None:
        z = (scale * torch.randn(10, 6)).requires_grad_()
        family(6, commitment_cost=0)(z).loss.backward()
        assert z.grad is not None
        assert z.grad.isfinite().all()

    def test_training_on_them_alone_spreads_the_codes(self, family: type[lexel.LookupFreeQuantizer]) -> None:
        quantizer = family(4, commitment_cost=0, entropy_weight=1.0, temperature=0.5)
        z = (torch.randn(64, 4) / 4 + 0.5).requires_grad_()  # nearly all in one corner
        before = quantizer(z).perplexity
        optimizer = torch.optim.Adam([z], lr=0.1)
        for _ in range(100):
            optimizer.zero_grad()
            quantizer(z).loss.backward()
            optimizer.step()
        assert quantizer(z).perplexity > 2 * before

    def test_settings_out_of_range(self, family: type[lexel.LookupFreeQuantizer]) -> None:
        for wrong in ({"temperature": 0.0}, {"entropy_weight": -1.0}, {"diversity_gamma": math.nan}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                family(4, **wrong)
        with pytest.raises(TypeError, match="embedding_dim must be an int"):
            family(4.0)


def test_spherical_codes_lie_on_the_sphere_and_the_error_is_bounded() -> None:
    for d in (1, 2, 8, 32):
        z = torch.randn(5000, d)
        output = lexel.BinarySphericalQuantizer(d)(z)
        torch.testing.assert_close(output.quantized.norm(dim=1), torch.ones(5000))
        error = (F.normalize(z, dim=1) - output.quantized).norm(dim=1)
        assert error.mean() <= math.sqrt(2 - 2 / math.sqrt(d)) + 1e-6


def test_spherical_gradient_is_orthogonal_to_the_input() -> None:
    z = torch.randn(20, 6, requires_grad=True)
    (lexel.BinarySphericalQuantizer(6)(z).quantized * torch.randn(20, 6)).sum().backward()
    assert z.grad is not None
    torch.testing.assert_close((z * z.grad).sum(1), torch.zeros(20), atol=1e-6, rtol=0)


def test_latent_values_learn_and_keep_their_names() -> None:
    quantizer = lexel.LatentQuantizer([3, 3])
    target = torch.tensor([[-0.9, 0.1, 0.8], [-0.7, 0.2, 0.3]])
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.02)
    for _ in range(300):
        z = torch.stack([row[torch.randint(3, (64,))] for row in target], 1)
        optimizer.zero_grad()
        quantizer(z).loss.backward()
        optimizer.step()
    output = quantizer.eval()(target.T)
    torch.testing.assert_close(output.quantized, target.T, atol=0.02, rtol=0)
    assert torch.equal(quantizer.lookup(output.indices), output.quantized)


class TestAgainstTheField:
    """vector-quantize-pytorch with the same weights and inputs."""

    @pytest.mark.parametrize("levels", [[8, 5, 5, 5], [3, 4, 6], [7, 7]])
    def test_finite_scalar(self, levels: list[int]) -> None:
        ours, theirs = lexel.FiniteScalarQuantizer(levels, channel_dim=-1), field.FSQ(levels)
        every = torch.arange(ours.num_embeddings)
        torch.testing.assert_close(ours.lookup(every), theirs.implicit_codebook)
        z = 2 * torch.randn(4, 500, len(levels))
        output, (quantized, indices) = ours(z), theirs(z)
        same = output.indices == indices
        assert same.float().mean() > 0.98  # thresholds differ by some thousandths: see the docstring
        torch.testing.assert_close(output.quantized[same], quantized[same])
        steps = (to_digits(output.indices, levels) - to_digits(indices.long(), levels)).abs()
        assert steps.max() <= 1
        output = lexel.FiniteScalarQuantizer(levels, bound="artanh", channel_dim=-1)(z)
        assert torch.equal(output.indices, indices.long())
        torch.testing.assert_close(output.quantized, quantized)

    @pytest.mark.parametrize("spherical", [False, True])
    def test_lookup_free(self, spherical: bool) -> None:
        family = lexel.BinarySphericalQuantizer if spherical else lexel.LookupFreeQuantizer
        ours = family(6, channel_dim=-1, temperature=0.2)
        theirs = field.LFQ(dim=6, spherical=spherical, commitment_loss_weight=0.25)
        z = torch.randn(3, 50, 6)
        output, (expected, parts) = ours(z), theirs(z, inv_temperature=5.0, return_loss_breakdown=True)
        torch.testing.assert_close(output.quantized, expected.quantized)
        reversed_bits = to_digits(expected.indices.long(), [2] * 6).flip(-1)  # they put the first channel last
        assert torch.equal(output.indices, from_digits(reversed_bits, [2] * 6))
        torch.testing.assert_close(output.terms["entropy"], parts.per_sample_entropy, rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(output.terms["commitment"], parts.commitment)
        assert output.terms["diversity"] >= parts.batch_entropy - 1e-4

    def test_latent(self) -> None:
        ours, theirs = lexel.LatentQuantizer([5, 3, 7], 1.0), field.LatentQuantize([5, 3, 7], 3)
        z = torch.randn(2, 3, 40) / 2
        output, (quantized, indices, _) = ours(z), theirs(z)
        torch.testing.assert_close(output.quantized, quantized)
        assert torch.equal(output.indices, indices.long())

    def test_random_projection(self) -> None:
        ours = lexel.RandomProjectionQuantizer(64, 20, 8, channel_dim=-1)
        theirs = field.RandomProjectionQuantizer(dim=20, codebook_size=64, codebook_dim=8, norm=False)
        theirs.rand_projs.copy_(ours.projection.unsqueeze(0))
        theirs.vq._codebook.embed.data.copy_(ours.codebook.unsqueeze(0))
        z = torch.randn(2, 100, 20)
        assert torch.equal(ours(z).indices, theirs(z))


def test_random_projection_lifts_codes_to_what_projects_onto_them() -> None:
    quantizer = lexel.RandomProjectionQuantizer(64, 20, 8)
    torch.testing.assert_close(quantizer.vectors @ quantizer.projection, quantizer.codebook)
    assert torch.equal(quantizer(quantizer.vectors).indices, torch.arange(64))
    assert list(quantizer.parameters()) == []
    with pytest.raises(ValueError, match="projection_dim must be in"):
        lexel.RandomProjectionQuantizer(64, 8, 16)


class TestCategorical:
    def test_the_largest_logit_decides_and_the_code_need_not_be_near(self) -> None:
        vq, z = lexel.CategoricalQuantizer(32, 6, code_dim=3).eval(), torch.randn(50, 6)
        output = vq(z)
        assert torch.equal(output.indices, vq.logits(z).argmax(1))
        assert torch.equal(output.quantized, vq.codes[output.indices])

    @pytest.mark.parametrize("hard", [True, False])
    def test_draws_by_the_softmax(self, hard: bool) -> None:
        vq = lexel.CategoricalQuantizer(4, 2, hard=hard, temperature=0.5)
        z = torch.randn(1, 2).expand(20_000, 2)
        output = vq(z)
        shares = torch.bincount(output.indices, minlength=4) / len(z)
        torch.testing.assert_close(shares, vq.logits(z[0]).softmax(0), rtol=0, atol=0.02)
        assert torch.equal(output.quantized, vq.codes[output.indices]) == hard

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match="code_dim must be at least 1, got 0"):
            lexel.CategoricalQuantizer(4, 2, code_dim=0)
        with pytest.raises(ValueError, match="temperature must be finite and positive, got 0"):
            lexel.CategoricalQuantizer(4, 2, temperature=0)


class TestResidualFiniteScalar:
    @pytest.mark.parametrize("bound", ["symmetric", "artanh"])
    def test_the_error_falls_with_the_depth(self, bound: str) -> None:
        z = torch.randn(1000, 3)
        errors = []
        for depth in (1, 2, 3):
            vq = lexel.ResidualFiniteScalarQuantizer([7, 5, 4], depth, bound=bound).eval()
            limit = torch.tensor([7 / 6, 5 / 4, 4 / 3])
            target = limit * torch.tanh(z / limit) if bound == "symmetric" else vq.stage.bounded(z)
            errors.append(float((vq(z).quantized - target).square().mean()))
        assert errors[2] < errors[1] < errors[0]

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
            lexel.ResidualFiniteScalarQuantizer([5], 0)
        with pytest.raises(ValueError, match="bound must be 'symmetric' or 'artanh', got 'tan'"):
            lexel.ResidualFiniteScalarQuantizer([5], 2, bound="tan")
