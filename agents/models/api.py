"""ApiModel: a language model behind an OpenAI-compatible endpoint, hosted or of one's own; see docs/api.md.

Replies are read by `read_values`, asked for again, and in the end recorded as errors; never mended and never replaced.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from agents.models.endpoint import Answer, ApiConfig, Endpoint, whole
from agents.models.fields import Field, Number, OneOf, Ranking, Text
from agents.models.language_model import Reply, Request
from agents.models.replies import read_values
from agents.models.reply_cache import ReplyCache
from agents.models.usage import Usage
from coars_env import BackboneError

__all__ = ["ApiConfig", "ApiModel", "form", "read_json", "schema"]

REPEATS = 2
"""Most repeated requests after a reply that cannot be read; ours."""
FORM = "Reply in exactly the lines below, each once and in this order, and write nothing else."
FORM_JSON = "Reply with one JSON object of exactly the keys below, in this order, each value a string."
ONE_LINE = "<text on one line>"
MOST_LISTED = 200
"""Options that a prompt lists, and most that a schema enumerates; ours. Endpoints refuse more than a few hundred."""
OPTIONS = "Where options stand between bars, write one of them, letter for letter."
AGAIN = "\n\nYour last reply could not be read: {}. Reply again, in the form you were told."


class ApiModel:
    """A LanguageModel that asks an endpoint for chat completions.

    Until the endpoint has answered once, whatever goes wrong is raised; from then on it is a reply with an error. The
    budget holds over the life of this object.
    """

    separator = "\n-"

    def __init__(self, config: ApiConfig) -> None:
        """Nothing is sent yet.

        Raises:
            ConfigError: the extra `api` is not installed.
        """
        self.config, self.name = config, config.model
        self._endpoint, self._turn = Endpoint(config), threading.Lock()

    @property
    def usage(self) -> Usage:
        """Of all that was sent so far, without the seconds. Replies have theirs."""
        return self._endpoint.usage

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply for each request, in their order.

        Raises:
            BackboneError: the endpoint has never answered, keeps no limits, or the cache cannot be used.
            ConfigError: the budget does not reach. What is in flight is waited for, and kept in the cache.
        """
        with self._turn:
            started = time.perf_counter()
            replies = _run(self._answer(requests))
            waited = time.perf_counter() - started
        share = Usage(seconds=waited / max(1, sum(reply.usage.calls > 0 for reply in replies)))
        return [replace(reply, usage=reply.usage + share) if reply.usage.calls else reply for reply in replies]

    async def _answer(self, requests: Sequence[Request]) -> list[Reply]:
        path, replies, rest = self.config.cache, list[Reply](), list(requests)
        with ReplyCache(path) if path else contextlib.nullcontext() as cache:
            async with self._endpoint:
                asking = _Asking(self._endpoint, cache)
                while rest and not self._endpoint.reached:  # one at a time, lest a wrong key be sent a hundred times
                    replies.append(await asking.reply(rest.pop(0)))
                found = await asyncio.gather(*map(asking.reply, rest), return_exceptions=True)
        for reply in found:
            if isinstance(reply, BaseException):
                raise reply
            replies.append(reply)
        return replies


