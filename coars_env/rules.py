"""Rules: what may be proposed twice, what the dialogue answered, and whether the recommender may ask."""

from dataclasses import dataclass
from typing import Literal, get_args

from coars_env.errors import ConfigError

RepeatRule = Literal["paid", "unpaid", "forbidden"]
AnswerRule = Literal["last", "best"]


@dataclass(frozen=True)
class Rules:
    """Rules of the game beside its length. The paper is silent on all of them.

    Example: `Rules(repeats="forbidden", answer="best")`.

    Raises:
        ConfigError: there is no such rule.
    """

    repeats: RepeatRule = "paid"
    """What happens to a proposal that the user has rejected (dislike or skip) in an earlier turn. "paid": it is paid
    again. "unpaid": no side earns more than 0 by that turn. "forbidden": the message is one that cannot be used, and
    the masked view masks the item; once every candidate was rejected, all may be proposed again."""
    answer: AnswerRule = "last"
    """Which proposal the dialogue answered. "last": that of the last turn, accepted or not (AFL, arXiv:2410.20027).
    "best": the accepted one, else the one accepted most strongly, the earlier on ties."""
    questions: bool = True
    """Whether the recommender may ask, in a task with an instruction. Without one there is nothing to ask."""

    def __post_init__(self) -> None:
        for name, rule in (("repeats", RepeatRule), ("answer", AnswerRule)):
            if getattr(self, name) not in get_args(rule):
                raise ConfigError(f"{name} must be one of {get_args(rule)}, got {getattr(self, name)!r}. Name one.")
        if not isinstance(self.questions, bool):
            raise ConfigError(f"questions must be True or False, got {self.questions!r}.")


PAPER = Rules(repeats="paid", answer="last")
"""The rules of transcripts of versions 2 and 3, which hold none."""
