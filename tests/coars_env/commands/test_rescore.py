import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coars_env import (
    METRICS,
    RECOMMENDER,
    USER,
    CoarsEnv,
    CoarsReward,
    ConfigError,
    MirroredStage,
    OracleUser,
    RandomRecommender,
    Transcript,
    TranscriptError,
    episode_metrics,
    outcome_terms,
    rollout,
    write_transcripts,
)
from coars_env.commands.rescore import main, read_all, score_line
from coars_env.testing import toy_episodes

TOY = toy_episodes()


def played(reward: CoarsReward | None = None) -> list[Transcript]:
    tasks = TOY.tasks * 5
    user = OracleUser(TOY, flip=0.4)
    return rollout(tasks, TOY.items, RandomRecommender(), user, provenance=TOY.provenance, reward=reward, seed=3)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    write_transcripts(tmp_path / "dialogues.jsonl", played())
    return tmp_path / "dialogues.jsonl"


def test_scores_of_stored_dialogues_are_byte_equal_to_those_of_the_rollout(stored: Path, tmp_path: Path) -> None:
    code = "import sys; from coars_env.commands.rescore import main; main(sys.argv[1:])"
    for name in ("a.jsonl", "b.jsonl"):
        words = [str(stored), "--out", str(tmp_path / name), "--check"]
        ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
    transcripts = played()
    expected = "".join(score_line(transcript, CoarsReward()(transcript)) + "\n" for transcript in transcripts)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes() == expected.encode()
    turns = sum(len(transcript.turns) for transcript in transcripts)
    assert f"20 dialogues; rewards of turns: {turns} equal, 0 different, 0 not recorded.\n" in ran.stdout
    hits = episode_metrics(transcripts)["hit_final"].mean()
    assert f"| hit_final | {hits:.3f} | 0 |" in ran.stdout


def test_what_the_environment_pays_is_what_is_computed_later() -> None:
    env, paid = CoarsEnv(TOY), []
    env.action_space(RECOMMENDER).seed(1)
    env.action_space(USER).seed(2)
    env.reset(seed=4)
    while env.agents:
        _, _, _, _, infos = env.step({agent: env.action_space(agent).sample() for agent in env.agents})
        if "reward_terms" in infos[USER]:
            paid.append(infos[USER]["reward_terms"])
    stored = Transcript.from_json(env.transcript.to_json())
    computed = json.loads(score_line(stored, CoarsReward()(stored)))["terms"]
    assert json.dumps(computed, sort_keys=True) == json.dumps(paid, sort_keys=True)
    assert stored.rewards == tuple(terms["rewards"] for terms in paid)


def test_a_score_line_holds_every_metric_and_null_where_undefined() -> None:
    transcript = replace(played()[0], turns=(), rewards=(), ending="failed", cause="broke")
    row = json.loads(score_line(transcript, CoarsReward()(transcript)))
    assert list(row["metrics"]) == sorted(METRICS)
    assert (row["metrics"]["failed"], row["metrics"]["reward_user"], row["terms"]) == (1.0, None, [])


