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
from coars_env.roles import Role, agents_of, find_role, user_of
from coars_env.rules import Rules
from coars_env.tasks import HISTORY_LENGTH, NUM_OPINIONS, OPINION_WIDTH, Task
from coars_env.transcript import ACTIONS, Answer, EndingKind, Transcript, Turn, clean_message, rejected_items
from coars_env.turns import answer_rows, clean_facet, clean_fields, open_turn, read_answer, reading, repeat_error

MAX_TURNS = 4
"""T; the paper is silent, 4 is AFL's value (arXiv:2410.20027)."""


def checked_seed(seed: int) -> int:
    """The seed as Python's own integer.

    Raises:
        ConfigError: no whole number, or negative.
    """
    return whole_number("A seed feeds a random generator.", "seed", seed, 0)


class Dialogue:
    """One episode being played: half-turns alternate, the recommender begins.

    Example: `d = Dialogue(task, items); d.recommend(position=3, message="..."); d.reply(action=3, strength=.9,
    message="..."); d.ending == "accepted"`. What is not allowed raises `ActionError` and changes nothing.

    In a task with an instruction the recommender may also `ask` for a kind of facet, which takes a turn and proposes
    nothing, and the user may `reveal` a facet with every answer, whether it is true or not.

    The users of a group (`Task.others`) answer in one half-turn, without hearing one another before it closes: all at
    once by `act_all`, or each with a `reply` of its own in the order of `agents`.

    Raises:
        ConfigError: it is about no task, has no turns, or the reward is none; in `reply`, the reward returns what
            cannot be paid.
    """

    def __init__(
        self,
        task: Task,
        items: Sequence[Item],
        *,
        max_turns: int = MAX_TURNS,
        reward: Reward | None = None,
        rules: Rules | None = None,
    ) -> None:
        expect(Task, task, "A dialogue is about a task.", "`freeze` makes some.")
        self.task = task
        self.items = items
        self.max_turns = whole_number("A dialogue needs turns.", "max_turns", max_turns, 1)
        self.rules = Rules() if rules is None else rules
        expect(Rules, self.rules, "A dialogue has rules.", "Pass Rules(...), or None.")
        self.kinds: tuple[str, ...] = task.instruction.kinds if task.instruction else ()
        """Kinds of facets that may be revealed and, unless the rules forbid questions, asked for."""
        self.agents = agents_of(task.num_users)
        """The recommender, then the users."""
        self.turns: list[Turn] = []
        """The last one is open while `speaker` is a user."""
        self.terms: list[RewardTerms] = []
        """Rewards of the closed turns."""
        self.speaker: Role = self.agents[0]
        """Who speaks next; of several users that answer now, the first that has not."""
        self.ending: EndingKind | None = None
        self.cause: str | None = None
        self._reward = reward_or_default(reward)
        self._lines: dict[Role, list[str]] = {}  # what each side has been shown, kept because it only grows
        self._tasks = [task.for_user(place) for place in range(task.num_users)]
        self._given: list[Answer] = []  # to the open turn, by the first users of a group
        self._history = np.full((task.num_users, HISTORY_LENGTH), -1, np.int64)
        for row, own in zip(self._history, self._tasks, strict=True):
            row[HISTORY_LENGTH - len(own.history) :] = own.history
        self._candidates = np.array(task.candidates, np.int64)
        heard = (task.num_users, max_turns, NUM_OPINIONS, OPINION_WIDTH)
        self._opinions = np.full(heard, -1, np.int64)  # of what was proposed

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
        self._say(proposal_text(number, turn, self.items))
        for user, own, opinions in zip(self.agents[1:], self._tasks, self._opinions, strict=True):
            if turn.proposal is not None and own.opinions:
                width = NUM_OPINIONS * OPINION_WIDTH
                told = own.opinions[position * width : (position + 1) * width]
                opinions[number - 1] = np.reshape(told, (NUM_OPINIONS, OPINION_WIDTH))
            self._lines.get(user, []).extend(opinions_text(number, own, turn, self.items))
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
        """Answer as the only user; `len(ACTIONS)` means that the message held no action. Ends the turn and rewards it.

        The strength is moved into the interval of the action; None means its middle, see `clamp_strength`. An answer to
        a question has no action: action and strength are ignored, but for `len(ACTIONS)` with an error, which means
        that the message could not be read.
        """
        if self.task.others:
            raise ActionError("The users of a group answer together. Use `act_all`, or `act` for one after another.")
        return self._close([self._answer(self.agents[1], action, strength, message, error, fields, reveal)])

    def _answer(
        self,
        user: Role,
        action: int,
        strength: float | None,
        message: str,
        error: str | None,
        fields: Mapping[str, str] | None,
        reveal: Facet | None,
    ) -> Answer:
        """Return a user's answer to the open turn, which is left as it is."""
        self._expect(user, action, len(ACTIONS))
        if reveal is not None and reveal.kind not in self.kinds:
            raise ActionError(
                f"A facet of kind {reveal.kind!r} cannot be revealed in task {self.task.task_id!r}: its kinds are "
                f"{list(self.kinds)}. Reveal one of these, or nothing."
            )
        reveal = None if reveal is None else clean_facet(reveal)
        asked = self.asked is not None
        return read_answer(action, strength, message, error, fields, reveal=reveal, asked=asked)

    def _close(self, answers: Sequence[Answer]) -> RewardTerms:
        """End the open turn with one answer of each user."""
        turn, number = replace(self.turns[-1], answers=tuple(answers)), len(self.turns)
        terms = self._reward.turn(self.task, turn, number, self.max_turns)
        check_terms(terms, self._reward, self.task, number, self.agents)
        terms = apply_repeats(terms, [*self.turns[:-1], turn], self.rules)
        self.turns[-1], self._given = turn, []
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
            self._given = []
            self._opinions[:, len(self.turns)] = -1
            self._lines.clear()
        self.speaker = self.agents[0]
        self.ending, self.cause = "failed", clean_message(cause)

    @property
    def speakers(self) -> tuple[Role, ...]:
        """All whose half-turn it is and who have not acted: the recommender, or the users."""
        return self.agents[1 + len(self._given) :] if self._is_open else self.agents[:1]

    def act(self, action: Action) -> RewardTerms | None:
        """Play the speaker's action, a member of its action space. Returns the turn's rewards when a turn closes.

        Raises:
            ActionError: it is none. Nothing has changed then.
        """
        if len(self.speakers) == 1:
            return self.act_all({self.speaker: action})
        self._given.append(self._read(self.speaker, action))
        self.speaker = self.speakers[0]
        return None

    def act_all(self, actions: Mapping[Role, Action]) -> RewardTerms | None:
        """Play the actions of all `speakers`, by name. Returns the turn's rewards when a turn closes.

        Raises:
            ActionError: one is missing, or is no member of its action space. Nothing has changed then.
        """
        missing = [role for role in self.speakers if role not in actions]
        if missing:
            raise ActionError(f"Actions are needed of {list(self.speakers)}, got none of {missing}.")
        if self._is_open:
            return self._close([*self._given, *(self._read(role, actions[role]) for role in self.speakers)])
        action = actions[self.speaker]
        with reading(self.speaker, action):
            asked, number = str(action.get("ask") or ""), 0
            if not asked:
                number = index(action["item"])
            message, error, fields = str(action["message"]), action.get("error"), action.get("fields")
        if asked:
            self.ask(asked, message, fields)
        else:
            self.recommend(number, message, None if error is None else str(error), fields)
        return None

    def _read(self, user: Role, action: Action) -> Answer:
        """Return the answer that a user's action makes to the open turn."""
        with reading(user, action):
            reveal, number = read_reveal(action), index(action["action"])
            strength = None if action["strength"] is None else float(action["strength"])
            message, error, fields = str(action["message"]), action.get("error"), action.get("fields")
        return self._answer(user, number, strength, message, None if error is None else str(error), fields, reveal)

    def observe(self, role: Role) -> Observation:
        """What one side may see now; a member of `observation_space`. Fresh arrays: the caller may change them.

        Raises:
            ConfigError: no such agent plays.
        """
        turns, role, group = self.turns, find_role(role), bool(self.task.others)
        if role not in self.agents:
            raise ConfigError(f"role must be one of {list(self.agents)}, got {role!r}.")
        place = user_of(role)
        if role not in self._lines:
            self._lines[role] = dialogue_text(self.task, turns, self.items, role).split("\n")
        proposals = np.full(self.max_turns, -1, np.int64)
        proposals[: len(turns)] = [-1 if turn.proposal is None else turn.proposal for turn in turns]
        missing = ("",) * (self.max_turns - len(turns))
        observation: Observation = {
            "text": "\n".join(self._lines[role]),
            "speaker": int(self._is_open),
            "turn": len(turns) - self._is_open,
            "history": self._history[(... if group else 0) if place is None else place].copy(),
            "candidates": self._candidates.copy() if place is None else np.full_like(self._candidates, -1),
            "proposals": proposals,
            "opinions": np.full_like(self._opinions[0], -1) if place is None else self._opinions[place].copy(),
            "rationales": (*[turn.rationale for turn in turns], *missing),
        }
        observation |= answer_rows(turns, self.max_turns, self.task.num_users)
        if group:
            observation["agent"] = self.agents.index(role)
        if self.task.instruction is not None:
            observation |= {
                "instruction": "" if place is None else str(self._tasks[place].instruction),
                "kinds": "\n".join(self.kinds),
                "askable": np.array([kind in self.askable for kind in self.kinds], np.int8),
                "questions": (*[turn.question or "" for turn in turns], *missing),
            }
        else:
            del observation["reveals"]
        if self.rules.repeats == "forbidden":
            allowed = np.ones(len(self._candidates), np.int8)
            allowed[list(self.forbidden) if place is None else slice(None)] = 0
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
        if self.ending is not None or role not in self.speakers:
            found = f"an episode that has ended ({self.ending})" if self.ending else f"the half-turn of {self.speaker}"
            raise ActionError(f"The sides speak in turn. Expected the half-turn of {role}, found {found}. Act in turn.")
        if not (isinstance(number, Integral) and 0 <= number <= highest):
            raise ActionError(
                f"An action must lie in its space. Expected 0..{highest} from {role}, found {number!r}. The last of "
                "them means that nothing could be read."
            )
