"""Checkpoint files: read as data, loaded with a report, written atomically."""
