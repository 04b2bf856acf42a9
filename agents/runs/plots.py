"""A picture of a run: rewards, hits, acceptance, credit and signs of trouble by step."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

PANELS: dict[str, tuple[tuple[str, str], ...]] = {
    "Hit@1 in training": (("hit_first", "turn 1"), ("hit_final", "last proposal"), ("hit_best", "best proposal")),
    "mean reward of a turn": (("reward_recommender", "recommender"), ("reward_user", "user")),
    "acceptance (star or click)": (("acceptance_on_hits", "of hits"), ("acceptance_on_misses", "of misses")),
    "turns of a dialogue": (("turns", "turns"),),
    "entropy of own tokens (nats)": (("rec_surprise", "recommender"), ("user_surprise", "user")),
    "mean token credit A": (("rec_credit", "recommender"), ("user_credit", "user")),
    "KL to the base (nats a token)": (("rec_kl", "recommender"), ("user_kl", "user")),
    "titles the user named before they were proposed": (("target_named", "target"), ("others_named", "others")),
    "tokens a second": (("tokens_per_second", "both sides"),),
}


def draw_curves(metrics: Sequence[Mapping[str, float]], path: Path, *, title: str) -> None:
    """A panel for each entry of `PANELS` over the steps, smoothed by a running mean of 10; written as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, and only needed here
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axis, (name, lines) in zip(figure.subplots(3, 3).flat, PANELS.items(), strict=True):
        for key, label in lines:
            values = np.array([row.get(key, np.nan) for row in metrics])
            (line,) = axis.plot(values, alpha=0.25, linewidth=1)
            axis.plot(_running_mean(values, 10), label=label, color=line.get_color())
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("update")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def _running_mean(values: np.ndarray[tuple[int], np.dtype[np.float64]], width: int) -> list[float]:
    means = []
    for end in range(1, len(values) + 1):
        window = values[max(0, end - width) : end]
        means.append(float(np.nanmean(window)) if np.isfinite(window).any() else float("nan"))
    return means
