"""Counts, sizes and times, for eyes."""

MILLIONS = 10_000_000
"""From here on a count is told in millions: eight digits are no longer read at a glance, and would
make a plan wider than a terminal."""


def counted(number: int) -> str:
    return f"{number:,}" if number < MILLIONS else f"{number / 1e6:,.1f} M"


def prefixed(number: float) -> str:
    """With a decimal prefix and a space, for a unit to follow."""
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.1f} {prefix}"
    return f"{number / 1e3:.1f} k"


def duration(seconds: float) -> str:
    if seconds < 1:
        return "< 1 s"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
