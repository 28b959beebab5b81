"""From folders of images to batches.

- files.py reads an image file; layouts.py and groups.py find the groups of a set.
- checks.py and report.py report problems with them.
- pixels.py and cache.py provide images at training size.
- sets.py loads the sets of a config; pairs.py chooses the groups of each step.
- loader.py makes training batches; part.py is the part of a batch that one process loads.
- whole_groups.py makes evaluation batches.

These run on the host, in NumPy, PIL and Grain. augment.py and jigsaw.py change batches on the
accelerator.
"""
