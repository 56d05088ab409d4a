"""The teacher: a frozen, verified network that runs only as far as it is read."""
