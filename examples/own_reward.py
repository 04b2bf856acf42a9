"""A reward of your own in one file: what environments pay, what metrics average, what `coars rescore` computes again.

python examples/own_reward.py
coars rescore dialogues.jsonl --reward own_reward:Patient     # in the folder of this file
"""

import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

import coars_env
from coars_env import RECOMMENDER, USER, CoarsWarning, RewardTerms, Task, Transcript, Turn
from coars_env.testing import check_reward

COST = 0.25
WORLD = {"source": "synthetic", "users": 200, "items": 300, "interactions": 8000}


class Patient:
    """One for a hit less `COST` for each turn before it; the user earns one for each right answer."""

    def turn(self, task: Task, turn: Turn, number: int, max_turns: int) -> RewardTerms:
        hit, waited = turn.proposal == task.target, COST * (number - 1)
        rewards = {RECOMMENDER: hit - waited, USER: 1.0 if turn.positive == hit else 0.0}
        return RewardTerms(hit, rewards, factors={"waited": waited})


def last_word(transcript: Transcript) -> list[RewardTerms]:
    """A function of a whole dialogue: every turn earns what the last one is worth."""
    worth = 1.0 if transcript.final_item == transcript.task.target else 0.0
    return [
        RewardTerms(turn.proposal == transcript.task.target, {RECOMMENDER: worth, USER: worth})
        for turn in transcript.turns
    ]


def main() -> None:
    reward = Patient()
    check_reward(reward)

    env = coars_env.make("synthetic", reward=reward, **WORLD)
    user = coars_env.OracleUser(env.episodes, flip=0.2)
    transcripts = coars_env.rollout(
        env.episodes,
        env.episodes.items,
        coars_env.RandomRecommender(),
        user,
        provenance=env.episodes.provenance,
        reward=reward,
    )
    print("paid in the first dialogue:", *transcripts[0].rewards, sep="\n  ")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoarsWarning)  # Patient has no `batch`, so a vector scores turn after turn
        games = coars_env.make_vec("synthetic", 64, reward=reward, **WORLD)
    games.reset(seed=0)
    propose_first, click = np.zeros(64, int), np.full(64, 19)
    for _ in range(2):  # a half-turn each; the silent side's acts are ignored
        _, rewards, *_ = games.step({RECOMMENDER: propose_first, USER: click})
    print("paid in 64 games at once:", {agent: float(paid.mean()) for agent, paid in rewards.items()})

    for name, one in (("Patient", reward), ("last_word", last_word), ("CoARS", coars_env.CoarsReward())):
        report = coars_env.summarize(name, [[transcripts]], reward=one)
        print(name, *(f"{metric} {report.estimates[metric]}" for metric in ("reward_recommender", "reward_user")))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "dialogues.jsonl")
        coars_env.write_transcripts(path, transcripts)
        command = "import sys; from coars_env.commands.rescore import main; main(sys.argv[1:])"  # coars rescore
        words = [str(path), "--reward", "own_reward:Patient", "--check"]
        here = Path(__file__).parent  # `own_reward` is found in the working directory
        ran = subprocess.run(
            [sys.executable, "-c", command, *words], cwd=here, stdout=subprocess.PIPE, text=True, check=True
        )
    print("coars rescore:", ran.stdout.splitlines()[0])


if __name__ == "__main__":
    main()
