"""Every planted fault is found, and none is invented."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ, ResidualVQ, SimVQ, VectorQuantize

import lexel
from lexel.audit import Audit
from tests.quantizers.zoo import ZOO
from tests.ranks import on_ranks

K, D = 96, 16
Output = tuple[Tensor, Tensor, Tensor]


def data() -> Tensor:
    return torch.randn(8, D, 8, 8, generator=torch.Generator().manual_seed(0))


def start() -> Tensor:
    return torch.randn(K, D, generator=torch.Generator().manual_seed(1))


class Sound(nn.Module):
    """A correct quantizer whose codes learn by gradient; each fault below overrides one method."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(start())

    def choose(self, rows: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return lexel.nearest_code(rows, self.table)

    def combine(self, z: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        loss = F.mse_loss(e, z.detach()) + 0.25 * F.mse_loss(e.detach(), z)
        return z + (e - z).detach(), loss

    def learn(self, rows: Tensor, indices: Tensor) -> None:
        pass

    def forward(self, inputs: Tensor) -> Output:
        z = inputs.movedim(1, -1)
        indices = self.choose(z.reshape(-1, D))
        quantized, loss = self.combine(z, self.table[indices].reshape(z.shape))
        self.learn(z.detach().reshape(-1, D), indices)
        return loss, quantized.movedim(-1, 1), indices.reshape(z.shape[:-1])


class SoundEMA(Sound):
    """A correct quantizer whose codes are moving averages."""

    decay = 0.99

    def __init__(self) -> None:
        super().__init__()
        self.table.requires_grad_(False)
        self.register_buffer("count", torch.ones(K))
        self.register_buffer("total", start())

    def combine(self, z: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        return z + (e - z).detach(), 0.25 * F.mse_loss(e.detach(), z)

    @torch.no_grad()
    def learn(self, rows: Tensor, indices: Tensor) -> None:
        if self.training and rows.isfinite().all():
            self.average(rows, indices)

    def choose(self, rows: Tensor) -> Tensor:
        return super().choose(torch.nan_to_num(rows))

    def average(self, rows: Tensor, indices: Tensor) -> None:
        ones = torch.ones(len(rows))
        self.count.mul_(self.decay).index_add_(0, indices, (1 - self.decay) * ones)
        self.total.mul_(self.decay).index_add_(0, indices, (1 - self.decay) * rows)
        self.table.copy_(self.total / self.count[:, None])


class Reviving(SoundEMA):
    """Codes that have hardly been chosen become inputs, and their averages with them."""

    def average(self, rows: Tensor, indices: Tensor) -> None:
        super().average(rows, indices)
        dead = self.count < 0.9
        self.table[dead] = rows[torch.randint(len(rows), (int(dead.sum()),))]
        self.reset(dead)

    def reset(self, dead: Tensor) -> None:
        self.count[dead] = 1
        self.total[dead] = self.table[dead]


class Swapped(Sound):
    """The codebook loss is computed after the straight-through line."""

    def combine(self, z: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        quantized = z + (e - z).detach()
        return quantized, F.mse_loss(quantized, z.detach()) + 0.25 * F.mse_loss(e.detach(), z)


class NoGradient(Sound):
    """The codes come out as they are."""

    def combine(self, z: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        return e, super().combine(z, e)[1]


class Expanded(Sound):
    """‖z‖² − 2⟨z, e⟩ + ‖e‖² in float32, a few rows at a time."""

    def choose(self, rows: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return torch.cat([self.distances(part).argmin(1) for part in rows.split(64)])

    def distances(self, rows: Tensor) -> Tensor:
        return rows.square().sum(1, keepdim=True) - 2 * rows @ self.table.T + self.table.square().sum(1)


class LowPrecision(Expanded):
    """The same around the centre of the codes, in whatever precision autocast says."""

    def choose(self, rows: Tensor) -> Tensor:
        centre = self.table.mean(0)
        table = self.table - centre
        parts = (rows - centre).split(64)
        return torch.cat([(table.square().sum(1) - 2 * F.linear(part, table)).argmin(1) for part in parts])


class Forgetful(Reviving):
    """The averages of a revived code stay what they were, and the next update takes it back."""

    def reset(self, dead: Tensor) -> None:
        pass


class AlwaysLearning(SoundEMA):
    """Updates in eval mode too."""

    def learn(self, rows: Tensor, indices: Tensor) -> None:
        with torch.no_grad():
            self.average(rows, indices)

    def forward(self, inputs: Tensor) -> Output:
        if not inputs.isfinite().all():
            raise ValueError("NaN")
        return super().forward(inputs)


class Poisoned(SoundEMA):
    """Takes NaN as any number."""

    def learn(self, rows: Tensor, indices: Tensor) -> None:
        if self.training:
            with torch.no_grad():
                self.average(rows, indices)


class Quadratic(Sound):
    """Looks the codes up by a one-hot matrix."""

    def forward(self, inputs: Tensor) -> Output:
        loss, quantized, indices = super().forward(inputs)
        one_hot = F.one_hot(indices, K).to(inputs)
        return loss, quantized + 0 * (one_hot @ self.table.detach()).movedim(-1, 1), indices


class Classic(Quadratic, Expanded):
    """The classic module: correct, with all that is known of its formulas; its codes start next to each other."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.uniform_(self.table, -1 / K, 1 / K)

    def choose(self, rows: Tensor) -> Tensor:
        return self.distances(rows).argmin(1)


class Collapsed(Sound):
    """All codes but one are far from everything."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.table[1:] += 50


class FailsUnderAutocast(Sound):
    """Has a product of two dtypes."""

    def choose(self, rows: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("expected m1 and m2 to have the same dtype")
        return super().choose(rows)


def faults(audit: Audit) -> set[str]:
    return {finding.check for finding in audit if finding.verdict == "wrong"}


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (Swapped, "codebook learns"),
        (NoGradient, "encoder's gradient"),
        (Expanded, "nearest codes under a shift"),
        (LowPrecision, "nearest codes under bfloat16 autocast"),
        (FailsUnderAutocast, "nearest codes under bfloat16 autocast"),
        (Forgetful, "revived codes stay"),
        (AlwaysLearning, "eval changes nothing"),
        (Poisoned, "NaN does not spread"),
        (Quadratic, "memory"),
        (Collapsed, "usage"),
    ],
)
def test_a_planted_fault_is_found_and_no_other_invented(broken: type[Sound], fault: str) -> None:
    found = lexel.audit(broken(), data())
    assert faults(found) == {fault}, str(found)
    assert not found.ok


def placed(vq: lexel.VectorQuantizer) -> lexel.VectorQuantizer:
    vq.pull(start(), torch.ones(K))
    return vq


@pytest.mark.parametrize(
    "make",
    [
        Sound,
        SoundEMA,
        Reviving,
        lambda: lexel.VectorQuantizer(K, D),
        lambda: placed(lexel.VectorQuantizer(K, D)),
        lambda: placed(lexel.VectorQuantizer(K, D, learning=lexel.EMA())),
        lambda: lexel.VectorQuantizer(
            K, D, learning=lexel.EMA(), upkeep=(lexel.KMeansStart(), lexel.Revival(threshold=0.5))
        ),
        lambda: placed(lexel.VectorQuantizer(K, D, upkeep=lexel.OnlineClustering(decay=0.9))),
        lambda: lexel.VectorQuantizer(K, D, estimator=lexel.RotationTrick()),
        lambda: lexel.VectorQuantizer(K, D, codebook=lexel.CosineCodebook()),
        lambda: lexel.FiniteScalarQuantizer([3] * D),
        lambda: lexel.ResidualQuantizer([lexel.VectorQuantizer(K, D) for _ in range(2)]),
    ],
)
def test_nothing_is_wrong_with_what_is_healthy(make: object) -> None:
    torch.manual_seed(0)
    found = lexel.audit(make(), data())
    assert found.ok, str(found)


@pytest.mark.parametrize("name", list(ZOO))
def test_every_quantizer_of_lexel_is_healthy(name: str) -> None:
    torch.manual_seed(0)
    quantizer = ZOO[name].make()
    z = torch.randn(64, quantizer.embedding_dim, 4, 4)
    # A random projection is not meant to learn, nor it or a classifier to choose the nearest code.
    nearest = {"nearest codes", "nearest codes under bfloat16 autocast", "nearest codes under a shift"}
    meant = {"random projection": {"codebook learns", *nearest}, "categorical": nearest}
    assert faults(lexel.audit(quantizer, z)) <= {"usage", *meant.get(name, ())}


def test_the_classic_module_is_told_of_what_its_formulas_cannot_do() -> None:
    torch.manual_seed(0)
    module = Classic()
    assert faults(lexel.audit(module, data())) >= {"nearest codes under a shift", "memory"}
    with torch.no_grad():
        module.table.copy_(start())
    assert faults(lexel.audit(module, data())) == {
        "nearest codes under a shift",
        "nearest codes under bfloat16 autocast",
        "memory",
    }


def test_memory_is_told_from_a_single_large_input() -> None:
    z = data().repeat(1, 1, 20, 20)[:1]

    class Both(Quadratic, Reviving):
        pass

    assert lexel.audit(Reviving(), z)["memory"].verdict == "ok"
    assert lexel.audit(Both(), z)["memory"].verdict == "wrong"


def test_of_codes_in_a_table_every_check_applies() -> None:
    found = lexel.audit(Reviving(), data())
    assert {one.check for one in found if one.verdict == "not applicable"} == {"ranks agree"}
    assert "identity" in found["encoder's gradient"].evidence
    rotated = lexel.audit(lexel.VectorQuantizer(K, D, estimator=lexel.RotationTrick()), data())
    assert "a rotation" in rotated["encoder's gradient"].evidence


def test_other_packages() -> None:
    torch.manual_seed(0)
    vq = VectorQuantize(D, K, accept_image_fmap=True, threshold_ema_dead_code=1)
    found = lexel.audit(vq, data())
    sound = {"codebook learns", "encoder's gradient", "nearest codes", "eval changes nothing", "usage"}
    assert {one.check for one in found if one.verdict == "ok"} >= sound
    assert faults(found) >= {"nearest codes under a shift", "NaN does not spread", "memory"}
    z = data().flatten(2).movedim(1, -1)
    started = lexel.audit(VectorQuantize(D, K, kmeans_init=True), z)
    assert started["nearest codes"].verdict == "ok"
    residual = lexel.audit(ResidualVQ(dim=D, codebook_size=K, num_quantizers=2), z)
    assert residual["codebook learns"].verdict == "ok"
    assert faults(residual) == {"NaN does not spread"}
    assert faults(lexel.audit(SimVQ(D, K), z)) == set()
    assert faults(lexel.audit(FSQ([3] * 4), z[..., :4])) == set()


class Wrapped(nn.Module):
    """The same quantizer with its channels last, whose output comes in another wrapping."""

    def __init__(self, wrap: object) -> None:
        super().__init__()
        self.inner, self.wrap = Sound(), wrap

    def forward(self, inputs: Tensor) -> object:
        loss, quantized, indices = self.inner(inputs.movedim(-1, 1))
        return self.wrap(loss, quantized.movedim(1, -1), indices)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda loss, quantized, indices: {"q": quantized, "extra": {"loss": loss, "codes": indices}},
        lambda loss, quantized, indices: [indices.int(), loss[None], quantized],
        lambda loss, quantized, indices: SimpleNamespace(a=loss, b=quantized, c=indices),
        lambda loss, quantized, indices: (quantized, loss),
        lambda loss, quantized, indices: (loss, quantized, torch.tensor(3.0), F.one_hot(indices.flatten(), K).float()),
        lambda loss, quantized, indices: lexel.Quantized(loss, quantized, loss.detach(), indices, {}, K),
        lambda loss, quantized, indices: (quantized, indices + 7, loss),
    ],
    ids=["dictionaries", "list", "object", "no indices", "one-hot", "Quantized", "indices of another numbering"],
)
def test_what_is_what_is_found_by_looking(wrap: object) -> None:
    found = lexel.audit(Wrapped(wrap), data().movedim(1, -1))
    assert faults(found) <= {"memory"}, str(found)
    for check in ("codebook learns", "nearest codes", "nearest codes under a shift", "usage"):
        assert found[check].verdict == "ok"


def test_what_looking_does_not_tell_can_be_said() -> None:
    class Strange(Sound):
        def forward(self, inputs: Tensor) -> object:
            loss, quantized, indices = super().forward(inputs)
            return inputs * 2, quantized, loss.reshape(1, 1), indices.float()

    said = {"quantized": lambda o: o[1], "loss": lambda o: o[2], "indices": lambda o: o[3].long()}
    found = lexel.audit(Strange(), data(), codebook=lambda module: module.table, **said)
    assert found["nearest codes"].verdict == found["usage"].verdict == "ok"
    assert found.ok, str(found)


def test_the_module_and_the_random_numbers_are_left_alone() -> None:
    module = Reviving()
    before, random = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    lexel.audit(module, data())
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
    assert module.training
    assert module.table.grad is None
    assert torch.equal(torch.get_rng_state(), random)


def test_prints_as_a_table() -> None:
    lines = str(lexel.audit(Swapped(), data())).splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("codebook learns ")
    assert "WRONG" in lines[0]
    assert f"none of {K} codes" in lines[0]


def test_what_cannot_be_audited_is_refused() -> None:
    for inputs, error in ((torch.arange(4), TypeError), (torch.empty(0, D), ValueError), ([1.0], TypeError)):
        with pytest.raises(error, match="inputs must be"):
            lexel.audit(Sound(), inputs)
    with pytest.raises(ValueError, match="quantized="):
        lexel.audit(nn.Linear(4, 3), torch.randn(2, 4))
    with pytest.raises(ValueError, match="no such axis"):
        lexel.audit(Sound(), data(), codebook=lambda module: torch.randn(3, 5))


def as_one_rank(rank: int) -> list[list[str]]:
    torch.manual_seed(0)
    alive = lexel.VectorQuantizer(K, D, learning=lexel.EMA(), upkeep=lexel.Revival(threshold=0.5))
    found = []
    for module in (alive, SoundEMA(), Reviving()):
        own = lexel.audit(module, data()[4 * rank : 4 * rank + 4])
        found.append([*sorted(faults(own)), own["ranks agree"].verdict, own["revived codes stay"].verdict])
    return found


def test_on_ranks(tmp_path: Path) -> None:
    """Averages that each rank makes of its own inputs drift apart."""
    for alive, averages, reviving in on_ranks(as_one_rank, tmp_path):
        assert alive == ["ok", "ok"]
        assert averages[:2] == ["ranks agree", "wrong"]
        assert reviving[:2] == ["ranks agree", "wrong"]


def test_codes_of_another_place_and_size_than_the_inputs_are_compared_with_what_they_stand_for() -> None:
    vq, inputs = lexel.presets.default(K, D), 0.1 + 0.01 * data()
    for _ in range(5):
        vq(inputs)
    assert vq.scale > 10
    found = lexel.audit(vq, inputs)
    assert found.ok, str(found)
    assert {found[check].verdict for check in ("nearest codes", "nearest codes under a shift")} == {"ok"}
    vq.quantizer.quantizer.codebook.weight[::2] += 1e-3  # still the nearest of what there is
    assert lexel.audit(vq, inputs)["nearest codes"].verdict == "ok"
