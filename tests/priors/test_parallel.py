"""The priors that draw many tokens at once: masked, and next-scale."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lexel.priors import FREE, MaskedPrior, NextScalePrior, Prior, kinds

KINDS: dict[str, type[Prior]] = {"masked": MaskedPrior, "next-scale": NextScalePrior}
LAYOUTS = {
    "grid": ([[3, 2]], [5]),
    "codebooks": ([[2, 2]], [5, 3, 4]),
    "levels": ([[1, 1], [2, 2], [3, 2]], [5]),
    "levels and codebooks": ([[1, 2], [2, 1]], [3, 4]),
}
EVERY = pytest.mark.parametrize("kind", KINDS)
EVERY_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS)


def make(kind: str, levels: Any, sizes: Any, num_classes: int | None = 2, **how: Any) -> Prior:
    torch.manual_seed(0)
    prior = KINDS[kind](levels, sizes, num_classes, **{"layers": 2, "width": 16, "heads": 2, **how})
    for parameter in prior.parameters():  # far from uniform, so that a wrong order would show
        parameter.data += 0.3 * torch.randn_like(parameter)
    return prior.eval()


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def some_tokens(prior: Prior, n: int = 1) -> Tensor:
    return torch.stack([torch.randint(size, (n, prior.positions)) for size in prior.codebook_sizes], -1)


@EVERY
def test_a_kind_is_known_by_its_name(kind: str) -> None:
    assert kinds()[kind] is KINDS[kind]


@EVERY
@pytest.mark.parametrize(
    ("levels", "sizes"),
    [([[2, 2]], [3]), ([[1, 2]], [3, 2, 2]), ([[1, 1], [1, 2]], [4]), ([[1, 1], [1, 1]], [3, 4])],
)
def test_the_probabilities_of_all_examples_add_up_to_one(kind: str, levels: Any, sizes: Any) -> None:
    prior = make(kind, levels, sizes)
    every = itertools.product(*(range(size) for _ in range(prior.positions) for size in sizes))
    indices = torch.tensor(list(every)).reshape(-1, *prior.shape)
    for labels in (None, torch.ones(len(indices), dtype=torch.long)):
        probabilities = torch.exp2(-prior.bits(indices, labels))
        assert probabilities.max() > 5 * probabilities.mean()
        torch.testing.assert_close(probabilities.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("label", [None, 1])
@pytest.mark.parametrize(("levels", "sizes"), [([[1, 1], [1, 2]], [3]), ([[1, 1]], [2, 3])])
def test_next_scale_draws_as_often_as_its_bits_say(levels: Any, sizes: Any, label: int | None) -> None:
    prior = make("next-scale", levels, sizes)
    samples = prior.sample(20000, label, generator=seed(0))
    found, counts = samples.unique(dim=0, return_counts=True)
    labels = None if label is None else torch.full((len(found),), label)
    torch.testing.assert_close(counts / 20000, torch.exp2(-prior.bits(found, labels)), atol=0.012, rtol=0)


@EVERY_LAYOUT
def test_next_scale_sees_the_grids_before_a_token_and_all_of_them(layout: str) -> None:
    prior = make("next-scale", *LAYOUTS[layout])
    assert isinstance(prior, NextScalePrior)
    tokens, classes = some_tokens(prior), torch.tensor([1])
    before = prior._nats(tokens, classes)[0]
    grid_of, places = [], []
    for grid, ((height, width), start, book) in enumerate(prior.grids):
        grid_of += [grid] * (height * width)
        places += [(position, book) for position in range(start, start + height * width)]
    assert sorted(places) == sorted(itertools.product(range(prior.positions), range(len(prior.codebook_sizes))))
    for number, (position, book) in enumerate(places):
        changed = tokens.clone()
        changed[0, position, book] = (changed[0, position, book] + 1) % prior.codebook_sizes[book]
        differs = (prior._nats(changed, classes)[0] - before).abs() > 1e-7
        expected = torch.tensor(grid_of) > grid_of[number]
        expected[number] = True
        assert torch.equal(differs, expected)


@EVERY_LAYOUT
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_the_cache_changes_nothing(layout: str, guidance: float) -> None:
    """Each token of the most probable sample is the one that a pass over all grids at once calls so."""
    prior = make("next-scale", *LAYOUTS[layout])
    assert isinstance(prior, NextScalePrior)
    found = prior.sample(3, 1, temperature=0, guidance=guidance).reshape(3, prior.positions, -1)
    number = 0
    for (height, width), start, book in prior.grids:
        for position in range(start, start + height * width):
            scores = []
            for code in range(prior.codebook_sizes[book]):
                other = found.clone()
                other[:, position, book] = code
                with torch.no_grad():
                    with_class, without = (
                        prior._nats(other, torch.full((3,), each))[:, number] for each in (1, prior.no_class)
                    )
                scores.append(without + guidance * (with_class - without))
            assert torch.equal(torch.stack(scores).argmin(0), found[:, position, book])
            number += 1


@EVERY_LAYOUT
def test_masked_sees_all_that_is_shown_and_nothing_that_is_hidden(layout: str) -> None:
    prior = make("masked", *LAYOUTS[layout])
    assert isinstance(prior, MaskedPrior)
    tokens, classes = some_tokens(prior), torch.tensor([1])
    hidden = torch.arange(tokens.numel()).reshape(tokens.shape) % 2 == 0
    before = prior._nats(tokens, hidden, classes)[0]
    for place in itertools.product(range(prior.positions), range(len(prior.codebook_sizes))):
        changed = tokens.clone()
        changed[0][place] = (changed[0][place] + 1) % prior.codebook_sizes[place[1]]
        differs = (prior._nats(changed, hidden, classes)[0] - before).abs() > 1e-7
        itself = torch.zeros_like(differs)
        itself[place] = True
        assert torch.equal(differs, itself) if hidden[0][place] else bool(differs.all())


def test_masked_shows_the_surest_tokens_first_as_many_as_the_cosine_says() -> None:
    prior = make("masked", [[5, 4]], [7], steps=6)
    assert isinstance(prior, MaskedPrior)
    given = torch.full((5, 4), FREE)
    given[0] = torch.arange(4)
    steps = list(prior.sample_steps(3, 1, temperature=0, given=given))
    assert [int((each[0] == FREE).sum()) for each in steps] == [
        math.floor(16 * math.cos(step / 6 * math.pi / 2)) for step in range(1, 6)
    ] + [0]
    before = given.expand(3, 5, 4)
    for after in steps:
        logits = prior._logits(before.reshape(3, 20, 1), before.reshape(3, 20, 1) == FREE, torch.ones(3).long())[0]
        sure, best = logits.softmax(-1).reshape(3, 5, 4, 7).max(-1)
        shown, left = (before == FREE) & (after != FREE), after == FREE
        assert torch.equal(after[shown], best[shown])
        assert torch.equal(after[before != FREE], before[before != FREE])
        if left.any():
            assert bool((sure.masked_fill(~shown, 1).amin((1, 2)) >= sure.masked_fill(~left, 0).amax((1, 2))).all())
        before = after


def test_masked_shows_at_least_one_token_in_a_step() -> None:
    prior = make("masked", [[2, 2]], [7], steps=30)
    left = [int((each == FREE).sum()) for each in prior.sample_steps(1)]
    assert left == [3, 2, 1, *[0] * 27]


def test_masked_hides_shares_of_a_cosine_in_training() -> None:
    """2/π of the tokens are hidden on average; a network that knows nothing shows what the loss is a mean of."""
    torch.manual_seed(0)
    prior, seen = MaskedPrior([[10, 10]], [8], layers=1, width=8, heads=2), []

    def keep(tokens: Tensor, hidden: Tensor, classes: Tensor) -> Tensor:
        seen.append(hidden.flatten(1).float().mean(1))
        return torch.ones(tokens.shape)

    prior._nats = keep  # type: ignore[method-assign]
    assert prior.loss(torch.zeros(4000, 10, 10, dtype=torch.long)).item() == pytest.approx(1)
    assert float(seen[0].mean()) == pytest.approx(2 / math.pi, abs=0.02)
    assert float(seen[0].min()) > 0
    assert float((seen[0] < math.cos(math.pi / 4)).float().mean()) == pytest.approx(0.5, abs=0.04)


@EVERY
@EVERY_LAYOUT
def test_given_tokens_stay_and_lead_what_is_drawn(kind: str, layout: str) -> None:
    levels, sizes = LAYOUTS[layout]
    prior = make(kind, levels, sizes)
    given = prior.sample(1, generator=seed(1))[0]
    assert torch.equal(prior.sample(1, given=given)[0], given)
    given.view(-1)[1::2] = FREE
    samples = prior.sample(50, given=given, generator=seed(2))
    assert bool((samples[:, given != FREE] == given[given != FREE]).all())
    assert len(samples.unique(dim=0)) > 1
    for book, size in enumerate(sizes):
        assert int(samples.reshape(50, -1, len(sizes))[..., book].min()) >= 0
        assert int(samples.reshape(50, -1, len(sizes))[..., book].max()) < size
    if len(prior.levels) * len(sizes) == 1 and kind == "next-scale":
        return  # all tokens of the only grid are independent of each other
    led = torch.full((sizes[0], *prior.shape), FREE)
    led.flatten(1)[:, 0] = torch.arange(sizes[0])
    after = [prior.sample(50, given=one, generator=seed(2)).flatten(1)[:, 1:] for one in led]
    assert not torch.equal(after[0], after[1])


@EVERY
def test_a_seed_gives_the_same_samples(kind: str) -> None:
    prior = make(kind, *LAYOUTS["levels"])
    one, two, other = (prior.sample(8, 1, generator=seed(number)) for number in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@EVERY
@EVERY_LAYOUT
def test_bits_of_an_example_do_not_depend_on_its_batch(kind: str, layout: str) -> None:
    prior = make(kind, *LAYOUTS[layout])
    indices, labels = some_tokens(prior, 6).reshape(6, *prior.shape), torch.arange(6) % 2
    alone = torch.cat([prior.bits(indices[i : i + 1], labels[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(prior.bits(indices, labels), alone)
    torch.testing.assert_close(prior.train().bits(indices, labels), alone)


@EVERY
def test_what_has_learnt_nothing_knows_nothing(kind: str) -> None:
    torch.manual_seed(0)
    prior = KINDS[kind]([[1, 1], [4, 4]], [512], layers=2, width=64, heads=4)
    loss = prior.loss(torch.randint(512, (16, 17)))
    assert float(loss.detach()) == pytest.approx(math.log(512), rel=0.02)


@EVERY
def test_it_learns_what_the_class_says_and_what_the_tokens_say(kind: str) -> None:
    """A source with one bit in each example: which of two tokens stands everywhere, told by class and tokens."""
    labels = torch.arange(32) % 2
    indices = (3 + 2 * labels)[:, None].expand(32, 10)
    torch.manual_seed(0)
    prior = KINDS[kind]([[1, 1], [3, 3]], [8], 2, layers=2, width=32, heads=2, class_dropout=0.5)
    optimizer = torch.optim.Adam(prior.parameters(), 5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        prior.loss(indices, labels).backward()
        optimizer.step()
    assert float(prior.bits(indices, labels).max()) < 0.5
    assert float(prior.bits(indices).mean()) == pytest.approx(1, abs=0.8)
    assert float(prior.bits(indices, 1 - labels).min()) > 5
    assert torch.equal(prior.sample(32, labels, temperature=0), indices)
    assert torch.equal(prior.sample(32, labels, guidance=3.0, top_k=1), indices)
    kept = torch.full((10,), FREE)
    kept[0] = 5
    assert torch.equal(prior.sample(4, given=kept, top_k=1), indices[1].expand(4, 10))


@EVERY
def test_bits_come_near_the_entropy_of_the_source(kind: str) -> None:
    """A fair coin with three sides, then two tokens each of which copies it four times of five."""

    def draw(n: int) -> Tensor:
        coin = torch.randint(3, (n, 1))
        return torch.cat([coin, torch.where(torch.rand(n, 2) < 0.8, coin, (coin + 1) % 3)], 1)

    torch.manual_seed(0)
    prior = KINDS[kind]([[1, 1], [1, 2]], [3], layers=2, width=32, heads=2)
    optimizer = torch.optim.Adam(prior.parameters(), 5e-3)
    for _ in range(300):
        optimizer.zero_grad()
        prior.loss(draw(128)).backward()
        optimizer.step()
    entropy = math.log2(3) + 2 * (0.8 * math.log2(5 / 4) + 0.2 * math.log2(5))  # 3.03 of 4.75 bits
    bits = float(prior.bits(draw(4000)).mean())
    assert entropy - 0.1 < bits < entropy + (0.1 if prior.exact else 0.6)
    samples = prior.sample(4000, generator=torch.Generator().manual_seed(0))
    assert float((samples[:, 1:] == samples[:, :1]).float().mean()) == pytest.approx(0.8, abs=0.06)
    shares = F.one_hot(samples[:, 0], 3).float().mean(0)
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.1, rtol=0)


@EVERY
@EVERY_LAYOUT
def test_a_folder_alone_rebuilds_it(kind: str, layout: str, tmp_path: Path) -> None:
    prior = make(kind, *LAYOUTS[layout])
    prior.save_pretrained(tmp_path)
    found = Prior.from_pretrained(tmp_path)
    assert type(found) is KINDS[kind]
    assert found.config == prior.config
    assert torch.equal(found.sample(4, 1, generator=seed(0)), prior.sample(4, 1, generator=seed(0)))
    indices = some_tokens(prior, 4).reshape(4, *prior.shape)
    assert torch.equal(found.bits(indices), prior.bits(indices))


@EVERY
def test_gradient_reaches_every_parameter(kind: str) -> None:
    prior = make(kind, *LAYOUTS["levels and codebooks"]).train()
    indices = some_tokens(prior, 16).reshape(16, *prior.shape)
    prior.loss(indices, torch.arange(16) % 2).backward()
    idle = [name for name, each in prior.named_parameters() if each.grad is None]
    assert idle == []


@EVERY
def test_it_computes_in_half_precision(kind: str) -> None:
    prior = make(kind, *LAYOUTS["levels"])
    indices = some_tokens(prior, 4).reshape(4, *prior.shape)
    with torch.autocast("cpu", torch.bfloat16):
        assert prior.sample(4, 1).shape == (4, *prior.shape)
        torch.testing.assert_close(prior.bits(indices), make(kind, *LAYOUTS["levels"]).bits(indices), rtol=0.1, atol=1)


@pytest.mark.parametrize(
    ("kind", "how", "message"),
    [
        ("masked", {"steps": 0}, "steps must be at least 1"),
        ("masked", {"choice_temperature": -1.0}, "choice_temperature must be finite"),
        ("masked", {"heads": 16}, "MaskedPrior: width / heads must be even"),
        ("next-scale", {"heads": 16}, "NextScalePrior: width / heads must be even"),
    ],
)
def test_settings_out_of_range_are_named(kind: str, how: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(kind, [[2, 2]], [3], **how)
