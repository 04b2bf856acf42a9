"""Which rules of repeats and answers? The smallest policies that can learn the game, under all of them. numpy only.

    python examples/rules.py --source real --out docs/results

Both sides are linear, see `learn`, and learn by REINFORCE from the rewards of Eq. 7-8, each turn for itself, on half of
the validation users of MovieLens-100K (leave_last_two); figures are of the other half. Test users are not looked at.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tyro
from tqdm import tqdm

import coars_env
from coars_env import CandidateRule, EpisodeSet, FacetInstructions, MirroredStage, Scorer, Source, has_facet

KINDS = ("genre", "decade")
REPEATS = ("paid", "unpaid", "forbidden")
TURNS = 4
VOLUNTEER = 0.5
"""The chance that a rejection says what the proposal lacks."""
QUESTION_COST = 0.2
NEVER = -30.0
"""Logit of what may not be done."""
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is played."""

    candidates: tuple[CandidateRule, ...] = ("uniform", "popularity")
    seeds: tuple[int, ...] = (0, 1, 2)
    draws: int = 5
    """Of candidates and instructions; updates take them by turns."""
    updates: int = 300
    source: Source = "auto"
    out: Path | None = None
    """Folder for a page."""


@dataclass(frozen=True)
class Game:
    """One row of the table."""

    repeats: str
    instructed: bool
    balanced: bool
    """Whether hits and misses weigh the same in what the user learns."""


@dataclass(frozen=True)
class Tasks:
    """N tasks of K candidates and Q kinds."""

    target: Array
    """[N, K], 1 for the target."""
    score: Array
    """[N, K], what the recommender knows of taste: the scorer, mean 0 and deviation 1 in each list."""
    taste: Array
    """[N, K], what the user knows of it: the logarithm of the scorer, which other candidates do not move."""
    fits: Array
    """[N, Q, K], 1 where a candidate has what the user wants of a kind, or it wants nothing of it."""
    wants: Array
    """[N, Q], 1 where it wants something of a kind."""

    @classmethod
    def of(cls, episodes: EpisodeSet, scorer: Scorer) -> "Tasks":
        listed = np.array([task.candidates for task in episodes])
        scores = np.array([scorer(np.array(t.history), np.array(t.candidates)) for t in episodes])
        taste = np.log(scores + 0.01)
        fits, wants = np.ones((len(listed), len(KINDS), listed.shape[1])), np.zeros((len(listed), len(KINDS)))
        for n, task in enumerate(episodes):
            for facet in task.instruction.facets if task.instruction else ():
                kind = KINDS.index(facet.kind)
                wants[n, kind] = 1
                fits[n, kind] = [has_facet(episodes.items[item], facet) for item in task.candidates]
        score = (scores - scores.mean(1, keepdims=True)) / (scores.std(1, keepdims=True) + 1e-9)
        target = 1.0 * (listed == np.array([[task.target] for task in episodes]))
        return cls(target, score, (taste - taste.mean()) / taste.std(), fits, wants)

    def __getitem__(self, users: npt.NDArray[np.bool_]) -> "Tasks":
        return Tasks(*(part[users] for part in (self.target, self.score, self.taste, self.fits, self.wants)))


