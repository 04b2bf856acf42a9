import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from coars_env import (
    RECOMMENDER,
    AskingRecommender,
    ConfigError,
    Dialogue,
    EpisodeSet,
    Facet,
    FixedUser,
    InstructedUser,
    Instruction,
    Item,
    Rules,
    SilentUser,
    Task,
    TaskError,
    Transcript,
    play,
    rollout,
)
from coars_env.testing import ScriptedAgent, check_agent, toy_episodes
from turns import group_of

ITEMS = (
    Item("Amélie (2001)", ("Comedy", "Romance"), 2001),
    Item("Heat (1995)", ("Crime", "Thriller"), 1995),
    Item("Fargo (1996)", ("Comedy", "Crime"), 1996),
    Item("Brazil (1985)", ("Comedy", "Sci-Fi"), 1985),
    Item("Ran", (), None),
)
HALVING = float(np.sqrt(2) / np.log(2))
"""Temperature at which scores 1 0 0 -1, of deviation sqrt(1/2), become weights 2 1 1 1/2."""
PRIOR = [4 / 9, 2 / 9, 2 / 9, 1 / 9]
WISH = Instruction((Facet("genre", "Comedy"), Facet("decade", "1990s")), ("genre", "decade"))
TASK = Task("by-hand", 0, history=(4,), candidates=(0, 1, 2, 3), target=2, instruction=WISH)


def scorer(history: Any, items: Any) -> Any:
    return np.array([1.0, 0.0, 0.0, -1.0, -2.0])[items]


def asker(**options: Any) -> AskingRecommender:
    return AskingRecommender(scorer, ITEMS, **{"temperature": HALVING, **options})


def only(kinds: tuple[str, ...], task: Task = TASK) -> Task:
    facets = tuple(facet for facet in WISH.facets if facet.kind in kinds)
    return dataclasses.replace(task, instruction=Instruction(facets, kinds))


def played(recommender: Any, user: Any, task: Task = TASK, **options: Any) -> Transcript:
    provenance = toy_episodes().provenance
    return rollout([task], ITEMS, recommender, user, provenance=provenance, **options)[0]


def course(transcript: Transcript) -> list[object]:
    """What the recommender did in each turn: a kind that it asked for, or an item that it proposed."""
    return [turn.question or turn.proposal for turn in transcript.turns]


@pytest.mark.parametrize("instructed", [False, True])
@pytest.mark.parametrize("options", [{}, {"asks": False}, {"noise": 0.1}])
def test_it_keeps_the_protocol(instructed: bool, options: dict[str, Any]) -> None:
    episodes = toy_episodes(instructed=instructed)
    agent = AskingRecommender(lambda history, items: np.zeros(len(items)), episodes.items, **options)
    check_agent(agent, RECOMMENDER, instructed=instructed)
    shown = AskingRecommender(lambda history, items: items * 1.0, episodes.items, shown=episodes)
    check_agent(shown, RECOMMENDER, instructed=instructed)


# The belief -----------------------------------------------------------------------------------------------------------


def belief_after(*turns: tuple[int, int, str], **options: Any) -> list[float]:
    """Belief of `asker` after turns of (proposal, action, revealed facet)."""
    proposals, actions, reveals = zip(*turns, strict=True) if turns else ((), (), ())
    observation = {
        "candidates": np.array(TASK.candidates),
        "proposals": np.array([*proposals, -1]),
        "actions": np.array([*actions, -1]),
    }
    heard = [facet for facet in map(Facet.parse, reveals) if facet is not None]
    return asker(**options).belief(np.array(PRIOR), observation, heard).tolist()


def test_one_answer_by_hand() -> None:
    # 4/9 2/9 2/9 1/9 times 1/2 0 1/2 1/2: each of the three comedies has two genres
    assert belief_after((-1, -1, "genre: Comedy")) == pytest.approx([4 / 7, 0, 2 / 7, 1 / 7])


def test_a_film_of_one_genre_is_likelier_to_be_wanted_for_it() -> None:
    listed = [Item("A", ("War",)), Item("B", ("War", "Drama")), Item("C")]
    assert asker().likelihood(Facet("genre", "War"), listed).tolist() == [1, 0.5, 0]


def test_noise_leaves_a_share_to_every_candidate() -> None:
    # five genres in the list: .9 / 2 + .1 / 5 = .47, and .02 where the genre is missing
    weights = np.array(PRIOR) * [0.47, 0.02, 0.47, 0.47]
    assert belief_after((-1, -1, "genre: Comedy"), noise=0.1) == pytest.approx((weights / weights.sum()).tolist())


def test_a_rejected_candidate_is_out_and_a_star_is_none() -> None:
    assert belief_after((0, 1, "")) == pytest.approx([0, 0.4, 0.4, 0.2])
    assert belief_after((0, 2, "")) == pytest.approx(PRIOR)


