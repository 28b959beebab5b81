"""Results of concurrent work."""

import collections
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any


def in_order(futures: Iterable[Future[Any]], ahead: int) -> Iterator[Any]:
    """Yield results in the order of submission.

    Args:
        futures: an iterable that submits work as it is consumed.
        ahead: number of futures to submit beyond the one whose result is awaited.
    """
    waiting: collections.deque[Future[Any]] = collections.deque()
    for future in futures:
        waiting.append(future)
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
