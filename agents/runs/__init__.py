"""Run folders on disk: settings, checkpoints, logs, evaluation and export of trained adapters."""
