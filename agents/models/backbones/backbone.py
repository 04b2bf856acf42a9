"""Backbone: a frozen causal language model with its tokenizer, seen as pieces of a chat."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from coars_env import BackboneError, Provenance

_SYSTEM, _USER, _REPLY, _NEXT = "\u2460", "\u2461", "\u2462", "\u2463"
"""Marks that stand for contents while the chat template is taken apart; no template holds them."""


@dataclass(eq=False)
class Backbone:
    """Model, tokenizer and the fixed texts between the messages of a chat.

    A chat is rendered by appending: `opening + system + before_user + content + header + reply + after_reply + content
    + header + ...`, so the tokens of n turns always begin those of n + 1.

    Raises:
        BackboneError: a model or a tokenizer that dialogues cannot be played with; the message says why.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    list_separator: str = "\n-"
    """Goes before each title of a list, which begins with a blank; "" where a title is one token."""
    max_reason_tokens: int = 48
    """Longest free text of a reply."""
    trained_on: Provenance | None = None
    """Data the model was built from, for locally built ones."""
    _pieces: dict[str, list[int]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_attention(self.model)
        self.model.eval().requires_grad_(False)
        frame = chat_frame(self.tokenizer)
        self.opening, self.before_user, self.header, self.after_reply = (
            self.tokenizer.encode(text, add_special_tokens=False) for text in frame
        )
        self.newline, self.newline_ids, free = _free_tokens(self.tokenizer, self.vocabulary)
        self.free_mask = free.to(self.device)  # [V] tokens a free text may hold

    def to(self, device: str) -> "Backbone":
        """Move the model, in place."""
        nn.Module.to(self.model, device)
        self.free_mask = self.free_mask.to(device)
        return self

    @property
    def vocabulary(self) -> int:
        """Rows of the output matrix; there may be more of them than tokens."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def device(self) -> torch.device:
        return self.model.device

    def encode(self, text: str) -> list[int]:
        """Token ids of one piece of text. Special tokens spelt out in it stay ordinary text: nobody can end a message,
        or speak for the other side, by writing the template's marks.
        """
        found = self._pieces.get(text)
        if found is None:
            if len(self._pieces) > 200_000:
                self._pieces.clear()
            found = self._pieces[text] = self.tokenizer.encode(
                text, add_special_tokens=False, split_special_tokens=True
            )
        return found

    def encode_all(self, texts: Iterable[str]) -> list[int]:
        return [token for text in texts for token in self.encode(text)]

    def decode(self, tokens: Sequence[int]) -> str:
        text = self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def begin(self, system: str, content: Sequence[str]) -> list[int]:
        """Tokens of system and first message, up to where the reply header goes."""
        return [*self.opening, *self.encode(system), *self.before_user, *self.encode_all(content)]

    def go_on(self, content: Sequence[str]) -> list[int]:
        """Tokens from the end of a reply to the end of the next message."""
        return [*self.after_reply, *self.encode_all(content)]


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
        # Llama's templates write today's date unless one is given
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False, date_string="26 Jul 2024"
        )
        return str(text)

    later: list[dict[str, str]] = [{"role": "assistant", "content": _REPLY}, {"role": "user", "content": _NEXT}]
    first = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    merged = [{"role": "user", "content": f"{_SYSTEM}\n\n{_USER}"}]
    try:
        try:
            one, two = render(first), render([*first, *later])
        except Exception:  # the template refuses a system role, in whatever way it was written to
            one, two = render(merged), render([*merged, *later])
    except Exception as error:
        raise BackboneError(
            "A chat template must render a dialogue. Expected system, user and assistant in turn to be accepted, found "
            f"{error!r}. Take another model."
        ) from error
    marks = (_SYSTEM, _USER, _REPLY, _NEXT)
    if [one.count(mark) for mark in marks] != [1, 1, 0, 0] or [two.count(mark) for mark in marks] != [1, 1, 1, 1]:
        raise BackboneError(
            "A chat template must show every message once. Expected system, user, reply and the next message in its "
            f"output, found {two[:200]!r}. Take another model."
        )
    (head, header), (head_again, rest) = one.split(_USER), two.split(_USER)
    after_reply, header_again = rest.partition(_REPLY)[2].split(_NEXT)
    if head_again != head or header_again != header:
        raise BackboneError(
            f"A chat template must append. Expected {head!r} before the first message and the reply header {header!r} "
            f"in every turn, found {head_again!r} and {header_again!r}. Take another model."
        )
    opening, before_user = head.split(_SYSTEM)
    return opening, before_user, header, after_reply


def _check_attention(model: PreTrainedModel) -> None:
    """A token must see all tokens before it: the masks of the decode loop and of the teacher say so."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    window = getattr(config, "sliding_window", None)
    if window is not None and window < (getattr(config, "max_position_embeddings", None) or window):
        kinds.add(f"a window of {window} tokens")
    if kinds:
        raise BackboneError(
            f"A backbone must see all it has read. Expected full attention in every layer of {model.name_or_path!r}, "
            f"found {', '.join(sorted(kinds))}. Take another model."
        )


def _free_tokens(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> tuple[int, frozenset[int], Tensor]:
    """The newline token, all tokens that end a line, and which tokens a free text may hold ([V] bool): no special
    ones, and none that breaks the line and writes on.
    """
    if len(tokenizer) > vocabulary:
        raise BackboneError(
            f"Every token needs a row of the output matrix. Expected at most {vocabulary} tokens, found "
            f"{len(tokenizer)}. Resize the model's embeddings, or load the tokenizer that belongs to it."
        )
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))], skip_special_tokens=False)
    special = set(tokenizer.all_special_ids)
    breaking = {i for i, text in enumerate(texts) if "\n" in text}
    ending = {i for i in breaking if not texts[i].rpartition("\n")[2].strip()} - special
    newlines = [i for i in (*tokenizer.encode("\n", add_special_tokens=False), *sorted(ending)) if texts[i] == "\n"]
    if not newlines:
        raise BackboneError(
            f"A reply is written in lines. Expected a token for the line break in the tokenizer of "
            f"{tokenizer.name_or_path!r}, found none. Take another model."
        )
    free = torch.zeros(vocabulary, dtype=torch.bool)
    free[: len(tokenizer)] = True
    free[sorted(special | (breaking - ending))] = False
    return newlines[0], frozenset(ending), free


def check_context(model: PreTrainedModel, tokens: int) -> None:
    """Refuse what is longer than a model was made to read: it would go on, and understand nothing.

    Raises:
        BackboneError: more tokens than places.
    """
    places = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if places is not None and tokens > places:
        raise BackboneError(
            f"A dialogue must fit the context of the model. Expected at most {places} tokens for "
            f"{model.name_or_path!r}, found {tokens}. Play fewer turns, with fewer candidates or shorter reasons, or "
            "take a model that reads more."
        )


def body(model: PreTrainedModel) -> nn.Module:
    """The layers below the output matrix of a causal language model."""
    inner = model.base_model
    assert isinstance(inner, nn.Module)
    assert inner is not model
    return inner


def layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder layers: the first list of as many modules as the model says it has layers.

    Raises:
        BackboneError: there is none.
    """
    count = model.config.get_text_config().num_hidden_layers
    for module in body(model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise BackboneError(
        f"A base is sharded by its layers. Expected a list of {count} modules in {model.name_or_path!r}, found none. "
        "Train without --use_fsdp, or take another model."
    )


def project(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Logits in fp32. [..., D] -> [..., V]"""
    logits: Tensor = model.get_output_embeddings()(hidden)
    return logits.float()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the bars and remarks of transformers, for models that load or save in a moment."""
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
