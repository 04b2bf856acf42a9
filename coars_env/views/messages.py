"""messages: the dialogue as chat, in OpenAI's style, for either side. read_reply: a chat model's words as an action.

chat = coars_env.messages(observation, RECOMMENDER, items)
reply = client.chat.completions.create(model=..., messages=chat).choices[0].message.content
action = coars_env.read_reply(reply, RECOMMENDER, num_candidates=20)
"""

import re
from collections.abc import Iterable, Sequence

from coars_env.datasets.dataset import Facet, Item
from coars_env.observation import (
    Action,
    Observation,
    histories_of,
    instruction_of,
    kinds_of,
    num_users_of,
    of_user,
    opinions_heard,
    read_reveal,
)
from coars_env.rendering.text import peers_text
from coars_env.roles import RECOMMENDER, USER, Role, find_role, user_of
from coars_env.rules import Rules
from coars_env.transcript import ACTIONS, clamp_strength

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
ASK_RULE = (
    "\nIn place of an item you may ask what the user wants, but not in the last turn:\nAsk: <{kinds}>\nReason: <your "
    "question to the user>"
)
WISH_RULE = (
    "\nYou know what you want now. To say it, add a line:\nWish: <{kinds}>: <what you want>\nIf you are asked what you "
    "want, reply in two lines, a wish and a reason, or by a reason alone if you would rather not say."
)
REPEATS_RULE = "\nWhat the user dislikes or skips must not be recommended again."
"""What the system messages add: the first two in games with an instruction, the last where repeats are forbidden."""
_FIELD = re.compile(r"[\s*]*(item|action|score|reason)[\s*]*:[\s*]*(.*)", re.IGNORECASE)  # stars: bold in Markdown
_FIELD_OR_FACET = re.compile(_FIELD.pattern.replace("(item", "(ask|wish|item"), re.IGNORECASE)


def messages(observation: Observation, role: Role, items: Sequence[Item], rules: Rules | None = None) -> list[Message]:
    """What a chat model that plays `role` is to be sent. The other side's words are the chat's user.

    Of one dialogue each list begins with the one before it, so caches of prefixes hold. It ends with the other side's
    words in one's own half-turn, and with one's own after it.

    Args:
        observation: what `Dialogue.observe(role)` or `CoarsEnv` shows.
        role: whose observation it is. In a group the recommender hears each user by its number, and a user what the
            others answered with the next proposal.
        items: the catalogue, `env.episodes.items`.
        rules: of the game; needed where these forbid questions, since it is not seen in every turn.
    """
    role = find_role(role)
    place, group = user_of(role), num_users_of(observation)
    heard = [] if place is None or group == 1 else [f"You are user {place}; {group} users decide together."]
    for number, history in enumerate(histories_of(observation)):
        whose = f"User {number}, taken" if place is None and group > 1 else "Taken"
        heard += [f"{whose} so far, oldest first:", *(f"- {items[i].title}" for i in history)]
    if place is None:
        heard += ["Candidates:", *(f"{n}. {items[i].title}" for n, i in enumerate(observation["candidates"]))]
    elif kinds_of(observation):
        heard.append(f"You want: {'; '.join(map(str, instruction_of(observation))) or 'anything'}.")
    chat = [{"role": "system", "content": _rules(observation, role, rules or Rules())}]
    begun = int(observation["turn"]) + int(observation["speaker"])
    for turn in range(begun):
        proposed = _proposal(observation, turn, items)
        answered = _answers(observation, turn, but=place) if turn < observation["turn"] else []
        if place is None:
            chat += [_said("user", heard), {"role": "assistant", "content": _own_proposal(observation, turn)}]
        else:
            opinions = opinions_heard(observation, turn)
            peers = [peers_text(opinions, items)] if opinions else []
            chat.append(_said("user", [*heard, proposed, *peers]))
            if turn < observation["turn"]:
                chat.append({"role": "assistant", "content": _own_answer(of_user(observation, place), turn)})
        heard = answered
    if heard and (place is None or not begun):  # what other users of a group said is heard with the next proposal
        chat.append(_said("user", heard))
    return chat


