"""Measurements of a served model, through the doors its callers use. Knows the inside of nothing it
measures.
"""
