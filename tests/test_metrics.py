"""What a whole epoch says of the codes does not depend on how it comes in pieces."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import lexel
from lexel.metrics import CodeUsage, Usage
from tests.ranks import on_ranks

CODES = st.lists(st.integers(-1, 9), max_size=40)


def shown(pieces: list[Tensor], num_embeddings: int) -> CodeUsage:
    usage = Usage(num_embeddings)
    for piece in pieces:
        usage.update(piece)
    return usage.compute()


@given(CODES, st.lists(st.integers(0, 40), max_size=4), st.sampled_from([10, 2**62]))
def test_equals_brute_force_however_it_is_batched(codes: list[int], cuts: list[int], num_embeddings: int) -> None:
    spread = [code * (num_embeddings // 10) if code >= 0 else -1 for code in codes]
    found = shown(list(torch.tensor(spread, dtype=torch.int64).tensor_split(sorted(cuts))), num_embeddings)
    counts = Counter(code for code in codes if code >= 0)
    entropy = -sum(n / counts.total() * math.log(n / counts.total()) for n in counts.values())
    assert (found.total, found.used, found.dead) == (counts.total(), len(counts), num_embeddings - len(counts))
    assert found.usage == len(counts) / num_embeddings
    assert found.entropy == pytest.approx(entropy, abs=1e-12)
    assert found.perplexity == pytest.approx(math.exp(entropy))
    assert found.bits_per_code == pytest.approx(entropy / math.log(2), abs=1e-12)
    assert math.isnan(found.distortion)


def test_counts_stay_exact_where_float32_would_not() -> None:
    usage = Usage(2)
    usage._counted = torch.tensor([[0, 2**24]], device=usage.device)
    usage.update(torch.tensor([0]))
    assert usage.compute().total == 2**24 + 1


@pytest.mark.parametrize("channel_dim", [1, -1])
def test_distortion_is_of_the_elements_that_are_not_masked(channel_dim: int) -> None:
    vq, usage = lexel.VectorQuantizer(16, 4, channel_dim=channel_dim).eval(), Usage(16, channel_dim=channel_dim)
    errors = []
    for length in (3, 5):
        rows, mask = torch.randn(2, length, 4), torch.rand(2, length) < 0.6
        rows[~mask] = torch.nan
        z = rows.movedim(-1, channel_dim)
        output = vq(z, mask)
        usage.update(output, z)
        errors.append((output.quantized.detach().movedim(channel_dim, -1) - rows)[mask].square().flatten())
    assert usage.compute().distortion == pytest.approx(float(torch.cat(errors).double().mean()))


def test_of_several_codebooks_all_indices_count() -> None:
    for quantizer in (
        lexel.ResidualQuantizer([lexel.VectorQuantizer(16, 8) for _ in range(2)]),
        lexel.MultiScaleResidualQuantizer(lexel.VectorQuantizer(16, 8), (1, 2, 3), convolutions=1),
    ):
        z = torch.randn(2, 8, 3, 3)
        output, usage = quantizer.eval()(z), Usage(16)
        usage.update(output, z)
        found = usage.compute()
        assert found.total == output.indices.numel()
        assert found.distortion == pytest.approx(float((output.quantized - z).square().mean()), rel=1e-5)


def test_reset_forgets_everything() -> None:
    usage = Usage(4)
    z = torch.randn(2, 3)
    usage.update(lexel.VectorQuantizer(4, 3).eval()(z), z)
    usage.reset()
    assert (usage.compute().total, usage.compute().perplexity) == (0, 1)
    assert math.isnan(usage.compute().distortion)


def test_what_is_refused_changes_nothing() -> None:
    output = lexel.VectorQuantizer(4, 3).eval()(torch.randn(2, 3))
    usage = Usage(4)
    for error, arguments in (
        (ValueError, (torch.tensor([0, 4]),)),
        (ValueError, (torch.tensor([-2, 0]),)),
        (ValueError, (output, torch.randn(3, 3))),
        (TypeError, (torch.tensor([0.0]),)),
        (TypeError, (torch.tensor([0]), torch.randn(1, 3))),
    ):
        with pytest.raises(error, match=r"Usage\.update"):
            usage.update(*arguments)
    assert usage.compute().total == 0
    with pytest.raises(ValueError, match="num_embeddings must be at least 1"):
        Usage(0)


def as_one_rank(rank: int) -> list[dict[str, float]]:
    return [vars(figures) for figures in epochs(rank)]


def epochs(rank: int | None) -> list[CodeUsage]:
    """Shared equally, unequally, and all on one rank."""
    found = []
    for share in (5, 1, 0):
        torch.manual_seed(0)
        vq, usage = lexel.VectorQuantizer(2**17, 2).eval(), Usage(2**17)
        z = torch.randn(10, 2, 3)
        own = z if rank is None else (z[:share], z[share:])[rank]
        if len(own):
            usage.update(vq(own), own)
        found.append(usage.compute())
    return found


def test_what_was_shown_can_be_kept_and_gone_on_from() -> None:
    vq, whole, one, two = lexel.VectorQuantizer(16, 2).eval(), Usage(16), Usage(16), Usage(16)
    for batch, half in zip(torch.randn(2, 10, 2), (one, two), strict=True):
        if half is two:
            two.load_state_dict(one.state_dict())
        for usage in (whole, half):
            usage.update(vq(batch), batch)
    assert vars(two.compute()) == pytest.approx(vars(whole.compute()))


def test_two_ranks_are_one_process(tmp_path: Path, device: str) -> None:
    alone = [vars(figures) for figures in epochs(None)]
    for found in on_ranks(as_one_rank, tmp_path, device=device):
        for figures, expected in zip(found, alone, strict=True):
            assert figures == pytest.approx(expected)