def _rules(observation: Observation, role: Role, rules: Rules) -> str:
    content, kinds = RULES[RECOMMENDER if role == RECOMMENDER else USER], " or ".join(kinds_of(observation))
    if role == RECOMMENDER:
        content += ASK_RULE.format(kinds=kinds) if kinds and rules.questions else ""
        return content + (REPEATS_RULE if "allowed" in observation else "")
    return content + (WISH_RULE.format(kinds=kinds) if kinds else "")


def reply_text(action: Action, role: Role, num_candidates: int, *, asked: bool = False) -> str:
    """An action as a chat model should write it; only the message where the action names nothing."""
    message, wish = str(action["message"]), read_reveal(action)
    if role == RECOMMENDER:
        if action.get("ask"):
            return f"Ask: {action['ask']}\nReason: {message}"
        return f"Item: {action['item']}\nReason: {message}" if action["item"] < num_candidates else message
    lines = [] if wish is None else [f"Wish: {wish}"]
    unread = action["action"] >= len(ACTIONS)
    if unread and (not asked or action.get("error")):
        return message
    if not asked:
        lines = [f"Action: {ACTIONS[action['action']]}", f"Score: {float(action['strength']):.2f}", *lines]
    return "\n".join([*lines, f"Reason: {message}"])


def read_reply(
    text: str | None, role: Role, num_candidates: int, *, facets: Sequence[Facet] = (), asked: bool = False
) -> Action:
    """The action that a reply states, inverse of `reply_text`; never a guess.

    Fields stand on lines of their own, in any order; lines after a reason belong to it. A missing score is the middle
    of its action. What is missing, said twice or outside its range makes the whole message one that cannot be read;
    `error` then says why. So does None, which servers send in place of an empty reply.

    Args:
        text: the reply.
        role: whose it is.
        num_candidates: K.
        facets: what can be wanted in games with an instruction, `facet_vocabulary(items, kinds)`: then the recommender
            may ask for a kind of these, in place of an item, and the user wish for one of them.
        asked: whether the user is asked, see `asked_kind`: then it needs no action, but a wish or a reason.
    """
    text = text or ""
    fields, error = _fields(text, _FIELD_OR_FACET if facets else _FIELD)
    if find_role(role) == RECOMMENDER:
        return _read_recommender(fields, error, text, num_candidates, dict.fromkeys(facet.kind for facet in facets))
    return _read_user(fields, error, text, facets, asked)


def _fields(text: str, pattern: re.Pattern[str]) -> tuple[dict[str, str], str | None]:
    """What stands after each label, and which label stands there twice."""
    fields: dict[str, str] = {}
    error, last = None, ""
    for line in text.split("\n"):
        if found := pattern.fullmatch(line):
            last = found[1].lower()
            error = error or (f"the message states {last} twice" if last in fields else None)
            fields[last] = found[2].strip()
        elif last == "reason":
            fields[last] = f"{fields[last]} {line.strip()}".strip()
    return fields, error


def _read_recommender(
    fields: dict[str, str], error: str | None, text: str, num_candidates: int, kinds: Iterable[str]
) -> Action:
    reason = fields.get("reason", "")
    kind, error = _one_of(fields, "ask", kinds, error)
    if kind is not None and "item" in fields:
        error = error or "the message states both an item and a question"
    if error is None and kind is not None:
        return {"ask": kind, "item": num_candidates, "message": reason}
    number = re.fullmatch(r"(\d{1,9})\.?", fields.get("item", ""), re.ASCII)
    if error is None and number and int(number[1]) < num_candidates:
        return {"item": int(number[1]), "message": reason}
    found_item = f"expected Item: 0..{num_candidates - 1}, found {fields.get('item', 'none')!r}"
    return {"item": num_candidates, "message": text, "error": error or found_item}


