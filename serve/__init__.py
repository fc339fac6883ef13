"""Bringing the server up: settings, checks before the start, Triton's paths, and the launcher.

It knows where things lie and how they are started. It knows no tokens, no HTTP routes and no engine's inside.
"""
