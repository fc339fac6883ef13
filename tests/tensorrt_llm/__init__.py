"""Stand-ins for what only a GPU machine has: NVIDIA's programs, its container, and the C++ backend."""
