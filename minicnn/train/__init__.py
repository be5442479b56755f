"""Utilities for a training loop: checkpoints, log, monitor, evaluation. The loop itself is yours: see examples/train_alexnet.py."""

from minicnn.train.checkpoint_manager import CheckpointManager, GracefulShutdown, load_latest, run_lock
from minicnn.train.evaluation import average_predictions, evaluate, predict
from minicnn.train.features import features
from minicnn.train.log import DivergenceError, TrainingLogger, read_log
from minicnn.train.monitor import Finding, TrainingMonitor
from minicnn.train.run import Run

__all__ = ["CheckpointManager", "DivergenceError", "Finding", "GracefulShutdown", "Run", "TrainingLogger", "TrainingMonitor",
           "average_predictions", "evaluate", "features", "load_latest", "predict", "read_log", "run_lock"]
