"""The page's arithmetic computes what Lexel computes: same start, same steps, same end, to the rounding of float32."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from playwright.sync_api import Browser
from torch import Tensor

import lexel
from tests.report.test_page import browser
from tests.web import WEB

__all__ = ["browser"]  # the fixture

CASES = 100
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call(browser: Browser) -> Iterator[Call]:
    """Call a function of `quantizer.js` for many lists of arguments; tensors arrive as rows in a Float32Array."""
    source = (WEB / "play" / "quantizer.js").read_text(encoding="utf-8")
    names = re.findall(r"^export (?:function|const) (\w+)", source, re.MULTILINE)
    page = browser.new_page()
    page.add_script_tag(content=f"{source}\nwindow.quantizer = {{ {', '.join(names)} }};", type="module")
    page.wait_for_function("window.quantizer")
    script = """([name, cases]) => {
        const read = (value) => value?.rows ? Float32Array.from(value.rows) : value;
        const write = (value) => ArrayBuffer.isView(value) ? Array.from(value)
            : value && typeof value === "object" && !Array.isArray(value)
            ? Object.fromEntries(Object.entries(value).map(([key, one]) => [key, write(one)])) : value;
        const train = (codes, batches, settings) => {
            const state = quantizer.begin(codes);
            const steps = batches.map((batch) => quantizer.trainingStep(state, read(batch), settings));
            return { ...state, perplexities: steps.map((s) => s.perplexity), errors: steps.map((s) => s.error),
                revived: steps.map((s) => s.revived.length) };
        };
        const random = (seed, count) => Array.from({ length: count }, quantizer.generator(seed));
        const call = { ...quantizer, train, random }[name];
        return cases.map((arguments_) => write(call(...arguments_.map(read))));
    }"""

    def call(name: str, cases: list[tuple[Any, ...]]) -> Any:
        return page.evaluate(script, [name, [[written(argument) for argument in case] for case in cases]])

    yield call
    page.close()


def written(value: Any) -> Any:
    if isinstance(value, Tensor):
        return {"rows": value.flatten().tolist()} if value.is_floating_point() else value.tolist()
    return [written(one) for one in value] if isinstance(value, list) else value


def rows(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 2)


def same(ours: Any, theirs: Tensor, *, atol: float = 1e-6) -> None:
    torch.testing.assert_close(torch.tensor(ours, dtype=theirs.dtype).view_as(theirs), theirs, rtol=2e-5, atol=atol)


@pytest.fixture
def cases() -> list[tuple[Tensor, Tensor]]:
    """Inputs and codes: of many numbers and scales, some on a grid so that there are ties, some far from the origin."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for case in range(CASES):
        n, k = (int(torch.randint(1, most, (), generator=generator)) for most in (60, 20))
        z, codes = (torch.randn(count, 2, generator=generator) * 10 ** (case % 5 - 2) for count in (n, k))
        if case % 4 == 0:
            z, codes = z.round(), codes.round()
        if case % 7 == 0:
            z, codes = z + 1000, codes + 1000
        found.append((z, codes))
    return found


def test_the_nearest_code(call: Call, cases: list[tuple[Tensor, Tensor]]) -> None:
    for ours, (z, codes) in zip(call("nearest", cases), cases, strict=True):
        assert ours == lexel.nearest_code(z, codes).tolist()


