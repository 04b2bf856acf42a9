"""Replies written by a server, a process that speaks vLLM's protocol: the same dialogues, the same updates."""

import json
import math
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from agents.models.decoding import AnyBut
from agents.models.policy import ADAPTERS, Policy
from agents.models.replies import DEFAULT_FORMATS, ReplyFormat
from agents.players.served import ServedAgent, Server, ServerConfig, ServerFault
from agents.runs.command import read_command
from agents.runs.config import AnyTrainConfig
from agents.runs.run import new_policy, open_server, run_training
from agents.training.coars import Coars
from agents.training.credit import student_logprobs
from agents.training.distributed import ProcessGroup
from agents.training.losses import policy_gradient
from agents.training.samples import collate, training_sample
from agents.training.update import StepMetrics
from coars_env import (
    RECOMMENDER,
    ROLES,
    USER,
    BackboneError,
    CoarsReward,
    ConfigError,
    Dialogue,
    Role,
    Split,
    TaskBuilder,
    TrainingError,
    Transcript,
    play,
)
from coars_env.testing import check_agent, toy_dataset

SCRIPT = Path(__file__).with_name("tiny_server.py")
PROBES = 2 * 3
"""Requests by which a server is checked once."""


@pytest.fixture(scope="module")
def addresses(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Of two server processes with the tiny Qwen3, whose titles are several tokens long. Under /other the first has one
    with its matrices upside down; the second dies after a few replies.
    """
    base, other = lab.folder("qwen3"), tmp_path_factory.mktemp("other")
    model = AutoModelForCausalLM.from_pretrained(base)
    for parameter in model.parameters():
        parameter.data = parameter.data.flip(0)
    model.save_pretrained(other)
    command = [sys.executable, str(SCRIPT), str(base), "--other", str(other), "--mortal", str(PROBES + 10)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()


@pytest.fixture(scope="module")
def url(addresses: list[str]) -> str:
    return addresses[0]


@pytest.fixture
def opened(url: str, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers of policies: `opened(policy, "/slow", timeout=0.2)`."""
    servers: list[Server] = []

    def make(policy: Policy, fault: str = "", *, kind: type[Server] = Server, **settings: Any) -> Server:
        config = ServerConfig(url=url + fault, **settings)
        servers.append(kind(policy, config, tmp_path / f"served-{len(servers)}"))
        return servers[-1]

    yield make
    for server in servers:
        server.__exit__()


def seen(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url + "/seen") as answer:
        return dict(json.load(answer))


def played(
    server: Server,
    lab: Any,
    n: int = 4,
    *,
    dialogues: list[Dialogue] | None = None,
    temperature: float = 1.0,
    max_turns: int = 2,
    first: int = 0,
    formats: Mapping[Role, ReplyFormat] = DEFAULT_FORMATS,
) -> tuple[dict[Role, ServedAgent], list[Dialogue]]:
    """Dialogues between two agents of a server, played to their end, whatever that is."""
    dialogues = dialogues or lab.dialogues(n, max_turns=max_turns)
    agents = {
        role: ServedAgent(server, role, lab.split.dataset.items, temperature=temperature, reply_format=formats[role])
        for role in ROLES
    }
    play(dialogues, agents[RECOMMENDER], agents[USER], numbers=range(first, first + len(dialogues)))
    return agents, dialogues


# Playing --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
def test_it_is_an_agent(lab: Any, opened: Any, role: Role) -> None:
    server = opened(lab.policy("qwen3"))
    server.publish()
    check_agent(ServedAgent(server, role, toy_dataset().items), role)


def test_a_dialogue_goes_alike_alone_and_in_a_batch(lab: Any, opened: Any) -> None:
    server = opened(lab.policy("qwen3"))
    server.publish()
    together, _ = played(server, lab, 3, max_turns=1)
    alone, _ = played(server, lab, first=2, dialogues=lab.dialogues(3, max_turns=1)[2:])
    for role in ROLES:
        assert alone[role].rows[0] == together[role].rows[2]
        assert alone[role].rows[0].token_ids != together[role].rows[1].token_ids


@pytest.mark.parametrize("every_kind", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_what_the_server_says_of_its_tokens_the_policy_says_too(
    lab: Any, opened: Any, plain_logprobs: Callable[..., list[float]], temperature: float, every_kind: bool
) -> None:
    policy = lab.policy("qwen3")
    server = opened(policy)
    server.publish()
    formats = lab.every_kind if every_kind else DEFAULT_FORMATS
    agents, dialogues = played(server, lab, temperature=temperature, formats=formats)
    assert [dialogue.cause for dialogue in dialogues] == [None] * 4
    for role, agent in agents.items():
        for row, dialogue in zip(agent.rows, dialogues, strict=True):
            assert len(row.replies) == len(dialogue.turns)
            columns = [column for column, own in enumerate(row.sampled) if own]
            allowed = [row.allowed[column] for column in columns]
            kinds = {type(None), tuple, AnyBut} if every_kind else {type(None), tuple}
            assert {type(choices) for choices in allowed} == kinds
            expected = plain_logprobs(policy, role, row.token_ids, columns, allowed, temperature)
            assert [row.logprobs[column] for column in columns] == pytest.approx(expected, abs=1e-4)
            given = [column for column, own in enumerate(row.sampled) if not own]
            assert {row.logprobs[column] for column in given} == {0.0}


def test_greedy_play_is_that_of_the_local_decode_loop(lab: Any, opened: Any) -> None:
    policy = lab.policy("qwen3")
    server = opened(policy)
    server.publish()
    agents, dialogues = played(server, lab, temperature=0.0)
    local = lab.play(policy, dialogues=lab.dialogues(4, max_turns=2), temperature=0.0)
    assert [tuple(dialogue.turns) for dialogue in dialogues] == [t.turns for t in local.transcripts]
    for role in ROLES:
        for a, b in zip(agents[role].rows, local.agents[role].rows, strict=True):
            assert (a.token_ids, a.sampled, a.allowed) == (b.token_ids, b.sampled, b.allowed)
            assert (a.opening, a.context_ends, a.replies) == (b.opening, b.context_ends, b.replies)
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def test_greedy_play_in_every_kind_of_field_is_that_of_the_local_decode_loop(lab: Any, opened: Any) -> None:
    policy = lab.policy("qwen3")
    server = opened(policy)
    server.publish()
    agents, _ = played(server, lab, temperature=0.0, formats=lab.every_kind)
    local = lab.play(policy, dialogues=lab.dialogues(4, max_turns=2), temperature=0.0, formats=lab.every_kind)
    for role in ROLES:
        for a, b in zip(agents[role].rows, local.agents[role].rows, strict=True):
            assert (a.token_ids, a.sampled, a.allowed) == (b.token_ids, b.sampled, b.allowed)


def test_a_text_that_ends_before_its_least_length_is_refused(lab: Any, opened: Any) -> None:
    server = opened(lab.policy("qwen3"))
    backbone = server.policy.backbone
    goes_on, letter = AnyBut(backbone.newline_ids), backbone.encode("a")[0]
    server._check_stretch([letter, letter], goes_on, 2)
    for tokens in ([letter], [letter, backbone.newline], []):
        with pytest.raises(ServerFault, match="expected text that goes on, at most 2 long, found tokens"):
            server._check_stretch(tokens, goes_on, 2)


def test_the_requests_of_a_batch_go_out_at_once(lab: Any, opened: Any, url: str) -> None:
    server = opened(lab.policy("qwen3"), concurrency=5)
    server.publish()
    played(server, lab, 6, max_turns=1)
    assert seen(url)["most_at_once"] == 5


def test_adapters_that_were_published_are_used_and_old_ones_are_gone(
    lab: Any, opened: Any, url: str, tmp_path: Path
) -> None:
    policy = lab.policy("qwen3")
    prompt = [*policy.backbone.begin("a", ("b",)), *policy.backbone.header]

    def written(server: Server, role: Role) -> list[tuple[int, float]]:
        return server.write(role, prompt, None, 1, seed=0, temperature=0.0)

    with Server(policy, ServerConfig(url=url), tmp_path / "served") as server:
        server.publish()
        before = {role: written(server, role) for role in ROLES}
        old = {path.name for path in (tmp_path / "served").iterdir()}
        assert before[RECOMMENDER] != before[USER]
        server.publish()  # nothing has changed
        assert {path.name for path in (tmp_path / "served").iterdir()} == old
        policy.parameters(USER)[1].data.mul_(-1.0)
        server.publish()
        assert written(server, RECOMMENDER) == before[RECOMMENDER]
        assert written(server, USER) != before[USER]
        new = {path.name for path in (tmp_path / "served").iterdir()}
        assert [name.partition("-")[0] for name in sorted(new & old)] == [ADAPTERS[RECOMMENDER]]
        assert len(new) == 2
        again = opened(policy)  # a run that was killed has left these adapters with the server
        again.publish()
        assert written(again, USER) == written(server, USER)
    assert not (tmp_path / "served").exists()
    with pytest.raises(ServerFault, match=r"status 404 .* does not exist"):
        written(again, USER)


# What is wrong from the start -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("/other", r"Expected log-probabilities within 0\.1 nats of the policy's, found .* Serve the base"),
        ("/raw", "Start vLLM with --logprobs-mode processed_logprobs"),
        ("/no-ids", "expected token_ids .* and logprobs, found .* Start vLLM as docs/serving.md says"),
        ("/refuses", "found status 404 at /v1/load_lora_adapter.* VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
    ],
)
def test_a_server_that_will_not_do_is_refused_before_anything_is_played(
    lab: Any, opened: Any, fault: str, message: str
) -> None:
    with pytest.raises(BackboneError, match=message):
        opened(lab.policy("qwen3"), fault).publish()


def test_a_server_that_is_not_there_is_named(lab: Any, tmp_path: Path) -> None:
    config = ServerConfig(url="http://127.0.0.1:9")  # the port of the discard service, which nobody runs
    with (
        Server(lab.policy(), config, tmp_path / "served") as server,
        pytest.raises(BackboneError, match=r"Expected http://127.0.0.1:9 to load .*, found ConnectError"),
    ):
        server.publish()
    assert not (tmp_path / "served").exists()


def test_the_extra_is_asked_for(lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ConfigError, match=re.escape('pip install "coars-env[server]"')):
        Server(lab.policy(), ServerConfig(url="http://localhost:8000"), tmp_path)


@pytest.mark.parametrize("settings", [{"url": "localhost:8000"}, {"concurrency": 0}, {"timeout": 0.0}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="A server has an address and is given time"):
        ServerConfig(**settings)


# What goes wrong on the way -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "cause"),
    [("/disobedient", r"expected one of \d+ tokens, at most 1 long, found tokens"), ("/slow", "ReadTimeout")],
)
def test_a_reply_that_is_not_written_fails_its_dialogue_with_the_cause(
    lab: Any, opened: Any, fault: str, cause: str
) -> None:
    server = opened(lab.policy("qwen3"), fault, timeout=0.7)
    server.publish()
    _, dialogues = played(server, lab)
    assert "failed" in {dialogue.ending for dialogue in dialogues}
    for dialogue in dialogues:
        if dialogue.ending == "failed":
            assert re.search(cause, str(dialogue.cause))


def test_a_server_that_dies_fails_dialogues_and_ends_a_run_with_what_to_do(
    lab: Any, build: TaskBuilder, addresses: list[str], tmp_path: Path
) -> None:
    policy = lab.policy("qwen3")
    with Server(policy, ServerConfig(url=addresses[1]), tmp_path / "served") as server:
        server.publish()
        _, dialogues = played(server, lab)
        assert {dialogue.ending for dialogue in dialogues} == {"failed"}
        assert all(re.search("(Protocol|Connect|Read)Error", str(dialogue.cause)) for dialogue in dialogues)
        config = Coars(steps=1, episodes_per_step=4, explored_share=0.0)
        with pytest.raises(TrainingError, match=r"All 4 dialogues of update 0 failed: recommender_0: .*ConnectError"):
            lab.train(policy, build, config, server=server)
        policy.parameters(USER)[1].data.mul_(2.0)
        with pytest.raises(BackboneError, match="found ConnectError"):
            server.publish()


# Training -------------------------------------------------------------------------------------------------------------

EVERY_TURN = CoarsReward()
PLAIN: dict[str, Any] = {"credit": "none", "balance_user": False, "explored_share": 0.0}


def a_run(
    lab: Any, policy: Policy, build: TaskBuilder, server: Server, **settings: Any
) -> list[tuple[StepMetrics, Any]]:
    told: list[tuple[StepMetrics, Any]] = []
    config = Coars(**{"steps": 1, "episodes_per_step": 4, "max_turns": 2, **settings})

    def on_step(step: int, metrics: StepMetrics, said: Sequence[Transcript]) -> None:
        told.append((metrics, list(said)))

    lab.train(policy, build, config, reward=EVERY_TURN, server=server, on_step=on_step)
    return told


def weights(policy: Policy) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in policy.peft.named_parameters()}


