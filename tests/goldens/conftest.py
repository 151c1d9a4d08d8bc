"""What computes the goldens needs torch, which the tests that read them do not have."""

collect_ignore_glob = ["generate.py", "make_*.py", "witness.py"]
