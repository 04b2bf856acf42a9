"""The smallest whole thing: an environment, two scripted agents, a transcript. No download, no GPU, no torch.

python examples/quickstart.py
"""

import coars_env

env = coars_env.make("synthetic")
for agent in env.possible_agents:
    env.action_space(agent).seed(0)
observations, infos = env.reset(seed=0)
while env.agents:
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}
    observations, rewards, terminations, truncations, infos = env.step(actions)

print(env.transcript.ending, "after", len(env.transcript.turns), "turns")

user = coars_env.OracleUser(env.episodes, flip=0.2)  # knows what was truly taken next, and errs in one answer of five
runs = coars_env.evaluate(coars_env.RandomRecommender(), user, [env.episodes])
print(coars_env.summarize("random", runs).to_markdown())

told = runs[0][0][0]  # of the first seed, the first draw of candidates, the first user
print(coars_env.dialogue_text(told.task, told.turns, env.episodes.items, coars_env.RECOMMENDER))