def test_two_updates_through_a_server_move_both_adapters(lab: Any, build: TaskBuilder, opened: Any) -> None:
    policy = lab.policy("qwen3", scale=0.1)
    before = weights(policy)
    rows = [metrics for metrics, _ in a_run(lab, policy, build, opened(policy), steps=2)]
    assert len(rows) == 2
    for metrics in rows:  # of the second, too: the server has learnt of the first
        assert metrics["failed"] == 0
        for side in ("rec", "user"):
            assert metrics[f"{side}_gradient"] > 0
            assert metrics[f"{side}_mismatch_max"] < 1e-4
            assert metrics[f"{side}_ratio_mean"] == pytest.approx(1.0, abs=1e-4)
    for name, parameter in policy.peft.named_parameters():
        assert torch.equal(parameter, before[name]) == (".recommender." not in name and ".user." not in name), name


def gradient_norm(policy: Policy, role: Role, agent: ServedAgent, dialogues: Sequence[Dialogue], lab: Any) -> float:
    """Of CoARS's loss without credit, as the local loop has it."""
    samples = [
        training_sample(
            row, role, dialogue.transcript(lab.split.dataset.provenance), dialogue.terms, agent.items, policy.backbone
        )
        for row, dialogue in zip(agent.rows, dialogues, strict=True)
    ]
    batch = collate([sample for sample in samples if sample.turns], 0, policy.backbone.device)
    loss = policy_gradient(
        student_logprobs(policy, role, batch), batch.rewards, batch.weights, num_episodes=len(dialogues)
    )
    for parameter in policy.parameters(role):
        parameter.grad = None
    loss.backward()
    return float(nn.utils.get_total_norm([p.grad for p in policy.parameters(role) if p.grad is not None]))


