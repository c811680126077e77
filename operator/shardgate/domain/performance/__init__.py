"""How fast a declaration would serve: a roofline with overheads, as ranges.

Belongs here: what one pass through a model takes, what that makes of requests, what is moved between ranks.
Does not belong here: constants and rates of GPUs (``data/performance.json``, ``data/gpu_rates.json``), or what a figure is
worth (``score.py``).
"""
