"""Data sets and a transform for tests/test_workers.py, in a module of their own so that worker processes can import them."""

import os
import signal
import sys
import time

import numpy as np

from minicnn.data import DataError


class Numbers:
    """Image i is full of the byte i; its label is i."""

    classes = ("one",)
    in_memory = False

    def __init__(self, count=20, side=4):
        self.count, self.side = count, side

    def __len__(self):
        return self.count

    def name(self, i):
        return f"number-{i}.jpg"

    def __getitem__(self, i):
        return np.full((self.side, self.side, 3), i, np.uint8), i


class Broken(Numbers):
    """Image 7 misbehaves, in the way `how` says: raises an error, ends its process, is unreadable, is larger, prints, or sleeps."""

    def __init__(self, how, count=20):
        super().__init__(count)
        self.how = how

    def __getitem__(self, i):
        if i == 7:
            if self.how == "raises":
                raise ZeroDivisionError("no such thing")
            if self.how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "exits":
                os._exit(3)
            if self.how == "is unreadable":
                raise DataError(f"{self.name(i)}: this image cannot be read (it is a test); replace it or remove it")
            if self.how == "is larger":
                return np.zeros((9, 9, 3), np.uint8), i
            if self.how == "prints":
                print("I am a data set")
                sys.stdout.flush()
            if self.how == "sleeps":
                time.sleep(60)
        if self.how == "is all unreadable":
            raise DataError(f"{self.name(i)}: this image cannot be read (it is a test); replace it or remove it")
        return super().__getitem__(i)


class RandomShift:
    """A random transform: adds a random byte to the whole image."""

    def __call__(self, image, rng):
        return image + rng.integers(0, 100, dtype=np.uint8)
