"""Measurements of a network that leave it unchanged: summary, trace, profile, activations, anomaly detection. Imports only the core."""

from minicnn.inspect.activations import capture_activations
from minicnn.inspect.anomaly import AnomalyError, detect_anomaly
from minicnn.inspect.profile import profile
from minicnn.inspect.summary import summary
from minicnn.inspect.trace import trace, trace_backward

__all__ = ["AnomalyError", "capture_activations", "detect_anomaly", "profile", "summary", "trace", "trace_backward"]
