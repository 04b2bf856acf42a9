"""A recipe is found by its name or its path, and builds what `train` takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agents.models.fields import Field, Text
from agents.models.replies import RECOMMENDER_FORMAT, ReplyFormat
from agents.players.llm_agent import LLMAgent
from agents.training.coars import Coars, RewardConfig
from agents.training.learner import Learner
from agents.training.recipe import CoTraining, Recipe, Setting, Training, build_training, find_recipe, greedy_players
from agents.training.samples import balance_hits
from baselines.coars import CoarsPaper
from baselines.supervised import SupervisedRecipe
from coars_env import RECOMMENDER, ROLES, USER, ConfigError, FixedUser, outcome_terms


@dataclass(frozen=True, kw_only=True)
class Plain(CoTraining):
    def build(self, setting: Setting) -> Training:
        return Training(self.players(setting), outcome_terms, self.optimisation())


@pytest.fixture
def setting(lab: Any) -> Setting:
    return Setting(policy=lab.policy(), split=lab.split)


def test_both_sides_learn_by_default_each_at_its_rate(setting: Setting) -> None:
    players = Plain().build(setting).players
    found = {role: player for role, player in players.items() if isinstance(player, Learner)}
    assert {role: player.learning_rate for role, player in found.items()} == {RECOMMENDER: 2e-3, USER: 5e-4}
    assert found[USER].weigh is balance_hits
    assert (found[RECOMMENDER].weigh, found[RECOMMENDER].explored_share, found[USER].explored_share) == (None, 0, 0.25)


def test_the_side_that_does_not_learn_is_played_by_its_adapter_or_by_the_partner(lab: Any, setting: Setting) -> None:
    partner = FixedUser()
    assert isinstance(Plain(learners="recommender").build(setting).players[USER], LLMAgent)
    beside = Setting(policy=setting.policy, split=setting.split, partner=partner)
    assert Plain(learners="recommender").build(beside).players[USER] is partner
    with pytest.raises(ConfigError, match='A partner plays the side that does not learn, but learners="both"'):
        Plain().build(beside)


def test_coars_credits_both_sides_with_their_own_weight(setting: Setting) -> None:
    players = Coars(lambda_user=0.3).build(setting).players
    lams = []
    for role in ROLES:
        player: Any = players[role]
        lams.append(player.credit.credit.lam)
    assert lams == [0.1, 0.3]


def test_the_sides_that_do_not_train_on_a_liked_miss_are_named_by_words() -> None:
    assert RewardConfig().build().exclude_positive_miss == frozenset()
    assert RewardConfig(exclude_positive_miss=("user",)).build().exclude_positive_miss == {USER}
    assert CoarsPaper.recipe.reward.build().exclude_positive_miss == set(ROLES)
    for wrong in ("user", "both", ("both",)):
        with pytest.raises(
            ConfigError, match=r"exclude_positive_miss must be a tuple of some of \('recommender', 'user'\)"
        ):
            RewardConfig(exclude_positive_miss=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, r"temperature must be above 0 in training, got 0\.0"),
        ({"explored_share": -0.1}, r"explored_share must be in \[0, 1\), got -0\.1"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plain(**settings)


def test_a_recipe_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_recipe_of_the_test.py").write_text(
        "from dataclasses import dataclass\n"
        "from agents.training.recipe import CoTraining, Training\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Mine(CoTraining):\n"
        "    def build(self, setting):\n"
        "        return Training(self.players(setting), len, self.optimisation())\n"
        "class NotOne:\n"
        "    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    made = find_recipe("my_recipe_of_the_test:Mine")()
    assert isinstance(made, Recipe)
    assert made.steps == 120
    with pytest.raises(ConfigError, match="my_recipe_of_the_test:NotOne is no recipe: a recipe is a dataclass"):
        find_recipe("my_recipe_of_the_test:NotOne")
    with pytest.raises(ConfigError, match=r"There is no recipe 'mine'\. Known recipes: "):
        find_recipe("mine")


@dataclass(frozen=True, kw_only=True)
class Thinking(CoTraining):
    """Both sides learn; the recommender thinks first."""

    def build(self, setting: Setting) -> Training:
        formats = {RECOMMENDER: ReplyFormat((Field("Thought", Text(), hidden=True), *RECOMMENDER_FORMAT.fields))}
        players = self.players(
            setting, agent=lambda role: setting.agent(role, temperature=1.0, reply_format=formats.get(role))
        )
        return Training(players, outcome_terms, self.optimisation())


def test_the_players_of_a_recipe_are_evaluated_greedily_in_its_own_format(lab: Any, setting: Setting) -> None:
    for role, agent in greedy_players(Thinking(), setting).items():
        assert isinstance(agent, LLMAgent)
        assert agent.temperature == 0
        assert agent.reply_format.fields[0].name == ("Thought" if role == RECOMMENDER else "Reason")
    demonstrated = greedy_players(SupervisedRecipe(), setting)
    assert [type(agent) for agent in demonstrated.values()] == [LLMAgent, LLMAgent]
    partner = FixedUser()
    beside = Setting(policy=setting.policy, split=setting.split, partner=partner)
    assert greedy_players(Plain(learners="recommender"), beside)[USER] is partner


@dataclass(frozen=True, kw_only=True)
class Alone(Plain):
    """Takes no partner."""

    def build(self, setting: Setting) -> Training:
        return super().build(Setting(policy=setting.policy, split=setting.split))


@dataclass(frozen=True, kw_only=True)
class Nothing(CoTraining):
    def build(self, setting: Setting) -> Any:
        return None


def test_what_a_recipe_builds_is_checked_before_anything_is_trained(lab: Any, setting: Setting) -> None:
    with pytest.raises(ConfigError, match=r":Nothing\.build returned None\. It must return a Training\."):
        build_training(Nothing(), setting)
    beside = Setting(policy=setting.policy, split=setting.split, partner=FixedUser())
    with pytest.raises(ConfigError, match=r":Alone does not use setting\.partner, so the partner FixedUser would"):
        build_training(Alone(learners="recommender"), beside)
    kind: Any = Plain
    with pytest.raises(ConfigError, match=r"Plain'> is no recipe\. Pass an object with steps, seed"):
        build_training(kind, setting)
    dataset: Any = lab.split.dataset
    with pytest.raises(ConfigError, match="The split of a setting must be a Split, got "):
        build_training(Plain(), Setting(policy=setting.policy, split=dataset))


def test_a_recipe_with_a_field_without_default_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad_recipes_of_the_test.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Rate:\n"
        "    rate: float\n"
        "    def build(self, setting): ...\n"
        "@dataclass\n"
        "class NoSteps:\n"
        "    def build(self, setting): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="bad_recipes_of_the_test:Rate is no recipe: rate without a default"):
        find_recipe("bad_recipes_of_the_test:Rate")
    with pytest.raises(ConfigError, match="NoSteps is no recipe: it needs the fields steps and seed"):
        find_recipe("bad_recipes_of_the_test:NoSteps")
