"""Tandem's library: the Llama-2-Chat recipe as functions and small classes, free of argument parsing and printing."""
