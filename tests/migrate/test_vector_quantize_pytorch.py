"""vector-quantize-pytorch, against the package itself."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import vector_quantize_pytorch as field
from torch import Tensor, nn

import lexel
from lexel import migrate
from tests.migrate import agreement

TABLE = {"metric": "euclidean", "commitment_cost": 0.25, "learning": lexel.EMA(0.9)}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def trained(theirs: nn.Module, dim: int) -> nn.Module:
    """Let a quantizer move away from where it started."""
    for _ in range(5):
        theirs.train()(torch.randn(8, 40, dim))
    return theirs.eval()


def agree(theirs: nn.Module, dim: int, **settings: Any) -> lexel.Quantizer:
    """Load what `theirs` has, and compare on inputs that it has not seen."""
    ours = migrate.load(theirs.state_dict(), channel_dim=-1, **settings)
    agreement.agree(ours, theirs, torch.randn(6, 50, dim))
    return ours


def task(theirs: nn.Module) -> agreement.Theirs:
    """The quantized vectors alone, so that the gradients of the task are compared without that of a loss."""
    return lambda z: theirs(z)[:2]


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
def test_vector_quantize(settings: dict[str, Any], metric: str) -> None:
    dim = 12 if settings.get("heads") == 3 else 8
    theirs = field.VectorQuantize(dim=dim, codebook_size=32, use_cosine_sim=metric == "cosine", **settings)
    more = {"heads": 3} if settings.get("heads") == 3 and "separate_codebook_per_head" not in settings else {}
    agree(trained(theirs, dim), dim, **{**TABLE, "metric": metric}, **more)


def test_learnable() -> None:
    theirs = field.VectorQuantize(dim=8, codebook_size=32, learnable_codebook=True, ema_update=False)
    ours = agree(theirs.eval(), 8, **{**TABLE, "learning": lexel.Gradient()})
    assert ours.codebook.weight.requires_grad


def test_training_goes_on_as_theirs_would() -> None:
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
def test_residual_vq(settings: dict[str, Any]) -> None:
    theirs = field.ResidualVQ(**{"dim": 8, "num_quantizers": 3, "codebook_size": 32, **settings})
    ours = agree(trained(theirs, 8), 8, **TABLE)
    tables = [name for name in ours.state_dict() if name.endswith("codebook.weight")]
    assert len(tables) == (1 if "shared_codebook" in settings else 3)


def test_sim_vq() -> None:
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
def test_lfq(settings: dict[str, Any], given: dict[str, int], spherical: bool) -> None:
    theirs = field.LFQ(spherical=spherical, **settings).eval()
    agree(theirs, theirs.dim, commitment_cost=0.25, spherical=spherical, **given)


@pytest.mark.parametrize(
    ("settings", "given"),
    [({}, {}), ({"dim": 10}, {}), ({"num_codebooks": 3}, {"heads": 3}), ({"dim": 7, "num_codebooks": 2}, {})],
    ids=str,
)
def test_fsq(settings: dict[str, int], given: dict[str, int]) -> None:
    theirs = field.FSQ([8, 5, 4, 3], **settings).eval()
    agree(theirs, theirs.dim, format="vqp-fsq", levels=[8, 5, 4, 3], symmetric=False, **given)


def test_codes_that_wait_for_k_means_are_refused() -> None:
    state = field.VectorQuantize(dim=8, codebook_size=32, kmeans_init=True).state_dict()
    with pytest.raises(ValueError, match="k-means start"):
        migrate.load(state, **TABLE)


def test_k_means_does_not_start_again() -> None:
    theirs = trained(field.VectorQuantize(dim=8, codebook_size=32), 8)
    ours = migrate.load(theirs.state_dict(), channel_dim=-1, **TABLE, upkeep=lexel.KMeansStart())
    z = torch.randn(100, 8)
    assert torch.equal(ours.train()(z).indices, theirs(z)[1])


class Grouped(nn.Module):
    """A grouped quantizer whose indices are ordered as Lexel's."""

    def __init__(self, theirs: nn.Module) -> None:
        super().__init__()
        self.theirs = theirs

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        quantized, indices, *_ = self.theirs(z)
        return quantized, torch.cat(list(indices), -1)


@pytest.mark.parametrize("codebook_dim", [None, 3])
def test_grouped_residual_vq(codebook_dim: int | None) -> None:
    theirs = field.GroupedResidualVQ(
        dim=8, groups=2, num_quantizers=2, codebook_size=16, codebook_dim=codebook_dim, kmeans_init=False
    )
    trained(theirs, 8)
    ours = migrate.load(theirs.state_dict(), channel_dim=-1, **TABLE)
    agreement.agree(ours, Grouped(theirs), torch.randn(6, 50, 8))


