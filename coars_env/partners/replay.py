"""Replay: a side that says again what stored dialogues say."""

from collections.abc import Iterable, Mapping, Sequence

from coars_env.errors import expect
from coars_env.observation import Action, Observation, history_of
from coars_env.transcript import ACTIONS, RECOMMENDER, Role, Transcript, Turn, find_role


class Replay:
    """Plays one side of stored dialogues again, for as long as the dialogue at hand goes the way of a stored one.

    That is the first with the same history (and, for the recommender, the same candidates) whose turns so far have the
    same proposals and actions. Where there is none, what it says is unusable and the error says so: a stored answer to
    one proposal is no answer to another. Example: `Replay(read_transcripts("dialogues.jsonl"), USER)`.

    Raises:
        ConfigError: these are no transcripts, or there is no such side.
    """

    def __init__(self, transcripts: Iterable[Transcript], role: Role) -> None:
        self._role = find_role(role)
        self._stored: dict[tuple[tuple[int, ...], tuple[int, ...]], list[Transcript]] = {}
        for transcript in transcripts:
            expect(Transcript, transcript, "What is replayed are transcripts.", "`read_transcripts` reads some.")
            seen = transcript.task.candidates if self._role == RECOMMENDER else ()
            self._stored.setdefault((transcript.task.history, seen), []).append(transcript)

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        """Nothing to open."""

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: self._say(observation) for n, observation in observations.items()}

    def _say(self, observation: Observation) -> Action:
        candidates = observation["candidates"].tolist() if self._role == RECOMMENDER else []
        history = tuple(history_of(observation))
        stored = self._stored.get((history, tuple(candidates)), [])
        turn = next((t.turns[observation["turn"]] for t in stored if self._follows(observation, t.turns)), None)
        if self._role == RECOMMENDER:
            return _proposal(turn, candidates)
        return _answer(turn)

    def _follows(self, observation: Observation, turns: Sequence[Turn]) -> bool:
        n = observation["turn"]
        proposals = [-1 if turn.proposal is None else turn.proposal for turn in turns]
        answers = [turn.answer.action if turn.answer else None for turn in turns]
        actions = [-1 if action is None else action for action in answers]
        known = n + (self._role != RECOMMENDER)  # the user has seen the proposal of this turn, too
        seen = observation["proposals"][:known].tolist(), observation["actions"][:n].tolist()
        return len(turns) > n and seen == (proposals[:known], actions[:n])


_LEFT = "no stored dialogue went this way"


def _proposal(turn: Turn | None, candidates: list[int]) -> Action:
    if turn is None or turn.proposal is None:
        message, error = ("", _LEFT) if turn is None else (turn.rationale, turn.error)
        return {"item": len(candidates), "message": message, "error": error}
    return {"item": candidates.index(turn.proposal), "message": turn.rationale}


def _answer(turn: Turn | None) -> Action:
    answer = turn.answer if turn else None
    if answer is None or answer.action is None:
        message, error = ("", _LEFT) if answer is None else (answer.message, answer.error)
        return {"action": len(ACTIONS), "strength": 0.0, "message": message, "error": error}
    return {"action": answer.action, "strength": answer.strength, "message": answer.message}
