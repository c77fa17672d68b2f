"""Checks of arguments, with errors that name the owner, the argument, what came and what was expected."""

from __future__ import annotations

import operator
import types
from abc import ABCMeta
from numbers import Real
from typing import Any, Literal, Union, get_args, get_origin

__all__ = ["check_integer", "check_number", "check_type", "check_weight"]


def check_number(owner: str, argument: str, value: Any) -> float:
    """Return a number of any kind, numpy's too; an int stays one.

    Raises:
        TypeError: it is none.

    Example:
        >>> check_number("EMA", "decay", "a")
        Traceback (most recent call last):
        TypeError: EMA: decay must be a number, got 'a'
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{owner}: {argument} must be a number, got {value!r}")
    return value if isinstance(value, (int, float)) else float(value)


def check_weight(owner: str, argument: str, value: Any) -> float:
    """Return a weight of the loss as a float.

    Raises:
        TypeError: it is not a number.
        ValueError: it is negative or not finite.
    """
    if not 0 <= check_number(owner, argument, value) < float("inf"):
        raise ValueError(f"{owner}: {argument} must be finite and not negative, got {value}")
    return float(value)


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
    """Return a value of the type that an annotation says: a number, an int, one of some words, an instance of a class.

    Raises:
        TypeError: it is of another type.
        ValueError: it is none of the words.

    Example:
        >>> check_type("Revival", "by", "count", Literal["usage", "error"])
        Traceback (most recent call last):
        ValueError: Revival: by must be 'usage' or 'error', got 'count'
    """
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, types.UnionType):
        some = [part for part in parts if part is not type(None)]
        several = len(some) > 1  # which only their owner can tell apart
        return value if several or (value is None and some != [*parts]) else check_type(owner, argument, value, some[0])
    if kind is Literal:
        if value not in parts:
            *most, last = map(repr, parts)
            raise ValueError(f"{owner}: {argument} must be {', '.join(most)} or {last}, got {value!r}")
    elif hint is float:
        return check_number(owner, argument, value)
    elif hint is int:
        return check_integer(owner, argument, value)
    elif type(hint) in (type, ABCMeta) and not isinstance(value, hint):  # not Any, and no protocol
        raise TypeError(f"{owner}: {argument} must be of the type {hint.__name__}, got {value!r}")
    return value
