"""Inference: from groups of photos to maps, pictures and exported networks.

- predictor.py predicts the maps of groups of images, with the compiled parts in stages.py.
- outputs.py, cosegment.py and thumbnail.py make pictures from a photo and its map.
- command.py implements `predict.py`.
- visualize.py plots what happens inside the network.
- export.py writes the network for other programs; onnx_graph.py builds its ONNX graph.
"""