def test_the_expanded_distance(call: Call, cases: list[tuple[Tensor, Tensor]]) -> None:
    """To the bit where torch rounds each operation too; a matrix product may fuse some, which is within a rounding."""
    pairs = [(z, len(z) // 2, codes, len(codes) // 2) for z, codes in cases]
    for ours, (z, i, codes, k) in zip(call("expandedDistance", pairs), pairs, strict=True):
        x, e = z[i], codes[k]
        squares = (x[0] * x[0] + x[1] * x[1]) + (e[0] * e[0] + e[1] * e[1])
        assert ours == squares - 2 * (x[0] * e[0] + x[1] * e[1])
        product = (z.square().sum(1, keepdim=True) - 2 * z @ codes.T + codes.square().sum(1))[i, k]
        assert abs(ours - product) <= 4 * torch.finfo().eps * squares


def test_losses_and_their_gradients(call: Call, cases: list[tuple[Tensor, Tensor]]) -> None:
    betas = [0.0, 0.25, 1.0, 2.0]
    arguments = []
    for case, (z, codes) in enumerate(cases):
        arguments.append((z, codes, lexel.nearest_code(z, codes), {"commitment": betas[case % 4]}))
    errors = call("meanSquaredError", [case[:3] for case in arguments])
    for error, ours, case in zip(errors, call("lossGradients", arguments), arguments, strict=True):
        z, codes, _, settings = case
        vq = lexel.VectorQuantizer(len(codes), 2, settings["commitment"])
        vq.load_codes(codes)
        inputs = z.clone().requires_grad_()
        output = vq(inputs)
        output.loss.backward()
        same(error, output.terms["codebook"].detach())
        same(error, output.terms["commitment"].detach())
        assert inputs.grad is not None
        assert vq.codebook.weight.grad is not None
        same(ours["inputs"], inputs.grad)
        same(ours["codes"], vq.codebook.weight.grad)


def test_gradients_of_the_swapped_statements(call: Call, cases: list[tuple[Tensor, Tensor]]) -> None:
    arguments = [(z, codes, lexel.nearest_code(z, codes), {"commitment": 0.25}) for z, codes in cases]
    for ours, (z, table, indices, _) in zip(call("swappedGradients", arguments), arguments, strict=True):
        inputs, codes = z.clone().requires_grad_(), table.clone().requires_grad_()
        e = codes[indices]
        e = inputs + (e - inputs).detach()
        (F.mse_loss(e, inputs.detach()) + 0.25 * F.mse_loss(e.detach(), inputs)).backward()
        assert ours["codes"] is None
        assert codes.grad is None
        assert inputs.grad is not None
        same(ours["inputs"], inputs.grad, atol=1e-5 * float(z.abs().max()))


@pytest.mark.parametrize(
    ("name", "estimator"), [("straightThrough", lexel.StraightThrough()), ("rotationTrick", lexel.RotationTrick())]
)
def test_estimators(name: str, estimator: lexel.Estimator, call: Call) -> None:
    z, e, gradient = torch.randn(3, CASES, 2, generator=torch.Generator().manual_seed(1))
    z[0], e[1], e[2] = 0, 0, z[2]
    found = call(name, list(zip(z, e, gradient, strict=True)))
    for ours, *case in zip(found, z, e, gradient, strict=True):
        inputs, code, own = (part.view(1, 2) for part in case)
        inputs.requires_grad_()
        _, quantized = estimator.build(1, 2)(inputs, code)
        (quantized * own).sum().backward()
        assert inputs.grad is not None
        same(ours, inputs.grad[0])


def test_perplexity(call: Call) -> None:
    generator = torch.Generator().manual_seed(2)
    counts = [torch.randint(0, most, (9,), generator=generator).float() for most in (1, 2, 5, 1000) for _ in range(20)]
    for ours, own in zip(call("perplexity", [(one,) for one in counts]), counts, strict=True):
        same(ours, lexel.metrics.perplexity(own))


def test_kmeans(call: Call) -> None:
    """Lloyd's iterations from the same start. Lexel moves a code that has no inputs; no such cases here."""
    generator = torch.Generator().manual_seed(3)
    compared = 0
    for iterations in (1, 2, 5):
        sets = [torch.randn(80, 2, generator=generator) for _ in range(40)]
        found = call("kmeans", [(z, z[:6], iterations) for z in sets])
        for ours, z in zip(found, sets, strict=True):
            theirs = lexel.kmeans(z, 6, init=z[:6], iterations=iterations, tolerance=0)
            if theirs.counts.min() > 0:
                same(ours, theirs.codebook)
                compared += 1
    assert compared > 100


@pytest.mark.parametrize("revival", [None, {"threshold": 0.05, "decay": 0.7, "seed": 5}])
@pytest.mark.parametrize("settings", [{"learning": "gradient", "rate": 1.5}, {"learning": "ema", "decay": 0.8}])
def test_training(settings: dict[str, Any], revival: dict[str, Any] | None, call: Call) -> None:
    """Twenty steps on the same batches, from codes in a corner: codes, averages, usage and what each step says."""
    generator = torch.Generator().manual_seed(4)
    sizes = [1, 3, 20, 64]
    cases = []
    for case in range(8):
        codes = 0.1 * torch.rand(8, 2, generator=generator) - 1
        batches = [torch.randn(sizes[case % 4], 2, generator=generator) for _ in range(20)]
        cases.append((codes, batches, {**settings, "beta": 0.25, "revival": revival}))
    revived = 0
    for ours, (codes, batches, _) in zip(call("train", cases), cases, strict=True):
        upkeep = lexel.Revival(**revival) if revival else ()
        learning = lexel.EMA(settings["decay"]) if settings["learning"] == "ema" else lexel.Gradient()
        vq = lexel.VectorQuantizer(8, 2, learning=learning, upkeep=upkeep)
        vq.load_codes(codes)
        descent = torch.optim.SGD(vq.parameters(), settings["rate"]) if settings["learning"] == "gradient" else None
        outputs = []
        for batch in batches:
            outputs.append(vq(batch))
            if descent is not None:
                descent.zero_grad()
                outputs[-1].loss.backward()
                descent.step()
        same(ours["codes"], vq.codebook.weight.detach(), atol=1e-5)
        same(ours["perplexities"], torch.stack([output.perplexity for output in outputs]), atol=1e-5)
        same(ours["errors"], torch.stack([output.terms["commitment"].detach() for output in outputs]), atol=1e-5)
        if isinstance(vq.learning, lexel.learning.EMAModule):
            same(ours["count"], vq.learning.count, atol=1e-5)
            same(ours["sum"], vq.learning.sum, atol=1e-5)
        if revival:
            state = vq.state_dict()
            same(ours["usage"], state["upkeep.0.usage"], atol=1e-5)
            assert ours["turn"] == state["upkeep.0.step"]
        revived += sum(ours["revived"])
    assert (revived > 0) == (revival is not None)


def test_the_random_numbers_are_those_that_are_stated(call: Call) -> None:
    """Mulberry32, written once more in Python's unbounded integers."""

    def mulberry32(state: int) -> Iterator[float]:
        mask = 2**32 - 1
        while True:
            state = (state + 0x6D2B79F5) & mask
            x = (state ^ (state >> 15)) * (state | 1) & mask
            x ^= (x + ((x ^ (x >> 7)) * (x | 61) & mask)) & mask
            yield (x ^ (x >> 14)) / 2**32

    seeds = [0, 1, 2**31, 2**32 - 1]
    for seed, ours in zip(seeds, call("random", [(seed, 50) for seed in seeds]), strict=True):
        theirs = mulberry32(seed)
        assert ours == [next(theirs) for _ in range(50)]
