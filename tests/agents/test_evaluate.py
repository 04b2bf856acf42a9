from agents.evaluate import Scores, bench, trust_page
from coars_env import FixedUser, OracleUser, RandomRecommender, evaluate, load_split, user_simulation


def test_the_page_on_trust_has_the_meters_of_all_and_the_cards_of_users() -> None:
    split = load_split("synthetic", users=30, items=60, interactions=700)
    questions = bench(split, draws=2)
    user = OracleUser(questions.user_tests[0].tasks())
    runs = evaluate(RandomRecommender(), FixedUser(), questions.episodes)
    simulations = [[user_simulation(user, test) for test in questions.user_tests]]
    page = trust_page([Scores("chance", runs), Scores("oracle", runs, simulations)], split)
    assert page.count("| accepts_first_miss | 1.000 [1.000, 1.000] |") == 2
    assert page.count("Reliability at 1:1:") == 1
    assert page.index("**chance**") < page.index("**oracle**: synthetic") < page.index("**oracle**: 30 users")
