"""Backbone: a frozen causal language model with its tokenizer, seen as pieces of a chat."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jinja2.exceptions import TemplateError
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from coars_env import BackboneError, Provenance

_SYSTEM, _USER, _REPLY, _NEXT = "\u2460", "\u2461", "\u2462", "\u2463"
"""Marks that stand for contents while the chat template is taken apart; no template holds them."""


@dataclass(eq=False)
class Backbone:
    """Model, tokenizer and the fixed texts between the messages of a chat.

    A chat is rendered by appending: `opening + system + before_user + content + reply_header + reply + after_reply +
    content + reply_header + ...`, so the tokens of n turns always begin those of n + 1.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    list_separator: str = "\n- "
    """Goes before each title of a list; "" where a title is one token."""
    max_reason_tokens: int = 48
    """Longest free text of a reply."""
    trained_on: Provenance | None = None
    """Data the model was built from, for locally built ones."""
    pieces: dict[str, list[int]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.model.eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        self.opening, self.before_user, self.reply_header, self.after_reply = chat_frame(self.tokenizer)
        newline = [i for i, text in enumerate(self._texts()) if "\n" in text]
        special = set(self.tokenizer.all_special_ids)
        self.newline_ids = frozenset(newline) - special
        free = torch.ones(self.vocabulary, dtype=torch.bool)
        free[list(special)] = False
        free[len(self.tokenizer) :] = False
        self.free_mask = free.to(self.device)  # [V] tokens a free text may hold

    def _texts(self) -> list[str]:
        tokenizer = self.tokenizer
        return tokenizer.batch_decode([[i] for i in range(len(tokenizer))], skip_special_tokens=False)

    @property
    def vocabulary(self) -> int:
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def device(self) -> torch.device:
        return self.model.device

    def encode(self, text: str) -> list[int]:
        """Token ids of one piece of text, no special tokens added."""
        found = self.pieces.get(text)
        if found is None:
            if len(self.pieces) > 200_000:
                self.pieces.clear()
            found = self.pieces[text] = self.tokenizer.encode(text, add_special_tokens=False)
        return found

    def encode_all(self, texts: Iterable[str]) -> list[int]:
        return [token for text in texts for token in self.encode(text)]

    def decode(self, tokens: Sequence[int]) -> str:
        text = self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def begin(self, system: str, content: Sequence[str]) -> list[int]:
        """Tokens of system and first message, up to where the reply header goes."""
        return self.encode_all((self.opening, system, self.before_user, *content))

    def go_on(self, content: Sequence[str]) -> list[int]:
        """Tokens from the end of a reply to the end of the next message."""
        return self.encode_all((self.after_reply, *content))


def chat_frame(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str, str, str]:
    """The four fixed texts of a tokenizer's chat template: before the system text, between system and first message,
    the reply header, and from a reply to the next message. Thinking is switched off.

    Raises:
        BackboneError: no chat template, or one that rewrites earlier turns.
    """
    if tokenizer.chat_template is None:
        raise BackboneError(
            f"A backbone needs a chat template. Expected one in the tokenizer of {tokenizer.name_or_path!r}, found "
            "none. Take an instruct model, or set tokenizer.chat_template."
        )

    def render(messages: list[dict[str, str]]) -> str:
        text: Any = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return str(text)

    first = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    try:
        opened = render(first)
    except TemplateError:  # the template refuses a system role
        first = [{"role": "user", "content": f"{_SYSTEM}\n\n{_USER}"}]
        opened = render(first)
    later = render([*first, {"role": "assistant", "content": _REPLY}, {"role": "user", "content": _NEXT}])
    if _SYSTEM not in opened or _USER not in opened or _REPLY not in later or _NEXT not in later:
        raise BackboneError(
            "A chat template must show every message. Expected system, user and reply in its output, found "
            f"{later[:200]!r}. Take another model."
        )
    opening, rest = opened.split(_SYSTEM)
    before_user, header = rest.split(_USER)
    after_reply, header_again = later.split(_REPLY)[1].split(_NEXT)
    if header_again != header:
        raise BackboneError(
            f"A chat template must append. Expected the reply header {header!r} in every turn, found "
            f"{header_again!r}. Take another model."
        )
    return opening, before_user, header, after_reply


def body(model: nn.Module) -> nn.Module:
    """The layers below the output matrix of a causal language model."""
    inner = getattr(model, "base_model", None)
    assert isinstance(inner, nn.Module)
    return inner


def project(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Logits in fp32. [..., D] -> [..., V]"""
    return model.get_output_embeddings()(hidden).float()
