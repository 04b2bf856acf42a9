import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coars_env import (
    ConfigError,
    Facet,
    FacetInstructions,
    Instruction,
    Split,
    TaskError,
    UserSequence,
    builder,
    freeze,
    leave_last,
    with_likes,
)
from coars_env.testing import toy_dataset

TOY = toy_dataset()  # Amélie, Heat, Alien, Seven Samurai, Fargo, Brazil
TOY_SPLIT = leave_last(TOY)  # trains on 0 4 | 1 4 | 2 5 1 | 4 1


def drawn(rule: FacetInstructions, target: int, n: int = 2_000) -> Counter[tuple[Facet, ...]]:
    draw, rng = rule.of(TOY.items), np.random.default_rng(0)
    return Counter(draw(target, rng).facets for _ in range(n))


def near(count: int, share: float, n: int = 2_000) -> bool:
    return abs(count - n * share) < 3 * math.sqrt(n * share * (1 - share))  # three standard errors


def test_a_facet_of_each_kind_is_drawn_and_each_value_as_often() -> None:
    found = drawn(FacetInstructions(("genre", "decade")), 5)
    eighties = Facet("decade", "1980s")
    assert set(found) == {(Facet("genre", "Comedy"), eighties), (Facet("genre", "Sci-Fi"), eighties)}
    assert all(near(count, 1 / 2) for count in found.values())


def test_kinds_are_drawn_where_the_target_has_more_than_are_wanted() -> None:
    found = drawn(FacetInstructions(("decade", "genre"), most=1), 5)
    assert near(found[Facet("decade", "1980s"),], 1 / 2)
    assert near(found[Facet("genre", "Comedy"),], 1 / 4)
    assert near(found[Facet("genre", "Sci-Fi"),], 1 / 4)
    assert found.total() == sum(found[key] for key in found if len(key) == 1)


def test_a_user_who_errs_wants_what_another_item_has() -> None:
    found = drawn(FacetInstructions(("decade",), noise=0.5), 5)
    # Only the target is of the 1980s. Of the five others two are of the 1990s.
    shares = {"1980s": 1 / 2, "1990s": 1 / 5, "2000s": 1 / 10, "1970s": 1 / 10, "1950s": 1 / 10}
    assert found.keys() == {(Facet("decade", value),) for value in shares}
    assert all(near(found[Facet("decade", value),], share) for value, share in shares.items())
    assert FacetInstructions(("decade",), noise=0.5).of(TOY.items)(5, np.random.default_rng(0)).noise == 0.5


def test_noise_changes_only_the_facets_that_err() -> None:
    plain, noisy = (FacetInstructions(("genre",), noise=noise).of(TOY.items) for noise in (0.0, 0.2))
    pairs = [(plain(0, np.random.default_rng(n)).facets, noisy(0, np.random.default_rng(n)).facets) for n in range(200)]
    assert 0.7 < sum(a == b for a, b in pairs) / 200 < 0.95  # others are drawn anew, and seldom the same


def test_a_facet_that_no_other_item_has_stays_true() -> None:
    items = [*TOY.items[:5], replace(TOY.items[5], facets=(Facet("tag", "bureaucracy"),))]
    draw = FacetInstructions(("tag",), noise=1.0).of(items)
    assert draw(5, np.random.default_rng(0)).facets == (Facet("tag", "bureaucracy"),)


def test_a_target_that_has_none_of_the_kinds_gets_no_facets() -> None:
    items = [*TOY.items[:5], replace(TOY.items[5], facets=(Facet("tag", "bureaucracy"),))]
    draw = FacetInstructions(("tag",)).of(items)
    assert draw(0, np.random.default_rng(0)) == Instruction((), ("tag",))


def test_what_names_the_target_is_never_drawn() -> None:
    remade = Facet("tag", "remade as BRAZIL (1985) twice"), Facet("tag", "dystopia")
    items = [replace(item, facets=remade) for item in TOY.items]
    for noise in (0.0, 1.0):
        draw = FacetInstructions(("tag",), noise=noise).of(items)
        assert {draw(5, np.random.default_rng(n)).facets for n in range(50)} == {(remade[1],)}
    only = [replace(item, facets=remade[:1]) for item in TOY.items]
    assert FacetInstructions(("tag",)).of(only)(5, np.random.default_rng(0)).facets == ()


