"""What several tests use: cases, twins, small runs, and where data lies."""
