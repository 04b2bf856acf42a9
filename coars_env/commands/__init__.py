"""What `coars data` and `coars rescore` run."""
