"""The decision: frozen values in, a verdict out. Standard library only; no clock, no I/O, no logging.

Belongs here: what a rank needs, where pods fit, which rule an engine has, who may refuse.
Does not belong here: how Kubernetes or an engine spells any of it (``adapters``), or when it is asked (``shells``).
"""
