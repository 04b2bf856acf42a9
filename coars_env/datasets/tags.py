"""Tags that people gave to items -> facets of the items."""

from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

from coars_env.datasets.dataset import Facet, clean_title

FEWEST_ITEMS, FEWEST_USERS = 5, 2
"""A tag is kept if it was given to so many items, by so many users. Our choice: it takes out private marks such as "in
netflix queue", which one user of MovieLens latest-small gave to 131 films."""

K = TypeVar("K", bound=Hashable)


def frequent_tags(given: Iterable[tuple[Hashable, K, str]]) -> Mapping[K, tuple[Facet, ...]]:
    """Return the facets of each item that has a frequent tag, in alphabetical order; upper and lower case are one.

    Args:
        given: user, item and tag, as often as was tagged.
    """
    users: dict[str, set[Hashable]] = {}
    items: dict[str, set[K]] = {}
    for user, item, raw in given:
        tag = clean_title(raw).casefold()
        users.setdefault(tag, set()).add(user)
        items.setdefault(tag, set()).add(item)
    facets: dict[K, tuple[Facet, ...]] = {}
    for tag in sorted(tag for tag in items if tag):
        if len(items[tag]) >= FEWEST_ITEMS and len(users[tag]) >= FEWEST_USERS:
            for item in items[tag]:
                facets[item] = (*facets.get(item, ()), Facet("tag", tag))
    return facets
