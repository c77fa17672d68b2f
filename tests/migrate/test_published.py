"""Quantizers of papers and repositories, against short transcriptions of their formulas."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lexel
from lexel import migrate
from tests.migrate.agreement import agree, gradients_agree
from tests.quantizers.reference import classic, ema_update

LEARNING = lexel.EMA(0.9)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class TestClassicModule:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
    def test_of_any_precision(self, dtype: torch.dtype) -> None:
        codes = torch.randn(32, 8, dtype=dtype)
        ours = migrate.load({"_embedding.weight": codes}, commitment_cost=0.25)
        assert torch.equal(ours.codebook.weight, codes.float())

    def test_by_gradient(self) -> None:
        codes, z = torch.randn(32, 8), torch.randn(3, 8, 5, 5)
        for prefix in ("", "vq.", "model._vq_vae."):
            ours = migrate.load({f"{prefix}_embedding.weight": codes}, commitment_cost=0.25)
            loss, quantized, perplexity, encodings = ours.train()(z)
            for got, expected in zip((loss, quantized, perplexity, encodings), classic(z, codes, 0.25), strict=True):
                torch.testing.assert_close(got, expected)

    def test_by_moving_average_goes_on(self) -> None:
        codes, total, count = torch.randn(32, 8), torch.randn(32, 8), 5 * torch.rand(32)
        state = {"_embedding.weight": codes, "_ema_w": total, "_ema_cluster_size": count}
        ours = migrate.load(state, commitment_cost=0.25, learning=LEARNING)
        z = torch.randn(3, 8, 5, 5)
        output = ours.train()(z)
        assert torch.equal(output.encodings, classic(z, codes, 0.25)[3])
        rows = z.movedim(1, -1).reshape(-1, 8)
        expected = ema_update(count, total, output.encodings, rows, LEARNING.decay, LEARNING.epsilon)
        torch.testing.assert_close((ours.learning.count, ours.learning.sum, ours.codebook.weight), expected)


class TestVQGAN:
    @pytest.mark.parametrize("metric", ["euclidean", "cosine"])
    def test_within_a_model(self, metric: str) -> None:
        codes, z = torch.randn(32, 8), torch.randn(3, 8, 5, 5)
        model = {
            "encoder.conv_in.weight": torch.randn(4, 3, 3, 3),
            "encoder.conv_in.bias": torch.randn(4),
            "decoder.embedding.weight": torch.randn(5, 5),
            "quantize.embedding.weight": codes,
            "quantize.codebook_used": torch.zeros(65536),
        }
        with pytest.warns(UserWarning, match=r"left aside decoder \(1\), encoder \(2\)$"):
            ours = migrate.load(model, metric=metric, commitment_cost=0.25)
        rows = z.movedim(1, -1)
        if metric == "cosine":  # LlamaGen's codebook_l2_norm
            rows, codes = F.normalize(rows, dim=-1), F.normalize(codes, dim=-1)
        output = ours(z)
        assert torch.equal(output.indices, (rows.unsqueeze(-2) - codes).norm(dim=-1).argmin(-1))
        torch.testing.assert_close(output.quantized.movedim(1, -1), codes[output.indices])
        with pytest.warns(UserWarning, match="quantize"):
            elsewhere = migrate.load(model, prefix="decoder", metric=metric, commitment_cost=0.25)
        assert elsewhere.num_embeddings == 5


class TestCodecs:
    @pytest.mark.parametrize(
        "names", ["vq.layers.{}._codebook.", "layers.{}.codebook."], ids=["encodec", "transformers"]
    )
    def test_encodec(self, names: str) -> None:
        tables, counts = [torch.randn(32, 8) / 2**stage for stage in range(3)], 5 * torch.rand(3, 32)
        state = {}
        for stage, codes in enumerate(tables):
            at = "quantizer." + names.format(stage)
            state |= {
                f"{at}inited": torch.ones(1),
                f"{at}embed": codes,
                f"{at}cluster_size": counts[stage],
                f"{at}embed_avg": codes * counts[stage].unsqueeze(1),
            }
        ours, z = migrate.load(state), torch.randn(2, 8, 30)
        indices, quantized, residual = [], torch.zeros(2, 30, 8), z.movedim(1, -1)
        for codes in tables:
            indices.append((residual.unsqueeze(-2) - codes).square().sum(-1).argmin(-1))
            residual, quantized = residual - codes[indices[-1]], quantized + codes[indices[-1]]
        output = ours(z)
        assert torch.equal(output.indices, torch.stack(indices, -1))
        torch.testing.assert_close(output.quantized.movedim(1, -1), quantized)
        for stage, part in enumerate(ours.parts):
            assert part.learning.settings == lexel.EMA(0.99)
            assert torch.equal(part.learning.count, counts[stage])
            torch.testing.assert_close(part.learning.sum, state["quantizer." + names.format(stage) + "embed_avg"])
        assert migrate.load(state, learning=LEARNING).parts[0].learning.settings == LEARNING

    @pytest.mark.parametrize("normalised", ["weight_g", "parametrizations.weight.original0", None])
    def test_dac(self, normalised: str | None) -> None:
        class Stage(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.in_proj, self.out_proj = nn.Conv1d(10, 4, 1), nn.Conv1d(4, 10, 1)
                self.codebook = nn.Embedding(32, 4)
                for convolution in (self.in_proj, self.out_proj) if normalised else ():
                    if normalised == "weight_g":
                        with warnings.catch_warnings():
                            warnings.simplefilter("ignore", FutureWarning)
                            nn.utils.weight_norm(convolution)
                        convolution.weight_g.data.mul_(1.5)
                    else:
                        nn.utils.parametrizations.weight_norm(convolution)

            def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
                directions = F.normalize(self.codebook.weight)
                indices = torch.einsum("bdt, kd -> btk", F.normalize(self.in_proj(z), dim=1), directions).argmax(-1)
                return self.out_proj(self.codebook(indices).movedim(-1, 1)), indices

        class Theirs(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.quantizers = nn.ModuleList(Stage() for _ in range(3))

            def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
                total, indices = torch.zeros_like(z), []
                for stage in self.quantizers:
                    quantized, chosen = stage(z - total)
                    total = total + quantized
                    indices.append(chosen)
                return total, torch.stack(indices, -1)

        theirs, z = Theirs(), torch.randn(2, 10, 30)
        ours = migrate.load({f"quantizer.{name}": value for name, value in theirs.state_dict().items()}, format="dac")
        quantized, indices = theirs(z)
        assert torch.equal(ours(z).indices, indices)
        torch.testing.assert_close(ours(z).quantized, quantized)


def straight_through(z: Tensor, e: Tensor) -> Tensor:
    return z + (e - z).detach()


def nearest(rows: Tensor, codes: Tensor) -> Tensor:
    return (rows.unsqueeze(-2) - codes).square().sum(-1).argmin(-1)


class VAR(nn.Module):
    """VAR's quantizer: the remainder at each scale, upsampled and mended by one of a few convolutions."""

    def __init__(self, scales: Sequence[int], convolutions: int, cosine: bool, ratio: float) -> None:
        super().__init__()
        self.scales, self.cosine, self.ratio = scales, cosine, ratio
        self.embedding = nn.Embedding(32, 6)
        self.register_buffer("ema_vocab_hit_SV", torch.zeros(len(scales), 32))
        self.quant_resi = nn.Module()
        self.quant_resi.qresi_ls = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(convolutions))
        first = 1 / (3 if convolutions == 4 else 2) / convolutions
        self.places = torch.linspace(first, 1 - first, convolutions, dtype=torch.float64)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        total, indices, loss = torch.zeros_like(z), [], 0.0
        for number, scale in enumerate(self.scales):
            rows = F.interpolate(z.detach() - total.detach(), (scale, scale), mode="area").movedim(1, -1)
            codes = self.embedding.weight
            if self.cosine:
                chosen = (F.normalize(rows, dim=-1) @ F.normalize(codes, dim=-1).T).argmax(-1)
            else:
                chosen = nearest(rows, codes)
            e = self.embedding(chosen).movedim(-1, 1)
            if scale != self.scales[-1]:
                e = F.interpolate(e, z.shape[2:], mode="bicubic")
            place = torch.tensor(number / (len(self.scales) - 1), dtype=torch.float64)
            convolution = self.quant_resi.qresi_ls[int((self.places - place).abs().argmin())]
            total = total + e * (1 - self.ratio) + convolution(e) * self.ratio
            loss = loss + (0.25 * F.mse_loss(total.detach(), z) + F.mse_loss(total, z.detach())) / len(self.scales)
            indices.append(chosen.flatten(1))
        return straight_through(z, total), torch.cat(indices, 1), loss


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize(("scales", "convolutions"), [([1, 2, 3, 4, 5, 6, 8, 10, 13, 16], 4), ([1, 2, 4, 6], 3)])
def test_var(scales: list[int], convolutions: int, cosine: bool) -> None:
    theirs = VAR(scales, convolutions, cosine, ratio=0.4)
    state = {f"quantize.{key}": value for key, value in theirs.state_dict().items()}
    settings = {"metric": "cosine" if cosine else "euclidean", "commitment_cost": 0.25, "convolution_weight": 0.4}
    ours, z = migrate.load(state, scales=scales, **settings), torch.randn(3, 6, scales[-1], scales[-1])
    agree(ours, theirs, z)
    gradients_agree(ours, theirs, z)
    with pytest.raises(TypeError, match=r"convolution_weight=, .* \(quant_resi\)"):
        migrate.load(state, scales=scales, metric="euclidean", commitment_cost=0.25)


