"""The causal prior: its bits are those of the distribution that it draws from, with and without the cache."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from lexel.priors import FREE, CausalPrior

LAYOUTS = {
    "grid": ([[3, 2]], [5]),
    "codebooks": ([[2, 2]], [5, 3, 4]),
    "levels": ([[1, 1], [2, 2]], [5]),
    "levels and codebooks": ([[1, 2], [2, 1]], [3, 4]),
}


def make(levels: Any, sizes: Any, num_classes: int | None = 2, **how: Any) -> CausalPrior:
    torch.manual_seed(0)
    prior = CausalPrior(levels, sizes, num_classes, **{"layers": 2, "width": 16, "heads": 2, **how})
    for parameter in prior.parameters():  # far from uniform, so that a wrong order would show
        parameter.data += 0.3 * torch.randn_like(parameter)
    return prior.eval()


@pytest.mark.parametrize(
    ("levels", "sizes"),
    [([[2, 2]], [3]), ([[1, 2]], [3, 2, 2]), ([[1, 1], [1, 2]], [4]), ([[1, 1], [1, 1]], [3, 4])],
)
def test_the_probabilities_of_all_examples_add_up_to_one(levels: Any, sizes: Any) -> None:
    prior = make(levels, sizes)
    every = itertools.product(*(range(size) for _ in range(prior.positions) for size in sizes))
    indices = torch.tensor(list(every)).reshape(-1, *prior.shape)
    for labels in (None, torch.ones(len(indices), dtype=torch.long)):
        probabilities = torch.exp2(-prior.bits(indices, labels))
        assert probabilities.max() > 5 * probabilities.mean()
        torch.testing.assert_close(probabilities.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("label", [None, 1])
def test_samples_come_as_often_as_their_bits_say(label: int | None) -> None:
    prior = make([[1, 2]], [2, 3])
    samples = prior.sample(20000, label, generator=torch.Generator().manual_seed(0))
    found, counts = samples.unique(dim=0, return_counts=True)
    labels = None if label is None else torch.full((len(found),), label)
    torch.testing.assert_close(counts / 20000, torch.exp2(-prior.bits(found, labels)), atol=0.012, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_token_depends_on_a_later_one(layout: str) -> None:
    levels, sizes = LAYOUTS[layout]
    prior = make(levels, sizes)
    tokens = torch.stack([torch.randint(size, (1, prior.positions)) for size in sizes], -1)
    classes = torch.tensor([1])
    before = prior._nats(tokens, classes)
    for position, book in itertools.product(range(prior.positions), range(len(sizes))):
        changed = tokens.clone()
        changed[0, position, book] = (changed[0, position, book] + 1) % sizes[book]
        differs = (prior._nats(changed, classes) - before).abs()[0] > 1e-7
        step = torch.arange(prior.positions)[:, None] + torch.arange(len(sizes))
        later = step > position + book  # the delay pattern: codebook q comes q steps late
        later[position, book] = True
        assert torch.equal(differs, later)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_the_cache_changes_nothing(layout: str, guidance: float) -> None:
    """Replacing any token of the most probable sample by another one makes its own step less probable."""
    prior = make(*LAYOUTS[layout])
    found = prior.sample(3, 1, temperature=0, guidance=guidance)
    tokens = found.reshape(3, prior.positions, -1)
    for position, book in itertools.product(range(prior.positions), range(len(prior.codebook_sizes))):
        scores = []
        for code in range(prior.codebook_sizes[book]):
            other = tokens.clone()
            other[:, position, book] = code
            with torch.no_grad():
                with_class, without = (
                    prior._nats(other, torch.full((3,), each))[:, position, book] for each in (1, prior.no_class)
                )
            scores.append(without + guidance * (with_class - without))
        assert torch.equal(torch.stack(scores).argmin(0), tokens[:, position, book])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_given_tokens_stay_and_lead_what_is_drawn(layout: str) -> None:
    levels, sizes = LAYOUTS[layout]
    prior = make(levels, sizes)
    given = prior.sample(1, generator=torch.Generator().manual_seed(1))[0]
    given.view(-1)[1::2] = FREE
    samples = prior.sample(50, given=given, generator=torch.Generator().manual_seed(2))
    assert bool((samples[:, given != FREE] == given[given != FREE]).all())
    assert len(samples.unique(dim=0)) > 1
    led = torch.full((sizes[0], *prior.shape), FREE)
    led.flatten(1)[:, 0] = torch.arange(sizes[0])
    after = [prior.sample(50, given=one, generator=torch.Generator().manual_seed(2)).flatten(1)[:, 1:] for one in led]
    assert not torch.equal(after[0], after[1])


def test_it_learns_what_follows_what() -> None:
    """A source with one bit in each example: which of two checkerboards it is, told by the class."""
    torch.manual_seed(0)
    prior = CausalPrior([[4, 4]], [8], 2, layers=2, width=32, heads=2)
    board = 3 + 2 * ((torch.arange(4)[:, None] + torch.arange(4)) % 2)
    labels = torch.arange(32) % 2
    indices = torch.where(labels[:, None, None] == 0, board, 8 - board)
    optimizer = torch.optim.Adam(prior.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        prior.loss(indices, labels).backward()
        optimizer.step()
    assert float(prior.bits(indices, labels).max()) < 0.2
    assert float(prior.bits(indices).mean()) == pytest.approx(1, abs=0.3)
    assert torch.equal(prior.sample(32, labels, temperature=0), indices)


def test_a_width_that_heads_do_not_divide_into_pairs() -> None:
    with pytest.raises(ValueError, match="heads must divide the width"):
        make([[2, 2]], [3], heads=3)
    with pytest.raises(ValueError, match="must be even"):
        make([[2, 2]], [3], heads=16)
