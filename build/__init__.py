"""Weights in, engine out: everything that happens before serving. This package is independent of serving."""
