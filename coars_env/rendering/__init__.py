"""A dialogue to be read: `text`, as agents and files see it, and `terminal`, with its rewards, for people."""
