"""What value and what gradient each estimator gives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to

import lexel
from lexel._core.soft_assignment import by_rows, logits
from lexel.estimators import diveq, nsvq, rotation_trick

LEARNING = [lexel.Gradient(), lexel.EMA()]
ESTIMATORS = [
    lexel.StraightThrough(),
    lexel.StraightThrough(metric="cosine"),
    lexel.RotationTrick(),
    lexel.Synchronised(nu=0.3),
    lexel.Synchronised(estimator=lexel.RotationTrick()),
    lexel.NSVQ(),
    lexel.DiVeQ(),
    lexel.SpaceFillingDiVeQ(),
    lexel.IndexBackpropagation(),
    lexel.GumbelSoftmax(),
    lexel.GumbelSoftmax(hard=False, rate=0.1),
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def pair(rows: int = 40, dim: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, dim, requires_grad=True), torch.randn(rows, dim, requires_grad=True)


def gradients(output: Tensor, upstream: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((output * upstream).sum(), inputs, allow_unused=True, materialize_grads=True)


def quantize(estimator: lexel.Estimator, z: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Indices and quantized rows, in a first step of training."""
    return estimator.build(*codes.shape)(z, codes)


def by_pair(estimator: lexel.Estimator, z: Tensor, e: Tensor) -> Tensor:
    """Quantized rows when each input has one code to choose from, that of its own row."""
    return torch.cat([quantize(estimator, *rows)[1] for rows in zip(z.split(1), e.split(1), strict=True)])


