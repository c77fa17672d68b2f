"""What codes are a function of."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
import vector_quantize_pytorch as field

import lexel
from tests.test_estimators import ESTIMATORS, LEARNING, gradients

CODEBOOKS = [
    lexel.FreeCodebook(),
    lexel.CosineCodebook(),
    lexel.FactorisedCodebook(dim=3),
    lexel.FactorisedCodebook(dim=3, codes=lexel.CosineCodebook()),
    lexel.FactorisedCodebook(dim=3, codes=lexel.SimVQ()),
    lexel.SimVQ(),
    lexel.VQBridge(depth=1, width=16, heads=2, codes_per_token=5),
    lexel.AffineCodebook(),
]
UPKEEP = [(), lexel.KMeansStart(), lexel.Revival(), lexel.OnlineClustering()]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def make(codebook: lexel.Codebook, **settings: object) -> lexel.VectorQuantizer:
    """A quantizer none of whose parameters is at a value that hides something."""
    vq = lexel.VectorQuantizer(32, 8, codebook=codebook, **settings)
    with torch.no_grad():
        for tensor in (*vq.parameters(), vq.codebook.weight):
            tensor.normal_()
        vq.learning.restart(vq.codebook.weight, torch.ones(32))
    return vq


@pytest.mark.parametrize("codebook", CODEBOOKS, ids=repr)
class TestEveryCodebook:
    def test_eval_mode_inverts_exactly(self, codebook: lexel.Codebook) -> None:
        vq = make(codebook).eval()
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            z = torch.randn(4, 8, 5).to(dtype)
            output = vq(z)
            assert output.quantized.dtype == dtype
            assert torch.equal(vq.lookup(output.indices).to(dtype), output.quantized)

    def test_chooses_the_nearest_code_in_its_own_space(self, codebook: lexel.Codebook) -> None:
        vq, z = make(codebook).eval(), torch.randn(50, 8)
        expected = torch.cdist(vq.codebook.project(z), vq.codebook()).argmin(1)
        assert torch.equal(vq(z).indices, expected)

    def test_losses_are_those_of_its_own_space(self, codebook: lexel.Codebook) -> None:
        vq, z = make(codebook), torch.randn(50, 8)
        output = vq(z)
        error = F.mse_loss(vq.codebook.project(z), vq.codebook()[output.indices])
        torch.testing.assert_close(output.terms["commitment"], error)
        torch.testing.assert_close(output.terms["codebook"], error)

    def test_a_vector_that_is_a_code_comes_out_as_if_it_were_not_quantized(self, codebook: lexel.Codebook) -> None:
        """Codes put where inputs are: quantizing then changes nothing."""
        vq, z = make(codebook).eval(), torch.randn(32, 8)
        if codebook.accepts_placement:
            with torch.no_grad():
                vq.codebook.weight.copy_(vq.codebook.table_for(vq.codebook.project(z)))
            torch.testing.assert_close(vq(z).quantized, vq.unquantized(z))
        assert vq.unquantized(z.half()).dtype == torch.half

    def test_the_codebook_loss_moves_the_codes_and_never_the_encoder(self, codebook: lexel.Codebook) -> None:
        vq, z = make(codebook), torch.randn(50, 8, requires_grad=True)
        parameters = dict(vq.codebook.named_parameters())
        moved = gradients(vq(z).terms["codebook"], torch.ones(()), z, *parameters.values())
        assert not moved[0].any()
        for name, gradient in zip(parameters, moved[1:], strict=True):
            assert bool(gradient.any()) == ("down" not in name and "up" not in name), name

    def test_the_task_loss_reaches_the_encoder(self, codebook: lexel.Codebook) -> None:
        vq, z = make(codebook), torch.randn(50, 8, requires_grad=True)
        assert gradients(vq(z).quantized, torch.randn(50, 8), z)[0].abs().min() > 0

    def test_config_and_state_round_trip(self, codebook: lexel.Codebook) -> None:
        vq = make(codebook, commitment_cost=0.5).eval()
        assert vq.config["init_args"]["codebook"] == codebook.config
        again = lexel.from_config(vq.config).eval()
        assert again.config == vq.config
        again.load_state_dict(vq.state_dict())
        z = torch.randn(2, 8, 4)
        assert torch.equal(again(z).quantized, vq(z).quantized)

    def test_masked_inputs_count_in_nothing(self, codebook: lexel.Codebook) -> None:
        learning = lexel.EMA() if codebook.accepts_averages else lexel.Gradient()
        vq = make(codebook, learning=learning)
        alone = lexel.from_config(vq.config)
        alone.load_state_dict(vq.state_dict())
        z, mask = torch.randn(30, 8), torch.rand(30) < 0.5
        output, expected = vq(z, mask), alone(z[mask])
        torch.testing.assert_close((output.loss, output.perplexity), (expected.loss, expected.perplexity))
        torch.testing.assert_close(vq.state_dict(), alone.state_dict())

    def test_compiles_into_one_graph(self, codebook: lexel.Codebook) -> None:
        torch.compiler.reset()
        vq, z = make(codebook), torch.randn(4, 8, 5, requires_grad=True)
        compiled = torch.compile(vq, fullgraph=True, backend="aot_eager")
        upstream = torch.randn_like(z)
        found = [gradients(output.quantized, upstream, z)[0] + output.loss for output in (compiled(z), vq(z))]
        torch.testing.assert_close(*found)


def test_every_composition_works_or_says_why_not() -> None:
    refused = 0
    for codebook, learning, estimator, upkeep in product(CODEBOOKS, LEARNING, ESTIMATORS, UPKEEP):
        parts = {"codebook": codebook, "learning": learning, "estimator": estimator, "upkeep": upkeep}
        ema = isinstance(learning, lexel.EMA)
        if (ema and (estimator.moves_codes or not codebook.accepts_averages)) or (
            upkeep and not codebook.accepts_placement
        ):
            refused += 1
            with pytest.raises(ValueError, match=r"VectorQuantizer: \w+ .*: use "):
                lexel.VectorQuantizer(32, 8, **parts)
            continue
        vq, z = make(**parts), torch.randn(40, 8, requires_grad=True)
        for _ in range(2):
            output = vq(z)
            (output.loss + output.quantized.sum()).backward()
        assert z.grad.isfinite().all(), parts
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in vq.parameters()), (
            parts
        )
    assert 0 < refused < 440


class TestCosine:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_an_input_without_a_direction_has_a_small_gradient(self, dtype: torch.dtype) -> None:
        z = torch.zeros(2, 8, dtype=dtype, requires_grad=True)
        output = make(lexel.CosineCodebook())(z)
        (output.loss + output.quantized.sum()).backward()
        assert z.grad.abs().max() < 10

    def test_lengths_do_not_matter(self) -> None:
        vq, z = make(lexel.CosineCodebook()).eval(), torch.randn(50, 8)
        torch.testing.assert_close(vq(z * torch.rand(50, 1) * 100).quantized, vq(z).quantized)
        torch.testing.assert_close(vq(z).quantized.norm(dim=1), torch.ones(50))

    def test_kmeans_start_ends_at_mean_directions(self) -> None:
        z = torch.randn(240, 8) * (0.1 + torch.rand(240, 1))
        start = lexel.KMeansStart(iterations=100)
        vq = lexel.VectorQuantizer(6, 8, codebook=lexel.CosineCodebook(), upkeep=start)
        indices, units = vq(z).indices, F.normalize(z, dim=1)
        means = torch.stack([units[indices == k].mean(0) for k in range(6)])
        torch.testing.assert_close(vq.codebook(), F.normalize(means, dim=1))

    def test_agrees_with_vector_quantize_pytorch(self) -> None:
        theirs = field.VectorQuantize(8, 32, use_cosine_sim=True, channel_last=True).eval()
        ours = lexel.VectorQuantizer(32, 8, codebook=lexel.CosineCodebook()).eval()
        theirs._codebook.embed.data.copy_(ours.codebook().detach().unsqueeze(0))
        z = torch.randn(50, 8)
        quantized, indices, _ = theirs(z.unsqueeze(0))
        assert torch.equal(ours(z).indices, indices[0])
        torch.testing.assert_close(ours(z).quantized, quantized[0])


def test_free_codebook_agrees_with_vector_quantize_pytorch() -> None:
    theirs = field.VectorQuantize(8, 32, channel_last=True).eval()
    ours = make(lexel.FreeCodebook()).eval()
    theirs._codebook.embed.data.copy_(ours.codebook().detach().unsqueeze(0))
    z = torch.randn(50, 8)
    quantized, indices, _ = theirs(z.unsqueeze(0))
    assert torch.equal(ours(z).indices, indices[0])
    torch.testing.assert_close(ours(z).quantized, quantized[0])


def test_factorised_agrees_with_vector_quantize_pytorch() -> None:
    theirs = field.VectorQuantize(8, 32, codebook_dim=3, use_cosine_sim=True).eval()
    ours = make(lexel.FactorisedCodebook(3, lexel.CosineCodebook())).eval()
    theirs._codebook.embed.data.copy_(ours.codebook().detach().unsqueeze(0))
    theirs.project_in.load_state_dict(ours.codebook.down.state_dict())
    theirs.project_out.load_state_dict(ours.codebook.up.state_dict())
    z = torch.randn(50, 8)
    quantized, indices, _ = theirs(z.unsqueeze(0))
    assert torch.equal(ours(z).indices, indices[0])
    torch.testing.assert_close(ours(z).quantized, quantized[0])


class TestSimVQ:
    def test_agrees_with_vector_quantize_pytorch(self) -> None:
        theirs = field.SimVQ(8, 32, rotation_trick=True)
        ours = lexel.VectorQuantizer(32, 8, codebook=lexel.SimVQ(), estimator=lexel.RotationTrick())
        ours.codebook.weight.copy_(theirs.frozen_codebook)
        ours.codebook.map.load_state_dict(theirs.code_transform.state_dict())
        z = torch.randn(50, 8, requires_grad=True)
        quantized, indices, loss = theirs(z.unsqueeze(0))
        output, upstream = ours(z), torch.randn_like(z)
        assert torch.equal(output.indices, indices[0])
        torch.testing.assert_close(output.quantized, quantized[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(output.loss, loss)
        expected = gradients(quantized[0], upstream, z)
        torch.testing.assert_close(gradients(output.quantized, upstream, z), expected, rtol=1e-4, atol=1e-5)

    def test_one_input_moves_all_codes_and_never_the_table(self) -> None:
        vq = lexel.VectorQuantizer(32, 8, codebook=lexel.SimVQ())
        codes, table = vq.codebook().detach(), vq.codebook.weight.clone()
        vq(torch.randn(1, 8)).loss.backward()
        torch.optim.SGD(vq.parameters(), lr=0.1).step()
        assert (vq.codebook() - codes).abs().amax(1).min() > 0
        assert torch.equal(vq.codebook.weight, table)


class TestBridge:
    def test_starts_as_its_table(self) -> None:
        vq = lexel.VectorQuantizer(37, 8, codebook=lexel.VQBridge(codes_per_token=5))
        torch.testing.assert_close(vq.codebook(), vq.codebook.weight)

    def test_one_input_moves_all_codes(self) -> None:
        vq = make(lexel.VQBridge(depth=1, width=16, heads=2, codes_per_token=5))
        vq(torch.randn(1, 8)).loss.backward()
        assert (vq.codebook.weight.grad.abs().amax(1) > 0).all()


def test_affine_codes_share_shift_and_scale() -> None:
    vq = make(lexel.AffineCodebook())
    book = vq.codebook
    torch.testing.assert_close(book(), book.shift + book.scale * book.weight)
    before = book().detach()
    with torch.no_grad():
        book.shift += 1
    torch.testing.assert_close(book().detach(), before + 1)


@pytest.mark.parametrize(
    ("cls", "wrong", "message"),
    [
        (lexel.FactorisedCodebook, {"dim": 0}, "dim must be at least 1, got 0"),
        (lexel.VQBridge, {"depth": 0}, "depth must be at least 1, got 0"),
        (lexel.VQBridge, {"width": 10, "heads": 4}, "width must be a multiple of heads=4, got 10"),
    ],
)
def test_refuses_settings_out_of_range(cls: type, wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**wrong)


@pytest.mark.parametrize("codebook", [codebook for codebook in CODEBOOKS if codebook.accepts_placement], ids=repr)
def test_placed_codes_are_where_they_were_put(codebook: lexel.Codebook) -> None:
    vq = make(codebook)
    before, anchors = vq.codebook(), torch.randn_like(vq.codebook())
    if codebook.unit_length:
        anchors = F.normalize(anchors, dim=1)
    vq.pull(anchors, (torch.arange(32) < 10).float())
    torch.testing.assert_close(vq.codebook()[:10], anchors[:10], rtol=1e-4, atol=1e-5)
    assert torch.equal(vq.codebook()[10:], before[10:])
