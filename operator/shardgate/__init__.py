"""Shardgate tells whether the parallel strategy that an LLM deployment declares can run on the GPUs that are free.

Layers, imports pointing down this list only: ``shells`` -> ``adapters`` -> ``api`` -> ``domain``.
"""

from importlib.metadata import version

__version__ = version("shardgate")
