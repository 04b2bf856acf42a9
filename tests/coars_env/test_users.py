"""The game with several users: one half-turn in which all answer, each from its own history."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test

from coars_env import (
    ACTIONS,
    RECOMMENDER,
    Action,
    ActionError,
    AecEnv,
    Answer,
    CoarsEnv,
    CoarsReward,
    ConfigError,
    Dialogue,
    EpisodeSet,
    Facet,
    FacetInstructions,
    FixedRecommender,
    FixedUser,
    GreedyRecommender,
    Instruction,
    MaskedEnv,
    Member,
    NumericAgent,
    Observation,
    OracleUser,
    RandomRecommender,
    Rules,
    ShapeError,
    Task,
    TaskError,
    Transcript,
    TranscriptError,
    Turn,
    VectorDialogueEnv,
    agents_of,
    all_reveals,
    as_one,
    dialogue_text,
    episode_metrics,
    evaluate,
    histories_of,
    history_of,
    make,
    make_vec,
    outcome_terms,
    play,
    reveals_of,
    rollout,
    score_transcripts,
    single_agent,
    turn_outcome_terms,
)
from coars_env.rendering.terminal import dialogue_lines
from coars_env.testing import ScriptedAgent, check_env, toy_dataset, toy_episodes

GROUP = Task(
    "toy-group",
    0,
    history=(0, 4),
    candidates=(5, 1, 3),
    target=5,
    peer_similarity=(0.5, -1.0, 0.0),
    opinions=(2, -1, 2, *(-1,) * 24),
    others=(Member(1, (2, 4), (0.0, 0.25, 1.0)),),
)
ITEMS, PROVENANCE = toy_dataset().items, toy_dataset().provenance
SMALL = {"users": 120, "items": 120, "interactions": 3000}


def answer(action: str, strength: float, message: str = "So.") -> dict[str, Any]:
    return {"action": ACTIONS.index(action), "strength": strength, "message": message}


UNREADABLE = {"action": 4, "strength": 0.0, "message": "?", "error": "no action"}


def played(task: Task = GROUP, **options: Any) -> Dialogue:
    """A miss that one user likes, a hit that one user clicks, and the same again, which both click."""
    dialogue = Dialogue(task, ITEMS, **options)
    for position, first, second in (
        (1, answer("dislike", 0.1, "No."), answer("star", 0.6, "Maybe.")),
        (0, answer("click", 0.9), answer("star", 0.5)),
        (0, answer("click", 1.0), answer("click", 0.8)),
    ):
        dialogue.recommend(position, "Why not.")
        dialogue.act_all({"user_0": first, "user_1": second})
    return dialogue


def test_rewards_by_hand() -> None:
    dialogue = played()
    assert dialogue.agents == agents_of(2)
    assert (dialogue.ending, len(dialogue.turns)) == ("accepted", 3)
    first, second, third = (terms.rewards for terms in dialogue.terms)
    # a miss in turn 1 of 4: D = 2/3; Eq. 7 of strengths .1 and .6: .55 and .8, of which the mean
    assert first[RECOMMENDER] == pytest.approx(-(0.55 + 0.8) / 2 * 2 / 3)
    assert first["user_0"] == pytest.approx(0.8 * (1 - 0.1 * -1.0 * -0.8))  # v = -.8, q = -1
    assert first["user_1"] == pytest.approx(-0.2 * (1 - 0.1 * 0.25 * 0.2))  # v = .2, q = .25
    # a hit in turn 2: D = 10/9
    assert second[RECOMMENDER] == pytest.approx((0.95 + 0.75) / 2 * 10 / 9)
    assert second["user_0"] == pytest.approx(0.8 * (1 - 0.1 * 0.5 * 0.8))
    assert second["user_1"] == 0.0  # v = 0
    assert third[RECOMMENDER] == pytest.approx((1.0 + 0.9) / 2 * 8 / 9)
    assert dialogue.terms[0].factors == {
        "stage": pytest.approx(2 / 3),
        "peer_similarity_0": -1.0,
        "strength_0": 0.1,
        "peer_similarity_1": 0.25,
        "strength_1": 0.6,
    }
    turn = dialogue.turns[1]
    assert (turn.positive, turn.accepted, turn.strength) == (True, False, pytest.approx(0.7))


def test_each_user_is_paid_as_if_it_played_alone() -> None:
    turns = played().turns
    for place in range(2):
        for number, turn in enumerate(turns, start=1):
            own = replace(turn, answers=(turn.answers[place],))
            alone = CoarsReward().turn(GROUP.for_user(place), own, number, 4)
            together = CoarsReward().turn(GROUP, turn, number, 4)
            assert together.rewards[f"user_{place}"] == alone.rewards["user_0"]


def test_a_user_that_cannot_be_read_is_paid_for_it_alone() -> None:
    dialogue = Dialogue(GROUP, ITEMS)
    dialogue.recommend(0, "")
    terms = dialogue.act_all({"user_0": UNREADABLE, "user_1": answer("click", 1.0)})
    assert terms is not None
    assert terms.rewards == {RECOMMENDER: pytest.approx(4 / 3), "user_0": -1.0, "user_1": 1.0}  # q = 0 of user 1
    assert terms.excluded == frozenset()
    assert (dialogue.turns[0].usable, dialogue.turns[0].accepted, dialogue.ending) == (False, False, None)
    assert [dialogue.parse_error(agent) for agent in dialogue.agents] == [None, "no action", None]
    dialogue.recommend(0, "")
    nothing = dialogue.act_all({"user_0": UNREADABLE, "user_1": UNREADABLE})
    assert nothing is not None
    assert (nothing.rewards[RECOMMENDER], nothing.excluded) == (0.0, {RECOMMENDER})
    dialogue.recommend(3, "")
    unnamed = dialogue.act_all({"user_0": UNREADABLE, "user_1": answer("skip", 0.3)})
    assert unnamed is not None
    assert unnamed.rewards == {RECOMMENDER: -1.0, "user_0": -1.0, "user_1": 0.0}
    assert unnamed.excluded == {"user_1"}


def test_who_liked_a_miss_is_left_out_of_training_where_that_is_asked_for() -> None:
    both = CoarsReward(exclude_positive_miss=frozenset({RECOMMENDER, "user_0"}))
    turns = [
        Turn(1, "", (Answer(0, 0.1, ""), Answer(2, 0.6, ""))),
        Turn(1, "", (Answer(2, 0.6, ""), Answer(3, 0.9, ""))),
        Turn(5, "", (Answer(2, 0.6, ""), Answer(3, 0.9, ""))),
    ]
    assert [sorted(both.turn(GROUP, turn, 1, 4).excluded) for turn in turns] == [["user_1"], sorted(agents_of(2)), []]


def test_outcome_rewards_go_to_each_user_for_its_own_answers() -> None:
    transcript = played().transcript(PROVENANCE)
    by_turn = [terms.rewards for terms in turn_outcome_terms(transcript)]
    assert by_turn == [
        {RECOMMENDER: -1.0, "user_0": 1.0, "user_1": -1.0},
        {RECOMMENDER: 1.0, "user_0": 1.0, "user_1": 1.0},
        {RECOMMENDER: 1.0, "user_0": 1.0, "user_1": 1.0},
    ]
    whole = [terms.rewards for terms in outcome_terms(transcript)]
    assert whole == [{RECOMMENDER: 1.0, "user_0": 1.0, "user_1": pytest.approx(1 / 3)}] * 3


def test_everybody_reads_all_answers_and_its_own_history() -> None:
    dialogue = played()
    recommender, first, second = map(dialogue.observe, dialogue.agents)
    assert histories_of(recommender) == [[0, 4], [2, 4]]
    assert history_of(recommender) == [0, 2, 4, 4]
    assert (history_of(first), history_of(second)) == ([0, 4], [2, 4])
    assert [seen["agent"] for seen in (recommender, first, second)] == [0, 1, 2]
    for seen in (recommender, first, second):
        assert seen["actions"].tolist() == [[0, 3, 3, -1], [2, 2, 3, -1]]
        assert seen["strengths"].tolist() == pytest.approx(np.array([[0.1, 0.9, 1, -1], [0.6, 0.5, 0.8, -1]]))
        assert seen["replies"] == (("No.", "So.", "So.", ""), ("Maybe.", "So.", "So.", ""))
    assert second["candidates"].tolist() == [-1] * 3
    assert first["opinions"][1].tolist() == [[2, -1, 2], [-1] * 3, [-1] * 3]  # of item 5; user 1 has no peers
    assert (second["opinions"] == -1).all()
    assert (recommender["opinions"] == -1).all()
    with pytest.raises(ConfigError, match=r"role must be one of \['recommender_0', 'user_0', 'user_1'\], got 'user_2'"):
        dialogue.observe("user_2")


def test_a_group_can_be_seen_as_one_user() -> None:
    dialogue = played()
    joint = as_one(dialogue.observe(RECOMMENDER))
    assert joint["actions"].tolist() == [0, 2, 3, -1]
    assert joint["strengths"].tolist() == pytest.approx([0.35, 0.7, 0.9, -1])
    assert joint["replies"] == ("No. Maybe.", "So. So.", "So. So.", "")
    own = as_one(dialogue.observe("user_1"))
    assert (own["actions"].tolist(), own["replies"][0]) == ([2, 2, 3, -1], "Maybe.")
    alone = Dialogue(toy_episodes()["toy-0"], ITEMS).observe(RECOMMENDER)
    assert as_one(alone) is alone
    assert "agent" not in alone


def test_the_text_of_a_group() -> None:
    dialogue = played()
    assert dialogue_text(GROUP, dialogue.turns, ITEMS, RECOMMENDER).split("\n") == [
        "User 0, recently taken, oldest first:",
        "- Amélie (2001)",
        "- Fargo (1996)",
        "User 1, recently taken, oldest first:",
        "- Alien (1979)",
        "- Fargo (1996)",
        "Candidates:",
        "0. Brazil (1985)",
        "1. Heat (1995)",
        "2. 七人の侍 (1954)",
        "Turn 1. Recommender proposes Heat (1995): Why not.",
        "Turn 1. User 0 answers dislike (0.10): No.",
        "Turn 1. User 1 answers star (0.60): Maybe.",
        "Turn 2. Recommender proposes Brazil (1985): Why not.",
        "Turn 2. User 0 answers click (0.90): So.",
        "Turn 2. User 1 answers star (0.50): So.",
        "Turn 3. Recommender proposes Brazil (1985): Why not.",
        "Turn 3. User 0 answers click (1.00): So.",
        "Turn 3. User 1 answers click (0.80): So.",
    ]
    heard = dialogue_text(GROUP, dialogue.turns, ITEMS, "user_1").split("\n")
    assert heard[:4] == [
        "You are user 1; 2 users decide together.",
        "Recently taken, oldest first:",
        "- Alien (1979)",
        "- Fargo (1996)",
    ]
    assert not any("Peers" in line or "Amélie" in line for line in heard)
    for agent in dialogue.agents:  # what is kept while playing is what is written at once
        assert dialogue.observe(agent)["text"] == dialogue_text(GROUP, dialogue.turns, ITEMS, agent)


def test_lines_for_people_name_the_users() -> None:
    dialogue = played()
    lines = dialogue_lines(GROUP, dialogue.turns, dialogue.terms, ITEMS, dialogue.ending)
    texts = [line.text for line in lines]
    assert "Turn 1. Rewards: recommender 0 -0.45, user 0 +0.74, user 1 -0.20." in texts
    assert "Turn 2. Peers: one much like you took it after Alien (1979). (to user 0)" in texts
    assert [line.style for line in lines if "Turn 1. User" in line.text] == ["red", "cyan"]


def test_users_may_answer_one_after_another_and_hear_nothing_before_all_have() -> None:
    dialogue, together = Dialogue(GROUP, ITEMS), Dialogue(GROUP, ITEMS)
    for game in (dialogue, together):
        game.act({"item": 1, "message": ""})
    before = dialogue.observe("user_1")
    assert dialogue.act(answer("dislike", 0.1, "No.")) is None
    assert (dialogue.speaker, dialogue.speakers) == ("user_1", ("user_1",))
    assert dialogue.observe("user_1")["text"] == before["text"]
    assert dialogue.observe("user_1")["replies"] == before["replies"]
    terms = dialogue.act(answer("star", 0.6))
    assert terms == together.act_all({"user_0": answer("dislike", 0.1, "No."), "user_1": answer("star", 0.6)})
    assert dialogue.turns == together.turns
    assert (dialogue.speaker, dialogue.speakers) == (RECOMMENDER, (RECOMMENDER,))


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ({"user_0": answer("click", 1.0)}, r"Actions are needed of \['user_0', 'user_1'\], got none of \['user_1'\]"),
        ({"user_0": answer("click", 1.0), "user_1": {}}, r"Expected one from user_1, found \{\}"),
        (
            {"user_0": answer("click", 1.0), "user_1": {"action": 5, "strength": 0.0, "message": ""}},
            r"0\.\.4 from user_1",
        ),
    ],
)
def test_one_wrong_action_of_a_group_changes_nothing(actions: Mapping[str, Action], message: str) -> None:
    dialogue = Dialogue(GROUP, ITEMS)
    dialogue.recommend(0, "")
    with pytest.raises(ActionError, match=message):
        dialogue.act_all(actions)
    assert (dialogue.speakers, dialogue.turns[0].answers, dialogue.terms) == (("user_0", "user_1"), (), [])
    with pytest.raises(ActionError, match=r"The users of a group answer together\. Use `act_all`"):
        dialogue.reply(3, 1.0, "")


def test_a_failure_drops_what_some_users_said() -> None:
    dialogue = Dialogue(GROUP, ITEMS)
    dialogue.recommend(0, "")
    dialogue.act(answer("click", 1.0))
    dialogue.fail("user_1 broke")
    assert (dialogue.turns, dialogue.ending) == ([], "failed")
    assert (dialogue.observe("user_0")["opinions"] == -1).all()


def wanting(*facets: Facet) -> Instruction:
    return Instruction(facets, kinds=("genre", "decade"))


EIGHTIES = Facet("decade", "1980s")
INSTRUCTED = replace(
    GROUP,
    instruction=wanting(Facet("genre", "Comedy")),
    others=(Member(1, (2, 4), instruction=wanting(EIGHTIES)),),
)


def test_each_user_has_its_own_instruction_and_all_hear_what_is_revealed() -> None:
    dialogue = Dialogue(INSTRUCTED, ITEMS)
    assert [dialogue.observe(agent)["instruction"] for agent in dialogue.agents] == [
        "",
        "genre: Comedy",
        "decade: 1980s",
    ]
    dialogue.act({"ask": "genre", "message": "Which genre?"})
    told = {**answer("skip", 0.3, "A comedy."), "reveal": "genre: Comedy"}
    terms = dialogue.act_all({"user_0": told, "user_1": {**UNREADABLE}})
    assert terms is not None
    assert terms.rewards == {RECOMMENDER: 0.0, "user_0": 0.0, "user_1": -1.0}
    for agent in dialogue.agents:
        seen = dialogue.observe(agent)
        assert (seen["reveals"], seen["actions"][:, 0].tolist()) == (
            (("genre: Comedy", "", "", ""), ("",) * 4),
            [-1, -1],
        )
    assert reveals_of(dialogue.observe(RECOMMENDER)) == (Facet("genre", "Comedy"),)
    assert reveals_of(dialogue.observe("user_1")) == (None,)
    assert "Turn 1. User 0 wants genre: Comedy: A comedy." in dialogue.observe("user_1")["text"]
    assert "You want: decade: 1980s." in dialogue.observe("user_1")["text"]
    assert "1980s" not in dialogue.observe("user_0")["text"] + dialogue.observe(RECOMMENDER)["text"]
    with pytest.raises(TaskError, match=r"'toy-group' have instructions of different kinds"):
        replace(INSTRUCTED, others=(Member(1, (2, 4)),))
    with pytest.raises(TaskError, match=r"asks for genre: Crime, which its target"):
        EpisodeSet(
            "toy",
            (replace(INSTRUCTED, others=(Member(1, (), instruction=wanting(Facet("genre", "Crime"))),)),),
            ITEMS,
            PROVENANCE,
        )


def test_a_rejection_by_one_user_forbids_the_item() -> None:
    dialogue = Dialogue(GROUP, ITEMS, rules=Rules(repeats="forbidden"))
    dialogue.recommend(1, "")
    dialogue.act_all({"user_0": answer("click", 1.0), "user_1": answer("skip", 0.3)})
    assert dialogue.forbidden == {1}
    assert dialogue.observe(RECOMMENDER)["allowed"].tolist() == [1, 0, 1]


def test_what_one_user_rejected_pays_nobody_again() -> None:
    dialogue = Dialogue(GROUP, ITEMS, rules=Rules(repeats="unpaid"))
    paid = []
    for _ in range(2):
        dialogue.recommend(1, "")
        terms = dialogue.act_all({"user_0": answer("dislike", 0.0), "user_1": answer("click", 1.0)})
        assert terms is not None
        paid.append(terms.rewards)
    # A miss whose rejection earns user 0 1 - .1 q v = .9 with q v = 1, and whose click costs user 1 1 - .1 * .25.
    assert (paid[0]["user_0"], paid[0]["user_1"]) == (pytest.approx(0.9), pytest.approx(-0.975))
    assert (paid[1]["user_0"], paid[1]["user_1"]) == (0.0, pytest.approx(-0.975))
    assert paid[1][RECOMMENDER] < 0


def test_a_question_is_answered_by_all() -> None:
    dialogue = Dialogue(INSTRUCTED, ITEMS, max_turns=2)
    assert dialogue.observe(RECOMMENDER)["askable"].tolist() == [1, 1]
    dialogue.act({"ask": "decade", "message": "Which decade?"})
    said = {"action": 0, "strength": 0.0, "message": ""}
    terms = dialogue.act_all({"user_0": {**said, "reveal": "decade: 1990s"}, "user_1": {**said, "reveal": EIGHTIES}})
    assert terms is not None
    assert (set(terms.rewards.values()), terms.excluded, dialogue.turns[0].answered) == ({0.0}, frozenset(), True)
    seen = dialogue.observe(RECOMMENDER)
    assert all_reveals(seen) == (Facet("decade", "1990s"), EIGHTIES)
    assert (seen["questions"], seen["askable"].tolist()) == (("decade", ""), [0, 0])
    dialogue.recommend(0, "")
    dialogue.act_all({user: {**answer("click", 1.0), "reveal": "genre: Comedy"} for user in dialogue.agents[1:]})
    metrics = {name: values[0] for name, values in episode_metrics([dialogue.transcript(PROVENANCE)]).items()}
    assert (metrics["questions"], metrics["revealed"]) == (1, 4)
    assert metrics["true_reveals"] == 0.5  # of what each revealed, one facet of two is what it wants


def test_a_question_that_no_user_answers_readably_teaches_the_recommender_nothing() -> None:
    for others, excluded in ((UNREADABLE, {RECOMMENDER}), ({**UNREADABLE, "error": ""}, set())):
        dialogue = Dialogue(INSTRUCTED, ITEMS)
        dialogue.ask("genre", "")
        terms = dialogue.act_all({"user_0": UNREADABLE, "user_1": others})
        assert terms is not None
        assert (terms.rewards["user_0"], terms.excluded) == (-1.0, excluded)


@pytest.mark.parametrize("task", [GROUP, INSTRUCTED])
def test_transcripts_of_groups_are_read_as_they_were_written(task: Task) -> None:
    transcript = played(task).transcript(PROVENANCE, seed=3)
    line = transcript.to_json()
    row = json.loads(line)
    assert row["version"] == 4
    assert [sorted(paid) for paid in row["rewards"]] == [["recommender_0", "user_0", "user_1"]] * 3
    assert Transcript.from_json(line) == transcript
    assert Transcript.from_json(line).to_json() == line
    for wrong in ([], row["turns"][0]["answers"][:1], row["turns"][0]["answers"] * 2):
        row["turns"][0]["answers"] = wrong
        with pytest.raises(TranscriptError, match=r"must have one answer for each user"):
            Transcript.from_json(json.dumps(row))
    paid = json.loads(line)
    del paid["rewards"][0]["user_1"]
    with pytest.raises(TranscriptError, match=r"a finite reward for each of \['recommender_0', 'user_0', 'user_1'\]"):
        Transcript.from_json(json.dumps(paid))


def test_scores_and_metrics_of_groups() -> None:
    dialogue = played()
    transcript = dialogue.transcript(PROVENANCE)
    (terms,) = score_transcripts(CoarsReward(), [transcript])
    assert [dict(entry.rewards) for entry in terms] == [dict(paid) for paid in transcript.rewards]
    metrics = {name: values[0] for name, values in episode_metrics([transcript]).items()}
    users = [paid[user] for paid in transcript.rewards for user in ("user_0", "user_1")]
    assert metrics["reward_user"] == pytest.approx(sum(users) / 6)
    assert (metrics["hit_final"], metrics["hit_first"], metrics["accepted"]) == (1, 0, 1)


class Noting:
    """Answers with its seed, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self.seeds = [tuple(seed) for seed in seeds]

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        self.asked.append(sorted(observations))
        return {n: answer("skip", 0.3, str(self.seeds[n])) for n in observations}


