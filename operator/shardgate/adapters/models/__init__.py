"""Models: config.json -> ``ModelArchitecture``, the built-in catalogue, and how checkpoints store weights."""
