"""Inputs of models: prompts, preprocessing, checkpoints and random weights."""
