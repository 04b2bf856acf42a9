"""Invented worlds of the shape of MovieLens 100K: no download, any size, and the true tastes are known.

Each theme is a distribution over films. A user stays with one theme for a while, draws films from it or, less often,
from general popularity, and then moves on to another theme, mostly one of a few favourites. So recent history says
more about the next film than old history does, and popularity says something too. All numbers below are our choice,
calibrated so that popularity and neighbour baselines score about as on MovieLens 100K.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coars_env.datasets.dataset import Dataset, FloatArray, IntArray, Item
from coars_env.errors import DatasetError, whole_number

THEMES = 36
FAVOURITES = 3
"""Themes a user returns to."""
FAVOURITE_SHARE = 0.6
"""How often a new theme is one of the favourites."""
PHASE_LENGTH = 25.0
"""Mean number of draws from one theme before the next."""
THEME_SHARE = 0.8
"""Share of draws from the theme; the others follow general popularity."""
POPULARITY_SPREAD = 1.7
"""Deviation of the logarithm of popularity."""
LENGTH_SHAPE = 0.65
"""Shape of the gamma distribution of history lengths above the shortest."""
SHORTEST_HISTORY = 20
PART = 1_000_000
"""Draws made at a time, so that the room for them does not grow. The world does not depend on it."""

GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
_RATING_SHARES = (0.0611, 0.1137, 0.27145, 0.34174, 0.21201)  # of ratings 1 to 5 in MovieLens 100K
_FIRST_SECOND, _SECONDS = 874_724_710, 18_000_000  # from 20 September 1997, seven months

_ADJECTIVES = (
    *("Silent", "Crimson", "Golden", "Hidden", "Broken", "Distant", "Electric", "Frozen", "Gentle", "Hollow", "Last"),
    *("Lonely", "Midnight", "Narrow", "Pale", "Quiet", "Restless", "Scarlet", "Secret", "Velvet", "Wandering", "Wild"),
    *("Winter", "Burning", "Forgotten", "Emerald", "Tender", "Bitter", "Paper", "Second"),
)
_NOUNS = (
    *("Harbour", "Lantern", "Garden", "Bridge", "Letter", "River", "Mirror", "Orchard", "Parade", "Tower", "Voyage"),
    *("Witness", "Carnival", "Station", "Promise", "Kingdom", "Shadow", "Summer", "Violin", "Island", "Engine"),
    *("Stranger", "Empire", "Window", "Tide", "Comet", "Market", "Waltz", "Valley", "Detective", "Horizon", "Sparrow"),
)
_SYLLABLES = ("ba", "bel", "cor", "da", "del", "fen", "ga", "hal", "ka", "la", "lor", "ma", "mi", "nor", "o", "ra")
_ENDINGS = ("dan", "fax", "lia", "mere", "nia", "ron", "sk", "ston", "ta", "ven", "wick", "zo")


@dataclass(frozen=True, eq=False)
class SyntheticWorld:
    """A dataset together with the answers: the probability of every film at every interaction.

    Example: `world.scores(row)[world.dataset.item_indices[row]]` is the probability with which the film of that row was
    drawn, up to the films the user had seen before, which are drawn again.
    """

    dataset: Dataset
    item_vectors: FloatArray  # [M, THEMES + 1], columns sum to 1; the last one is general popularity
    themes: IntArray  # [N] theme of the user at each interaction

    def taste(self, row: int) -> FloatArray:
        """Weights of the columns of `item_vectors` when this interaction was drawn. Shape [THEMES + 1], sum 1."""
        weights = np.zeros(self.item_vectors.shape[1])
        weights[self.themes[row]] = THEME_SHARE
        weights[-1] = 1 - THEME_SHARE
        return weights

    def scores(self, row: int) -> FloatArray:
        """Probability of each film at this interaction, films already seen not excluded. Shape [M], sum 1.

        As a recommender it is the oracle: it knows the taste, no other method does.
        """
        return self.item_vectors @ self.taste(row)


def synthetic_world(*, users: int = 943, items: int = 1_682, interactions: int = 100_000, seed: int = 0) -> Dataset:
    """An invented dataset; see `generate`, which also hands out the tastes behind it."""
    return generate(users=users, items=items, interactions=interactions, seed=seed).dataset


def generate(*, users: int = 943, items: int = 1_682, interactions: int = 100_000, seed: int = 0) -> SyntheticWorld:
    """Invent users, films and what was seen when. Equal arguments give an equal world; time grows with interactions.

    No user sees a film twice, and no two interactions of a user have the same time.

    Raises:
        DatasetError: if a size is not positive, or there are fewer interactions than users or more than half of the
            possible pairs.
        ConfigError: one of the four is no whole number, or negative.
    """
    sizes = {"users": users, "items": items, "interactions": interactions, "seed": seed}
    for name, value in sizes.items():
        whole_number("A synthetic world has sizes and a seed.", name, value, 0)
    _check_sizes(users, items, interactions)
    rng = np.random.default_rng(seed)
    theme_of_item = rng.integers(THEMES, size=items)
    vectors = _item_vectors(rng, theme_of_item)
    lengths = _history_lengths(rng, users, items, interactions)
    user, item, theme = _histories(rng, lengths, vectors)
    dataset = Dataset(
        name="synthetic",
        items=_films(rng, theme_of_item),
        item_ids=tuple(str(index) for index in range(items)),  # films are invented in no order, so ids betray nothing
        user_ids=tuple(str(index) for index in range(users)),
        users=user,
        item_indices=item,
        ratings=_ratings(rng, user, item, fits=theme_of_item[item] == theme),
        timestamps=_timestamps(rng, user, theme),
        source="synthetic",
        origin=f"synthetic seed={seed} users={users} items={items} interactions={interactions}",
        licence="Invented data, free to use.",
    )
    return SyntheticWorld(dataset, vectors, theme)


def _check_sizes(users: int, items: int, interactions: int) -> None:
    if users < 1 or items < 2 or not users <= interactions <= users * items // 2:
        raise DatasetError(
            "A synthetic world needs at least one user and two items, one interaction per user, and at most half of "
            f"all pairs. Expected {users}..{users * items // 2} interactions for {users} users and {items} items, "
            f"found {interactions}. Change one of the three."
        )


def _item_vectors(rng: np.random.Generator, theme_of_item: IntArray) -> FloatArray:
    """Distribution over films of each theme, and of general popularity in the last column. Shape [M, THEMES + 1]."""
    items = len(theme_of_item)
    popularity = np.exp(POPULARITY_SPREAD * rng.standard_normal(items))
    second = rng.integers(THEMES, size=items)  # films also belong, less strongly, to another theme
    vectors = np.zeros((items, THEMES + 1))
    vectors[np.arange(items), second] = 0.3 * popularity
    vectors[np.arange(items), theme_of_item] = popularity
    vectors[:, -1] = popularity
    empty = vectors.sum(axis=0) == 0  # small worlds have themes without films
    vectors[:, empty] = popularity[:, None]
    normalised: FloatArray = vectors / vectors.sum(axis=0)
    return normalised


def _history_lengths(rng: np.random.Generator, users: int, items: int, interactions: int) -> IntArray:
    """Interactions of each user, skewed; they sum up exactly and none exceeds 3/4 of the films. Shape [U]."""
    longest = max(1, items * 3 // 4)
    shortest = min(SHORTEST_HISTORY, interactions // users, longest)
    weights = rng.gamma(LENGTH_SHAPE, size=users) + 1e-9
    lengths = np.full(users, shortest, dtype=np.int64)
    while missing := interactions - int(lengths.sum()):
        free = lengths < longest
        share = weights * free
        more = np.floor(missing * share / share.sum()).astype(np.int64)
        if not more.any():
            open_users = np.flatnonzero(free)
            more[rng.choice(open_users, size=min(missing, len(open_users)), replace=False)] = 1
        lengths = np.minimum(lengths + more, longest)
    return lengths


def _histories(rng: np.random.Generator, lengths: IntArray, vectors: FloatArray) -> tuple[IntArray, IntArray, IntArray]:
    """User, film and theme of each interaction, sorted by user and then by time. Shapes [N].

    Draws that repeat a film are dropped, so more are made than needed; users who still fall short get a new, longer
    sequence.
    """
    users, items = len(lengths), len(vectors)
    favourites = rng.integers(THEMES, size=(users, FAVOURITES))
    cumulative = np.cumsum(vectors, axis=0)  # of each theme
    cumulative /= cumulative[-1]
    ladder = (cumulative + np.arange(THEMES + 1)).T.ravel()  # one ascending column, theme t occupies (t, t + 1]
    starts = np.cumsum(lengths) - lengths
    item, theme = np.empty((2, lengths.sum()), dtype=np.int64)
    waiting, draws = np.arange(users), lengths + lengths // 2 + 10
    for _ in range(8):
        drawn = _themes(rng, draws, favourites[waiting])
        column = np.where(_chances(rng, len(drawn), THEME_SHARE), drawn, np.int8(THEMES))
        ends, short = np.cumsum(draws), []
        for part in np.split(np.arange(len(waiting)), np.flatnonzero(np.diff(ends // PART)) + 1):
            these = slice(ends[part[0]] - draws[part[0]], ends[part[-1]])
            user = np.repeat(waiting[part], draws[part])
            film = _films_drawn(rng, ladder, column[these].astype(np.int64), items)
            new = _first_occurrence(user * items + film)
            user, film, themes = user[new], np.minimum(film[new], items - 1), drawn[these][new]
            first, got = np.unique(user, return_index=True, return_counts=True)[1:]  # every user has a first film
            rank = np.arange(len(user)) - np.repeat(first, got)
            enough = got >= lengths[waiting[part]]
            kept = np.repeat(enough, got) & (rank < lengths[user])
            place = starts[user[kept]] + rank[kept]
            item[place], theme[place] = film[kept], themes[kept]
            short.append(~enough)
        again = np.concatenate(short)
        waiting, draws = waiting[again], draws[again] * 3
        if not len(waiting):
            break
    for last in waiting:  # whose share of the catalogue is too large to be drawn by taste: random order
        rows = slice(starts[last], starts[last] + lengths[last])
        item[rows] = rng.permutation(items)[: lengths[last]]
        theme[rows] = rng.integers(THEMES, size=lengths[last])
    return np.repeat(np.arange(users), lengths), item, theme


def _themes(rng: np.random.Generator, draws: IntArray, favourites: IntArray) -> npt.NDArray[np.int8]:
    """Theme of each draw: kept for a phase, then changed. Shape [sum of draws]; `draws` are those of each user."""
    ends = np.cumsum(draws)
    begins = _chances(rng, int(ends[-1]), 1 / PHASE_LENGTH)
    begins[0] = True
    begins[ends[:-1]] = True
    first = np.flatnonzero(begins)
    user = np.searchsorted(ends, first, side="right")
    favourite = favourites[user, rng.integers(FAVOURITES, size=len(first))]
    anything = rng.integers(THEMES, size=len(first))
    chosen = np.where(rng.random(len(first)) < FAVOURITE_SHARE, favourite, anything)
    return np.repeat(chosen.astype(np.int8), np.diff(first, append=ends[-1]))


def _chances(rng: np.random.Generator, n: int, chance: float) -> npt.NDArray[np.bool_]:
    """Whether something of this chance happened, n times. In parts: the draws take eight times the room."""
    happened = np.empty(n, dtype=np.bool_)
    for first in range(0, n, PART):
        happened[first : first + PART] = rng.random(min(PART, n - first)) < chance
    return happened


def _films_drawn(rng: np.random.Generator, ladder: FloatArray, column: IntArray, items: int) -> IntArray:
    """A film from each column of the ladder, shape as `column`; seldom one past the last, by rounding."""
    height = column + rng.random(len(column))
    order = np.argsort(height)  # neighbours on the ladder are found several times as fast
    found = np.empty_like(column)
    found[order] = np.searchsorted(ladder, height[order], side="right")
    films: IntArray = found - column * items
    return films


def _first_occurrence(keys: IntArray) -> IntArray:
    """Ascending places at which a key stands for the first time."""
    return np.sort(np.unique(keys, return_index=True)[1])


def _ratings(rng: np.random.Generator, user: IntArray, item: IntArray, *, fits: npt.NDArray[np.bool_]) -> FloatArray:
    """Ratings 1 to 5 in the shares of MovieLens 100K; films of the user's theme are liked better. Shape [N]."""
    kindness, quality = rng.standard_normal(user.max() + 1), rng.standard_normal(item.max() + 1)
    liking = (0.5 * kindness)[user]
    liking += (0.5 * quality)[item]
    liking += 0.5 * fits
    liking += 0.8 * rng.standard_normal(len(user))
    steps = np.quantile(liking, np.cumsum(_RATING_SHARES)[:-1])
    ratings: FloatArray = 1.0 + np.searchsorted(steps, liking)
    return ratings


