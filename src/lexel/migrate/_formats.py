"""Formats of checkpoints, and how `load` tells which one a state dict has: it is sure, or it asks."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lexel.quantizers.base import Quantizer

__all__ = ["Format", "check_settings", "listed", "not_sure", "parts_with_counts", "recognise"]

# How to find out what a state dict does not say, for the error that asks for it.
QUESTIONS = {
    "commitment_cost": "the weight of the commitment term (commitment_cost, beta, commitment_weight)",
    "depth": "how many stages there are (num_quantizers)",
    "groups": "in how many groups the codes are (num_codevector_groups)",
    "learning": "lexel.EMA(decay), or lexel.Gradient() if the codes are parameters (learnable_codebook)",
    "levels": "the levels of finite scalar quantization, as [8, 5, 5, 5]",
    "metric": "'euclidean', or 'cosine' if codes and inputs are normalised (use_cosine_sim, codebook_l2_norm)",
    "scales": "the sides of the token maps, coarse to fine, as [1, 2, 3, 4, 5, 6, 8, 10, 13, 16] (v_patch_nums)",
    "convolution_weight": "the share of the convolutions after upsampling (quant_resi), 0.5 in VAR",
    "normalised": "whether the codes of the first stage have length 1 (codebook_normalize)",
    "strides": "the stride of each stage, as [8, 4, 2, 1] (vq_strides)",
    "symmetric": "whether the levels are symmetric about zero (preserve_symmetry)",
    "spherical": "whether inputs are projected to the sphere (spherical)",
}
# Settings of every table, as `VectorQuantizer` takes them.
TABLE_PARTS = ("estimator", "regularisers", "upkeep")
# Names that modules give to a whole quantizer. What stands deeper than such a name is a part of it.
QUANTIZER_NAME = re.compile(r"(\w*_)?(quanti[sz](e|er|ers|ation)|r?vqs?|fsq|lfq|bsq|codebooks?)(_?[a-z0-9])?", re.I)


@dataclass(frozen=True)
class Format:
    """A quantizer of another package, as its state dict shows it.

    Attributes:
        name: what `load(format=…)` calls it.
        title: what messages call it.
        marker: pattern of a key that every such quantizer has, after its prefix.
        keys: pattern of all keys that it may have, after its prefix. Another key means that it is something else.
        build: makes the quantizer of its `Keys`, and takes each of them; its keyword arguments without a default are
            what `load` asks for.
        within: pattern of the prefixes under which the marker alone is proof enough.
        parts: pattern of the prefixes under which its own parts stand, which may look like quantizers themselves.
        fits: what else must be true of the marker's tensor.
        aside: pattern of keys under the prefix that belong to the model around the quantizer.
        needs: a setting without which the format is not considered, as its keys are too few to be proof of it.
        may_be_empty: whether such a quantizer may have no keys at all.
    """

    name: str
    title: str
    marker: str
    keys: str
    build: Callable[..., Quantizer]
    within: str = ".*"
    parts: str | None = None
    fits: Callable[[Tensor], bool] | None = None
    aside: str | None = None
    needs: str | None = None
    may_be_empty: bool = False

    @property
    def settings(self) -> dict[str, inspect.Parameter]:
        """The arguments of `build`, by name."""
        arguments = inspect.signature(self.build).parameters.values()
        return {each.name: each for each in arguments if each.kind is each.KEYWORD_ONLY}

    @property
    def required(self) -> set[str]:
        """The settings that `load` must be given."""
        return {name for name, each in self.settings.items() if each.default is each.empty}

    @property
    def allowed(self) -> set[str]:
        """All settings that `load` may be given."""
        arguments = inspect.signature(self.build).parameters.values()
        takes_parts = any(each.kind is each.VAR_KEYWORD for each in arguments)
        return {*self.settings, *(TABLE_PARTS if takes_parts else ())}

    def places(self, state: Mapping[str, Tensor]) -> Iterator[str]:
        """Prefixes under which the marker stands, the shortest for each key."""
        for key, value in state.items():
            for start in (0, *(dot.end() for dot in re.finditer(r"\.", key))):
                if re.fullmatch(self.marker, key[start:]) and (self.fits is None or self.fits(value)):
                    yield key[:start]
                    break

    def stands_at(self, state: Mapping[str, Tensor], prefix: str) -> bool:
        """Whether the marker stands directly under the prefix."""
        inner = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
        return any(
            re.fullmatch(self.marker, key) and (self.fits is None or self.fits(value)) for key, value in inner.items()
        )

    def unknown_keys(self, state: Mapping[str, Tensor], prefix: str) -> list[str]:
        """Keys under the prefix that such a quantizer does not have."""
        return [key for key in self.own_keys(state, prefix) if not re.fullmatch(self.keys, key[len(prefix) :])]

    def own_keys(self, state: Mapping[str, Tensor], prefix: str) -> list[str]:
        """Keys under the prefix, without those of the model around the quantizer."""
        inner = [key for key in state if key.startswith(prefix)]
        return [key for key in inner if self.aside is None or not re.fullmatch(self.aside, key[len(prefix) :])]


def recognise(
    formats: Sequence[Format],
    state: Mapping[str, Tensor],
    prefix: str | None,
    name: str | None,
    settings: Mapping[str, Any],
) -> tuple[Format, str]:
    """Return the format of a quantizer, and the prefix under which it stands.

    Raises:
        ValueError: there is none, or it is not certain which.
    """
    candidates = _candidates(formats, name, settings)
    found: dict[str, list[Format]] = {}
    for known in candidates:
        if prefix is not None:
            places = [prefix] if known.stands_at(state, prefix) else []
        else:
            places = [place for place in known.places(state) if re.fullmatch(known.within, place)]
        for place in places:
            if known not in found.setdefault(place, []):
                found[place].append(known)
    found = {place: own for place, own in found.items() if not _is_part(place, found)}
    if not found:
        if not state and len(candidates) == 1 and candidates[0].may_be_empty:
            return candidates[0], ""
        raise ValueError(_nothing_found(formats, candidates, state, prefix))
    if len(found) > 1:
        several = ", ".join(f"{place!r} ({own[0].title})" for place, own in found.items())
        raise ValueError(f"migrate.load: there are several quantizers; give the prefix of one: {several}")
    ((place, own),) = found.items()
    fitting = [known for known in own if not known.unknown_keys(state, place)]
    if not fitting:
        raise ValueError(not_sure(own[0], place, own[0].unknown_keys(state, place)))
    known = _only_one(fitting, place, settings)
    whole = _whole(place)
    if prefix is None and whole != place:
        raise ValueError(
            f"migrate.load: not sure: {known.title} stands at {place!r}, within {whole!r}, and no key says what else "
            f"that does. Give prefix={place!r} to load this part alone"
        )
    return known, place


def _candidates(formats: Sequence[Format], name: str | None, settings: Mapping[str, Any]) -> list[Format]:
    if name is None:
        return [each for each in formats if each.needs is None or each.needs in settings]
    named = [each for each in formats if each.name == name]
    if not named:
        raise ValueError(
            f"migrate.load: format must be one of {', '.join(each.name for each in formats)}, got {name!r}"
        )
    return named


def _is_part(place: str, found: Mapping[str, Sequence[Format]]) -> bool:
    """Whether what stands there is a part of another quantizer that was found."""
    return any(
        known.parts is not None and place.startswith(other) and re.match(known.parts, place[len(other) :])
        for other, own in found.items()
        for known in own
    )


def _only_one(own: Sequence[Format], place: str, settings: Mapping[str, Any]) -> Format:
    """Of formats with the same keys, the one that a setting proves."""
    if len(own) == 1:
        return own[0]
    proven = []
    for known in own:
        others = set().union(*(other.allowed for other in own if other is not known))
        proof = known.required - others
        if proof and proof <= settings.keys():
            proven.append(known)
    if len(proven) == 1:
        return proven[0]
    choices = " or ".join(
        f"format={known.name!r} for {known.title}"
        + (f", with {', '.join(f'{name}=' for name in sorted(known.required))}" if known.required else "")
        for known in own
    )
    raise ValueError(f"migrate.load: not sure: the keys at {place!r} fit several formats. Give {choices}")


def _whole(place: str) -> str:
    """The prefix of the whole quantizer that a prefix lies in, by the names of its modules."""
    names = place.split(".")[:-1]
    for depth, name in enumerate(names):
        if QUANTIZER_NAME.fullmatch(name):
            return ".".join(names[: depth + 1]) + "."
    return place


def not_sure(known: Format, place: str, unknown: Iterable[str]) -> str:
    """The message for a quantizer that has keys too many."""
    return (
        f"migrate.load: not sure what stands at prefix={place!r}. It looks like {known.title}, which does not have the "
        f"keys {listed(unknown)}"
    )


def _nothing_found(
    formats: Sequence[Format], candidates: Sequence[Format], state: Mapping[str, Tensor], prefix: str | None
) -> str:
    where = "" if prefix is None else f" at prefix={prefix!r}"
    if len(candidates) == 1:
        (known,) = candidates
        empty = " Without projections it has no tensors: build it yourself." if known.may_be_empty else ""
        return (
            f"migrate.load: {known.title} was not found{where}: no key matches {known.marker!r}.{empty} The state dict "
            f"has {listed(state) if state else 'no keys'}"
        )
    return (
        f"migrate.load: no quantizer that is known{where}. The state dict has {listed(state) if state else 'no keys'}. "
        f"Known formats are {', '.join(each.name for each in formats)}; format= takes one of them"
    )


def check_settings(found: Format, settings: Mapping[str, Any]) -> None:
    """Ask for the settings that are missing, and refuse those that mean nothing.

    Raises:
        TypeError: there are such.
    """
    missing = [name for name in found.settings if name in found.required and name not in settings]
    if missing:
        asked = "; ".join(f"{name}=, {QUESTIONS.get(name, 'which its keys do not hold')}" for name in missing)
        raise TypeError(f"migrate.load: found {found.title}, whose state does not say everything. Give {asked}")
    if unknown := settings.keys() - found.allowed:
        raise TypeError(
            f"migrate.load: {found.title} has no setting {', '.join(sorted(unknown))}; "
            f"it has {', '.join(sorted(found.allowed))}"
        )


def listed(keys: Iterable[str]) -> str:
    """The first few keys."""
    names = sorted(keys)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def parts_with_counts(keys: Iterable[str]) -> str:
    """How many keys each part of a model has."""
    parts = Counter(key.split(".")[0] for key in keys)
    return ", ".join(f"{part} ({count})" for part, count in sorted(parts.items()))
