"""Which quantizer it is: `load` is sure, or it says what it needs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import vector_quantize_pytorch as field
from torch import Tensor

import lexel
from lexel import migrate
from lexel.migrate.origins import FORMATS
from tests.migrate.test_vector_quantize_pytorch import TABLE, trained

LEARNING = lexel.EMA(0.9)
IDENTITY = {"_embedding.weight": torch.eye(4)}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_what_the_state_does_not_say_is_asked_for() -> None:
    state = field.VectorQuantize(dim=8, codebook_size=32).state_dict()
    with pytest.raises(TypeError, match=r"VectorQuantize.* metric=, 'euclidean'.* commitment_cost=.* learning=, lexel"):
        migrate.load(state)
    with pytest.raises(ValueError, match="metric must be 'euclidean' or 'cosine', got 'l2'"):
        migrate.load(state, **{**TABLE, "metric": "l2"})


def test_settings_that_mean_nothing_there() -> None:
    with pytest.raises(TypeError, match="classic module has no setting learning, spherical; it has commitment_cost"):
        migrate.load(IDENTITY, commitment_cost=1.0, learning=LEARNING, spherical=True)


@pytest.mark.parametrize(
    "more",
    [
        {"affine_param": True},
        {"layernorm_after_project_in": True, "codebook_dim": 4},
    ],
    ids=str,
)
def test_unknown_keys_are_named(more: dict[str, Any]) -> None:
    state = trained(field.VectorQuantize(dim=8, codebook_size=32, **more), 8).state_dict()
    with pytest.raises(ValueError, match=r"does not have the keys .*(codebook_mean|project_in.0.bias)"):
        migrate.load(state, **TABLE)


def test_missing_keys_and_wrong_shapes_are_named() -> None:
    state = field.VectorQuantize(dim=8, codebook_size=32).state_dict()
    with pytest.raises(ValueError, match=r"_codebook.embed_avg is missing"):
        migrate.load({key: value for key, value in state.items() if "avg" not in key}, **TABLE)
    with pytest.raises(ValueError, match=r"_codebook.cluster_size must have shape \(1, 32\), got \(1, 31\)"):
        migrate.load({**state, "_codebook.cluster_size": torch.ones(1, 31)}, **TABLE)


def test_several_or_none() -> None:
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


def dac_keys(prefix: str) -> dict[str, Tensor]:
    """Two stages of a DAC or a SNAC, as one."""
    state = {}
    for stage in range(2):
        at = f"{prefix}quantizers.{stage}."
        state |= {
            f"{at}in_proj.weight": torch.randn(3, 8, 1),
            f"{at}in_proj.bias": torch.randn(3),
            f"{at}out_proj.weight": torch.randn(8, 3, 1),
            f"{at}out_proj.bias": torch.randn(8),
            f"{at}codebook.weight": torch.randn(16, 3),
        }
    return state


def test_a_part_of_a_larger_quantizer_is_loaded_only_when_it_is_named() -> None:
    """Nothing in the keys says what the larger one does besides."""
    theirs = trained(field.VectorQuantize(dim=8, codebook_size=32), 8)
    for name in ("quantizer.vq", "model.quantize.inner", "rvq.levels.0", "codebooks.3"):
        state = {f"{name}.{key}": value for key, value in theirs.state_dict().items()}
        with pytest.raises(ValueError, match=rf"not sure: .* stands at '{name}\.', within .* Give prefix='{name}\.'"):
            migrate.load(state, **TABLE)
        assert migrate.load(state, prefix=name, **TABLE).num_embeddings == 32
    for name in ("vq", "model.quantizer", "vqgan.quantize", "1", "vqvae.encoder.bottleneck"):
        state = {f"{name}.{key}": value for key, value in theirs.state_dict().items()}
        assert migrate.load(state, **TABLE).num_embeddings == 32


def test_keys_that_the_format_does_not_have_are_not_left_aside() -> None:
    """What stands within the quantizer may decide what it does, whether or not its name is known."""
    for origin in (
        trained(field.VectorQuantize(dim=8, codebook_size=32), 8).state_dict(),
        IDENTITY,
        {"embedding.weight": torch.eye(4)},
    ):
        state = {f"quantize.{key}": value for key, value in origin.items()}
        for extra in ("project.weight", "norm.bias", "0.scale"):
            with pytest.raises(ValueError, match=rf"not sure what stands at prefix='quantize\.'.*quantize\.{extra}"):
                migrate.load({**state, f"quantize.{extra}": torch.ones(4)}, **TABLE)


class TestFiniteScalar:
    """Its keys are its projections, if any, and those are other quantizers' too."""

    def test_levels_alone_are_no_proof(self) -> None:
        state = field.FSQ([5, 4, 3], dim=8).state_dict()
        with pytest.raises(ValueError, match="no quantizer that is known"):  # two maps may be anything
            migrate.load(state)
        with pytest.raises(ValueError, match=r"fit several formats. Give format='vqp-fsq' .* or format='"):
            migrate.load(state, levels=[5, 4, 3])

    def test_a_misspelt_prefix_is_no_quantizer_without_keys(self) -> None:
        for state in ({"encoder.weight": torch.eye(3)}, field.VectorQuantize(dim=8, codebook_size=32).state_dict()):
            for prefix in ("quantzier", "", None):
                with pytest.raises(ValueError, match=r"FSQ was not found.* no key matches.* it has no tensors"):
                    migrate.load(state, prefix=prefix, format="vqp-fsq", levels=[5, 4, 3])

    def test_projections_of_another_size_are_refused(self) -> None:
        state = field.FSQ([5, 4, 3], dim=8).state_dict()
        with pytest.raises(ValueError, match=r"project_in.weight must have shape \(2, any\), got \(3, 8\)"):
            migrate.load(state, format="vqp-fsq", levels=[5, 4], symmetric=False)

    def test_of_another_quantizer_they_are_refused(self) -> None:
        state = trained(field.VectorQuantize(dim=8, codebook_size=32, codebook_dim=3), 8).state_dict()
        with pytest.raises(ValueError, match=r"does not have the keys _codebook.cluster_size"):
            migrate.load(state, format="vqp-fsq", levels=[5, 4, 3])


