"""From maps to tables of scores.

- metrics.py and weighted_fmeasure.py score one map by eval-co-sod; pysodmetrics.py scores it by
  that library.
- scores.py holds the result of both, and computes the scores of a set from it.
- maps.py finds, reads and writes map files; scoring.py scores them in processes; evaluator.py
  predicts them first.
- comparison.py computes deviations over seeds and intervals of differences.
- tables.py, curves.py, pictures.py and report.py present them next to paper.py.
- command.py is `evaluate.py`.

Only evaluator.py and command.py import JAX, so that scoring processes start quickly.
"""
