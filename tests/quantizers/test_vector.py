"""The vector quantizer against its formulas, and what must hold for any input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

import lexel
from tests.quantizers import reference
from tests.quantizers.test_every import train_until_refused

LEARNING = [lexel.Gradient(), lexel.EMA()]


def make(num_embeddings: int = 32, embedding_dim: int = 8, **settings: object) -> lexel.VectorQuantizer:
    """Build a quantizer whose codes are spread as widely as standard normal inputs."""
    vq = lexel.VectorQuantizer(num_embeddings, embedding_dim, **settings)
    vq.load_codes(torch.randn_like(vq.codebook.weight))
    return vq


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_codes_start_uniform_within_one_over_k() -> None:
    weight = lexel.VectorQuantizer(50, 400).codebook.weight
    assert weight.min() >= -1 / 50
    assert weight.max() <= 1 / 50
    torch.testing.assert_close(weight.std(), torch.tensor((2 / 50) / 12**0.5), rtol=0.02, atol=0)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 6), st.integers(1, 6)),
    num_embeddings=st.integers(1, 70),
    commitment_cost=st.floats(0, 4),
)
def test_agrees_with_the_classic_module(
    seed: int, shape: tuple[int, int, int, int], num_embeddings: int, commitment_cost: float
) -> None:
    torch.manual_seed(seed)
    vq = lexel.VectorQuantizer(num_embeddings, shape[1], commitment_cost)
    nn.init.normal_(vq.codebook.weight)
    ours = torch.randn(shape, requires_grad=True)
    theirs, codes = ours.detach().clone().requires_grad_(), vq.codebook.weight.detach().clone().requires_grad_()

    got, expected = tuple(vq(ours)), reference.classic(theirs, codes, commitment_cost)
    torch.testing.assert_close(got, expected)
    task = torch.randn(shape)  # a task loss with an arbitrary gradient
    (got[0] + (got[1] * task).sum()).backward()
    (expected[0] + (expected[1] * task).sum()).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(vq.codebook.weight.grad, codes.grad)
    assert got[1].is_contiguous()


class TestWhatMovesWhat:
    """Each part of the objective reaches what it should and nothing else."""

    def gradients(self, part: str) -> tuple[Tensor, Tensor, lexel.VectorQuantizer, Tensor, Tensor]:
        vq, z = make(), torch.randn(4, 8, 3, 3, requires_grad=True)
        output, upstream = vq(z), torch.randn(4, 8, 3, 3)
        value = (output.quantized * upstream).sum() if part == "task" else output.terms[part]
        grads = torch.autograd.grad(value, [z, vq.codebook.weight], allow_unused=True, materialize_grads=True)
        return *grads, vq, z, upstream

    def test_task_loss_reaches_the_encoder_as_the_identity_and_never_the_codebook(self) -> None:
        encoder, codebook, _, _, upstream = self.gradients("task")
        torch.testing.assert_close(encoder, upstream, rtol=0, atol=0)
        assert not codebook.any()

    def test_codebook_loss_moves_the_codebook_and_never_the_encoder(self) -> None:
        encoder, codebook, vq, z, _ = self.gradients("codebook")
        assert not encoder.any()
        rows, indices = z.detach().movedim(1, -1).reshape(-1, 8), vq(z).indices.reshape(-1)
        expected = torch.zeros_like(codebook)
        for row, index in zip(rows, indices, strict=True):
            expected[index] += 2 * (vq.codebook.weight[index].detach() - row) / rows.numel()
        torch.testing.assert_close(codebook, expected)

    def test_commitment_loss_moves_the_encoder_and_never_the_codebook(self) -> None:
        encoder, codebook, vq, z, _ = self.gradients("commitment")
        assert not codebook.any()
        expected = 2 * (z - vq(z).quantized).detach() / z.numel()
        torch.testing.assert_close(encoder, expected)

    def test_loss_is_the_weighted_sum_of_its_terms(self) -> None:
        output = make(commitment_cost=0.7)(torch.randn(2, 8, 4))
        torch.testing.assert_close(output.loss, output.terms["codebook"] + 0.7 * output.terms["commitment"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"table": [[0.0], [1.0]]}, "table must be a tensor, got list"),
        ({"table": torch.tensor([[0.0], [torch.nan]])}, "table must be finite"),
        ({"table": torch.zeros(1, 2)}, r"table must have shape \(2, 1\), got \(1, 2\)"),
        ({"count": 1.0}, "count must be a tensor, got float"),
        ({"sum": torch.tensor([[0.0], [torch.inf]])}, "sum must be finite"),
        ({"age": torch.ones(2)}, "has no age"),
    ],
    ids=["list", "NaN", "shape", "number", "infinity", "stranger"],
)
def test_codes_that_cannot_be_loaded_change_nothing(wrong: dict[str, Any], message: str) -> None:
    vq = lexel.VectorQuantizer(2, 1, learning=lexel.EMA(), upkeep=lexel.KMeansStart())
    before = {name: value.clone() for name, value in vq.state_dict().items()}
    with pytest.raises((TypeError, ValueError), match=f"VectorQuantizer.load_codes: .*{message}"):
        vq.load_codes(**{"table": torch.ones(2, 1)} | wrong)
    torch.testing.assert_close(vq.state_dict(), before, rtol=0, atol=0)


class TestEMA:
    def test_follows_its_formulas_over_several_steps(self) -> None:
        vq = make(learning=lexel.EMA(decay=0.9, epsilon=1e-3))
        count, total, codes = vq.learning.count.clone(), vq.learning.sum.clone(), vq.codebook.weight.clone()
        for _ in range(5):
            z = torch.randn(2, 8, 4, 4)
            encodings = reference.classic(z, codes, 0)[3]
            rows = z.permute(0, 2, 3, 1).reshape(-1, 8)
            count, total, codes = reference.ema_update(count, total, encodings, rows, 0.9, 1e-3)
            vq(z)
            torch.testing.assert_close((vq.learning.count, vq.learning.sum, vq.codebook.weight), (count, total, codes))

    def test_has_no_parameter_and_no_codebook_loss(self) -> None:
        vq = make(learning=lexel.EMA())
        assert list(vq.parameters()) == []
        output = vq(torch.randn(2, 8, 4))
        assert set(output.terms) == {"commitment"}
        torch.testing.assert_close(output.loss, 0.25 * output.terms["commitment"])

    def test_eval_mode_changes_no_state(self) -> None:
        vq = make(learning=lexel.EMA()).eval()
        before = {name: value.clone() for name, value in vq.state_dict().items()}
        vq(torch.randn(2, 8, 4))
        torch.testing.assert_close(vq.state_dict(), before, rtol=0, atol=0)

    def test_a_code_that_nothing_chooses_stays_where_it_is(self) -> None:
        vq = make(2, 1, learning=lexel.EMA())
        vq.load_codes(torch.tensor([[0.0], [100.0]]))
        for _ in range(50):
            vq(torch.randn(16, 1))
        torch.testing.assert_close(vq.codebook.weight[1], torch.tensor([100.0]), rtol=1e-3, atol=0)

    def test_warmed_up_by_one_it_is_the_mean_of_all_inputs(self) -> None:
        """Of the code as it started too, however the inputs fall into batches, and whatever steps pass it by."""
        vq = make(2, 1, learning=lexel.EMA(decay=0.9999, warmup=1, epsilon=1e-9))
        vq.pull(torch.tensor([[0.0], [1000.0]]), torch.ones(2))
        inputs = torch.randn(40, 1)
        for batch in inputs.split([7, 1, 20, 12]):
            vq(batch)
        expected = torch.cat([torch.zeros(1, 1), inputs]).mean(0)
        torch.testing.assert_close(vq.codebook.weight[0], expected, rtol=1e-3, atol=1e-3)
        assert vq.learning.age.tolist() == [4, 0]
        vq(torch.full((5, 1), 1003.0))
        torch.testing.assert_close(vq.codebook.weight[1], torch.tensor([(1000 + 5 * 1003) / 6]), rtol=1e-3, atol=0)
        torch.testing.assert_close(vq.codebook.weight[0], expected, rtol=1e-3, atol=1e-3)

    def test_once_warm_it_is_the_average_without_warm_up(self) -> None:
        warm, plain = (make(4, 2, learning=lexel.EMA(decay=0.9, warmup=warmup)) for warmup in (2, 0))
        codes = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        warm.pull(codes, torch.ones(4))
        for _ in range(18):  # w γ / (1 − γ) steps
            warm(torch.randn(64, 2))
        plain.load_state_dict({name: value for name, value in warm.state_dict().items() if name != "learning.age"})
        for _ in range(3):
            z = torch.randn(64, 2)
            torch.testing.assert_close(warm(z).quantized, plain(z).quantized, rtol=0, atol=0)

    def test_a_replaced_code_warms_up_again(self) -> None:
        vq = make(2, 1, learning=lexel.EMA(warmup=10))
        vq(torch.linspace(-1, 1, 20).unsqueeze(1))
        assert vq.learning.age.tolist() == [1, 1]
        vq.pull(torch.zeros(2, 1), torch.tensor([0.0, 1.0]))
        assert vq.learning.age.tolist() == [1, 0]

    @pytest.mark.parametrize("wrong", [{"decay": 1.0}, {"decay": -0.1}, {"epsilon": 0.0}, {"warmup": -1.0}])
    def test_refuses_settings_out_of_range(self, wrong: dict[str, float]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            lexel.EMA(**wrong)


@pytest.mark.parametrize("learning", LEARNING, ids=repr)
class TestAnyInput:
    @pytest.mark.parametrize("positions", [(), (5,), (4, 3), (2, 3, 4), (2, 1, 2, 3)])
    @pytest.mark.parametrize("channel_dim", [1, -1])
    def test_any_rank_and_either_channel_position(
        self, positions: tuple[int, ...], channel_dim: int, learning: lexel.Learning
    ) -> None:
        vq = make(learning=learning, channel_dim=channel_dim).eval()
        last = torch.randn(3, *positions, 8)
        output = vq(last.movedim(-1, channel_dim))
        assert output.indices.shape == (3, *positions)
        assert output.indices.dtype == torch.int64
        flat = make(learning=learning, channel_dim=-1).eval()
        flat.load_state_dict(vq.state_dict())
        torch.testing.assert_close(output.indices, flat(last).indices)
        torch.testing.assert_close(output.quantized.movedim(channel_dim, -1), flat(last).quantized, rtol=0, atol=0)
        torch.testing.assert_close(vq.lookup(output.indices), output.quantized, rtol=0, atol=0)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_dtypes_are_searched_in_float32_at_least(self, dtype: torch.dtype, learning: lexel.Learning) -> None:
        vq, z = make(learning=learning), torch.randn(4, 8, 16).to(dtype).requires_grad_()
        wide = torch.promote_types(dtype, torch.float32)
        expected = lexel.nearest_code(z.detach().to(wide).movedim(1, -1).reshape(-1, 8), vq.codebook.weight.to(wide))
        output = vq(z)
        assert output.quantized.dtype == dtype
        assert output.loss.dtype == wide
        assert torch.equal(output.indices.reshape(-1), expected)
        (output.loss + output.quantized.sum()).backward()
        assert z.grad is not None
        assert z.grad.dtype == dtype

    def test_autocast_changes_nothing(self, learning: lexel.Learning) -> None:
        vq, z = make(learning=learning).eval(), torch.randn(4, 8, 16)
        with torch.autocast("cpu", torch.bfloat16):
            inside = vq(z)
        outside = vq(z)
        for name in ("loss", "quantized", "perplexity", "indices"):
            torch.testing.assert_close(getattr(inside, name), getattr(outside, name), rtol=0, atol=0)

    def test_strides_do_not_matter(self, learning: lexel.Learning) -> None:
        vq, z = make(learning=learning).eval(), torch.randn(4, 8, 6, 6)
        expected = vq(z)
        for same in (z.to(memory_format=torch.channels_last), z.transpose(2, 3).contiguous().transpose(2, 3)):
            assert not same.is_contiguous()
            output = vq(same)
            torch.testing.assert_close(output.quantized, expected.quantized, rtol=0, atol=0)
            assert output.quantized.is_contiguous()

    def test_no_grad(self, learning: lexel.Learning) -> None:
        with torch.no_grad():
            output = make(learning=learning)(torch.randn(2, 8, 4))
        assert not output.loss.requires_grad
        assert not output.quantized.requires_grad

    def test_masked_positions_pass_through_and_count_in_nothing(self, learning: lexel.Learning) -> None:
        mask = torch.rand(3, 20) < 0.6
        z = torch.randn(3, 8, 20)
        z.movedim(1, -1)[~mask] = torch.nan  # padding may hold anything
        z.requires_grad_()
        vq, alone = make(learning=learning), make(learning=learning, channel_dim=-1)
        alone.load_state_dict(vq.state_dict())
        output, expected = vq(z, mask), alone(z.detach().movedim(1, -1)[mask])

        torch.testing.assert_close(output.quantized.movedim(1, -1)[mask], expected.quantized)
        torch.testing.assert_close(output.quantized.movedim(1, -1)[~mask], z.movedim(1, -1)[~mask], equal_nan=True)
        assert torch.equal(output.indices[mask], expected.indices)
        assert (output.indices[~mask] == -1).all()
        torch.testing.assert_close((output.loss, output.perplexity), (expected.loss, expected.perplexity))
        torch.testing.assert_close(output.encodings[mask.reshape(-1)], expected.encodings)
        assert not output.encodings[~mask.reshape(-1)].any()
        torch.testing.assert_close(vq.state_dict(), alone.state_dict())
        output.quantized.nansum().backward()
        assert z.grad is not None
        assert not z.grad.isnan().any()

    def test_masked_indices_look_up_as_zero(self, learning: lexel.Learning) -> None:
        vq = make(learning=learning)
        found = vq.lookup(torch.tensor([[3, -1]]))
        assert not found[..., 1].any()
        torch.testing.assert_close(found[0, :, 0], vq.codebook.weight[3].detach(), rtol=0, atol=0)

    @pytest.mark.parametrize("shape", [(0, 8), (0, 8, 4, 4), (2, 8, 0)])
    def test_empty_batch(self, shape: tuple[int, ...], learning: lexel.Learning) -> None:
        vq, z = make(learning=learning), torch.randn(shape, requires_grad=True)
        before = {name: value.clone() for name, value in vq.state_dict().items()}
        output = vq(z)
        assert output.loss == 0
        assert output.quantized.shape == shape
        assert output.perplexity.isfinite()
        assert output.encodings.shape == (0, 32)
        output.loss.backward()
        torch.testing.assert_close(vq.state_dict(), before, rtol=0, atol=0)

    @pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
    def test_poison_is_refused_before_any_state_changes(self, poison: float, learning: lexel.Learning) -> None:
        vq, z = make(learning=learning), torch.randn(2, 8, 4)
        z[1, 2, 3] = poison
        before = {name: value.clone() for name, value in vq.state_dict().items()}
        with pytest.raises(ValueError, match="NaN or Inf"):
            train_until_refused(vq, z)
        torch.testing.assert_close(vq.state_dict(), before, rtol=0, atol=0)

    def test_state_dict_and_config_round_trip(self, learning: lexel.Learning) -> None:
        vq = make(learning=learning, commitment_cost=0.5).eval()
        again = lexel.from_config(vq.config).eval()
        assert again.config == vq.config
        again.load_state_dict(vq.state_dict())
        z = torch.randn(2, 8, 4)
        torch.testing.assert_close(again(z).quantized, vq(z).quantized, rtol=0, atol=0)


def test_huge_inputs_are_not_taken_for_poison() -> None:
    z = torch.full((64, 8), 1e37)
    assert z.sum().isinf()
    assert make()(z).quantized.isfinite().all()


def test_no_matrix_of_positions_by_codes_is_built() -> None:
    positions, codes = 4096, 1 << 16  # as float32 one such matrix would take 1 GiB
    vq = lexel.VectorQuantizer(codes, 4)
    with torch.profiler.profile(profile_memory=True) as profile:
        output = vq(torch.randn(positions, 4, requires_grad=True))
        output.loss.backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < positions * codes // 8
    assert output.encodings.shape == (positions, codes)


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((0, 8), ValueError, "num_embeddings must be at least 1, got 0"),
            ((8, -1), ValueError, "embedding_dim must be at least 1, got -1"),
            ((8.0, 8), TypeError, "num_embeddings must be an int"),
            ((True, 8), TypeError, "num_embeddings must be an int"),
            ((8, 8, -0.1), ValueError, "commitment_cost"),
            ((8, 8, float("nan")), ValueError, "commitment_cost"),
            ((8, 8, "much"), TypeError, "commitment_cost"),
        ],
    )
    def test_constructor(self, arguments: tuple[object, ...], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            lexel.VectorQuantizer(*arguments)

    def test_parts_of_another_kind(self) -> None:
        with pytest.raises(TypeError, match="learning must be a lexel Learning"):
            lexel.VectorQuantizer(8, 8, learning="ema")
        with pytest.raises(TypeError, match="estimator must be a lexel Estimator"):
            lexel.VectorQuantizer(8, 8, estimator=lexel.EMA())

    @pytest.mark.parametrize(
        ("inputs", "error", "message"),
        [
            (torch.randn(2, 3, 8, 8), ValueError, "3 channels at axis 1 .* expected embedding_dim=8"),
            (torch.zeros(2, 8, dtype=torch.int64), TypeError, "must be floating, of 16 bits at least, got torch.int64"),
            (
                torch.zeros(2, 8, dtype=torch.complex64),
                TypeError,
                "must be floating, of 16 bits at least, got torch.complex64",
            ),
            (torch.tensor(1.0), ValueError, "0 dimensions"),
            (torch.randn(8), ValueError, "1 dimensions"),
            ([[1.0]], TypeError, "must be a tensor, got list"),
        ],
    )
    def test_inputs(self, inputs: object, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            make()(inputs)

    def test_channel_axis_that_is_not_there(self) -> None:
        with pytest.raises(ValueError, match="no axis channel_dim=3"):
            make(channel_dim=3)(torch.randn(2, 8))

    def test_masks(self) -> None:
        vq, z = make(), torch.randn(2, 8, 4)
        with pytest.raises(TypeError, match="boolean"):
            vq(z, torch.ones(2, 4))
        with pytest.raises(ValueError, match=r"mask has shape \(2, 8\), expected \(2, 4\)"):
            vq(z, torch.ones(2, 8, dtype=torch.bool))

    @pytest.mark.parametrize("indices", [torch.tensor([32]), torch.tensor([-2, 5])])
    def test_indices_out_of_range(self, indices: Tensor) -> None:
        with pytest.raises(ValueError, match=r"indices must be in \[-1, 32\)"):
            make().lookup(indices)

    def test_indices_that_are_not_integers(self) -> None:
        with pytest.raises(TypeError, match="integers"):
            make().lookup(torch.tensor([1.0]))
