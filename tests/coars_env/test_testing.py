from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coars_env import (
    RECOMMENDER,
    USER,
    Action,
    CoarsEnv,
    CoarsReward,
    Dataset,
    FixedUser,
    Item,
    Observation,
    RandomRecommender,
    RewardTerms,
    Task,
    Turn,
    TurnArrays,
    facet_vocabulary,
    leave_last,
    rollout,
)
from coars_env.datasets.dataset import FloatArray
from coars_env.testing import (
    ID_RULES,
    ScriptedAgent,
    check_agent,
    check_dataset,
    check_env,
    check_reward,
    id_probe,
    toy_dataset,
    toy_episodes,
    toy_instructed_episodes,
)


def test_the_toy_dataset_is_as_drawn_in_its_docstring() -> None:
    dataset = toy_dataset()
    drawn = [line.split() for line in (toy_dataset.__doc__ or "").splitlines() if line.strip()[:1].isdigit()]
    assert [[str(user), *map(str, dataset.sequence(user))] for user in range(4)] == drawn
    train = [item for sequence in leave_last(dataset).train for item in sequence.items]
    assert " ".join(map(str, np.bincount(train, minlength=6))) in (toy_dataset.__doc__ or "")


def test_the_toy_episodes_follow_the_toy_dataset() -> None:
    split = leave_last(toy_dataset())
    for task, sequence in zip(toy_episodes(), split.test, strict=True):
        assert (task.user, *task.history, task.target) == (sequence.user, *sequence.items)
        assert set(task.candidates) & split.owned[task.user] == {task.target}


def test_the_instructed_toys_are_as_drawn_in_their_docstring() -> None:
    episodes, text = toy_instructed_episodes(), toy_instructed_episodes.__doc__ or ""
    fitting = [["Brazil (1985)"], ["Amélie (2001)"], ["七人の侍 (1954)"]]
    for task, plain, titles in zip(episodes, toy_episodes(), [*fitting, None], strict=True):
        assert replace(task, instruction=None) == plain
        assert task.instruction
        assert "; ".join(map(str, task.instruction.facets)) in text
        fits = [episodes.items[i].title for i in task.candidates if task.instruction.fits(episodes.items[i])]
        assert fits == (titles or [episodes.items[i].title for i in task.candidates])
    facets = facet_vocabulary(episodes.items, episodes.kinds)
    assert len(facets) == 13
    assert ", ".join(facet.value for facet in facets[:8]) in " ".join(text.split())
    assert ", ".join(facet.value for facet in facets[8:]) in text


def test_a_scripted_agent_plays_its_list_and_repeats_the_last() -> None:
    toy = toy_episodes()
    agent = ScriptedAgent([{"item": 2, "message": "A"}, {"item": 1, "message": "B"}])
    (transcript,) = rollout(toy.tasks[:1], toy.items, agent, FixedUser("skip"), provenance=toy.provenance, seed=4)
    assert [turn.rationale for turn in transcript.turns] == ["A", "B", "B", "B"]
    assert [turn.proposal for turn in transcript.turns] == [3, 1, 1, 1]
    assert agent.seeds == [(4, 0, 0, 1)]
    assert [observation["turn"] for observation in agent.observed[0]] == [0, 1, 2, 3]


# Agents that keep the protocol pass; each kind of breach is found -----------------------------------------------------


class Recommender:
    """Proposes the first candidate; the cases below spoil one thing each."""

    def __init__(self) -> None:
        self.calls = 0

    def start(self, seeds: Any) -> None:
        self.size = len(seeds)
        self.rngs = [np.random.default_rng(seed) for seed in seeds]

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        self.calls += 1
        return {n: self.propose(n, observation) for n, observation in observations.items()}

    def propose(self, n: int, observation: Observation) -> Action:
        return {"item": 0, "message": f"{self.rngs[n].random()}"}


class Silent(Recommender):
    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: action for n, action in super().act(observations).items() if n != 2}


class Talkative(Recommender):
    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {9: {"item": 0, "message": ""}, **super().act(observations)}


class OutsideItsSpace(Recommender):
    def propose(self, n: int, observation: Observation) -> Action:
        return {"item": 7, "message": ""}


class Scribbling(Recommender):
    def propose(self, n: int, observation: Observation) -> Action:
        observation["candidates"][0] = 0
        return super().propose(n, observation)


