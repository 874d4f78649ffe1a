"""Groundwork: pretraining and finetuning in JAX, on one device or many."""
