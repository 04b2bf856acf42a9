"""Dialogue: the game itself, half-turn by half-turn, without the interface of an environment."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from operator import index

import numpy as np

from coars_env.datasets.dataset import Facet, Item, Provenance
from coars_env.errors import ActionError, ConfigError, TaskError, expect, whole_number
from coars_env.observation import Action, Observation, read_reveal
from coars_env.rendering.text import answer_text, dialogue_text, opinions_text, proposal_text
from coars_env.rewards import Reward, RewardTerms, apply_repeats, check_terms, reward_or_default
from coars_env.rules import Rules
from coars_env.tasks import HISTORY_LENGTH, NUM_OPINIONS, OPINION_WIDTH, Task
from coars_env.transcript import (
    ACTIONS,
    MAX_MESSAGE_LENGTH,
    ROLES,
    USER,
    Answer,
    EndingKind,
    Role,
    Transcript,
    Turn,
    clamp_strength,
    clean_message,
    find_role,
    rejected_items,
)

MAX_TURNS = 4
"""T; the paper is silent, 4 is AFL's value (arXiv:2410.20027)."""


def checked_seed(seed: int) -> int:
    """The seed as Python's own integer.

    Raises:
        ConfigError: no whole number, or negative.
    """
    return whole_number("A seed feeds a random generator.", "seed", seed, 0)


def checked_agents(agents: Sequence[str]) -> tuple[Role, ...]:
    """Return the agents of a game as a tuple: the recommender, then the users.

    Raises:
        ConfigError: they are others than `ROLES`; only one user plays yet.
    """
    if isinstance(agents, str) or tuple(agents) != ROLES:
        raise ConfigError(
            f"agents must be {ROLES}, got {agents!r:.200}. One recommender and one user play; several users are not "
            "implemented."
        )
    return ROLES


def clean_fields(action: Action) -> dict[str, str]:
    """Return the action's `fields`, each label and text cleaned by `clean_message`; none where there is no such key.

    Raises:
        ActionError: they are no mapping of texts.
    """
    fields = action.get("fields")
    if fields is None:
        return {}
    if not isinstance(fields, Mapping) or not all(isinstance(text, str) for pair in fields.items() for text in pair):
        raise ActionError(
            f"The fields of an action must be a mapping from labels to texts, got {fields!r:.200}. Pass such as "
            "{'thought': 'They like crime.'}, or leave them out."
        )
    return {clean_message(label): clean_message(text) for label, text in fields.items()}


def clean_facet(facet: Facet) -> Facet | None:
    """Return a facet whose value was cleaned by `clean_message`; None where nothing is left of it."""
    value = clean_message(facet.value)[: MAX_MESSAGE_LENGTH - len(facet.kind) - 2].strip()
    return Facet(facet.kind, value) if value else None


def open_turn(
    task: Task, position: int, message: str, error: str | None = None, fields: Mapping[str, str] | None = None
) -> Turn:
    """Return the turn that a recommender's message opens, see `Dialogue.recommend`."""
    named = position < len(task.candidates)
    return Turn(
        proposal=task.candidates[position] if named else None,
        rationale=clean_message(message),
        error=None if named else clean_message(error or "the message names no candidate"),
        fields=clean_fields({"fields": fields}),
    )


def repeat_error(item: Item) -> str:
    """Return why a proposal could not be used where repeats are forbidden."""
    return f"{item.title!r} was rejected in an earlier turn, and repeats are forbidden"


def read_answer(
    action: int,
    strength: float | None,
    message: str,
    error: str | None = None,
    fields: Mapping[str, str] | None = None,
    *,
    reveal: Facet | None = None,
    asked: bool = False,
) -> Answer:
    """Return a user's answer as a turn records it, see `Dialogue.reply`. An answer to a question has no action."""
    if asked:
        error = clean_message(error) if error and action == len(ACTIONS) else None
        reveal = reveal if error is None else None
        return Answer(None, None, clean_message(message), error, clean_fields({"fields": fields}), reveal)
    usable = action < len(ACTIONS)
    return Answer(
        action=action if usable else None,
        strength=clamp_strength(action, strength) if usable else None,
        message=clean_message(message),
        error=None if usable else clean_message(error or "the message holds no action"),
        fields=clean_fields({"fields": fields}),
        reveal=reveal if usable else None,
    )


