"""messages: the dialogue as chat, in OpenAI's style, for either side. read_reply: a chat model's words as an action.

chat = coars_env.messages(observation, RECOMMENDER, items)
reply = client.chat.completions.create(model=..., messages=chat).choices[0].message.content
action = coars_env.read_reply(reply, RECOMMENDER, num_candidates=20)
"""

import re
from collections.abc import Sequence

from coars_env.datasets.dataset import Item
from coars_env.observation import Action, Observation, history_of, opinions_heard
from coars_env.rendering.text import peers_text
from coars_env.transcript import ACTIONS, RECOMMENDER, USER, Role, clamp_strength, find_role

Message = dict[str, str]
"""{"role": "system", "user" or "assistant", "content": ...}."""

RULES = {
    "recommender_0": (
        "You recommend one item at a time to a user, until they click it or the turns run out. Find the item of the "
        "list that they take next. Reply in two lines:\nItem: <number in the list>\nReason: <one sentence to the user>"
    ),
    "user_0": (
        "You are the user who took the items below. Answer each recommendation as your taste tells you. Reply in "
        "three lines:\nAction: <dislike, skip, star or click>\nScore: <your wish for it, 0 to 1: dislike below 0.25, "
        "skip below 0.50, star below 0.75, click above>\nReason: <one sentence>"
    ),
}
"""The system messages; the wording is ours."""
_FIELD = re.compile(r"[\s*]*(item|action|score|reason)[\s*]*:[\s*]*(.*)", re.IGNORECASE)  # stars: bold in Markdown


def messages(observation: Observation, role: Role, items: Sequence[Item]) -> list[Message]:
    """What a chat model that plays `role` is to be sent. The other side's words are the chat's user.

    Of one dialogue each list begins with the one before it, so caches of prefixes hold. It ends with the other side's
    words in one's own half-turn, and with one's own after it.

    Args:
        observation: what `Dialogue.observe(role)` or `CoarsEnv` shows.
        role: whose observation it is.
        items: the catalogue, `env.episodes.items`.
    """
    role = find_role(role)
    heard = ["Taken so far, oldest first:", *(f"- {items[i].title}" for i in history_of(observation))]
    if role == RECOMMENDER:
        heard += ["Candidates:", *(f"{n}. {items[i].title}" for n, i in enumerate(observation["candidates"]))]
    chat = [{"role": "system", "content": RULES[role]}]
    begun = int(observation["turn"]) + int(observation["speaker"])
    for turn in range(begun):
        proposed, answered = _proposal(observation, turn, items), _answer(observation, turn)
        if role == RECOMMENDER:
            chat += [_said("user", heard), {"role": "assistant", "content": _own_proposal(observation, turn)}]
            heard = [answered] if turn < observation["turn"] else []
        else:
            opinions = opinions_heard(observation, turn)
            peers = [peers_text(opinions, items)] if opinions else []
            chat.append(_said("user", [*heard, proposed, *peers]))
            if turn < observation["turn"]:
                chat.append({"role": "assistant", "content": _own_answer(observation, turn)})
            heard = []
    if heard:
        chat.append(_said("user", heard))
    return chat


def reply_text(action: Action, role: Role, num_candidates: int) -> str:
    """An action as a chat model should write it; only the message where the action names nothing."""
    message = str(action["message"])
    if role == RECOMMENDER:
        return f"Item: {action['item']}\nReason: {message}" if action["item"] < num_candidates else message
    if action["action"] >= len(ACTIONS):
        return message
    return f"Action: {ACTIONS[action['action']]}\nScore: {float(action['strength']):.2f}\nReason: {message}"


def read_reply(text: str | None, role: Role, num_candidates: int) -> Action:
    """The action that a reply states, inverse of `reply_text`; never a guess.

    Fields stand on lines of their own, in any order; lines after a reason belong to it. A missing score is the middle
    of its action. What is missing, said twice or outside its range makes the whole message one that cannot be read;
    `error` then says why. So does None, which servers send in place of an empty reply.
    """
    text = text or ""
    fields: dict[str, str] = {}
    error, last = None, ""
    for line in text.split("\n"):
        if found := _FIELD.fullmatch(line):
            last = found[1].lower()
            error = error or (f"the message states {last} twice" if last in fields else None)
            fields[last] = found[2].strip()
        elif last == "reason":
            fields[last] = f"{fields[last]} {line.strip()}".strip()
    reason = fields.get("reason", "")
    if find_role(role) == RECOMMENDER:
        number = re.fullmatch(r"(\d{1,9})\.?", fields.get("item", ""), re.ASCII)
        if error is None and number and int(number[1]) < num_candidates:
            return {"item": int(number[1]), "message": reason}
        found_item = f"expected Item: 0..{num_candidates - 1}, found {fields.get('item', 'none')!r}"
        return {"item": num_candidates, "message": text, "error": error or found_item}
    action, score = fields.get("action", "").lower().rstrip("."), fields.get("score")
    if error is None and action not in ACTIONS:
        error = f"expected Action: {', '.join(ACTIONS)}, found {fields.get('action', 'none')!r}"
    if error is None and score is not None and not re.fullmatch(r"0?\.\d{1,9}|0|1(\.0{1,9})?", score, re.ASCII):
        error = f"expected Score: 0..1, found {score!r}"
    if error is not None:
        return {"action": len(ACTIONS), "strength": 0.0, "message": text, "error": error}
    kind = ACTIONS.index(action)
    return {
        "action": kind,
        "strength": clamp_strength(kind, None if score is None else float(score)),
        "message": reason,
    }


def _said(role: str, lines: Sequence[str]) -> Message:
    return {"role": role, "content": "\n".join(lines)}


def _proposal(observation: Observation, turn: int, items: Sequence[Item]) -> str:
    item = observation["proposals"][turn]
    title = items[item].title if item >= 0 else "nothing that can be read"
    return f"The recommender proposes {title}: {observation['rationales'][turn]}"


def _answer(observation: Observation, turn: int) -> str:
    action = observation["actions"][turn]
    if action < 0:
        return "The user gives no answer that can be read."
    return f"The user answers {ACTIONS[action]} ({observation['strengths'][turn]:.2f}): {observation['replies'][turn]}"


def _own_proposal(observation: Observation, turn: int) -> str:
    candidates = observation["candidates"].tolist()
    item = int(observation["proposals"][turn])
    number = candidates.index(item) if item >= 0 else len(candidates)
    return reply_text({"item": number, "message": observation["rationales"][turn]}, RECOMMENDER, len(candidates))


def _own_answer(observation: Observation, turn: int) -> str:
    kind = int(observation["actions"][turn])
    action = {"action": kind if kind >= 0 else len(ACTIONS), "strength": observation["strengths"][turn]}
    return reply_text({**action, "message": observation["replies"][turn]}, USER, 0)
