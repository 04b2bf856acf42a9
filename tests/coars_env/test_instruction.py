from dataclasses import replace
from typing import Any

import pytest

from coars_env import (
    ConfigError,
    EpisodeSet,
    Facet,
    Instruction,
    Item,
    TaskError,
    facet_kinds,
    facet_vocabulary,
    has_facet,
)
from coars_env.testing import toy_dataset, toy_episodes

TOY = toy_dataset()
COMEDY, NINETIES = Facet("genre", "Comedy"), Facet("decade", "1990s")


def test_an_instruction_fits_what_has_all_its_facets() -> None:
    wish = Instruction((COMEDY, NINETIES), ("genre", "decade"))
    assert [wish.fits(item) for item in TOY.items] == [False, False, False, False, True, False]  # Fargo (1996)
    assert str(wish) == "genre: Comedy\ndecade: 1990s"
    assert all(Instruction((), ("genre",)).fits(item) for item in TOY.items)


def test_a_catalogue_has_kinds_and_a_vocabulary() -> None:
    assert facet_kinds(TOY.items) == ("genre", "decade")
    assert facet_kinds([Item("a", facets=(Facet("tag", "b"), Facet("brand", "c")))]) == ("brand", "tag")
    assert facet_kinds([Item("a"), Item("b")]) == ()
    decades = [facet.value for facet in facet_vocabulary(TOY.items, ("decade",))]
    assert decades == ["1950s", "1970s", "1980s", "1990s", "2000s"]
    assert has_facet(TOY.items[4], NINETIES)
    assert not has_facet(TOY.items[5], NINETIES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((COMEDY,), ()), r"kinds must be one or more different words, got \(\)"),
        (((), ("genre", "genre")), r"one or more different words, got \('genre', 'genre'\)"),
        (((), ("a: b",)), r"one or more different words"),
        (((), "tag"), r"one or more different words, got 'tag'\. Pass a tuple"),
        (((), (["genre"],)), r"one or more different words, got \(\['genre'\],\)"),
        ((None, ("genre",)), r"facets must be a tuple of facets, got None\. Pass \(\)"),
        ((COMEDY, ("genre",)), r"facets must be a tuple of facets, got Facet\(kind='genre'"),
        (((Facet("decade", 1990),), ("decade",)), r"value of a facet must be text, got .*1990\)\. Pass '1990s'"),  # type: ignore[arg-type]
        (((COMEDY,), ("decade",)), r"A facet must be of one of the kinds \('decade',\), got Facet\(kind='genre'"),
        (((("genre", "Comedy"),), ("genre",)), r"A facet must be of one of the kinds"),
        (((Facet("genre", " "),), ("genre",)), r"A facet must be of one of the kinds"),
        (((COMEDY, COMEDY), ("genre",)), r"must name each facet once"),
        (((), ("genre",), 1.5), r"noise must be a probability in \[0, 1\], got 1\.5"),
        (((), ("genre",), "none"), r"noise must be a probability in \[0, 1\], got 'none'"),
    ],
)
def test_what_is_no_instruction_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Instruction(*arguments)


def test_lists_are_kept_as_tuples() -> None:
    instruction = Instruction([COMEDY], ["genre"])  # type: ignore[arg-type]
    assert instruction == Instruction((COMEDY,), ("genre",))
    assert hash(instruction) == hash(Instruction((COMEDY,), ("genre",)))


def test_text_in_the_place_of_an_instruction_is_refused() -> None:
    episodes = toy_episodes()
    task = replace(episodes.tasks[0], instruction="genre: Comedy")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"'toy-0' has an instruction\. .* found 'genre: Comedy'"):
        replace(episodes, tasks=(task,))


def with_wish(facet: Facet, noise: float = 0.0, **changes: Any) -> EpisodeSet:
    """The first toy task, of item 5, with an instruction of one facet."""
    episodes = toy_episodes()
    task = replace(episodes.tasks[0], instruction=Instruction((facet,), (facet.kind,), noise))
    return replace(episodes, tasks=(task,), **changes)


def test_an_instruction_must_be_true_of_its_target_unless_users_err() -> None:
    assert with_wish(COMEDY).kinds == ("genre",)
    with pytest.raises(TaskError, match=r"'toy-0' asks for genre: Crime, which its target 'Brazil \(1985\)' does not"):
        with_wish(Facet("genre", "Crime"))
    assert with_wish(Facet("genre", "Crime"), noise=0.1).kinds == ("genre",)


def test_an_instruction_must_not_name_its_target() -> None:
    for noise in (0.0, 0.5):
        with pytest.raises(TaskError, match=r"The instruction of task 'toy-0' names its target: genre: a BRAZIL"):
            with_wish(Facet("genre", "a BRAZIL (1985) copy"), noise)


def test_an_instruction_must_be_of_kinds_that_the_data_have() -> None:
    with pytest.raises(TaskError, match=r"about facets of kind 'brand', which no item of the catalogue has"):
        with_wish(Facet("brand", "Fender"), noise=0.5)


def test_all_tasks_of_a_set_are_about_the_same_kinds() -> None:
    episodes = toy_episodes()
    first, second, *_ = episodes.tasks
    wish = Instruction((), ("genre",))
    with pytest.raises(TaskError, match=r"'toy/by-hand' have instructions of different kinds: \[\(\), \('genre',\)\]"):
        replace(episodes, tasks=(replace(first, instruction=wish), second))