def _read_user(fields: dict[str, str], error: str | None, text: str, facets: Sequence[Facet], asked: bool) -> Action:
    wish, error = _one_of(fields, "wish", map(str, facets), error)
    reveal = {} if wish is None else {"reveal": wish}
    if asked:
        if error is None and not {"wish", "reason"} & set(fields):
            error = "expected Wish: or Reason:, found neither"
        beside = {**reveal, "message": fields.get("reason", "")} if error is None else {"message": text, "error": error}
        return {"action": len(ACTIONS), "strength": 0.0, **beside}
    action, score = fields.get("action", "").lower().rstrip("."), fields.get("score")
    if error is None and action not in ACTIONS:
        error = f"expected Action: {', '.join(ACTIONS)}, found {fields.get('action', 'none')!r}"
    if error is None and score is not None and not re.fullmatch(r"0?\.\d{1,9}|0|1(\.0{1,9})?", score, re.ASCII):
        error = f"expected Score: 0..1, found {score!r}"
    if error is not None:
        return {"action": len(ACTIONS), "strength": 0.0, "message": text, "error": error}
    kind = ACTIONS.index(action)
    strength = clamp_strength(kind, None if score is None else float(score))
    return {"action": kind, "strength": strength, "message": fields.get("reason", ""), **reveal}


def _one_of(
    fields: dict[str, str], label: str, options: Iterable[str], error: str | None
) -> tuple[str | None, str | None]:
    """The option that a field names, in letters of either case, and the error, or what is wrong with the field."""
    if label not in fields or error is not None:
        return None, error
    written, known = fields[label], list(options)
    bare = written.rstrip(".").casefold()
    found = [option for option in known if option == written] or [one for one in known if one.casefold() == bare]
    if len(found) == 1:
        return found[0], None
    shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    return None, f"expected {label.title()}: one of {shown}, found {written!r}"


def _said(role: str, lines: Sequence[str]) -> Message:
    return {"role": role, "content": "\n".join(lines)}


def _proposal(observation: Observation, turn: int, items: Sequence[Item]) -> str:
    if kind := _question(observation, turn):
        return f"The recommender asks for the {kind}: {observation['rationales'][turn]}"
    item = observation["proposals"][turn]
    title = items[item].title if item >= 0 else "nothing that can be read"
    return f"The recommender proposes {title}: {observation['rationales'][turn]}"


def _question(observation: Observation, turn: int) -> str:
    """The kind that a turn asks for; empty if it asks for none."""
    return str(observation["questions"][turn]) if "questions" in observation else ""


def _wish(observation: Observation, turn: int) -> str:
    """What the user reveals in a turn; empty if it reveals nothing."""
    return str(observation["reveals"][turn]) if "reveals" in observation else ""


def _answers(observation: Observation, turn: int, *, but: int | None) -> list[str]:
    """What the users answered, but for one of them."""
    group = num_users_of(observation)
    names = ["The user"] if group == 1 else [f"User {place}" for place in range(group)]
    return [_answer(of_user(observation, n), turn, name) for n, name in enumerate(names) if n != but]


def _answer(observation: Observation, turn: int, name: str) -> str:
    action, wish, reply = observation["actions"][turn], _wish(observation, turn), observation["replies"][turn]
    if _question(observation, turn):
        return f"{name} wants {wish}: {reply}" if wish else f"{name} says: {reply}"
    if action < 0:
        return f"{name} gives no answer that can be read."
    wants = f", wants {wish}" if wish else ""
    return f"{name} answers {ACTIONS[action]} ({observation['strengths'][turn]:.2f}){wants}: {reply}"


def _own_proposal(observation: Observation, turn: int) -> str:
    candidates = observation["candidates"].tolist()
    item = int(observation["proposals"][turn])
    number = candidates.index(item) if item >= 0 else len(candidates)
    action = {"item": number, "message": observation["rationales"][turn], "ask": _question(observation, turn)}
    return reply_text(action, RECOMMENDER, len(candidates))


def _own_answer(observation: Observation, turn: int) -> str:
    kind = int(observation["actions"][turn])
    action = {"action": kind if kind >= 0 else len(ACTIONS), "strength": observation["strengths"][turn]}
    said = {"message": observation["replies"][turn], "reveal": _wish(observation, turn)}
    return reply_text({**action, **said}, USER, 0, asked=bool(_question(observation, turn)))
