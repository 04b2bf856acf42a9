"""What may be written, how it is drawn, and that the decode loop computes what a plain forward pass computes."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.models.backbones.backbone import Backbone
from agents.models.column_cache import ColumnCache
from agents.models.decoding import (
    AnyBut,
    Choice,
    Form,
    Free,
    Part,
    choice_mask,
    constrained_logprobs,
    decode,
    prefill,
)
from agents.models.policy import Policy
from coars_env import RECOMMENDER, USER, ConfigError

NEWLINE, OTHER_NEWLINE = 4, 3
KINDS = ("pocket", "llama", "qwen3")


def new_form(*parts: Part) -> Form:
    return Form(parts, frozenset((NEWLINE, OTHER_NEWLINE)), NEWLINE)


# What may be written --------------------------------------------------------------------------------------------------


def test_a_choice_tells_what_may_follow_each_beginning() -> None:
    choice = Choice(((5, 9), (6, 7, 9), (6, 8, 9)))
    assert choice.following == {(): (5, 6), (5,): (9,), (6,): (7, 8), (6, 7): (9,), (6, 8): (9,)}


@pytest.mark.parametrize(
    "options", [(), ((),), ((5,), ()), ((5, 9), (6,), (5, 9)), ((6, 7), (5,), (6, 7, 9)), ((6, 7, 9), (6,), (6, 8))]
)
def test_options_that_cannot_be_told_apart_are_refused(options: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ConfigError, match="Options are told apart token by token"):
        Choice(options)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple), min_size=1, max_size=6))
def test_a_choice_is_refused_exactly_if_one_option_begins_another(options: list[tuple[int, ...]]) -> None:
    begins = any(b[: len(a)] == a for n, a in enumerate(options) for m, b in enumerate(options) if n != m)
    if begins:
        with pytest.raises(ConfigError):
            Choice(tuple(options))
    else:
        choice = Choice(tuple(options))
        for option in options:  # a form can write each option, and ends exactly with it
            form = new_form(choice)
            while not form.finished:
                form.push(option[len(form.completion.token_ids)], -1.0)
            assert form.written == [option]


def test_given_tokens_are_written_without_being_sampled() -> None:
    form = new_form(Choice(((10, 11),)), Free(2), Choice(((12,),)), Choice(((20, NEWLINE), (21, 22, NEWLINE))))
    assert form.completion.token_ids == [10, 11]
    assert form.allowed() is None
    form.push(30, -1.0)
    form.push(OTHER_NEWLINE, -2.0)  # ends the free text before its limit; the label follows by itself
    assert form.unread == [10, 11, 30, OTHER_NEWLINE, 12]
    assert form.allowed() == (20, 21)
    form.push(21, -0.5)
    assert form.finished
    assert form.completion.token_ids == [10, 11, 30, OTHER_NEWLINE, 12, 21, 22, NEWLINE]
    assert form.completion.sampled == [False, False, True, True, False, True, False, False]
    assert form.completion.logprobs == [0, 0, -1.0, -2.0, 0, -0.5, 0, 0]
    assert form.completion.allowed == [(10,), (11,), None, None, (12,), (20, 21), (22,), (NEWLINE,)]
    assert form.written == [(10, 11), (30, OTHER_NEWLINE), (12,), (21, 22, NEWLINE)]
    assert form.chosen(3) == 1


def test_free_text_of_full_length_ends_with_a_newline_nobody_chose() -> None:
    form = new_form(Free(2), Choice(((7,), (8,))))
    form.push(30, -1.0)
    form.push(31, -1.0)
    assert form.completion.token_ids == [30, 31, NEWLINE]
    assert form.completion.sampled == [True, True, False]
    assert form.allowed() == (7, 8)


def test_there_is_room_for_the_rest_of_a_free_text_and_for_one_token_of_a_choice() -> None:
    form = new_form(Free(3), Choice(((5, 6, NEWLINE), (5, 7, NEWLINE))))
    rooms = [form.room]
    for token in (8, 9, NEWLINE):  # of the free text; what follows begins with 5 in any case
        form.push(token, -1.0)
        rooms.append(form.room)
    assert form.allowed() == (6, 7)
    assert rooms == [3, 2, 1, 1]


def test_free_text_of_length_zero_is_a_newline() -> None:
    assert new_form(Free(0)).completion.token_ids == [NEWLINE]


def test_a_part_may_depend_on_what_was_written_before() -> None:
    first = Choice(((5,), (6,)))

    def second(written: Any) -> Choice:
        return Choice(((7,), (8,))) if first.options.index(written[-1]) == 0 else Choice(((9,),))

    form = new_form(first, second)
    form.push(5, -1.0)
    assert form.allowed() == (7, 8)
    form = new_form(first, second)
    form.push(6, -1.0)
    assert form.finished
    assert form.completion.token_ids == [6, 9]


def test_text_below_its_least_length_does_not_end() -> None:
    form = new_form(Free(4, 2), Choice(((7,), (8,))))
    found = []
    for token in (30, 31, NEWLINE):
        found.append((form.allowed(), form.room))
        form.push(token, -1.0)
    goes_on = AnyBut(frozenset((NEWLINE, OTHER_NEWLINE)))
    assert found == [(goes_on, 2), (goes_on, 1), (None, 2)]
    assert form.completion.sampled == [True] * 3
    assert form.allowed() == (7, 8)


def test_text_of_one_length_is_sampled_up_to_there() -> None:
    form = new_form(Free(2, 2))
    form.push(30, -1.0)
    form.push(31, -1.0)
    assert form.completion.token_ids == [30, 31, NEWLINE]
    assert form.completion.sampled == [True, True, False]


def test_a_least_length_above_the_greatest_is_refused() -> None:
    with pytest.raises(ConfigError, match="must have 0 <= min_tokens <= max_tokens, got min_tokens=3 and max_tokens=2"):
        Free(2, 3)


def test_given_options_are_taken_where_they_are_due() -> None:
    """The second part is sampled between two that are given; a single way to go on stays a given token."""
    parts = Choice(((5, 9), (6, 9))), Choice(((7, 9), (8, 9))), Choice(((5, 9), (6, 9)))
    form = Form(parts, frozenset((NEWLINE,)), NEWLINE, {0: 1, 2: -1})
    assert form.completion.token_ids == [6, 9]
    form.push(8, -0.5)
    assert form.finished
    assert form.completion.token_ids == [6, 9, 8, 9, 6, 9]
    assert form.completion.sampled == [True, False] * 3
    assert form.completion.logprobs == [0, 0, -0.5, 0, 0, 0]
    assert form.completion.allowed == [(5, 6), (9,), (7, 8), (9,), (5, 6), (9,)]


# Probabilities --------------------------------------------------------------------------------------------------------


def test_probabilities_are_shared_among_the_allowed_tokens() -> None:
    logits = torch.tensor([[9.0, math.log(2), math.log(3), math.log(4)]])
    mask = choice_mask([(1, 2)], torch.ones(4, dtype=torch.bool))
    found = constrained_logprobs(logits, mask, 1.0)[0]
    assert found.tolist() == pytest.approx([-math.inf, math.log(2 / 5), math.log(3 / 5), -math.inf])


def test_temperature_one_half_squares_the_odds() -> None:
    logits = torch.tensor([[9.0, math.log(2), math.log(3), math.log(4)]])
    mask = choice_mask([(1, 2)], torch.ones(4, dtype=torch.bool))
    found = constrained_logprobs(logits, mask, 0.5)[0]
    assert found[1:3].tolist() == pytest.approx([math.log(4 / 13), math.log(9 / 13)])


def test_the_mask_follows_the_choices_row_by_row() -> None:
    free = torch.tensor([False, True, True])
    assert choice_mask([None, (0, 2), (1,)], free).tolist() == [
        [False, True, True],
        [True, False, True],
        [False, True, False],
    ]
    assert choice_mask([None, None], free).tolist() == [[False, True, True]] * 2
    goes_on = AnyBut(frozenset((2,)))
    assert choice_mask([goes_on, None, (0,), goes_on, AnyBut(frozenset((0, 1)))], free).tolist() == [
        [False, True, False],
        [False, True, True],
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]
    assert choice_mask([], free).shape == (0, 3)


def rngs(n: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, row]) for row in range(n)]


def test_letters_are_drawn_as_often_as_the_table_says(bigrams: Backbone) -> None:
    n = 4000
    policy = Policy(bigrams, rank=2)
    forms = [Form([Choice(((5, 4), (6, 4), (7, 4)))], bigrams.newline_ids, bigrams.newline) for _ in range(n)]
    with policy.use_adapter(USER) as model:
        decode(model, ColumnCache(1, n), [0] * n, [[3]] * n, forms, rngs(n), bigrams.free_mask, temperature=1.0)
    counts = Counter(form.completion.token_ids[0] for form in forms)
    for token, probability in ((5, 0.5), (6, 0.25), (7, 0.25)):  # after the reply header
        assert abs(counts[token] - n * probability) < 4 * math.sqrt(n * probability * (1 - probability))
    by_letter = {form.completion.token_ids[0]: form.completion.logprobs for form in forms}
    assert by_letter[5] == pytest.approx([math.log(0.5), 0.0])
    assert by_letter[7] == pytest.approx([math.log(0.25), 0.0])


def test_special_tokens_and_broken_lines_are_never_drawn(bigrams: Backbone) -> None:
    n = 500
    policy = Policy(bigrams, rank=2)
    bigrams.model.lm_head.weight.data[:4] += 10.0  # the model would love to write special tokens
    forms = [Form([Free(4)], bigrams.newline_ids, bigrams.newline) for _ in range(n)]
    with policy.use_adapter(USER) as model:
        decode(model, ColumnCache(1, n), [0] * n, [[3]] * n, forms, rngs(n), bigrams.free_mask, temperature=1.0)
    assert {token for form in forms for token in form.completion.token_ids} == {4, 5, 6, 7}
    assert {len(form.completion.token_ids) for form in forms} == {2, 3, 4, 5}  # no line is empty: "\n" begins none
    assert all(form.completion.token_ids.count(4) == 1 for form in forms)


def test_below_its_least_length_the_other_tokens_of_a_text_share_the_probability(bigrams: Backbone) -> None:
    """After "a" a newline has probability 1/4 in the table; without it a has 1/6, b 2/3, c 1/6."""
    n, policy = 400, Policy(bigrams, rank=2)
    forms = [Form([Free(3, 2)], bigrams.newline_ids, bigrams.newline) for _ in range(n)]
    with policy.use_adapter(USER) as model:
        decode(model, ColumnCache(1, n), [0] * n, [[3]] * n, forms, rngs(n), bigrams.free_mask, temperature=1.0)
    assert {form.completion.token_ids.index(4) for form in forms} == {2, 3}
    after_a = [form.completion for form in forms if form.completion.token_ids[0] == 5]
    logprobs = {reply.token_ids[1]: reply.logprobs[1] for reply in after_a}
    assert logprobs == {
        5: pytest.approx(math.log(1 / 6)),
        6: pytest.approx(math.log(2 / 3)),
        7: pytest.approx(math.log(1 / 6)),
    }
    third = {tuple(reply.token_ids[1:3]): reply.logprobs[2] for reply in after_a}
    assert third[5, 4] == pytest.approx(math.log(1 / 4))  # from its least length on it may end


def test_at_temperature_zero_the_likeliest_token_is_written(bigrams: Backbone) -> None:
    policy = Policy(bigrams, rank=2)
    form = Form([Free(4)], bigrams.newline_ids, bigrams.newline)
    with policy.use_adapter(USER) as model:
        decode(model, ColumnCache(1, 1), [0], [[3]], [form], rngs(1), bigrams.free_mask, temperature=0.0)
    # a is likeliest at first, then b; after b all four letters are equally likely, and the first one is the newline
    assert bigrams.decode(form.completion.token_ids) == "ab\n"
    assert form.completion.logprobs == pytest.approx([math.log(0.5), math.log(0.5), math.log(0.25)])


# The cache ------------------------------------------------------------------------------------------------------------


def fresh_logits(policy: Policy, tokens: list[int]) -> torch.Tensor:
    """After the last token, by the model's own forward pass."""
    with torch.no_grad(), policy.use_adapter(RECOMMENDER) as model:
        return model(input_ids=torch.tensor([tokens])).logits[0, -1]


