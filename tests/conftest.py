"""The devices that tests run on, and real photographs, small enough to be quick."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import skimage
import torch
from PIL import Image

from tests.commands import train
from tests.devices import tensors_on

# Without a GPU, Triton's kernels run in its interpreter; it asks when the kernels are imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"

# What computes where its inputs lie. Each of these tests runs on every device that there is: the same test, for which
# new tensors lie on that device.
ON_EVERY_DEVICE = (
    *("_core/test_collectives.py", "_core/test_fused_loss.py", "_core/test_recomputation.py", "quantizers"),
    *("nearest/test_contract.py", "nearest/test_exact.py"),
    "training/test_devices.py",
    *(f"test_{part}.py" for part in ("codebook", "estimators", "kmeans", "metrics", "regularisers", "upkeep")),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        action="append",
        help="a device to run the tests of what computes there on, as cuda; may be repeated; by default the CPU, and "
        "the accelerator if there is one",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    path = metafunc.definition.path.relative_to(Path(__file__).parent)
    if any(path.is_relative_to(each) for each in ON_EVERY_DEVICE) and (names := devices(metafunc.config)) != ["cpu"]:
        metafunc.parametrize("device", names, indirect=True, scope="module")


def pytest_collection_finish() -> None:
    """Modules and tests stay: the garbage collector would look through them for up to a tenth of the time."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or what is left at the end looks like a leak


def devices(config: pytest.Config) -> list[str]:
    """The devices to run tests on."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    names = config.getoption("--device") or ["cpu", *([accelerator.type] if accelerator else [])]
    for name in names:
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise pytest.UsageError(f"--device {name} cannot be used here: {error}") from error
    return names


@pytest.fixture(autouse=True, scope="module")
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The device on which the tensors of a test lie, unless it says otherwise."""
    name = getattr(request, "param", "cpu")
    with tensors_on(name):
        yield name


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs at different depths, in different formats and sizes, none of which 4 divides."""
    folder = tmp_path_factory.mktemp("photographs")
    for source, target, size in (
        ("astronaut.png", "people/astronaut.png", (97, 90)),
        ("chelsea.png", "animals/cats/chelsea.jpg", (113, 75)),
        ("coffee.png", "coffee.webp", (75, 50)),
        ("camera.png", "people/camera.bmp", (66, 66)),
    ):
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(PHOTOGRAPHS / source) as image:
            image.resize(size).save(folder / target)
    return folder


@pytest.fixture(scope="session")
def run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tiny model; tests that change it take a copy."""
    out = tmp_path_factory.mktemp("runs") / "first"
    assert train(photographs, out) == 0
    return out


@pytest.fixture(scope="session")
def _operators_read_once() -> Iterator[None]:
    """For exports to ONNX: each parses the sources of all 500 operators and reads their signatures anew."""
    import onnxscript
    from torch.onnx._internal.exporter import _schemas

    with pytest.MonkeyPatch.context() as patch:
        parse = onnxscript.TracedOnnxFunction.function_ir.fget
        patch.setattr(onnxscript.TracedOnnxFunction, "function_ir", property(functools.cache(parse)))
        patch.setattr(_schemas, "op_signature_from_function", functools.cache(_schemas.op_signature_from_function))
        yield


@pytest.fixture(scope="session")
def _traced_once(_operators_read_once: None) -> Iterator[None]:
    """The same way through the same model is traced once; every export compares it with the model all the same."""
    import json

    from lexel.export.graphs import Way
    from lexel.tokens import fingerprint

    trace, known = Way.to_onnx, {}

    def to_onnx(way):
        model = getattr(way.module, "model", None)
        if model is None:  # a part of one
            return trace(way)
        key = type(way.module), way.inputs, way.output, json.dumps(model.config, sort_keys=True), fingerprint(model)
        if key not in known:
            known[key] = trace(way)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Way, "to_onnx", to_onnx)
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny tensors gain nothing from threads, and lose much where other work wants the same cores."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
