"""`howdah up`: all of Howdah on one machine, in one command.

`up` is the life of it, `directory` what it keeps and how it stays the only one,
`children` the processes that it looks after, `child` the program that each of
them is, `screen` what people see.
"""
