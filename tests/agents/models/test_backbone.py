"""A backbone takes a chat apart without changing it, and refuses what dialogues cannot be played with."""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from agents.models.backbones.backbone import Backbone, body, chat_frame, project, quiet
from coars_env import BackboneError

KINDS = ("pocket", "llama", "qwen3")
CHATML = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"


def with_template(lab: Any, template: str | None) -> Any:
    tokenizer = lab.backbone("qwen3").tokenizer
    tokenizer.chat_template = template
    return tokenizer


# The frame of a chat --------------------------------------------------------------------------------------------------


def test_a_template_is_taken_apart(lab: Any) -> None:
    template = CHATML + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    assert chat_frame(with_template(lab, template)) == (
        "<|im_start|>system\n",
        "<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>\n<|im_start|>user\n",
    )


def test_thinking_is_switched_off_as_qwen_does_it(lab: Any) -> None:
    think = "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    template = CHATML + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}" + think + "{% endif %}"
    assert chat_frame(with_template(lab, template))[2].endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_template_without_a_system_role_gets_it_in_the_first_message(lab: Any) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ '[' + m.role + ']' + m.content }}{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
    )
    assert chat_frame(with_template(lab, template)) == ("[user]", "\n\n", "[assistant]", "[user]")


def test_a_template_that_writes_the_date_is_given_one(lab: Any) -> None:
    template = (
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ 'Today Date: ' + date_string }}" + CHATML
    )
    assert chat_frame(with_template(lab, template))[0].startswith("Today Date: 26 Jul 2024<|im_start|>system")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "A backbone needs a chat template"),
        ("{{ raise_exception('never') }}", "A chat template must render a dialogue"),
        ("{% for m in messages %}{{ m.content.nothing.at_all }}{% endfor %}", "A chat template must render a dialogue"),
        ("{{ messages[-1].content }}", "A chat template must show every message once"),
        ("{{ messages[0].content }}" + CHATML, "A chat template must show every message once"),
        # the system text moves to the last message, as in some of Mistral's
        (
            "{% for m in messages[1:] %}[{% if loop.last %}{{ messages[0].content }} {% endif %}{{ m.content }}]"
            "{% endfor %}",
            "A chat template must append",
        ),
        # the number of messages stands in front
        ("{{ messages | length }}" + CHATML, "A chat template must append"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}{{ messages | length }}", "A chat template must append"),
    ],
)
def test_a_template_that_does_not_append_is_refused(lab: Any, template: str | None, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        chat_frame(with_template(lab, template))


@pytest.mark.parametrize("kind", KINDS)
def test_a_chat_is_put_together_from_its_pieces(lab: Any, kind: str) -> None:
    backbone = lab.backbone(kind)
    row = [*backbone.begin("Be kind.", ("Who?", " Heat")), *backbone.header, *backbone.encode("Me.\n")]
    row += [*backbone.go_on(("And now?",)), *backbone.header]
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Who? Heat"},
        {"role": "assistant", "content": "Me.\n"},
        {"role": "user", "content": "And now?"},
    ]
    rendered = backbone.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert backbone.tokenizer.decode(row, skip_special_tokens=False) == rendered


# Tokens ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_marks_spelt_out_in_a_text_stay_text(lab: Any, kind: str) -> None:
    backbone = lab.backbone(kind)
    special = set(backbone.tokenizer.all_special_ids)
    assert special & set(backbone.header)
    for mark in backbone.tokenizer.all_special_tokens:
        tokens = backbone.encode(f" a{mark}b")
        assert special.isdisjoint(tokens)
        assert backbone.decode(tokens) == f" a{mark}b"


