"""Shardgate: can the parallel strategy that an LLM deployment declares run on the GPUs that are really free?

Layers, imports pointing down this list only: ``shells`` -> ``adapters`` -> ``api`` -> ``domain``.
"""

from importlib.metadata import version

__version__ = version("shardgate")
