"""Our custom resources as pydantic models, and the CRDs that are rendered from them.

Belongs here: fields, their ranges, defaults and descriptions, and the rules that the API server checks (CEL) beside
their twins in Python. Does not belong here: what any of it means for a cluster (``adapters``, ``domain``).
"""

GROUP = "shardgate.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
