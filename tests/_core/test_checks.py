"""What the settings of parts, and the arguments of quantizers, models and priors may hold."""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any, List, Sequence, Tuple, get_args, get_type_hints  # noqa: UP035

import numpy as np
import pytest
import torch
from torch import nn

import lexel
import lexel.fit
from lexel._core.checks import check_number, check_type, checked
from lexel._core.config import registry
from lexel.models import VQVAE, VQVAE2, VectorAutoencoder
from lexel.priors import kinds
from tests.quantizers.zoo import ZOO


def fields() -> list[tuple[type, str, Any]]:
    """Each field of all settings of Lexel's own, with its type."""
    own = [cls for cls in registry().values() if dataclasses.is_dataclass(cls) and cls.__module__.startswith("lexel.")]
    return [(cls, field.name, get_type_hints(cls)[field.name]) for cls in own for field in dataclasses.fields(cls)]


@pytest.mark.parametrize(("cls", "name", "hint"), fields(), ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_value_of_another_type_is_named(cls: type, name: str, hint: Any) -> None:
    for value in ("nonsense", [], object()):
        with pytest.raises((TypeError, ValueError), match=f"{cls.__name__}: {name} must be .*got"):
            cls(**{name: value})


NUMBERS = [field for field in fields() if float in (field[2], *get_args(field[2]))]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("inf")], ids=str)
@pytest.mark.parametrize(("cls", "name", "hint"), NUMBERS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_number_that_is_not_finite_is_named(cls: type, name: str, hint: Any, value: float) -> None:
    with pytest.raises(ValueError, match=f"{cls.__name__}: {name} must be finite.*got"):
        cls(**{name: value})


@pytest.mark.parametrize(
    ("bounds", "fitting", "wrong", "expected"),
    [
        ({}, [-1e300, 0, 10**400], [math.nan, math.inf, -math.inf], "finite"),
        ({"least": 0}, [0, 1e300], [-1e-300, math.inf, math.nan], "finite and not negative"),
        ({"above": 0}, [1e-300, 7], [0, -1, math.inf, math.nan], "finite and positive"),
        ({"least": 0, "most": 1}, [0, 0.5, 1], [-0.1, 1.1, math.nan], r"in \[0, 1\]"),
        ({"least": 0, "below": 1}, [0, 0.9], [-0.1, 1, math.inf, math.nan], r"in \[0, 1\)"),
        ({"above": 0, "most": 1}, [0.1, 1], [0, 1.1, math.nan], r"in \(0, 1\]"),
        ({"above": 0, "below": 1}, [0.1, 0.9], [0, 1, math.nan], r"in \(0, 1\)"),
    ],
    ids=str,
)
def test_numbers_have_bounds(bounds: dict[str, int], fitting: list[float], wrong: list[float], expected: str) -> None:
    for value in fitting:
        assert check_number("A", "b", value, **bounds) == value
    for value in wrong:
        with pytest.raises(ValueError, match=f"^A: b must be {expected}, got {value}$"):
            check_number("A", "b", value, **bounds)


def built() -> list[Any]:
    """One quantizer, model and prior of each class."""
    quantizers = [example.make() for example in ZOO.values()]
    table = lexel.VectorQuantizer(4, 2)
    models = [VQVAE(table, hidden_channels=2), VectorAutoencoder(table), VQVAE2([table, lexel.VectorQuantizer(4, 2)])]
    priors = [kind([(2, 2)], [4], layers=1, width=8, heads=2) for kind in kinds().values()]
    return [*{type(each): each for each in (*quantizers, *models, *priors)}.values()]


@pytest.mark.parametrize("example", built(), ids=lambda example: type(example).__name__)
def test_an_argument_of_another_type_is_named(example: Any) -> None:
    build = type(example)
    names = [*inspect.signature(build).parameters]
    arguments = {name: lexel.from_config(lexel.to_config(getattr(example, name))) for name in names}
    build(**arguments)
    for name in get_type_hints(build.__init__).keys() & {*names}:  # a stranger's may have none
        for value in (object(), {}):
            with pytest.raises((TypeError, ValueError), match=f"^{build.__name__}: {name}.* must .*got"):
                build(**arguments | {name: value})


PRESETS = {name: make for name, make in registry().items() if name.startswith("lexel.presets.")}


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_argument_of_another_type_is_named(name: str) -> None:
    make = PRESETS[name]
    make()
    for argument in inspect.signature(make).parameters:
        with pytest.raises(TypeError, match=f"^{make.__name__}: {argument} must be .*, got"):
            make(**{argument: object()})


def test_a_constructor_of_ones_own_is_checked_as_well() -> None:
    class _Own(lexel.NormalisedQuantizer):
        def __init__(self, quantizer: lexel.Quantizer, *, sizes: tuple[int, ...] = (), **settings: Any) -> None:
            super().__init__(quantizer, **settings)
            self.sizes = sizes

    table = lexel.VectorQuantizer(4, 2)
    assert _Own(table, sizes=(3,), std=np.float32(0.5)).std == 0.5
    with pytest.raises(TypeError, match=r"^_Own: std must be a number, got '0\.5'"):
        _Own(table, std="0.5")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'quantizer'"):
        _Own()  # type: ignore[call-arg]


def test_numbers_in_a_sequence_are_taken_and_written_down() -> None:
    levels = lexel.to_config(lexel.FiniteScalarQuantizer(np.array([8, 5])))["init_args"]["levels"]
    assert levels == [8, 5]
    assert {type(level) for level in levels} == {int}
    with pytest.raises(TypeError, match=r"FiniteScalarQuantizer: levels\[1\] must be an int, got 2\.5"):
        lexel.FiniteScalarQuantizer([8, 2.5])  # type: ignore[list-item]


@pytest.mark.parametrize("make", [np.float32, np.float64, float])
def test_numbers_of_any_kind_are_taken_and_written_down(make: Any) -> None:
    settings = lexel.EMA(decay=make(0.5), warmup=2)
    assert lexel.from_config(lexel.to_config(settings)) == lexel.EMA(decay=0.5, warmup=2)
    assert lexel.to_config(lexel.KMeansStart(iterations=np.int64(3))) == lexel.to_config(lexel.KMeansStart(3))


def test_a_part_of_ones_own_is_checked_as_well() -> None:
    @dataclasses.dataclass(frozen=True)
    class _Own(lexel.upkeep.Upkeep):
        every: int = 1

        def build(self, num_embeddings: int, embedding_dim: int) -> Any: ...

    with pytest.raises(TypeError, match=r"_Own: every must be an int, got 1\.5 \(float\)"):
        _Own(every=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("hint", [List, Sequence, Tuple])  # noqa: UP006
def test_a_sequence_of_anything_is_taken(hint: Any) -> None:
    value = (1, "2")
    assert check_type("grid", "sides", value, hint) is value


@pytest.mark.parametrize("value", [np.zeros(3), torch.zeros(3), np.array(3), torch.tensor(3), []], ids=repr)
def test_arrays_are_no_words_and_no_sequences_without_an_axis(value: Any) -> None:
    with pytest.raises(ValueError, match="Revival: by must be 'usage' or 'error', got"):
        lexel.Revival(by=value)
    if getattr(value, "ndim", 1) == 0:
        with pytest.raises(TypeError, match="FiniteScalarQuantizer: levels must be a sequence of int, got"):
            lexel.FiniteScalarQuantizer(value)


def test_a_list_of_modules_stays_a_module() -> None:
    class _Own(lexel.NormalisedQuantizer):
        def __init__(self, others: Sequence[nn.Module]) -> None:
            super().__init__(lexel.VectorQuantizer(4, 2))
            self.others = others

    others = nn.ModuleList([nn.Linear(2, 2)])
    assert _Own(others).others is others  # type: ignore[arg-type]
    assert "others.0.weight" in _Own(others).state_dict()  # type: ignore[arg-type]


def test_a_default_of_another_type_is_taken_and_comes_back() -> None:
    class Loose(lexel.NormalisedQuantizer):
        def __init__(self, quantizer: lexel.Quantizer, depth: int = None) -> None:  # type: ignore[assignment]  # noqa: RUF013
            super().__init__(quantizer)
            self.depth = depth

    config = lexel.to_config(Loose(lexel.VectorQuantizer(4, 2)))
    assert lexel.from_config(config).depth is None

    @dataclasses.dataclass(frozen=True)
    class LoosePart(lexel.upkeep.Upkeep):
        every: int = None  # type: ignore[assignment]

        def build(self, num_embeddings: int, embedding_dim: int) -> Any: ...

    assert LoosePart(every=None).every is None  # type: ignore[arg-type]


def test_truth_values_of_numpy_are_taken() -> None:
    @checked
    def grid(side: bool) -> bool:
        return side

    assert grid(np.bool_(True)) is True
    with pytest.raises(TypeError, match="side must be True or False, got 1"):
        grid(1)  # type: ignore[arg-type]


def test_devices_by_number_are_taken() -> None:
    with pytest.raises(Exception, match=r"(?i)cuda|accelerator|device") as error:
        lexel.kmeans(torch.randn(4, 2), 2, device=99)
    assert "must be" not in str(error.value)


@pytest.mark.parametrize("value", [np.zeros((2, 2)), [[0.0, 1.0]], 3, "nearest"], ids=repr)
def test_a_start_of_another_kind_is_named(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"kmeans: init must be .*got"):
        lexel.kmeans(torch.randn(4, 2), 2, init=value)
