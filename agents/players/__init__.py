"""Who plays: agents of both sides, by an adapter or by prompts alone, with their memories; and the judge."""
