"""Motion-compensated and intra prediction by the rules of each standard."""