def play(tasks: Tasks, weights: Sequence[Array], game: Game, rng: np.random.Generator) -> dict[str, Array]:
    """Play every task once. Returns what was said and paid, [T, N] each, `live` where the turn was played; and of each
    side the gradient of the logarithm of the chance of its act, [T, N, weights].
    """
    (n, k), q, rows, (recommender, user) = tasks.score.shape, len(KINDS), np.arange(len(tasks.score)), weights
    rejected, live, asked, known = np.zeros((n, k)), np.ones(n, bool), np.zeros((n, q), bool), np.zeros((n, q), bool)
    fit = tasks.fits.mean(1) if game.instructed else np.zeros((n, k))
    turns: list[dict[str, Array]] = []
    for turn in range(1, TURNS + 1):
        seen = np.stack([tasks.score, -(known[:, :, None] * (1 - tasks.fits)).sum(1), rejected], -1)
        barred = (rejected > 0) & (game.repeats == "forbidden")
        silent = asked | known | (not game.instructed or turn == TURNS)
        logits = [np.where(barred, NEVER, seen @ recommender[:3]), np.where(silent, NEVER, recommender[3])]
        chances = np.exp(both := np.concatenate(logits, 1)) / np.exp(both).sum(1, keepdims=True)
        act = (chances.cumsum(1) > rng.random((n, 1))).argmax(1)
        asks, item = act >= k, np.where(act < k, act, 0)
        pull = np.eye(k + q)[act] - chances
        of_recommender = np.column_stack([np.einsum("nk,nkf->nf", pull[:, :k], seen), pull[:, k:].sum(1)])

        heard = np.column_stack([np.ones(n), tasks.taste[rows, item], fit[rows, item]])
        chance = 1 / (1 + np.exp(-heard @ user))
        accepts = (rng.random(n) < chance) & ~asks
        of_user = np.where(asks, 0.0, accepts - chance)[:, None] * heard
        hit = np.where(asks, 0.0, tasks.target[rows, item])
        strength = np.where(accepts, 0.75 + 0.25 * chance, 0.5 * chance)
        stage = np.where(hit > 0, *(MirroredStage()(turn, TURNS, right) for right in (True, False)))
        repeat = (rejected[rows, item] > 0) & ~asks
        paid = (2 * hit - 1) * np.stack(
            [(0.5 + 0.5 * strength) * stage, 2 * strength - 1]
        )  # Eq. 7, and 8 without peers
        if game.repeats == "unpaid":
            paid = np.where(repeat, np.minimum(paid, 0), paid)
        paid = np.where(asks, [[-QUESTION_COST], [0.0]], paid)
        said = {"live": live, "asks": asks, "accepts": accepts, "hit": hit, "strength": strength, "repeat": repeat}
        paid_to = {"paid recommender": paid[0], "paid user": paid[1]}
        turns.append({**said, **paid_to, "of recommender": of_recommender, "of user": of_user})

        question = act[:, None] == k + np.arange(q)
        refused = ~asks & ~accepts
        volunteers = refused & game.instructed & (rng.random(n) < VOLUNTEER)
        lacks = (tasks.wants > 0) & ~known & (tasks.fits[rows, :, item] == 0)
        asked |= question
        known |= (question & (tasks.wants > 0)) | (lacks & (lacks.cumsum(1) == 1) & volunteers[:, None])
        rejected[rows[refused], item[refused]] = 1
        live = live & ~accepts
    return {name: np.array([one[name] for one in turns], np.float64) for name in turns[0]}


def learn(draws: Sequence[Tasks], game: Game, seed: int, updates: int, rate: float = 0.3) -> list[Array]:
    """Weights of the recommender and of the user, by REINFORCE; the baseline is the mean of the turn.

    The recommender weighs a candidate's score, the facets it lacks among those revealed (negative), whether it was
    rejected, and any question; it begins by following the score. The user weighs 1, a proposal's taste and its share of
    the facets wanted; it begins by accepting half of everything.
    """
    rng, weights = np.random.default_rng(seed), [np.array([1.0, 0.0, 0.0, -1.0]), np.zeros(3)]
    for update in range(updates):
        played = play(draws[update % len(draws)], weights, game, rng)
        live, hits = played["live"], played["live"] * played["hit"]
        misses = live * (1 - played["hit"]) * (1 - played["asks"])
        paid = [played["paid recommender"], played["paid user"]]
        if game.balanced:
            half = (hits.sum() + misses.sum()) / 2
            paid[1] = paid[1] * np.where(played["hit"] > 0, half / max(hits.sum(), 1), half / max(misses.sum(), 1))
        for side, name in enumerate(("of recommender", "of user")):
            mean = (paid[side] * live).sum(1, keepdims=True) / np.maximum(live.sum(1, keepdims=True), 1)
            step = np.einsum("tn,tnf->f", (paid[side] - mean) * live, played[name]) / live.shape[1]
            weights[side] = weights[side] + rate * step
    return weights


