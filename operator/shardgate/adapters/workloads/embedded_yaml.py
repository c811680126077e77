"""YAML in a text that an object carries. It is whoever's wrote it: what would take long or never end to read is no YAML here."""

import re

import yaml

from shardgate.adapters.yaml_size import sizes

MOST_DEPTH = 64
"""Of brackets. Configurations of engines have a handful; PyYAML takes a second for a thousand."""
MOST_NODES = 20_000
"""With each alias counted as what it stands for: a dozen lines can stand for billions."""
_BRACKETS = re.compile(r"[\[{\]}]")


def read_yaml(text: str) -> object:
    """What it says. Raises ``yaml.YAMLError``."""
    depth = 0
    for found in _BRACKETS.finditer(text):
        depth += 1 if found[0] in "[{" else -1
        if depth > MOST_DEPTH:
            problem = f"more than {MOST_DEPTH} brackets deep"
            raise yaml.YAMLError(problem)
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if sizes(node)[0] > MOST_NODES:
            problem = f"more than {MOST_NODES} values"
            raise yaml.YAMLError(problem)
        return loader.construct_document(node)
    except RecursionError:
        problem = "it nests without end"
        raise yaml.YAMLError(problem) from None
    except (ValueError, OverflowError) as error:  # a date that is none, and the like
        raise yaml.YAMLError(str(error)) from None
    finally:
        loader.dispose()
