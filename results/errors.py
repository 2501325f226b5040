"""What can be wrong with a results folder itself."""


class BadAddress(ValueError):
    """An address that is not that of a results folder. One line, without a secret that it may hold."""


class StorageTrouble(OSError):
    """The storage does not answer, or refuses, after patience. One line; what it is about may be whole."""


class StorageRefused(StorageTrouble):
    """There is no such bucket, or no permission. One line; trying again does not help."""


class LostLease(RuntimeError):
    """The step was taken over by another driver while it was worked on; what this one made of it is not kept."""


class TornFile(ValueError):
    """A file is there and is not whole: the machine that wrote it went down."""


def first_line(error: BaseException) -> str:
    """What an exception says, short enough for a message of one line."""
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
