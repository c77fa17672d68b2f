"""How codes start and come back to life."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

import lexel
from lexel._core.collectives import AllRows
from lexel.kmeans import kmeans
from lexel.upkeep import StepErrors

LEARNING = [lexel.Gradient(), lexel.EMA(), lexel.EMA(warmup=10)]
UPKEEP = [
    lexel.KMeansStart(),
    lexel.Revival(threshold=0.5, decay=0.5),
    lexel.Revival(threshold=0.5, decay=0.5, by="error"),
    lexel.OnlineClustering(),
    lexel.OnlineClustering(anchor="random"),
    (lexel.KMeansStart(iterations=2), lexel.Revival(threshold=0.5, decay=0.5)),
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def far_code(learning: lexel.Learning, upkeep: lexel.Upkeep, num_embeddings: int = 8) -> lexel.VectorQuantizer:
    """A quantizer whose last code lies where no input is."""
    vq = lexel.VectorQuantizer(num_embeddings, 4, learning=learning, upkeep=upkeep)
    codes = torch.randn(num_embeddings, 4)
    codes[-1] = 1000
    vq.pull(codes, torch.ones(num_embeddings))
    return vq


def state_of(vq: lexel.VectorQuantizer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in vq.state_dict().items()}


def distinct_rows_of(found: Tensor, rows: Tensor) -> bool:
    """Whether every row of `found` is one of `rows`, and none is the same as another."""
    where = [int((rows == row).all(1).nonzero()[0]) for row in found]
    return len(set(where)) == len(found)


@pytest.mark.parametrize("learning", LEARNING, ids=repr)
class TestKMeansStart:
    def test_lowers_the_error_of_the_first_batch(self, learning: lexel.Learning) -> None:
        z = torch.randn(8, 4, 10, 10)
        errors = [
            vq(z).terms["commitment"]
            for vq in (
                lexel.VectorQuantizer(32, 4, learning=learning, upkeep=upkeep) for upkeep in ((), lexel.KMeansStart())
            )
        ]
        assert errors[1] < 0.5 * errors[0]

    def test_happens_once(self, learning: lexel.Learning) -> None:
        vq = lexel.VectorQuantizer(8, 4, learning=learning, upkeep=lexel.KMeansStart())
        vq(torch.randn(50, 4))
        before = vq.codebook.weight.clone()
        vq(100 + torch.randn(50, 4))
        assert vq.codebook.weight.max() < 100
        if learning == lexel.Gradient():
            torch.testing.assert_close(vq.codebook.weight, before, rtol=0, atol=0)

    def test_small_batches_are_collected_in_the_codes(self, learning: lexel.Learning) -> None:
        vq = lexel.VectorQuantizer(32, 4, learning=learning, upkeep=lexel.KMeansStart())
        first, second, third = torch.randn(3, 12, 4)
        vq.eval()
        vq(first)
        assert not torch.isin(first, vq.codebook.weight).any()
        vq.train()
        vq(first)
        if learning == lexel.Gradient():
            torch.testing.assert_close(vq.codebook.weight[:12], first)
        vq(second)
        resumed = lexel.from_config(vq.config)
        resumed.load_state_dict(vq.state_dict())
        for module in (vq, resumed):
            module(third)
        torch.testing.assert_close(resumed.state_dict(), vq.state_dict(), rtol=0, atol=0)
        assert vq.upkeep[0].collected == 32
        if learning == lexel.Gradient():
            expected = kmeans(torch.cat([first, second, third]), 32, tolerance=0).codebook
            torch.testing.assert_close(vq.codebook.weight, expected)


@pytest.mark.parametrize("learning", LEARNING, ids=repr)
class TestRevival:
    def test_a_dead_code_becomes_an_input_and_stays_alive(self, learning: lexel.Learning) -> None:
        vq = far_code(learning, lexel.Revival(threshold=0.2, decay=0.5))
        for _ in range(3):  # usage 1 → 0.5 → 0.25 → 0.125: dead when the fourth step begins
            assert (vq(torch.randn(64, 4)).indices != 7).all()
        z = torch.randn(64, 4)
        assert (vq(z).indices == 7).any()
        for _ in range(5):
            vq(torch.randn(64, 4))
            assert vq.codebook.weight[7].abs().max() < 10
        if learning == lexel.Gradient():
            assert distinct_rows_of(vq.codebook.weight[7:], z)

    def test_dead_codes_take_different_inputs(self, learning: lexel.Learning) -> None:
        vq = lexel.VectorQuantizer(40, 4, learning=learning, upkeep=lexel.Revival())
        vq.upkeep[0].usage.zero_()
        z = torch.randn(64, 4)
        anchors, strength = vq.upkeep[0].prepare(vq.codebook.weight.detach(), AllRows(z))
        assert strength.all()
        assert distinct_rows_of(anchors, z)

    def test_more_dead_codes_than_inputs_wait(self, learning: lexel.Learning) -> None:
        vq = lexel.VectorQuantizer(40, 4, learning=learning, upkeep=lexel.Revival())
        vq.upkeep[0].usage.zero_()
        vq(torch.randn(15, 4))
        assert (vq.codebook.weight.abs().amax(1) > 1 / 40).sum() == 15
        vq(torch.randn(25, 4))
        assert (vq.codebook.weight.abs().amax(1) > 1 / 40).sum() == 40

    def test_masked_inputs_are_never_taken(self, learning: lexel.Learning) -> None:
        vq = lexel.VectorQuantizer(64, 4, learning=learning, upkeep=lexel.Revival(threshold=0.9, decay=0))
        z, mask = torch.randn(16, 4, 8), torch.rand(16, 8) < 0.5
        z.movedim(1, -1)[~mask] = 1e4
        for _ in range(4):
            vq(z, mask)
        assert vq.codebook.weight.max() < 100

    def test_a_code_in_use_is_left_alone(self, learning: lexel.Learning) -> None:
        vq, plain = far_code(learning, lexel.Revival()), far_code(learning, ())
        plain.load_state_dict(vq.state_dict(), strict=False)
        for _ in range(3):
            z = torch.randn(64, 4)
            torch.testing.assert_close(vq(z).quantized, plain(z).quantized, rtol=0, atol=0)

    def test_how_a_batch_is_cut_does_not_age_codes_faster(self, learning: lexel.Learning) -> None:
        """Sixteen batches of a sixteenth of K inputs move the average of usage as much as one of K does."""
        whole, parts = (lexel.Revival(decay=0.9).build(64, 4) for _ in range(2))
        idle = torch.zeros(64)
        idle[:4] = 16.0
        whole.observe(idle)
        for _ in range(16):
            parts.observe(idle / 16)
        torch.testing.assert_close(parts.usage, whole.usage)
        parts.observe(torch.zeros(64))
        torch.testing.assert_close(parts.usage, whole.usage)

    def test_every_input_is_as_likely(self, learning: lexel.Learning) -> None:
        part, codes, hits = lexel.Revival().build(3, 1), torch.zeros(3, 1), torch.zeros(10)
        for _ in range(1000):
            part.usage.zero_()
            anchors, _ = part.prepare(codes, AllRows(torch.arange(10.0).unsqueeze(1)))
            hits[anchors.long().reshape(-1)] += 1
        assert hits.sum() == 3000
        assert (hits - 300).abs().max() < 5 * math.sqrt(300)


def moves(part: lexel.UpkeepModule, z: Tensor, errors: Tensor, valid: Tensor | None = None) -> Tensor:
    """Where codes move that no input chose, at the end of a step of these inputs; all are dead before."""
    part.usage.zero_()
    counts = torch.zeros_like(part.usage)
    change = part.observe_errors(counts, StepErrors(counts, errors, AllRows(z, valid)))
    assert change is not None
    anchors, strength = change
    return anchors[strength > 0]


@pytest.mark.parametrize("learning", LEARNING, ids=repr)
class TestRevivalByError:
    @pytest.mark.parametrize("by", ["usage", "error"])
    def test_a_code_for_rare_inputs_lives_by_its_share_of_the_error(self, by: str, learning: lexel.Learning) -> None:
        """One input in 500 chooses code 1, and has more than half of the error."""
        vq, plain = (
            lexel.VectorQuantizer(2, 1, learning=learning, upkeep=upkeep)
            for upkeep in (lexel.Revival(0.1, 0.5, by=by), ())
        )
        for module in (vq, plain):
            module.load_codes(torch.tensor([[0.0], [100.0]]))
        for step in range(20):
            z = 0.1 * torch.randn(500, 1)
            z[0] = 100 + 3 * (-1) ** step
            vq(z), plain(z)
        assert torch.equal(vq.codebook(), plain.codebook()) == (by == "error")

    def test_a_code_without_error_lives_by_its_inputs(self, learning: lexel.Learning) -> None:
        vq = lexel.VectorQuantizer(2, 1, learning=learning, upkeep=lexel.Revival(0.5, 0.5, by="error"))
        vq.load_codes(torch.tensor([[0.0], [100.0]]))
        for _ in range(10):
            vq(torch.tensor([[0.0], [90.0], [0.0], [110.0]]))
            assert (vq.codebook().detach().flatten() - torch.tensor([0, 100])).abs().max() < 1

    def test_a_dead_code_becomes_the_input_with_the_error(self, learning: lexel.Learning) -> None:
        vq = lexel.VectorQuantizer(3, 1, learning=learning, upkeep=lexel.Revival(0.2, 0.5, by="error"))
        vq.load_codes(torch.tensor([[0.0], [10.0], [1000.0]]))
        z = torch.tensor([[0.0]] * 20 + [[10.0]] * 20 + [[4.0]])
        for _ in range(3):  # usage 1 → 0.5 → 0.25 → 0.125: dead when the third step ends
            vq(z)
            assert vq.codebook()[2] > 900
        vq(z)
        assert vq.codebook()[2] == 4
        assert vq.upkeep[0].usage[2] == 1
        vq(z)
        assert vq(z).indices[-1] == 2

    def test_inputs_are_drawn_in_proportion_to_their_error(self, learning: lexel.Learning) -> None:
        part, hits, rounds = lexel.Revival(by="error").build(3, 1), torch.zeros(10), 2000
        errors = torch.tensor([0.0, 1, 2, 3, 4, 5, 0, 6, 7, 8])  # three points on a line of 36: no row gets two
        for _ in range(rounds):
            hits[moves(part, torch.arange(10.0).unsqueeze(1), errors).long().flatten()] += 1
        expected = 3 * rounds * errors / errors.sum()
        assert hits.sum() == 3 * rounds
        assert ((hits - expected).abs() <= 5 * expected.sqrt()).all()

    def test_codes_that_fall_on_one_input_wait_but_for_one(self, learning: lexel.Learning) -> None:
        part, z = lexel.Revival(by="error").build(8, 1), torch.arange(20.0).unsqueeze(1)
        errors = torch.full((20,), 1e-3)
        errors[7] = 1e3
        found = moves(part, z, errors)
        assert 1 <= len(found) <= 2
        assert (found == 7).sum() == 1
        assert (part.usage == 1).sum() == len(found)
        assert len(set(moves(part, z, torch.ones(20)).flatten().tolist())) == 8

    def test_more_dead_codes_than_inputs_wait(self, learning: lexel.Learning) -> None:
        found = moves(lexel.Revival(by="error").build(40, 1), torch.arange(15.0).unsqueeze(1), torch.ones(15))
        assert found.flatten().tolist() == list(range(15))

    @pytest.mark.parametrize("errors", [[0.0, 0.0], [1.0, torch.inf], [torch.nan, 1.0]], ids=str)
    def test_without_errors_that_say_where_no_code_moves(self, errors: list[float], learning: lexel.Learning) -> None:
        assert not len(moves(lexel.Revival(by="error").build(4, 1), torch.ones(2, 1), torch.tensor(errors)))

    def test_masked_inputs_are_never_taken_and_count_in_no_error(self, learning: lexel.Learning) -> None:
        vq = lexel.VectorQuantizer(64, 4, learning=learning, upkeep=lexel.Revival(0.9, 0, by="error"))
        twin = lexel.from_config(vq.config)
        twin.load_state_dict(vq.state_dict())
        for _ in range(4):
            z, mask = torch.randn(16, 4, 8), torch.rand(16, 8) < 0.5
            dirty = z.clone()
            dirty.movedim(1, -1)[~mask] = 1e4
            vq(dirty, mask)
            twin(z.movedim(1, -1)[mask])
        assert vq.codebook.weight.max() < 100
        torch.testing.assert_close(vq.state_dict(), twin.state_dict())

    def test_errors_are_those_of_the_codes_that_were_chosen(self, learning: lexel.Learning) -> None:
        seen = []

        class Module(lexel.UpkeepModule):
            def prepare(self, codes: Tensor, rows: AllRows, *, unit_length: bool = False) -> None:
                return None

            def observe_errors(self, counts: Tensor, errors: StepErrors) -> None:
                seen.append((counts, errors))

        class Watch(lexel.Upkeep):
            needs_errors = True

            def build(self, num_embeddings: int, embedding_dim: int) -> lexel.UpkeepModule:
                return Module(self)

        vq = lexel.VectorQuantizer(8, 4, learning=learning, upkeep=Watch())
        z, codes = torch.randn(50, 4), vq.codebook().detach().clone()
        indices = vq(z).indices
        ((counts, errors),) = seen
        expected = (z - codes[indices]).square().sum(1)
        torch.testing.assert_close(errors.own, expected)
        torch.testing.assert_close(errors.by_code, torch.zeros(8).index_add(0, indices, expected))
        torch.testing.assert_close(counts, indices.bincount(minlength=8).float())


class TestOnlineClustering:
    @pytest.mark.parametrize("learning", LEARNING, ids=repr)
    def test_follows_its_formulas(self, learning: lexel.Learning) -> None:
        gamma, K = 0.9, 8
        vq = far_code(learning, lexel.OnlineClustering(decay=gamma))
        usage = torch.zeros(K)
        for step in range(4):
            codes, z = vq.codebook.weight.detach().clone(), torch.randn(64, 4)
            alpha = torch.exp(-usage * K * 10 / (1 - gamma) - 1e-3)[:, None]
            anchors = z[torch.cdist(codes, z).argmin(1)]
            expected = (1 - alpha) * codes + alpha * anchors if step else codes
            output = vq(z)
            usage = gamma * usage + (1 - gamma) * output.indices.bincount(minlength=K) / 64
            if learning == lexel.Gradient():
                torch.testing.assert_close(vq.codebook.weight.detach(), expected)
            torch.testing.assert_close(torch.cdist(z, expected).argmin(1), output.indices)
            if step:
                assert vq.codebook.weight.abs().max() < 10


@pytest.mark.parametrize("learning", LEARNING, ids=repr)
@pytest.mark.parametrize("upkeep", UPKEEP, ids=repr)
class TestEveryUpkeep:
    def test_config_round_trip(self, upkeep: object, learning: lexel.Learning) -> None:
        vq = lexel.VectorQuantizer(8, 4, learning=learning, upkeep=upkeep)
        again = lexel.from_config(vq.config)
        assert again.config == vq.config
        assert set(again.state_dict()) == set(vq.state_dict())

    def test_goes_on_from_a_checkpoint_and_leaves_the_global_generator_alone(
        self, upkeep: object, learning: lexel.Learning
    ) -> None:
        batches = torch.randn(6, 24, 4)
        straight = lexel.VectorQuantizer(32, 4, learning=learning, upkeep=upkeep)
        straight.pull(torch.randn(32, 4), torch.ones(32))
        broken = lexel.from_config(straight.config)
        broken.load_state_dict(straight.state_dict())
        torch.manual_seed(1)
        for z in batches:
            straight(z)
        assert torch.equal(torch.rand(1), torch.manual_seed(1) and torch.rand(1))
        for z in batches:
            torch.rand(3)
            resumed = lexel.from_config(straight.config)
            resumed.load_state_dict(state_of(broken))
            broken = resumed
            broken(z)
        torch.testing.assert_close(broken.state_dict(), straight.state_dict(), rtol=0, atol=0)

    def test_nothing_moves_in_eval_mode_or_without_inputs(self, upkeep: object, learning: lexel.Learning) -> None:
        vq = lexel.VectorQuantizer(8, 4, learning=learning, upkeep=upkeep)
        before = state_of(vq)
        vq(torch.randn(0, 4))
        vq(torch.full((3, 4, 2), torch.nan), torch.zeros(3, 2, dtype=torch.bool))
        vq.eval()(torch.randn(100, 4))
        torch.testing.assert_close(vq.state_dict(), before, rtol=0, atol=0)

    def test_compiles_into_one_graph_and_does_the_same(self, upkeep: object, learning: lexel.Learning) -> None:
        torch.compiler.reset()
        vq = far_code(learning, upkeep, 32)
        twin = lexel.from_config(vq.config)
        twin.load_state_dict(vq.state_dict())
        compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
        for _ in range(4):
            z = torch.randn(24, 4)
            torch.testing.assert_close(compiled(z).quantized, vq(z).quantized)
            torch.testing.assert_close(twin.state_dict(), vq.state_dict())


def test_a_compiled_graph_loses_the_start_once_codes_have_started() -> None:
    torch.compiler.reset()
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(any("kmeans_start" in str(node.target) for node in graph.graph.nodes))
        return graph

    vq = lexel.VectorQuantizer(32, 4, learning=lexel.EMA(), upkeep=lexel.KMeansStart())
    fresh, compiled = state_of(vq), torch.compile(vq, fullgraph=True, backend=backend)
    for _ in range(5):  # of which two are collected, and one sees that this was all
        compiled(torch.randn(24, 4))
    assert graphs == [True, False]
    compiled.load_state_dict({f"_orig_mod.{name}": value for name, value in fresh.items()})
    compiled(torch.randn(40, 4))
    assert vq.upkeep[0].collected == 32
    assert vq.codebook().norm(dim=1).min() > 0.1


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (lexel.KMeansStart, {"iterations": -1}),
        (lexel.Revival, {"threshold": 1.0}),
        (lexel.Revival, {"decay": -0.1}),
        (lexel.Revival, {"by": "count"}),
        (lexel.OnlineClustering, {"decay": 1.0}),
        (lexel.OnlineClustering, {"anchor": "nearest"}),
    ],
)
def test_refuses_settings_out_of_range(cls: type, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{cls.__name__}: {next(iter(wrong))}"):
        cls(**wrong)


def test_refuses_what_is_no_upkeep() -> None:
    with pytest.raises(TypeError, match=r"upkeep\[0\] must be a lexel Upkeep, got EMA"):
        lexel.VectorQuantizer(8, 4, upkeep=[lexel.EMA()])


@pytest.mark.parametrize("by", ["usage", "error"])
def test_large_codebooks_build_no_matrix_of_inputs_by_codes(by: str) -> None:
    vq = lexel.VectorQuantizer(1 << 18, 4, upkeep=lexel.Revival(by=by))
    vq.upkeep[0].usage.zero_()
    with torch.profiler.profile(profile_memory=True) as profile:
        vq(torch.randn(1024, 4))
    assert max(event.cpu_memory_usage for event in profile.events()) < 1024 * (1 << 18) // 8


def test_codes_that_move_disturb_no_gradient_of_a_pass_before() -> None:
    """Several forward passes before one backward pass: every composition that is not refused has its gradient."""
    tried = 0
    for codebook, regularisers, estimator, upkeep, learning in product(
        (lexel.FreeCodebook(), lexel.CosineCodebook(), lexel.FactorisedCodebook(2), lexel.AffineCodebook()),
        ((), lexel.Entropy(), lexel.Orthogonality()),
        (lexel.StraightThrough(), lexel.RotationTrick(), lexel.DiVeQ(), lexel.GumbelSoftmax(hard=False)),
        (
            lexel.KMeansStart(),
            lexel.Revival(threshold=0.9),
            lexel.Revival(threshold=0.9, by="error"),
            lexel.OnlineClustering(),
        ),
        (lexel.Gradient(), lexel.EMA()),
    ):
        parts = {"codebook": codebook, "regularisers": regularisers, "estimator": estimator, "upkeep": upkeep}
        try:
            vq = lexel.VectorQuantizer(8, 4, learning=learning, **parts)
        except ValueError:
            continue
        tried += 1
        rvq, z = lexel.ResidualQuantizer([vq], depth=2), torch.randn(30, 4, requires_grad=True)
        outputs = [rvq(z + torch.randn(30, 4)) for _ in range(2)]
        sum(output.loss + output.quantized.square().sum() for output in outputs).backward()
        assert z.grad.isfinite().all(), parts
    assert tried > 200


@pytest.mark.parametrize(
    "estimator",
    [lexel.IndexBackpropagation(), lexel.Synchronised(), lexel.DiVeQ(), lexel.NSVQ(), lexel.GumbelSoftmax()],
    ids=lambda estimator: type(estimator).__name__,
)
def test_usage_by_error_follows_the_codes_that_an_estimator_chose(estimator: lexel.Estimator) -> None:
    vq = lexel.VectorQuantizer(8, 4, estimator=estimator, upkeep=lexel.Revival(0.0, 0.5, by="error"))
    codes, z = torch.randn(8, 4), torch.randn(50, 4)
    vq.load_codes(codes)
    indices = vq(z).indices
    errors = torch.zeros(8).index_add(0, indices, (z - codes[indices]).square().sum(1))
    share = (indices.bincount(minlength=8) / 50).maximum(errors / errors.sum())
    torch.testing.assert_close(vq.upkeep[0].usage, 0.5 + 0.5 * 8 * share)


def test_statistics_stay_float32_whatever_the_module_is_cast_to() -> None:
    vq = lexel.VectorQuantizer(2, 1, learning=lexel.EMA(), upkeep=lexel.Revival()).half()
    for _ in range(3):
        vq(torch.full((700, 1), 100.0, dtype=torch.float16))
    assert vq.learning.sum.dtype == vq.upkeep[0].usage.dtype == torch.float32
    assert vq.codebook.weight.dtype == torch.float16
    assert vq.codebook().isfinite().all()
    for name in ("count", "sum"):  # as FSDP casts buffers
        buffer = getattr(vq.learning, name)
        buffer.data = buffer.data.bfloat16()
    vq(torch.full((700, 1), 100.0, dtype=torch.float16))
    assert vq.learning.sum.dtype == torch.float32
    assert vq.double().learning.sum.dtype == torch.float64