class RQVAE(nn.Module):
    """RQ-VAE's bottleneck: codebooks with a row for padding; inputs `(B, h, w, D)`."""

    def __init__(self, depth: int, shared: bool) -> None:
        super().__init__()
        tables = [nn.Embedding(33, 6) for _ in range(1 if shared else depth)]
        for table in tables:
            table.register_buffer("cluster_size_ema", 5 * torch.rand(32))
            table.register_buffer("embed_ema", torch.randn(32, 6))
        self.codebooks = nn.ModuleList(tables * depth if shared else tables)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        total, indices, losses = torch.zeros_like(z), [], []
        for table in self.codebooks:
            indices.append(nearest(z.detach() - total, table.weight[:-1]))
            total = total + table(indices[-1]).detach()
            losses.append(F.mse_loss(z, total))
        return straight_through(z, total), torch.stack(indices, -1), 0.25 * torch.stack(losses).mean()


@pytest.mark.parametrize("shared", [False, True])
def test_rq_vae(shared: bool) -> None:
    theirs, z = RQVAE(3, shared), torch.randn(3, 4, 5, 6)
    state = {f"quantizer.{key}": value for key, value in theirs.state_dict().items()}
    ours = migrate.load(state, channel_dim=-1)
    agree(ours, theirs, z)
    assert len(ours.quantizers) == (1 if shared else 3)
    if not shared:  # averages move a shared codebook after each stage, which this transcription does not
        gradients_agree(migrate.load(state, channel_dim=-1, upkeep=()), theirs, z)