def _timestamps(rng: np.random.Generator, user: IntArray, theme: IntArray) -> IntArray:
    """Seconds, strictly ascending within a user: seldom a pause of days, at a change of theme. Shape [N]."""
    gaps = rng.integers(1, 90, size=len(user))
    changes = np.flatnonzero(theme[1:] != theme[:-1]) + 1
    pauses = changes[rng.random(len(changes)) < 0.08]
    gaps[pauses] += rng.integers(3_600, 10 * 86_400, size=len(pauses))
    elapsed: IntArray = np.cumsum(gaps, out=gaps)
    begins = np.flatnonzero(np.append(True, user[1:] != user[:-1]))
    arrival = _FIRST_SECOND + rng.integers(_SECONDS, size=len(begins))
    elapsed += np.repeat(arrival - elapsed[begins], np.diff(begins, append=len(user)))
    return elapsed


def _films(rng: np.random.Generator, theme_of_item: IntArray) -> tuple[Item, ...]:
    """Titles, each once; genres of the theme, so that a reader of titles and genres can learn tastes."""
    genres_of_theme = [rng.choice(len(GENRES), size=2, replace=False) for _ in range(THEMES)]
    films, taken = [], set()
    for theme in theme_of_item:
        title = _title(rng)
        while title in taken:
            title = _title(rng)
        taken.add(title)
        year = 1998 - int(min(rng.exponential(8.0), 70.0))
        first, second = genres_of_theme[theme]
        chosen = {first, second} if rng.random() < 0.7 else {first}
        films.append(Item(f"{title} ({year})", tuple(GENRES[genre] for genre in sorted(chosen)), year))
    return tuple(films)


def _title(rng: np.random.Generator) -> str:
    """A speakable title; there are some 10 million."""
    adjective, noun = _ADJECTIVES[rng.integers(len(_ADJECTIVES))], _NOUNS[rng.integers(len(_NOUNS))]
    syllables = "".join(_SYLLABLES[place] for place in rng.integers(len(_SYLLABLES), size=2))
    name = (syllables + _ENDINGS[rng.integers(len(_ENDINGS))]).capitalize()
    kinds = (
        f"The {adjective} {noun}",
        f"The {noun} of {name}",
        f"{adjective} {name}",
        f"The {adjective} {noun} of {name}",
    )
    return kinds[rng.integers(len(kinds))]
