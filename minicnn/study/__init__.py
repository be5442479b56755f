"""Looking at a network without changing it."""

from minicnn.study.anomaly import AnomalyError, detect_anomaly
from minicnn.study.health import Finding, Health
from minicnn.study.inside import look_inside
from minicnn.study.profile import profile
from minicnn.study.run import open_run
from minicnn.study.summary import summary
from minicnn.study.trace import trace, trace_backward

__all__ = ["AnomalyError", "Finding", "Health", "detect_anomaly", "look_inside", "open_run", "profile", "summary", "trace",
           "trace_backward"]
