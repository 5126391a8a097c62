"""The exceptions that users see, and text as a terminal may show it."""


class BlipError(Exception):
    """Bad input or a run that cannot go on.

    The message is one line that names the file or key and what was expected; the command line prints it
    without a traceback and exits with status 2.
    """


class DivergedError(BlipError):
    """A loss that is not finite, or a network that has learned nothing: the settings are to blame."""


def printable(text: str) -> str:
    """A text of a file in which nothing moves the cursor or colours a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
