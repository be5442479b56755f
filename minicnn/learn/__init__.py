"""For students: the source of an op side by side (show), exercises, their grading, and the test cases of every op (cases)."""