class Recommender(nn.Module):
    """RQ-VAE-Recommender's quantizer, in a model whose own modules stand beside its layers."""

    def __init__(self, normalised: bool, mapped: bool) -> None:
        super().__init__()
        self.normalised = normalised
        self.encoder, self.decoder = nn.Linear(9, 6), nn.Linear(6, 9)
        self.layers = nn.ModuleList(nn.Module() for _ in range(3))
        for layer in self.layers:
            layer.embedding = nn.Embedding(32, 6)
            layer.out_proj = nn.Sequential(nn.Linear(6, 6, bias=False) if mapped else nn.Identity(), nn.Identity())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        remainder, total, indices = z, torch.zeros_like(z), []
        for number, layer in enumerate(self.layers):
            codes = layer.out_proj(layer.embedding.weight)
            codes = F.normalize(codes, dim=-1) if self.normalised and number == 0 else codes
            indices.append(nearest(remainder, codes))
            remainder, total = remainder - codes[indices[-1]], total + codes[indices[-1]]
        return total, torch.stack(indices, -1)


@pytest.mark.parametrize(("normalised", "mapped"), list(itertools.product([False, True], repeat=2)))
def test_rq_vae_recommender(normalised: bool, mapped: bool) -> None:
    theirs, z = Recommender(normalised, mapped), torch.randn(50, 6)
    z = F.normalize(z, dim=-1) if normalised else z
    with pytest.warns(UserWarning, match=r"left aside decoder \(2\), encoder \(2\)"):
        ours = migrate.load(theirs.state_dict(), commitment_cost=0.25, normalised=normalised)
    agree(ours, theirs, z)


class BigCodec(nn.Module):
    """BigCodec's quantizer: stages of few dimensions, chosen by the angle, between weight-normalised linear maps."""

    def __init__(self, dim: int, code_dim: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Module() for _ in range(depth))
        for layer in self.layers:
            for name, sizes in (("in_proj", (dim, code_dim)), ("out_proj", (code_dim, dim))):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)
                    linear = nn.utils.weight_norm(nn.Linear(*sizes)) if dim != code_dim else nn.Identity()
                setattr(layer, name, linear)
            layer._codebook = nn.Embedding(32, code_dim)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        remainder, total, indices, loss = z.movedim(1, -1), 0.0, [], 0.0
        for layer in self.layers:
            inner, codes = layer.in_proj(remainder), layer._codebook.weight
            indices.append((F.normalize(inner, dim=-1) @ F.normalize(codes, dim=-1).T).argmax(-1))
            e = codes[indices[-1]]
            loss = loss + 0.25 * F.mse_loss(inner, e.detach()) + F.mse_loss(e, inner.detach())
            e = layer.out_proj(straight_through(inner, e))
            remainder, total = remainder - e, total + e
        return total.movedim(-1, 1), torch.stack(indices, -1), loss


