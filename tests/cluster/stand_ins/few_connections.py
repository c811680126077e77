"""The operator with room for 200 connections: as many as a busy machine can open before the first are closed again."""

from shardgate.shells import connections

connections.MOST_CONNECTIONS = 200

from shardgate import main  # noqa: F401  # handlers of the operator
