"""Numbers and lists as text: one format for each, used in every message, table and page."""

from collections.abc import Iterable


def pluralize(n: int, noun: str) -> str:
    """A count with its noun: "1 image", "2 images"."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def format_bytes(size: float) -> str:
    """A number of bytes in decimal units: 512 B, 34.1 kB, 4.6 MB, 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"


def format_shape(shape: Iterable[int]) -> str:
    """A shape as 16x96x55x55; the shape () as 1."""
    return "x".join(map(str, shape)) or "1"


def format_list(items: Iterable[object], limit: int = 10) -> str:
    """The first `limit` items, separated by commas, and how many there are if not all are shown."""
    texts = [str(item) for item in items]
    return ", ".join(texts[:limit]) + (f", ... ({len(texts)} in all)" if len(texts) > limit else "")
