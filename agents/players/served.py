"""ServedAgent: an LLMAgent whose replies a server writes, one that speaks vLLM's protocol; see docs/serving.md.

A reply is the form of the local decode loop, asked for stretch by stretch: its free text in one request, or two where
it has a least length, and each token that has several ways to go on in a request of its own, whose `allowed_token_ids`
are these ways. So server and trainer
sample from one distribution. A constraint on text, vLLM's `structured_outputs`, would be another: it lets a title be
spelt in tokens that no option has.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from agents.models.decoding import Allowed, AnyBut, Form
from agents.models.policy import ADAPTERS, Policy
from agents.models.prompts import ASK_RECOMMENDER, RECOMMENDER_SYSTEM, Notes, no_notes
from agents.models.replies import ReplyFormat
from agents.players.llm_agent import LLMAgent
from coars_env import ROLES, BackboneError, ConfigError, Item, Role, Task

if TYPE_CHECKING:
    import httpx2

MOST_MISMATCH = 0.1
"""Nats a token, as a mean of absolute differences; ours. Above it, what a server says of its tokens is not what the
trainer says of them, and no ratio will mend that: another base, another adapter, or another distribution."""
CONSTRAINED = 1e-3
"""Largest log-probability, without its sign, that rounding may give a token that had no other beside it; ours."""
PROBE_TOKENS = 16
FULL_SUPPORT = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""A server takes these from the model's own files unless it is told; any other value samples from something else."""
BANNED = -100.0
"""The strongest bias that the protocol has."""


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Who writes the replies of the training dialogues."""

    url: str | None = None
    """Address of a vLLM server, for instance http://localhost:8000, see docs/serving.md; None for the local decode
    loop."""
    concurrency: int = 64
    """Most requests at a time; ours."""
    timeout: float = 120.0
    """Seconds for a request, its wait for others included; ours."""

    def __post_init__(self) -> None:
        known = self.url is None or self.url.startswith(("http://", "https://"))
        if not known or self.concurrency < 1 or not self.timeout > 0:
            raise ConfigError(
                "A server has an address and is given time. Expected a url that begins with http:// or https://, "
                f"concurrency >= 1 and timeout > 0, found {self}. Mend the settings."
            )


class ServerFault(Exception):
    """A request was not answered, or not as it was asked. While dialogues are played that is data, see `play`."""


class Server:
    """A server that holds the base of a policy, and is told its adapters: `with Server(...) as server`.

    An adapter has the digest of its weights in its name, so one that was changed is a new one to the server. That is on
    purpose: under one name vLLM may answer from a prefix cache of the old weights (vllm-project/vllm#42125).

    Raises:
        ConfigError: the extra `server` is not installed.
    """

    def __init__(self, policy: Policy, config: ServerConfig, folder: Path) -> None:
        """Nothing is sent yet.

        Args:
            policy: its backbone is what the server must serve.
            config: with a url.
            folder: for the adapters; the server must see it under the same path. Removed in the end.
        """
        try:
            import httpx2
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"A server is spoken to by the extra server. Expected {error.name}, found none. "
                'Install it: pip install "coars-env[server]"'
            ) from error
        assert config.url is not None
        self.policy, self.concurrency, self.url = policy, config.concurrency, config.url
        backbone = policy.backbone
        self._folder = folder.resolve()
        self._names: dict[Role, str] = {}
        self._checked = False
        free = backbone.free_mask.tolist()
        self._free = {token for token, may in enumerate(free) if may}
        self._free_text = {
            "logit_bias": {str(token): BANNED for token, may in enumerate(free) if not may},
            "stop_token_ids": sorted(backbone.newline_ids),
        }
        key = os.environ.get("VLLM_API_KEY")
        self._client: httpx2.Client = httpx2.Client(
            base_url=config.url,
            timeout=config.timeout,
            headers={"Authorization": f"Bearer {key}"} if key else None,
            # vLLM hangs up after five idle seconds; whoever then writes first has lost
            limits=httpx2.Limits(max_connections=config.concurrency, keepalive_expiry=2.0),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._names.values():
            try:
                self._unload(name)
            except ServerFault:  # it may be gone, and the run is over
                break
        self._client.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def publish(self) -> None:
        """Make the server write with the adapters as they are now. The first time it is checked, too.

        Raises:
            BackboneError: it cannot be reached, takes no adapters, returns no token ids or no log-probabilities of the
                constrained distribution, or finds its tokens less or more likely than the policy does by
                `MOST_MISMATCH`.
        """
        names = {role: f"{ADAPTERS[role]}-{_digest(self.policy, role)}" for role in ROLES}
        changed = {role: name for role, name in names.items() if name != self._names.get(role)}
        if not changed:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as part:
            self.policy.save(Path(part))
            for role, name in changed.items():
                shutil.rmtree(self._folder / name, ignore_errors=True)
                shutil.move(Path(part, ADAPTERS[role]), self._folder / name)
        try:
            for role, name in changed.items():
                self._unload(name)  # what a run that was killed has left; its files are gone
                self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(self._folder / name)})
                old, self._names[role] = self._names.get(role), name
                if old is not None:
                    self._unload(old)
                    shutil.rmtree(self._folder / old)
        except ServerFault as fault:
            raise BackboneError(
                f"A server takes the adapters of both sides. Expected {self.url} to load {self._folder / name}, found "
                f"{fault}. Start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, with --enable-lora and where it sees "
                "this folder, see docs/serving.md."
            ) from fault
        if not self._checked:
            self._check()
            self._checked = True

    def write(
        self, role: Role, prompt: Sequence[int], allowed: Allowed, room: int, *, seed: int, temperature: float
    ) -> list[tuple[int, float]]:
        """One stretch of a reply. May be called from several threads.

        Args:
            role: whose adapter writes.
            prompt: tokens of the dialogue so far.
            allowed: what the token may be; a free text for None, and without a line end for `AnyBut`.
            room: most tokens.
            seed: of the sampling.
            temperature: 0 for the likeliest.

        Returns:
            Each token with its log-probability in nats, under constraint and temperature.

        Raises:
            ServerFault: no answer, none that can be read, or one that is not allowed.
        """
        body = {
            "model": self._names[role],
            "prompt": list(prompt),
            "max_tokens": room,
            "temperature": temperature,
            "seed": seed,
            "logprobs": 1,
            "return_token_ids": True,
            "ignore_eos": True,
            **FULL_SUPPORT,
            **self._constraint(allowed, room),
        }
        text = self._post("/v1/completions", body).text
        try:
            choice = json.loads(text)["choices"][0]
            tokens, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
            written = [(index(token), float(logprob)) for token, logprob in zip(tokens, logprobs, strict=True)]
        except (LookupError, TypeError, ValueError) as error:
            raise ServerFault(
                f"expected token_ids (vLLM's return_token_ids) and logprobs, found {text:.200} ({error!r})"
            ) from error
        self._check_stretch([token for token, _ in written], allowed, room)
        return written

    def _constraint(self, allowed: Allowed, room: int) -> dict[str, Any]:
        """Return the keys of a request that hold its tokens to what is allowed."""
        if isinstance(allowed, tuple):
            return {"allowed_token_ids": list(allowed)}
        if isinstance(allowed, AnyBut):  # of least length: until then vLLM samples no token that stops
            return {**self._free_text, "stop_token_ids": sorted(allowed.tokens), "min_tokens": room}
        return self._free_text

    def _check_stretch(self, tokens: Sequence[int], allowed: Allowed, room: int) -> None:
        """Refuse what the form could not take."""
        if isinstance(allowed, tuple):
            fits, expected = len(tokens) == 1 and tokens[0] in allowed, f"one of {len(allowed)} tokens"
        elif isinstance(allowed, AnyBut):
            fits = len(tokens) == room and (self._free - allowed.tokens).issuperset(tokens)
            expected = "text that goes on"
        else:
            line_ends = [token in self.policy.backbone.newline_ids for token in tokens]
            whole = len(tokens) == room or (0 < len(tokens) < room and line_ends[-1])
            fits, expected = whole and self._free.issuperset(tokens) and not any(line_ends[:-1]), "one line of text"
        if not fits:
            raise ServerFault(f"expected {expected}, at most {room} long, found tokens {list(tokens)!s:.200}")

    @torch.no_grad()
    def _check(self) -> None:
        """Ask both adapters for a few tokens, and the policy what it thinks of them."""
        backbone = self.policy.backbone
        prompt = [*backbone.begin(RECOMMENDER_SYSTEM, (ASK_RECOMMENDER,)), *backbone.header]
        for role in ROLES:
            try:
                alone = [
                    abs(self.write(role, prompt, (token,), 1, seed=0, temperature=1.0)[0][1])
                    for token in sorted(self._free)[:2]  # not both can be certain without the constraint
                ]
                written = self.write(role, prompt, None, PROBE_TOKENS, seed=0, temperature=1.0)
            except ServerFault as fault:
                raise BackboneError(
                    f"A server writes tokens with their log-probabilities. Expected some of {self.url}, found {fault}. "
                    "Start vLLM as docs/serving.md says."
                ) from fault
            if max(alone) > CONSTRAINED:
                raise BackboneError(
                    "Log-probabilities are those of the distribution that was sampled. Expected 0 of a token that had "
                    f"no other beside it, found -{max(alone):.3g}. Start vLLM with --logprobs-mode processed_logprobs."
                )
            tokens = [*prompt, *(token for token, _ in written)]
            columns = torch.arange(len(prompt), len(tokens), device=backbone.device)
            found = self.policy.score(
                role,
                torch.tensor([tokens], device=backbone.device),
                (torch.zeros_like(columns), columns),
                [None] * len(written),
            )
            mismatch = float(np.mean([abs(a - b) for a, (_, b) in zip(found.tolist(), written, strict=True)]))
            if not mismatch <= MOST_MISMATCH:
                raise BackboneError(
                    "A server writes with the weights that are trained. Expected log-probabilities within "
                    f"{MOST_MISMATCH} nats of the policy's, found {mismatch:.3g} on {len(written)} tokens of "
                    f"{ADAPTERS[role]}. Serve the base that --backbone names."
                )

    def _unload(self, name: str) -> None:
        self._post("/v1/unload_lora_adapter", {"lora_name": name}, missing_ok=True)

    def _post(self, path: str, body: Mapping[str, Any], *, missing_ok: bool = False) -> "httpx2.Response":
        import httpx2

        try:
            response = self._client.post(path, json=body)
        except httpx2.HTTPError as error:
            raise ServerFault(f"{error!r} at {path}") from error
        if response.is_error and not (missing_ok and response.status_code == 404):
            raise ServerFault(f"status {response.status_code} at {path}: {response.text:.200}")
        return response


def _digest(policy: Policy, role: Role) -> str:
    """Of an adapter's weights."""
    h = hashlib.sha256()
    for name, parameter in policy.named_parameters(role):
        h.update(name.encode())
        h.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return h.hexdigest()[:16]


class ServedAgent(LLMAgent):
    """An LLMAgent that lets a server write: the same rows, with the server's log-probabilities in them.

    All dialogues of a half-turn are written at once. One that the server fails in ends as failed, with the cause.
    """

    samples_elsewhere = True

    def __init__(
        self,
        server: Server,
        role: Role,
        items: Sequence[Item],
        *,
        temperature: float = 1.0,
        opinions: bool = True,
        reply_format: ReplyFormat | None = None,
        notes: Notes = no_notes,
    ) -> None:
        super().__init__(
            server.policy,
            role,
            items,
            temperature=temperature,
            opinions=opinions,
            reply_format=reply_format,
            notes=notes,
        )
        self._server = server

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Publish the adapters as they are now."""
        self._server.publish()

    def _fill(self, forms: Mapping[int, Form]) -> dict[int, str]:
        with ThreadPoolExecutor(min(len(forms), self._server.concurrency)) as pool:
            causes = pool.map(self._write, forms, forms.values())
            return {number: cause for number, cause in zip(forms, causes, strict=True) if cause is not None}

    def _write(self, number: int, form: Form) -> str | None:
        """Write one reply. Request k of a dialogue has the k-th number of the dialogue's own stream as its seed."""
        row, rng = self.rows[number], self._rngs[number]
        try:
            while not form.finished:
                stretch = self._server.write(
                    self.role,
                    [*row.token_ids, *form.completion.token_ids],
                    form.allowed(),
                    form.room,
                    seed=int(rng.integers(2**31)),
                    temperature=self.temperature,
                )
                for token, logprob in stretch:
                    form.push(token, logprob)
        except ServerFault as fault:
            return str(fault)
        return None
