"""Bringing the server up: settings, checks before the start, Triton's paths, and the launcher.

It locates and starts the parts. Independent of tokens, HTTP routes and engine internals.
"""
