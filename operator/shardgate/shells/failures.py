"""Why a command could not do what it was asked for, by what its exit code tells. Each shell raises its own kind of them."""


class NotFound(Exception):
    """What was named is not there: a file, an object."""


class NotReadable(Exception):
    """What was named is there, and is not of the form that it should be."""


class ClusterFailed(Exception):
    """The cluster gave no answer, or an error."""
