"""A run of predictions on many pictures: shared out, read ahead, written beside, recorded."""
