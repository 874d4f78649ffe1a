"""Numerical kernels: arrays in, arrays out, each beside a plain reference."""