def test_residual_sim_vq() -> None:
    agree(field.ResidualSimVQ(dim=8, num_quantizers=3, codebook_size=64).eval(), 8, commitment_cost=0.25)


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("dim", [5, 8])
def test_residual_lfq(dim: int, spherical: bool) -> None:
    theirs = field.ResidualLFQ(dim=dim, num_quantizers=3, codebook_size=32, spherical=spherical).eval()
    agree(theirs, dim, commitment_cost=0.25, spherical=spherical)


def test_grouped_residual_lfq() -> None:
    theirs = field.GroupedResidualLFQ(dim=10, groups=2, num_quantizers=3, codebook_size=16).eval()
    ours = migrate.load(theirs.state_dict(), channel_dim=-1, commitment_cost=0.25, spherical=False)
    agreement.agree(ours, Grouped(theirs), torch.randn(6, 50, 10))


@pytest.mark.parametrize("codebook_dim", [8, 4])
def test_gradients_with_averages(codebook_dim: int) -> None:
    theirs = trained(field.VectorQuantize(dim=8, codebook_size=32, codebook_dim=codebook_dim), 8).train()
    ours = migrate.load(theirs.state_dict(), channel_dim=-1, **{**TABLE, "commitment_cost": 1.0})
    agreement.gradients_agree(ours, theirs, torch.randn(6, 50, 8))


def test_gradients_of_sim_vq() -> None:
    theirs = field.SimVQ(dim=8, codebook_size=64).train()
    ours = migrate.load(theirs.state_dict(), channel_dim=-1, commitment_cost=0.25)
    agreement.gradients_agree(ours, theirs, torch.randn(6, 50, 8))


@pytest.mark.parametrize("dim", [4, 10])
def test_gradients_of_fsq(dim: int) -> None:
    theirs = field.FSQ([8, 5, 4, 3], dim=dim).train()
    ours = migrate.load(theirs.state_dict(), channel_dim=-1, format="vqp-fsq", levels=[8, 5, 4, 3], symmetric=False)
    agreement.gradients_agree(ours, theirs, torch.randn(6, 50, dim))


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("dim", [6, 10])
def test_gradients_of_lfq(dim: int, spherical: bool) -> None:
    theirs = field.LFQ(codebook_size=64, dim=dim, spherical=spherical).train()
    ours = migrate.load(theirs.state_dict(), channel_dim=-1, commitment_cost=0.25, spherical=spherical)
    agreement.gradients_agree(ours, task(theirs), torch.randn(6, 50, dim))


@pytest.mark.parametrize("dim", [4, 10])
def test_symmetric_fsq(dim: int) -> None:
    theirs = field.FSQ([8, 5, 4, 2], dim=dim, preserve_symmetry=True)
    ours = agree(theirs.eval(), dim, format="vqp-fsq", levels=[8, 5, 4, 2], symmetric=True)
    agreement.gradients_agree(ours, theirs.train(), torch.randn(6, 50, dim))


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("dim", [4, 10])
def test_residual_fsq(dim: int, depth: int) -> None:
    theirs = field.ResidualFSQ(levels=[8, 5, 4, 3], dim=dim, num_quantizers=depth)
    settings = {"format": "vqp-residual-fsq", "levels": [8, 5, 4, 3], "depth": depth}
    ours = agree(theirs.eval(), dim, **settings)
    agreement.gradients_agree(ours, theirs.train(), torch.randn(6, 50, dim))


def test_grouped_residual_fsq() -> None:
    theirs = field.GroupedResidualFSQ(dim=10, groups=2, num_quantizers=3, levels=[8, 5, 4]).eval()
    ours = migrate.load(theirs.state_dict(), channel_dim=-1, levels=[8, 5, 4], depth=3)
    agreement.agree(ours, Grouped(theirs), torch.randn(6, 50, 10))


