"""Checkpoint in, OpenVINO model out: model.xml and model.bin with int8 weights, for the CPU engine."""
