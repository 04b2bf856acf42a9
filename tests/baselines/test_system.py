"""System and Resources: what is opened on demand, what is refused; the registry is in test_baselines.py."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from baselines import Resources, SavedSystem, System
from baselines.item_knn import ItemKnn
from baselines.system import Metered, load_user
from coars_env import RECOMMENDER, USER, Agent, BackboneError, ConfigError, FixedUser, Split, load_split
from scripted import Scripted, by_hash


@pytest.fixture(scope="module")
def split() -> Split:
    return load_split("synthetic", users=30, items=60, interactions=700)


def test_a_language_model_that_is_passed_is_the_one_to_talk_to(split: Split) -> None:
    model = Scripted(by_hash)
    assert Resources(model, backbone="no such model").language_model(split) is model


def test_a_model_behind_an_endpoint_is_opened_before_a_backbone(split: Split) -> None:
    settings = {"url": "http://localhost:1/v1", "model": "tiny", "cache": None}
    assert Resources(api=settings, backbone="no such model").language_model(split).name.startswith("tiny")


def test_a_backbone_is_looked_for_when_it_is_asked_for(split: Split, tmp_path: Path) -> None:
    resources = Resources(backbone=str(tmp_path / "nothing"))
    with pytest.raises(BackboneError):
        resources.language_model(split)


def test_what_is_remembered_has_a_file_where_there_is_a_folder(tmp_path: Path) -> None:
    assert Resources().store is None
    assert Resources(folder=tmp_path).store == tmp_path / "memory.sqlite"


def test_a_system_of_one_side_leaves_the_other_open(split: Split) -> None:
    knn = ItemKnn.fit(split)
    assert (ItemKnn.plays, knn.user, knn.learning, knn.learning_curve) == ((RECOMMENDER,), None, None, ())
    assert isinstance(knn.recommender, Agent)
    assert knn.agent(RECOMMENDER) is knn.recommender
    with pytest.raises(ConfigError, match="ItemKnn does not play user_0, only recommender_0"):
        knn.agent(USER)
    assert not isinstance(knn.recommender, Metered)  # it asks no language model


def test_what_a_subclass_has_to_write_is_named(split: Split, tmp_path: Path) -> None:
    class Half(SavedSystem):
        """No method of its own."""

    for call in (lambda: Half.fit(split), lambda: Half().save(tmp_path), lambda: Half.load(tmp_path, split)):
        with pytest.raises(NotImplementedError, match=r"Half has no `(fit|save|load)`"):
            call()  # type: ignore[no-untyped-call]


class Clicks(FixedUser):
    """Made without arguments."""


OBJECT = FixedUser("skip", 0.3)


class Own(System):
    """Plays the user."""

    plays = (USER,)

    @classmethod
    def fit(cls, split: Split, **rest: Any) -> "Own":
        return cls(user=OBJECT)


def test_a_user_is_a_name_an_agent_a_class_of_agents_or_a_system(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "toys_of_this_test", sys.modules[__name__])
    users = {
        name: load_user(name) for name in ("fixed", *(f"toys_of_this_test:{n}" for n in ("Clicks", "OBJECT", "Own")))
    }
    assert [kind.plays for kind in users.values()] == [(USER,)] * 4
    fixed, clicks, given, own = (kind.fit(split, seed=0, resources=Resources()).user for kind in users.values())
    assert (type(fixed), type(clicks)) == (FixedUser, Clicks)
    assert given is own is OBJECT
    assert load_user("zero_shot").__name__ == "ZeroShot"
    with pytest.raises(ConfigError, match="item_knn plays recommender_0 alone"):
        load_user("item_knn")


def test_a_system_that_counts_loads_no_torch() -> None:
    code = "import sys; from baselines import load_system; load_system('item_knn'); print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