def test_the_update_is_that_of_the_same_dialogues_played_here(lab: Any, build: TaskBuilder, opened: Any) -> None:
    policy = lab.policy("qwen3")
    server = opened(policy)
    still = {"learning_rate_recommender": 0.0, "learning_rate_user": 0.0}
    ((metrics, transcripts),) = a_run(lab, policy, build, server, **PLAIN, **still)
    again = [Dialogue(t.task, lab.split.dataset.items, max_turns=2, reward=EVERY_TURN) for t in transcripts]
    agents, dialogues = played(server, lab, dialogues=again)
    assert [tuple(d.turns) for d in dialogues] == [t.turns for t in transcripts]
    for role, side in ((RECOMMENDER, "rec"), (USER, "user")):
        expected = gradient_norm(policy, role, agents[role], dialogues, lab)
        assert metrics[f"{side}_gradient"] == pytest.approx(expected, rel=1e-3)


class Understated(Server):
    """Says of every token that was chosen that it was 1.05 times less likely than it was."""

    def write(self, role: Role, prompt: Sequence[int], allowed: Any, room: int, **how: Any) -> list[tuple[int, float]]:
        alone = allowed is not None and len(allowed) == 1
        shift = 0.0 if alone else math.log(1.05)
        return [(token, p - shift) for token, p in super().write(role, prompt, allowed, room, **how)]


