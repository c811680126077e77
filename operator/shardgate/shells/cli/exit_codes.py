"""Exit codes, as the README promises them: 64 and above beat 1, 1 beats 2."""

REFUSED, UNDECIDED = 1, 2
UNHEALTHY = 1
"""Of ``doctor``."""
NOTHING_FITS = 1
"""Of ``plan``."""
WORSE = 1
"""Of ``whatif``."""
USAGE, BAD_DATA, NO_INPUT, UNAVAILABLE, INTERNAL = 64, 65, 66, 69, 70
INTERRUPTED = 130
