"""What the user can mend."""


class InputError(ValueError):
    """Bad input: a config, a data set, a checkpoint or weights. Commands print it and stop.

    Its message names the culprit (field, file, group or entry) and what to do about it.
    """


class CheckpointError(InputError):
    """A checkpoint or its run is missing, broken, or of another config; the message names it."""
