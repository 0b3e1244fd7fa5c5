"""The worker process: claims runs, executes them, records their outcomes."""
