"""Time limits that all tests share. They tell a hang from an answer on a busy machine; they measure nothing.

What is promised in milliseconds is measured by `make promises`.
"""

START_S = 300.0
"""For a program to start, or to run to its end."""
WAIT_S = 120.0
"""For anything else that must happen."""
NEVER_S = 3600.0
"""How long the fakes are silent when the test depends on it that they do not answer."""
