"""Llama 3.1 in NumPy: a readable specification that runs."""
