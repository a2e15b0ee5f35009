"""What several tests use: cases, reference code, small runs, data paths."""