class Forgetful(Recommender):
    def propose(self, n: int, observation: Observation) -> Action:
        return {"item": 0, "message": f"call {self.calls}"}


class Nosy(Recommender):
    def propose(self, n: int, observation: Observation) -> Action:
        return {"item": 0, "message": f"one of {self.size}"}


class Brittle(Recommender):
    def propose(self, n: int, observation: Observation) -> Action:
        return {"item": 0, "message": "".join(observation["replies"]).encode("ascii").decode()}


class Wrapping:
    """Leaves everything to another agent, of which a copy of it has a copy."""

    def __init__(self, player: Any) -> None:
        self.player = player

    def start(self, seeds: Any) -> None:
        self.player.start(seeds)

    def act(self, observations: Any) -> Any:
        return self.player.act(observations)


class Clearing(Recommender):
    """Empties in `start` what its copies share with it."""

    def __init__(self) -> None:
        self.said: list[int] = []

    def start(self, seeds: Any) -> None:
        self.said.clear()

    def act(self, observations: Any) -> Any:
        self.said.append(1)
        return {n: {"item": 0, "message": f"{len(self.said)}th"} for n in observations}


def test_agents_that_keep_the_protocol_pass() -> None:
    check_agent(Recommender(), RECOMMENDER)
    check_agent(RandomRecommender(), RECOMMENDER)
    check_agent(FixedUser("star", 0.6), USER)
    check_agent(ScriptedAgent([{"item": 3, "message": "", "error": "lost"}]), RECOMMENDER)
    check_agent(Wrapping(RandomRecommender()), RECOMMENDER)


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (Clearing(), r"`start` must bind what the agent keeps of a dialogue anew: a copy .* Expected .*2th"),
        (Silent(), r"An agent answers where it is asked\. Expected dialogues \[0, 1, 2, 3\], found \[0, 1, 3\]"),
        (Talkative(), r"An agent answers where it is asked\. .*, found \[0, 1, 2, 3, 9\]"),
        (OutsideItsSpace(), r"An action must lie in its space\. Expected one of Dict\(.*, found \{'item': 7"),
        (Scribbling(), r"An agent must leave its observations alone"),
        (Forgetful(), r"Equal seeds must give equal dialogues\. Expected .*call 1.*, found .*call 5"),
        (Nosy(), r"A dialogue must go alike alone and in a batch\. Expected .*one of 4.*, found .*one of 1"),
        (Brittle(), r"An agent must not break\. Expected an action, found recommender_0: UnicodeEncodeError"),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, Recommender) else "",
)
def test_an_agent_that_breaks_the_protocol_is_found(agent: Recommender, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_agent(agent, RECOMMENDER)


class Changed(CoarsReward):
    """A reward with one defect in its terms."""

    def turn(self, task: Task, turn: Turn, number: int, max_turns: int) -> RewardTerms:
        return replace(super().turn(task, turn, number, max_turns), **self.defect(turn))

    def defect(self, turn: Turn) -> dict[str, Any]:
        return {}


class Infinite(Changed):
    def defect(self, turn: Turn) -> dict[str, Any]:
        return {"rewards": {RECOMMENDER: 0.0, USER: float("nan")}}


class ExcludesStrangers(Changed):
    def defect(self, turn: Turn) -> dict[str, Any]:
        return {"excluded": frozenset({"critic_0"})}


class Moody(Changed):
    def defect(self, turn: Turn) -> dict[str, Any]:
        return {"rewards": {RECOMMENDER: 0.0, USER: float(id(turn))}}


class PaysOtherwiseAtOnce(CoarsReward):
    """By .001 in the turns with number 2."""

    def batch(self, turns: TurnArrays, max_turns: int) -> dict[str, FloatArray]:
        paid = super().batch(turns, max_turns)
        return {**paid, USER: paid[USER] + 0.001 * (turns.number == 2)}


class Rounds(CoarsReward):
    def batch(self, turns: TurnArrays, max_turns: int) -> dict[str, FloatArray]:
        return {agent: np.nextafter(paid, 2) for agent, paid in super().batch(turns, max_turns).items()}


class PaysQuestionsAsProposals(CoarsReward):
    """As a batch that was written before there were questions."""

    def batch(self, turns: TurnArrays, max_turns: int) -> dict[str, FloatArray]:
        return super().batch(replace(turns, question=np.zeros_like(turns.question)), max_turns)


class CannotRead(CoarsReward):
    """Breaks on a turn that has no action."""

    def turn(self, task: Task, turn: Turn, number: int, max_turns: int) -> RewardTerms:
        if turn.question is not None:
            return replace(super().turn(task, turn, number, max_turns), rewards={RECOMMENDER: 0.0})
        return super().turn(task, turn, number, max_turns)


def test_the_reward_of_the_paper_passes() -> None:
    check_reward(CoarsReward())
    check_reward(CoarsReward(question_cost=0.25))
    check_reward(Changed())
    check_reward(Rounds())


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (Infinite(), r"Infinite.* returns reward user_0=nan, which is no finite number, in turn 1 of task 'toy-0'"),
        (ExcludesStrangers(), r"returns excluded=\['critic_0'\], which are not all agents, in turn 1 of task 'toy-0'"),
        (Moody(), r"depends on more than the turn: task 'toy-0', turn 1 earns RewardTerms\("),
        (
            PaysOtherwiseAtOnce(),
            r"must pay the same: task 'toy-0', turn 2 pays user_0 -0\.832\d* by `turn` and -0\.831\d* by `batch`",
        ),
        (
            PaysQuestionsAsProposals(question_cost=0.25),
            r"must pay the same: task 'toy-0', turn 1 pays recommender_0 -0\.25 by `turn` and -1\.0 by `batch`\. The "
            r"turn: .*question='genre'",
        ),
        (
            CannotRead(),
            r"CannotRead.* returns rewards=.*not those of .* in turn 1 .*The turn: Turn\(proposal=None, .*'genre'",
        ),
    ],
)
def test_a_reward_that_breaks_its_promise_is_found(reward: CoarsReward, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_reward(reward)


# Datasets -------------------------------------------------------------------------------------------------------------


def numbered_by_appearance(users: int = 60, length: int = 12) -> Dataset:
    """Each user took twelve neighbours of a catalogue whose numbers follow the order in which items were met."""
    first = np.arange(users) * 3
    return Dataset(
        name="in order",
        items=tuple(Item(f"Title {n}") for n in range(3 * users + length)),
        item_ids=tuple(map(str, range(3 * users + length))),
        user_ids=tuple(map(str, range(users))),
        users=np.repeat(np.arange(users), length),
        item_indices=(first[:, None] + np.arange(length)).ravel(),
        ratings=np.ones(users * length),
        timestamps=np.tile(np.arange(length), users),
        source="custom",
        origin="by hand",
    )


def test_datasets_that_keep_the_rules_pass() -> None:
    check_dataset(toy_dataset(), num_candidates=3)
    data = numbered_by_appearance()
    order = np.random.default_rng(1).permutation(data.num_items)
    check_dataset(replace(data, item_indices=order[data.item_indices]))


def test_numbers_in_the_order_of_the_source_are_found() -> None:
    with pytest.raises(AssertionError, match=r"Numbers must .* 'nearest to the last item' .*, found 1\.000"):
        check_dataset(numbered_by_appearance())


def spoiled(**changes: Any) -> Dataset:
    return replace(toy_dataset(), **changes)


def retitled(title: str) -> Dataset:
    return spoiled(items=(Item(title), *toy_dataset().items[1:]))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (retitled(""), r"A title is one line of text .* Expected one for item 'a', found ''"),
        (retitled("Heat "), r"A title is one line of text"),
        (retitled("He\nat"), r"A title is one line of text"),
        (retitled("Ame\u0301lie"), r"A title is one line of text in NFC"),
        (spoiled(items=(Item("A", ("",)), *toy_dataset().items[1:])), r"Genres are words"),
        (spoiled(item_ids=("a", "b", "a", "d", "e", "f")), r"Each item has its own id\. .* found \['a'\]"),
        (spoiled(user_ids=("ann", "ann", "cem", "dee")), r"Each user has its own id\. .* found \['ann'\]"),
        (spoiled(ratings=np.full(13, np.nan)), r"Ratings are finite numbers\. Expected 13, found 0"),
        (
            spoiled(timestamps=np.zeros(13, np.int64), item_indices=np.zeros(13, np.int64)),
            r"An interaction is listed",
        ),
        (spoiled(origin=("a", 1)), r"A provenance is three strings"),
    ],
)
def test_a_dataset_that_breaks_a_rule_is_found(dataset: Dataset, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_dataset(dataset, num_candidates=3)


def test_a_dataset_in_which_nobody_has_a_next_item_is_found() -> None:
    short = spoiled(**{c: getattr(toy_dataset(), c)[:2] for c in ("users", "item_indices", "ratings", "timestamps")})
    with pytest.raises(AssertionError, match=r"Somebody must have a next item"):
        check_dataset(short, num_candidates=3)


def test_the_rules_of_numbers_by_hand() -> None:
    history, items = np.array([2, 9]), np.array([4, 11, 1, 20, 8])
    chosen = {name: int(items[np.argmax(rule(history, items))]) for name, rule in ID_RULES.items()}
    assert list(chosen.values()) == [8, 11, 1, 1, 4]
    nothing = np.array([], np.int64)
    assert [int(np.argmax(rule(nothing, items))) for rule in ID_RULES.values()] == [0, 2, 0, 2, 0]


def test_the_probe_counts_hits_on_the_toy() -> None:
    # first of the list 5 2 0 0, smallest 1 0 0 0; targets 5 0 3 2
    found = id_probe(toy_episodes())
    assert (found["first of the list"], found["smallest"]) == (0.25, 0.25)


# Environments ---------------------------------------------------------------------------------------------------------


class NewSpaces(CoarsEnv):
    def observation_space(self, agent: str) -> Any:
        return deepcopy(super().observation_space(agent))


class TurnOutside(CoarsEnv):
    def step(self, actions: Any) -> Any:
        observations, *rest = super().step(actions)
        for observation in observations.values():
            observation["turn"] += 1
        return observations, *rest


class OneEndsFirst(CoarsEnv):
    def step(self, actions: Any) -> Any:
        observations, rewards, terminations, *rest = super().step(actions)
        return observations, rewards, {**terminations, USER: False}, *rest


class NoInfo(CoarsEnv):
    def step(self, actions: Any) -> Any:
        *rest, infos = super().step(actions)
        return *rest, {RECOMMENDER: infos[RECOMMENDER]}


class Infinitely(CoarsEnv):
    def step(self, actions: Any) -> Any:
        observations, _, *rest = super().step(actions)
        return observations, dict.fromkeys(observations, float("inf")), *rest


class Lingering(CoarsEnv):
    def step(self, actions: Any) -> Any:
        said = super().step(actions)
        self.agents = list(self.possible_agents)
        return said


class Restarting(CoarsEnv):
    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(0 if seed is None else seed, options)


class Unseeded(CoarsEnv):
    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(None, options)


class Fussy(CoarsEnv):
    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed if options is None else 99, options)


