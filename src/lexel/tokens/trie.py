"""The prefixes of all IDs: which codes may follow which, and which items lie under a prefix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Trie"]


@dataclass(frozen=True)
class Trie:
    """The prefix tree of N IDs of Q codes each, as sorted arrays: `lexel.tokens.IDs.trie` returns one.

    A node of level q is a prefix of q + 1 codes that an ID begins with. The nodes of a level are numbered in the order
    of their prefixes, so that their keys, `parent · K_q + code`, are sorted, and one binary search for each level
    follows any number of prefixes at once.

    Attributes:
        codebook_sizes: K_q of each level.
        order: int64 `(N,)`, the rows of the IDs in the order of their codes; rows with equal codes in their own.
        keys: of the nodes of each level, int64 `(n_q,)`.
        starts: for each level, where the rows under each node begin in `order`, and where the last ones end: int64
            `(n_q + 1,)`.

    Example:
        >>> trie = Trie.of(np.array([[0, 1], [2, 0], [0, 0]]), (3, 2))
        >>> trie.allowed(torch.tensor([[0], [1], [2]]))
        tensor([[ True,  True],
                [False, False],
                [ True, False]])
    """

    codebook_sizes: tuple[int, ...]
    order: Tensor
    keys: tuple[Tensor, ...]
    starts: tuple[Tensor, ...]

    @classmethod
    def of(cls, codes: np.ndarray[Any, Any], codebook_sizes: Sequence[int]) -> Trie:
        """Return the trie of codes `(N, Q)`, N at least 1, of any integer type, code q in [0, K_q).

        Raises:
            ValueError: N · K is too large for the keys.
        """
        if len(codes) * max(codebook_sizes) >= 1 << 63:
            raise ValueError(f"a trie of {len(codes)} IDs takes no codebook of {max(codebook_sizes)} codes")
        order = np.lexsort(codes.T[::-1])
        node, keys, starts = np.zeros(len(codes), np.int64), [], []
        begins = np.arange(len(codes)) == 0
        for column, size in zip(codes.T, codebook_sizes, strict=True):
            own = column[order].astype(np.int64)
            begins = begins.copy()
            begins[1:] |= own[1:] != own[:-1]
            first = np.flatnonzero(begins)
            keys.append(torch.from_numpy(node[first] * size + own[first]))
            starts.append(torch.from_numpy(np.append(first, len(codes))))
            node = np.cumsum(begins) - 1
        return cls(tuple(codebook_sizes), torch.from_numpy(order), tuple(keys), tuple(starts))

    def to(self, device: torch.device | str) -> Trie:
        """Return the trie on a device, where `allowed` then takes prefixes."""
        return replace(
            self,
            order=self.order.to(device),
            keys=tuple(level.to(device) for level in self.keys),
            starts=tuple(level.to(device) for level in self.starts),
        )

    def __len__(self) -> int:
        """How many different IDs there are."""
        return len(self.keys[-1])

    def nodes(self, level: int) -> Tensor:
        """Return the node of a level, 0 to Q − 1, above each row of the IDs: int64 `(N,)`."""
        starts, order = self.starts[level], self.order
        numbers = torch.repeat_interleave(torch.arange(len(starts) - 1, device=order.device), starts.diff())
        return torch.empty_like(order).index_copy_(0, order, numbers)

    def find(self, prefixes: Tensor) -> Tensor:
        """Return the node of each prefix, `(B, L)` integers with L from 0 to Q: int64 `(B,)`.

        A node is one of level L − 1, −1 where no ID begins so, and 0 for all prefixes without a code.

        Raises:
            ValueError: the prefixes are not `(B, L)` integers with L at most Q.
        """
        length = _length(prefixes, len(self.keys))
        prefixes = prefixes.long()
        node = torch.zeros(len(prefixes), dtype=torch.int64, device=prefixes.device)
        for column, keys, size in zip(prefixes.unbind(1), self.keys[:length], self.codebook_sizes, strict=False):
            wanted = node * size + column
            place = torch.searchsorted(keys, wanted)
            there = F.pad(keys, (0, 1), value=-1)[place] == wanted
            found = (node >= 0) & (column >= 0) & (column < size) & there
            node = torch.where(found, place, -1)
        return node

    def allowed(self, prefixes: Tensor) -> Tensor:
        """Return which codes may follow each prefix `(B, L)`, with L from 0 to Q − 1: bool `(B, K_L)`.

        A row has none for a prefix that no ID begins with.

        Raises:
            ValueError: the prefixes are not `(B, L)` integers with L below Q.
        """
        level = _length(prefixes, len(self.keys) - 1)
        keys, size = self.keys[level], self.codebook_sizes[level]
        node = self.find(prefixes)
        low, high = (torch.searchsorted(keys, (node + after) * size) for after in (0, 1))
        counts = torch.where(node >= 0, high - low, 0)
        rows = torch.repeat_interleave(torch.arange(len(node), device=node.device), counts)
        places = torch.arange(len(rows), device=node.device) + (low - counts.cumsum(0) + counts)[rows]
        mask = torch.zeros(len(node), size, dtype=torch.bool, device=node.device)
        mask[rows, keys[places] % size] = True
        return mask

    def rows(self, prefix: Sequence[int]) -> Tensor:
        """Return the rows of all IDs that begin with a prefix, in the order of their codes: int64 `(n,)`."""
        if not len(prefix):
            return self.order
        node = int(self.find(torch.as_tensor(prefix, device=self.order.device).reshape(1, -1))[0])
        starts = self.starts[len(prefix) - 1]
        return self.order[:0] if node < 0 else self.order[int(starts[node]) : int(starts[node + 1])]

    def prefix_allowed_tokens_fn(
        self, *, prompt: int = 1, start: int = 0, eos: int | None = None
    ) -> Callable[[int, Tensor], list[int]]:
        """Return what `transformers`' `generate` takes as `prefix_allowed_tokens_fn`: each ID that it writes exists.

        The tokens are those of `lexel.tokens.IDs.vocabulary(start)`: the codes of each level follow those of the level
        before.

        Args:
            prompt: how many tokens stand before an ID: 1 for an encoder-decoder, which begins with its start token;
                for a decoder alone, the length of the prompt with its padding, `input_ids.shape[1]`.
            start: the token of the first code: how many special tokens come before all codes.
            eos: the token that ends an ID; without it, `generate` must stop after Q tokens: `max_new_tokens=Q`.

        Raises:
            ValueError: `prompt` or `start` is negative; and when called, a token follows an ID and there is no `eos`.

        Example:
            >>> trie = Trie.of(np.array([[0, 1], [2, 0], [0, 0]]), (3, 2))
            >>> allowed = trie.prefix_allowed_tokens_fn(start=2, eos=1)
            >>> allowed(0, torch.tensor([0])), allowed(0, torch.tensor([0, 4])), allowed(0, torch.tensor([0, 4, 5]))
            ([2, 4], [5], [1])
        """
        if prompt < 0 or start < 0:
            raise ValueError(f"prompt and start must be at least 0, got {prompt} and {start}")
        # Single numbers: numpy looks them up in a fraction of torch's time.
        keys, sizes = [level.cpu().numpy() for level in self.keys], self.codebook_sizes
        offsets = start + np.cumsum([0, *sizes])

        def allowed(batch_id: int, sentence: Tensor) -> list[int]:
            del batch_id
            tokens = sentence[prompt:].tolist()
            if len(tokens) >= len(keys):
                if eos is None:
                    raise ValueError(f"an ID has {len(keys)} codes: give eos, or max_new_tokens={len(keys)}")
                return [eos]
            level, node = len(tokens), 0
            for before, token in enumerate(tokens):
                wanted = node * sizes[before] + token - offsets[before]
                node = int(np.searchsorted(keys[before], wanted))
                # The beams that a search has given up may hold anything; whatever is allowed them, they stay so.
                inside = offsets[before] <= token < offsets[before + 1]
                if not inside or node == len(keys[before]) or keys[before][node] != wanted:
                    return [int(offsets[level])]
            low, high = np.searchsorted(keys[level], [node * sizes[level], (node + 1) * sizes[level]])
            found: list[int] = (keys[level][low:high] % sizes[level] + offsets[level]).tolist()
            return found

        return allowed


def _length(prefixes: Tensor, most: int) -> int:
    """Return how many codes prefixes have."""
    if prefixes.ndim != 2 or prefixes.shape[1] > most or prefixes.is_floating_point() or prefixes.dtype == torch.bool:
        raise ValueError(
            f"prefixes must be integers of shape (B, L) with L at most {most}, "
            f"got {prefixes.dtype} of shape {tuple(prefixes.shape)}"
        )
    return int(prefixes.shape[1])
