"""Scores and tables of arrays that a person can check: four users, two draws."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from coars_env import (
    AS_IT_IS,
    ConfigError,
    Cost,
    Scores,
    ScoreTable,
    ShapeError,
    bootstrap_interval,
    comparison_lines,
    control_lines,
    csv_text,
    holm,
    markdown_lines,
    paired_difference,
    print_lines,
    table_rows,
)

SOME, MORE = np.array([[[1.0, 0, 0, 0], [1, 1, 0, 0]]]), np.array([[[1.0, 1, 1, 0], [1, 1, 0, 1]]])  # [1, D, N]
USAGE = {"calls": 8.0, "tokens_read": 80.0, "tokens_written": 16.0, "seconds": 4.0, "money": 0.0}


def scores(name: str, hits: np.ndarray, *, seed: int = 0, turns: float = 1.0, **rest: object) -> Scores:
    metrics = {"hit_final": hits, "hit_first": hits, "turns": np.full_like(hits, turns)}
    metrics["reward_recommender"] = 2 * hits
    return Scores(name=name, seeds=(seed,), metrics=metrics, **rest)  # type: ignore[arg-type]


def counts(yes: int) -> np.ndarray:
    """[1, U, C] of four users with a positive and a negative each, of whom the first `yes` take the positive."""
    rows = []
    for user in range(4):
        right = float(user < yes)
        rows.append([right, 0, 1 - right, 1, right, 0, right, right, right, 1, right, 1, *np.zeros(32)])
    return np.array([rows])


def test_seeds_are_joined_and_costs_added() -> None:
    cost = Cost(parameters=7, training_seconds=1.0, memory_mb=100.0, episodes=8, episode_seconds=2.0, usage=USAGE)
    more = Cost(parameters=7, training_seconds=4.0, memory_mb=90.0, episodes=8, episode_seconds=2.0, usage=USAGE)
    joined = Scores.joined("a", [scores("a", SOME, cost=cost), scores("a", MORE, seed=5, cost=more)])
    assert joined.seeds == (0, 5)
    assert joined.metrics["hit_final"].tolist() == [SOME[0].tolist(), MORE[0].tolist()]
    assert joined.cost == cost + more
    assert joined.cost.training_seconds / joined.cost.seeds == 2.5
    assert joined.cost.memory_mb == 100.0
    assert joined.cost.of_an_episode() == {
        "calls": 1,
        "tokens_read": 10,
        "tokens_written": 2,
        "seconds": 0.5,
        "money": 0,
    }
    assert joined.cost.of_learning() == {}
    assert Scores.joined("a", []).seeds == ()


def test_scores_of_other_questions_are_not_joined() -> None:
    with pytest.raises(ShapeError, match="The seeds of a have different figures or answered different questions"):
        Scores.joined("a", [scores("a", SOME), scores("a", SOME[:, :1])])


def test_scores_survive_json() -> None:
    made = scores("a", SOME, ranking={"HR@10": np.array([[1.0, np.nan, 0, 0]])}, users={"1:1": counts(2)})
    again = Scores.from_dict(json.loads(json.dumps(made.to_dict())))
    assert (again.name, again.seeds) == ("a", (0,))
    for before, after in ((made.metrics, again.metrics), (made.users, again.users), (made.ranking, again.ranking)):
        assert list(before) == list(after)
        for name in before:
            np.testing.assert_array_equal(before[name], after[name])


def test_repeated_scores_keep_their_mean() -> None:
    made = scores("a", SOME).repeated(3)
    assert made.metrics["hit_final"].shape == (3, 2, 4)
    assert made.estimates()["hit_final"].mean == 3 / 8


def test_figures_that_are_missing_are_named() -> None:
    with pytest.raises(ConfigError, match=r"b has no metric 'hit_first', only \['hit_final'\]"):
        scores("a", SOME).minus(scores("b", SOME).kept(["hit_final"]), "hit_first")
    asked = scores("a", SOME, users={"1:1": counts(1)})
    with pytest.raises(ConfigError, match=r"The user of b was not asked at '1:1', only at \[\]"):
        asked.user_minus(scores("b", SOME), "1:1")


def test_a_row_holds_means_differences_and_corrected_tests() -> None:
    a, b, c = scores("a", SOME), scores("b", MORE, turns=2.0), scores("c", 1 - SOME)
    rows = {row.system: row for row in table_rows([a, b, c, Scores(name="d", notes=("broke",))], "a")}
    assert rows["b"].hit == bootstrap_interval(MORE)
    assert rows["b"].hit.mean == 6 / 8
    expected = [paired_difference(MORE, SOME), paired_difference(1 - SOME, SOME)]
    assert [rows[name].difference for name in "bc"] == expected
    assert [rows[name].p_holm for name in "bc"] == holm([d.p_value for d in expected]).tolist()
    assert rows["a"].difference is None
    assert math.isnan(rows["a"].p_holm)
    assert (rows["d"].hit, rows["d"].difference, rows["d"].notes) == (None, None, ("broke",))


def test_users_are_compared_with_the_first_that_was_asked() -> None:
    a, b = scores("a", SOME, users={"1:1": counts(4)}), scores("b", SOME, users={"1:1": counts(1)})
    plain, first, second = table_rows([scores("plain", SOME), a, b])
    assert (plain.user, plain.user_differences, first.user_differences) == ({}, {}, {})
    assert first.user["1:1"]["f1"].mean == 1.0
    assert second.user["1:1"]["f1"].mean == pytest.approx(2 / 5)  # TP 1, FN 3
    assert second.user_differences["1:1"].mean == pytest.approx(2 / 5 - 1)


@pytest.mark.parametrize(("names", "reference"), [("aa", None), ("ab", "c")])
def test_names_are_told_apart_and_the_reference_is_among_them(names: str, reference: str | None) -> None:
    with pytest.raises(ConfigError, match="Systems need names of their own, one of them"):
        table_rows([scores(name, SOME) for name in names], reference)


def test_columns_without_a_figure_are_left_out() -> None:
    plain = ScoreTable.of([scores("a", SOME), scores("b", MORE)])
    assert list(plain.systems()[0]) == ["system", "Hit@1", "seeds"]
    assert (plain.rankings(), plain.users(), plain.costs()) == ([], [], [])
    ranking = {"HR@10": np.ones((1, 4)), "NDCG@10": np.ones((1, 4))}
    cost = Cost(parameters=1234, training_seconds=1.0, memory_mb=90.0, episodes=8, episode_seconds=2.0, usage=USAGE)
    talks = scores("b", MORE, turns=3.0, ranking=ranking, cost=cost, users={"1:1": counts(2)})
    table = ScoreTable.of([scores("a", SOME), talks], "a")
    a, b = table.systems()
    columns = [
        "Hit@1, best",
        "Hit@1, turn 1",
        "turns",
        "reward",
        "HR@10",
        "NDCG@10",
        "parameters",
        "training, s",
        "memory, MB",
    ]
    assert list(b) == ["system", "Hit@1", "minus a", "p (Holm)", *columns, "seeds"]
    assert (a["minus a"], a["HR@10"], a["parameters"], b["parameters"]) == ("", "", "", "1,234")
    assert b["minus a"].startswith("+0.375 [")
    assert [line["system"] for line in (*table.rankings(), *table.users(), *table.costs())] == ["b"] * 3
    assert table.costs()[0]["tokens read"] == "10"
    assert table.to_markdown().count("| system |") == 4


def test_the_answer_of_the_game_is_the_first_column() -> None:
    """By the rule "best" Hit@1, difference and comparison are those of the best proposal; the other one is shown."""
    a, b = (replace(scores(name, SOME, turns=2.0), answer="best") for name in "ab")
    a, b = (replace(one, metrics={**one.metrics, "hit_best": best}) for one, best in ((a, SOME), (b, MORE)))
    table = ScoreTable.of([a, b, Scores(name="c", notes=("broke",))], "a")
    line = table.systems()[1]
    assert list(line)[:6] == ["system", "Hit@1", "minus a", "p (Holm)", "Hit@1, last", "Hit@1, turn 1"]
    assert line["Hit@1"].startswith("0.750 [")
    assert line["Hit@1, last"].startswith("0.375 [")
    assert line["minus a"].startswith("+0.375 [")
    assert [line["metric"] for line in comparison_lines(b, a)] == ["Hit@1", "Hit@1, last", "Hit@1, turn 1"]
    records = table.records()
    assert [(r["answer"], r["hit@1"], r["hit_final"], r["hit_best"]) for r in records] == [
        ("best", 3 / 8, 3 / 8, 3 / 8),
        ("best", 6 / 8, 3 / 8, 6 / 8),
        ("", "", "", ""),
    ]
    again = Scores.from_dict(json.loads(json.dumps(b.to_dict())))
    assert (again.answer, again.hit, Scores.joined("b", [b, again]).answer) == ("best", "hit_best", "best")


def test_answers_by_different_rules_are_not_compared() -> None:
    last, best = scores("a", SOME), replace(scores("b", SOME), answer="best")
    with pytest.raises(ShapeError, match=r"a and b answered by different rules: 'last' and 'best'\. Name a metric"):
        last.minus(best)
    assert last.minus(best, "hit_first").mean == 0
    with pytest.raises(ShapeError, match=r"Systems of one table must answer by one rule, got \['best', 'last'\]"):
        table_rows([last, best])
    with pytest.raises(ShapeError, match=r"The seeds of c answered by different rules: \['last', 'best'\]"):
        Scores.joined("c", [last, best])


def test_controls_are_compared_with_the_system_as_it_is() -> None:
    own, silent = scores("a", MORE), scores("no words", SOME)
    lines = control_lines({AS_IT_IS: own, "no words": silent})
    assert [line["user"] for line in lines] == ["as it is", "no words"]
    assert lines[0]["minus as it is"] == ""
    assert lines[1]["minus as it is"].startswith("-0.375 [")
    assert (lines[1]["Hit@1, last"], lines[1]["Hit@1, best"]) == (lines[1]["Hit@1"], "")
    with pytest.raises(ConfigError, match=r"Controls are compared with the system 'as it is', got \['no words'\]"):
        control_lines({"no words": silent})


def test_what_was_asked_and_revealed_is_shown_where_something_was() -> None:
    words = {"questions": SOME, "revealed": SOME, "true_reveals": np.where(SOME > 0, 1.0, np.nan)}
    asks = scores("a", SOME)
    asks = replace(asks, metrics={**asks.metrics, **words})
    lines = ScoreTable.of([asks, scores("b", SOME)]).systems()
    assert [(line["questions"], line["true"]) for line in lines] == [
        ("0.375 [0.000, 0.750]", "1.000 [1.000, 1.000]"),
        ("", ""),
    ]
    silent = {"questions": 0 * SOME, "revealed": 0 * SOME, "true_reveals": np.nan * SOME}
    (line,) = ScoreTable.of([replace(asks, metrics={**asks.metrics, **silent})]).systems()
    assert "questions" not in line


def test_records_have_the_same_columns_whatever_the_systems_are() -> None:
    failed, plain = ScoreTable.of([Scores(name="a"), scores("b", SOME)], "b").records()
    assert list(failed) == list(plain)
    assert (failed["hit@1"], failed["memory_mb"], plain["hit@1"]) == ("", "", 3 / 8)
    text = csv_text([failed, plain])
    assert text.splitlines()[1].startswith("a,,,,,,b,")


def test_a_comparison_lists_the_headline_differences() -> None:
    a, b = scores("a", MORE, users={"1:1": counts(4)}), scores("b", SOME, users={"1:1": counts(4)})
    lines = comparison_lines(a, b)
    assert [line["metric"] for line in lines] == ["Hit@1", "Hit@1, turn 1", "user F1 1:1"]
    d = paired_difference(MORE, SOME)
    assert lines[0]["a minus b"] == f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}] p={d.p_value:.4f}"
    assert markdown_lines(lines).splitlines()[0] == "| metric | a minus b |"


def test_a_table_that_is_too_wide_goes_on_below() -> None:
    console = Console(file=io.StringIO(), width=30)
    print_lines([{"system": "abc", "one": "1" * 10, "two": "2" * 10, "three": "3" * 10}], console)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert max(map(len, printed.splitlines())) <= 30
    heads = [line.replace("┃", " ").split() for line in printed.splitlines() if "system" in line]
    assert heads == [["system", "one"], ["system", "two"], ["system", "three"]]
    console = Console(file=io.StringIO(), width=80)
    print_lines([], console)
    print_lines([{"system": "abc", "one": "1", "two": "2"}], console)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("system") == 1
