"""Whatever waits, retries, logs or fails: kopf, the API server, clocks, the terminal. Thin, and without arithmetic."""