@pytest.mark.parametrize(("code_dim", "depth"), [(4, 1), (4, 3), (10, 1)])
def test_bigcodec(code_dim: int, depth: int) -> None:
    theirs, z = BigCodec(10, code_dim, depth), torch.randn(2, 10, 30)
    ours = migrate.load({f"quantizer.{key}": value for key, value in theirs.state_dict().items()})
    agree(ours, theirs, z)
    gradients_agree(ours, theirs, z)


def test_cosyvoice() -> None:
    """The tokenizer of CosyVoice 2 gives indices; its eight levels of three are what there is of vectors."""
    project = nn.Linear(20, 8)
    state = {f"quantizer._codebook.project_down.{key}": value for key, value in project.state_dict().items()}
    ours, z = migrate.load(state, channel_dim=-1), 2 * torch.randn(3, 30, 20)

    def theirs(z: Tensor) -> tuple[Tensor, Tensor]:
        levels = (torch.tanh(project(z).float()) * 0.9990000128746033).round()
        return levels, ((levels + 1) * 3 ** torch.arange(8)).sum(-1).long()

    agree(ours, theirs, z)
    mask = torch.rand(3, 30) < 0.5
    assert not ours(z, mask).quantized[~mask].any()


@pytest.mark.parametrize("scales", [[1, 2, 4, 6], [(1, 1), (2, 4), (3, 8)]], ids=str)
def test_infinity(scales: list[Any]) -> None:
    """Signs of the unit vector at each scale; the first channel is the most significant bit."""
    height, width = (scales[-1], scales[-1]) if isinstance(scales[-1], int) else scales[-1]
    values = 2 ** torch.arange(9, -1, -1)

    def theirs(z: Tensor) -> tuple[Tensor, Tensor]:
        total, indices = torch.zeros_like(z), []
        for scale in scales:
            tokens = F.interpolate((z - total).unsqueeze(2), (1, *_pair(scale)), mode="area")
            positive = tokens > 0
            indices.append((positive * values.reshape(1, -1, 1, 1, 1)).sum(1).flatten(1))
            e = torch.where(positive, 1.0, -1.0) / math.sqrt(10)
            total = total + F.interpolate(e, (1, height, width), mode="trilinear").squeeze(2)
        return total, torch.cat(indices, 1)

    state = {"quantizer.lfq.mask": values}
    ours = migrate.load(state, scales=scales)
    agree(ours, theirs, torch.randn(2, 10, height, width))
    with pytest.raises(TypeError, match=r"found Infinity's multi-scale quantizer.* Give scales="):
        migrate.load(state)
    single = {"commitment_cost": 0.25, "spherical": True}
    with pytest.raises(TypeError, match="Infinity"):  # one scale of it is not what was trained
        migrate.load(state, **single)
    with pytest.raises(ValueError, match=r"not sure what stands at prefix='quantizer\.'.*layernorm.weight"):
        migrate.load({**state, "quantizer.layernorm.weight": torch.ones(10)}, scales=scales)


def _pair(scale: int | tuple[int, int]) -> tuple[int, int]:
    return (scale, scale) if isinstance(scale, int) else scale


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_legacy_weight_of_taming_transformers(metric: str) -> None:
    """Its beta weighs the codebook loss, by what its authors call a bug that they keep."""
    codes, z = nn.Parameter(torch.randn(32, 8)), torch.randn(3, 5, 5, 8)
    state = {"quantize.embedding.weight": codes.detach()}
    learning = lexel.Gradient(weight=0.25)
    ours = migrate.load(state, metric=metric, commitment_cost=1.0, learning=learning, channel_dim=-1)

    def theirs(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, table = (z, codes) if metric == "euclidean" else (F.normalize(z, dim=-1), F.normalize(codes, dim=-1))
        indices = nearest(rows, table)
        e = table[indices]
        loss = F.mse_loss(e.detach(), rows) + 0.25 * F.mse_loss(e, rows.detach())
        return straight_through(rows, e), indices, loss

    agree(ours, theirs, z)
    gradients_agree(ours, theirs, z)