def two_groups() -> EpisodeSet:
    other = replace(GROUP, task_id="toy-other", user=2, target=3, others=(Member(3, (4, 1)),))
    return EpisodeSet("toy/groups", (GROUP, other), ITEMS, PROVENANCE)


def test_one_agent_plays_all_users_with_a_seed_for_each() -> None:
    user, episodes = Noting(), two_groups()
    transcripts = rollout(
        episodes, ITEMS, RandomRecommender(), user, provenance=PROVENANCE, max_turns=2, seed=7, batch_size=2
    )
    assert user.asked == [[0, 1, 2, 3]] * 2
    assert user.seeds == [(7, 1, 0, 1), (7, 2, 0, 1), (7, 1, 1, 1), (7, 2, 1, 1)]
    said = [[answer.message for answer in one.turns[0].answers] for one in transcripts]
    assert said == [["(7, 1, 0, 1)", "(7, 2, 0, 1)"], ["(7, 1, 1, 1)", "(7, 2, 1, 1)"]]
    in_ones = rollout(
        episodes, ITEMS, RandomRecommender(), Noting(), provenance=PROVENANCE, max_turns=2, seed=7, batch_size=1
    )
    assert in_ones == transcripts


def test_a_list_of_agents_plays_each_its_user() -> None:
    first, second, episodes = Noting(), Noting(), two_groups()
    by_list = rollout(episodes, ITEMS, RandomRecommender(), [first, second], provenance=PROVENANCE, max_turns=2, seed=7)
    assert (first.asked, second.asked) == ([[0, 1]] * 2, [[0, 1]] * 2)
    assert first.seeds == [(7, 1, 0, 1), (7, 1, 1, 1)]
    assert by_list == rollout(
        episodes, ITEMS, RandomRecommender(), Noting(), provenance=PROVENANCE, max_turns=2, seed=7
    )
    (((one, _),),) = evaluate(FixedRecommender(), [FixedUser(), FixedUser("skip", 0.3)], [episodes])
    assert [answer.action for answer in one.turns[0].answers] == [3, 1]


