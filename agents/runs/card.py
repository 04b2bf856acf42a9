"""The model card of an adapter or a merged model: what it was made from, how, and how to load it.

A card holds what the run wrote down and nothing else.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from agents.models.policy import ADAPTERS
from agents.runs.checkpoint import Origin
from coars_env import RECOMMENDER, ROLES, Role, Split

NAMES = ("rec", "user")
"""How the metrics name the two sides."""
LAST = 10
"""Updates over which the metrics of a card are averaged."""
SHOWN = {
    "hit_first": "Hit@1 of the first proposal",
    "hit_final": "Hit@1 of the last proposal",
    "hit_best": "Hit@1 of the best proposal",
    "reward_recommender": "mean reward of a turn, recommender",
    "reward_user": "mean reward of a turn, user",
    "acceptance_on_hits": "share of hits the user accepts",
    "acceptance_on_misses": "share of misses the user accepts",
    "rec_surprise": "entropy of the recommender, nats a token",
    "user_surprise": "entropy of the user, nats a token",
    "rec_kl": "KL of the recommender to the base, nats a token",
    "user_kl": "KL of the user to the base, nats a token",
}
LOAD_ADAPTER = """from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "{here}")  # this folder
"""
LOAD_MERGED = """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{here}")  # this folder
model = AutoModelForCausalLM.from_pretrained("{here}")
"""


def adapter_cards(origin: Origin, split: Split, rows: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Write README.md of each adapter's folder, and of the folder ("") that holds both."""
    cards = {ADAPTERS[role]: model_card(role, origin, split, rows) for role in ROLES}
    front, _, _ = cards[ADAPTERS[RECOMMENDER]].partition("\n# ")
    both = (
        f"{front}\n# Both sides of a CoARS run\n\nTwo LoRA adapters of one run of coars-env: "
        "[recommender](recommender/README.md) and [user](user/README.md). Each folder is one in peft's format, and its "
        "card says what it was made from.\n"
    )
    return cards | {"": both}


def model_card(
    role: Role, origin: Origin, split: Split, rows: Sequence[Mapping[str, float]], *, merged: bool = False
) -> str:
    """Write README.md of an adapter's folder.

    Args:
        role: whose adapter.
        origin: what the run is made of.
        split: its data.
        rows: the metrics of its updates.
        merged: whether the folder holds base and adapter in one.
    """
    side, backbone, provenance = ADAPTERS[role], str(origin.config["backbone"]), split.dataset.provenance
    local = Path(backbone).exists()
    from_hub = backbone != "pocket" and not local
    front = ["library_name: " + ("transformers" if merged else "peft"), "pipeline_tag: text-generation"]
    front += [f"base_model: {backbone}"] if from_hub else []
    recipe = origin.config["recipe"]
    shown = {name: origin.config[name] for name in ("recipe", "partner", "peers", "lora_rank")}
    base = f"A model in a local folder, `{Path(backbone).name}`" if local else f"`{backbone}`"
    if backbone == "pocket":
        base = "`pocket`, a small model that coars-env builds from the training part of the split below"
    what = "A language model with its adapter merged in" if merged else "A LoRA adapter"
    load = (LOAD_MERGED if merged else LOAD_ADAPTER).format(
        base=backbone if from_hub else "FOLDER-OF-THE-BASE", here="." if merged else side
    )
    lines = [
        "---",
        *front,
        "tags: [recommender-system, multi-agent, lora, coars]",
        "---",
        "",
        f"# {side.capitalize()} of a CoARS run",
        "",
        f"{what} for the {'recommender' if role == RECOMMENDER else 'user'} in the dialogues of coars-env, in which a "
        f"recommender proposes items and a user answers. It {how_it_learnt(role, rows)}; recipe `{recipe['class']}`.",
        "",
        "## Base",
        "",
        f"{base}; fingerprint `{origin.base[:16]}`.",
        "",
        "## Data",
        "",
        f"- {provenance.source} data `{provenance.origin}`, SHA-256 `{provenance.sha256}`",
        f"- split `{split.name}`: {len(split.train)} users to train on, {len(split.validation)} for validation, "
        f"{len(split.test)} for the test",
        f"- licence of the data: {split.dataset.licence or 'not stated'}",
        "",
        "## Training",
        "",
        f"{len(rows)} of {recipe['steps']} updates, seed {recipe['seed']}. Settings:",
        "",
        f"```json\n{json.dumps(shown, indent=1)}\n```",
        "",
        "## Metrics at the end of training",
        "",
        f"Means over the last {min(LAST, len(rows))} updates, in the dialogues it was learning from, with sampled "
        "words: no evaluation. `coars evaluate` plays a finished run on held-out users.",
        "",
        *metrics_table(rows),
        "",
        "## Loading",
        "",
        f"```python\n{load}```",
        "",
        "The prompts it knows are those of `agents/models/prompts.py` in coars-env.",
        "",
    ]
    return "\n".join(lines)


def how_it_learnt(role: Role, rows: Sequence[Mapping[str, float]]) -> str:
    """Describe which sides were trained, from the gradients among the metrics."""
    own, other = NAMES if role == RECOMMENDER else NAMES[::-1]
    learnt = [any(f"{name}_gradient" in row for row in rows) for name in (own, other)]
    return {
        (True, True): "was trained together with its partner",
        (True, False): "learnt from a partner that did not",
        (False, True): "is as it began; its partner was trained",
        (False, False): "is as it began",
    }[learnt[0], learnt[1]]


def metrics_table(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Average the metrics of the last updates, as lines of Markdown."""
    recent = {key: [row.get(key, np.nan) for row in rows[-LAST:]] for key in SHOWN}
    table = [
        f"| {label} | {np.nanmean(recent[key]):.3f} |" for key, label in SHOWN.items() if np.isfinite(recent[key]).any()
    ]
    return ["| metric | mean |", "|---|---|", *table] if table else ["None yet."]
