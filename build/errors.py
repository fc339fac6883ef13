"""The one error of this package: something the user can fix, in one sentence."""


class BuildError(Exception):
    """A checkpoint, a file or the machine is not as it must be; the message says what is expected."""
