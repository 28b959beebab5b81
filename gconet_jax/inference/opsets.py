"""The ONNX operator sets that `export` supports."""

DEFAULT_OPSET = 18
# From 18 on, reductions take their axes as an input. onnxruntime 1.20, the oldest version that the
# extra `export` allows, supports up to 21.
OPSETS = range(DEFAULT_OPSET, 22)
