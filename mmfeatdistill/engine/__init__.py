"""What plugs into MMEngine's Runner: hooks, optimizer wrappers, strategies, and the command lines over it."""
