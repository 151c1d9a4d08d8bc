"""Measuring speed as ratios: ourselves, peers and the machine's limits, side by side in one run."""
