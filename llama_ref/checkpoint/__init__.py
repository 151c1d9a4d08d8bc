"""Checkpoints on disk: name -> mapped tensor; what is malformed is refused."""
