"""How numbers are written on the page."""

from __future__ import annotations

import math

__all__ = ["amount", "counted", "percent"]


def amount(number: int) -> str:
    """Write a number of things; from a thousand millions on, as a power of two.

    Example:
        >>> amount(16384), amount(2**62)
        ('16,384', '2^62')
    """
    return f"{number:,}" if number < 10**9 else f"2^{math.log2(number):.0f}"


def counted(number: int, thing: str) -> str:
    """Write how many things there are.

    Example:
        >>> counted(1, "image"), counted(2000, "image")
        ('1 image', '2,000 images')
    """
    return f"{amount(number)} {thing}{'s' * (number != 1)}"


def percent(share: float) -> str:
    """Write a share in percent: never 100 % of what is not all, nor 0 % of what is not none.

    Example:
        >>> percent(0.5), percent(0.99996), percent(0.00001), percent(1)
        ('50 %', '> 99.9 %', '< 0.1 %', '100 %')
    """
    value = 100 * share
    if value in (0, 100):
        return f"{value:.0f} %"
    if value < 0.1:
        return "< 0.1 %"
    if value > 99.9:
        return "> 99.9 %"
    return f"{value:.3g} %" if value < 99 else f"{value:.1f} %"
