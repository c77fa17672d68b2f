"""The two ways of a model, as modules to trace, and as ONNX."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from lexel._core.errors import reason_of
from lexel.data.kind import kind_of
from lexel.models import Autoencoder
from lexel.nearest._dispatch import operator_kept

try:
    import onnx
    from onnxscript.ir.passes.common import ClearMetadataAndDocStringPass

    from lexel.export.search import TRANSLATIONS
except ImportError as error:
    raise ImportError("lexel.export needs onnx and onnxscript: pip install 'lexel[export]'") from error

__all__ = ["Port", "Way", "ways"]

OPSET = 18
BATCH = 2  # of the examples to trace with; a size of 1 would be taken for a constant
DYNAMIC, AUTO = torch.export.Dim.DYNAMIC, torch.export.Dim.AUTO


@dataclass(frozen=True)
class Port:
    """An input or an output of a graph.

    Attributes:
        name: of the tensor in the file.
        dtype: of its numbers.
        shape: its axes: a number, or the name of one that may have any size.
        meaning: what it holds, and in which range.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    meaning: str


@dataclass(frozen=True)
class Way:
    """One way through a model, ready to be traced.

    Attributes:
        module: computes it.
        arguments: to trace with.
        sizes: the dynamic axes of each argument, as `torch.export` takes them.
        inputs: of the graph.
        output: of the graph.
    """

    module: nn.Module
    arguments: tuple[Any, ...]
    sizes: tuple[Any, ...]
    inputs: tuple[Port, ...]
    output: Port

    def trials(self) -> Iterator[Tensor]:
        """Yield batches of examples to compare on: sizes that the model must pad and others, smooth and rough."""
        draws = torch.Generator().manual_seed(0)
        first = self.arguments[0]
        size, free = first.shape[2:], [axis in self.sizes[0] for axis in range(2, first.ndim)]
        for stretch in (0, 3, 10) if any(free) else (0,):
            own = [side + stretch * (place + 1) if free[place] else side for place, side in enumerate(size)]
            rough = torch.rand(BATCH, first.shape[1], *own, generator=draws)
            smooth = nn.functional.avg_pool2d(rough, 9, 1, 4) if size else 10 * (rough - 0.5)
            yield torch.cat([rough, smooth])

    def to_onnx(self) -> onnx.ModelProto:
        """Trace it.

        Raises:
            ValueError: something in the model cannot be traced, or has no translation into ONNX.
        """
        try:
            with _quiet(), operator_kept(), torch.no_grad():
                program = torch.export.export(self.module, self.arguments, dynamic_shapes=self.sizes, strict=False)
                names = [port.name for port in self.inputs]
                found = torch.onnx.export(
                    program,
                    dynamo=True,
                    verbose=False,
                    opset_version=OPSET,
                    custom_translation_table=TRANSLATIONS,
                    input_names=names,
                    output_names=[self.output.name],
                )
                assert found is not None
                ClearMetadataAndDocStringPass()(found.model)  # the paths of Lexel's files on this machine
                proto: onnx.ModelProto = found.model_proto
        except Exception as error:  # of many kinds, and of many lines
            raise ValueError(f"cannot be exported to ONNX: {reason_of(error)}") from error
        for value, port in zip((*proto.graph.input, *proto.graph.output), (*self.inputs, self.output), strict=True):
            del value.type.tensor_type.shape.dim[:]
            for size in port.shape:
                dim = value.type.tensor_type.shape.dim.add()
                if isinstance(size, str):
                    dim.dim_param = size
                else:
                    dim.dim_value = size
        return proto


def ways(model: Autoencoder) -> tuple[Way, Way]:
    """Return how a model encodes and how it decodes, as a graph will do it.

    Args:
        model: in eval mode, on the CPU.

    Raises:
        ValueError: nothing is known of how to export its kind of data.
    """
    kind = kind_of(model).name
    if kind not in WAYS:
        raise ValueError(f"models of {kind} cannot be exported, only those of {' and '.join(WAYS)}")
    encoder, decoder = WAYS[kind](model)
    return encoder, decoder


