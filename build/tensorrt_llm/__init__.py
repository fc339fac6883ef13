"""The GPU engine: a checkpoint as TensorRT-LLM reads it, and the engine that trtllm-build makes of it.

Uses the programs on the PATH of NVIDIA's container. Independent of serving.
"""
