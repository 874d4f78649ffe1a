"""Losses into parameters, parameters into checkpoints; knows no model, data set or objective."""
