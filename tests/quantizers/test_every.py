"""What must hold for every quantizer, whatever it does: one suite over the examples of `zoo.py`."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import lexel
from tests.quantizers.zoo import ZOO, Example

ROWWISE = {name: example for name, example in ZOO.items() if not example.maps_only}
OWN = {name: example for name, example in ZOO.items() if not example.foreign}
OUTPUTS = ("loss", "quantized", "perplexity", "indices")
EXACTLY = {"rtol": 0, "atol": 0, "equal_nan": True}


@pytest.fixture
def quantizer(example: Example) -> lexel.Quantizer:
    return example.make()


@pytest.fixture
def z(quantizer: lexel.Quantizer) -> Tensor:
    return torch.randn(3, quantizer.embedding_dim, 4, 4)


def rebuilt(quantizer: lexel.Quantizer, **changes: object) -> lexel.Quantizer:
    """Another quantizer with the same settings, less the changes, and the same state."""
    config = quantizer.config
    again: lexel.Quantizer = lexel.from_config({**config, "init_args": {**config["init_args"], **changes}})
    again.load_state_dict(quantizer.state_dict())
    return again.train(quantizer.training)


def state(quantizer: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in quantizer.state_dict().items()}


def learned(quantizer: nn.Module) -> dict[str, Tensor]:
    """The state less the counters: a training step without inputs is a step all the same."""
    return {name: value for name, value in state(quantizer).items() if name.split(".")[-1] != "step"}


def train_until_refused(quantizer: lexel.Quantizer, z: Tensor) -> None:
    """One pass; on an accelerator, which training does not wait for, the next pass raises the error."""
    for _ in range(1 if z.device.type == "cpu" else 2):
        quantizer(z)


def assert_same(got: lexel.Quantized, expected: lexel.Quantized, **tolerance: Any) -> None:
    tolerance = tolerance or EXACTLY
    assert torch.equal(got.indices, expected.indices)
    for name in OUTPUTS:
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), **tolerance)
    assert got.terms.keys() == expected.terms.keys()
    for name, term in got.terms.items():
        torch.testing.assert_close(term, expected.terms[name], **tolerance)


class TestOutputs:
    def test_lookup_gives_quantized_bit_for_bit(self, quantizer: lexel.Quantizer, z: Tensor) -> None:
        output = quantizer.eval()(z)
        torch.testing.assert_close(quantizer.lookup(output.indices), output.quantized, **EXACTLY)
        for integer in (torch.int32, torch.uint8, torch.uint16, torch.uint32):
            if quantizer.num_embeddings <= torch.iinfo(integer).max:
                again = quantizer.lookup(output.indices.to(integer))
                torch.testing.assert_close(again, output.quantized, **EXACTLY)

    def test_shapes_dtypes_and_range(self, quantizer: lexel.Quantizer, z: Tensor, example: Example) -> None:
        output = quantizer(z)
        assert output.loss.shape == output.perplexity.shape == ()
        assert output.quantized.shape == z.shape
        assert output.quantized.is_contiguous()
        assert output.indices.dtype == torch.int64
        if not example.maps_only:
            assert output.indices.shape == (3, 4, 4, *quantizer.index_shape)
        output = quantizer.eval()(z)
        assert output.indices.min() >= 0
        quantizer.check_indices(output.indices)
        assert 1 <= output.perplexity <= min(quantizer.num_embeddings, output.indices.numel()) * (1 + 1e-5)
        assert quantizer.bits > 0

    def test_loss_is_finite_and_can_be_differentiated(self, quantizer: lexel.Quantizer, z: Tensor) -> None:
        output = quantizer(z.requires_grad_())
        output.loss.backward()
        assert output.loss.isfinite()

    @pytest.mark.parametrize("channel_dim", [1, -1])
    @pytest.mark.parametrize("positions", [(), (5,), (4, 3), (2, 3, 2)], ids=str)
    def test_any_rank_and_channel_position(
        self, quantizer: lexel.Quantizer, example: Example, positions: tuple[int, ...], channel_dim: int
    ) -> None:
        if example.maps_only:
            positions = (4, 4)
        rows = torch.randn(3, *positions, quantizer.embedding_dim)
        quantizer.eval()
        placed, expected = rebuilt(quantizer, channel_dim=channel_dim), rebuilt(quantizer, channel_dim=-1)
        output = placed(rows.movedim(-1, channel_dim))
        if not example.maps_only:
            assert output.indices.shape == (3, *positions, *quantizer.index_shape)
        assert torch.equal(output.indices, expected(rows).indices)
        assert torch.equal(output.quantized.movedim(channel_dim, -1), expected(rows).quantized)
        assert torch.equal(placed.lookup(output.indices), output.quantized)

    def test_empty_batch(self, quantizer: lexel.Quantizer, z: Tensor) -> None:
        before, empty = learned(quantizer), z[:0].requires_grad_()
        output = quantizer(empty)
        assert output.loss == 0
        assert output.perplexity == 1
        assert output.quantized.shape == empty.shape
        output.loss.backward()
        torch.testing.assert_close(learned(quantizer), before, **EXACTLY)
        assert quantizer.lookup(output.indices).shape == empty.shape

    def test_lookup_refuses_what_is_no_index(self, quantizer: lexel.Quantizer, z: Tensor) -> None:
        indices = quantizer.eval()(z).indices
        for wrong in (
            indices.tolist(),
            indices.cpu().numpy(),
            None,
            indices.float(),
            indices > 0,
            indices.to(torch.uint64),
        ):
            with pytest.raises(TypeError, match="lookup: indices must be a tensor of integers that fit int64, got"):
                quantizer.lookup(wrong)
        for value in (-2, -(2**63), 2**63 - 1, quantizer.num_embeddings):
            outside = indices.clone()
            outside.view(-1)[1] = value
            with pytest.raises(ValueError, match="lookup: indices must be in"):
                quantizer.lookup(outside)
        if quantizer.index_shape:
            for wrong in (indices[0, 0, 0, 0], torch.cat([indices, indices], -1)):
                with pytest.raises(ValueError, match=r"axis of .* codebooks|last axes of indices"):
                    quantizer.lookup(wrong)

    def test_shapes_on_the_meta_device(self, quantizer: lexel.Quantizer, z: Tensor) -> None:
        expected = quantizer.eval()(z)
        with torch.device("meta"):
            output = lexel.from_config(quantizer.config).eval()(z.to("meta"))
        assert output.quantized.shape == expected.quantized.shape
        assert output.indices.shape == expected.indices.shape


class TestMasks:
    def test_padding_passes_through_and_counts_in_nothing(
        self, quantizer: lexel.Quantizer, z: Tensor, example: Example
    ) -> None:
        mask = torch.rand(3, 4, 4) < 0.6
        filled = [torch.where(mask.unsqueeze(1), z, filling).requires_grad_() for filling in (0.0, torch.nan)]
        twin = copy.deepcopy(quantizer)
        torch.manual_seed(1)
        expected = twin(filled[0], mask)
        torch.manual_seed(1)
        output = quantizer(filled[1], mask)
        assert torch.equal(output.indices, expected.indices)
        torch.testing.assert_close(output.loss, expected.loss, **EXACTLY)
        torch.testing.assert_close(state(quantizer), state(twin), **EXACTLY)
        assert output.quantized.movedim(1, -1)[~mask].isnan().all()
        assert not output.quantized.movedim(1, -1)[mask].isnan().any()
        (output.loss + output.quantized.nansum()).backward()
        assert filled[1].grad is not None
        assert filled[1].grad.isfinite().all()
        if not example.maps_only:
            assert (output.indices[~mask] == -1).all()

    @pytest.mark.parametrize("example", ROWWISE.values(), ids=ROWWISE.keys(), indirect=True)
    def test_is_the_same_as_the_valid_rows_alone(self, quantizer: lexel.Quantizer, z: Tensor) -> None:
        mask = torch.rand(3, 4, 4) < 0.6
        quantizer.eval()
        output, alone = quantizer(z, mask), quantizer(z.movedim(1, -1)[mask])
        assert torch.equal(output.indices[mask], alone.indices)
        torch.testing.assert_close((output.loss, output.perplexity), (alone.loss, alone.perplexity))
        torch.testing.assert_close(output.terms, alone.terms)

    def test_nothing_valid(self, quantizer: lexel.Quantizer, z: Tensor) -> None:
        before = learned(quantizer)
        output = quantizer(z, torch.zeros(3, 4, 4, dtype=torch.bool))
        assert output.loss == 0
        assert (output.indices == -1).all()
        assert torch.equal(output.quantized, z)
        assert quantizer.lookup(output.indices).isfinite().all()
        torch.testing.assert_close(learned(quantizer), before, **EXACTLY)


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
    def test_inputs_of_another_dtype(self, quantizer: lexel.Quantizer, z: Tensor, dtype: torch.dtype) -> None:
        z, wide = z.to(dtype).requires_grad_(), torch.promote_types(dtype, torch.float32)
        output = quantizer(z)
        assert output.quantized.dtype == dtype
        assert output.loss.dtype == wide
        (output.loss + output.quantized.sum()).backward()
        assert z.grad is not None
        assert z.grad.dtype == dtype
        output, expected = quantizer.eval()(z), quantizer(z.to(wide))
        assert torch.equal(output.indices, expected.indices)
        assert torch.equal(output.quantized, expected.quantized.to(dtype))
        torch.testing.assert_close(quantizer.lookup(output.indices).to(dtype), output.quantized, **EXACTLY)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("training", [True, False])
    def test_autocast_changes_nothing(
        self, quantizer: lexel.Quantizer, z: Tensor, training: bool, dtype: torch.dtype, example: Example
    ) -> None:
        twin = copy.deepcopy(quantizer.train(training))
        torch.manual_seed(1)
        with torch.autocast(z.device.type, dtype):
            inside = quantizer(z)
        torch.manual_seed(1)
        assert_same(inside, twin(z))
        torch.testing.assert_close(state(quantizer), state(twin), **EXACTLY)
        quantizer.eval()
        with torch.autocast(z.device.type, dtype):
            output = quantizer(z)
            assert torch.equal(quantizer.lookup(output.indices).to(z.dtype), output.quantized)
            if example is ZOO["parallel, side by side"]:
                with pytest.raises(ValueError, match="codes do not approximate its inputs: they have 3 channels"):
                    quantizer.unquantized(z)
                return
            target = quantizer.unquantized(z)
        torch.testing.assert_close(target, quantizer.unquantized(z), **EXACTLY)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("size", [1e-6, 100.0])
    def test_statistics_outlast_a_cast(
        self, quantizer: lexel.Quantizer, z: Tensor, dtype: torch.dtype, size: float
    ) -> None:
        quantizer.to(dtype)
        for _ in range(3):
            output = quantizer(z * size)
        assert output.loss.isfinite()
        for name, value in quantizer.state_dict().items():
            assert value.isfinite().all(), name

    def test_inputs_of_eight_bits_are_refused(self, quantizer: lexel.Quantizer, z: Tensor) -> None:
        with pytest.raises(TypeError, match=r"of 16 bits at least, got torch.float8_e4m3fn"):
            quantizer(z.to(torch.float8_e4m3fn))

    @pytest.mark.parametrize("whole", [True, False])
    def test_bfloat16_modules(self, quantizer: lexel.Quantizer, z: Tensor, whole: bool) -> None:
        """The module cast as a whole, or its parameters alone, beside float32 buffers."""
        if whole:
            quantizer, z = quantizer.bfloat16(), z.bfloat16()
        for parameter in quantizer.parameters():
            parameter.data = parameter.data.bfloat16()
        z.requires_grad_()
        output = quantizer(z)
        (output.loss + output.quantized.sum()).backward()
        assert z.grad is not None
        assert z.grad.isfinite().all()
        output = quantizer.eval()(z)
        torch.testing.assert_close(quantizer.lookup(output.indices).to(z.dtype), output.quantized, **EXACTLY)

    @pytest.mark.parametrize("poison", [torch.nan, torch.inf])
    def test_poison_is_refused_in_eval_mode(self, quantizer: lexel.Quantizer, z: Tensor, poison: float) -> None:
        z[1, 0, 2, 3] = poison
        with pytest.raises(ValueError, match="NaN or Inf"):
            quantizer.eval()(z)

    @pytest.mark.parametrize("poison", [torch.nan, torch.inf])
    def test_poison_is_refused_before_any_state_changes(
        self, quantizer: lexel.Quantizer, z: Tensor, poison: float
    ) -> None:
        z[1, 0, 2, 3] = poison
        before = learned(quantizer)
        with pytest.raises(ValueError, match="NaN or Inf"):
            train_until_refused(quantizer, z)
        torch.testing.assert_close(learned(quantizer), before, **EXACTLY)


def test_gradients_reach_what_they_should_and_nothing_else(
    quantizer: lexel.Quantizer, z: Tensor, example: Example
) -> None:
    output = quantizer(z.requires_grad_())
    reachable = {"inputs": z, **dict(quantizer.named_parameters())}
    parts = {"task": (output.quantized * torch.randn_like(z)).sum(), **output.terms}
    assert parts.keys() == example.flow.keys()
    for part, value in parts.items():
        gradients = (
            torch.autograd.grad(value, list(reachable.values()), retain_graph=True, materialize_grads=True)
            if value.requires_grad
            else [torch.zeros(())] * len(reachable)
        )
        reached = {name for name, gradient in zip(reachable, gradients, strict=True) if gradient.any()}
        assert reached == example.flow[part], part


@pytest.mark.parametrize("name", [name for name, each in ROWWISE.items() if not each.noisy])
def test_what_it_approximates_is_what_its_gradient_is_of(name: str) -> None:
    """Straight through, in eval mode, means that `quantized` has the gradient of `unquantized`."""
    quantizer = ZOO[name].make()
    if quantizer.index_shape and quantizer.leaves_remainder:
        pytest.skip("each stage of a residual adds a gradient of its own")
    z = torch.randn(3, quantizer.embedding_dim, 4, 4)
    quantizer(z)  # what is found once is found
    quantizer.eval()
    towards = torch.randn_like(quantizer(z.requires_grad_()).quantized)
    gradients = [
        torch.autograd.grad((each * towards).sum(), z, allow_unused=True, materialize_grads=True)[0]
        for each in (quantizer(z).quantized, quantizer.unquantized(z))
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


class TestState:
    def test_eval_changes_none(self, quantizer: lexel.Quantizer, z: Tensor) -> None:
        before = state(quantizer.eval())
        quantizer(z)
        quantizer.lookup(quantizer(z).indices)
        torch.testing.assert_close(state(quantizer), before, **EXACTLY)

    def test_config_and_state_dict_make_it_again(self, quantizer: lexel.Quantizer, z: Tensor) -> None:
        again = rebuilt(quantizer.eval())
        assert again.config == quantizer.config
        assert_same(again(z), quantizer(z))

    def test_saving_without_pickle(self, quantizer: lexel.Quantizer, z: Tensor, tmp_path: Path) -> None:
        safetensors.torch.save_file(quantizer.state_dict(), tmp_path / "weights.safetensors")
        again = lexel.from_config(quantizer.config)
        again.load_state_dict(safetensors.torch.load_file(tmp_path / "weights.safetensors"))
        assert_same(again.eval()(z), quantizer.eval()(z))
        buffer = io.BytesIO()
        torch.save(quantizer.state_dict(), buffer)
        buffer.seek(0)
        again.load_state_dict(torch.load(buffer, weights_only=True))

    def test_copies_go_their_own_way(self, quantizer: lexel.Quantizer, z: Tensor) -> None:
        twin, before = copy.deepcopy(quantizer), state(quantizer)
        assert_same(twin.eval()(z), quantizer.eval()(z))
        twin.train()(z)
        for parameter in twin.parameters():
            parameter.data.add_(1)
        torch.testing.assert_close(state(quantizer), before, **EXACTLY)

    def test_a_seed_decides_everything(self, example: Example, z: Tensor) -> None:
        results = []
        for _ in range(2):
            torch.manual_seed(3)
            quantizer = example.make()
            results.append(([quantizer(z) for _ in range(3)], state(quantizer)))
        for first, second in zip(results[0][0], results[1][0], strict=True):
            assert_same(first, second)
        torch.testing.assert_close(results[0][1], results[1][1], **EXACTLY)

    def test_built_on_the_meta_device(self, quantizer: lexel.Quantizer, z: Tensor) -> None:
        with torch.device("meta"):
            empty = lexel.from_config(quantizer.config)
        assert all(value.is_meta for value in empty.state_dict().values())
        filled = empty.to_empty(device=z.device).eval()
        filled.load_state_dict(quantizer.state_dict())
        assert_same(filled(z), quantizer.eval()(z))

    def test_reset_after_the_meta_device(self, quantizer: lexel.Quantizer, device: str) -> None:
        with torch.device("meta"):
            empty = lexel.from_config(quantizer.config)
        filled = empty.to_empty(device=device)
        for value in filled.state_dict().values():
            value.fill_(77)
        torch.manual_seed(5)
        filled.reset_parameters()
        torch.manual_seed(5)
        torch.testing.assert_close(state(filled), state(lexel.from_config(quantizer.config)), **EXACTLY)

    @pytest.mark.parametrize("example", OWN.values(), ids=OWN.keys(), indirect=True)
    def test_materialised_module_by_module(self, quantizer: lexel.Quantizer, z: Tensor) -> None:
        """As Lightning and FSDP do: each module that holds tensors is emptied, and then reset on its own.

        Modules of others may have no reset_parameters.
        """
        with torch.device("meta"):
            empty = lexel.from_config(quantizer.config)
        for module in empty.modules():
            own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            if own:
                module.to_empty(device=z.device, recurse=False)
                for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                    tensor.data.fill_(77)
                module.reset_parameters()
        for _ in range(2):
            output = empty(z)
        assert output.quantized.isfinite().all()
        for name, tensor in empty.state_dict().items():
            assert (tensor.float().abs() < 70).all(), name

    def test_frozen_nothing_moves_in_training(self, quantizer: lexel.Quantizer, z: Tensor) -> None:
        trainable = [parameter.requires_grad for parameter in quantizer.parameters()]
        quantizer.freeze().eval().train()
        before = learned(quantizer)
        for _ in range(2):
            output = quantizer(z.requires_grad_())
        (output.loss + output.quantized.sum()).backward()
        torch.testing.assert_close(learned(quantizer), before, **EXACTLY)
        assert z.grad is not None
        assert all(parameter.grad is None for parameter in quantizer.parameters())
        assert [parameter.requires_grad for parameter in quantizer.unfreeze().parameters()] == trainable

    def test_frozen_stays_so_through_copies_casts_and_loading(self, quantizer: lexel.Quantizer, z: Tensor) -> None:
        trainable = [parameter.requires_grad for parameter in quantizer.parameters()]
        values = state(copy.deepcopy(quantizer))
        twin = copy.deepcopy(quantizer.freeze())
        quantizer.load_state_dict(values, assign=True)
        for frozen in (quantizer.double().float(), twin):
            before = learned(frozen)
            frozen(z)
            torch.testing.assert_close(learned(frozen), before, **EXACTLY)
            assert not any(parameter.requires_grad for parameter in frozen.parameters())
            assert [parameter.requires_grad for parameter in frozen.unfreeze().parameters()] == trainable

    def test_a_checkpointed_pass_moves_state_once_and_has_the_same_gradient(
        self, quantizer: lexel.Quantizer, z: Tensor
    ) -> None:
        twin, found = copy.deepcopy(quantizer), []
        batches, upstream = [torch.randn_like(z) for _ in range(2)], torch.randn_like(z)
        for module, checkpointed in ((quantizer, False), (twin, True)):
            torch.manual_seed(1)
            inputs, total = [batch.clone().requires_grad_() for batch in batches], torch.zeros(())
            for batch in inputs:  # two passes before one backward

                def segment(batch: Tensor, module: lexel.Quantizer = module) -> tuple[Tensor, Tensor]:
                    output = module(batch.tanh() * 2)
                    return output.loss, output.quantized

                run = checkpoint(segment, batch, use_reentrant=False) if checkpointed else segment(batch)
                total = total + run[0] + (run[1] * upstream).sum()
            found.append(torch.autograd.grad(total, [*inputs, *module.parameters()], materialize_grads=True))
        torch.testing.assert_close(*found, **EXACTLY)
        torch.testing.assert_close(state(quantizer), state(twin), **EXACTLY)


class TestTransforms:
    def test_functional_call(self, quantizer: lexel.Quantizer, z: Tensor) -> None:
        twin, before = copy.deepcopy(quantizer), state(quantizer)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.mul_(1.5)
        values = {name: value.clone() for name, value in twin.state_dict().items()}
        torch.manual_seed(1)
        got = torch.func.functional_call(quantizer, values, (z,))
        torch.manual_seed(1)
        # Tensors in other places of the memory may be added in another order.
        assert_same(got, twin(z), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(state(quantizer), before, **EXACTLY)

    @pytest.mark.parametrize("training", [True, False])
    def test_compiled_whole(self, quantizer: lexel.Quantizer, z: Tensor, training: bool, example: Example) -> None:
        if training and z.is_cuda and example is ZOO["vector, Gumbel"]:
            pytest.skip("on a GPU torch.compile draws other random numbers within a checkpointed segment")
        # Eval mode is traced down to the same operations by the export below.
        compare_compiled(quantizer.train(training), z, "aot_eager" if training else "eager")

    @pytest.mark.usefixtures("_operators_read_once")
    def test_exported_to_torch_and_to_onnx(self, quantizer: lexel.Quantizer, z: Tensor) -> None:
        output = quantizer.eval()(z)
        others = output.indices.flip(0)
        program = torch.export.export(EncodeAndLookup(quantizer), (z, others))
        for indices, quantized, looked_up in (program.module()(z, others), run_onnx(program, z, others)):
            assert torch.equal(indices, output.indices)
            torch.testing.assert_close(quantized, output.quantized)
            torch.testing.assert_close(looked_up, quantizer.lookup(others))


def test_exported_programs_return_quantized_too() -> None:
    quantizer, z = lexel.ResidualQuantizer([lexel.FiniteScalarQuantizer([5, 4])]).eval(), torch.randn(3, 2, 4)
    output = torch.export.export(quantizer, (z,)).module()(z)
    assert isinstance(output, lexel.Quantized)
    assert_same(output, quantizer(z))


def test_exported_to_onnx_as_it_is() -> None:
    quantizer, z = lexel.presets.default(16, 4).eval(), torch.randn(2, 4, 3)
    output = quantizer(z)
    loss, quantized, perplexity, indices, *_ = run_onnx(torch.export.export(quantizer, (z,)), z)
    assert torch.equal(indices, output.indices)
    torch.testing.assert_close((loss, quantized, perplexity), (output.loss, output.quantized, output.perplexity))


@pytest.mark.parametrize("name", ["vector, EMA", "finite scalar, 2^62"])
def test_compiled_by_inductor(name: str) -> None:
    torch.manual_seed(0)
    quantizer = ZOO[name].make()
    compare_compiled(quantizer, torch.randn(3, quantizer.embedding_dim, 4, 4), "inductor")


def compare_compiled(quantizer: lexel.Quantizer, z: Tensor, backend: str) -> None:
    torch.compiler.reset()
    twin, inputs, others = copy.deepcopy(quantizer), z.clone().requires_grad_(), z.clone().requires_grad_()
    upstream = torch.randn_like(z)
    torch.manual_seed(1)
    got = torch.compile(quantizer, fullgraph=True, backend=backend)(inputs)
    torch.manual_seed(1)
    expected = twin(others)
    assert_same(got, expected, rtol=1e-4, atol=1e-5)
    gradients = [
        torch.autograd.grad(
            output.loss + (output.quantized * upstream).sum(), [leaf, *module.parameters()], materialize_grads=True
        )
        for output, leaf, module in ((got, inputs, quantizer), (expected, others, twin))
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state(quantizer), state(twin))


class EncodeAndLookup(nn.Module):
    """What a deployed encoder computes, and what a deployed decoder starts with."""

    def __init__(self, quantizer: lexel.Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, z: Tensor, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = self.quantizer(z)
        return output.indices, output.quantized, self.quantizer.lookup(indices)


def run_onnx(program: torch.export.ExportedProgram, *inputs: Tensor) -> list[Tensor]:
    """Outputs of the program as onnxruntime computes them."""
    file = io.BytesIO()
    torch.onnx.export(program, dynamo=True, optimize=False, verbose=False).save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    feed = {node.name: value.cpu().numpy() for node, value in zip(session.get_inputs(), inputs, strict=True)}
    return [torch.from_numpy(array) for array in session.run(None, feed)]


@pytest.fixture(scope="module")
def photograph(device: str) -> Tensor:
    """A photograph as a map of 4×4 patches, `(48, 128, 128)`."""
    from skimage import data

    pixels = torch.from_numpy(data.astronaut()).movedim(-1, 0) / 255
    return F.pixel_unshuffle(pixels - pixels.mean(), 4)


def test_learns_from_photographs(quantizer: lexel.Quantizer, photograph: Tensor) -> None:
    encoder = nn.Conv2d(48, quantizer.embedding_dim, 1)
    decoder = nn.Conv2d(quantizer.embedding_dim, 48, 1)
    parameters = [*encoder.parameters(), *decoder.parameters(), *quantizer.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    errors = []
    for _ in range(60):
        corners = torch.randint(0, 124, (8, 2)).tolist()
        maps = torch.stack([photograph[:, top : top + 4, left : left + 4] for top, left in corners])
        output = quantizer(encoder(maps))
        error = F.mse_loss(decoder(output.quantized), maps) / photograph.var()
        optimizer.zero_grad()
        (error + output.loss).backward()
        optimizer.step()
        errors.append(error.detach())
    before, after = torch.stack(errors[:10]).mean(), torch.stack(errors[-10:]).mean()
    assert after < 0.5 * before, f"{before:.3f} to {after:.3f}"
