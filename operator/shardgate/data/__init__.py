"""Tables of facts, each with its sources. No code but the loading of them (``adapters``)."""
