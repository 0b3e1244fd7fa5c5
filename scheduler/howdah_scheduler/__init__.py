"""The scheduler process: the chores that keep the queue healthy."""
