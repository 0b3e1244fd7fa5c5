"""What `howdah up` serves so that there is something to try, and what `--demo` shows.

`handlers` are sample handlers, `receiver` a receiver of callbacks, `load` the
mix of tasks, `demo` puts them together and draws what becomes of them.
"""
