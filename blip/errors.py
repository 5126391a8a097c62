"""The one exception that users see."""


class BlipError(Exception):
    """Bad input or a run that cannot go on.

    The message is one line that names the file or key and what was expected; the command line prints it
    without a traceback and exits with status 2.
    """


class DivergedError(BlipError):
    """A loss that is not finite: the settings are to blame."""