def _of_images(model: Any) -> tuple[Way, Way]:
    side, fixed = max(model.factors), model.image_size
    height, width = fixed or (3 * side + 1 - (side == 1), 4 * side + 1 - (side == 1))
    axes: dict[int, Any] = {0: DYNAMIC} if fixed else {0: DYNAMIC, 2: DYNAMIC, 3: DYNAMIC}
    shape = ("batch", model.image_channels, *(fixed or ("height", "width")))
    images = Port("images", "float32", shape, "pixels in [0, 1]")
    levels = model.levels((height, width))
    if model.positionwise:
        grid: tuple[int, ...] = levels[0]
        names: tuple[int | str, ...] = levels[0] if fixed else ("rows", "columns")
        places: dict[int, Any] = {} if fixed else {1: DYNAMIC, 2: DYNAMIC}
    else:
        grid = (sum(rows * columns for rows, columns in levels),)
        names, places = (grid, {}) if fixed else (("positions",), {1: AUTO})
    indices, numbers = _indices(model, names, grid)
    sizes = tuple(Port(name, "int64", (), "of the images that were encoded, in pixels") for name in ("height", "width"))
    pictures = torch.zeros(BATCH, model.image_channels, height, width)
    encoder = Way(_Method(model, model.encode), (pictures,), (axes,), (images,), indices)
    if fixed:
        return encoder, Way(_Method(model, model.decode), (numbers,), ({0: DYNAMIC},), (indices,), images)
    out = Port("images", "float32", ("batch", model.image_channels, "height", "width"), "pixels in [0, 1]")
    decoder = Way(
        _ImageDecoder(model),
        (numbers, height, width),
        ({0: DYNAMIC, **places}, DYNAMIC, DYNAMIC),
        (indices, *sizes),
        out,
    )
    return encoder, decoder


def _of_vectors(model: Any) -> tuple[Way, Way]:
    vectors = Port(
        "vectors", "float32", ("batch", model.dim), "of any length but zero" if model.unit else "any numbers"
    )
    indices, numbers = _indices(model, (), ())
    rows = {0: DYNAMIC}
    return (
        Way(_Method(model, model.encode), (torch.ones(BATCH, model.dim),), (rows,), (vectors,), indices),
        Way(_Method(model, model.decode), (numbers,), (rows,), (indices,), vectors),
    )


WAYS = {"images": _of_images, "vectors": _of_vectors}


def _indices(model: Autoencoder, names: Sequence[int | str], grid: Sequence[int]) -> tuple[Port, Tensor]:
    own = model.quantizers[0].index_shape
    sizes = model.codebook_sizes
    most = f"in [0, {sizes[0]})" if len(set(sizes)) == 1 else f"the last axis in [0, K) for K of {list(sizes)}"
    port = Port("indices", "int64", ("batch", *names, *own), most)
    return port, torch.zeros(BATCH, *grid, *own, dtype=torch.int64)


class _Method(nn.Module):
    """A method of a model as a module, whose parameters are the model's."""

    def __init__(self, model: Autoencoder, method: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.method = model, method

    @override
    def forward(self, argument: Tensor) -> Tensor:
        return self.method(argument)


class _ImageDecoder(nn.Module):
    """Indices to images of a size. No check compares the two: a traced one would fix them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @override
    def forward(self, indices: Tensor, height: int, width: int) -> Tensor:
        model, maps, start = self.model, [], 0
        if len(model.quantizers) == 1:
            maps = [model.quantizers[0].lookup(indices)]
        else:
            for quantizer, own in zip(model.quantizers, model.maps((height, width)), strict=True):
                length = sum(rows * columns for rows, columns in quantizer.grids(own))
                part = indices.narrow(1, start, length)
                start = start + length
                if quantizer.positionwise:
                    part = part.reshape(part.shape[0], *own, *part.shape[2:])
                maps.append(quantizer.lookup(part))
        images: Tensor = model.synthesize(maps).clamp(0, 1)
        return images[..., :height, :width]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says of its own parts from standard error."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
