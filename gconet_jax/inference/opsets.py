"""The ONNX operator sets that `export` can write."""

DEFAULT_OPSET = 18
# Reductions take their axes as an input from 18 on. onnxruntime 1.20, the oldest that the extra
# `export` allows, runs 21 and below.
OPSETS = range(DEFAULT_OPSET, 22)
