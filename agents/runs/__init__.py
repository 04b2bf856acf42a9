"""What lies on disk: run folders, checkpoints, logs, evaluation and export of trained adapters."""