def random_tokens(policy: Policy, lengths: list[int], seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(len(policy.backbone.tokenizer), size=n).tolist() for n in lengths]


@pytest.mark.parametrize("kind", KINDS)
def test_ragged_chunks_read_over_several_passes_equal_a_fresh_pass(lab: Any, kind: str) -> None:
    policy = lab.policy(kind)
    read_so_far: list[list[int]] = [[], [], [], []]
    cache = ColumnCache(2, 4)
    with policy.use_adapter(RECOMMENDER) as model:
        for seed, lengths in enumerate(([3, 11, 1, 6], [0, 2, 40, 1], [1, 1, 1, 1], [5, 0, 0, 30], [1, 2, 0, 1])):
            chunks = random_tokens(policy, lengths, seed)
            found = prefill(model, cache, [len(row) for row in read_so_far], chunks)
            for row, chunk in enumerate(chunks):
                read_so_far[row] += chunk
                if chunk:
                    expected = fresh_logits(policy, read_so_far[row])
                    assert torch.allclose(found[row], expected, atol=1e-5), (seed, row)


@pytest.mark.parametrize("kind", KINDS)
def test_some_rows_of_the_cache_may_be_read_alone(lab: Any, kind: str) -> None:
    policy = lab.policy(kind)
    rows = random_tokens(policy, [5, 9, 3], 0)
    more = random_tokens(policy, [4, 2], 1)
    cache = ColumnCache(2, 3)
    with policy.use_adapter(RECOMMENDER) as model:
        prefill(model, cache, [0, 0, 0], rows)
        found = prefill(model, cache, [3, 9], more, rows=[2, 1])
        last = prefill(model, cache, [5, 11, 7], [[1], [1], [1]])
    assert torch.allclose(found[0], fresh_logits(policy, rows[2] + more[0]), atol=1e-5)
    assert torch.allclose(found[1], fresh_logits(policy, rows[1] + more[1]), atol=1e-5)
    for row, whole in enumerate((rows[0], rows[1] + more[1], rows[2] + more[0])):
        assert torch.allclose(last[row], fresh_logits(policy, [*whole, 1]), atol=1e-5)