@pytest.mark.parametrize("depth", [1, 3])
def test_residual_fsq_as_it_was(depth: int) -> None:
    """Before its levels were symmetric: the input is bounded as each stage bounds its own, and units are (L - 1)^-q."""
    stage, levels = field.FSQ([5, 4, 3]), torch.tensor([5, 4, 3])

    def theirs(z: Tensor) -> tuple[Tensor, Tensor]:
        half = (levels - 1) * 1.001 / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        remainder = torch.tanh(z + torch.atanh(offset / half)) * half - offset
        total, indices = 0.0, []
        for number in range(depth):
            scale = (levels - 1.0) ** -number
            quantized, chosen = stage(remainder / scale)
            remainder, total = remainder - (quantized * scale).detach(), total + quantized * scale
            indices.append(chosen)
        return total, torch.stack(indices, -1)

    ours = migrate.load({}, format="xcodec2", levels=[5, 4, 3], depth=depth, channel_dim=-1)
    agreement.agree(ours, theirs, torch.randn(6, 50, 3))
    agreement.gradients_agree(ours, theirs, torch.randn(6, 50, 3))


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize(("dim", "given"), [(6, {}), (10, {}), (18, {"heads": 3})])
def test_lfq_of_another_scale(dim: int, given: dict[str, int], spherical: bool) -> None:
    theirs = field.LFQ(
        codebook_size=64, dim=dim, num_codebooks=given.get("heads", 1), codebook_scale=3.0, spherical=spherical
    )
    settings = {"commitment_cost": 0.25, "spherical": spherical, "codebook_scale": 3.0, **given}
    ours = agree(theirs.eval(), dim, **settings)
    assert ours(torch.randn(2, dim)).quantized.isfinite().all()


@pytest.mark.parametrize("dim", [3, 10])
def test_symmetric_fsq_that_clamps(dim: int) -> None:
    theirs = field.FSQ([8, 5, 5], dim=dim, preserve_symmetry=True, bound_hard_clamp=True)
    agree(theirs.eval(), dim, format="vqp-fsq", levels=[8, 5, 5], symmetric=True, hard_clamp=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"format": "vqp-fsq", "symmetric": False, "hard_clamp": True},
        {"format": "vqp-residual-fsq", "depth": 2, "hard_clamp": False},
    ],
)
def test_a_bound_that_lexel_does_not_have_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="hard_clamp"):
        migrate.load({}, levels=[8, 5, 5], **settings)


# What becomes of each option of the package's quantizers. A version that adds one must be looked at.
OPTIONS = """
in training:
    decay eps freeze_codebook kmeans_iters sync_kmeans threshold_ema_dead_code commitment_use_cross_entropy_loss
    orthogonal_reg_weight orthogonal_reg_active_codes_only orthogonal_reg_max_codes codebook_diversity_loss_weight
    codebook_diversity_temperature stochastic_sample_codes sample_codebook_temp straight_through rotation_trick
    directional_reparam directional_reparam_variance sync_codebook ema_update manual_ema_update learnable_codebook
    in_place_codebook_optimizer manual_in_place_optimizer_update sync_update_v route_gradients_to_input diveq
    quantize_dropout quantize_dropout_cutoff_index quantize_dropout_multiple_of quant_grad_frac init_fn
    input_to_quantize_commit_loss_weight straight_through_activation frac_per_sample_entropy noise_dropout
    experimental_softplus_entropy_loss entropy_loss_offset entropy_loss_weight commitment_loss_weight
    diversity_gamma commitment_weight
of layout and precision:
    channel_last channel_first is_channel_first accept_image_fmap accept_3d_fmap keep_num_codebooks_dim
    return_indices return_zeros_for_masked_padding allowed_dtypes force_quantization_f32
told by keys and their shapes (a key that no format has is refused):
    dim codebook_size codebook_dim heads separate_codebook_per_head kmeans_init layernorm_after_project_in vq_bridge
    affine_param sync_affine_param affine_param_batch_decay affine_param_codebook_decay num_quantizers
    shared_codebook implicit_neural_codebook mlp_kwargs groups codebook_transform frozen_codebook_dim num_codebooks
    has_projections projection_has_bias cosine_sim_project_in cosine_sim_project_in_scale orthogonal_rotation
asked for:
    levels use_cosine_sim preserve_symmetry spherical
stored by the package and never read:
    scale
in the documentation:
    bound_hard_clamp codebook_scale beam_size eval_beam_size beam_score_quantizer_weights soft_clamp_input_value
"""
CLASSES = """
    VectorQuantize ResidualVQ GroupedResidualVQ SimVQ ResidualSimVQ LFQ ResidualLFQ GroupedResidualLFQ FSQ ResidualFSQ
    GroupedResidualFSQ
"""


def test_every_option_has_its_place() -> None:
    known, told = OPTIONS.split(), OPTIONS.partition("in the documentation:")[2].split()
    for name in CLASSES.split():
        parameters = inspect.signature(getattr(field, name).__init__).parameters.values()
        options = {each.name for each in parameters if each.kind is not each.VAR_KEYWORD} - {"self"}
        assert not options - set(known), name
    page = (Path(__file__).parents[2] / "docs/migrate.md").read_text(encoding="utf-8")
    assert [option for option in told if f"`{option}`" not in page] == []
