"""Task, EpisodeSet: one decision to be played, and a frozen, hashed list of them."""
