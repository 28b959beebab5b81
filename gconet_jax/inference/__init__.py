"""From photos to what people want of them.

predictor.py gives maps of any groups of images, by the compiled parts in stages.py. photos.py reads
what users have, outputs.py, cosegment.py and thumbnail.py make pictures of a photo and its map, and
command.py is `predict.py`. visualize.py looks inside the network; export.py writes it for other
programs, with onnx_graph.py, which states each module as ONNX nodes.
"""
