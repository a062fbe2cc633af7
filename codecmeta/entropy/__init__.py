"""Entropy-coded data: bits, NAL units and the arithmetic decoding engine, shared by the bitstream readers."""
