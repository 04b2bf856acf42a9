"""Systems compared on the same frozen episodes: `coars compare`."""
