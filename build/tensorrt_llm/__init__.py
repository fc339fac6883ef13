"""The GPU engine: a checkpoint as TensorRT-LLM reads it, and the engine that trtllm-build makes of it.

Knows NVIDIA's container by what it has on the PATH; knows nothing of serving.
"""
