"""Checks before a training: the teacher, the entire config, the balance of losses."""
