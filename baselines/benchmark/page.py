"""The page and the CSV file of a comparison: its table, its pictures, what failed, and the command of each row."""

from collections.abc import Iterable, Mapping, Sequence

from coars_env import AnswerRule, Scores, ScoreTable, control_lines, csv_text, markdown_lines

PICTURES = {
    "forest.png": "Hit@1 of every system, and its difference to the reference",
    "cost.png": "Hit@1 against the tokens of an episode",
    "curves.png": "Hit@1 of the first proposal in training",
    "hit_by_turn.png": "Hit@1 had the dialogue stopped at a turn, with controls",
}


ANSWERS: dict[AnswerRule, str] = {
    "last": "the last proposal, accepted or not",
    "best": "the best proposal: the accepted one, else the one accepted most strongly, the earlier on ties",
}
"""What the game's answer is, by `Rules.answer`."""


def to_csv(table: ScoreTable, commands: Mapping[str, str]) -> str:
    """One number a column, empty where there is none, so that any program reads it."""
    notes = ("; ".join(row.notes) for row in table.rows)
    records = zip(table.records(), notes, strict=True)
    return csv_text([{**record, "command": commands[record["system"]], "notes": note} for record, note in records])


def to_markdown(
    table: ScoreTable,
    *,
    title: str,
    head: Iterable[str],
    partner: str,
    controls: Mapping[str, Mapping[str, Scores]],
    pictures: Sequence[str],
    commands: Mapping[str, str],
    digests: Iterable[str],
) -> str:
    """The page: what was asked and by what, the tables, the pictures, failures, and the command of every row.

    Args:
        table: the systems.
        title: of the page.
        head: lines below it.
        partner: who answers the systems that play the recommender alone.
        controls: system -> the system as it is and each of its controls; empty without any.
        pictures: files beside the page, some of `PICTURES`.
        commands: make the row of a system again.
        digests: of the episodes.
    """
    answer: AnswerRule = next((row.answer for row in table.rows if row.hit), "last")
    parts = [
        f"# {title}",
        *head,
        markdown_lines(table.systems()),
        f"Hit@1 is that of {ANSWERS[answer]}. Systems that play both sides speak with their own user; others meet "
        f'{partner}. "minus {table.reference}" is paired by user. '
        "Reward: the recommender's by Eq. 7, mean over turns. Brackets: 95 % intervals, users and seeds resampled; p: "
        "users swapped, corrected by Holm for the differences of this table. HR and NDCG rank all items that the user "
        "does not own, ties in expectation. Training in seconds of processor time, mean over seeds; memory is the "
        "highest of the process. An empty cell: not defined.",
    ]
    if ranked := table.rankings():
        parts += ["Full ranking:", markdown_lines(ranked)]
    if asked := table.users():
        parts += [
            "The user by AFL's test: would this user take this item? F1 of yes, pooled, at three ratios; AUC, share of "
            "yes, calibration error and share of unusable answers at the first of them. Differences in F1 are paired "
            "by user.",
            markdown_lines(asked),
        ]
    if controls:
        lines = [{"system": name, **line} for name, found in controls.items() for line in control_lines(found)]
        parts += [
            "Controls: the same system, where the user's words in each half-turn are those of another dialogue (its "
            "actions are its own), where it says nothing, and where it is shown the instruction of another task. "
            "Differences are paired by user.",
            markdown_lines(lines),
        ]
    if spent := table.costs():
        parts += [
            "What an episode asks of the language model, both sides together, and what learning in text asked of it:",
            markdown_lines(spent),
        ]
    parts += [f"![{PICTURES[picture]}]({picture})" for picture in pictures]
    notes = [f"- {row.system}: {note}" for row in table.rows for note in row.notes]
    if notes:
        parts.append("What failed:\n\n" + "\n".join(notes))
    again = "\n".join(commands[row.system] for row in table.rows)
    parts.append(f"Each row again:\n\n```bash\n{again}\n```")
    parts.append("Episodes, and the beginning of their SHA-256:\n\n" + "\n".join(f"- {digest}" for digest in digests))
    return "\n\n".join(parts) + "\n"
