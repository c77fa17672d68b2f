"""Quantizers made of quantizers: residual, product and multi-scale."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import vector_quantize_pytorch as field
from torch import Tensor, nn

import lexel


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def table(num_embeddings: int = 32, embedding_dim: int = 8, **settings: object) -> lexel.VectorQuantizer:
    """Build a vector quantizer whose codes are spread as widely as standard normal inputs."""
    vq = lexel.VectorQuantizer(num_embeddings, embedding_dim, **settings)
    vq.load_codes(torch.randn_like(vq.codebook.weight))
    return vq


SPIKE = (1.5, 1.5, 1.5, 0, 0, 0, 0, 0)  # eight sign patterns in three of eight directions


class TestResidual:
    @pytest.mark.parametrize("estimator", [lexel.RotationTrick(), lexel.DiVeQ(0)], ids=repr)
    def test_honours_the_gradients_of_its_stages(self, estimator: lexel.Estimator) -> None:
        stages = [table(estimator=estimator) for _ in range(2)]
        z, upstream = torch.randn(6, 8, requires_grad=True), torch.randn(6, 8)
        first = stages[0](z).quantized
        expected = first + stages[1](z - first).quantized
        found = lexel.ResidualQuantizer(stages)(z).quantized
        torch.testing.assert_close(*(torch.autograd.grad((e * upstream).sum(), z)[0] for e in (found, expected)))

    def test_in_eval_mode_what_learns_from_the_task_still_can(self) -> None:
        rvq = lexel.ResidualQuantizer([lexel.ProjectedQuantizer(table(16, 3), 8) for _ in range(2)]).eval()
        output = rvq(torch.randn(6, 8))
        output.quantized.sum().backward()
        assert all(stage.up.weight.grad is not None for stage in rvq.parts)
        assert torch.equal(rvq.lookup(output.indices), output.quantized)

    def test_beam_search_within_other_quantizers(self) -> None:
        inner = lexel.ResidualQuantizer([table() for _ in range(3)])
        z = torch.randn(20, 16)
        product = lexel.ProductQuantizer([inner], heads=2)
        expected = torch.cat([inner.beam_search(part, 4) for part in z.split(8, 1)], 1)
        assert torch.equal(product.beam_search(z, 4), expected)
        projected = lexel.ProjectedQuantizer(inner, 16)
        assert torch.equal(projected.beam_search(z, 4), inner.beam_search(projected.down(z), 4))
        vq, mask = table(), torch.arange(20) < 15
        assert torch.equal(vq.beam_search(z[:, :8], 3, mask), vq.eval()(z[:, :8], mask).indices)

    def stages(self, *scales: float) -> lexel.ResidualQuantizer:
        rvq = lexel.ResidualQuantizer([table() for _ in scales])
        with torch.no_grad():
            for stage, scale in zip(rvq.parts, scales, strict=True):
                stage.codebook.weight.mul_(scale)
                stage.codebook.weight[0] = 0  # the choice to change nothing
        return rvq.eval()

    def test_each_stage_quantizes_what_those_before_left(self) -> None:
        rvq, z = self.stages(1.0, 0.5, 0.25), torch.randn(3, 8, 20)
        output, residual = rvq(z), z
        for number, stage in enumerate(rvq.parts):
            expected = stage(residual)
            assert torch.equal(output.indices[..., number], expected.indices)
            residual = residual - expected.quantized
        torch.testing.assert_close(output.quantized, z - residual)

    def test_distortion_falls_at_each_stage_and_codes_decode_from_any_prefix(self) -> None:
        rvq, z = self.stages(1.0, 0.7, 0.5, 0.35, 0.25), torch.randn(3, 8, 200)
        indices = rvq(z).indices
        errors = [(rvq.lookup(indices[..., :q]) - z).square().mean() for q in range(1, 6)]
        assert all(later < earlier for earlier, later in itertools.pairwise(errors))

    def test_task_gradient_passes_once_and_every_commitment_reaches_the_inputs(self) -> None:
        rvq, z = self.stages(1.0, 0.5, 0.25), torch.randn(3, 8, 20, requires_grad=True)
        upstream = torch.randn_like(z)
        (gradient,) = torch.autograd.grad((rvq(z).quantized * upstream).sum(), z)
        torch.testing.assert_close(gradient, upstream)
        output = rvq(z)
        for number in range(3):
            (gradient,) = torch.autograd.grad(output.terms[f"{number}.commitment"], z, retain_graph=True)
            partial = rvq.lookup(output.indices[..., : number + 1])
            torch.testing.assert_close(gradient, (2 * (z - partial) / z.numel()).detach())

    def test_codes_that_the_task_loss_moves_still_learn_from_it(self) -> None:
        stages = [table(estimator=lexel.DiVeQ()) for _ in range(2)]
        rvq, z = lexel.ResidualQuantizer(stages), torch.randn(3, 8, 20, requires_grad=True)
        (rvq(z).quantized * torch.randn_like(z)).sum().backward()
        assert z.grad is not None
        assert z.grad.any()
        assert all(stage.codebook.weight.grad is not None and stage.codebook.weight.grad.any() for stage in stages)

    def test_implicit_codes_are_the_papers_function_of_the_partial_sum(self) -> None:
        stage = lexel.ImplicitQuantizer(16, 8, depth=2, width=12)
        for parameter in stage.parameters():
            nn.init.normal_(parameter, std=0.4)
        rvq, z = lexel.ResidualQuantizer([table(), stage]).eval(), torch.randn(3, 8, 20)
        output = rvq(z)
        rows = z.movedim(1, -1).reshape(-1, 8)
        partial = rvq.lookup(output.indices[..., :1]).movedim(1, -1).reshape(-1, 8)
        for row, given, index in zip(rows, partial, output.indices[..., 1].flatten(), strict=True):
            both = torch.cat([stage.codebook.weight, given.expand(16, 8)], 1)
            codes = stage.codebook.weight + stage.mix(both)
            for block in stage.blocks:
                codes = codes + block(codes)
            assert (codes - (row - given)).norm(dim=1).argmin() == index
        with pytest.raises(ValueError, match="each stage must have one codebook"):
            rvq.beam_search(z, 2)

    def test_implicit_codes_fit_what_a_table_cannot(self) -> None:
        means = 4 * torch.randn(8, 8)
        spike = torch.tensor(SPIKE)
        maps = torch.randn(8, 8, 8) / 8**0.5  # the remainders of each cluster lie along directions of its own
        errors = {}
        for kind in (lexel.VectorQuantizer, lexel.ImplicitQuantizer):
            torch.manual_seed(1)
            first, second = lexel.VectorQuantizer(8, 8), kind(8, 8)
            first.codebook.weight.data = means.clone()
            nn.init.normal_(second.codebook.weight)
            rvq = lexel.ResidualQuantizer([first, second])
            optimizer = torch.optim.Adam(second.parameters(), lr=1e-2)
            for _ in range(300):
                cluster = torch.randint(8, (256,))
                z = means[cluster] + torch.einsum("nde, ne -> nd", maps[cluster], torch.randn(256, 8).sign() * spike)
                loss = rvq(z).terms["1.codebook"]
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            errors[kind] = loss.detach()
        assert errors[lexel.ImplicitQuantizer] < 0.6 * errors[lexel.VectorQuantizer]

    def test_finite_scalar_stages_refine_each_other_once_they_are_scaled(self) -> None:
        z = 0.5 * torch.randn(2, 4, 1000)
        errors = {}
        for scale in (1, 5):
            stages = [lexel.ProjectedQuantizer(lexel.FiniteScalarQuantizer([5] * 4), 4, bias=False) for _ in range(3)]
            for number, stage in enumerate(stages):
                stage.down.weight.data = torch.eye(4) * scale**number
                stage.up.weight.data = torch.eye(4) / scale**number
            rvq = lexel.ResidualQuantizer(stages).eval()
            indices = rvq(z).indices
            errors[scale] = [(rvq.lookup(indices[..., :q]) - z).square().mean() for q in (1, 2, 3)]
        assert errors[1][2] > 0.9 * errors[1][1]
        assert errors[5][1] < 0.25 * errors[5][0]
        assert errors[5][2] < 0.6 * errors[5][1]

    def test_agrees_with_vector_quantize_pytorch(self) -> None:
        ours = self.stages(1.0, 0.5, 0.25)
        theirs = field.ResidualVQ(dim=8, num_quantizers=3, codebook_size=32).eval()
        for stage, layer in zip(ours.parts, theirs.layers, strict=True):
            layer._codebook.embed.data.copy_(stage.codebook.weight.unsqueeze(0))
        z = torch.randn(4, 30, 8)
        output, (quantized, indices, _) = ours(z.movedim(-1, 1)), theirs(z)
        assert torch.equal(output.indices, indices)
        torch.testing.assert_close(output.quantized.movedim(1, -1), quantized)

    def test_depth_repeats_one_table(self) -> None:
        shared = lexel.ResidualQuantizer([table()], depth=3).eval()
        apart = lexel.ResidualQuantizer([copy.deepcopy(shared.parts[0]) for _ in range(3)]).eval()
        z = torch.randn(3, 8, 20)
        assert torch.equal(shared(z).indices, apart(z).indices)
        torch.testing.assert_close(shared(z).loss, apart(z).loss)
        assert len(list(shared.parameters())) == 1

    def test_beam_search(self) -> None:
        rvq, z = lexel.ResidualQuantizer([table() for _ in range(4)]).eval(), torch.randn(3, 8, 30)
        output = rvq(z)
        assert torch.equal(rvq.beam_search(z, 1), output.indices)
        errors = [(rvq.lookup(rvq.beam_search(z, size)) - z).square().mean() for size in (1, 4, 16)]
        assert errors[2] < errors[1] < errors[0]
        small = lexel.ResidualQuantizer([table(5, 3), table(6, 3)]).eval()
        z = torch.randn(40, 3)
        sums = (small.parts[0].codebook.weight[:, None] + small.parts[1].codebook.weight).reshape(30, 3)
        exhaustive = torch.cdist(z, sums).argmin(1)
        found = small.beam_search(z, 5)
        assert torch.equal(found[:, 0] * 6 + found[:, 1], exhaustive)
        mask = torch.rand(40) < 0.5
        assert (small.beam_search(z, 5, mask)[~mask] == -1).all()
        with pytest.raises(ValueError, match="beam_size"):
            small.beam_search(z, 0)
        with pytest.raises(ValueError, match="at most 65,536"):
            lexel.ResidualQuantizer([lexel.LookupFreeQuantizer(20)]).beam_search(torch.randn(2, 20), 2)


class TestDropout:
    @pytest.mark.parametrize("learning", [lexel.Gradient(), lexel.EMA()], ids=repr)
    def test_what_is_cut_counts_in_nothing(self, learning: lexel.Learning) -> None:
        rvq = lexel.ResidualQuantizer([table(learning=learning) for _ in range(4)], dropout=1.0)
        before, z = copy.deepcopy(rvq), torch.randn(16, 8, 5)
        output = rvq(z)
        depth = (output.indices >= 0).sum(-1)
        assert (depth == depth[:, :1]).all(), "one depth for each example"
        assert depth.min() == 1
        assert depth.max() == 4
        torch.testing.assert_close(output.quantized, before.lookup(output.indices))
        for number, stage in enumerate(rvq.parts):
            alone = copy.deepcopy(before.parts[number])
            residual = z - before.lookup(output.indices[..., :number]) if number else z
            expected = alone(residual[depth[:, 0] > number])
            torch.testing.assert_close(output.terms[f"{number}.commitment"], expected.terms["commitment"])
            torch.testing.assert_close(stage.state_dict(), alone.state_dict())

    def test_depths_are_uniform_and_the_rest_is_whole(self) -> None:
        for dropout, whole in ((1.0, 0.25), (0.5, 0.625)):
            rvq = lexel.ResidualQuantizer([table() for _ in range(4)], dropout=dropout)
            depth = (rvq(torch.randn(4000, 8)).indices >= 0).sum(1)
            shares = torch.bincount(depth, minlength=5)[1:] / 4000
            expected = torch.tensor([(1 - whole) / 3] * 3 + [whole])
            torch.testing.assert_close(shares, expected, atol=0.01, rtol=0)

    def test_none_in_eval(self) -> None:
        rvq = lexel.ResidualQuantizer([table() for _ in range(4)], dropout=1.0).eval()
        assert (rvq(torch.randn(16, 8)).indices >= 0).all()


class TestProduct:
    def test_is_its_parts_side_by_side(self) -> None:
        parts = [table(embedding_dim=3), lexel.FiniteScalarQuantizer([8, 5]), lexel.ResidualQuantizer([table(16, 4)])]
        pq, z = lexel.ProductQuantizer(parts), torch.randn(2, 9, 30)
        output = pq(z)
        alone = [part(own) for part, own in zip(parts, z.split([3, 2, 4], 1), strict=True)]
        torch.testing.assert_close(output.quantized, torch.cat([one.quantized for one in alone], 1))
        torch.testing.assert_close(output.loss, sum(one.loss for one in alone))
        assert torch.equal(output.indices[..., :2], torch.stack([one.indices for one in alone[:2]], -1))
        perplexities = torch.stack([one.perplexity for one in alone])
        torch.testing.assert_close(output.perplexity, perplexities.log().mean().exp())
        assert pq.bits == pytest.approx(sum(part.bits for part in parts))
        assert set(output.terms) == {"0.codebook", "0.commitment", "2.0.codebook", "2.0.commitment"}

    def test_heads_share_one_table(self) -> None:
        shared = lexel.ProductQuantizer([table(embedding_dim=4)], heads=3).eval()
        apart = lexel.ProductQuantizer([copy.deepcopy(shared.parts[0]) for _ in range(3)]).eval()
        z = torch.randn(2, 12, 30)
        assert torch.equal(shared(z).indices, apart(z).indices)
        assert torch.equal(shared(z).quantized, apart(z).quantized)
        torch.testing.assert_close(3 * shared(z).loss, apart(z).loss)

    def test_two_to_the_124_codes(self) -> None:
        pq = lexel.ProductQuantizer([lexel.LookupFreeQuantizer(62) for _ in range(2)])
        assert pq.bits == 124
        output = pq(torch.randn(3, 124))
        assert torch.equal(pq.lookup(output.indices), output.quantized)


class TestMultiScale:
    SCALES = (1, 2, 3, (4, 6))

    def make(self, **settings: object) -> lexel.MultiScaleResidualQuantizer:
        return lexel.MultiScaleResidualQuantizer(table(), self.SCALES, **settings).eval()

    def test_follows_the_paper(self) -> None:
        """Algorithm 1, line by line, without convolutions."""
        quantizer, f = self.make(convolutions=0), torch.randn(2, 8, 4, 6)
        output, rest, tokens, means = quantizer(f), f, [], []
        for size in ((1, 1), (2, 2), (3, 3), (4, 6)):
            chosen = quantizer.quantizer(F.interpolate(rest, size, mode="area"))
            tokens.append(chosen.indices.flatten(1))
            up = F.interpolate(chosen.quantized, (4, 6), mode="bicubic") if size != (4, 6) else chosen.quantized
            rest = rest - up
            means.append(rest.square().mean())
        assert torch.equal(output.indices, torch.cat(tokens, 1))
        torch.testing.assert_close(output.quantized, f - rest)
        torch.testing.assert_close(output.loss, 1.25 * torch.stack(means).mean())

    def test_any_number_of_first_scales_decodes(self) -> None:
        quantizer = self.make()
        indices = quantizer(torch.randn(2, 8, 4, 6)).indices
        assert indices.shape == (2, 1 + 4 + 9 + 24)
        for tokens in (1, 5, 14, 38):
            assert quantizer.lookup(indices[:, :tokens]).shape == (2, 8, 4, 6)
        for tokens in (0, 2, 37):
            with pytest.raises(ValueError, match=r"T in \[1, 5, 14, 38\]"):
                quantizer.lookup(indices[:, :tokens])

    def test_codes_and_convolutions_learn_from_their_term_and_inputs_from_theirs(self) -> None:
        quantizer, z = self.make().train(), torch.randn(2, 8, 4, 6, requires_grad=True)
        terms = quantizer(z).terms
        weights = list(quantizer.parameters())
        of_weights = torch.autograd.grad(terms["codebook"], [*weights, z], retain_graph=True, allow_unused=True)
        assert all(gradient is not None and gradient.any() for gradient in of_weights[:-1])
        assert of_weights[-1] is None
        of_inputs = torch.autograd.grad(terms["commitment"], [*weights, z], allow_unused=True)
        assert all(gradient is None for gradient in of_inputs[:-1])
        assert of_inputs[-1] is not None

    def test_tokens_without_a_valid_position_are_absent(self) -> None:
        quantizer, z = self.make(), torch.randn(2, 8, 4, 6)
        mask = torch.zeros(2, 4, 6, dtype=torch.bool)
        mask[0, :2, :3] = True  # the upper left quarter; nothing at all in the second map
        indices = quantizer(z, mask).indices
        assert (indices[1] == -1).all()
        assert (indices[0, 1:5] >= 0).tolist() == [True, False, False, False]
        assert torch.equal((indices[0, 14:] >= 0).reshape(4, 6), mask[0])
        whole = quantizer(z, torch.ones_like(mask))
        torch.testing.assert_close(whole.quantized, quantizer(z).quantized)

    @pytest.mark.parametrize("scales", [[1], [1, 2, 4], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6]])
    def test_has_four_convolutions_by_default_or_one_for_each_scale(self, scales: list[int]) -> None:
        quantizer = lexel.MultiScaleResidualQuantizer(table(), scales)
        assert len(quantizer.phi) == len(lexel.presets.var(scales).phi) == min(4, len(scales))
        twin = lexel.from_config(quantizer.config)
        twin.load_state_dict(quantizer.state_dict())
        z = torch.randn(2, 8, scales[-1], scales[-1])
        assert torch.equal(twin.eval()(z).quantized, quantizer.eval()(z).quantized)

    @pytest.mark.parametrize("weight", [0.0, 1.0])
    @pytest.mark.parametrize(
        "make",
        [
            lambda: lexel.ProjectedQuantizer(lexel.VectorQuantizer(16, 3), 8),
            lambda: lexel.VectorQuantizer(16, 8, codebook=lexel.FactorisedCodebook(3)),
        ],
        ids=["projected", "factorised"],
    )
    def test_a_map_inward_learns_by_the_loss_of_the_quantizer(
        self, make: Callable[[], lexel.Quantizer], weight: float
    ) -> None:
        multi = lexel.MultiScaleResidualQuantizer(make(), [1, 2], quantizer_weight=weight)
        output = multi(torch.randn(2, 8, 2, 2))
        multi.zero_grad()
        (output.loss + output.quantized.sum()).backward()
        still = {name.split(".")[-2] for name, value in multi.named_parameters() if value.grad is None}
        assert still == (set() if weight else {"down"})

    def test_refuses_other_maps(self) -> None:
        for shape in ((2, 8, 4, 4), (2, 8, 24)):
            with pytest.raises(ValueError, match=r"maps of the last scale, \(4, 6\)"):
                self.make()(torch.randn(shape))


class TestParallel:
    def test_is_the_sum_of_its_parts_or_their_channels(self) -> None:
        parts, z = [lexel.ResidualQuantizer([table(), table()]), table()], torch.randn(3, 8, 5)
        outputs = [part.eval()(z) for part in parts]
        both = lexel.ParallelQuantizer(parts).eval()
        torch.testing.assert_close(both(z).quantized, outputs[0].quantized + outputs[1].quantized)
        assert torch.equal(both(z).indices[..., :2], outputs[0].indices)
        assert torch.equal(both.lookup(outputs[0].indices), outputs[0].quantized)  # the first codebooks alone
        beside = lexel.ParallelQuantizer(parts, combine="concatenate").eval()
        assert torch.equal(beside(z).quantized, torch.cat([output.quantized for output in outputs], 1))
        with pytest.raises(ValueError, match="last axis of 3 codebooks"):
            beside.lookup(outputs[0].indices)

    def test_padding_is_zero_where_the_output_has_other_channels(self) -> None:
        vq, z = lexel.ParallelQuantizer([table(), table()], combine="concatenate"), torch.randn(3, 8, 5)
        mask = torch.rand(3, 5) < 0.5
        output = vq(z, mask)
        assert output.quantized.shape == (3, 16, 5)
        assert not output.quantized.movedim(1, -1)[~mask].any()
        torch.testing.assert_close(vq.eval().lookup(vq(z, mask).indices), vq(z, mask).quantized)

    def test_only_what_gives_back_as_many_channels_is_a_stage(self) -> None:
        wide = lexel.ParallelQuantizer([table(), table()], combine="concatenate")
        narrow = lexel.ProjectedQuantizer(table(embedding_dim=4), 8, back=False)
        for stage in (wide, narrow, lexel.ProductQuantizer([narrow]), lexel.CategoricalQuantizer(32, 8)):
            with pytest.raises(ValueError, match="leave no remainder"):
                lexel.ResidualQuantizer([stage])
        for stage in (wide, narrow):
            assert lexel.ResidualQuantizer([lexel.ProjectedQuantizer(stage, 8)])(torch.randn(3, 8)).indices.ndim == 2

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match="combine must be 'sum' or 'concatenate', got 'mean'"):
            lexel.ParallelQuantizer([table()], combine="mean")
        with pytest.raises(ValueError, match=r"same embedding_dim, got \[8, 4\]"):
            lexel.ParallelQuantizer([table(), table(embedding_dim=4)])
        narrow = lexel.ProjectedQuantizer(table(embedding_dim=4), 8, back=False)
        with pytest.raises(ValueError, match=r"same output_dim, got \[8, 4\]"):
            lexel.ParallelQuantizer([table(), narrow])


class TestStrided:
    @pytest.mark.parametrize("estimator", [lexel.RotationTrick(), lexel.DiVeQ(0)], ids=repr)
    def test_at_equal_rates_it_is_a_residual_with_its_gradients(self, estimator: lexel.Estimator) -> None:
        stages = [table(estimator=estimator) for _ in range(2)]
        z, upstream = torch.randn(3, 8, 5, requires_grad=True), torch.randn(3, 8, 5)
        residual, strided = lexel.ResidualQuantizer(stages), lexel.StridedResidualQuantizer(stages, [1, 1])
        for training in (True, False):
            outputs = [quantizer.train(training)(z).quantized for quantizer in (residual, strided)]
            torch.testing.assert_close(*outputs)
            torch.testing.assert_close(*(torch.autograd.grad((e * upstream).sum(), z)[0] for e in outputs))

    def test_in_eval_mode_what_learns_from_the_task_still_can(self) -> None:
        stages = [lexel.ProjectedQuantizer(table(16, 3), 8) for _ in range(2)]
        strided = lexel.StridedResidualQuantizer(stages, [2, 1]).eval()
        output = strided(torch.randn(3, 8, 4))
        output.quantized.sum().backward()
        assert all(stage.up.weight.grad is not None for stage in stages)
        assert torch.equal(strided.lookup(output.indices), output.quantized)

    def test_each_stage_quantizes_the_mean_of_what_those_before_left(self) -> None:
        vq, z = lexel.StridedResidualQuantizer([table(), table(), table()], [4, 2, 1]).eval(), torch.randn(3, 8, 12)
        remainder, total = z.clone(), torch.zeros_like(z)
        for stage, stride, own in zip(vq.quantizers, vq.strides, vq.by_stage(vq(z).indices), strict=True):
            output = stage(torch.stack([part.mean(-1) for part in remainder.split(stride, -1)], -1))
            assert torch.equal(own, output.indices)
            e = output.quantized.repeat_interleave(stride, -1)
            remainder, total = remainder - e, total + e
        torch.testing.assert_close(vq(z).quantized, total)

    def test_a_mask_leaves_the_mean_of_what_is_valid(self) -> None:
        vq, z = lexel.StridedResidualQuantizer([table(), table()], [4, 2]).eval(), torch.randn(1, 8, 8)
        mask = torch.tensor([[True, False, True, True, False, False, True, False]])
        filled = z.clone()
        filled[..., 1], filled[..., 4:6], filled[..., 7] = z[..., [0, 2, 3]].mean(-1), z[..., 6:7], z[..., 6]
        coarse, _ = vq.by_stage(vq(z, mask).indices)
        assert torch.equal(coarse, vq.by_stage(vq(filled).indices)[0])
        assert (vq.by_stage(vq(z, mask).indices)[1] == -1).tolist() == [[False, False, True, False]]

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("shape", [(2, 8, 0), (0, 8, 4), (2, 8, 3, 0), (2, 8, 0, 4)])
    def test_no_positions_have_no_tokens(self, shape: tuple[int, ...], training: bool) -> None:
        vq, z = lexel.StridedResidualQuantizer([table(), table()], [4, 2]).train(training), torch.randn(shape)
        for mask in (None, torch.ones(shape[:1] + shape[2:], dtype=torch.bool)):
            output = vq(z, mask)
            assert output.loss == 0
            assert output.quantized.shape == vq.lookup(output.indices).shape == shape
            assert not output.indices.numel()

    def test_refusals(self) -> None:
        for strides in ([2], [2, 0], [2, 1.5], [True, 2], 2):
            with pytest.raises((ValueError, TypeError), match=r"strides.* must (hold a positive|be a)"):
                lexel.StridedResidualQuantizer([table(), table()], strides)
        with pytest.raises(ValueError, match="must have one codebook"):
            lexel.StridedResidualQuantizer([lexel.ProductQuantizer([table()])], [1])
        vq = lexel.StridedResidualQuantizer([table(), table()], [3, 2])
        with pytest.raises(ValueError, match="T a multiple of 6"):
            vq(torch.randn(2, 8, 9))
        with pytest.raises(ValueError, match="N a multiple of 5"):
            vq.lookup(torch.zeros(2, 6, dtype=torch.int64))


class TestRefusals:
    @pytest.mark.parametrize(
        "make",
        [
            lambda vq: lexel.ResidualQuantizer([table(), vq]),
            lambda vq: lexel.ResidualQuantizer([lexel.ProductQuantizer([vq])]),
            lambda vq: lexel.MultiScaleResidualQuantizer(vq, [1, 2, 3, 4]),
        ],
        ids=["residual", "residual of products", "multi-scale"],
    )
    def test_codes_that_leave_no_remainder(self, make: Callable[[lexel.Quantizer], lexel.Quantizer]) -> None:
        with pytest.raises(ValueError, match=r"leave no remainder: .*scale_back=True"):
            make(lexel.presets.default(16, 8))
        make(lexel.ProjectedQuantizer(lexel.presets.default(16, 4), 8))

    def test_parts(self) -> None:
        part = table()
        with pytest.raises(TypeError, match=r"quantizers(\[.\])? must be a (lexel|sequence of) Quantizer, got"):
            lexel.ResidualQuantizer(part)
        with pytest.raises(TypeError, match=r"quantizers(\[.\])? must be a (lexel|sequence of) Quantizer, got"):
            lexel.ProductQuantizer([nn.Linear(2, 2)])
        with pytest.raises(ValueError, match="at least one"):
            lexel.ProductQuantizer([])
        with pytest.raises(ValueError, match="more than once; give it once, and set depth"):
            lexel.ResidualQuantizer([part, part])
        with pytest.raises(ValueError, match="more than once; give it once, and set heads"):
            lexel.ProductQuantizer([part, part])
        with pytest.raises(ValueError, match=r"same embedding_dim, got \[8, 4\]"):
            lexel.ResidualQuantizer([part, table(embedding_dim=4)])
        with pytest.raises(TypeError, match="quantizes whole maps"):
            lexel.ProductQuantizer([lexel.MultiScaleResidualQuantizer(part, [1, 2], convolutions=0)])
        with pytest.raises(ValueError, match="must have one codebook"):
            lexel.MultiScaleResidualQuantizer(lexel.ProductQuantizer([part]), [1, 2])

    @pytest.mark.parametrize(
        ("settings", "message"),
        [({"depth": 1}, "depth"), ({"depth": 2.5}, "depth"), ({"dropout": 1.5}, "dropout")],
    )
    def test_residual_settings(self, settings: dict[str, object], message: str) -> None:
        with pytest.raises((ValueError, TypeError), match=f"{message} must be"):
            lexel.ResidualQuantizer([table(), table()], **settings)

    @pytest.mark.parametrize(
        ("scales", "settings", "message"),
        [
            ([], {}, "scales must hold"),
            ([0, 2], {}, "scales must hold"),
            ([3, 2], {}, "scales must not shrink"),
            ([1, 2], {"convolutions": 3}, "convolutions"),
            ([1, 2], {"convolutions": [0]}, "a number for each of 2 scales"),
            ([1, 2], {"convolutions": [0, 2]}, "all of them from 0 to the largest"),
            ([1, 2], {"convolutions": 0, "upsampling": "nearest"}, "upsampling must be"),
            ([1, 2], {"convolutions": 0, "convolution_weight": 1.5}, "convolution_weight"),
            ([1, 2], {"convolutions": 0, "commitment_cost": -1.0}, "commitment_cost"),
        ],
    )
    def test_multi_scale_settings(self, scales: list[int], settings: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            lexel.MultiScaleResidualQuantizer(table(), scales, **settings)

    @pytest.mark.parametrize(
        "indices", [torch.tensor([[32, 0]]), torch.tensor([[0, 5]]), torch.tensor([[0, 0, 0]]), torch.tensor(0)]
    )
    def test_indices(self, indices: Tensor) -> None:
        with pytest.raises(ValueError, match="indices must"):
            lexel.ProductQuantizer([table(), table(5)]).lookup(indices)
