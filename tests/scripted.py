"""Scripted: a language model that says what a function of the request says. For tests of what lives by prompts."""

from collections.abc import Callable, Sequence

from agents.language_model import Reply, Request, Usage, read_values


class Scripted:
    """A language model whose replies are made by a function of the request; it keeps what it was asked."""

    name, separator = "scripted", "\n-"

    def __init__(self, script: Callable[[Request], str]) -> None:
        self.script, self.asked = script, list[Request]()

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        self.asked += requests
        replies = []
        for request in requests:
            text = self.script(request)
            found = read_values(text, request.fields)
            values, error = (None, found) if isinstance(found, str) else (found, None)
            replies.append(Reply(values, error, text, Usage(1, 10, 5, 0.5, 0.25)))
        return replies


def text_of(request: Request) -> str:
    """All that was asked and said, in one string."""
    return "".join(piece for message in request.messages for piece in message)
