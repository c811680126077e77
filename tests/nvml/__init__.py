"""An NVML to test with: a C library that tells what a JSON profile says, and processes that read it."""
