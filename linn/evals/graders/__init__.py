"""Graders of benchmarks that no domain's grader fits; one file each, its name the grader's."""
