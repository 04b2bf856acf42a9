"""The smallest whole thing: an environment, two scripted agents, a transcript. No download, no GPU, no torch.

python examples/quickstart.py
"""

import coars_env


def main() -> None:
    env = coars_env.make("synthetic", render_mode="ansi")
    env.reset(seed=0)
    while env.agents:
        actions = {agent: env.action_space(agent).sample() for agent in env.agents}
        _, rewards, _, _, _ = env.step(actions)
        print({agent: round(reward, 3) for agent, reward in rewards.items()})

    # many dialogues at once, played by agents that answer a batch of observations
    transcripts = coars_env.rollout(
        env.episodes.tasks[:200],
        env.episodes.items,
        coars_env.RandomRecommender(),
        coars_env.FixedUser("click"),
        provenance=env.episodes.provenance,
    )
    hits = coars_env.episode_metrics(transcripts)["hit_final"]
    print(f"Hit@1 of a random recommender on {transcripts[0].provenance.source} data: {hits.mean():.3f}")
    print(coars_env.dialogue_text(transcripts[0].task, transcripts[0].turns, env.episodes.items, coars_env.RECOMMENDER))


if __name__ == "__main__":
    main()
