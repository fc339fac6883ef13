"""The check of a llama.cpp that was compiled for an NVIDIA card: `make verify-cuda`, where the card is.

`bundle`  what the check compares with, made beforehand on any machine with xllamacpp
`steps`   the checks themselves
Needs numpy, gguf and the engine's modules, no network and no Triton.
"""
