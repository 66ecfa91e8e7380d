"""How a subcommand says that it cannot do what it was asked for."""


class CommandFailed(Exception):
    """The command ends with exit code 1; the message is one sentence for the user."""
