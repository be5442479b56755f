"""Looking at a network without changing it."""

from minicnn.study.summary import summary

__all__ = ["summary"]
