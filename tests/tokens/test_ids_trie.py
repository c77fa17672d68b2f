"""Prefixes of IDs: what may follow, and a language model that writes nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from lexel.tokens import Facts, IDs
from lexel.tokens.trie import Trie

PAD, EOS, START = 0, 1, 2


@st.composite
def codes(draw: st.DrawFn) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    sizes = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    one = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    return draw(st.lists(one, min_size=1, max_size=30)), sizes


class TestPrefixes:
    @given(codes())
    def test_what_may_follow_is_what_does(self, given_codes: Any) -> None:
        """For every prefix that there could be, and codes beyond all codebooks."""
        ids, sizes = given_codes
        trie = Trie.of(np.array(ids), sizes)
        assert len(trie) == len(set(ids))
        for length in range(len(sizes)):
            grids = torch.cartesian_prod(*(torch.arange(-1, size + 1) for size in sizes[:length])) if length else None
            prefixes = torch.zeros(1, 0, dtype=torch.int64) if grids is None else grids.reshape(-1, length)
            allowed = trie.allowed(prefixes)
            assert allowed.shape == (len(prefixes), sizes[length])
            for prefix, row in zip(prefixes.tolist(), allowed.tolist(), strict=True):
                expected = {code[length] for code in ids if list(code[:length]) == prefix}
                assert {code for code, may in enumerate(row) if may} == expected

    @given(codes())
    def test_nodes_are_the_prefixes_in_their_order(self, given_codes: Any) -> None:
        ids, sizes = given_codes
        trie = Trie.of(np.array(ids), sizes)
        for level in range(len(sizes)):
            prefixes = sorted({code[: level + 1] for code in ids})
            assert trie.nodes(level).tolist() == [prefixes.index(code[: level + 1]) for code in ids]
            assert trie.find(torch.tensor(prefixes)).tolist() == list(range(len(prefixes)))
            rows = sorted(range(len(ids)), key=lambda row: (ids[row], row))
            assert trie.rows(prefixes[0]).tolist() == [row for row in rows if ids[row][: level + 1] == prefixes[0]]

    @given(codes(), st.integers(0, 3), st.integers(0, 3))
    def test_generate_is_given_the_same(self, given_codes: Any, prompt: int, start: int) -> None:
        ids, sizes = given_codes
        trie = Trie.of(np.array(ids), sizes)
        allowed = trie.prefix_allowed_tokens_fn(prompt=prompt, start=start, eos=99)
        offsets = start + np.cumsum([0, *sizes])
        for code in ids:
            sentence = [7] * prompt
            for level in range(len(sizes)):
                mask = trie.allowed(torch.tensor([code[:level]], dtype=torch.int64).reshape(1, -1))[0]
                assert allowed(0, torch.tensor(sentence)) == (mask.nonzero()[:, 0] + offsets[level]).tolist()
                sentence.append(int(code[level] + offsets[level]))
            assert allowed(0, torch.tensor(sentence)) == allowed(0, torch.tensor([*sentence, 99])) == [99]
        # What no ID begins with has no score any more, and generate asks for something all the same.
        if len(sizes) > 1:
            for token in (start - 1, offsets[1], offsets[-1]):
                assert allowed(0, torch.tensor([7] * prompt + [int(token)])) == [offsets[1]]

    def test_a_token_of_another_level_leads_nowhere(self) -> None:
        """Not to the children of the next branch, whose key it would have."""
        allowed = Trie.of(np.array([[0, 0, 0], [1, 0, 1]]), (2, 1, 2)).prefix_allowed_tokens_fn(prompt=0)
        assert allowed(0, torch.tensor([1, 2])) == [4]
        assert allowed(0, torch.tensor([0, 3])) == [3]

    def test_wrong_prefixes(self) -> None:
        trie = Trie.of(np.array([[0, 1]]), (2, 2))
        for prefixes in (torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), torch.zeros(1, 1)):
            with pytest.raises(ValueError, match=r"prefixes must be integers of shape \(B, L\) with L at most 1"):
                trie.allowed(prefixes)
        with pytest.raises(ValueError, match="at least 0, got -1 and 0"):
            trie.prefix_allowed_tokens_fn(prompt=-1)
        with pytest.raises(ValueError, match="an ID has 2 codes: give eos, or max_new_tokens=2"):
            trie.prefix_allowed_tokens_fn()(0, torch.tensor([0, 0, 3]))

    def test_too_many_codes_for_the_keys(self) -> None:
        with pytest.raises(ValueError, match="takes no codebook of 4611686018427387904 codes"):
            Trie.of(np.array([[0], [1]]), (1 << 62,))


class TestGeneration:
    """With models of random weights, whose own wishes are anything but IDs."""

    def ids(self, count: int) -> IDs:
        generator = np.random.default_rng(count)
        codes = np.unique(generator.integers(0, 8, (count, 3)), axis=0)
        return IDs(np.arange(len(codes)), codes, Facts("vectors", 8, (8, 8, 8), ""), unique="nearest-free")

    @pytest.mark.parametrize("count", [1, 2, 40])
    @pytest.mark.parametrize("ends", [True, False])
    def test_an_encoder_decoder_writes_ids_alone(self, count: int, ends: bool) -> None:
        torch.manual_seed(0)
        ids = self.ids(count)
        size = START + sum(ids.codebook_sizes)
        shape = {"vocab_size": size, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
        config = T5Config(**shape, pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=PAD)
        history = torch.from_numpy(ids.vocabulary(START)[: min(len(ids), 5)]).reshape(1, -1).repeat(3, 1)
        beams = min(len(ids), 6)
        written = (
            T5ForConditionalGeneration(config)
            .eval()
            .generate(
                history,
                num_beams=beams,
                num_return_sequences=beams,
                max_new_tokens=3 + ends,
                do_sample=False,
                prefix_allowed_tokens_fn=ids.trie().prefix_allowed_tokens_fn(start=START, eos=EOS if ends else None),
            )
        )
        items = [each for (each,) in ids.items[ids.codes_of(written[:, 1:4], START)]]
        assert written.shape == (3 * beams, 4 + ends)
        for query in range(3):  # each beam writes another item
            assert len(set(items[query * beams : (query + 1) * beams])) == beams

    @pytest.mark.parametrize("sampled", [True, False])
    def test_a_decoder_goes_on_from_its_prompt(self, sampled: bool) -> None:
        torch.manual_seed(0)
        ids = self.ids(40)
        size = START + sum(ids.codebook_sizes)
        shape = {"vocab_size": size, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
        model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=EOS, eos_token_id=EOS)).eval()
        prompt = torch.from_numpy(ids.vocabulary(START)[:6]).reshape(2, -1)
        written = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            pad_token_id=PAD,
            do_sample=sampled,
            num_return_sequences=20 if sampled else 1,
            max_new_tokens=3,
            prefix_allowed_tokens_fn=ids.trie().prefix_allowed_tokens_fn(prompt=prompt.shape[1], start=START),
        )
        items = ids.items[ids.codes_of(written[:, prompt.shape[1] :], START)]
        assert len(items) == len(written)
        assert all(len(each) == 1 for each in items)
        assert len({each[0] for each in items}) > 1 or not sampled