def test_lists_that_do_not_fit_the_groups_are_refused() -> None:
    episodes, same = two_groups(), FixedUser()
    for users in ([FixedUser()], [FixedUser(), FixedUser(), FixedUser()], [same, same]):
        with pytest.raises(ConfigError, match=r"A list of users must have another agent for each user, got \d agents"):
            rollout(episodes, ITEMS, RandomRecommender(), users, provenance=PROVENANCE)
    with pytest.raises(ConfigError, match=r"Each user is an agent"):
        rollout(episodes, ITEMS, RandomRecommender(), [same, "user"], provenance=PROVENANCE)  # type: ignore[list-item]


def test_a_user_that_breaks_fails_its_dialogues() -> None:
    dialogues = [Dialogue(task, ITEMS) for task in two_groups()]
    broken = ScriptedAgent([RuntimeError("gone")])
    play(dialogues, RandomRecommender(), [FixedUser(), broken])
    assert [dialogue.cause for dialogue in dialogues] == ["user_1: RuntimeError('gone')"] * 2
    dialogues = [Dialogue(task, ITEMS) for task in two_groups()]
    play(dialogues, RandomRecommender(), ScriptedAgent([{"action": 9}]))
    assert all(str(dialogue.cause).startswith("users: ActionError") for dialogue in dialogues)


