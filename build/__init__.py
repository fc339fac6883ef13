"""Weights in, engine out: everything that happens before serving. This package knows nothing of serving."""