def test_other_settings_give_other_rewards_and_the_check_says_so(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.jsonl"
    main([str(stored), "--out", str(out), "--beta", "0", "--alpha", "0.2", "--invalid", "-2"])
    settings = CoarsReward(alpha=0.2, stage=MirroredStage(0.0), invalid=-2.0)
    assert out.read_text().splitlines() == [score_line(transcript, settings(transcript)) for transcript in played()]
    assert " 0 equal, " in capsys.readouterr().out
    out.unlink()
    with pytest.raises(TranscriptError, match=r"With --check, rewards must be those that were paid.* in 20: 1, 2, 3"):
        main([str(stored), "--out", str(out), "--beta", "0", "--check"])
    assert not out.exists()
    write_transcripts(stored, played(settings))
    main([str(stored), "--beta", "0", "--alpha", "0.2", "--invalid", "-2", "--check"])


def test_dialogues_nobody_was_paid_for_are_counted_apart(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, *others = played()
    write_transcripts(stored, [replace(first, rewards=()), *others])
    main([str(stored)])
    assert f"{len(first.turns)} not recorded" in capsys.readouterr().out
    with pytest.raises(TranscriptError, match=r"or none recorded, in 1: 1\. Use the reward"):
        main([str(stored), "--check"])


def test_every_bad_line_is_named_and_nothing_is_written(stored: Path, tmp_path: Path) -> None:
    lines = stored.read_text().splitlines()
    paid = json.loads(lines[4])
    lines[1], lines[2] = lines[1][:-9], json.dumps({"version": 9})
    lines[4] = json.dumps({**paid, "rewards": [*paid["rewards"][:-1], {RECOMMENDER: 0.0, USER: float("nan")}]})
    lines[6] = json.dumps({**paid, "rewards": [*paid["rewards"], {RECOMMENDER: 0.0, USER: 0.0}]})
    stored.write_text("\n".join(lines) + "\n")
    with pytest.raises(TranscriptError) as error:
        main([str(stored), "--out", str(tmp_path / "scores.jsonl")])
    head, *found = str(error.value).splitlines()
    assert "Expected 20 in " in head
    assert "found 4 that are none. Nothing was written." in head
    assert [line.partition(":")[0] for line in found] == ["line 2", "line 3", "line 5", "line 7"]
    assert "must have a finite reward for each of" in found[2]
    assert not (tmp_path / "scores.jsonl").exists()


def test_of_many_bad_lines_the_first_are_named(stored: Path) -> None:
    stored.write_text("no\n" * 30)
    with pytest.raises(TranscriptError, match=r"line 20: (.|\n)*\n\.\.\. and 10 more$"):
        read_all(stored)
    with pytest.raises(TranscriptError, match=r"Expected one at .*missing"):
        read_all(stored.with_name("missing"))


def test_rewards_survive_the_trip_through_json_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    first = played()[0]
    for _ in range(50):
        rewards = tuple(
            {RECOMMENDER: float(a), USER: float(b)} for a, b in rng.standard_normal((len(first.turns), 2)) / 3
        )
        transcript = replace(first, rewards=rewards)
        again = Transcript.from_json(transcript.to_json())
        assert again == transcript
        assert again.to_json() == transcript.to_json()


def test_scores_never_overwrite_the_dialogues(stored: Path) -> None:
    before = stored.read_bytes()
    with pytest.raises(ConfigError, match="Scores must not overwrite the dialogues"):
        main([str(stored), "--out", str(stored.parent / "." / stored.name)])
    assert stored.read_bytes() == before


def test_a_file_without_dialogues_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(TranscriptError, match="Expected a line or more"):
        main([str(tmp_path / "none.jsonl"), "--check"])


OWN = """
from coars_env import RewardTerms, outcome_terms

class Flat:
    def __init__(self, worth=0.5):
        self.worth = worth

    def turn(self, task, turn, number, max_turns):
        return RewardTerms(turn.proposal == task.target, {"recommender_0": self.worth, "user_0": number})

class Needy(Flat):
    def __init__(self, worth):
        self.worth = worth

ready, number = Flat(0.25), 3

def outcome(transcript):
    return outcome_terms(transcript)

def thunk():
    return Flat()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the module `own_of_rescore_test`."""
    (tmp_path / "own_of_rescore_test.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # restores sys.path afterwards
    return tmp_path


@pytest.mark.parametrize(("name", "mean"), [("Flat", 0.5), ("ready", 0.25), ("outcome", None)])
def test_any_reward_scores_stored_dialogues(
    own: Path, stored: Path, capsys: pytest.CaptureFixture[str], name: str, mean: float | None
) -> None:
    main([str(stored), "--reward", f"own_of_rescore_test:{name}", "--out", "scores.jsonl"])
    rows = [json.loads(line) for line in (own / "scores.jsonl").read_text().splitlines()]
    expected = [outcome_terms(one)[0].rewards[RECOMMENDER] for one in played()] if mean is None else [mean] * 20
    assert [row["terms"][0]["rewards"][RECOMMENDER] for row in rows] == expected
    assert f"| reward_recommender | {np.mean([row['metrics']['reward_recommender'] for row in rows]):.3f} | 0 |" in (
        capsys.readouterr().out
    )


def test_what_a_reward_of_ones_own_paid_is_checked(own: Path, stored: Path) -> None:
    main([str(stored), "--reward", "coars_env:CoarsReward", "--check"])
    with pytest.raises(TranscriptError, match=r"With --check, rewards must be those that were paid.* in 20: 1, 2, 3"):
        main([str(stored), "--reward", "own_of_rescore_test:Flat", "--check"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reward", "no_such_module:x"], "cannot be imported"),
        (["--reward", "own_of_rescore_test:Missing"], "has no 'Missing'"),
        (["--reward", "own_of_rescore_test:number"], "3 is no reward"),
        (["--reward", "own_of_rescore_test:Needy"], "is a class that cannot be made without arguments"),
        (["--reward", "own_of_rescore_test:thunk"], "thunk cannot be called with one transcript"),
        (["--reward", "own_of_rescore_test:Flat", "--beta", "0"], "goes without --beta, a setting of CoARS's reward"),
    ],
)
def test_what_is_no_reward_is_refused_before_a_file_is_read(own: Path, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        main(["no such file.jsonl", *words])


def test_dialogues_of_version_2_are_scored_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = Path(__file__).parents[1] / "transcripts_v2.jsonl"
    main([str(old), "--check", "--out", str(tmp_path / "old.jsonl")])
    assert "2 dialogues; rewards of turns: 5 equal, 0 different, 0 not recorded." in capsys.readouterr().out
    write_transcripts(tmp_path / "new.jsonl", read_all(old))
    main([str(tmp_path / "new.jsonl"), "--check", "--out", str(tmp_path / "scores.jsonl")])
    assert (tmp_path / "scores.jsonl").read_bytes() == (tmp_path / "old.jsonl").read_bytes()
