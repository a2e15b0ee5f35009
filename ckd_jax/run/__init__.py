"""One run, from its config to its summary; `train` tells the story."""
