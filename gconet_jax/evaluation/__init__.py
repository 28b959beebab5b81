"""From maps to tables.

metrics.py and weighted_fmeasure.py score one map by eval-co-sod, pysodmetrics.py by that library;
scores.py is what both give, and the numbers of a set made of it. maps.py finds, reads and writes
map files, scoring.py scores them in processes, evaluator.py predicts them first. comparison.py has
deviations over seeds and intervals of differences, tables.py, curves.py, pictures.py and report.py
show them beside paper.py, and command.py is `evaluate.py`. Only evaluator.py and command.py import
JAX, so that processes that score start quickly.
"""