@pytest.mark.parametrize("kind", KINDS)
def test_free_text_holds_ordinary_tokens_that_keep_to_the_line_or_end_it(lab: Any, kind: str) -> None:
    backbone = lab.backbone(kind)
    tokenizer = backbone.tokenizer
    assert backbone.free_mask.shape == (backbone.vocabulary,)
    assert not backbone.free_mask[len(tokenizer) :].any()  # rows of the matrix that no token has
    for token in range(len(tokenizer)):
        text = tokenizer.decode([token])
        ends = "\n" in text and not text.rpartition("\n")[2].strip()
        special = token in tokenizer.all_special_ids
        assert (token in backbone.newline_ids) == (ends and not special)
        assert bool(backbone.free_mask[token]) == (not special and ("\n" not in text or ends))
    assert tokenizer.decode([backbone.newline]) == "\n"
    assert backbone.newline in backbone.newline_ids
    if kind == "pocket":  # "\nCandidates:" is one token there, and would open a part of the prompt
        assert not backbone.free_mask[tokenizer.get_vocab()["\nCandidates:"]]


def test_tokens_that_end_a_line_may_say_something_before_it(lab: Any) -> None:
    tokenizer = lab.backbone("qwen3").tokenizer
    tokenizer.add_tokens([".\n", "\n\n", "\n  ", "\nx", "a\nb"])
    model = lab.backbone("qwen3").model
    model.resize_token_embeddings(len(tokenizer) + 1)
    backbone = Backbone(model, tokenizer)
    ids = tokenizer.get_vocab()
    assert {ids[".\n"], ids["\n\n"], ids["\n  "]} <= backbone.newline_ids
    assert {ids["\nx"], ids["a\nb"]}.isdisjoint(backbone.newline_ids)
    assert backbone.free_mask[[ids[".\n"], ids["\n\n"], ids["\nx"], ids["a\nb"]]].tolist() == [True, True, False, False]


# What is refused ------------------------------------------------------------------------------------------------------


def test_a_tokenizer_with_more_tokens_than_the_model_has_rows_is_refused(lab: Any) -> None:
    backbone = lab.backbone("llama")
    backbone.tokenizer.add_tokens([f"<{n}>" for n in range(9)])
    with pytest.raises(BackboneError, match=r"Every token needs a row of the output matrix\. Expected at most 403"):
        Backbone(backbone.model, backbone.tokenizer)


def test_a_tokenizer_without_line_breaks_is_refused(lab: Any) -> None:
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")))
    words.chat_template = CHATML
    with pytest.raises(BackboneError, match="A reply is written in lines"):
        Backbone(lab.backbone("llama").model, words)


def test_a_model_that_does_not_see_all_it_has_read_is_refused(lab: Any) -> None:
    backbone = lab.backbone("qwen3")
    backbone.model.config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(BackboneError, match="found sliding_attention"):
        Backbone(backbone.model, backbone.tokenizer)
    backbone = lab.backbone("llama")
    backbone.model.config.sliding_window = 16
    with pytest.raises(BackboneError, match="found a window of 16 tokens"):
        Backbone(backbone.model, backbone.tokenizer)
    backbone.model.config.sliding_window = backbone.model.config.max_position_embeddings
    Backbone(backbone.model, backbone.tokenizer)


# The model ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_is_frozen_and_its_logits_are_those_of_the_whole_model(lab: Any, kind: str) -> None:
    backbone = lab.backbone(kind)
    assert not backbone.model.training
    assert not any(p.requires_grad for p in backbone.model.parameters())
    ids = torch.arange(10, 22).reshape(2, 6)
    hidden = body(backbone.model)(input_ids=ids, use_cache=False).last_hidden_state
    assert torch.allclose(project(backbone.model, hidden), backbone.model(input_ids=ids).logits, atol=1e-6)


def test_quiet_puts_back_what_it_changed() -> None:
    before = logging.is_progress_bar_enabled(), logging.get_verbosity()
    with quiet():
        assert not logging.is_progress_bar_enabled()
    assert (logging.is_progress_bar_enabled(), logging.get_verbosity()) == before
    with pytest.raises(KeyError), quiet():
        raise KeyError
    assert (logging.is_progress_bar_enabled(), logging.get_verbosity()) == before