class Dialogue:
    """One episode being played: half-turns alternate, the recommender begins.

    Example: `d = Dialogue(task, items); d.recommend(position=3, message="..."); d.reply(action=3, strength=.9,
    message="..."); d.ending == "accepted"`. What is not allowed raises `ActionError` and changes nothing.

    In a task with an instruction the recommender may also `ask` for a kind of facet, which takes a turn and proposes
    nothing, and the user may `reveal` a facet with every answer, whether it is true or not.

    Raises:
        ConfigError: it is about no task, has no turns, the reward is none, or the agents are others than `ROLES`; in
            `reply`, the reward returns what cannot be paid.
    """

    def __init__(
        self,
        task: Task,
        items: Sequence[Item],
        *,
        max_turns: int = MAX_TURNS,
        reward: Reward | None = None,
        rules: Rules | None = None,
        agents: Sequence[str] = ROLES,
    ) -> None:
        expect(Task, task, "A dialogue is about a task.", "`freeze` makes some.")
        self.task = task
        self.items = items
        self.max_turns = whole_number("A dialogue needs turns.", "max_turns", max_turns, 1)
        self.rules = Rules() if rules is None else rules
        expect(Rules, self.rules, "A dialogue has rules.", "Pass Rules(...), or None.")
        self.kinds: tuple[str, ...] = task.instruction.kinds if task.instruction else ()
        """Kinds of facets that may be revealed and, unless the rules forbid questions, asked for."""
        self.agents = checked_agents(agents)
        """The recommender, then the users."""
        self.turns: list[Turn] = []
        """The last one is open while `speaker` is the user."""
        self.terms: list[RewardTerms] = []
        """Rewards of the closed turns."""
        self.speaker: Role = self.agents[0]
        self.ending: EndingKind | None = None
        self.cause: str | None = None
        self._reward = reward_or_default(reward)
        self._lines: dict[Role, list[str]] = {}  # what each side has been shown, kept because it only grows
        self._history = np.full(HISTORY_LENGTH, -1, np.int64)
        self._history[HISTORY_LENGTH - len(task.history) :] = task.history
        self._candidates = np.array(task.candidates, np.int64)
        self._opinions = np.full((max_turns, NUM_OPINIONS, OPINION_WIDTH), -1, np.int64)  # of what was proposed

    def recommend(
        self, position: int, message: str, error: str | None = None, fields: Mapping[str, str] | None = None
    ) -> None:
        """Propose candidate `position` as the recommender; `len(candidates)` means that it named none.

        Where repeats are forbidden, a message that proposes a rejected item is one that could not be used.
        """
        self._expect(self.agents[0], position, len(self.task.candidates))
        if position in self.forbidden:
            error = repeat_error(self.items[self.task.candidates[position]])
            position = len(self.task.candidates)
        turn = open_turn(self.task, position, message, error, fields)
        self.turns.append(turn)
        number = len(self.turns)
        if turn.proposal is not None and self.task.opinions:
            width = NUM_OPINIONS * OPINION_WIDTH
            told = self.task.opinions[position * width : (position + 1) * width]
            self._opinions[number - 1] = np.reshape(told, (NUM_OPINIONS, OPINION_WIDTH))
        self._say(proposal_text(number, turn, self.items))
        self._lines.get(USER, []).extend(opinions_text(number, self.task, turn, self.items))
        self.speaker = self.agents[1]

    @property
    def forbidden(self) -> frozenset[int]:
        """Positions of the candidates that must not be proposed now: the rejected ones, where repeats are forbidden."""
        if self.rules.repeats != "forbidden":
            return frozenset()
        rejected = rejected_items(self.turns)
        positions = frozenset(n for n, item in enumerate(self.task.candidates) if item in rejected)
        return frozenset() if len(positions) == len(self.task.candidates) else positions

    @property
    def askable(self) -> tuple[str, ...]:
        """Kinds of facets that the recommender may ask for in this turn: none in the last, which has to propose."""
        more = self.ending is None and len(self.terms) < self.max_turns - 1
        return self.kinds if self.rules.questions and more else ()

    @property
    def asked(self) -> str | None:
        """The kind of facet that the user is asked for now; None where it is not asked."""
        return self.turns[-1].question if self._is_open else None

    def ask(self, kind: str, message: str, fields: Mapping[str, str] | None = None) -> None:
        """Ask the user for a kind of facet, as the recommender.

        In the last turn, which has to propose, the message is one that could not be used.
        """
        self._expect(self.agents[0], 0, 0)
        if kind not in self.kinds or not self.rules.questions:
            raise ActionError(
                f"{kind!r} cannot be asked for in task {self.task.task_id!r}: its questions are "
                f"{list(self.kinds) if self.rules.questions else []}. Play episodes with an instruction of that kind."
            )
        if kind in self.askable:
            turn = Turn(None, clean_message(message), fields=clean_fields({"fields": fields}), question=kind)
        else:
            turn = open_turn(self.task, len(self.task.candidates), message, "the last turn must propose", fields)
        self.turns.append(turn)
        self._say(proposal_text(len(self.turns), turn, self.items))
        self.speaker = self.agents[1]

    def reply(
        self,
        action: int,
        strength: float | None,
        message: str,
        error: str | None = None,
        fields: Mapping[str, str] | None = None,
        reveal: Facet | None = None,
    ) -> RewardTerms:
        """Answer as the user; `len(ACTIONS)` means that the message held no action. Ends the turn and rewards it.

        The strength is moved into the interval of the action; None means its middle, see `clamp_strength`. An answer to
        a question has no action: action and strength are ignored, but for `len(ACTIONS)` with an error, which means
        that the message could not be read.
        """
        self._expect(self.agents[1], action, len(ACTIONS))
        if reveal is not None and reveal.kind not in self.kinds:
            raise ActionError(
                f"A facet of kind {reveal.kind!r} cannot be revealed in task {self.task.task_id!r}: its kinds are "
                f"{list(self.kinds)}. Reveal one of these, or nothing."
            )
        reveal = None if reveal is None else clean_facet(reveal)
        asked = self.asked is not None
        return self._close((read_answer(action, strength, message, error, fields, reveal=reveal, asked=asked),))

    def _close(self, answers: tuple[Answer, ...]) -> RewardTerms:
        """End the open turn with one answer for each user."""
        turn, number = replace(self.turns[-1], answers=answers), len(self.turns)
        terms = self._reward.turn(self.task, turn, number, self.max_turns)
        check_terms(terms, self._reward, self.task, number, self.agents)
        terms = apply_repeats(terms, [*self.turns[:-1], turn], self.rules)
        self.turns[-1] = turn
        self.terms.append(terms)
        self._say(answer_text(number, turn))
        self.speaker = self.agents[0]
        if turn.accepted:
            self.ending = "accepted"
        elif number == self.max_turns:
            self.ending = "max_turns"
        return terms

    def fail(self, cause: str) -> None:
        """End the episode because an agent broke; a half-finished turn is dropped."""
        self._expect(self.speaker, 0, 0)
        if self._is_open:
            self.turns.pop()
            self._opinions[len(self.turns)] = -1
            self._lines.clear()
        self.speaker = self.agents[0]
        self.ending, self.cause = "failed", clean_message(cause)

    def act(self, action: Action) -> RewardTerms | None:
        """Play the speaker's action, a member of its action space. Returns the turn's rewards when a turn closes.

        Raises:
            ActionError: it is none. Nothing has changed then.
        """
        speaker = self.speaker
        try:
            proposes = not self._is_open
            if proposes and action.get("ask"):
                self.ask(str(action["ask"]), str(action["message"]), action.get("fields"))
                return None
            reveal = None if proposes else read_reveal(action)
            number = index(action["item" if proposes else "action"])
            strength = None if proposes or action["strength"] is None else float(action["strength"])
            message, error, fields = str(action["message"]), action.get("error"), action.get("fields")
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as reason:
            raise ActionError(
                f"An action is a dict with the keys of its space. Expected one from {speaker}, found {action!r} "
                f"({reason!r}). See the docstring of CoarsEnv."
            ) from reason
        error = None if error is None else str(error)
        if proposes:
            self.recommend(number, message, error, fields)
            return None
        return self.reply(number, strength, message, error, fields, reveal)

    def observe(self, role: Role) -> Observation:
        """What one side may see now; a member of `observation_space`. Fresh arrays: the caller may change them."""
        turns, length, role = self.turns, self.max_turns, find_role(role)
        sees_list = role == self.agents[0]
        if role not in self._lines:
            self._lines[role] = dialogue_text(self.task, turns, self.items, role).split("\n")
        proposals, actions = np.full(length, -1, np.int64), np.full(length, -1, np.int64)
        strengths = np.full(length, -1.0, np.float32)
        for n, turn in enumerate(turns):
            if turn.proposal is not None:
                proposals[n] = turn.proposal
            answer = turn.answer
            if answer is not None and answer.action is not None:
                actions[n], strengths[n] = answer.action, answer.strength
        missing = ("",) * (length - len(turns))
        observation: Observation = {
            "text": "\n".join(self._lines[role]),
            "speaker": int(self._is_open),
            "turn": len(turns) - self._is_open,
            "history": self._history.copy(),
            "candidates": self._candidates.copy() if sees_list else np.full_like(self._candidates, -1),
            "proposals": proposals,
            "actions": actions,
            "strengths": strengths,
            "opinions": np.full_like(self._opinions, -1) if sees_list else self._opinions.copy(),
            "rationales": (*[turn.rationale for turn in turns], *missing),
            "replies": (*[answer.message if (answer := turn.answer) else "" for turn in turns], *missing),
        }
        if self.task.instruction is not None:
            reveals = [str(answer.reveal) if (answer := turn.answer) and answer.reveal else "" for turn in turns]
            observation |= {
                "instruction": "" if sees_list else str(self.task.instruction),
                "kinds": "\n".join(self.kinds),
                "askable": np.array([kind in self.askable for kind in self.kinds], np.int8),
                "questions": (*[turn.question or "" for turn in turns], *missing),
                "reveals": (*reveals, *missing),
            }
        if self.rules.repeats == "forbidden":
            allowed = np.ones(len(self._candidates), np.int8)
            allowed[list(self.forbidden) if sees_list else slice(None)] = 0
            observation["allowed"] = allowed
        return observation

    def parse_error(self, role: Role) -> str | None:
        """What was wrong with the latest message of a side, if it could not be read."""
        if not self.turns:
            return None
        turn, place = self.turns[-1], self.agents.index(role)
        if place == 0:
            return turn.error
        return turn.answers[place - 1].error if turn.answers else None

    def transcript(self, provenance: Provenance, *, seed: int = 0) -> Transcript:
        """The finished episode.

        Raises:
            TaskError: the episode has not ended.
        """
        if self.ending is None:
            raise TaskError(
                f"A transcript is of a finished episode. Expected one of task {self.task.task_id!r}, found "
                f"{len(self.terms)} finished turns of at most {self.max_turns}. Play on to the end."
            )
        rewards = tuple({agent: float(terms.rewards[agent]) for agent in self.agents} for terms in self.terms)
        return Transcript(
            self.task, self.max_turns, tuple(self.turns), self.ending, self.cause, provenance, seed, rewards, self.rules
        )

    @property
    def _is_open(self) -> bool:
        """Whether a proposal waits for the users' answers."""
        return len(self.turns) > len(self.terms)

    def _say(self, line: str) -> None:
        for lines in self._lines.values():
            lines.append(line)

    def _expect(self, role: Role, number: int, highest: int) -> None:
        if self.ending is not None or self.speaker != role:
            found = f"an episode that has ended ({self.ending})" if self.ending else f"the half-turn of {self.speaker}"
            raise ActionError(f"The sides speak in turn. Expected the half-turn of {role}, found {found}. Act in turn.")
        if not (isinstance(number, Integral) and 0 <= number <= highest):
            raise ActionError(
                f"An action must lie in its space. Expected 0..{highest} from {role}, found {number!r}. The last of "
                "them means that nothing could be read."
            )
