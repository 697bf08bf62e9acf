"""The commands: typed functions, their options, and their tables on the terminal.

Nothing that takes long to load is imported at the top of a module here.
"""