def test_scripted_partners_play_groups() -> None:
    episodes = two_groups()
    asked: list[list[int]] = []

    def by_item(history: Any, items: Any) -> Any:
        asked.append(history.tolist())
        return np.where(items == history[0] + 1, 3.0, 0.0)  # of user 0 that is item 1, of user 1 item 3

    recommender = GreedyRecommender(by_item)
    transcripts = rollout(episodes, ITEMS, recommender, OracleUser(episodes), provenance=PROVENANCE)
    assert asked[:2] == [[0, 4], [2, 4]]
    assert {transcript.turns[0].proposal for transcript in transcripts[:1]} <= {1, 3}
    assert [transcript.final_item for transcript in transcripts] == [5, 3]
    assert all(transcript.ending == "accepted" for transcript in transcripts)


@pytest.mark.parametrize("num_users", [1, 2, 3])
@pytest.mark.parametrize("rules", [Rules(), Rules(repeats="forbidden", answer="best")])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pettingzoo_accepts_the_environment(num_users: int, rules: Rules) -> None:
    def new() -> CoarsEnv:
        return make("synthetic", num_users=num_users, rules=rules, **SMALL)

    parallel_api_test(new(), num_cycles=50)
    parallel_seed_test(new)
    api_test(AecEnv(new()), num_cycles=50)
    seed_test(lambda: AecEnv(new()))
    check_env(new)


