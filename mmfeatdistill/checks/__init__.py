"""Checks before a training: the teacher, the whole config, the balance of losses."""
