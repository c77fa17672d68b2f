"""What every prior does, on one that knows nothing: each token has the same probability."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typing_extensions import override

from lexel.priors import FREE, Prior, Sampling, kinds
from lexel.priors.base import COLDEST, HOTTEST, MOST_GUIDANCE


class Uniform(Prior):
    """Draws all at once; the logits are a parameter, so that there is something to save."""

    name = "uniform"

    def __init__(self, levels: list[list[int]], codebook_sizes: list[int], num_classes: int | None = None) -> None:
        super().__init__(levels, codebook_sizes, num_classes)
        self.logits = nn.Parameter(torch.zeros(self.no_class + 1, max(self.codebook_sizes)))

    @override
    def loss_of_tokens(self, tokens: Tensor, classes: Tensor) -> Tensor:
        self.seen = classes
        return self.bits_of_tokens(tokens, classes).mean() * math.log(2) / tokens[0].numel()

    @override
    def bits_of_tokens(self, tokens: Tensor, classes: Tensor) -> Tensor:
        logs = self.logits.log_softmax(-1)[classes] / math.log(2)
        return -logs.gather(1, tokens.flatten(1)).sum(1)

    @override
    def sample_tokens(self, given: Tensor, classes: Tensor, sampling: Sampling) -> Iterator[Tensor]:
        logits = sampling.guided(self.logits[sampling.classes(classes, self.no_class)])
        yield given
        yield sampling.draw(logits[:, None, None].expand(*given.shape, -1))


@pytest.fixture
def prior() -> Uniform:
    return Uniform([[2, 3]], [8], 3)


class TestSampling:
    def test_draws_with_the_probabilities(self) -> None:
        logits = torch.tensor([0.1, 0.2, 0.7]).log().expand(20000, 3)
        shares = Sampling(generator=torch.Generator().manual_seed(0)).draw(logits).bincount() / 20000
        torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.7]), atol=0.015, rtol=0)

    @pytest.mark.parametrize(
        ("how", "expected"),
        [
            ({"top_k": 2}, [0, 0.3, 0.7, 0]),
            ({"top_k": 9}, [0.1, 0.27, 0.63, 0]),
            ({"top_p": 0.62}, [0, 0, 1, 0]),
            ({"top_p": 0.64}, [0, 0.3, 0.7, 0]),
            ({"top_p": 1.0}, [0.1, 0.27, 0.63, 0]),
            ({"top_k": 2, "top_p": 0.69}, [0, 0, 1, 0]),
            ({"temperature": 0}, [0, 0, 1, 0]),
            ({"temperature": 0.5}, [v**2 / (0.1**2 + 0.27**2 + 0.63**2) for v in (0.1, 0.27, 0.63, 0)]),
        ],
        ids=str,
    )
    def test_filters(self, how: dict[str, float], expected: list[float]) -> None:
        found = Sampling(**how).probabilities(torch.tensor([[0.1, 0.27, 0.63, 0]]).log())
        torch.testing.assert_close(found, torch.tensor([expected]).float())

    def test_top_k_of_equal_logits_leaves_k(self) -> None:
        assert int((Sampling(top_k=3).probabilities(torch.zeros(1, 10)) > 0).sum()) == 3

    def test_what_is_filtered_out_is_never_drawn(self) -> None:
        assert int(Sampling(top_k=1).draw(torch.randn(1, 50).expand(5000, 50)).unique().numel()) == 1

    def test_guidance_of_one_is_the_class_alone_and_zero_is_no_class(self) -> None:
        both = torch.tensor([[1.0, 2.0], [5.0, 7.0]])
        assert Sampling(guidance=1).guided(both[:1]).tolist() == [[1, 2]]
        assert Sampling(guidance=0).guided(both).tolist() == [[5, 7]]
        assert Sampling(guidance=2).guided(both).tolist() == [[-3, -3]]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    @pytest.mark.parametrize("temperature", [0, COLDEST, HOTTEST])
    def test_at_the_ends_of_the_ranges_probabilities_are_numbers(self, dtype: torch.dtype, temperature: float) -> None:
        both = torch.tensor([[-900.0, 0, 900], [900, 0, -900]], dtype=dtype)
        sampling = Sampling(temperature, guidance=MOST_GUIDANCE)
        found = sampling.probabilities(sampling.guided(both))
        assert bool(found.isfinite().all())
        assert torch.allclose(found.sum(-1), torch.ones(1))
        assert int(found.argmax()) == 2

    @pytest.mark.parametrize(
        "how",
        [{"temperature": -1}, {"temperature": math.nan}, {"top_k": 0}, {"top_p": 0}, {"top_p": 1.1}, {"guidance": -1}],
        ids=str,
    )
    def test_a_setting_out_of_range_is_named(self, how: dict[str, float]) -> None:
        with pytest.raises(ValueError, match=next(iter(how))):
            Sampling(**how)

    @pytest.mark.parametrize("how", [{"temperature": "1"}, {"top_k": "5"}, {"top_k": 2.5}, {"top_p": "1"}], ids=str)
    def test_a_setting_of_another_type_is_named(self, how: dict[str, Any]) -> None:
        with pytest.raises(TypeError, match=f"^Sampling: {next(iter(how))} must be "):
            Sampling(**how)


class TestPrior:
    @pytest.mark.parametrize(
        ("levels", "sizes", "shape"),
        [
            ([[2, 3]], [8], (2, 3)),
            ([[2, 3]], [8, 4], (2, 3, 2)),
            ([[1, 1], [2, 2]], [8], (5,)),
            ([[1, 1], [2, 2]], [8, 4], (5, 2)),
        ],
    )
    def test_samples_have_the_shape_of_indices(
        self, levels: list[list[int]], sizes: list[int], shape: tuple[int, ...]
    ) -> None:
        prior = Uniform(levels, sizes)
        prior.logits.data[:, 4:] = -math.inf
        assert prior.sample(4).shape == (4, *shape)
        assert prior.bits(prior.sample(4)).shape == (4,)

    def test_bits_of_the_uniform_code(self, prior: Uniform) -> None:
        torch.testing.assert_close(prior.bits(torch.zeros(5, 2, 3, dtype=torch.uint8)), torch.full((5,), 18.0))
        assert prior.loss(torch.zeros(5, 2, 3, dtype=torch.int16)).item() == pytest.approx(math.log(8))

    def test_given_tokens_stay(self, prior: Uniform) -> None:
        given = torch.tensor([[1, FREE, 2], [FREE, 7, FREE]])
        for batch in (given, given.expand(50, 2, 3)):
            samples = prior.sample(50, given=batch)
            assert bool((samples[:, given != FREE] == given[given != FREE]).all())
            assert int(samples.min()) >= 0
            assert len(samples.unique(dim=0)) > 10

    def test_a_seed_gives_the_same_samples(self, prior: Uniform) -> None:
        one, two, other = (prior.sample(4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert torch.equal(one, two)
        assert not torch.equal(one, other)

    def test_classes_are_dropped_in_training_alone(self, prior: Uniform) -> None:
        indices, labels = torch.zeros(4000, 2, 3, dtype=torch.long), torch.arange(4000) % 3
        prior.train().loss(indices, labels)
        assert float((prior.seen == prior.no_class).float().mean()) == pytest.approx(0.1, abs=0.02)
        assert bool(((prior.seen == labels) | (prior.seen == prior.no_class)).all())
        prior.eval().loss(indices, labels)
        assert torch.equal(prior.seen, labels)

    def test_bad_input_is_named(self, prior: Uniform) -> None:
        indices = torch.zeros(2, 2, 3, dtype=torch.long)
        with pytest.raises(TypeError, match="indices must be integers"):
            prior.loss(indices.float())
        with pytest.raises(ValueError, match=r"indices must have shape \(B, 2, 3\), got \(2, 3, 2\)"):
            prior.loss(indices.mT)
        for wrong in (-1, 8):
            with pytest.raises(ValueError, match=rf"indices must be in \[0, 8\), got {wrong}"):
                prior.bits(indices + wrong)
        with pytest.raises(ValueError, match=r"labels must be in \[0, 3\)"):
            prior.bits(indices, torch.tensor([0, 3]))
        with pytest.raises(ValueError, match=r"labels must be one class or have shape \(2,\)"):
            prior.bits(indices, torch.tensor([0, 1, 2]))
        with pytest.raises(TypeError, match="labels must be integers"):
            prior.bits(indices, torch.tensor([0.0, 1.0]))
        with pytest.raises(ValueError, match="knows no classes"):
            Uniform([[2, 3]], [8]).bits(indices, torch.tensor([0, 0]))
        with pytest.raises(ValueError, match="given must be in"):
            prior.sample(2, given=indices - 2)
        with pytest.raises(ValueError, match="given must be one example or n = 3, got 2"):
            prior.sample(3, given=indices)
        with pytest.raises(ValueError, match="there are no labels"):
            prior.sample(3, guidance=2)

    def test_settings_out_of_range_are_named(self) -> None:
        for levels, sizes, num_classes, word in (
            ([], [8], None, "levels"),
            ([[0, 2]], [8], None, "levels"),
            ([[2, 2]], [], None, "codebook_sizes"),
            ([[2, 2]], [8], 0, "num_classes"),
        ):
            with pytest.raises(ValueError, match=word):
                Uniform(levels, sizes, num_classes)

    def test_a_kind_is_known_by_its_name(self) -> None:
        assert kinds()["uniform"] is Uniform


class TestSaving:
    def test_any_kind_comes_back_as_it_was(self, prior: Uniform, tmp_path: Path) -> None:
        nn.init.normal_(prior.logits)
        prior.save_pretrained(tmp_path)
        for cls in (Prior, Uniform):
            found = cls.from_pretrained(tmp_path)
            assert type(found) is Uniform
            assert found.config == prior.config
            assert torch.equal(found.logits, prior.logits)

    def test_damage_is_found(self, prior: Uniform, tmp_path: Path) -> None:
        prior.save_pretrained(tmp_path)
        weights = tmp_path / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        whole = weights.read_bytes()
        weights.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged"):
            Prior.from_pretrained(tmp_path)
        weights.write_bytes(whole)
        config = json.loads((tmp_path / "config.json").read_text())
        config["init_args"]["levels"] = [[3, 2]]
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="was changed"):
            Prior.from_pretrained(tmp_path)
        save_file(load_file(weights), weights)  # as something else would write them, without a checksum
        for text in ("{}", '{"class_path": "os.system"}', '{"class_path": "lexel.EMA"}'):
            (tmp_path / "config.json").write_text(text)
            with pytest.raises(ValueError, match="does not describe a prior"):
                Prior.from_pretrained(tmp_path)
