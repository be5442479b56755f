"""Experiments: claims of the AlexNet paper, each tested by one program."""
