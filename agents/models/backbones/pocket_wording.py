"""Wording that the pocket tokenizer knows as whole tokens: a list of its own, so that a new phrase changes no model.

Change it together with `POCKET_VERSION` of `agents.models.backbones.pocket`: every pocket model is then built anew.
`agents.models.prompts` may hold phrases that are not in this list; pocket reads those in several tokens.
"""

POCKET_PHRASES = (
    "You recommend. Propose one candidate at a time and say why it comes next for this user.",
    "You are the user who took these items. Answer each recommendation as your taste tells you.",
    "Taken so far, oldest first:",
    "\nCandidates:",
    "\nReply with a Reason and one Item of the candidates.",
    "Recommended:",
    "\nBecause:",
    " nothing from the list",
    "\nReply with a Reason, an Action and a Score.",
    "The user's answer:",
    " none that could be read",
    "\nPropose again.",
    "Reason:",
    "Item:",
    "Action:",
    "Score:",
    "\nHindsight.",
    " hit.",
    " miss.",
    "\nThe item taken next was",
    "\nThe proposal was right.",
    "\nThe proposal was wrong.",
    "\nAccepting is right.",
    "\nRejecting is right.",
    " shares",
    " with",
    " does not.",
    "\nSay in one sentence what speaks for the item taken next.",
    "\nA peer little like you took it",
    "\nA peer somewhat like you took it",
    "\nA peer much like you took it",
    "\nA peer little like you took it after",
    "\nA peer somewhat like you took it after",
    "\nA peer much like you took it after",
    " and",
)
"""The phrases of the default prompts and replies at version 12. Their order is part of the content hash."""

POCKET_INSTRUCTED_PHRASES = (
    "You recommend to a user who wants something. Propose one candidate at a time, or ask, and say why.",
    "You are the user who took these items and wants something. Answer each recommendation and question.",
    "\nYou may ask:",
    "\nYou want:",
    " anything",
    "The recommender asks:",
    "\nWants:",
    " nothing",
    "\nPropose again, or ask.",
    "\nThe user wants",
    "\nTrue to say:",
    "\nThe true answer is",
    "Wish:",
    "\nReply with a Reason and one Item of the candidates or a question.",
    "\nReply with a Reason, an Action, a Score and a Wish.",
    "\nReply with a Wish.",
)
"""The phrases of games with instructions, for models that know kinds of facets; part of their content hash alone."""

POCKET_SCORES = (
    *(" 0.00", " 0.05", " 0.10", " 0.15", " 0.20", " 0.25", " 0.30", " 0.35", " 0.40", " 0.45", " 0.50"),
    *(" 0.55", " 0.60", " 0.65", " 0.70", " 0.75", " 0.80", " 0.85", " 0.90", " 0.95", " 1.00"),
)
POCKET_ACTIONS = (" dislike", " skip", " star", " click")
