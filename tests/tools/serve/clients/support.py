"""Expected errors, without pytest, which the clients' environments lack."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def raises(error: type[Exception], words: str) -> Iterator[None]:
    """Check that the block raises an error with these words in its message."""
    try:
        yield
    except error as failure:
        if words not in str(failure):
            raise
    else:
        raise AssertionError(f"expected {error.__name__}: {words}")