def measures(played: dict[str, Array]) -> dict[str, Array]:
    """Of each dialogue, [N]."""
    live, hit, rows = played["live"], played["hit"], np.arange(played["live"].shape[1])
    proposes = live * (1 - played["asks"])
    best = np.where(proposes > 0, played["strength"], -1.0).argmax(
        0
    )  # an accepted one is above .75; the earlier on ties
    return {
        "first": hit[proposes.argmax(0), rows],
        "last": hit[live.sum(0).astype(int) - 1, rows],
        "best": hit[best, rows],
        **{name: (live * played[name]).sum(0) for name in ("repeat", "asks", "accepts")},
        "turns": live.sum(0),
    }


RATES, COUNTS = ("first", "last", "best"), ("repeat", "asks", "turns", "accepts")
HEAD = ("game", "user", "repeats", *RATES, "best - first", "best - last", "repeated", "questions", "turns", "clicks")


def row(runs: Sequence[Sequence[dict[str, Array]]], game: Game) -> tuple[str, ...]:
    """Figures of one game from seeds of draws."""
    found = {name: np.array([[one[name] for one in draws] for draws in runs]) for name in runs[0][0]}
    gains = [found["best"] - found[name] for name in ("first", "last")]
    estimates = [str(coars_env.bootstrap_interval(v)) for v in (*(found[name] for name in RATES), *gains)]
    what = ("instructed" if game.instructed else "plain", "balanced" if game.balanced else "as paid", game.repeats)
    return (*what, *estimates, *(f"{found[name].mean():.2f}" for name in COUNTS))


def table(options: Options, candidates: CandidateRule, split: coars_env.Split) -> str:
    build = coars_env.builder(split, candidates, peers=lambda _: None, instructions=FacetInstructions(KINDS))
    scorer = coars_env.kernel_scorer(split)
    draws = [Tasks.of(coars_env.freeze(build, "validation", draw=d), scorer) for d in range(options.draws)]
    users = len(draws[0].score)
    trained = np.random.default_rng(5).permutation(users) < users // 2
    games = [Game(r, i, b) for i, b, r in itertools.product((False, True), (False, True), REPEATS)]
    rows = []
    for game in tqdm(games, desc=candidates):
        runs = []
        for seed in options.seeds:
            weights = learn([tasks[trained] for tasks in draws], game, seed, options.updates)
            rngs = [np.random.default_rng([seed, draw]) for draw in range(options.draws)]
            held_out = [play(t[~trained], weights, game, rng) for t, rng in zip(draws, rngs, strict=True)]
            runs.append([measures(played) for played in held_out])
        rows.append(row(runs, game))
    return f"## {candidates} candidates\n\n{coars_env.markdown_table(HEAD, rows)}"


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    split = coars_env.load_split("movielens", "leave_last_two", source=options.source)
    around, origin = coars_env.environment_info(), split.dataset.provenance
    page = PAGE.format(
        command=f"`python examples/{around['command']}`, commit {around['commit']}, {around['machine']}",
        data=f"{origin.source.upper()} data {origin.origin} ({origin.sha256[:12]})",
        users=len(split.validation) - len(split.validation) // 2,
        options=options,
        seeds=", ".join(map(str, options.seeds)),
        tables="\n\n".join(table(options, candidates, split) for candidates in options.candidates),
    )
    print(page)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "rules_movielens.md").write_text(page, encoding="utf-8")


PAGE = """# Which rules of repeats and answers? MovieLens-100K, validation users

Command: {command}. {data}, leave_last_two, {users} validation users; the others were trained on, {options.updates}
updates, seeds {seeds}, {options.draws} draws of 20 candidates. 95 % intervals, users and seeds resampled. No language
model: both sides are linear policies that learn by REINFORCE, each turn paid for itself (Eq. 7-8).

Hit@1 of the first proposal, of the last one (`answer="last"`), and of the accepted one, else the one accepted most
strongly (`answer="best"`). What is paid does not depend on the answer, so one dialogue has both. Then, a dialogue:
proposals repeated after a rejection, questions, turns, clicks. "balanced": hits and misses weigh the same in what the
user learns. In the instructed game users want one genre and the decade, and half of their rejections say what was
missing.

{tables}
"""


if __name__ == "__main__":
    main()