class Entangled(CoarsEnv):
    latest: "Entangled"

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        Entangled.latest = self
        return super().reset(seed, options)

    def step(self, actions: Any) -> Any:
        *rest, infos = super().step(actions)
        return *rest, {agent: {**info, "mine": Entangled.latest is self} for agent, info in infos.items()}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NewSpaces, r"A space is one object\. Expected the same from observation_space\('recommender_0'\) twice"),
        (TurnOutside, r"An observation lies in its space\. Expected a member of Dict"),
        (
            OneEndsFirst,
            r"All agents end together\. Expected one answer, found \{'recommender_0': True, 'user_0': False",
        ),
        (NoInfo, r"Who acted is answered\. Expected \['recommender_0', 'user_0'\], found \['recommender_0'\]"),
        (Infinitely, r"Rewards are finite numbers\. Expected some, found .*inf"),
        (Lingering, r"`agents` names who acts next\. Expected \[\], found \['recommender_0', 'user_0'\]"),
        (Restarting, r"reset\(\) without a seed goes on with the stream\. Expected different episodes, found 8 alike"),
        (Unseeded, r"An episode can be played again by its seed\. Expected at "),
        (Fussy, r"Unknown options are ignored\. Expected at "),
        (
            Entangled,
            r"Two instances go each as it does alone\. Expected at \[0\]\[0\]\[1\]\[4\]\['recommender_0'\]",
        ),
    ],
)
def test_an_environment_that_breaks_a_promise_is_found(kind: type[CoarsEnv], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_env(lambda: kind(toy_episodes()))
