"""Pictures of a comparison: Hit@1 with intervals, against what an episode costs, and as it was learnt."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from coars_env import ANSWER_METRICS, Estimate, Scores, TableRow, joint_estimates

LINES = ("o-", "s--", "^:", "v-.")
"""Of a system as it is, and of its controls."""
FloatArray = npt.NDArray[np.float64]


def draw_cost(rows: Sequence[TableRow], path: Path, *, title: str) -> bool:
    """Hit@1 against what an episode reads and writes, systems without a language model at 1 token.

    Returns False, and draws nothing, if none has one.
    """
    from matplotlib.figure import Figure

    if not any(row.cost is not None and row.cost.usage for row in rows):
        return False

    figure = Figure(figsize=(10, 6), layout="constrained")
    axis = figure.subplots()
    for number, row in enumerate(rows):
        if row.hit is not None and row.cost is not None:
            usage = row.cost.of_an_episode()
            tokens = max(1.0, usage.get("tokens_read", 0) + usage.get("tokens_written", 0))
            sides = [[row.hit.mean - row.hit.low], [row.hit.high - row.hit.mean]]
            colour, marker = f"C{number % 10}", "osD^v*"[number // 10 % 6]
            axis.errorbar([tokens], [row.hit.mean], sides, fmt=marker, color=colour, elinewidth=0.7, label=row.system)
    axis.set_xscale("log")
    axis.set_xlabel("tokens an episode, read and written; 1 stands for none")
    axis.set_ylabel("Hit@1, 95 % interval")
    axis.set_title(title, fontsize=10)
    figure.legend(loc="outside right upper", fontsize=8)
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    return True


def draw_curves(curves: Mapping[str, Sequence[FloatArray]], path: Path, *, title: str) -> bool:
    """Hit@1 of the first proposal by update, mean over seeds and ten updates; False if none keeps any."""
    from matplotlib.figure import Figure

    if not curves:
        return False
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    for system, seeds in curves.items():
        mean = np.mean([seed[: min(map(len, seeds))] for seed in seeds], axis=0)
        window = min(10, len(mean))
        smooth = np.convolve(mean, np.ones(window) / window, mode="valid")
        axis.plot(np.arange(window, len(mean) + 1), smooth, label=system)
    axis.set_xlabel("update")
    axis.set_ylabel("Hit@1 of turn 1 in training, mean of ten updates")
    axis.set_title(title, fontsize=10)
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    return True


def draw_hit_by_turn(systems: Mapping[str, Mapping[str, Scores]], path: Path, *, title: str) -> bool:
    """Hit@1 had every dialogue stopped at a turn, by both rules of answers, with 95 % intervals over users and seeds.

    A dialogue that had proposed nothing by then is a miss.

    Args:
        systems: system -> its lines by name, the system as it is and its controls; see `coars_env.hit_by_turn`.
        path: file to be written, as PNG.
        title: of the picture.

    Returns:
        False, and draws nothing, if there is no system with hits by turn.
    """
    from matplotlib.figure import Figure

    lines = {(system, name): scores for system, found in systems.items() for name, scores in found.items()}
    lines = {key: scores for key, scores in lines.items() if scores.by_turn()}
    if not lines:
        return False
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    colours = {system: f"C{number % 10}" for number, system in enumerate(systems)}
    for number, ((system, name), scores) in enumerate(lines.items()):
        estimates = joint_estimates(scores.by_turn())
        style = LINES[list(systems[system]).index(name) % len(LINES)]
        for axis, metric in zip(panels, ANSWER_METRICS.values(), strict=True):
            found = [estimate for key, estimate in estimates.items() if key.startswith(f"{metric}@")]
            turns = np.arange(1, len(found) + 1) + 0.02 * (number - len(lines) / 2)  # so that intervals stay apart
            means = [one.mean for one in found]
            sides = [[one.mean - one.low for one in found], [one.high - one.mean for one in found]]
            label = f"{system}, {name}" if axis is panels[0] else None
            axis.errorbar(turns, means, sides, fmt=style, color=colours[system], capsize=2, elinewidth=0.7, label=label)
    for axis, answer in zip(panels, ANSWER_METRICS, strict=True):
        axis.set_title(f"answer: the {answer} proposal", fontsize=10)
        axis.set_xlabel("turn")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    panels[0].set_ylabel("Hit@1 had the dialogue stopped here, 95 % interval")
    figure.suptitle(title, fontsize=11)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=110)
    return True


def draw_matrices(matrices: Mapping[str, Mapping[tuple[str, str], Estimate]], path: Path, *, title: str) -> None:
    """Heat maps side by side, each of means by (recommender, user) with intervals in the cells; written as PNG."""
    from matplotlib.figure import Figure

    pairs = next(iter(matrices.values()))
    rows, columns = (list(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 1))
    figure = Figure(figsize=(len(matrices) * (2.5 + 1.3 * len(columns)), 2 + 0.8 * len(rows)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(matrices), sharey=True))
    means = {name: np.array([[found[r, c].mean for c in columns] for r in rows]) for name, found in matrices.items()}
    low, high = (bound([bound(mean) for mean in means.values()]) for bound in (np.min, np.max))
    for axis, (name, found) in zip(panels, matrices.items(), strict=True):
        image = axis.imshow(means[name], vmin=low, vmax=high, cmap="viridis", aspect="auto")
        for (row, column), mean in np.ndenumerate(means[name]):
            one = found[rows[row], columns[column]]
            colour = "white" if mean < (low + high) / 2 else "black"
            said = f"{one.mean:.3f}\n[{one.low:.3f}, {one.high:.3f}]"
            axis.text(column, row, said, ha="center", va="center", color=colour, fontsize=8)
        axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
        axis.set_yticks(range(len(rows)), rows)
        axis.set_xlabel("user")
        axis.set_title(name, fontsize=10)
    panels[0].set_ylabel("recommender")
    figure.colorbar(image, ax=panels.tolist(), label="Hit@1")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)


def draw_forest(rows: Sequence[TableRow], reference: str, path: Path, *, title: str) -> None:
    """Hit@1 with its interval on the left, the difference to the reference on the right; written as PNG.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, and of an extra
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.6 + 0.42 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(rows):
        colour = "tab:orange" if row.system == reference else "tab:blue"
        for axis, estimate in ((left, row.hit), (right, row.difference)):
            if estimate is not None:
                axis.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=2)
                axis.plot(estimate.mean, place, "o", color=colour)
        if not math.isnan(row.p_holm):
            said = "p < 0.001" if row.p_holm < 0.001 else f"p = {row.p_holm:.3f}"
            right.text(1.02, place, said, transform=right.get_yaxis_transform(), va="center", fontsize=9)
        if row.system == reference and row.hit is not None:
            left.axvline(row.hit.mean, color="tab:orange", linewidth=1, linestyle=":")
    right.axvline(0, color="tab:orange", linewidth=1, linestyle=":")
    names = [row.system if row.hit is not None else f"{row.system} (failed)" for row in rows]
    left.set_yticks(range(len(rows)), names)
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.set_xlabel("Hit@1, 95 % interval")
    right.set_xlabel(f"Hit@1 minus {reference}, 95 % interval; p after Holm")
    for axis in (left, right):
        axis.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
