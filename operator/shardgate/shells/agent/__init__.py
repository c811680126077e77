"""The node agent: reads this node's driver, and publishes what it says.

It runs on every GPU node, in little memory: threads and the standard library's HTTP, none of kopf, ``kubernetes``, aiohttp,
pydantic and rich while it serves. It is started past ``shells.cli``, which imports all of these.
"""
