"""From folders of images to batches.

groups.py finds and checks the groups of images of a set, pairs.py says which of them meet at a
step, loader.py reads their pixels. All of it runs on the host, in NumPy, PIL and Grain; random
changes to pixels happen later, on the accelerator.
"""
