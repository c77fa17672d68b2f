"""How good IDs are: each figure beside a plain transcription of what it says."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

import lexel
import lexel.tokens.embeddings
from lexel.tokens import Facts, IDs
from lexel.tokens.quality import quality_of
from lexel.tokens.unique import make_unique


def residual(seed: int, sizes: tuple[int, ...] = (4, 3, 5), dim: int = 3) -> lexel.ResidualQuantizer:
    torch.manual_seed(seed)
    vq = lexel.ResidualQuantizer([lexel.VectorQuantizer(size, dim) for size in sizes])
    for part in vq.parts:
        part.load_codes(torch.randn_like(part.codebook.weight))
    return vq.eval().requires_grad_(False)


def identified(vq: lexel.Quantizer, x: Tensor, labels: Any = None) -> IDs:
    codes = vq(x).indices
    distances = (x - vq.lookup(codes)).square().sum(1)
    return IDs(np.arange(len(x)), codes, Facts("vectors", vq.num_embeddings, vq.codebook_sizes, ""), distances, labels)


def neighbours(x: Tensor, among: Tensor, count: int) -> list[set[int]]:
    """Of each row of `x` among the other rows, by plain distances in float64; the first of equal ones."""
    found = []
    for row, own in enumerate(x.double()):
        distances = (among.double() - own).square().sum(1).float()
        distances[row] = torch.inf
        found.append(set(distances.argsort(stable=True)[:count].tolist()))
    return found


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 60), seed=st.integers(0, 1 << 20), piece=st.integers(1, 200))
def test_figures_are_what_they_say(count: int, seed: int, piece: int) -> None:
    """However the embeddings are divided into pieces."""
    vq = residual(seed)
    x, labels = torch.randn(count, 3), torch.randint(0, 3, (count,))
    ids = identified(vq, x, labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lexel.tokens.embeddings, "PIECE", piece)
        found = quality_of(ids, x.numpy(), vq.lookup)
    codes = [tuple(code) for code in ids.codes.tolist()]
    assert found.items == found.queries == count
    assert found.shared == pytest.approx(sum(codes.count(code) > 1 for code in codes) / count)
    assert found.largest_collision == max(codes.count(code) for code in codes)
    energy = (x - x.mean(0)).double().square().sum(1).mean().item()
    assert found.energy == pytest.approx(energy, rel=1e-5, abs=1e-9)
    k = min(10, count - 1)
    near = neighbours(x, x, k)
    back = neighbours(x, vq.lookup(torch.tensor(codes)), k)
    assert found.recall_at == k
    if k:
        assert found.recall == pytest.approx(np.mean([len(a & b) / k for a, b in zip(near, back, strict=True)]))
    else:
        assert np.isnan(found.recall)
    for level, own in enumerate(found.levels):
        size = vq.codebook_sizes[level]
        used = np.bincount(ids.codes[:, level], minlength=size)
        prefix = [code[: level + 1] for code in codes]
        partial = vq.lookup(torch.tensor(codes)[:, : level + 1])
        distortion = (x - partial).double().square().sum(1).mean().item()
        assert own.distortion == pytest.approx(distortion, rel=1e-5)
        if count > 1:
            assert own.relative_distortion == pytest.approx(distortion / energy, rel=1e-4)
        assert (own.num_embeddings, own.used, own.prefixes) == (size, (used > 0).sum(), len(set(prefix)))
        shares = used[used > 0] / count
        assert own.entropy == pytest.approx(-(shares * np.log2(shares)).sum(), abs=1e-9)
        gini = np.abs(used[:, None] - used).sum() / (2 * size * count)
        assert own.gini == pytest.approx(gini, abs=1e-9)
        assert own.balance == pytest.approx(used.max() / (count / size))
        if k:
            same = [[prefix[a] == prefix[b] for b in others] for a, others in enumerate(near)]
            assert own.neighbours == pytest.approx(np.mean(same))
            pairs = [prefix[a] == prefix[b] for a in range(count) for b in range(count) if a != b]
            assert own.chance == pytest.approx(np.mean(pairs))
        groups = [
            [label for each, label in zip(prefix, labels.tolist(), strict=True) if each == one] for one in set(prefix)
        ]
        assert own.purity == pytest.approx(sum(max(map(group.count, group)) for group in groups) / count)
        numbers = [sorted(set(prefix)).index(each) for each in prefix]
        assert own.nmi == pytest.approx(normalized_mutual_info_score(labels, numbers), abs=1e-6)


def test_a_sample_of_queries_is_fixed_by_its_seed() -> None:
    vq, x = residual(0), torch.randn(300, 3)
    ids = identified(vq, x)
    one, same, other = (quality_of(ids, x, vq.lookup, queries=50, seed=seed) for seed in (1, 1, 2))
    whole = quality_of(ids, x, vq.lookup)
    assert one == same
    assert one.recall != other.recall
    assert (one.queries, whole.queries) == (50, 300)
    assert abs(one.recall - whole.recall) < 0.1
    assert one.distortion == whole.distortion == whole.levels[-1].distortion
    assert whole.levels[0].purity is None


def test_equal_embeddings_and_exact_codes() -> None:
    """Codes that are the embeddings keep all neighbours; where embeddings are equal too."""
    vq = lexel.VectorQuantizer(40, 2).eval().requires_grad_(False)
    vq.load_codes(torch.randn(40, 2))
    x = vq.codebook()[torch.arange(80) % 40]
    found = quality_of(identified(vq, x), x, lambda codes: vq.lookup(codes[:, 0]))
    assert (found.recall, found.distortion, found.shared, found.largest_collision) == (1, 0, 1, 2)
    assert (found.levels[0].gini, found.levels[0].balance, found.levels[0].entropy) == pytest.approx(
        (0, 1, np.log2(40))
    )


def test_unique_ids_are_judged_as_they_are() -> None:
    vq, x = residual(3), torch.randn(40, 3)
    for method in ("suffix", "nearest-free"):
        unique, figures = make_unique(identified(vq, x), method, x, vq.candidates)
        found = quality_of(unique, x, vq.lookup)
        assert (found.unique, found.shared, found.largest_collision, len(found.levels)) == (method, 0, 1, 3)
        assert found.distortion == pytest.approx(figures.distortion_after, rel=1e-5)
        assert found.distortion == pytest.approx(unique.distances.mean(), rel=1e-5)


def test_prefixes_of_a_product() -> None:
    torch.manual_seed(0)
    vq = lexel.ProductQuantizer([lexel.VectorQuantizer(4, 2) for _ in range(2)]).eval().requires_grad_(False)
    x = torch.randn(50, 4)
    found = quality_of(identified(vq, x), x, vq.lookup)
    half = torch.cat([vq.lookup(vq(x).indices)[:, :2], torch.zeros(50, 2)], 1)
    assert found.levels[0].distortion == pytest.approx((x - half).square().sum(1).mean().item(), rel=1e-5)


def test_json_has_no_nan() -> None:
    vq, x = residual(0), torch.randn(1, 3)
    content = quality_of(identified(vq, x), x, vq.lookup).as_json()
    text = json.loads(json.dumps(content, allow_nan=False))
    assert (text["recall"], text["levels"][0]["neighbours"], text["levels"][2]["prefixes"]) == (None, None, 1)


def test_what_does_not_fit_is_refused() -> None:
    vq, x = residual(0), torch.randn(5, 3)
    with pytest.raises(ValueError, match="4 embeddings for 5 items"):
        quality_of(identified(vq, x), x[:4], vq.lookup)
    with pytest.raises(ValueError, match=r"decode must return vectors of shape \(5, 3\), got \(5, 2\)"):
        quality_of(identified(vq, x), x, lambda codes: vq.lookup(codes)[:, :2])
