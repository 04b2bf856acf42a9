"""AskingRecommender: a belief over the candidates, sharpened by what the user says, and questions where they pay."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from coars_env.datasets.dataset import Facet, FloatArray, IntArray, Item
from coars_env.errors import ConfigError, TaskError, expect, number_or_nan
from coars_env.observation import Action, Observation, all_reveals, as_one, askable_kinds, histories_of, kinds_of
from coars_env.rendering.wording import question_text
from coars_env.tasks import Scorer, Task, has_facet, scores_of
from coars_env.transcript import ACTIONS


class AskingRecommender:
    """Proposes the candidate that is most probably the target, and asks for a kind of facet where that pays more.

    Its belief begins as a softmax of the scores of the list, which are first brought to mean 0 and deviation 1. A
    rejected candidate (dislike or skip) drops to 0, and is not proposed again while another is left. A revealed facet
    multiplies each candidate by the chance that a user who wants it says so: 1 / (number of its values of that kind)
    where it has the facet, 0 where not; with `noise` e, (1 - e) of that plus e / (number of values in the list). What
    would leave nothing is passed over.

    A question gains the expected highest belief after the answer, minus the highest now; a proposal gains the second
    highest belief, the chance that the next proposal hits if this one is rejected. It asks for the kind that gains
    most, if that is more than a proposal gains, each kind once, and never in the last turn (one step of lookahead; our
    choice). Of a group it takes the mean of the scores over the users, and hears them all. Example:
    `AskingRecommender(kernel_scorer(split), episodes.items)`.

    Args:
        scorer: what is known of taste.
        items: the catalogue.
        temperature: of the softmax; the lower, the surer of the scorer. 1 was best, by the mean log probability of the
            target, on validation users of MovieLens-100K with `kernel_scorer` and popularity-sampled candidates.
        noise: the chance that a user errs about what it wants.
        asks: False never asks and only listens.
        shown: tasks whose instructions it sees from the start, an upper bound on what words can bring. It finds its
            own by histories and candidates.

    Raises:
        ConfigError: it is no scorer, or a number that cannot be.
        TaskError: in `act`, a list of none of the tasks `shown`, or scores that are not finite.
    """

    def __init__(
        self,
        scorer: Scorer,
        items: Sequence[Item],
        *,
        temperature: float = 1.0,
        noise: float = 0.0,
        asks: bool = True,
        shown: Iterable[Task] | None = None,
    ) -> None:
        expect(Callable, scorer, "What is recommended is scored.", "Pass a `Scorer`, such as kernel_scorer(split).")
        if not number_or_nan(temperature) > 0:
            raise ConfigError(f"temperature must be above 0, got {temperature!r}. Use 1.0.")
        if not 0 <= number_or_nan(noise) < 1:
            raise ConfigError(f"noise must be a chance below 1, got {noise!r}. Use 0.0, or that of the instructions.")
        self._scorer, self._items, self._noise, self._asks = scorer, items, noise, asks
        self.temperature = temperature
        self._shown: dict[tuple[tuple[tuple[int, ...], ...], tuple[int, ...]], tuple[Facet, ...]] | None = None
        if shown is not None:
            self._shown = {}
            for task in shown:
                expect(Task, task, "Instructions are part of tasks.", "Pass the episode set that is played.")
                wishes = [member.instruction for member in task.members]
                facets = dict.fromkeys(facet for wish in wishes if wish is not None for facet in wish.facets)
                self._shown[tuple(member.history for member in task.members), task.candidates] = tuple(facets)

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._rngs = [np.random.default_rng(seed) for seed in seeds]
        self._openings: dict[int, tuple[FloatArray, IntArray]] = {}

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: self._speak(n, observation) for n, observation in observations.items()}

    def _speak(self, n: int, observation: Observation) -> Action:
        candidates = observation["candidates"]
        if n not in self._openings:
            prior = self.prior(histories_of(observation), candidates)
            self._openings[n] = prior, self._rngs[n].permutation(len(candidates))
        prior, ties = self._openings[n]
        listed = [self._items[item] for item in candidates]
        heard = self._heard(observation)
        belief = self.belief(prior, observation, heard)
        order = np.lexsort((ties, -np.round(belief, 12)))  # rounded so that machines agree on what is equal
        if self._asks and self._shown is None:
            done = {facet.kind for facet in heard}.union(observation.get("questions", ()))
            open_ = [kind for kind in askable_kinds(observation) if kind not in done]
            gains = [self.question_value(belief, listed, kind) - belief[order[0]] for kind in open_]
            best = int(np.argmax(gains)) if open_ else -1
            if open_ and gains[best] > belief[order[1:2]].sum() + 1e-12:
                return {"ask": open_[best], "item": len(candidates), "message": question_text(open_[best])}
        return {"item": int(order[0]), "message": _reason(listed[order[0]], heard)}

    def _heard(self, observation: Observation) -> list[Facet]:
        """What the users revealed, each facet once, in order; or the instructions that are shown."""
        if self._shown is None:
            return list(all_reveals(observation))
        key = tuple(map(tuple, histories_of(observation))), tuple(observation["candidates"].tolist())
        if key not in self._shown:
            found = key[0] if len(key[0]) > 1 else key[0][0]
            raise TaskError(
                f"No task of the {len(self._shown)} shown has history {found} and candidates {key[1]}. Build the "
                "recommender from the episode set that is played."
            )
        return [facet for facet in self._shown[key] if facet.kind in kinds_of(observation)]

    def prior(self, histories: Sequence[npt.ArrayLike], candidates: npt.ArrayLike) -> FloatArray:
        """Return the chance of each candidate to be the target before anything is said, from each user's history.

        Raises:
            TaskError: the scores are not finite.
        """
        listed = np.asarray(candidates, np.int64)
        scores = np.mean([scores_of(self._scorer, history, listed) for history in histories], axis=0)
        if not np.isfinite(scores).all():
            raise TaskError(f"Scores must be finite to become a belief, got {scores!s:.200}. Correct the scorer.")
        deviation = float(scores.std())
        logits = (scores - scores.mean()) / (deviation * self.temperature) if deviation > 0 else np.zeros_like(scores)
        weights = np.exp(logits - logits.max())
        return np.asarray(weights / weights.sum())

    def belief(self, prior: FloatArray, observation: Observation, heard: Sequence[Facet]) -> FloatArray:
        """Return the chance of each candidate to be the target, after the rejections so far and what was heard."""
        candidates, actions = observation["candidates"], as_one(observation)["actions"]
        rejected = (actions >= 0) & (actions < ACTIONS.index("star"))
        factors = [~np.isin(candidates, observation["proposals"][rejected]) * 1.0]
        factors += [self.likelihood(facet, [self._items[item] for item in candidates]) for facet in heard]
        belief = prior
        for factor in factors:
            updated = belief * factor
            belief = updated / updated.sum() if updated.sum() > 0 else belief
        return belief

    def likelihood(self, facet: Facet, listed: Sequence[Item]) -> FloatArray:
        """Return the chance that the user reveals this facet when asked for its kind, if it wants each of the items."""
        has = np.array([has_facet(item, facet) / max(len(item.values(facet.kind)), 1) for item in listed])
        return np.asarray((1 - self._noise) * has + self._noise / max(len(_facets(listed, facet.kind)), 1))

    def question_value(self, belief: FloatArray, listed: Sequence[Item], kind: str) -> float:
        """Return the expected highest belief after asking for a kind. Who wants an item without it declines, unless it
        errs; a decline teaches nothing.
        """
        said = sum(float((belief * self.likelihood(facet, listed)).max()) for facet in _facets(listed, kind))
        declined = float(belief @ np.array([not item.values(kind) for item in listed]))
        return said + (1 - self._noise) * declined * float(belief.max())


def _facets(listed: Sequence[Item], kind: str) -> list[Facet]:
    return sorted({Facet(kind, value) for item in listed for value in item.values(kind)})


def _reason(item: Item, heard: Sequence[Facet]) -> str:
    wanted = [facet.value for facet in heard if has_facet(item, facet)]
    return f"It fits what you want: {', '.join(wanted)}." if wanted else "The best of what is left."
