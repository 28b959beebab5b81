"""From folders of images to batches.

files.py reads an image file, layouts.py and groups.py find the groups of a set, checks.py and
report.py say what is wrong with them. pixels.py and cache.py bring images to training size, sets.py
puts a config's sets together, pairs.py says which groups meet at a step, loader.py makes batches,
of which part.py names what one process loads; whole_groups.py gives those of evaluation.
All of it runs on the host, in NumPy, PIL and Grain. augment.py and jigsaw.py change batches on the
accelerator.
"""