def test_a_step_is_the_half_turn_of_all_users() -> None:
    env = CoarsEnv(two_groups())
    env.reset(seed=0, options={"task_id": "toy-group"})
    silent = dict.fromkeys(env.agents, None)
    env.step({**silent, RECOMMENDER: {"item": 0, "message": ""}})  # type: ignore[dict-item]
    both = {"user_0": answer("click", 0.9), "user_1": answer("star", 0.5)}
    _, rewards, ended, _, infos = env.step({**silent, **both})  # type: ignore[dict-item]
    assert rewards == pytest.approx({RECOMMENDER: 0.85 * 4 / 3, "user_0": 0.768, "user_1": 0.0})
    assert not any(ended.values())
    assert infos["user_1"]["reward_terms"]["factors"]["strength_1"] == 0.5
    env.step({**silent, RECOMMENDER: {"item": 0, "message": ""}})  # type: ignore[dict-item]
    with pytest.raises(ActionError, match=r"Expected a dict with actions of .*'user_1'\], found"):
        env.step({RECOMMENDER: {}, "user_0": answer("click", 1.0)})
    with pytest.raises(ActionError, match=r"from user_1, found \{'action': 7"):
        env.step({**silent, **both, "user_1": {"action": 7, "strength": 0.0, "message": ""}})  # type: ignore[dict-item]
    assert env.dialogue is not None
    assert env.dialogue.speakers == ("user_0", "user_1")


