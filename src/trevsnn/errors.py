"""The errors that a user can do something about: each is one sentence on what is wrong, where, and what to do."""

from __future__ import annotations


class UsageError(Exception):
    """The call is wrong: an option, a config, a name, or a library that is not installed. The command line exits with 2."""


class RunError(Exception):
    """The call is right but a file is missing or damaged, a disk is full, or the like. The command line exits with 1."""
