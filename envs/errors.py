"""The error that a user can mend. It stands below the games, so that one of them can say what it lacks."""


class UserError(Exception):
    """A mistake that the user can mend: its message is one line that names the file and the mending command."""
