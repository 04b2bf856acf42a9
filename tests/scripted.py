"""Scripted: a language model that says what a function of the request says. For tests of what lives by prompts."""

from collections.abc import Callable, Sequence
from zlib import crc32

from agents.models.fields import Ranking
from agents.models.language_model import Reply, Request
from agents.models.replies import read_values
from agents.models.usage import Usage


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


def by_hash(request: Request) -> str:
    """A reply that a hash of all that was asked and said decides: as good as any, and always the same."""
    number = crc32((request.system + text_of(request)).encode())
    lines = []
    for asked in request.fields:
        number = crc32(asked.label.encode(), number)
        free = f"words of {number % 89}"
        options = asked.options or (free,)
        first = number % len(options)
        length = asked.kind.length if isinstance(asked.kind, Ranking) else 1
        lines.append(f"{asked.label} " + "\n".join((*options[first:], *options)[:length]))
    return "\n".join(lines)


class Stopping(Scripted):
    """Stops, as a user may stop a run, when it is asked for the n-th time; batches are counted."""

    def __init__(self, script: Callable[[Request], str], after: int) -> None:
        super().__init__(script)
        self.left = after

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().answer(requests)
