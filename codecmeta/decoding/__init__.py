"""Decoded pictures, their side data and their RGB form."""