def test_tokens_are_weighed_by_how_much_likelier_they_are_to_the_policy(
    lab: Any, build: TaskBuilder, opened: Any
) -> None:
    found = []
    for kind in (Server, Understated):
        policy = lab.policy("qwen3")
        found.append(a_run(lab, policy, build, opened(policy, kind=kind), **PLAIN)[0])
    (honest, said), (understated, said_again) = found
    assert [t.turns for t in said] == [t.turns for t in said_again]
    for side in ("rec", "user"):
        assert understated[f"{side}_ratio_mean"] == pytest.approx(1.05, rel=1e-3)
        assert understated[f"{side}_mismatch"] == pytest.approx(math.log(1.05), rel=1e-2)
        assert understated[f"{side}_gradient"] == pytest.approx(1.05 * honest[f"{side}_gradient"], rel=1e-3)


class Stale(Server):
    """Publishes once and never again."""

    def publish(self) -> None:
        if not self._names:
            super().publish()


def test_a_server_that_fell_behind_is_refused(lab: Any, build: TaskBuilder, opened: Any) -> None:
    policy = lab.policy("qwen3")
    with pytest.raises(TrainingError, match=r"at most 0\.1 is accepted\. See docs/serving.md"):
        a_run(lab, policy, build, opened(policy, kind=Stale), steps=2, learning_rate_recommender=5.0)


# A run ----------------------------------------------------------------------------------------------------------------


def test_a_run_through_a_server_is_a_run_and_may_go_on_with_another(
    lab: Any, run_settings: AnyTrainConfig, split: Split, url: str, tmp_path: Path
) -> None:
    recipe = Coars(steps=2, episodes_per_step=2, max_turns=1, explored_share=0.0)
    config = replace(
        run_settings,
        out=tmp_path / "run",
        backbone=str(lab.folder("qwen3")),
        recipe=recipe,
        server=ServerConfig(url="http://127.0.0.1:9"),
    )
    with pytest.raises(BackboneError, match="found ConnectError"):
        run_training(config, split, new_policy(config, split))
    command = read_command(["--resume", str(config.out), "--server.url", url])
    assert command.config.server == ServerConfig(url=url)
    folder = run_training(command.config, split, new_policy(config, split), resume=True)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [max(row["rec_mismatch_max"], row["user_mismatch_max"]) < 1e-3 for row in rows] == [True, True]
    assert (folder / "adapters").is_dir()
    assert not (folder / "served.part").exists()


def test_several_processes_cannot_share_a_server(lab: Any, url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"A server samples for one process, but 2 processes train with"):
        open_server(ServerConfig(url=url), lab.policy(), tmp_path, ProcessGroup(rank=1, world_size=2))
