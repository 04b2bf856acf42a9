"""Endpoint: one request to an OpenAI-compatible endpoint: its tries, its faults, what it costs, and the budget."""

import asyncio
import json
import math
import os
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from agents.models.usage import Usage
from coars_env import BackboneError, ConfigError

OURS = {"model", "messages", "seed", "temperature", "max_tokens", "max_completion_tokens", "response_format"}
"""Fields of a request that have a setting, or none on purpose."""
NOT_KNOWN = (
    "Check the name of the model, and drop what it does not know: structured=False, temperature=None, or the other "
    "name for `limit`."
)
REMEDIES = {
    400: NOT_KNOWN,
    401: "Put a key of this endpoint into the environment variable {key_from}.",
    403: "Put a key that may use this model into the environment variable {key_from}.",
    404: "Check the url, which mostly ends in /v1, and the name of the model.",
    422: NOT_KNOWN,
}
URL = re.compile(r"https?://(\[[0-9A-Fa-f:]+\]|[^\s/@?#:\[\]]+)(:[0-9]{1,5})?(/[^\s@?#]*)?")
"""A host, a port and a path, without user, password or query: these may hold a key."""
UNREACHED = "See that the endpoint runs, that it is not overloaded, and that the url leads to it."


@dataclass(frozen=True, kw_only=True)
class ApiConfig:
    """Where the model is, how it is asked, and what it may cost."""

    url: str
    """Address of the endpoint, up to before /chat/completions; for instance http://localhost:11434/v1."""
    model: str
    """Its name there."""
    key_from: str = "OPENAI_API_KEY"
    """Environment variable with the key, which is sent to `url` and kept nowhere; unset for endpoints that ask none."""
    temperature: float | None = 0.0
    """None leaves it to the endpoint: OpenAI's reasoning models take no other."""
    max_tokens: int = 512
    """Longest reply, hidden reasoning included; a field's own `max_tokens` is added to it. Ours."""
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls that limit. OpenAI's reasoning models refuse the first, Ollama ignores the second."""
    structured: bool = False
    """Whether a JSON schema (response_format) holds the reply to the options; for endpoints that know it."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More fields of each request, as the endpoint documents them; for instance {"reasoning_effort": "low"}."""
    concurrency: int = 16
    """Most requests at a time; ours."""
    timeout: float = 120.0
    """Seconds of silence after which a try has failed; ours."""
    retries: int = 4
    """Tries after the first, of a request that was refused for now (408, 409, 429, 5xx) or broke off; ours."""
    patience: float = 600.0
    """Seconds for a request, with all tries and the waits between them; ours."""
    max_dollars: float | None = None
    """Budget of one `ApiModel`; None where nothing is paid."""
    price_read: float = 0.0
    """US dollars for a million tokens of prompts."""
    price_written: float = 0.0
    """US dollars for a million tokens of replies."""
    cache: Path | None = None
    """File that keeps replies, made if there is none; None keeps nothing."""

    def __post_init__(self) -> None:
        names_a_variable = re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.key_from)
        if not names_a_variable or not URL.fullmatch(self.url):
            raise ConfigError(  # without what was found, which may hold a key
                "A key stands in an environment variable only. Expected key_from to be the name of one, in capitals, "
                "and a url that begins with http:// or https:// and holds no user, password or query, found others. "
                'Pass key_from="OPENAI_API_KEY" and a url like http://localhost:8000/v1.'
            )
        priced = self.price_read > 0 or self.price_written > 0
        rules = {
            "max_tokens >= 1": self.max_tokens >= 1,
            "concurrency >= 1": self.concurrency >= 1,
            "timeout > 0": self.timeout > 0,
            "patience > 0": self.patience > 0,
            "retries >= 0": self.retries >= 0,
            "temperature >= 0 or None": self.temperature is None or 0 <= self.temperature < math.inf,
            "prices >= 0": 0 <= self.price_read < math.inf and 0 <= self.price_written < math.inf,
            "max_dollars > 0 with a price, None without": ((self.max_dollars or 0) > 0) == priced,
            "extra without what has a setting, n and stream": not (OURS | {"n", "stream"}) & set(self.extra),
        }
        if broken := [rule for rule, kept in rules.items() if not kept]:
            raise ConfigError(
                "A request has bounds, and what is paid for has a budget. Expected " + "; ".join(broken) + f", found "
                f"{self}. Mend the settings."
            )


@dataclass(frozen=True)
class Answer:
    """What a request came to: a text, or a fault."""

    text: str = ""
    finish: str | None = None
    """Why the text ends, in the endpoint's words."""
    usage: Usage = field(default_factory=Usage)
    fault: str | None = None
    again: bool = False
    """Whether the fault is of one reply, and the same may be asked once more."""
    remedy: str = UNREACHED


_tries: ContextVar[list[bool]] = ContextVar("_tries")
"""Of the request that this task sends: whether each try may have been paid for."""


async def _begun(request: Any) -> None:
    tries = _tries.get()
    tries.append(False)

    async def trace(event: str, _: object) -> None:
        if event.endswith("send_request_headers.started"):  # there is a connection
            tries[-1] = True

    request.extensions["trace"] = trace


async def _answered(response: Any) -> None:
    _tries.get()[-1] = response.status_code < 300  # a refusal is free


