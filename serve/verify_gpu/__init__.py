"""First contact with a GPU: what could only be read in NVIDIA's sources so far, checked in order.

Each step says what it found, or what is not as assumed and which file of this repository to change then. It
runs in NVIDIA's container; `make verify-gpu`.
"""
