"""Checks of arguments, with errors that name the owner, the argument, what came and what was expected."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import operator
import types
from abc import ABCMeta
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from torch import nn

__all__ = ["argument_types", "check_fields", "check_integer", "check_number", "check_type", "checked"]

Function = TypeVar("Function", bound=Callable[..., Any])

UNIONS, SEQUENCES = (Union, types.UnionType), (Sequence, Iterable, tuple, list)
NAMES = {float: "a number", int: "an int", bool: "True or False", str: "a text"}
SEVERAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_number(
    owner: str,
    argument: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> float:
    """Return a finite number of any kind, numpy's too, that lies within its bounds; an int stays one.

    Raises:
        TypeError: it is none.
        ValueError: it is not finite or out of its bounds.

    Example:
        >>> check_number("EMA", "decay", "a")
        Traceback (most recent call last):
        TypeError: EMA: decay must be a number, got 'a'
        >>> check_number("EMA", "decay", 1.0, least=0, below=1)
        Traceback (most recent call last):
        ValueError: EMA: decay must be in [0, 1), got 1.0
        >>> check_number("EMA", "epsilon", float("inf"), above=0)
        Traceback (most recent call last):
        ValueError: EMA: epsilon must be finite and positive, got inf
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{owner}: {argument} must be a number, got {value!r}")
    number = value if isinstance(value, (int, float)) else float(value)
    low, high = (least if above is None else above), (most if below is None else below)
    fits = abs(number) < math.inf and (low is None or number >= low) and (high is None or number <= high)
    if not fits or number in (above, below):
        if low is not None and high is not None:
            expected = f"in {'[' if above is None else '('}{low}, {high}{']' if below is None else ')'}"
        else:
            expected = "finite and not negative" if least == 0 else "finite and positive" if above == 0 else "finite"
        raise ValueError(f"{owner}: {argument} must be {expected}, got {number}")
    return number