def test_the_name_holds_the_kinds_and_what_is_not_the_default() -> None:
    assert str(FacetInstructions(("genre", "decade"))) == "genre+decade"
    assert str(FacetInstructions(["like"], most=1, noise=0.25)) == "like-most1-noise0.25"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((),), r"kinds must be one or more different words, got \(\)"),
        (("genre",), r"kinds must be one or more different words, got 'genre'"),
        ((("genre", "genre"),), r"kinds must be one or more different words"),
        (((["genre"],),), r"kinds must be one or more different words, got \(\['genre'\],\)"),
        (((3,),), r"kinds must be one or more different words, got \(3,\)"),
        (((" ",),), r"kinds must be one or more different words, got \(' ',\)"),
        ((None,), r"kinds must be one or more different words, got None"),
        ((("genre",), 0), r"An instruction has facets\. Expected most >= 1, found 0"),
        ((("genre",), 1.5), r"Expected most >= 1, found 1\.5"),
        ((("genre",), 2, -0.1), r"noise must be a probability in \[0, 1\], got -0\.1"),
        ((("genre",), 2, float("nan")), r"noise must be a probability in \[0, 1\], got nan"),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FacetInstructions(*arguments)


def test_kinds_that_the_data_lack_are_refused_with_those_that_they_have(dataset_of: Any) -> None:
    message = r"kinds must be in the data, got 'brand', 'like' where the items have only 'genre', 'decade'"
    with pytest.raises(ConfigError, match=message):
        FacetInstructions(("brand", "genre", "like")).of(TOY.items)
    bare = leave_last(dataset_of((0, 1, 2)))
    with pytest.raises(ConfigError, match=r"got 'genre' where the items have none\. Choose among these, or 'like'"):
        builder(bare, num_candidates=2, instructions=FacetInstructions(("genre",)))


# What an item is like -------------------------------------------------------------------------------------------------


def likes(split: Split) -> list[tuple[str, ...]]:
    return [item.values("like") for item in split.dataset.items]


def test_an_item_is_like_what_was_taken_with_it_in_training() -> None:
    amelie, heat, alien, _, fargo, brazil = (item.title for item in TOY.items)
    # Together: 0-4 once, 1-4 twice, and 1, 2, 5 once each; they were taken 1 3 1 0 3 1 times.
    # Heat: Fargo 2/3, then Alien and Brazil 1/sqrt(3). Fargo: Heat 2/3, Amélie 1/sqrt(3). Alien: Brazil 1, Heat.
    expected = [(fargo,), (fargo, alien, brazil), (brazil, heat), (), (heat, amelie), (alien, heat)]
    assert likes(with_likes(TOY_SPLIT)) == expected
    assert likes(with_likes(with_likes(TOY_SPLIT))) == expected
    assert likes(TOY_SPLIT) == [()] * 6


def test_likeness_leaves_the_data_alone() -> None:
    split = with_likes(replace(TOY_SPLIT, dataset=replace(TOY, items=tagged())))
    assert split.dataset.provenance == TOY.provenance
    assert split.train == TOY_SPLIT.train
    assert split.owned_by(0) == TOY_SPLIT.owned_by(0)
    assert {item.values("tag") for item in split.dataset.items} == {("old",)}


def tagged() -> tuple[Any, ...]:
    return tuple(replace(item, facets=(Facet("tag", "old"),)) for item in TOY.items)


def test_at_most_ten_are_named_and_none_of_the_own_title(dataset_of: Any) -> None:
    titles = ("same", "same", *(f"film {n}" for n in range(2, 15)))
    sequences = (tuple(range(15)), tuple(range(13)))
    split = with_likes(leave_last(dataset_of(*sequences, titles=titles)))
    found = likes(split)
    assert found[0] == found[1] == tuple(f"film {n}" for n in range(2, 12))
    assert found[5] == ("same", *(f"film {n}" for n in (2, 3, 4, 6, 7, 8, 9, 10, 11)))  # both called "same" count once


def test_without_two_items_in_a_sequence_nothing_is_like_anything() -> None:
    lonely = replace(TOY_SPLIT, train=(UserSequence(0, (1,)), UserSequence(1, (2,))))
    with pytest.raises(TaskError, match=r"Expected two items in a training sequence of 'leave_last' of 'toy', found"):
        with_likes(lonely)
    with pytest.raises(ConfigError, match=r"Likeness is learnt from a split\. .* found 'toy'"):
        with_likes("toy")  # type: ignore[arg-type]


def test_real_targets_are_like_films_that_are_not_themselves(ml100k: Split) -> None:
    build = builder(ml100k, instructions=FacetInstructions(("like",)))
    items = build.split.dataset.items
    assert build.split.dataset.provenance == ml100k.dataset.provenance
    episodes = freeze(build, "test")
    facets = [task.instruction.facets for task in episodes if task.instruction]
    assert Counter(map(len, facets)) == {1: 940, 0: 3}  # three films are not in the training part
    for task in episodes:
        assert task.instruction is not None
        assert items[task.target].title not in {facet.value for facet in task.instruction.facets}
        assert task.instruction.fits(items[task.target])