def test_what_would_leave_nothing_is_passed_over() -> None:
    assert belief_after((-1, -1, "genre: War")) == pytest.approx(PRIOR)
    assert belief_after((0, 0, ""), (-1, -1, "genre: Romance")) == pytest.approx([0, 0.4, 0.4, 0.2])
    assert belief_after(*[(place, 0, "") for place in range(4)]) == pytest.approx(PRIOR)


def test_equal_scores_are_equal_beliefs() -> None:
    agent = AskingRecommender(lambda history, items: np.full(len(items), 0.3), ITEMS)
    firsts = np.zeros(4)
    dialogues = [Dialogue(TASK, ITEMS, max_turns=1) for _ in range(400)]
    play(dialogues, agent, FixedUser())
    for dialogue in dialogues:
        firsts[dialogue.turns[0].proposal or 0] += 1
    assert np.abs(firsts - 100).max() < 3 * np.sqrt(400 * 3 / 16)


# Questions ------------------------------------------------------------------------------------------------------------


def test_what_a_question_is_worth_by_hand() -> None:
    belief, listed = np.array(PRIOR), list(ITEMS[:4])
    # Comedy, Romance: 4/9 * 1/2; Crime, Thriller: 2/9 * 1/2; Sci-Fi: 1/9 * 1/2
    assert asker().question_value(belief, listed, "genre") == pytest.approx(13 / 18)
    # the 2000s 4/9, the 1990s 2/9, the 1980s 1/9
    assert asker().question_value(belief, listed, "decade") == pytest.approx(14 / 18)
    # who wants Ran declines to name a decade, and the belief stays: 1/2 + 1/2 * 1/2
    assert asker().question_value(np.array([0.5, 0.5]), [ITEMS[0], ITEMS[4]], "decade") == pytest.approx(0.75)
    # noise .2, two decades: .9 / 2 and .1 / 2 each of two films, whichever is named
    assert asker(noise=0.2).question_value(np.array([0.5, 0.5]), list(ITEMS[:2]), "decade") == pytest.approx(0.9)


def test_it_asks_for_what_gains_most_as_long_as_that_beats_a_proposal() -> None:
    # decade: 14/18 - 8/18 > 4/18. After "1990s" Heat and Fargo are 1/2 each: Comedy, Crime, Thriller gain 3/4 - 1/2,
    # a proposal 1/2. If Heat is rejected, Fargo is left.
    transcript = played(asker(), InstructedUser(ITEMS, volunteer=0))
    assert course(transcript) in (["decade", 2], ["decade", 1, 2])
    assert transcript.turns[0].rationale == "Of which decade?"
    assert transcript.turns[-1].rationale == "It fits what you want: 1990s."
    # genre alone: 13/18 - 8/18 > 4/18
    assert course(played(asker(), FixedUser(), only(("genre",)))) == ["genre", 0]


def test_it_asks_for_each_kind_once_and_never_in_the_last_turn() -> None:
    silent = FixedUser("dislike", 0.1)
    assert course(played(asker(), silent, max_turns=6))[:3] == ["decade", "genre", 0]
    assert course(played(asker(), silent, max_turns=1)) == [0]
    assert course(played(asker(), silent, max_turns=2)) == ["decade", 0]


def test_it_does_not_ask_for_what_was_volunteered() -> None:
    talkative = ScriptedAgent([{"action": 0, "strength": 0.1, "message": "", "reveal": "decade: 1990s"}])
    agent = AskingRecommender(scorer, ITEMS, temperature=HALVING)
    transcript = played(agent, talkative, max_turns=4)
    assert course(transcript)[0] == "decade"
    assert set(course(transcript)[1:3]) == {1, 2}  # genre would gain 1/4, a proposal 1/2


def test_it_proposes_only_where_it_is_not_to_ask() -> None:
    silent = FixedUser("dislike", 0.1)
    listens = course(played(asker(asks=False), silent))
    assert listens[0] == 0
    assert set(listens[1:3]) == {1, 2}
    assert listens[3] == 3
    assert played(asker(), silent, rules=Rules(questions=False)).turns[0].proposal == 0
    assert played(asker(), silent, dataclasses.replace(TASK, instruction=None)).turns[0].proposal == 0


@pytest.mark.parametrize("repeats", ["paid", "forbidden"])
def test_it_never_proposes_what_was_rejected_while_another_is_left(repeats: Any) -> None:
    transcript = played(asker(asks=False), FixedUser("skip", 0.3), max_turns=6, rules=Rules(repeats=repeats))
    proposed = [turn.proposal for turn in transcript.turns]
    assert sorted(proposed[:4]) == [0, 1, 2, 3]  # type: ignore[type-var]
    assert all(turn.error is None for turn in transcript.turns)