def check_integer(owner: str, argument: str, value: Any, *, least: int | None = None) -> int:
    """Return an integer of any kind, numpy's too, as an int.

    Raises:
        TypeError: it is none.
        ValueError: it is below `least`.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{owner}: {argument} must be an int, got {value!r} ({type(value).__name__})") from None
    if least is not None and number < least:
        raise ValueError(f"{owner}: {argument} must be at least {least}, got {number}")
    return number


def check_type(owner: str, argument: str, value: Any, hint: Any) -> Any:
    """Return a value of the type that an annotation says, or of one of several.

    A type is a number, an int, a truth value, a text, some words, a class of Lexel's, or a sequence of these. Others
    are not checked: strangers may write `Path` and take a text.

    Raises:
        TypeError: it is of another type.
        ValueError: it is none of the words.

    Example:
        >>> check_type("Revival", "by", "count", Literal["usage", "error"])
        Traceback (most recent call last):
        ValueError: Revival: by must be 'usage' or 'error', got 'count'
        >>> check_type("VQVAE", "scales", [1, "2"], int | Sequence[int])
        Traceback (most recent call last):
        TypeError: VQVAE: scales[1] must be an int, got '2' (str)
    """
    kind, parts = get_origin(hint), get_args(hint)
    if kind in UNIONS:
        return _check_union(owner, argument, value, parts)
    if kind in SEQUENCES and parts:  # not typing.List alone, nor an empty tuple
        return _check_items(owner, argument, value, hint)
    if hint is float:
        return check_number(owner, argument, value)
    if hint is int:
        return check_integer(owner, argument, value)
    if hint is bool and str(getattr(value, "dtype", "")) == "bool" and isinstance(value, Hashable):  # numpy's
        return bool(value)
    # A set compares what has the same hash alone: arrays and tensors compare item by item, and have no truth value.
    if kind is Literal and not (isinstance(value, Hashable) and value in {*parts}):
        raise ValueError(f"{owner}: {argument} must be {_named(hint)}, got {value!r}")
    if _is_checked(hint) and not isinstance(value, hint):
        raise TypeError(f"{owner}: {argument} must be {_named(hint)}, got {_shown(value)}")
    return value


def _check_union(owner: str, argument: str, value: Any, parts: Sequence[Any]) -> Any:
    failures = []
    for part in parts:
        try:
            return check_type(owner, argument, value, part)
        except (TypeError, ValueError) as error:
            failures.append(error)
    of_items = [error for error in failures if str(error).startswith(f"{owner}: {argument}[")]
    some = [part for part in parts if part is not type(None)]
    if of_items or len(some) == 1:
        raise (of_items or failures)[0]
    raise TypeError(f"{owner}: {argument} must be {' or '.join(map(_named, some))}, got {_shown(value)}")


def _check_items(owner: str, argument: str, value: Any, hint: Any) -> Any:
    kind, parts = get_origin(hint), get_args(hint)
    try:
        if isinstance(value, (str, bytes, Mapping)):
            raise TypeError
        items = iter(value)  # arrays without an axis have the method
    except TypeError:
        raise TypeError(f"{owner}: {argument} must be {_named(hint)}, got {_shown(value)}") from None
    given = list(items)
    hints = parts if kind is tuple and parts[1:] != (...,) else [parts[0]] * len(given)
    if len(hints) != len(given):
        raise TypeError(f"{owner}: {argument} must hold {len(hints)} items, got {_shown(value)}")
    taken = [
        check_type(owner, f"{argument}[{place}]", item, part)
        for place, (item, part) in enumerate(zip(given, hints, strict=True))
    ]
    same = all(one is other for one, other in zip(taken, given, strict=True))
    # A list of modules is a module itself: a plain list would hide what it holds.
    return value if same and isinstance(value, (Sequence, nn.Module)) else taken


def checked(function: Function, *, by_class: bool = False) -> Function:
    """Let a function refuse arguments of other types than its annotations say.

    Args:
        function: what to wrap.
        by_class: whether it is a constructor, and its class is to be named.

    Example:
        >>> @checked
        ... def grid(side: int) -> list[int]:
        ...     return [0] * side**2
        >>> grid("3")
        Traceback (most recent call last):
        TypeError: grid: side must be an int, got '3' (str)
    """
    signature = inspect.signature(function)
    single = [name for name, each in signature.parameters.items() if each.kind not in SEVERAL]

    @functools.wraps(function)
    def wrapper(*arguments: Any, **settings: Any) -> Any:
        try:
            given = signature.bind(*arguments, **settings)
        except TypeError:  # too many, too few: Python's own error says it
            return function(*arguments, **settings)
        owner = type(arguments[0]).__name__ if by_class else function.__name__
        hints = argument_types(function)
        for name in single:
            # A default may be of another type, as in `x: int = None`, and a configuration gives it.
            default = signature.parameters[name].default
            if name in hints and given.arguments.get(name, default) is not default:
                given.arguments[name] = check_type(owner, name, given.arguments[name], hints[name])
        return function(*given.args, **given.kwargs)

    return cast("Function", wrapper)


def check_fields(settings: Any) -> None:
    """Refuse values of a dataclass of other types than its annotations say; numpy's numbers become Python's.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Settings:
        ...     steps: int = 5
        ...     def __post_init__(self) -> None:
        ...         check_fields(self)
        >>> Settings("5")
        Traceback (most recent call last):
        TypeError: Settings: steps must be an int, got '5' (str)
    """
    hints = argument_types(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is None and field.default is None:  # as in `every: int = None`
            continue
        if (same := check_type(type(settings).__name__, field.name, value, hints.get(field.name))) is not value:
            object.__setattr__(settings, field.name, same)


def _is_checked(hint: Any) -> bool:
    own = type(hint) in (type, ABCMeta) and hint.__module__.startswith("lexel.")  # no protocol
    return own or hint in (bool, str, type(None))


def _named(hint: Any) -> str:
    """A type in an error."""
    if get_origin(hint) is Literal:
        *most, last = map(repr, get_args(hint))
        return " or ".join([", ".join(most), last] if most else [last])
    if get_origin(hint) in SEQUENCES:
        of = [part.__name__ for part in get_args(hint)[:1] if type(part) in (type, ABCMeta)]
        return f"a sequence of {of[0]}" if of else "a sequence"
    name = str(getattr(hint, "__name__", hint))
    own = f"a lexel {name}" if getattr(hint, "__module__", "").startswith("lexel.") else f"of the type {name}"
    return NAMES.get(hint, own)


def _shown(value: Any) -> str:
    """A value in an error; by its type where it takes several lines."""
    shown = repr(value)
    return shown if "\n" not in shown else f"a {type(value).__name__}"


def argument_types(make: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of the arguments that a function takes; none if one of their names means nothing here."""
    try:
        return get_type_hints(make)
    except Exception:  # whatever a stranger's annotation raises
        return {}
