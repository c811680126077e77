"""Engines: what a name, a version, flags and variables mean, read from tables."""
