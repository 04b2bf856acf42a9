"""A game small enough to check by hand, and an agent that plays a list of actions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from coars_env.datasets.dataset import Dataset, Facet, Item
from coars_env.observation import Action, Observation
from coars_env.tasks import EpisodeSet, Instruction, Task

NUM_CANDIDATES = 3
"""Candidates of each toy task."""


def toy_dataset() -> Dataset:
    """Four users, six items.

        user  items, oldest first   the last is held out by leave_last
        0     0 4 5
        1     1 4 0
        2     2 5 1 3
        3     4 1 2

    Training interactions per item without the last ones: 1 3 1 0 3 1.
    """
    sequences = [(0, 4, 5), (1, 4, 0), (2, 5, 1, 3), (4, 1, 2)]
    rows = [(user, item, time) for user, items in enumerate(sequences) for time, item in enumerate(items)]
    users, items, times = np.array(rows, dtype=np.int64).T
    return Dataset(
        name="toy",
        items=(
            Item("Amélie (2001)", ("Comedy", "Romance"), 2001),
            Item("Heat (1995)", ("Crime", "Thriller"), 1995),
            Item("Alien (1979)", ("Horror", "Sci-Fi"), 1979),
            Item("七人の侍 (1954)", ("Action", "Drama"), 1954),
            Item("Fargo (1996)", ("Comedy", "Crime"), 1996),
            Item("Brazil (1985)", ("Comedy", "Sci-Fi"), 1985),
        ),
        item_ids=("a", "b", "c", "d", "e", "f"),
        user_ids=("ann", "bob", "cem", "dee"),
        users=users,
        item_indices=items,
        ratings=np.where(items == 5, 2.0, 4.0),
        timestamps=times,
        source="custom",
        origin="toy",
    )


def toy_episodes(*, instructed: bool = False) -> EpisodeSet:
    """The last item of each toy user among three candidates, with made-up peer similarities (none in the third).

    In the first, peers have opinions: of item 5 one who took it after 2, of item 1 three, of item 3 nobody.

    Args:
        instructed: True gives each user an instruction, the first genre and the decade of its target.
    """
    nobody = (-1, -1, -1)
    opinions = (2, -1, 2, *nobody, *nobody), (1, 2, 4, 0, -1, 4, 0, -1, -1), nobody * 3
    tasks = (
        Task(
            "toy-0",
            0,
            history=(0, 4),
            candidates=(5, 1, 3),
            target=5,
            peer_similarity=(0.5, -1.0, 0.0),
            opinions=tuple(chain(*opinions)),
        ),
        Task("toy-1", 1, history=(1, 4), candidates=(2, 0, 5), target=0, peer_similarity=(0.0, 1.0, -0.5)),
        Task("toy-2", 2, history=(2, 5, 1), candidates=(0, 4, 3), target=3),
        Task("toy-3", 3, history=(4, 1), candidates=(0, 2, 3), target=2, peer_similarity=(0.25, 0.5, -0.25)),
    )
    dataset = toy_dataset()
    if not instructed:
        return EpisodeSet("toy/by-hand", tasks, dataset.items, dataset.provenance)
    told = tuple(replace(task, instruction=_wish(dataset.items[task.target])) for task in tasks)
    return EpisodeSet("toy/instructed", told, dataset.items, dataset.provenance)


def _wish(item: Item) -> Instruction:
    facets = Facet("genre", item.values("genre")[0]), Facet("decade", item.values("decade")[0])
    return Instruction(facets, kinds=("genre", "decade"))


def toy_instructed_episodes() -> EpisodeSet:
    """The toy episodes with an instruction each, of the kinds genre and decade.

        task   target         the user wants                   candidates that have it all
        toy-0  Brazil         genre: Comedy                    Brazil
        toy-1  Amélie         genre: Comedy; decade: 2000s     Amélie; Brazil is a comedy, too
        toy-2  Seven Samurai  decade: 1950s                    Seven Samurai
        toy-3  Alien          nothing in particular            all

    The catalogue has eight genres and five decades: Action, Comedy, Crime, Drama, Horror, Romance, Sci-Fi, Thriller;
    1950s, 1970s, 1980s, 1990s, 2000s. In this order they are numbered 0 to 12 by `facet_vocabulary`.
    """
    comedy, episodes = Facet("genre", "Comedy"), toy_episodes()
    wanted = (comedy,), (comedy, Facet("decade", "2000s")), (Facet("decade", "1950s"),), ()
    tasks = tuple(
        replace(task, instruction=Instruction(facets, ("genre", "decade")))
        for task, facets in zip(episodes, wanted, strict=True)
    )
    return replace(episodes, name="toy/instructed", tasks=tasks)


class ScriptedAgent:
    """Plays given actions and notes what it saw.

    Its n-th half-turn of any dialogue is `actions[n]`, the last action being repeated for ever. An exception among the
    actions is raised. Example: `ScriptedAgent([{"item": 0, "message": ""}, {"item": 2, "message": "Or this?"}])`.
    """

    def __init__(self, actions: Sequence[Action | Exception]) -> None:
        self._actions = actions
        self.seeds: list[Sequence[int]] = []
        """Seeds of the dialogues of the latest batch."""
        self.observed: list[list[Observation]] = []
        """observed[n]: what the agent saw in dialogue n of the latest batch, one entry per half-turn of its own."""

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self.seeds = list(seeds)
        self.observed = [[] for _ in seeds]

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: self._next(n, observation) for n, observation in observations.items()}

    def _next(self, n: int, observation: Observation) -> Action:
        action = self._actions[min(len(self.observed[n]), len(self._actions) - 1)]
        self.observed[n].append(observation)
        if isinstance(action, Exception):
            raise action
        return action
