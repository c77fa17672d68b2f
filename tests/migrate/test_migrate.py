"""Quantizers of other packages, against those packages, or against their formulas where they are no small install."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import vector_quantize_pytorch as field
from torch import Tensor, nn

import lexel
from lexel import migrate
from tests.quantizers.reference import classic, ema_update

LEARNING = lexel.EMA(0.9)
IDENTITY = {"_embedding.weight": torch.eye(4)}
TABLE = {"metric": "euclidean", "commitment_cost": 0.25, "learning": LEARNING}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def trained(theirs: nn.Module, dim: int) -> nn.Module:
    """Let a quantizer of vector-quantize-pytorch move away from where it started."""
    for _ in range(5):
        theirs.train()(torch.randn(8, 40, dim))
    return theirs.eval()


def agree(theirs: nn.Module, dim: int, **settings: Any) -> lexel.Quantizer:
    """Load what `theirs` has, and compare on inputs that it has not seen."""
    ours, z = migrate.load(theirs.state_dict(), channel_dim=-1, **settings), torch.randn(6, 50, dim)
    with torch.no_grad():
        quantized, indices, *_ = theirs(z)
        output = ours(z)
    assert torch.equal(output.indices, indices.long())
    torch.testing.assert_close(output.quantized, quantized, rtol=1e-5, atol=1e-5)
    assert torch.equal(ours.lookup(output.indices), output.quantized)
    again = lexel.from_config(ours.config).eval()
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again(z).quantized, output.quantized)
    return ours


class TestVectorQuantizePytorch:
    @pytest.mark.parametrize("metric", ["euclidean", "cosine"])
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"codebook_dim": 4},
            {"heads": 4, "codebook_dim": 3},
            {"heads": 4, "codebook_dim": 3, "separate_codebook_per_head": True},
            {"heads": 3, "codebook_dim": 4},
            {"heads": 3, "codebook_dim": 4, "separate_codebook_per_head": True},
        ],
        ids=str,
    )
    def test_vector_quantize(self, settings: dict[str, Any], metric: str) -> None:
        dim = 12 if settings.get("heads") == 3 else 8
        theirs = field.VectorQuantize(dim=dim, codebook_size=32, use_cosine_sim=metric == "cosine", **settings)
        more = {"heads": 3} if settings.get("heads") == 3 and "separate_codebook_per_head" not in settings else {}
        agree(trained(theirs, dim), dim, **{**TABLE, "metric": metric}, **more)

    def test_learnable(self) -> None:
        theirs = field.VectorQuantize(dim=8, codebook_size=32, learnable_codebook=True, ema_update=False)
        ours = agree(theirs.eval(), 8, **{**TABLE, "learning": lexel.Gradient()})
        assert ours.codebook.weight.requires_grad

    def test_training_goes_on_as_theirs_would(self) -> None:
        theirs = field.VectorQuantize(dim=8, codebook_size=32, decay=0.9)
        ours = agree(trained(theirs, 8), 8, **TABLE)
        for _ in range(3):
            z = torch.randn(8, 40, 8)
            theirs.train()(z)
            ours.train()(z)
        torch.testing.assert_close(ours.codebook.weight, theirs.codebook)

    @pytest.mark.parametrize(
        "settings",
        [{}, {"shared_codebook": True}, {"codebook_dim": 3}, {"codebook_size": (32, 16, 8)}],
        ids=str,
    )
    def test_residual_vq(self, settings: dict[str, Any]) -> None:
        theirs = field.ResidualVQ(**{"dim": 8, "num_quantizers": 3, "codebook_size": 32, **settings})
        ours = agree(trained(theirs, 8), 8, **TABLE)
        tables = [name for name in ours.state_dict() if name.endswith("codebook.weight")]
        assert len(tables) == (1 if "shared_codebook" in settings else 3)

    def test_sim_vq(self) -> None:
        agree(field.SimVQ(dim=8, codebook_size=64), 8, commitment_cost=0.25)

    @pytest.mark.parametrize("spherical", [False, True])
    @pytest.mark.parametrize(
        ("settings", "given"),
        [
            ({"codebook_size": 64}, {}),
            ({"codebook_size": 64, "dim": 10}, {}),
            ({"codebook_size": 16, "num_codebooks": 3}, {"heads": 3}),
            ({"codebook_size": 16, "num_codebooks": 3, "dim": 10, "projection_has_bias": False}, {}),
        ],
        ids=str,
    )
    def test_lfq(self, settings: dict[str, Any], given: dict[str, int], spherical: bool) -> None:
        theirs = field.LFQ(spherical=spherical, **settings).eval()
        agree(theirs, theirs.dim, commitment_cost=0.25, spherical=spherical, **given)

    @pytest.mark.parametrize(
        ("settings", "given"),
        [({}, {}), ({"dim": 10}, {}), ({"num_codebooks": 3}, {"heads": 3}), ({"dim": 7, "num_codebooks": 2}, {})],
        ids=str,
    )
    def test_fsq(self, settings: dict[str, int], given: dict[str, int]) -> None:
        theirs = field.FSQ([8, 5, 4, 3], **settings).eval()
        agree(theirs, theirs.dim, format="vqp-fsq", levels=[8, 5, 4, 3], **given)

    def test_codes_that_wait_for_k_means_are_refused(self) -> None:
        state = field.VectorQuantize(dim=8, codebook_size=32, kmeans_init=True).state_dict()
        with pytest.raises(ValueError, match="k-means start"):
            migrate.load(state, **TABLE)

    def test_k_means_does_not_start_again(self) -> None:
        theirs = trained(field.VectorQuantize(dim=8, codebook_size=32), 8)
        ours = migrate.load(theirs.state_dict(), channel_dim=-1, **TABLE, upkeep=lexel.KMeansStart())
        z = torch.randn(100, 8)
        assert torch.equal(ours.train()(z).indices, theirs(z)[1])


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
        torch.testing.assert_close((ours.ema_count, ours.ema_sum, ours.codebook.weight), expected)


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
            assert part.learning == lexel.EMA(0.99)
            assert torch.equal(part.ema_count, counts[stage])
            torch.testing.assert_close(part.ema_sum, state["quantizer." + names.format(stage) + "embed_avg"])
        assert migrate.load(state, learning=LEARNING).parts[0].learning == LEARNING

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
        ours = migrate.load({f"quantizer.{name}": value for name, value in theirs.state_dict().items()})
        quantized, indices = theirs(z)
        assert torch.equal(ours(z).indices, indices)
        torch.testing.assert_close(ours(z).quantized, quantized)


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "save"),
        [
            ("model.safetensors", lambda state, path: safetensors.torch.save_file(state, path)),
            ("model.pt", lambda state, path: torch.save(state, path)),
            ("last.ckpt", lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path)),
            ("vq_ds16.pt", lambda state, path: torch.save({"model": state, "steps": 7}, path)),
        ],
    )
    def test_each_kind(self, name: str, save: Callable[[dict[str, Tensor], Path], None], tmp_path: Path) -> None:
        save(IDENTITY, tmp_path / name)
        for path in (tmp_path / name, str(tmp_path / name)):
            assert torch.equal(migrate.load(path, commitment_cost=1.0).codebook.weight, torch.eye(4))

    def test_nothing_in_a_file_is_run(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "trapped",)

        torch.save({"_embedding.weight": Trap()}, tmp_path / "model.pt")
        with pytest.raises(ValueError, match="nothing in it was run"):
            migrate.load(tmp_path / "model.pt", commitment_cost=1.0)
        assert not (tmp_path / "trapped").exists()

    @pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
    @pytest.mark.parametrize("content", [b"", b"no weights", bytes(range(256)) * 9, b"PK\x03\x04" + b"0" * 99])
    def test_damaged(self, name: str, content: bytes, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            migrate.load(tmp_path / name, commitment_cost=1.0)

    def test_without_safetensors_the_extra_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        safetensors.torch.save_file(IDENTITY, tmp_path / "model.safetensors")
        monkeypatch.setitem(sys.modules, "safetensors", None)
        with pytest.raises(ImportError, match=r"lexel\[models\]"):
            migrate.load(tmp_path / "model.safetensors", commitment_cost=1.0)

    def test_absent(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nothing.pt"):
            migrate.load(tmp_path / "nothing.pt")


class TestRefusals:
    def test_what_the_state_does_not_say_is_asked_for(self) -> None:
        state = field.VectorQuantize(dim=8, codebook_size=32).state_dict()
        with pytest.raises(
            TypeError, match=r"VectorQuantize.* metric=, 'euclidean'.* commitment_cost=.* learning=, lexel"
        ):
            migrate.load(state)
        with pytest.raises(ValueError, match="metric must be 'euclidean' or 'cosine', got 'l2'"):
            migrate.load(state, **{**TABLE, "metric": "l2"})

    def test_settings_that_mean_nothing_there(self) -> None:
        with pytest.raises(
            TypeError, match="classic module has no setting learning, spherical; it has commitment_cost"
        ):
            migrate.load(IDENTITY, commitment_cost=1.0, learning=LEARNING, spherical=True)

    @pytest.mark.parametrize(
        "more",
        [
            {"affine_param": True},
            {"layernorm_after_project_in": True, "codebook_dim": 4},
        ],
        ids=str,
    )
    def test_unknown_keys_are_named(self, more: dict[str, Any]) -> None:
        state = trained(field.VectorQuantize(dim=8, codebook_size=32, **more), 8).state_dict()
        with pytest.raises(ValueError, match=r"does not have the keys .*(codebook_mean|project_in.0.bias)"):
            migrate.load(state, **TABLE)

    def test_missing_keys_and_wrong_shapes_are_named(self) -> None:
        state = field.VectorQuantize(dim=8, codebook_size=32).state_dict()
        with pytest.raises(ValueError, match=r"_codebook.embed_avg is missing"):
            migrate.load({key: value for key, value in state.items() if "avg" not in key}, **TABLE)
        with pytest.raises(ValueError, match=r"_codebook.cluster_size must have shape \(1, 32\), got \(1, 31\)"):
            migrate.load({**state, "_codebook.cluster_size": torch.ones(1, 31)}, **TABLE)

    def test_several_or_none(self) -> None:
        state = field.ResidualVQ(dim=8, num_quantizers=2, codebook_size=32).state_dict()
        both = {f"{name}.{key}": value for name in ("top", "bottom") for key, value in state.items()}
        with pytest.raises(ValueError, match=r"prefix of one: 'top\.' \(.*ResidualVQ\), 'bottom\.' \(.*ResidualVQ\)$"):
            migrate.load(both, **TABLE)
        with pytest.warns(UserWarning, match=r"took .* at 'top\.'; left aside bottom \(8\)"):
            assert migrate.load(both, prefix="top", **TABLE).index_shape == (2,)
        with pytest.raises(ValueError, match=r"no quantizer that is known.*attention.mask"):
            migrate.load({"attention.mask": torch.ones(4)}, **TABLE)
        with pytest.raises(ValueError, match=r"no quantizer that is known at prefix='middle.'"):
            migrate.load(both, prefix="middle", **TABLE)
        with pytest.raises(ValueError, match=r"not a state dict.*optimizer"):
            migrate.load({"optimizer": {}, "weights": torch.ones(2)})
