"""Replay: a side that says again what stored dialogues say."""

from collections.abc import Iterable, Mapping, Sequence

from coars_env.errors import expect
from coars_env.observation import (
    Action,
    Observation,
    askable_kinds,
    histories_of,
    kinds_of,
    num_users_of,
    of_user,
    reveals_of,
)
from coars_env.transcript import ACTIONS, RECOMMENDER, Role, Transcript, Turn, find_role


class Replay:
    """Plays one side of stored dialogues again, for as long as the dialogue at hand goes the way of a stored one.

    That is the first with the same history and kinds of facets (and the same candidates for the recommender, the same
    instruction for the user) whose turns so far have the same proposals, questions, actions and revealed facets. Where
    there is none, what it says is unusable and the error says so: a stored answer to one proposal is no answer to
    another. Of groups it plays the recommender, or any of the users, each its own answers. Example:
    `Replay(read_transcripts("dialogues.jsonl"), USER)`.

    Raises:
        ConfigError: these are no transcripts, or there is no such side.
    """

    def __init__(self, transcripts: Iterable[Transcript], role: Role) -> None:
        self._role = find_role(role)
        self._stored: dict[tuple[object, ...], list[Transcript]] = {}
        for transcript in transcripts:
            expect(Transcript, transcript, "What is replayed are transcripts.", "`read_transcripts` reads some.")
            task = transcript.task
            kinds = task.instruction.kinds if task.instruction else ()
            histories = tuple(member.history for member in task.members)
            keys: list[tuple[object, ...]] = [(histories, kinds, task.candidates)]
            if self._role != RECOMMENDER:
                wanted = [str(member.instruction or "") for member in task.members]
                keys = [((own,), kinds, wanted[n], n, task.num_users) for n, own in enumerate(histories)]
            for key in keys:
                self._stored.setdefault(key, []).append(transcript)

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        """Nothing to open."""

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: self._say(observation) for n, observation in observations.items()}

    def _say(self, observation: Observation) -> Action:
        candidates, place = observation["candidates"].tolist(), max(int(observation.get("agent", 1)) - 1, 0)
        wanted = (observation.get("instruction", ""), place, num_users_of(observation))
        seen = (tuple(candidates),) if self._role == RECOMMENDER else wanted
        histories = tuple(map(tuple, histories_of(observation)))
        stored = self._stored.get((histories, kinds_of(observation), *seen), [])
        turn = next((t.turns[observation["turn"]] for t in stored if self._follows(observation, t.turns)), None)
        if self._role != RECOMMENDER:
            return _answer(turn, place)
        if turn is not None and turn.question in askable_kinds(observation):
            return {"ask": turn.question, "item": len(candidates), "message": turn.rationale}
        return _proposal(turn, candidates)

    def _follows(self, observation: Observation, turns: Sequence[Turn]) -> bool:
        n = observation["turn"]
        proposals = [-1 if turn.proposal is None else turn.proposal for turn in turns]
        known = n + (self._role != RECOMMENDER)  # the user has seen the proposal of this turn, too
        asked = tuple(turn.question or "" for turn in turns)
        proposed = observation["proposals"][:known].tolist() == proposals[:known]
        same = proposed and observation.get("questions", asked)[:known] == asked[:known]
        users = range(num_users_of(observation))
        return len(turns) > n and same and all(_answered(observation, turns, place) for place in users)


_LEFT = "no stored dialogue went this way"


def _proposal(turn: Turn | None, candidates: list[int]) -> Action:
    if turn is None or turn.proposal is None:
        message, error = ("", _LEFT) if turn is None else (turn.rationale, turn.error or _LEFT)
        return {"item": len(candidates), "message": message, "error": error}
    return {"item": candidates.index(turn.proposal), "message": turn.rationale}


def _answered(observation: Observation, turns: Sequence[Turn], place: int) -> bool:
    """Whether a user has answered the finished turns as the stored ones."""
    seen = of_user(observation, place)
    answers = [turn.answers[place] for turn in turns[: seen["turn"]]]
    actions = [-1 if answer.action is None else answer.action for answer in answers]
    revealed = tuple(answer.reveal for answer in answers)
    same = seen["actions"][: len(answers)].tolist() == actions
    return same and ("reveals" not in seen or reveals_of(seen) == revealed)


def _answer(turn: Turn | None, place: int) -> Action:
    answer = turn.answers[place] if turn else None
    if answer is None or answer.error is not None:
        message, error = ("", _LEFT) if answer is None else (answer.message, answer.error)
        return {"action": len(ACTIONS), "strength": 0.0, "message": message, "error": error}
    revealed = {} if answer.reveal is None else {"reveal": str(answer.reveal)}
    return {"action": answer.action or 0, "strength": answer.strength or 0.0, "message": answer.message, **revealed}
