"""Texts of HTTP's ``Warning`` headers, as the API server writes admission's warnings into them."""

import re
from collections.abc import Iterable

_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


def warnings_in(headers: Iterable[str]) -> tuple[str, ...]:
    """In their order."""
    return tuple(each.replace('\\"', '"') for line in headers for each in _WARNING.findall(line))
