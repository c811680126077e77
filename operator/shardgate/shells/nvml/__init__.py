"""Reads NVIDIA's driver through pynvml.

Belongs here: which call is made, and when. Does not belong here: what an answer means (``adapters.nvml_values``).
"""
