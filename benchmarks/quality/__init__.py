"""How good the answers are: Chinese, code and mathematics, through the served API. Not speed."""