def test_rows_can_leave_the_cache_and_new_ones_come_in(lab: Any) -> None:
    policy = lab.policy()
    rows = random_tokens(policy, [5, 9, 3], 0)
    new = random_tokens(policy, [7], 1)[0]
    cache = ColumnCache(2, 3)
    with policy.use_adapter(RECOMMENDER) as model:
        prefill(model, cache, [0, 0, 0], rows)
        cache.keep([2, None, 0])
        found = prefill(model, cache, [3, 0, 5], [[1], new, [1, 2]])
    assert torch.allclose(found[0], fresh_logits(policy, [*rows[2], 1]), atol=1e-5)
    assert torch.allclose(found[1], fresh_logits(policy, new), atol=1e-5)
    assert torch.allclose(found[2], fresh_logits(policy, [*rows[0], 1, 2]), atol=1e-5)


def some_forms(backbone: Backbone, n: int) -> list[Form]:
    """Of very unequal length: free text of up to 1, 4, 7 ... tokens."""
    options = Choice(tuple((*backbone.encode(text), backbone.newline) for text in (" 0.00", " 0.05", " 1.00")))
    label = Choice((tuple(backbone.encode("Score:")),))
    return [
        Form([label, Free(1 + 3 * row), label, options], backbone.newline_ids, backbone.newline) for row in range(n)
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_eight_rows_written_together_equal_eight_written_alone(lab: Any, kind: str, temperature: float) -> None:
    policy = lab.policy(kind)
    backbone, n = policy.backbone, 8
    contexts = random_tokens(policy, [1, 3, 20, 4, 4, 9, 2, 30], 0)
    together, alone = some_forms(backbone, n), some_forms(backbone, n)
    with policy.use_adapter(RECOMMENDER) as model:
        starts = [0] * n
        mask = backbone.free_mask
        decode(model, ColumnCache(2, n), starts, contexts, together, rngs(n), mask, temperature=temperature)
        for row, form in enumerate(alone):
            args = ([0], [contexts[row]], [form], [rngs(n)[row]], mask)
            decode(model, ColumnCache(2, 1), *args, temperature=temperature)
    lengths = {len(form.completion.token_ids) for form in together}
    assert len(lengths) > 3  # rows wait for one another, and few are left at the end
    for a, b in zip(together, alone, strict=True):
        assert a.completion.token_ids == b.completion.token_ids
        assert a.completion.logprobs == pytest.approx(b.completion.logprobs, abs=1e-5)
        assert a.completion.sampled == b.completion.sampled


def test_the_cache_holds_what_the_starts_say(lab: Any) -> None:
    policy = lab.policy()
    contexts, forms, starts = random_tokens(policy, [4, 9, 2], 0), some_forms(policy.backbone, 3), [0, 0, 0]
    cache = ColumnCache(2, 3)
    with policy.use_adapter(RECOMMENDER) as model:
        decode(model, cache, starts, contexts, forms, rngs(3), policy.backbone.free_mask, temperature=1.0)
        whole = [context + form.completion.token_ids for context, form in zip(contexts, forms, strict=True)]
        rest = [tokens[start:] for tokens, start in zip(whole, starts, strict=True)]
        assert all(rest)
        found = prefill(model, cache, starts, rest)
    for row, tokens in enumerate(whole):
        assert torch.allclose(found[row], fresh_logits(policy, tokens), atol=1e-5)
