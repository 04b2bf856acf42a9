"""An LLMAgent keeps to the rules of the game, records what it did, and does it alike alone and in company."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import normalizers

from agents.models.backbones.backbone import Backbone
from agents.models.decoding import AnyBut, Form
from agents.models.fields import Field, Ranking, Text
from agents.models.forms import FieldForms
from agents.models.policy import Policy
from agents.models.prompts import ITEM, REASON, prompt
from agents.models.replies import DEFAULT_FORMATS, RECOMMENDER_FORMAT, USER_FORMAT, ReplyFormat, parse_fields
from agents.players.llm_agent import LLMAgent, Row
from agents.training.credit import teacher_logprobs
from coars_env import (
    ACTIONS,
    RECOMMENDER,
    ROLES,
    STRENGTH_EDGES,
    USER,
    BackboneError,
    ConfigError,
    Dialogue,
    Item,
    RandomRecommender,
    Role,
    Rules,
    Task,
    clean_message,
    play,
)
from coars_env.testing import ScriptedAgent, check_agent, toy_dataset, toy_episodes

KINDS = ("pocket", "llama", "qwen3")


def sampled_columns(row: Row) -> list[int]:
    return [column for column, own in enumerate(row.sampled) if own]


# The rules of the game ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pocket", "qwen3"])
@pytest.mark.parametrize("role", ROLES)
def test_it_is_an_agent(lab: Any, kind: str, role: Role) -> None:
    check_agent(LLMAgent(lab.policy(kind), role, toy_dataset().items), role)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_the_weights_every_reply_can_be_read(lab: Any, kind: str) -> None:
    acted = set()
    for seed in range(3):
        played = lab.play(lab.policy(kind, scale=1.0, seed=seed), 12, seed=seed, max_turns=4)
        for transcript in played.transcripts:
            for turn in transcript.turns:
                assert turn.proposal in transcript.task.candidates
                assert turn.error is None
                assert turn.answer.error is None
                low, high = (*STRENGTH_EDGES, 1.01)[turn.answer.action : turn.answer.action + 2]
                assert low <= turn.answer.strength < high
                acted.add(turn.answer.action)
    assert len(acted) == len(ACTIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_action_is_the_one_that_was_written(lab: Any, kind: str) -> None:
    played = lab.play(lab.policy(kind), 6)
    backbone, items = played.agents[USER].policy.backbone, played.agents[USER].items
    for n, transcript in enumerate(played.transcripts):
        for number, turn in enumerate(transcript.turns):
            for role in ROLES:
                row = played.agents[role].rows[n]
                start, end = row.replies[number]
                lines = backbone.decode(row.token_ids[start:end]).split("\n")
                if role == RECOMMENDER:
                    assert lines[-2] == f"Item: {items[turn.proposal].title}"
                else:
                    assert lines[-3] == f"Action: {ACTIONS[turn.answer.action]}"
                    assert lines[-2] == f"Score: {turn.answer.strength:.2f}"
                assert lines[0].startswith("Reason:")
                assert lines[-1] == ""


@pytest.mark.parametrize("kind", ["instructed", "qwen3"])
@pytest.mark.parametrize("repeats", ["paid", "forbidden"])
def test_in_a_game_with_an_instruction_every_reply_can_be_read(
    lab: Any, plain_logprobs: Any, kind: str, repeats: Any
) -> None:
    policy, seen = lab.policy(kind, scale=1.0), Counter[str]()
    played = lab.play(policy, dialogues=lab.instructed(16, rules=Rules(repeats=repeats)))
    for transcript in played.transcripts:
        rejected: set[int | None] = set()
        for turn in transcript.turns:
            assert turn.error is None
            assert turn.answer.error is None
            assert turn.proposal not in rejected or repeats == "paid"
            rejected |= {turn.proposal} if turn.rejected else set()
            seen["asked" if turn.question else "proposed"] += 1
            if turn.answer.reveal is not None:
                assert turn.answer.reveal.kind == turn.question or turn.question is None
                seen["revealed after a question" if turn.question else "revealed"] += 1
    assert min(seen[what] for what in ("asked", "proposed", "revealed after a question", "revealed")) > 0
    for role in ROLES:
        for row in played.agents[role].rows[:4]:
            columns = sampled_columns(row)
            expected = plain_logprobs(policy, role, row.token_ids, columns, [row.allowed[c] for c in columns])
            assert [row.logprobs[c] for c in columns] == pytest.approx(expected, abs=1e-5)


def test_one_token_of_pocket_decides_what_is_asked_proposed_or_wished(lab: Any) -> None:
    played = lab.play(lab.policy("instructed", scale=1.0), dialogues=lab.instructed(8))
    for role in ROLES:
        backbone = played.agents[role].policy.backbone
        for row in played.agents[role].rows:
            for start, end in row.replies:
                sampled = [row.sampled[column] for column in range(start, end)]
                lines = backbone.decode(row.token_ids[start:end]).split("\n")
                assert lines[-2].partition(":")[0] == ("Item" if role == RECOMMENDER else "Wish")
                assert sampled[-2:] == [True, False]  # the choice, and the end of its line
                if len(lines) == 2:
                    assert sampled == [False, True, False]  # the answer to a question


def test_the_opening_of_a_user_holds_its_instruction_and_no_reply(lab: Any) -> None:
    played = lab.play(lab.policy("instructed"), dialogues=lab.instructed(4))
    for n, dialogue in enumerate(played.dialogues):
        for role in ROLES:
            agent = played.agents[role]
            row, backbone = agent.rows[n], agent.policy.backbone
            opening = backbone.decode(row.token_ids[: row.opening])
            wants = "; ".join(facet.value for facet in dialogue.task.instruction.facets)
            assert opening.endswith(f"\nYou want: {wants}\n" if role == USER else "or a question.")
            assert ("You want" in backbone.decode(row.token_ids)) == (role == USER)


def write_reply(backbone: Backbone, form: Form, reason: Sequence[str], *fields: str) -> None:
    for token in backbone.encode_all((*reason, "\n")):
        form.push(token, -1.0)
    for text in fields:
        tokens, part = backbone.encode(text), len(form.written)
        while len(form.written) == part:  # where only one option goes on, its tokens follow by themselves
            written = len(form.completion.token_ids) - sum(map(len, form.written))
            form.push(tokens[written], -1.0)


def test_a_reason_may_spell_out_labels_and_titles(lab: Any) -> None:
    backbone, task = lab.backbone(), toy_episodes().tasks[0]
    backbone.max_reason_tokens = 60
    items = toy_dataset().items
    dialogue = Dialogue(task, items)
    forms, fields = FieldForms(backbone), RECOMMENDER_FORMAT.bind(dialogue.observe(RECOMMENDER), items)
    form = forms.start(fields)
    write_reply(backbone, form, (" I say", ITEM, " Heat (1995)", REASON), " Brazil (1985)")
    said = "I say" + ITEM + " Heat (1995)" + REASON
    values, seen = forms.values(fields, form), dialogue.observe(RECOMMENDER)
    assert RECOMMENDER_FORMAT.action(RECOMMENDER, fields, values, seen, items) == {"item": 0, "message": said}


def test_the_score_follows_the_action(lab: Any) -> None:
    backbone, items = lab.backbone(), toy_dataset().items
    dialogue = Dialogue(toy_episodes().tasks[0], items)
    dialogue.recommend(0, "")
    forms, fields = FieldForms(backbone), USER_FORMAT.bind(dialogue.observe(USER), items)
    for action, (word, score) in enumerate(
        ((" dislike", " 0.00"), (" skip", " 0.45"), (" star", " 0.70"), (" click", " 1.00"))
    ):
        form = forms.start(fields)
        write_reply(backbone, form, (), word, score)
        assert USER_FORMAT.action(USER, fields, forms.values(fields, form), dialogue.observe(USER), items) == {
            "action": action,
            "strength": float(score),
            "message": "",
        }


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_may_be_kept_from_what_peers_say(lab: Any, kind: str) -> None:
    """It then reads, token for token, what it reads in a game without opinions."""
    policy, items = lab.policy(kind), lab.split.dataset.items
    tasks = [dialogue.task for dialogue in lab.dialogues(4)]
    read = []
    for opinions, told in ((True, tasks), (False, tasks), (True, [replace(task, opinions=()) for task in tasks])):
        agent = LLMAgent(policy, USER, items, opinions=opinions)
        play([Dialogue(task, items, max_turns=2) for task in told], RandomRecommender(), agent)
        read.append([row.token_ids for row in agent.rows])
    assert read[1] == read[2]
    assert all(len(heard) > len(silent) for heard, silent in zip(*read[:2], strict=True))


def test_titles_that_read_alike_to_the_tokenizer_are_refused(lab: Any) -> None:
    backbone = lab.backbone("llama")
    backbone.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    items = (Item("Heat"), Item("HEAT"), Item("Alien"))
    task = Task("t", 0, history=(2,), candidates=(0, 1), target=0)
    agent = LLMAgent(Policy(backbone), RECOMMENDER, items)
    with pytest.raises(ConfigError, match="Two titles may read alike"):
        play([Dialogue(task, items)], agent, ScriptedAgent([{"action": 0, "strength": 0.0, "message": ""}]))


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_can_speak_in_the_marks_of_the_template(lab: Any, kind: str) -> None:
    policy = lab.policy(kind)
    tokenizer = policy.backbone.tokenizer
    marks = "".join(tokenizer.all_special_tokens)
    answers = [{"action": 0, "strength": 0.0, "message": marks}]
    items = lab.split.dataset.items
    agent = LLMAgent(policy, RECOMMENDER, items)
    (dialogue,) = lab.dialogues(1)
    play([dialogue], agent, ScriptedAgent(answers))
    backbone, (row,) = policy.backbone, agent.rows
    assert dialogue.turns[0].answer.message == marks
    frame = [*backbone.opening, *backbone.before_user, *backbone.header, *2 * (*backbone.after_reply, *backbone.header)]
    special = set(tokenizer.all_special_ids)
    assert [t for t in row.token_ids if t in special] == [t for t in frame if t in special]
    assert backbone.decode(row.token_ids).count(marks) == 2


# What is recorded -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5, 0.0])
def test_recorded_logprobs_equal_those_of_a_fresh_pass(
    lab: Any, plain_logprobs: Any, kind: str, temperature: float
) -> None:
    policy = lab.policy(kind)
    played = lab.play(policy, 6, temperature=temperature, seed=1)
    if temperature:
        assert len({len(t.turns) for t in played.transcripts}) > 1  # the dialogues end at different turns
    for role in ROLES:
        for row in played.agents[role].rows:
            columns = sampled_columns(row)
            allowed = [row.allowed[c] for c in columns]
            expected = plain_logprobs(policy, role, row.token_ids, columns, allowed, temperature or 1.0)
            assert [row.logprobs[c] for c in columns] == pytest.approx(expected, abs=1e-5)


def test_recorded_logprobs_are_those_of_the_adapter_not_of_the_base(lab: Any, plain_logprobs: Any) -> None:
    policy = lab.policy()
    (row, *_) = lab.play(policy, 2).agents[USER].rows
    columns = sampled_columns(row)
    of_base = plain_logprobs(policy, None, row.token_ids, columns, [row.allowed[c] for c in columns])
    assert max(abs(row.logprobs[c] - b) for c, b in zip(columns, of_base, strict=True)) > 0.01


def test_another_adapter_plays_another_game(lab: Any) -> None:
    fresh, trained = lab.play(lab.policy(scale=0), 6), lab.play(lab.policy(), 6)
    assert [t.turns for t in fresh.transcripts] != [t.turns for t in trained.transcripts]


@pytest.mark.parametrize("kind", KINDS)
def test_own_tokens_are_marked_and_nothing_else(lab: Any, kind: str) -> None:
    played = lab.play(lab.policy(kind), 6)
    for role in ROLES:
        for row, transcript in zip(played.agents[role].rows, played.transcripts, strict=True):
            assert len(row.replies) == len(row.context_ends) == len(transcript.turns)
            assert len({len(x) for x in (row.token_ids, row.sampled, row.logprobs, row.allowed)}) == 1
            inside = {c for start, end in row.replies for c in range(start, end)}
            assert set(sampled_columns(row)) <= inside
            header = played.agents[role].policy.backbone.header
            for context_end, (start, _) in zip(row.context_ends, row.replies, strict=True):
                assert row.token_ids[context_end:start] == header
            for column in range(len(row.token_ids)):
                if column not in sampled_columns(row):
                    assert row.logprobs[column] == 0
                    assert row.allowed[column] is None or len(row.allowed[column]) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_each_turn_only_adds_tokens(lab: Any, kind: str) -> None:
    policy, items = lab.policy(kind), lab.split.dataset.items
    agents = {role: LLMAgent(policy, role, items) for role in ROLES}
    (dialogue,) = lab.dialogues(1, max_turns=4)
    for side, role in enumerate(ROLES):
        agents[role].start([(0, side, 0)])
    before: dict[Role, list[int]] = {role: [] for role in ROLES}
    while dialogue.ending is None:
        role = dialogue.speaker
        dialogue.act(agents[role].act({0: dialogue.observe(role)})[0])
        now = agents[role].rows[0].token_ids
        assert now[: len(before[role])] == before[role]
        assert len(now) > len(before[role])
        before[role] = list(now)


def test_no_token_is_read_twice(lab: Any) -> None:
    policy = lab.policy()
    lengths = [len(transcript.turns) for transcript in lab.play(policy, 8).transcripts]
    longest = lengths.index(max(lengths))
    read: list[int] = []
    policy.backbone.model.get_input_embeddings().register_forward_hook(lambda *_: read.append(_[1][0].numel()))
    played = lab.play(policy, dialogues=lab.dialogues(8)[longest : longest + 1], first=longest)
    assert len(played.transcripts[0].turns) == max(lengths) > 1
    rows = [played.agents[role].rows[0] for role in ROLES]
    # all but what followed the last choice of each side, which nobody needed to read
    unread = sum(len(row.token_ids) - sampled_columns(row)[-1] for row in rows)
    assert sum(read) == sum(len(row.token_ids) for row in rows) - unread


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_row_reads_as_the_chat_template_renders_it(lab: Any, kind: str) -> None:
    policy = lab.policy(kind)
    backbone, tokenizer = policy.backbone, policy.backbone.tokenizer
    played = lab.play(policy, 4)
    for role in ROLES:
        for row, transcript in zip(played.agents[role].rows, played.transcripts, strict=True):
            again = Dialogue(transcript.task, lab.split.dataset.items, max_turns=transcript.max_turns)
            messages = []
            for turn, (start, end) in zip(transcript.turns, row.replies, strict=True):
                if role == USER:
                    again.recommend(transcript.task.candidates.index(turn.proposal), turn.rationale)
                told = prompt(role, again.observe(role), lab.split.dataset.items, backbone.list_separator)
                messages += [{"role": "user", "content": "".join(told.content)}]
                messages += [{"role": "assistant", "content": backbone.decode(row.token_ids[start:end])}]
                if role == RECOMMENDER:
                    again.recommend(transcript.task.candidates.index(turn.proposal), turn.rationale)
                again.reply(turn.answer.action, turn.answer.strength, turn.answer.message)
            messages = [{"role": "system", "content": told.system}, *messages]
            rendered = tokenizer.apply_chat_template(messages, tokenize=False)
            assert rendered == tokenizer.decode(row.token_ids, skip_special_tokens=False) + "<|im_end|>\n"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 1.5, 0.0])
def test_every_kind_of_field_is_recorded_with_its_own_logprobs(
    lab: Any, plain_logprobs: Any, kind: str, temperature: float
) -> None:
    """Those of a fresh pass, and those of `Policy.score`."""
    policy = lab.policy(kind)
    played = lab.play(policy, 4, max_turns=2, temperature=temperature, formats=lab.every_kind)
    for role in ROLES:
        for row in played.agents[role].rows:
            columns = sampled_columns(row)
            allowed = [row.allowed[c] for c in columns]
            assert any(isinstance(choices, AnyBut) for choices in allowed)
            recorded = [row.logprobs[c] for c in columns]
            expected = plain_logprobs(policy, role, row.token_ids, columns, allowed, temperature or 1.0)
            assert recorded == pytest.approx(expected, abs=1e-5)
            places = torch.zeros(len(columns), dtype=torch.long), torch.tensor(columns)
            with torch.no_grad():
                ids = torch.tensor([row.token_ids])
                scored = policy.score(role, ids, places, allowed, temperature=temperature or 1.0)
            assert recorded == pytest.approx(scored.tolist(), abs=1e-5)


# Formats --------------------------------------------------------------------------------------------------------------


def fields_of(played: Any, lab: Any, role: Role) -> list[tuple[dict[str, str], Any, str]]:
    """Fields of each reply as its tokens spell them, the turn, and the message."""
    agent, found = played.agents[role], []
    names = [field.label for field in lab.every_kind[role].fields]
    for row, transcript in zip(agent.rows, played.transcripts, strict=True):
        for (start, end), turn in zip(row.replies, transcript.turns, strict=True):
            values = parse_fields(agent.policy.backbone.decode(row.token_ids[start:end]), names)
            if not isinstance(values, str):  # a free text may spell a label
                found.append((values, turn, turn.rationale if role == RECOMMENDER else turn.answer.message))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_fields_are_the_action_and_a_thought_stays_hidden(lab: Any, kind: str) -> None:
    played = lab.play(lab.policy(kind), 6, formats=lab.every_kind)
    items = lab.split.dataset.items
    proposals, answers = (fields_of(played, lab, role) for role in ROLES)
    assert len(proposals) > 2
    assert len(answers) > 2
    for values, turn, message in proposals:
        ranked = [title.strip() for title in values["Ranking:"].split("\n")]
        assert len(set(ranked)) == 3
        assert items[turn.proposal].title == ranked[0]
        shown = f"Mood: {values['Mood:']} Rating: {values['Rating:']} {values['Reason:']}"
        assert message == clean_message(shown)
        assert set(turn.fields) == {"Thought", "Mood", "Rating", "Ranking"}
        assert turn.fields["Thought"] == clean_message(values["Thought:"])
    for values, turn, message in answers:
        assert turn.answer.action == ACTIONS.index(values["Action:"])
        assert turn.answer.fields["Rating"] == values["Rating:"]
        assert turn.answer.strength == (int(values["Rating:"]) - 1) / 4
        assert message == clean_message(values["Reason:"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_least_length_is_kept(lab: Any, kind: str) -> None:
    policy = lab.policy(kind)
    ends = policy.backbone.newline_ids
    thought = lab.every_kind[USER].fields[0]
    label = len(policy.backbone.encode(thought.label))
    lengths = set()
    for row in lab.play(policy, 8, formats=lab.every_kind).agents[USER].rows:
        for start, _ in row.replies:
            tokens = row.token_ids[start + label :]
            lengths.add(next(n for n, token in enumerate(tokens) if token in ends))
    assert lengths
    assert lengths <= {3, 4, 5}


def test_the_prompt_asks_for_the_fields(lab: Any) -> None:
    played = lab.play(lab.policy(), 1, formats=lab.every_kind)
    agent = played.agents[RECOMMENDER]
    text = agent.policy.backbone.decode(agent.rows[0].token_ids[: agent.rows[0].context_ends[0]])
    assert text.endswith("\nReply with a Thought, a Mood, a Rating, a Reason and a Ranking of the 3 best candidates.")


def test_a_format_that_cannot_be_played_is_refused_before_anything_is(lab: Any) -> None:
    policy, items = lab.policy(), lab.split.dataset.items
    with pytest.raises(ConfigError, match="A reply of user_0 must hold a field"):
        LLMAgent(policy, USER, items, reply_format=RECOMMENDER_FORMAT)
    with pytest.raises(ConfigError, match="must not be above the backbone's limit of 6, got 9 for 'Thought'"):
        LLMAgent(policy, RECOMMENDER, items, reply_format=thinking(Text(min_tokens=9)))
    agent = LLMAgent(policy, RECOMMENDER, items, reply_format=ReplyFormat((Field("Ranking", Ranking(7)),)))
    dialogues = lab.dialogues(1)
    with pytest.raises(ConfigError, match="got length=7 for 6 options"):
        play(dialogues, agent, ScriptedAgent([]))
    assert dialogues[0].turns == []


def thinking(kind: Text) -> ReplyFormat:
    return ReplyFormat((Field("Thought", kind, hidden=True), *RECOMMENDER_FORMAT.fields))


# Notes ----------------------------------------------------------------------------------------------------------------


def count_of_turns(observation: Any) -> tuple[str, ...]:
    return ("\nLesson:", f" {observation['turn']} turns were played.")


@pytest.mark.parametrize("kind", KINDS)
def test_notes_are_read_in_every_turn_before_the_request(lab: Any, kind: str) -> None:
    policy = lab.policy(kind)
    played = lab.play(policy, 4, notes=count_of_turns)
    decode = policy.backbone.decode
    for role in ROLES:
        for row, transcript in zip(played.agents[role].rows, played.transcripts, strict=True):
            begins = [0, *(end for _, end in row.replies)]
            for n in range(len(transcript.turns)):
                context = decode(row.token_ids[begins[n] : row.context_ends[n]])
                ask = "Propose again." if n and role == RECOMMENDER else DEFAULT_FORMATS[role].ask().strip()
                assert context.endswith(f"\nLesson: {n} turns were played.\n{ask}")


@pytest.mark.parametrize("role", ROLES)
def test_notes_are_no_part_of_what_all_dialogues_of_a_task_begin_with(lab: Any, role: Role) -> None:
    """Three dialogues of one task, each with other notes: what is shared ends before them."""
    policy, items = lab.policy(), lab.split.dataset.items
    numbers = iter(range(100))

    def notes(observation: Any) -> tuple[str, ...]:
        return ("\nLesson:", f" number {next(numbers)}")

    task = lab.dialogues(1)[0].task
    agents = {role: LLMAgent(policy, role, items, notes=notes) for role in ROLES}
    dialogues = [Dialogue(task, items, max_turns=2) for _ in range(3)]
    play(dialogues, agents[RECOMMENDER], agents[USER])
    rows = agents[role].rows
    shared = {tuple(row.token_ids[: row.opening]) for row in rows}
    assert len(shared) == 1
    assert len(rows[0].token_ids[: rows[0].opening]) > 5
    text = policy.backbone.decode(rows[0].token_ids[: rows[0].opening])
    assert "Lesson" not in text
    assert "Taken so far" in text


@pytest.mark.parametrize("kind", KINDS)
def test_with_notes_the_record_is_that_of_a_fresh_pass(lab: Any, plain_logprobs: Any, kind: str) -> None:
    policy = lab.policy(kind)
    dialogues = [dialogue for one in lab.dialogues(2) for dialogue in (one, Dialogue(one.task, one.items, max_turns=3))]
    played = lab.play(policy, dialogues=dialogues, notes=count_of_turns)
    for role in ROLES:
        for row in played.agents[role].rows:
            columns = sampled_columns(row)
            expected = plain_logprobs(policy, role, row.token_ids, columns, [row.allowed[c] for c in columns])
            assert [row.logprobs[c] for c in columns] == pytest.approx(expected, abs=1e-5)


# Alone and in company -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_eight_dialogues_played_together_equal_eight_played_alone(lab: Any, kind: str, temperature: float) -> None:
    policy = lab.policy(kind)
    together = lab.play(policy, 8, temperature=temperature)
    for n, dialogue in enumerate(lab.dialogues(8)):
        alone = lab.play(policy, dialogues=[dialogue], first=n, temperature=temperature)
        assert alone.transcripts[0].turns == together.transcripts[n].turns
        for role in ROLES:
            a, b = alone.agents[role].rows[0], together.agents[role].rows[n]
            assert a.token_ids == b.token_ids
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


def test_greedy_play_is_the_same_for_every_seed_and_sampled_play_is_not(lab: Any) -> None:
    policy = lab.policy()
    greedy = [lab.play(policy, dialogues=lab.dialogues(4), seed=seed, temperature=0.0) for seed in (0, 1)]
    assert [t.turns for t in greedy[0].transcripts] == [t.turns for t in greedy[1].transcripts]
    sampled = [lab.play(policy, dialogues=lab.dialogues(4), seed=seed) for seed in (0, 1, 0)]
    assert [t.turns for t in sampled[0].transcripts] == [t.turns for t in sampled[2].transcripts]
    assert [t.turns for t in sampled[0].transcripts] != [t.turns for t in sampled[1].transcripts]


def test_no_global_random_state_is_touched(lab: Any) -> None:
    states = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    lab.play(lab.policy(), 4)
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]


def test_a_forgotten_cache_is_made_again(lab: Any) -> None:
    class Forgetful(LLMAgent):
        def act(self, observations: Any) -> Any:
            self.forget()
            return super().act(observations)

    policy, items = lab.policy(), lab.split.dataset.items
    expected = lab.play(policy, 5)
    dialogues = lab.dialogues(5)
    agents = [Forgetful(policy, role, items) for role in ROLES]
    play(dialogues, *agents)
    assert [tuple(d.turns) for d in dialogues] == [t.turns for t in expected.transcripts]
    for role, agent in zip(ROLES, agents, strict=True):
        for a, b in zip(agent.rows, expected.agents[role].rows, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


def test_a_dialogue_may_stand_aside_for_a_while(lab: Any) -> None:
    policy, items = lab.policy(), lab.split.dataset.items
    seeds = [(0, 0, n) for n in range(3)]
    answer = {"action": 1, "strength": 0.3, "message": "No."}

    def proposals(order: list[list[int]]) -> list[list[Any]]:
        agent = LLMAgent(policy, RECOMMENDER, items)
        agent.start(seeds)
        dialogues = lab.dialogues(3)
        for numbers in order:
            for n, action in agent.act({n: dialogues[n].observe(RECOMMENDER) for n in numbers}).items():
                dialogues[n].act(action)
                dialogues[n].act(answer)
        return [list(dialogue.turns) for dialogue in dialogues]

    together = proposals([[0, 1, 2], [0, 1, 2], [0, 1, 2]])
    assert proposals([[1], [2, 0], [1, 0], [2], [0, 2, 1]]) == together
    assert proposals([[2], [2], [2], [0, 1], [1], [0], [0, 1]]) == together


def test_it_plays_no_dialogue_that_began_without_it(lab: Any) -> None:
    agent = LLMAgent(lab.policy(), RECOMMENDER, lab.split.dataset.items)
    (dialogue,) = lab.dialogues(1)
    with pytest.raises(ConfigError, match="Call `start` before each batch of fresh dialogues"):
        agent.act({0: dialogue.observe(RECOMMENDER)})
    agent.start([(0, 0, 0)])
    dialogue.recommend(0, "")
    dialogue.reply(0, 0.0, "")
    with pytest.raises(ConfigError, match="Expected 1 replies of its own in dialogue 0, found 0"):
        agent.act({0: dialogue.observe(RECOMMENDER)})


def test_nobody_asked_nobody_answers(lab: Any) -> None:
    assert LLMAgent(lab.policy(), USER, lab.split.dataset.items).act({}) == {}


def test_a_dialogue_that_outgrows_the_context_is_refused_with_both_numbers(lab: Any) -> None:
    policy = lab.policy()
    policy.backbone.model.config.max_position_embeddings = 60
    with pytest.raises(BackboneError, match=r"Expected at most 60 tokens for .*, found 6\d\. Play fewer turns"):
        lab.play(policy, 4)


def test_a_teacher_whose_hindsight_outgrows_the_context_is_refused(lab: Any) -> None:
    policy = lab.policy()
    samples = [sample for sample in lab.play(policy, 4).samples(USER) if sample.turns]
    longest = max(len(sample.token_ids) for sample in samples)
    policy.backbone.model.config.max_position_embeddings = longest
    with pytest.raises(BackboneError, match=rf"Expected at most {longest} tokens"):
        teacher_logprobs(policy, USER, samples)


def test_an_empty_reason_is_a_reason(lab: Any) -> None:
    """A side that ends the line at once has chosen that, and its choice of an item or action is learnt as any other."""
    policy = lab.policy()
    policy.backbone.max_reason_tokens = 0
    played = lab.play(policy, 4)
    assert {turn.rationale for t in played.transcripts for turn in t.turns} == {""}
    assert all(t.ending != "failed" for t in played.transcripts)
    for role in ROLES:
        turns = [turn for sample in played.samples(role) for turn in sample.turns]
        assert min(len(turn.columns) for turn in turns) >= 1
