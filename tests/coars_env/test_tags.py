from coars_env import Facet
from coars_env.datasets.tags import frequent_tags


def test_a_tag_is_kept_from_two_users_and_five_items_on() -> None:
    given = [(user, item, tag) for item in "abcde" for user, tag in ((1, "Cosy"), (2, "warm"), (2, "cosy  "), (3, " "))]
    cosy = {item: (Facet("tag", "cosy"),) for item in "abcde"}
    assert frequent_tags(given) == cosy  # "warm" is of one user, and a blank is no tag
    fewer = [row for row in given if row[1] != "e"]
    assert frequent_tags(fewer) == {}
    assert frequent_tags([*fewer, (1, "e", "COSY")]) == cosy
    assert frequent_tags([]) == {}


def test_the_tags_of_an_item_are_in_alphabetical_order() -> None:
    given = [(user, item, tag) for tag in ("war", "art", "sea") for item in range(5) for user in (1, 2)]
    assert [facet.value for facet in frequent_tags(given)[3]] == ["art", "sea", "war"]
