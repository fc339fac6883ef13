"""Measurements of a served model, at the endpoints its callers use. Knows the inside of nothing it
measures.
"""
