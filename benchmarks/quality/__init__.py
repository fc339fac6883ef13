"""How good the answers are: Chinese, code and mathematics, asked through the served API. Knows nothing of
speed.
"""
