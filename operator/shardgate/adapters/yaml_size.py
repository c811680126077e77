"""How much a YAML stands for once its aliases are put in: a dozen lines can stand for billions of values, or for no end of them."""

from collections.abc import Iterator

import yaml


class EndlessYaml(yaml.YAMLError):
    """A value contains itself."""

    def __init__(self, field: str, mark: yaml.Mark) -> None:
        self.problem = f"{field}: contains the whole of which it is a part" if field else "the document contains itself"
        self.problem_mark = mark
        super().__init__(self.problem)


def sizes(node: yaml.Node) -> tuple[int, int]:
    """Values in it with each alias counted as what it stands for, and as they are written.

    Keys count as values. Raises ``EndlessYaml``, and ``RecursionError`` for what is nested a thousand deep.
    """
    known: dict[int, int] = {}
    return _size(node, known, ()), len(known)


_OPEN = -1
"""In place of the size while it is counted."""


def _size(node: yaml.Node, known: dict[int, int], path: tuple[str, ...]) -> int:
    size = known.get(id(node))
    if size == _OPEN:
        raise EndlessYaml("".join(path).removeprefix("."), node.start_mark)
    if size is None:
        known[id(node)] = _OPEN
        size = known[id(node)] = 1 + sum(_size(each, known, (*path, step)) for step, each in _inner(node))
    return size


def _inner(node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield f"[{index}]", value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            step = f".{key.value}" if isinstance(key, yaml.ScalarNode) else ".?"
            yield step, key
            yield step, value
