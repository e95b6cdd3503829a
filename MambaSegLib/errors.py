"""The exceptions that cross every border of the library."""


class UserError(Exception):
    """Something the user can put right.

    Args:
        message: what was expected and what came, one sentence.
        hint: what to do about it, one sentence.
    """

    def __init__(self, message: str, hint: str = ""):
        super().__init__(f"{message} {hint}".strip())
        self.message = message
        self.hint = hint


class MissingPackage(UserError):
    """A Python package that a job needs is not installed, or cannot be imported.

    Args:
        package: its top-level name, as "torch".
    """

    def __init__(self, package: str, message: str, hint: str = ""):
        super().__init__(message, hint)
        self.package = package


class Cancelled(Exception):
    """The user asked a running job to stop; raised at the job's next report."""