class Endpoint:
    """Sends requests within a budget: `async with endpoint`, in one event loop at a time.

    The client library `openai` sends, waits and tries again; its Retry-After is honoured up to two minutes.
    """

    def __init__(self, config: ApiConfig) -> None:
        """Nothing is sent yet.

        Raises:
            ConfigError: the extra `api` is not installed; on entering, a key that cannot be sent.
        """
        try:
            import openai
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"Endpoints are spoken to by the extra api. Expected {error.name}, found none. "
                'Install it: pip install "coars-env[api]"'
            ) from error
        self._openai, self.config = openai, config
        self.usage = Usage()
        """Of all that was sent so far, without the seconds."""
        self.reached = False
        """Whether there ever was a chat completion."""
        self._held: list[float] = []  # the most that each request in flight may cost, in dollars
        self._stopped = False

    async def __aenter__(self) -> Self:
        openai, config = self._openai, self.config
        if not re.fullmatch("[!-~]*", self._key):  # libraries show a header that they refuse
            raise ConfigError(
                f"A key is sent in a header. Expected {config.key_from} to hold printable ASCII without blanks, found "
                "other characters. Set it again."
            )
        self._client = openai.AsyncOpenAI(
            base_url=config.url,
            api_key=self._key or "none",
            timeout=config.timeout,
            max_retries=config.retries,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"request": [_begun], "response": [_answered]}),
        )
        self._slots, self._settled = asyncio.Semaphore(config.concurrency), asyncio.Condition()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def send(self, body: dict[str, Any]) -> Answer:
        """Send one request, and settle what it has cost.

        No token is shorter than a byte, so a try costs at most what the bytes of its body would cost as tokens, and the
        longest reply. One that reached the endpoint, and was neither refused nor answered, counts as that much.

        Raises:
            ConfigError: the budget does not reach.
            BackboneError: a reply cost more than is possible by the limits that were sent.
        """
        openai, limit = self._openai, body[self.config.limit]
        most = self._price(len(json.dumps(body)), limit)
        answer, tries, held = Answer(), list[bool](), most * (1 + self.config.retries)
        async with self._slots:
            await self._hold(held)
            _tries.set(tries)
            try:
                async with asyncio.timeout(self.config.patience):
                    answer = self._parsed(await self._client.post("/chat/completions", cast_to=object, body=body))
            except openai.APIStatusError as error:
                remedy = REMEDIES.get(error.status_code, UNREACHED).format(key_from=self.config.key_from)
                said = self._clean(f"status {error.status_code}: {error.response.text.strip()}", 300)
                answer = Answer(fault=said, remedy=remedy)
            except openai.OpenAIError as error:
                answer = Answer(fault=self._clean(f"{error} ({error.__cause__!r})", 300))
            except TimeoutError:
                answer = Answer(fault=f"no whole answer within {self.config.patience} s")
            except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
                answer = Answer(fault=f"a body that is no JSON ({error!s:.100})", again=True)
            finally:
                known = answer.usage
                money = self._price(known.tokens_read, known.tokens_written)
                unknown = sum(tries) - known.calls
                usage = replace(known, calls=len(tries), money=money + unknown * most)
                self.usage += usage
                async with self._settled:
                    self._held.remove(held)
                    self._settled.notify_all()
        self.reached |= answer.fault is None
        if money > most:
            raise BackboneError(
                f"A budget can be kept only where limits are. Expected a reply of at most {limit} tokens, for "
                f"${most:.6f} at most, found one of {known.tokens_written} after {known.tokens_read} that were read, "
                f"for ${money:.6f}. Try the other name for `limit`, see docs/api.md."
            )
        return replace(answer, usage=usage)

    async def _hold(self, most: float) -> None:
        """Lay aside the most that a request may cost, or wait until others have settled, or stop for good."""
        limit = math.inf if self.config.max_dollars is None else self.config.max_dollars

        def fits() -> bool:
            return self.usage.money + sum(self._held) + most <= limit

        async with self._settled:
            await self._settled.wait_for(lambda: self._stopped or not self._held or fits())
            if self._stopped or not fits():
                self._stopped = True
                kept = f"is in {self.config.cache}" if self.config.cache else "is lost, as there is no cache"
                raise ConfigError(
                    f"A budget is not passed. Expected max_dollars=${limit:.6f} at most, found ${self.usage.money:.6f} "
                    f"spent and a request that may cost ${most:.6f} with all its tries. What was answered so far "
                    f"{kept}. Raise max_dollars and run again, with the same cache."
                )
            self._held.append(most)

    def _parsed(self, data: Any) -> Answer:
        """A chat completion. Its usage has 1 call if it says its tokens, and none if it does not."""
        try:
            data = json.loads(data) if isinstance(data, str) else data
            choice = data["choices"][0]
            tokens: Any = data.get("usage") or {}
            read, written = tokens.get("prompt_tokens"), tokens.get("completion_tokens")
            known = isinstance(read, int) and isinstance(written, int) and read >= 0 and written >= 0
            usage = Usage(1, read, written) if known else Usage()
            text = self._clean(whole(choice["message"]["content"] or ""))
            return Answer(text, choice.get("finish_reason"), usage)
        except (LookupError, TypeError, AttributeError, ValueError):
            return Answer(fault=self._clean(f"a body that is no chat completion: {data}", 300), again=True)

    def _price(self, read: int, written: int) -> float:
        return (self.config.price_read * read + self.config.price_written * written) / 1e6

    @property
    def _key(self) -> str:
        return os.environ.get(self.config.key_from, "").strip()

    def _clean(self, text: str, longest: int | None = None) -> str:
        """What an endpoint says, without the key: some send it back. What is shorter than eight letters is no secret,
        and may be a word ("EMPTY").
        """
        return (text.replace(self._key, "[key]") if len(self._key) >= 8 else text)[:longest]


def whole(text: str) -> str:
    """A text without half characters, which can be neither sent nor kept."""
    return text.encode(errors="replace").decode()
