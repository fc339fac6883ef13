"""The demonstration checkpoint: its corpus, its trainer, and the measure of how well it recites.

A tiny `YoutuForCausalLM` that has memorised its answers, so that everything above it can be tried with real
weights on a machine where Youtu-LLM-2B is too heavy. It is not Youtu-LLM-2B.

`python -m build.demo.train` makes `checkpoint/`; `python -m build.demo.evaluate` measures what a server makes
of it. Nothing here knows engines.
"""
