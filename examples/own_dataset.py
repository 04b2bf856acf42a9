"""Data of one's own: one file that loads tables, divides the users, plays, evaluates and trains a small policy on them.

    python examples/own_dataset.py

Replace `tables` by whatever reads yours, pandas.read_csv say. The same functions serve every command, from this folder:

    coars data stats own_dataset:load
    coars compare --dataset own_dataset:split --systems popularity markov item_knn
    coars train --data.dataset own_dataset:split
"""

import csv
import io

import numpy as np

import coars_env
from coars_env import (
    Dataset,
    FixedUser,
    GreedyRecommender,
    OracleUser,
    RandomRecommender,
    Split,
    from_interactions,
    popularity_scorer,
    split_users,
)
from coars_env.testing import check_dataset

Tables = dict[str, list[str]]


def tables(users: int = 300, books: int = 60, length: int = 12) -> tuple[Tables, Tables]:
    """Two tables, read from CSV: what each reader borrowed and when, and the catalogue.

    Invented: books form shelves of ten, and a reader mostly takes the next book of a shelf.
    """
    rng = np.random.default_rng(0)
    rows = ["user_id,item_id,timestamp"]
    for user in range(users):
        place, taken = int(rng.integers(books)), list[int]()
        while len(taken) < length:
            if place not in taken:
                rows.append(f"reader-{user},b{place},{len(taken)}")
                taken.append(place)
            shelf = place // 10
            place = shelf * 10 + (place + 1) % 10 if rng.random() < 0.8 else int(rng.integers(books))
    catalogue = ["item_id,title,genres"]
    catalogue += [f"b{book},Volume {book % 10 + 1} of series {book // 10 + 1},Novel|Series" for book in range(books)]
    return _columns(rows), _columns(catalogue)


def _columns(lines: list[str]) -> Tables:
    reader = csv.DictReader(io.StringIO("\n".join(lines)))
    found = list(reader)
    return {name: [row[name] for row in found] for name in reader.fieldnames or ()}


def load() -> Dataset:
    """The tables as a dataset. A pandas or polars frame will do in place of the columns."""
    borrowed, books = tables()
    borrowed["timestamp"] = [f"2024-01-{int(day) + 1:02}" for day in borrowed["timestamp"]]  # seconds or dates
    return from_interactions(borrowed, books, name="library", licence="invented for this example")


def split() -> Split:
    """Users to train on, to choose settings on, and to report on: lists of ids from anywhere."""
    readers = [f"reader-{number}" for number in range(300)]
    return split_users(load(), train=readers[:200], validation=readers[200:240], test=readers[240:])


def follows(data: Split, weight: float) -> coars_env.Scorer:
    """A recommender trained in a line: how often an item directly followed the last one, and `weight` of how popular
    it is.
    """
    counts = np.zeros((data.dataset.num_items, data.dataset.num_items))
    for sequence in data.train:
        np.add.at(counts, (sequence.items[:-1], sequence.items[1:]), 1)
    popular = counts.sum(0) / counts.sum()
    return lambda history, items: counts[history[-1], items] + weight * popular[items]


def hit(data: Split, part: str, scorer: coars_env.Scorer) -> float:
    """Share of users whose true next item is the first proposal."""
    episodes = coars_env.freeze(coars_env.builder(data), part)
    runs = coars_env.evaluate(GreedyRecommender(scorer), FixedUser(), [episodes])
    return float(coars_env.metric_values(runs)["hit_final"].mean())


def main() -> None:
    data = split()
    check_dataset(data.dataset)
    print(data)

    env = coars_env.make(data, subset="validation", num_candidates=8)  # play: a dialogue
    runs = coars_env.evaluate(RandomRecommender(), OracleUser(env.episodes, flip=0.2), [env.episodes])
    told = runs[0][0][0]
    print(coars_env.dialogue_text(told.task, told.turns, env.episodes.items, coars_env.RECOMMENDER))

    weights = (0.0, 100.0, 10_000.0)  # train, and choose the setting on validation users only
    found = {weight: hit(data, "validation", follows(data, weight)) for weight in weights}
    best = max(found, key=lambda weight: found[weight])
    print("validation:", ", ".join(f"weight {weight:g} {value:.3f}" for weight, value in found.items()))

    popular = hit(data, "test", popularity_scorer(data))  # report on test users once
    print(f"test: popularity {popular:.3f}, follows {hit(data, 'test', follows(data, best)):.3f} (weight {best:g})")


if __name__ == "__main__":
    main()