class _Asking:
    """The requests of one call."""

    def __init__(self, endpoint: Endpoint, cache: ReplyCache | None) -> None:
        self.endpoint, self.config, self.cache = endpoint, endpoint.config, cache
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # equal requests are sent once

    async def reply(self, request: Request) -> Reply:
        """Ask, and ask again while the reply cannot be read."""
        usage, text, told = Usage(), "", ""
        for repeat in range(1 + REPEATS):
            answer = await self._kept(self._body(request, repeat, told))
            usage += answer.usage
            if answer.fault is None:
                text, found = answer.text, self._read(answer, request.fields)
                if not isinstance(found, str):
                    return Reply(found, None, text, usage)
                told = found
            elif not answer.again:
                break
        if answer.fault is not None and not self.endpoint.reached:
            raise BackboneError(
                f"An endpoint answers with chat completions. Expected one of {self.config.model!r} at "
                f"{self.config.url}, found {answer.fault}. {answer.remedy}"
            )
        return Reply(None, answer.fault or told, text, usage)

    def _body(self, request: Request, repeat: int, told: str) -> dict[str, Any]:
        """What is sent, and all that is: the cache knows a request by it.

        Args:
            request: what is asked.
            repeat: how often it has been asked.
            told: why the last reply could not be read; "" the first time.
        """
        config = self.config
        chat = [request.system + form(request.fields, structured=config.structured)]
        chat += ["".join(pieces) for pieces in request.messages]
        chat[-1] += AGAIN.format(told) if told else ""  # no message of its own: some templates want sides in turn
        roles = ["system", *(("user", "assistant")[place % 2] for place in range(len(chat) - 1))]
        body: dict[str, Any] = {
            "model": config.model,
            "messages": [{"role": role, "content": whole(text)} for role, text in zip(roles, chat, strict=True)],
            config.limit: config.max_tokens + sum(_longest(asked) for asked in request.fields),
            "seed": int(np.random.SeedSequence([*request.seed, repeat]).generate_state(1)[0]) >> 1,  # below 2^31
        }
        if config.temperature is not None:
            body["temperature"] = config.temperature
        if config.structured:
            body["response_format"] = schema(request.fields)
        return {**body, **config.extra}

    def _read(self, answer: Answer, fields: Sequence[Field]) -> tuple[str, ...] | str:
        """The values, or why they cannot be read: also a reply that was cut off, since its last value may go on."""
        if answer.finish in ("length", "content_filter"):
            return f"expected a reply that ends by itself, found it cut off ({answer.finish})"
        return (read_json if self.config.structured else read_values)(answer.text, fields)

    async def _kept(self, body: dict[str, Any]) -> Answer:
        """From the cache, or sent and kept there. A fault is not kept."""
        if self.cache is None:
            return await self.endpoint.send(body)
        key = self.cache.key([self.config.url, body])
        async with self._locks[key]:
            if (kept := self.cache.get(key)) is not None:
                return Answer(*kept)
            answer = await self.endpoint.send(body)
            if answer.fault is None:
                self.cache.put(key, [answer.text, answer.finish])
            return answer


def _run(answering: Coroutine[Any, Any, list[Reply]]) -> list[Reply]:
    """In an event loop of its own, also where one runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        busy = False
    else:
        busy = True
    if not busy:
        return asyncio.run(answering)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, answering).result()


# The form of a reply --------------------------------------------------------------------------------------------------


def form(fields: Sequence[Field], *, structured: bool) -> str:
    """What the system message says of the lines that are expected."""
    lines = [f"\n\n{FORM_JSON if structured else FORM} {OPTIONS}"]
    lines += [f"{asked.label} {_expected(asked)}" for asked in fields]
    return "\n".join(lines)


def _expected(asked: Field) -> str:
    options = asked.options or ()
    if isinstance(asked.kind, Text):
        return f"<text on one line, at least {asked.kind.min_tokens} tokens>" if asked.kind.min_tokens else ONE_LINE
    if isinstance(asked.kind, Number):
        return f"<a number from {options[0]} to {options[-1]}>"
    listed = " | ".join(options[:MOST_LISTED]) + (" | ..." if len(options) > MOST_LISTED else "")
    if isinstance(asked.kind, Ranking):
        return f"<the {asked.kind.length} best of these, best first, each once and on a line of its own> {listed}"
    return listed


def _longest(asked: Field) -> int:
    """Tokens that a field adds to the limit of a reply."""
    return (asked.kind.max_tokens or 0) if isinstance(asked.kind, Text) else 0


def schema(fields: Sequence[Field]) -> dict[str, Any]:
    """Return the same as a response_format: an object of strings, one of several options as an enum."""
    properties: dict[str, Any] = {asked.name: {"type": "string"} for asked in fields}
    for asked in fields:
        if isinstance(asked.kind, OneOf | Number) and len(asked.options or ()) <= MOST_LISTED:
            properties[asked.name]["enum"] = [option.strip() for option in asked.options or ()]
    inner = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": inner}}


def read_json(text: str, fields: Sequence[Field]) -> tuple[str, ...] | str:
    """The values of a JSON object by the rule of `read_values`, or why they cannot be read."""
    names = [asked.name for asked in fields]
    try:
        pairs = json.loads(text, object_pairs_hook=tuple, parse_int=str, parse_float=str)
        values = dict(pairs) if isinstance(pairs, tuple) and len(pairs) == len(names) else {}
    except (ValueError, RecursionError):
        values = {}
    if set(values) != set(names) or not all(isinstance(value, str) for value in values.values()):
        return f"expected a JSON object of the keys {names}, each once and with a string, found {text[:80]!r}"
    return read_values(
        "".join(f"{asked.label} {values[name]}\n" for asked, name in zip(fields, names, strict=True)), fields
    )