# The bound ------------------------------------------------------------------------------------------------------------


def test_shown_the_instruction_it_proposes_at_once_what_fits() -> None:
    other = dataclasses.replace(
        TASK, task_id="other", candidates=(3, 2, 1, 0), instruction=only(("genre",)).instruction
    )
    transcript = played(asker(shown=[TASK, other]), SilentUser(ITEMS))
    assert course(transcript) == [2]  # the comedy of the 1990s, at 1/9 * 1/2 of 2/9 the only one left
    assert transcript.turns[0].rationale == "It fits what you want: Comedy, 1990s."


def test_a_list_that_was_not_shown_is_a_wrong_set_up() -> None:
    with pytest.raises(
        TaskError, match=r"No task of the 1 shown has history \(4,\) and candidates \(3, 2, 1, 0\)\. Bu"
    ):
        played(asker(shown=[TASK]), FixedUser(), dataclasses.replace(TASK, candidates=(3, 2, 1, 0)))


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: AskingRecommender("popularity", ITEMS), ConfigError, "What is recommended is scored"),  # type: ignore[arg-type]
        (lambda: asker(temperature=0), ConfigError, r"temperature must be above 0, got 0\. Use"),
        (lambda: asker(temperature="hot"), ConfigError, r"temperature must be above 0, got 'hot'"),
        (lambda: asker(noise=1.0), ConfigError, r"noise must be a chance below 1, got 1\.0"),
        (lambda: asker(noise=float("nan")), ConfigError, r"noise must be a chance below 1, got nan"),
        (lambda: asker(shown=["task"]), ConfigError, "Instructions are part of tasks"),
    ],
)
def test_what_cannot_be_is_refused(build: Callable[[], object], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        build()


def test_scores_must_be_finite() -> None:
    agent = AskingRecommender(lambda history, items: np.full(len(items), -np.inf), ITEMS)
    with pytest.raises(TaskError, match=r"Scores must be finite to become a belief, got \[-inf"):
        played(agent, FixedUser())


def test_the_pair_beats_a_recommender_that_never_asks_on_the_toy() -> None:
    episodes: EpisodeSet = toy_episodes(instructed=True)
    flat = lambda history, items: np.zeros(len(items))  # noqa: E731
    user = InstructedUser(episodes.items, volunteer=0)
    hits = {}
    for asks in (True, False):
        agent = AskingRecommender(flat, episodes.items, asks=asks)
        found = [
            rollout(episodes, episodes.items, agent, user, provenance=episodes.provenance, max_turns=2, seed=seed)
            for seed in range(20)
        ]
        hits[asks] = np.mean([t.best_item == t.task.target for transcripts in found for t in transcripts])
    # the decades of each list differ, so one answer leaves one candidate; two guesses of three find 2/3
    assert hits[True] == 1.0
    assert hits[False] == pytest.approx(2 / 3, abs=3 * (2 / 9 / 80) ** 0.5)


def test_it_hears_all_users_of_a_group() -> None:
    # Histories that score 1 0 0 -1 and 0 0 0 0: half of the first, which standardised is the first.
    def by_history(history: Any, items: Any) -> Any:
        return scorer(history, items) * (list(history) == [4])

    group = group_of(TASK, ((), (Facet("decade", "1990s"),)))
    agent = AskingRecommender(by_history, ITEMS, temperature=HALVING)
    agent.start([[0]])
    dialogue = Dialogue(group, ITEMS)
    assert agent.prior([[4], []], group.candidates) == pytest.approx(PRIOR)
    dialogue.ask("genre", "?")
    facets = ({"reveal": "genre: Comedy"}, {"reveal": "decade: 1990s"})
    words = {"action": 0, "strength": 0.0, "message": ""}
    dialogue.act_all({f"user_{place}": {**words, **facet} for place, facet in enumerate(facets)})
    # Of the comedies Fargo alone is of the nineties.
    said = agent.act({0: dialogue.observe(RECOMMENDER)})[0]
    assert (said["item"], said["message"]) == (2, "It fits what you want: Comedy, 1990s.")
    # One user dislikes it, the other clicks: it is rejected.
    dialogue.recommend(2, "")
    dialogue.act_all({"user_0": {**words, "action": 3}, "user_1": words})
    assert agent.act({0: dialogue.observe(RECOMMENDER)})[0]["item"] != 2
    knowing = AskingRecommender(by_history, ITEMS, shown=[group])
    knowing.start([[0]])
    assert knowing.act({0: Dialogue(group, ITEMS).observe(RECOMMENDER)})[0]["item"] == 2
    with pytest.raises(TaskError, match=r"shown has history \(\(4,\), \(\)\) and candidates"):
        AskingRecommender(by_history, ITEMS, shown=[TASK])._heard(Dialogue(group, ITEMS).observe(RECOMMENDER))