class TestRotationTrick:
    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 2**31), dim=st.integers(1, 9))
    def test_keeps_the_gradients_angle_to_the_code_and_stretches_it(self, seed: int, dim: int) -> None:
        torch.manual_seed(seed)
        z, e = pair(20, dim)
        upstream = torch.randn(20, dim)
        (grad,) = gradients(rotation_trick(z, e), upstream, z)
        stretch = e.norm(dim=1) / z.norm(dim=1)
        torch.testing.assert_close(grad.norm(dim=1), stretch * upstream.norm(dim=1), rtol=1e-3, atol=1e-4)
        # ∠(gradient at z, z) = ∠(gradient at e, e)
        cosine = torch.nn.functional.cosine_similarity
        torch.testing.assert_close(cosine(grad, z), cosine(upstream, e), rtol=1e-3, atol=1e-4)

    def test_is_the_formula_with_the_rotation_as_a_matrix(self) -> None:
        z, e = pair()
        upstream = torch.randn_like(z)
        (grad,) = gradients(rotation_trick(z, e), upstream, z)
        for z_row, e_row, up, found in zip(z.detach(), e.detach(), upstream, grad, strict=True):
            z_unit, e_unit = z_row / z_row.norm(), e_row / e_row.norm()
            r = (z_unit + e_unit) / (z_unit + e_unit).norm()
            rotation = torch.eye(6) - 2 * torch.outer(r, r) + 2 * torch.outer(e_unit, z_unit)
            torch.testing.assert_close(rotation @ rotation.T, torch.eye(6), rtol=0, atol=1e-5)
            torch.testing.assert_close(rotation @ z_unit, e_unit, rtol=0, atol=1e-5)
            torch.testing.assert_close(found, e_row.norm() / z_row.norm() * rotation.T @ up, rtol=1e-4, atol=1e-5)

    def test_agrees_with_vector_quantize_pytorch(self) -> None:
        z, e = pair()
        upstream = torch.randn_like(z)
        ours, theirs = rotation_trick(z, e), rotate_to(z, e.detach())
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(*(gradients(out, upstream, z) for out in (ours, theirs)), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("case", ["input at the origin", "code at the origin", "opposite", "the same"])
    def test_where_the_rotation_is_not_defined(self, case: str) -> None:
        z, e = pair(1)
        z, e = z.detach(), e.detach()
        if case == "input at the origin":
            z = torch.zeros_like(z)
        elif case == "code at the origin":
            e = torch.zeros_like(e)
        else:
            e = -2 * z if case == "opposite" else z.clone()
        z.requires_grad_()
        output = rotation_trick(z, e)
        (grad,) = gradients(output, torch.ones_like(z), z)
        torch.testing.assert_close(output, e, rtol=0, atol=0)
        assert grad.isfinite().all()
        assert grad.norm() <= 3 * (1 + e.norm())


def test_straight_through_and_rotation_leave_the_code_alone() -> None:
    for estimator in (lexel.StraightThrough(), lexel.RotationTrick()):
        z, e = pair()
        output = by_pair(estimator, z, e)
        assert torch.equal(output, e)
        assert not gradients(output, torch.randn_like(z), e)[0].any()


@pytest.mark.parametrize("wrap", [lambda inner: inner, lambda inner: lexel.Synchronised(0.3, inner)])
def test_by_cosine_the_angle_decides_and_codes_keep_their_lengths(
    wrap: Callable[[lexel.Estimator], lexel.Estimator],
) -> None:
    z, codes = torch.tensor([[10.0, 9.0]]), torch.tensor([[9.0, 10.0], [0.2, 0.18]])
    for metric, index in (("cosine", 1), ("euclidean", 0)):
        indices, quantized = quantize(wrap(lexel.StraightThrough(metric=metric)), z, codes)
        assert indices.tolist() == [index]
        assert torch.equal(quantized, codes[indices])


@pytest.mark.parametrize("inner", [lexel.StraightThrough(), lexel.RotationTrick()], ids=repr)
def test_synchronised_adds_nu_times_the_gradient_for_the_code(inner: lexel.Estimator) -> None:
    z, e = pair()
    upstream = torch.randn_like(z)
    output = by_pair(lexel.Synchronised(0.3, inner), z, e)
    assert torch.equal(output, e)
    for_z, for_e = gradients(output, upstream, z, e)
    torch.testing.assert_close(for_e, 0.3 * upstream)
    torch.testing.assert_close(for_z, gradients(by_pair(inner, z, e), upstream, z)[0])


class TestNoise:
    def test_nsvq_keeps_the_length_of_the_error_and_has_no_preferred_direction(self) -> None:
        z, e = pair(20000, 3)
        error = (nsvq(z, e) - z).detach()
        torch.testing.assert_close(error.norm(dim=1), (z - e).norm(dim=1).detach(), rtol=1e-4, atol=1e-5)
        assert (error / error.norm(dim=1, keepdim=True)).mean(0).abs().max() < 0.02

    def test_diveq_is_the_code_as_the_noise_vanishes(self) -> None:
        z, e = pair()
        torch.testing.assert_close(diveq(z, e, 0), e, rtol=1e-4, atol=1e-5)
        near, far = (((diveq(z, e, variance) - e).norm()) for variance in (1e-4, 1e-2))
        assert 0 < near < far < (z - e).norm()

    def test_diveq_has_the_gradient_of_its_formula(self) -> None:
        z, e = pair()
        upstream = torch.randn_like(z)
        for_z, for_e = gradients(diveq(z, e, 0), upstream, z, e)
        unit = torch.nn.functional.normalize(e - z, dim=1).detach()
        along = (upstream * unit).sum(1, keepdim=True) * unit  # z and e move the length only
        torch.testing.assert_close(for_e, along, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(for_z, upstream - along, rtol=1e-4, atol=1e-5)

    def test_an_input_that_is_its_code_has_a_finite_gradient(self) -> None:
        for estimator in (lexel.NSVQ(), lexel.DiVeQ(), lexel.DiVeQ(0)):
            z = torch.randn(3, 4, requires_grad=True)
            assert gradients(by_pair(estimator, z, z.detach()), torch.ones(3, 4), z)[0].isfinite().all()

    def test_space_filling_lies_on_segments_and_names_the_nearer_end(self) -> None:
        z, codes = torch.randn(50, 3), torch.randn(9, 3)
        indices, quantized = quantize(lexel.SpaceFillingDiVeQ(0), z, codes)
        ends = torch.stack([codes[:-1], codes[1:]], 1)
        lengths = (ends[:, 1] - ends[:, 0]).norm(dim=1)
        detour = torch.cdist(quantized, ends[:, 0]) + torch.cdist(quantized, ends[:, 1]) - lengths
        least, segment = detour.min(1)
        assert least.max() < 1e-4
        nearer = torch.cdist(quantized.unsqueeze(1), ends[segment]).squeeze(1).argmin(1)
        assert torch.equal(indices, segment + nearer)

    def test_space_filling_moves_two_codes_for_every_input(self) -> None:
        z, codes = torch.randn(1, 3), torch.randn(9, 3, requires_grad=True)
        _, quantized = quantize(lexel.SpaceFillingDiVeQ(), z, codes)
        assert (gradients(quantized, torch.randn(1, 3), codes)[0].abs().amax(1) > 0).sum() == 2


class TestSoft:
    def test_index_backpropagation_is_its_formula(self) -> None:
        z, codes = pair(30)
        upstream = torch.randn_like(z)
        indices, quantized = quantize(lexel.IndexBackpropagation(), z, codes)
        p = (z @ codes.T).softmax(1)
        one_hot = torch.nn.functional.one_hot((z @ codes.T).argmax(1), len(codes)) + p - p.detach()
        expected = one_hot @ codes
        assert torch.equal(indices, (z @ codes.T).argmax(1))
        assert torch.equal(quantized, codes[indices])
        # In `expected` the softmax reaches the table as a factor too, where its value is the one-hot.
        torch.testing.assert_close(gradients(quantized, upstream, z, codes), gradients(expected, upstream, z, codes))

    def test_index_backpropagation_quantizes_doubly(self) -> None:
        """The loss of the paper, against a transcription of it; masked rows count in no term."""
        vq = lexel.VectorQuantizer(16, 6, 1.0, estimator=lexel.IndexBackpropagation(), learning=lexel.Gradient(0.25))
        codes, z, mask = (
            torch.randn(16, 6, requires_grad=True),
            torch.randn(30, 6, requires_grad=True),
            torch.rand(30) < 0.7,
        )
        vq.load_codes(codes.detach())
        output = vq(z, mask)
        kept = z[mask]
        p = (kept @ codes.T).softmax(1)
        one_hot = torch.nn.functional.one_hot((kept @ codes.T).argmax(1), len(codes)).float()
        quantized, e = (one_hot + p - p.detach()) @ codes, one_hot @ codes
        mse = torch.nn.functional.mse_loss
        expected = mse(quantized, kept) + mse(e.detach(), kept) + 0.25 * mse(e, kept.detach())
        torch.testing.assert_close(output.loss, expected)
        ours = torch.autograd.grad(output.loss, [z, vq.codebook.weight])
        torch.testing.assert_close(ours, torch.autograd.grad(expected, [z, codes]))
        assert "double" not in vq.eval()(z).terms

    def test_gumbel_draws_with_the_stated_probabilities(self) -> None:
        z, codes = torch.tensor([[0.3, -0.2]]).expand(40000, 2), torch.randn(5, 2)
        drawn, quantized = quantize(lexel.GumbelSoftmax(), z, codes)
        expected = (-torch.cdist(z[:1], codes).square()).softmax(1)[0]
        torch.testing.assert_close(drawn.bincount(minlength=5) / 40000, expected, rtol=0, atol=0.015)
        assert torch.equal(quantized, codes[drawn])

    def test_gumbel_mixtures_sharpen_as_the_temperature_falls(self) -> None:
        estimator = lexel.GumbelSoftmax(hard=False, temperature=5.0, final_temperature=0.01, rate=0.1)
        z, codes = torch.randn(200, 2), torch.randn(5, 2)
        errors = []
        for step in (0, 20, 1000):
            torch.manual_seed(0)
            module = estimator.build(5, 2)
            module.step.fill_(step)
            drawn, mixture = module(z, codes)
            errors.append(float((mixture - codes[drawn]).norm()))
        assert errors[0] > errors[1] > errors[2]
        assert errors[2] < 0.2 * errors[0]

    def test_the_recomputation_repeats_the_noise(self) -> None:
        z, codes = pair(30)
        upstream = torch.randn_like(z)
        found = []
        if z.is_cuda:
            pytest.skip("a GPU draws other numbers in other pieces")
        for chunk in (64, 1 << 20):
            torch.manual_seed(0)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("lexel._core.soft_assignment.CHUNK", chunk)
                output = quantize(lexel.GumbelSoftmax(hard=False), z, codes)[1]
                found.append(gradients(output, upstream, z, codes))
        torch.testing.assert_close(*found)

    def test_probabilities_do_not_change_when_everything_moves(self) -> None:
        z, codes = torch.randn(30, 4), torch.randn(9, 4)
        near, far = logits(z, codes).softmax(1), logits(z + 1000, codes + 1000).softmax(1)
        torch.testing.assert_close(near, (-torch.cdist(z, codes).square()).softmax(1), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(near, far, rtol=1e-2, atol=1e-3)

    def test_no_row_is_no_reason_to_fail(self) -> None:
        assert len(by_rows(lambda codes, z: (z,), torch.randn(4, 2), torch.empty(0, 2))) == 1

    @pytest.mark.parametrize("estimator", [lexel.IndexBackpropagation(), lexel.GumbelSoftmax()], ids=repr)
    def test_no_matrix_of_inputs_by_codes_is_kept(self, estimator: lexel.Estimator) -> None:
        z, codes = torch.randn(4096, 2, requires_grad=True), torch.randn(1 << 14, 2, requires_grad=True)
        with torch.profiler.profile(profile_memory=True) as profile:
            quantize(estimator, z, codes)[1].sum().backward()
        balance = peak = 0
        for event in sorted(profile.events(), key=lambda event: event.time_range.end):
            balance += event.self_cpu_memory_usage
            peak = max(peak, balance)
        assert peak < 4 * len(z) * len(codes) / 2


def refused(estimator: lexel.Estimator, learning: lexel.Learning) -> bool:
    """Codes cannot be averages and learn from the task loss at once."""
    return estimator.moves_codes and isinstance(learning, lexel.EMA)


PAIRS = list(product(ESTIMATORS, LEARNING))


@pytest.mark.parametrize(("estimator", "learning"), [pair for pair in PAIRS if refused(*pair)], ids=repr)
def test_pairs_without_a_meaning_are_refused(estimator: lexel.Estimator, learning: lexel.Learning) -> None:
    with pytest.raises(ValueError, match=f"{type(estimator).__name__} moves the codes by the gradient"):
        lexel.VectorQuantizer(32, 8, learning=learning, estimator=estimator)


@pytest.mark.parametrize(("estimator", "learning"), [pair for pair in PAIRS if not refused(*pair)], ids=repr)
class TestInAQuantizer:
    def make(self, estimator: lexel.Estimator, learning: lexel.Learning) -> lexel.VectorQuantizer:
        vq = lexel.VectorQuantizer(32, 8, learning=learning, estimator=estimator)
        vq.pull(torch.randn(32, 8), torch.ones(32))
        return vq

    def test_eval_mode_gives_exactly_the_code(self, estimator: lexel.Estimator, learning: lexel.Learning) -> None:
        vq, z = self.make(estimator, learning).eval(), torch.randn(4, 8, 5, requires_grad=True)
        output = vq(z)
        assert torch.equal(output.quantized, vq.lookup(output.indices))
        assert torch.equal(vq(z).quantized, output.quantized)
        upstream = torch.randn_like(z)
        assert torch.equal(gradients(output.quantized, upstream, z)[0], upstream)

    def test_what_the_task_loss_moves(self, estimator: lexel.Estimator, learning: lexel.Learning) -> None:
        vq, z = self.make(estimator, learning), torch.randn(4, 8, 5, requires_grad=True)
        output = vq(z)
        for_z, for_codes = gradients(output.quantized, torch.randn_like(z), z, vq.codebook.weight.requires_grad_())
        assert for_z.abs().min() > 0
        assert for_codes.isfinite().all()
        assert for_codes.any() == estimator.moves_codes
        has_codebook_loss = isinstance(learning, lexel.Gradient) and not estimator.replaces_codebook_loss
        assert ("codebook" in output.terms) == has_codebook_loss

    def test_trains(self, estimator: lexel.Estimator, learning: lexel.Learning) -> None:
        vq, z = self.make(estimator, learning), torch.randn(256, 8)
        parameters = list(vq.parameters())
        optimizer = torch.optim.Adam(parameters, lr=0.02) if parameters else None
        before = (vq.eval()(z).quantized - z).square().mean()
        for _ in range(60):
            output = vq.train()(z)
            if optimizer:
                optimizer.zero_grad()
                (output.loss + (output.quantized - z).square().mean()).backward()
                optimizer.step()
        assert (vq.eval()(z).quantized - z).square().mean() < 0.97 * before

    def test_config_round_trip_and_masks(self, estimator: lexel.Estimator, learning: lexel.Learning) -> None:
        vq = self.make(estimator, learning)
        again = lexel.from_config(vq.config)
        assert again.config == vq.config
        again.load_state_dict(vq.state_dict())
        z, mask = torch.randn(4, 8, 5), torch.rand(4, 5) < 0.5
        z.movedim(1, -1)[~mask] = torch.nan
        z.requires_grad_()
        output = again(z, mask)
        (output.loss + output.quantized.nansum()).backward()
        assert z.grad.isfinite().all()

    def test_compiles_into_one_graph(self, estimator: lexel.Estimator, learning: lexel.Learning) -> None:
        torch.compiler.reset()
        vq, z = self.make(estimator, learning), torch.randn(4, 8, 5, requires_grad=True)
        compiled = torch.compile(vq, fullgraph=True, backend="aot_eager")
        output = compiled(z)
        (output.loss + output.quantized.sum()).backward()
        assert torch.equal(compiled.eval()(z).quantized, vq.eval()(z).quantized)


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (lexel.StraightThrough, {"metric": "l2"}),
        (lexel.Synchronised, {"nu": 0.0}),
        (lexel.DiVeQ, {"variance": -1.0}),
        (lexel.SpaceFillingDiVeQ, {"variance": -1.0}),
        (lexel.GumbelSoftmax, {"temperature": 0.0}),
        (lexel.GumbelSoftmax, {"final_temperature": -1.0}),
        (lexel.GumbelSoftmax, {"rate": -1.0}),
    ],
)
def test_refuses_settings_out_of_range(cls: type, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{cls.__name__}: {next(iter(wrong))}"):
        cls(**wrong)


def test_synchronised_refuses_an_estimator_that_moves_codes_itself() -> None:
    with pytest.raises(ValueError, match="already passes a gradient to the codes"):
        lexel.Synchronised(estimator=lexel.NSVQ())