def test_in_turn_order_a_wrong_action_of_the_first_user_changes_nothing() -> None:
    env = AecEnv(CoarsEnv(two_groups()))
    env.reset(seed=0)
    env.step({"item": 0, "message": ""})
    with pytest.raises(ActionError, match=r"from user_0"):
        env.step({"action": 7, "strength": 0.0, "message": ""})
    assert env.agent_selection == "user_0"
    env.step(answer("star", 0.6))
    assert (env.agent_selection, env.rewards) == ("user_1", dict.fromkeys(env.agents, 0.0))
    env.step(answer("star", 0.6))
    assert (env.agent_selection, any(env.rewards.values())) == (RECOMMENDER, True)


def test_many_dialogues_of_groups_go_like_single_ones() -> None:
    env = CoarsEnv(two_groups(), max_turns=2)
    vector = VectorDialogueEnv(env, 3)
    observations, _ = vector.reset(seed=4)
    user = Noting()
    user.start([(n,) for n in range(6)])
    agents = {RECOMMENDER: FixedRecommender(), "user_0": user}
    while observations:
        observations, rewards, *_ = vector.step(agents[vector.speaker].act(observations))
    assert user.asked == [[0, 1, 2, 3, 4, 5]] * 2
    assert rewards["user_1"].shape == (3,)
    for n, transcript in enumerate(vector.transcripts):
        env.reset(seed=4 + n)
        for _ in range(2):
            silent = dict.fromkeys(env.agents, None)
            env.step({**silent, RECOMMENDER: {"item": 0, "message": "Take this one."}})  # type: ignore[dict-item]
            said = {f"user_{i}": answer("skip", 0.3, str((2 * n + i,))) for i in range(2)}
            env.step({**silent, **said})  # type: ignore[dict-item]
        assert env.transcript == transcript
    assert all(math.isfinite(paid) for paid in rewards[RECOMMENDER])


