"""The errors that have a meaning beyond 'something broke'."""


class BadInput(ValueError):
    """What the user gave cannot be used. One line that names the file and the key; never retried."""


class Diverged(RuntimeError):
    """A loss, a gradient or a weight stopped being finite. Never retried: the same seed would do it again."""
