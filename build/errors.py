"""The one error of this package: something the user can fix, in one sentence."""


class BuildError(Exception):
    """A checkpoint, a file or the machine does not meet a requirement; the message states it."""