@pytest.mark.parametrize("view", ["numeric", "masked"])
@pytest.mark.parametrize("num_users", [1, 2, 3])
@pytest.mark.parametrize("instructions", [None, FacetInstructions(("genre", "decade"))])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pettingzoo_accepts_the_game_in_numbers(view: str, num_users: int, instructions: Any) -> None:
    def new() -> Any:
        return make("synthetic", view=view, num_users=num_users, instructions=instructions, **SMALL)

    parallel_api_test(new(), num_cycles=30)
    parallel_seed_test(new)
    api_test(AecEnv(new()), num_cycles=30)
    env = new()
    agents = env.possible_agents
    assert all(env.observation_space(agent) == env.observation_space(agents[0]) for agent in agents)
    assert all(env.action_space(agent) == env.action_space(agents[0]) for agent in agents)


def test_a_group_in_numbers_by_hand() -> None:
    features = np.array([[0.0], [0.5], [1.0], [-0.5], [-1.0], [0.25]], np.float32)
    env = MaskedEnv(CoarsEnv(EpisodeSet("toy", (INSTRUCTED,), ITEMS, PROVENANCE)), features)
    encoder, (k, t, d) = env.encoder, (3, 4, 2)
    env.reset(seed=0)
    env.step({**dict.fromkeys(env.agents, 0), RECOMMENDER: 4})  # asks for the decade
    reveal = encoder.acts.facets.index(EIGHTIES) + 20
    env.step({RECOMMENDER: 0, "user_0": encoder.acts.decline, "user_1": reveal})
    observations, *_ = env.step({**dict.fromkeys(env.agents, 0), RECOMMENDER: 0})
    # user 0 dislikes at .1 (act 2), user 1 clicks at .8 (act 16)
    observations, rewards, *_ = env.step({RECOMMENDER: 0, "user_0": 2, "user_1": 16})
    assert [(a.action, a.strength) for a in env.dialogue.turns[1].answers] == [(0, 0.1), (3, 0.8)]  # type: ignore[union-attr]
    assert rewards["user_0"] < 0 < rewards["user_1"]
    seen = {agent: observation["observation"] for agent, observation in observations.items()}
    # histories (0, 4) and (2, 4): means -1/2 and 0; the recommender sees their mean
    assert [seen[agent][0] for agent in env.agents] == [-0.25, -0.5, 0.0]
    first = encoder.static_size + 3 + k + d + encoder.turn_size  # of the second turn
    assert encoder.turn_size == d + 2 * 5
    for agent in env.agents:
        answers = seen[agent][first + d : first + encoder.turn_size]
        assert answers.tolist() == pytest.approx([1, 0, 0, 0, 0.1, 0, 0, 0, 1, 0.8])
    places = encoder.static_size + encoder.dynamic_size
    assert [seen[agent][places : places + 2].tolist() for agent in env.agents] == [[0, 0], [1, 0], [0, 1]]
    facets = {agent: seen[agent][places + 2 :] for agent in env.agents}
    # decade asked; of one revealed decade candidates 5, 1, 3 have (0, 1), (0, 0), (0, 0): only Brazil is of the 1980s
    q, v = 2, len(encoder.acts.facets)
    asked, shares = facets[RECOMMENDER][:q].tolist(), facets[RECOMMENDER][2 * q : 2 * q + k * q].tolist()
    assert (asked, shares) == ([0, 1], [0, 1, 0, 0, 0, 0])
    wants = [facets[agent][-2 * v : -v] for agent in env.agents]
    comedy = encoder.acts.facets.index(Facet("genre", "Comedy"))
    assert [np.flatnonzero(row).tolist() for row in wants] == [[], [comedy], [reveal - 20]]
    assert all(np.flatnonzero(facets[agent][-v:]).tolist() == [reveal - 20] for agent in env.agents)
    assert t == env.env.max_turns


