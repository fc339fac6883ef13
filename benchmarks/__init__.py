"""Measurements of a served model, at the endpoints its callers use. Independent of the internals it
measures.
"""
