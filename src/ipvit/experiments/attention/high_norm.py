"""From when on the norm of a patch is an outlier."""

HIGH_NORM = 4.0
"""So many times the median norm of its image: DINOv2's outliers have more, all other patches less."""