def test_a_numeric_policy_plays_all_users() -> None:
    env = make("synthetic", view="numeric", num_users=2, **SMALL)
    seen: list[np.ndarray] = []

    def policy(observation: Any, mask: Any) -> int:
        seen.append(observation)
        return int(mask.argmax())

    agent = NumericAgent(policy, env.encoder)
    tasks = env.env.episodes.tasks[:3]
    played = rollout(tasks, env.env.episodes.items, agent, agent, provenance=PROVENANCE, max_turns=4)
    assert all(answer.action == 0 for one in played for turn in one.turns for answer in turn.answers)
    env.reset(options={"task_id": tasks[0].task_id})
    observations, *_ = env.step(dict.fromkeys(env.agents, 0))
    assert any((row == observations["user_1"]).all() for row in seen)
    alone = make("synthetic", **SMALL).episodes
    with pytest.raises(ShapeError, match=r"Expected groups of 2 users, found 1"):
        rollout(alone.tasks[:1], alone.items, agent, agent, provenance=PROVENANCE)


@pytest.mark.parametrize(
    ("game", "what"),
    [
        (lambda: single_agent("synthetic", num_users=2, **SMALL), "A game for one side"),
        (lambda: make_vec("synthetic", 2, num_users=2, role="user", **SMALL), "A game for one side"),
        (lambda: make_vec("synthetic", 2, num_users=2, **SMALL), "A game in arrays"),
    ],
)
def test_games_for_one_side_and_in_arrays_refuse_groups(game: Callable[[], object], what: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"{what} has one user, got 'synthetic/.*groups_2.*' with 2\. Play groups in"
    ):
        game()