def test_a_format_that_is_not_known() -> None:
    with pytest.raises(ValueError, match=r"format must be one of .*vqgan.*, got 'vqgna'"):
        migrate.load(IDENTITY, format="vqgna")
    with pytest.raises(ValueError, match=r"a VQGAN's quantizer was not found: no key matches"):
        migrate.load(IDENTITY, format="vqgan", metric="euclidean", commitment_cost=1.0)


@pytest.mark.parametrize("name", ["migrate.md", "migrate.zh-CN.md"])
def test_every_format_stands_in_the_documentation(name: str) -> None:
    """With the settings that it asks for, and those that it takes."""
    page = (Path(__file__).parents[2] / "docs" / name).read_text(encoding="utf-8")
    table = page.partition("<!-- formats -->\n")[2].partition("<!-- end of formats -->")[0]
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()[2:]]
    documented = {name.strip("`"): (asks, takes) for name, _, asks, takes in rows}
    assert documented.keys() == {known.name for known in FORMATS}
    for known in FORMATS:
        asks, takes = (set(re.findall(r"`(\w+)`", cell)) - {"format"} for cell in documented[known.name])
        assert (asks, takes) == (known.required, known.settings.keys() - known.required), known.name
        assert f"`{known.name}`" in migrate.load.__doc__


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({"quantizers.0.codebook.weight": None}, {}, r"quantizers.0.codebook.weight is missing"),
        ({"quantizers.1.codebook.weight": None}, {}, r"not sure.*does not have the keys quantizers.1.in_proj.bias"),
        ({"quantizers.1.out_proj.bias": torch.tensor([torch.nan] * 8)}, {}, r"out_proj.bias holds NaN or Inf"),
        (
            {"quantizers.0.in_proj.weight": torch.randn(3, 8, 3)},
            {},
            r"must have shape \(any, any, 1\), got \(3, 8, 3\)",
        ),
        ({}, {"format": "snac", "strides": 4}, r"strides must be a list, with a value for each of 2 stages, got 4"),
        ({}, {"format": "snac", "strides": [2, 0]}, r"strides must hold a positive int for each of 2"),
    ],
)
def test_what_is_damaged_or_does_not_fit(change: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    state = {key: value for key, value in {**dac_keys(""), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        migrate.load(state, **{"format": "dac", **settings})


def test_what_is_no_state_dict() -> None:
    for source in ([1, 2], None, 7):
        with pytest.raises(TypeError, match=f"source must be a path or a state dict, got {type(source).__name__}"):
            migrate.load(source)
    with pytest.raises(TypeError, match=r"migrate\.load: channel_dim must be an int, got '1'"):
        migrate.load({"_embedding.weight": torch.eye(4)}, commitment_cost=1.0, channel_dim="1")
