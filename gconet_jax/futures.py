"""Results of what runs beside the caller."""

import collections
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any


def in_order(futures: Iterable[Future[Any]], ahead: int) -> Iterator[Any]:
    """Results in the order of submission; `ahead` wait beside the one that is next."""
    waiting: collections.deque[Future[Any]] = collections.deque()
    for future in futures:
        waiting.append(future)
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
