"""``iovirt bench``: what the ring costs, as ratios to the barest thing that does the same, in the same run."""
