"""Usage: what replies of a language model have cost."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """What answers have cost so far."""

    calls: int = 0
    """Replies asked for, repeated ones among them."""
    tokens_read: int = 0
    """Of contexts; what a cache still holds is not read again."""
    tokens_written: int = 0
    seconds: float = 0.0
    """Of waiting for replies; of a batch, each has its share."""
    money: float = 0.0
    """US dollars; 0 for models of one's own."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls + other.calls,
            self.tokens_read + other.tokens_read,
            self.tokens_written + other.tokens_written,
            self.seconds + other.seconds,
            self.money + other.money,
        )
