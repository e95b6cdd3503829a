"""How counts are said. Torch-free: panel, jobs and command line say them alike."""


def counted(count: int, one: str, many: str = "") -> str:
    """'1 case', '0 cases', '2 cases'; `many` is the plural where it is not `one` with an s, or translated."""
    return f"{count:d} {one if count == 1 else many or one + 's'}"
